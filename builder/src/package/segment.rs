//! From a `.deb` to a segment: the package's files as a piece of a layer's tar, compressed once and kept in the cache.
//!
//! A segment holds everything of a package but its directories, which belong to the layer: dpkg keeps the attributes of
//! the first package that ships a directory, while readers of a tar keep the last. It also holds what dpkg's database
//! keeps of the package (its scripts, the list of its files, …), so that a package is complete in its layer.
//!
//! Paths are those after the merge of `/bin`, `/sbin` and `/lib*` into `/usr`; a tar entry below a name that is a link
//! in the image would be read differently by different readers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use content::{Digest, FramedHasher, VerifyingReader};
use debian::DebReader;
use debian::dpkg::{Md5Hasher, database_name, list_file};
use debian::package::MultiArch;
use layer::compress::{BlockWriter, Compression};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::write::EntryWriter;
use serde::{Deserialize, Serialize};
use store::{Area, Cache, StoreError};

use crate::error::BuildError;
use crate::package::bytecode::Bytecode;
use crate::package::compiles::{Compile, compiles};
use crate::plan::LockedPackage;

/// The largest package taken, unpacked.
const LARGEST_PACKAGE: u64 = 16 << 30;

/// Counts versions of what this module makes; part of every key.
const VERSION: &str = "segment 4";

/// Links of a merged `/usr`, as debootstrap makes them on amd64.
///
/// See the package `usr-is-merged`, which refuses to be installed without them.
pub const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// A package's files, ready to be laid, and what is known of them.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Names the package, what is left out of it, and how it is compressed.
    pub key: Digest,
    /// The compressed run of tar entries.
    pub path: PathBuf,
    /// Names its bytes.
    pub digest: Digest,
    /// What is in it.
    pub record: Record,
    /// The bytecode of its modules, if that was made apart from an image.
    pub bytecode: Option<Bytecode>,
}

/// What is known of a package once it has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Bytes of its files.
    pub unpacked_size: u64,
    /// The newest time in it, in seconds since 1970: the date of the package.
    pub date: i64,
    /// Its directories, sorted.
    pub directories: Vec<Directory>,
    /// The paths of everything else, as laid, sorted.
    pub files: Vec<String>,
    /// The paths as the package has them, in its order: dpkg's list.
    pub list: Vec<String>,
    /// Its configuration files and the md5 of each.
    pub conffiles: Vec<(String, String)>,
    /// Its control stanza.
    pub control: String,
    /// Its `triggers` file.
    pub triggers: String,
    /// Its `conffiles` file.
    pub conffiles_text: String,
    /// Whether it has a `preinst`.
    pub preinst: bool,
    /// The Python modules that its `postinst` compiles.
    pub compiles: Vec<Compile>,
}

/// What the cache remembers of a segment.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Names the bytes of the segment.
    digest: Digest,
    /// How many they are.
    size: u64,
    /// When they were known to be these last: see [`Cache::boot`].
    #[serde(default)]
    boot: Option<String>,
    record: Record,
}

/// A directory that a package ships.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where it is, as laid.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time.
    pub mtime: i64,
}

impl Segment {
    /// The segment of a package, from the cache or from its `.deb`, without the paths in `left_out`: files that
    /// another package of the image replaces.
    pub fn of(
        cache: &Cache,
        package: &LockedPackage,
        compression: Compression,
        left_out: &BTreeSet<String>,
    ) -> Result<Self, BuildError> {
        let (key, record_key) = keys(package, compression, left_out);
        if let Some(found) = Self::cached(cache, key, record_key)? {
            return Ok(found);
        }
        let _making = cache.lock(Area::Segments, key, &mut || {})?;
        if let Some(found) = Self::cached(cache, key, record_key)? {
            return Ok(found);
        }
        let deb = verified_deb(cache, package)?;
        let writer = cache.writer(Area::Segments, key)?;
        let failed = |source| BuildError::Package { package: package.label(), source };
        let (writer, record) = make(&deb, writer, compression, left_out).map_err(failed)?;
        let (path, digest, size) = writer.commit_unsynced()?;
        let kept = Kept { digest, size, boot: cache.boot().map(str::to_owned), record };
        cache.put_json(Area::Segments, record_key, &kept)?;
        Ok(Self { key, path, digest, record: kept.record, bytecode: None })
    }

