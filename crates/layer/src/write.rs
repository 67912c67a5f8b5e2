//! Tar out. The same entries give the same bytes: ustar headers, PAX records only where a value does not fit, sorted
//! records, no names of users, no padding but zeros.
//!
//! PAX is written by hand because archives that mix PAX and GNU long-name records for one entry are read differently by
//! different readers. See "pax Interchange Format" in POSIX.1-2017, `pax`.

use std::io::{self, Read, Write};

use crate::entry::{Entry, ImagePath, Kind, Mark, Metadata, mark, whiteout_of};

/// The size of a tar block.
pub const BLOCK: usize = 512;

/// The two zero blocks that end an archive.
pub const END_OF_ARCHIVE: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The largest number that eleven octal digits hold.
const LARGEST_OCTAL_11: u64 = 0o77_777_777_777;
/// The largest number that seven octal digits hold.
const LARGEST_OCTAL_7: u32 = 0o7_777_777;

/// Writes entries as tar, without deciding where the archive ends: runs of entries can be concatenated.
pub struct EntryWriter<W> {
    inner: W,
}

impl<W: Write> EntryWriter<W> {
    /// Writes entries to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes an entry and its content, which must have exactly the size that the entry says. Fails with
    /// `UnexpectedEof` when it has not; the archive is then unusable. A name that means a deletion is refused: whoever
    /// reads the layer would delete something instead of making it.
    pub fn write(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        if mark(&entry.path) != Mark::None {
            let message = format!("{}: a name that layers use for deletions cannot be in an image", entry.path);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.write_header(entry)?;
        let size = entry.kind.size();
        let copied = io::copy(&mut content.take(size), &mut self.inner)?;
        if copied < size {
            let message = format!("{} ended after {copied} of {size} bytes", entry.path);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.pad(size)
    }

    /// Writes what deletes a path of the layers below. See "Whiteouts" in the OCI image specification, `layer.md`.
    pub fn write_whiteout(&mut self, deleted: &ImagePath, mtime: i64) -> io::Result<()> {
        let metadata = Metadata { mtime, ..Metadata::default() };
        self.write_header(&Entry { path: whiteout_of(deleted), kind: Kind::File { size: 0 }, metadata })
    }

    /// Writes an entry that has no content.
    pub fn write_empty(&mut self, entry: &Entry) -> io::Result<()> {
        self.write(entry, &mut io::empty())
    }

    /// The inner writer.
    pub fn into_inner(self) -> W {
        self.inner
    }

    fn write_header(&mut self, entry: &Entry) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            let header = pax_header(records.len() as u64);
            self.inner.write_all(&header)?;
            self.inner.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.inner.write_all(&ustar_header(entry)?)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            self.inner.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

/// The name in an archive: directories end in a slash, the root is `./`.
fn name_of(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_bytes().to_vec();
    if entry.kind == Kind::Directory {
        if name.is_empty() {
            name.push(b'.');
        }
        name.push(b'/');
    }
    name
}

fn link_of(entry: &Entry) -> &[u8] {
    match &entry.kind {
        Kind::Symlink { target } => target,
        Kind::HardLink { target } => target.as_bytes(),
        _ => b"",
    }
}

/// The records for what the ustar header cannot hold, in a fixed order.
fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let name = name_of(entry);
    if name.len() > 100 {
        pax_record(&mut records, b"path", &name);
    }
    if link_of(entry).len() > 100 {
        pax_record(&mut records, b"linkpath", link_of(entry));
    }
    let numbers = [
        (&b"size"[..], entry.kind.size().into(), entry.kind.size() > LARGEST_OCTAL_11),
        (b"uid", entry.metadata.uid.into(), entry.metadata.uid > LARGEST_OCTAL_7),
        (b"gid", entry.metadata.gid.into(), entry.metadata.gid > LARGEST_OCTAL_7),
        (b"mtime", entry.metadata.mtime.into(), !(0..=LARGEST_OCTAL_11 as i64).contains(&entry.metadata.mtime)),
    ];
    for (key, value, needed) in numbers {
        let value: i128 = value;
        if needed {
            pax_record(&mut records, key, value.to_string().as_bytes());
        }
    }
    for (key, value) in &entry.metadata.xattrs {
        pax_record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    records
}

/// Appends `<length> <key>=<value>\n`, where the length counts itself.
fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn pax_header(size: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    put(&mut header.as_ustar_mut().expect("made as ustar").name, b"PaxHeader");
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    *header.as_bytes()
}

fn ustar_header(entry: &Entry) -> io::Result<[u8; BLOCK]> {
    let mut header = tar::Header::new_ustar();
    put(&mut header.as_ustar_mut().expect("made as ustar").name, &name_of(entry));
    put(&mut header.as_ustar_mut().expect("made as ustar").linkname, link_of(entry));
    header.set_entry_type(entry_type(&entry.kind));
    header.set_mode(entry.metadata.mode & 0o7777);
    header.set_size(if entry.kind.size() > LARGEST_OCTAL_11 { 0 } else { entry.kind.size() });
    let small = |id: u32| u64::from(if id > LARGEST_OCTAL_7 { 0 } else { id });
    header.set_uid(small(entry.metadata.uid));
    header.set_gid(small(entry.metadata.gid));
    header.set_mtime(u64::try_from(entry.metadata.mtime).ok().filter(|time| *time <= LARGEST_OCTAL_11).unwrap_or(0));
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
        if major > LARGEST_OCTAL_7 || minor > LARGEST_OCTAL_7 {
            let message = format!("{}: device numbers {major}:{minor} do not fit into a tar header", entry.path);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    header.set_cksum();
    Ok(*header.as_bytes())
}

fn entry_type(kind: &Kind) -> tar::EntryType {
    match kind {
        Kind::Directory => tar::EntryType::Directory,
        Kind::File { .. } => tar::EntryType::Regular,
        Kind::Symlink { .. } => tar::EntryType::Symlink,
        Kind::HardLink { .. } => tar::EntryType::Link,
        Kind::CharDevice { .. } => tar::EntryType::Char,
        Kind::BlockDevice { .. } => tar::EntryType::Block,
        Kind::Fifo => tar::EntryType::Fifo,
    }
}

/// Copies as much of `value` as fits; a PAX record holds the whole of what does not.
fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::entries;

    fn entry(path: &[u8], kind: Kind, metadata: Metadata) -> Entry {
        Entry { path: ImagePath::parse(path).unwrap(), kind, metadata }
    }

    fn samples() -> Vec<Entry> {
        let plain = Metadata { mode: 0o4755, uid: 0, gid: 7, mtime: 1_700_000_000, ..Metadata::default() };
        let huge_ids = Metadata { uid: 4_000_000_000, gid: 3_000_000, mtime: -5, ..plain.clone() };
        let mut with_xattrs = plain.clone();
        with_xattrs.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, b'\n', 0, b'=', 255]);
        with_xattrs.xattrs.insert(b"user.note".to_vec(), b"x".repeat(120));
        let long = [b"dir/".to_vec(), b"n".repeat(200)].concat();
        let target = ImagePath::parse(&long).unwrap();
        vec![
            entry(b"", Kind::Directory, plain.clone()),
            entry(b"dir", Kind::Directory, plain.clone()),
            entry(&long, Kind::File { size: 5 }, with_xattrs.clone()),
            entry(b"hard", Kind::HardLink { target }, with_xattrs),
            entry(b"soft", Kind::Symlink { target: b"../t".repeat(60) }, huge_ids),
            entry(b"null", Kind::CharDevice { major: 1, minor: 3 }, plain.clone()),
            entry(b"disk", Kind::BlockDevice { major: 8, minor: 0 }, plain.clone()),
            entry(b"pipe", Kind::Fifo, plain.clone()),
            entry(b"na\xffme", Kind::File { size: 5 }, plain),
        ]
    }

    fn archive() -> Vec<u8> {
        let mut writer = EntryWriter::new(Vec::new());
        for entry in samples() {
            let content: &[u8] = if entry.kind.size() > 0 { b"hello" } else { b"" };
            writer.write(&entry, &mut &content[..]).unwrap();
        }
        [writer.into_inner(), END_OF_ARCHIVE.to_vec()].concat()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = archive();
        let mut found = Vec::new();
        entries(&bytes[..], |entry, content| {
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            assert_eq!(text.len() as u64, entry.kind.size());
            found.push(entry);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, samples());
    }

    #[test]
    fn content_shorter_than_announced_is_an_error() {
        let file = entry(b"f", Kind::File { size: 10 }, Metadata::default());
        let error = EntryWriter::new(io::sink()).write(&file, &mut &b"short"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn names_that_mean_deletions_are_only_written_as_deletions() {
        for name in [&b"dir/.wh.x"[..], b".wh..wh..opq"] {
            let file = entry(name, Kind::File { size: 0 }, Metadata::default());
            assert!(EntryWriter::new(io::sink()).write_empty(&file).is_err());
        }
        let mut writer = EntryWriter::new(Vec::new());
        writer.write_whiteout(&ImagePath::parse("dir/x").unwrap(), 7).unwrap();
        assert!(writer.into_inner().starts_with(b"dir/.wh.x\0"));
    }

    #[test]
    fn gnu_tar_lists_the_archive() {
        let mut child = std::process::Command::new("tar")
            .args(["-tvf", "-", "--numeric-owner"])
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert_eq!(text.lines().count(), samples().len(), "{text}");
        assert!(text.contains("4000000000/3000000"), "{text}");
    }
}
