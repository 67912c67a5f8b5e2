//! Tar in: entries of a layer or a package, checked before anyone acts on them.
//!
//! Headers are decoded by the `tar` crate; the sequence of headers is followed here, because values of PAX records may
//! hold any byte (a file capability may hold a newline) and because the memory that a hostile archive can claim with
//! long names must be bounded.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::entry::{Entry, ImagePath, Kind, Metadata};
use crate::write::BLOCK;

/// The prefix under which PAX records carry extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// The most that the PAX records or a GNU long name of one entry may take.
const LARGEST_EXTENSION: u64 = 1 << 20;

/// Calls `each` with every entry of the archive and a reader of its content, in order. Long names, PAX records and GNU
/// long names are resolved; kinds that images do not have (sparse files, multi-volume parts) are errors. What `each`
/// does not read of the content is skipped. The archive ends at the first zero block, or where its bytes end.
pub fn entries<R: Read>(
    mut archive: R,
    mut each: impl FnMut(Entry, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut extension = Extension::default();
    while let Some(header) = next_header(&mut archive)? {
        let size = header.entry_size()?;
        extension.grow(&header, size)?;
        match header.entry_type() {
            tar::EntryType::XHeader => extension.read_pax(&bounded(&mut archive, size)?)?,
            tar::EntryType::XGlobalHeader => skip(&mut archive, padded(size)?)?,
            tar::EntryType::GNULongName => extension.name = Some(text(bounded(&mut archive, size)?)),
            tar::EntryType::GNULongLink => extension.link = Some(text(bounded(&mut archive, size)?)),
            _ => {
                let extension = std::mem::take(&mut extension);
                let size = extension.size.unwrap_or(size);
                let entry = extension.apply(&header, size)?;
                let mut content = (&mut archive).take(size);
                each(entry, &mut content)?;
                let unread = content.limit();
                skip(&mut archive, unread + (padded(size)? - size))?;
            }
        }
    }
    if extension != Extension::default() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends before the entry it announced"));
    }
    Ok(())
}

/// The next header, or none at the end of the archive.
fn next_header(archive: &mut impl Read) -> io::Result<Option<tar::Header>> {
    let mut block = Vec::with_capacity(BLOCK);
    archive.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
    if block.is_empty() || block.iter().all(|byte| *byte == 0) && block.len() == BLOCK {
        return Ok(None);
    }
    if block.len() < BLOCK {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a header"));
    }
    let header = tar::Header::from_byte_slice(&block).clone();
    let sum = |total: u32, byte: &u8| total + u32::from(*byte);
    let expected = block[..148].iter().chain(&block[156..]).fold(8 * u32::from(b' '), sum);
    if header.cksum()? != expected {
        return Err(invalid("a header's checksum is wrong: this is not a tar archive, or it is damaged"));
    }
    Ok(Some(header))
}

fn padded(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| invalid("an entry's size is out of range"))
}

fn skip(archive: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut archive.by_ref().take(bytes), &mut io::sink())?;
    if skipped < bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within an entry"));
    }
    Ok(())
}

/// The whole content of an extension entry, padding consumed.
fn bounded(archive: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    if size > LARGEST_EXTENSION {
        return Err(invalid(format!("extended metadata of {size} bytes: more than {LARGEST_EXTENSION} is refused")));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    archive.by_ref().take(size).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within extended metadata"));
    }
    skip(archive, padded(size)? - size)?;
    Ok(bytes)
}