    /// The keys of a segment and of its record.
    pub fn keys_of(package: &LockedPackage, compression: Compression, left_out: &BTreeSet<String>) -> (Digest, Digest) {
        keys(package, compression, left_out)
    }

    /// The key of its record.
    pub fn record_key(&self) -> Digest {
        record_key(self.key)
    }

    /// The directories that its files are in, and those of its bytecode.
    pub fn directories(&self) -> impl Iterator<Item = &Directory> {
        let of_bytecode = self.bytecode.iter().flat_map(|bytecode| &bytecode.directories);
        self.record.directories.iter().chain(of_bytecode)
    }

    /// Names what is laid of it: the package's files, and its bytecode if there is any.
    pub fn keys(&self) -> impl Iterator<Item = Digest> {
        [self.key].into_iter().chain(self.bytecode.iter().map(|bytecode| bytecode.key))
    }

    /// Removes the segments of a package that have other bytes than when they were made. Returns whether there were any.
    pub fn discard_damaged(
        cache: &Cache,
        package: &LockedPackage,
        compression: Compression,
        left_out: &BTreeSet<String>,
    ) -> Result<bool, BuildError> {
        let (key, record_key) = keys(package, compression, left_out);
        let Some(kept) = cache.get_json::<Kept>(Area::Segments, record_key)? else { return Ok(false) };
        let Some(path) = cache.file(Area::Segments, key) else { return Ok(false) };
        if is_whole(VerifyingReader::new(File::open(path)?, kept.digest, kept.size)) {
            return Ok(false);
        }
        cache.remove(Area::Segments, key)?;
        Ok(true)
    }

    /// Whether the whole package's segment is in the cache, so that its `.deb` is not needed.
    pub fn is_kept(cache: &Cache, package: &LockedPackage, compression: Compression) -> bool {
        let (key, record_key) = keys(package, compression, &BTreeSet::new());
        cache.file(Area::Segments, key).is_some() && cache.file(Area::Segments, record_key).is_some()
    }

    /// The whole package's segment, if it is in the cache.
    pub fn kept(cache: &Cache, package: &LockedPackage, compression: Compression) -> Result<Option<Self>, BuildError> {
        let (key, record_key) = keys(package, compression, &BTreeSet::new());
        Self::cached(cache, key, record_key)
    }

    /// How many bytes the whole package's segment has, if it is in the cache.
    pub fn kept_size(
        cache: &Cache,
        package: &LockedPackage,
        compression: Compression,
    ) -> Result<Option<u64>, StoreError> {
        let (key, record_key) = keys(package, compression, &BTreeSet::new());
        match cache.file(Area::Segments, key) {
            Some(_) => Ok(cache.get_json::<Kept>(Area::Segments, record_key)?.map(|kept| kept.size)),
            None => Ok(None),
        }
    }

    /// The name under which dpkg files the package in its database.
    pub fn database_name(&self) -> String {
        let stanza = debian::deb822::single_stanza(&self.record.control).ok();
        let field = |name| stanza.as_ref().and_then(|stanza| stanza.get(name)).unwrap_or_default().trim();
        let multi_arch = MultiArch::parse(field("Multi-Arch")).unwrap_or_default();
        database_name(field("Package"), field("Architecture"), multi_arch)
    }

    fn cached(cache: &Cache, key: Digest, record_key: Digest) -> Result<Option<Self>, BuildError> {
        let (Some(path), Some(mut kept)) =
            (cache.file(Area::Segments, key), cache.get_json::<Kept>(Area::Segments, record_key)?)
        else {
            return Ok(None);
        };
        if !is_settled(cache, &path, (kept.digest, kept.size), kept.boot.as_deref())? {
            return Ok(None);
        }
        if kept.boot.as_deref() != cache.boot() {
            kept.boot = cache.boot().map(str::to_owned);
            cache.put_json(Area::Segments, record_key, &kept)?;
        }
        let Kept { digest, record, .. } = kept;
        Ok(Some(Self { key, path, digest, record, bytecode: None }))
    }
}