/// GNU long names end in a NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// What the headers before an entry say about it.
#[derive(Default, PartialEq)]
struct Extension {
    bytes: u64,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extension {
    /// Counts what the headers before one entry hold together, and refuses too much.
    fn grow(&mut self, header: &tar::Header, size: u64) -> io::Result<()> {
        let kind = header.entry_type();
        if kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink() {
            self.bytes = self.bytes.saturating_add(size);
        }
        if self.bytes > LARGEST_EXTENSION {
            return Err(invalid(format!("more than {LARGEST_EXTENSION} bytes of extended metadata for one entry")));
        }
        Ok(())
    }

    /// Reads records of the form `<length> <key>=<value>\n`.
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            let (key, value, rest) = next_record(records).ok_or_else(|| invalid("a PAX record is malformed"))?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(key, value)?),
            b"uid" => self.uid = Some(number(key, value)?),
            b"gid" => self.gid = Some(number(key, value)?),
            b"mtime" => self.mtime = Some(seconds(key, value)?),
            key if key.starts_with(b"GNU.sparse.") => return Err(invalid("sparse entries are not part of an image")),
            key => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }

    fn apply(self, header: &tar::Header, size: u64) -> io::Result<Entry> {
        let name = self.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = ImagePath::parse(&name).map_err(invalid)?;
        let link = self.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let kind = kind_of(header, &path, name.ends_with(b"/"), link, size)?;
        let id = |value: u64| {
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| invalid(format!("{path}: owner {value} is too large")))
        };
        let uid = id(self.uid.map_or_else(|| header.uid(), Ok)?)?;
        let gid = id(self.gid.map_or_else(|| header.gid(), Ok)?)?;
        let mtime = match self.mtime {
            Some(time) => time,
            None => i64::try_from(header.mtime()?).unwrap_or(i64::MAX),
        };
        let metadata = Metadata { mode: header.mode()? & 0o7777, uid, gid, mtime, xattrs: self.xattrs };
        Ok(Entry { path, kind, metadata })
    }
}

fn next_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

fn kind_of(
    header: &tar::Header,
    path: &ImagePath,
    ends_in_slash: bool,
    link: Option<Vec<u8>>,
    size: u64,
) -> io::Result<Kind> {
    let device =
        || -> io::Result<(u32, u32)> { Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))) };
    let link = || link.ok_or_else(|| invalid(format!("{path}: a link without a target")));
    match header.entry_type() {
        tar::EntryType::Directory => Ok(Kind::Directory),
        // The old spelling of a directory is a regular file whose name ends in a slash.
        tar::EntryType::Regular | tar::EntryType::Continuous if ends_in_slash => Ok(Kind::Directory),
        tar::EntryType::Regular | tar::EntryType::Continuous => Ok(Kind::File { size }),
        tar::EntryType::Symlink => Ok(Kind::Symlink { target: link()? }),
        tar::EntryType::Link => Ok(Kind::HardLink { target: ImagePath::parse(link()?).map_err(invalid)? }),
        tar::EntryType::Char => device().map(|(major, minor)| Kind::CharDevice { major, minor }),
        tar::EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice { major, minor }),
        tar::EntryType::Fifo => Ok(Kind::Fifo),
        other => Err(invalid(format!("{path}: entries of type {other:?} are not part of an image"))),
    }
}

fn number(key: &[u8], value: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| not_a_number(key, value))
}

/// Fractions of a second are dropped: layers of different tools compare whole seconds.
fn seconds(key: &[u8], value: &[u8]) -> io::Result<i64> {
    let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
    std::str::from_utf8(whole).ok().and_then(|text| text.parse().ok()).ok_or_else(|| not_a_number(key, value))
}

fn not_a_number(key: &[u8], value: &[u8]) -> io::Error {
    let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
    invalid(format!("PAX record {key}={value} is not a number"))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        entries(bytes, |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    #[test]
    fn nothing_and_zero_blocks_are_an_empty_archive() {
        assert_eq!(read(b"").unwrap(), 0);
        assert_eq!(read(&[0; 1024]).unwrap(), 0);
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let mut writer = crate::write::EntryWriter::new(Vec::new());
        let metadata = Metadata { xattrs: [(b"user.a".to_vec(), b"b".to_vec())].into(), ..Metadata::default() };
        let file = Entry { path: ImagePath::parse("f").unwrap(), kind: Kind::File { size: 3 }, metadata };
        writer.write(&file, &mut &b"abc"[..]).unwrap();
        let good = writer.into_inner();
        assert_eq!(read(&good).unwrap(), 1);
        for end in (1..good.len()).filter(|end| end % 512 != 0 || *end == 512 || *end == 1024 || *end == 1536) {
            assert!(read(&good[..end]).is_err(), "cut after {end} bytes");
        }
        for position in [0, 100, 514] {
            let mut damaged = good.clone();
            damaged[position] ^= 0xff;
            assert!(read(&damaged).is_err(), "byte {position}");
        }
    }

    #[test]
    fn entries_that_point_out_of_the_root_are_refused() {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..5].copy_from_slice(b"../up");
        header.set_entry_type(tar::EntryType::Regular);
        for set in [tar::Header::set_uid, tar::Header::set_gid, tar::Header::set_size, tar::Header::set_mtime] {
            set(&mut header, 0);
        }
        header.set_mode(0o644);
        header.set_cksum();
        let error = read(header.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(".."), "{error}");
    }
}