/// Whether a segment has the bytes that its record names. They are read if the machine was started since that was known
/// last, because nobody waited for the disk; their number is always looked at.
pub fn is_settled(
    cache: &Cache,
    path: &Path,
    (digest, size): (Digest, u64),
    boot: Option<&str>,
) -> Result<bool, BuildError> {
    // One that was cut where one of its parts ends would be read without an error.
    if fs::metadata(path)?.len() != size {
        return Ok(false);
    }
    let is_known = boot.is_some() && boot == cache.boot();
    Ok(is_known || is_whole(VerifyingReader::new(File::open(path)?, digest, size)))
}

/// The kept `.deb` of a package. One that the disk damaged is removed, and counts as absent.
fn verified_deb(cache: &Cache, package: &LockedPackage) -> Result<PathBuf, BuildError> {
    let digest = package.sha256;
    let missing = || StoreError::Missing { digest };
    let reader = cache.open_content(Area::Debs, digest, package.size)?.ok_or_else(missing)?;
    if !is_whole(reader) {
        cache.remove(Area::Debs, digest)?;
    }
    Ok(cache.file(Area::Debs, digest).ok_or_else(missing)?)
}

fn is_whole(mut reader: VerifyingReader<File>) -> bool {
    io::copy(&mut reader, &mut io::sink()).is_ok()
}

/// The keys of a segment and of its record.
fn keys(package: &LockedPackage, compression: Compression, left_out: &BTreeSet<String>) -> (Digest, Digest) {
    let key = FramedHasher::new(VERSION)
        .field("deb", package.sha256.as_bytes())
        .field("encoder", compression.encoder())
        .list("left out", left_out.iter().collect::<Vec<_>>())
        .finish();
    (key, record_key(key))
}

fn record_key(segment: Digest) -> Digest {
    FramedHasher::new("segment record").field("segment", segment.as_bytes()).finish()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn make<W: Write>(
    deb: &Path,
    writer: W,
    compression: Compression,
    left_out: &BTreeSet<String>,
) -> Result<(W, Record), Failure> {
    let reader = DebReader::new(BufReader::with_capacity(1 << 16, File::open(deb)?))?;
    let control = reader.control().clone();
    let text = |name: &str| control.text(name).unwrap_or_default().to_owned();
    let conffiles = text("conffiles");
    let mut maker = Maker {
        writer: EntryWriter::new(BlockWriter::new(writer, compression)),
        left_out,
        wanted_md5: conffiles.lines().filter_map(|line| line.split_whitespace().last()).collect(),
        md5: BTreeMap::new(),
        directories: BTreeMap::new(),
        files: BTreeSet::new(),
        list: Vec::new(),
        unpacked_size: 0,
        date: 0,
    };
    let mut data = reader.data(LARGEST_PACKAGE)?;
    layer::read::entries(&mut data, |entry, content| maker.entry(entry, content))?;
    data.finish()?;
    maker.database(&control)?;
    let record = Record {
        unpacked_size: maker.unpacked_size,
        date: maker.date,
        directories: maker.directories.into_values().collect(),
        files: maker.files.into_iter().collect(),
        list: maker.list,
        conffiles: maker.md5.into_iter().collect(),
        control: text("control"),
        triggers: text("triggers"),
        preinst: control.file("preinst").is_some(),
        compiles: compiles(&text("postinst")),
        conffiles_text: conffiles.clone(),
    };
    let (writer, _) = maker.writer.into_inner().finish()?;
    Ok((writer, record))
}

struct Maker<'a, W: Write> {
    writer: EntryWriter<BlockWriter<W>>,
    left_out: &'a BTreeSet<String>,
    wanted_md5: BTreeSet<&'a str>,
    md5: BTreeMap<String, String>,
    directories: BTreeMap<String, Directory>,
    files: BTreeSet<String>,
    list: Vec<String>,
    unpacked_size: u64,
    date: i64,
}

impl<W: Write> Maker<'_, W> {
    fn entry(&mut self, mut entry: Entry, content: &mut dyn Read) -> io::Result<()> {
        self.date = self.date.max(entry.metadata.mtime);
        let shipped = utf8(&entry.path)?;
        entry.path = merged(&entry.path);
        if let Kind::HardLink { target } = &mut entry.kind {
            *target = merged(target);
        }
        let path = utf8(&entry.path)?;
        if self.left_out.contains(&path) {
            return Ok(());
        }
        self.list.push(format!("/{shipped}"));
        if is_merge_link(&shipped, &entry.kind) {
            // Newer releases ship these links themselves; the layer has them already.
            return Ok(());
        }
        if entry.kind == Kind::Directory {
            let Metadata { mode, uid, gid, mtime, .. } = entry.metadata;
            self.directories.entry(path.clone()).or_insert(Directory { path, mode, uid, gid, mtime });
            return Ok(());
        }
        if !self.files.insert(path) {
            let message = format!("{} is twice in the package", entry.path);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.unpacked_size += entry.kind.size();
        let conffile = format!("/{shipped}");
        if !self.wanted_md5.contains(conffile.as_str()) {
            return self.writer.write(&entry, content);
        }
        let mut hashed = Md5Reader { inner: content, hash: Md5Hasher::new() };
        self.writer.write(&entry, &mut hashed)?;
        self.md5.insert(conffile, hashed.hash.finish().to_string());
        Ok(())
    }

    /// The package's part of `/var/lib/dpkg/info`, as dpkg leaves it after unpacking.
    fn database(&mut self, control: &debian::ControlArchive) -> Result<(), Failure> {
        let stanza = control.stanza()?;
        let field = |name: &str| stanza.get(name).unwrap_or_default().trim().to_owned();
        let multi_arch = MultiArch::parse(&field("Multi-Arch")).unwrap_or_default();
        let name = database_name(&field("Package"), &field("Architecture"), multi_arch);
        let list = list_file(self.list.iter().map(String::as_str))?;
        self.info(&name, "list", 0o644, list.as_bytes())?;
        for (kind, file) in control.files().filter(|(kind, _)| *kind != "control") {
            self.info(&name, kind, file.mode, &file.bytes)?;
        }
        Ok(())
    }

    fn info(&mut self, name: &str, kind: &str, mode: u32, content: &[u8]) -> Result<(), Failure> {
        let path = ImagePath::parse(format!("var/lib/dpkg/info/{name}.{kind}"))?;
        self.unpacked_size += content.len() as u64;
        let metadata = Metadata { mode, mtime: self.date, ..Metadata::default() };
        let entry = Entry { path, kind: Kind::File { size: content.len() as u64 }, metadata };
        Ok(self.writer.write(&entry, &mut &content[..])?)
    }
}

/// Whether this is one of the links of a merged `/usr`.
fn is_merge_link(shipped: &str, kind: &Kind) -> bool {
    matches!(kind, Kind::Symlink { .. }) && MERGED.contains(&shipped)
}

/// Where a path of a package is in an image whose `/usr` is merged.
pub fn merged(path: &ImagePath) -> ImagePath {
    let first = path.names().next().unwrap_or_default();
    if !MERGED.iter().any(|name| name.as_bytes() == first) {
        return path.clone();
    }
    let usr = ImagePath::root().join(b"usr");
    path.names().fold(usr, |path, name| path.join(name))
}

/// Debian's policy allows UTF-8 names only, and dpkg's database is made of lines.
fn utf8(path: &ImagePath) -> io::Result<String> {
    let text = std::str::from_utf8(path.as_bytes()).ok().filter(|text| !text.contains('\n'));
    text.map(str::to_owned).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{path}: a package's names are UTF-8 without line ends"))
    })
}

struct Md5Reader<'a> {
    inner: &'a mut dyn Read,
    hash: Md5Hasher,
}

impl Read for Md5Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_merge_of_usr() {
        for (path, expected) in [
            ("bin/sh", "/usr/bin/sh"),
            ("lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
            ("lib64/ld.so", "/usr/lib64/ld.so"),
            ("sbin", "/usr/sbin"),
            ("usr/bin/env", "/usr/bin/env"),
            ("libexec/x", "/libexec/x"),
            ("etc/lib/x", "/etc/lib/x"),
        ] {
            assert_eq!(merged(&ImagePath::parse(path).unwrap()).to_string(), expected);
        }
    }
}
