//! The bytecode of one package's Python modules, as a piece of a layer that is kept beside the package's segment and
//! laid with it.
//!
//! It is named by all that it depends on: the `.deb`, the modules that are compiled, and the `.deb` files of the
//! interpreter. Nothing of an image is among them, so every image that has both gets the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use content::{Digest, FramedHasher, VerifyingReader};
use layer::compress::{BlockWriter, Compression};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::write::EntryWriter;
use serde::{Deserialize, Serialize};
use store::{Area, Cache, CacheWriter};

use crate::error::BuildError;
use crate::package::segment::{Directory, Segment, is_settled};
use crate::plan::LockedPackage;
use crate::python::Interpreter;
use crate::remote::Elsewhere;

/// Counts versions of what is compiled and how; part of every key.
const VERSION: &str = "bytecode 2";

/// No package's modules become more bytes than this.
const LARGEST: u64 = 4 << 30;

/// The compiled modules of a package, ready to be laid.
#[derive(Clone, Debug)]
pub struct Bytecode {
    /// Names it: all that it depends on.
    pub key: Digest,
    /// The compressed run of tar entries, without directories.
    pub path: PathBuf,
    /// Names its bytes.
    pub digest: Digest,
    /// Bytes of the files in it.
    pub unpacked_size: u64,
    /// The directories that they are in, sorted.
    pub directories: Vec<Directory>,
}

/// What the cache knows of a package's bytecode.
#[derive(Clone, Debug)]
pub enum Known {
    /// Here it is.
    Made(Bytecode),
    /// It cannot be made apart from an image: its script has to.
    ByScript,
    /// Nobody tried yet.
    Nothing,
}

/// What the cache keeps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kept {
    Made {
        digest: Digest,
        size: u64,
        /// See [`Cache::boot`].
        #[serde(default)]
        boot: Option<String>,
        unpacked_size: u64,
        directories: Vec<Directory>,
    },
    ByScript,
}

/// Modules of one package, to be compiled by one interpreter.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The package's place among those of its step.
    pub place: usize,
    /// The modules' paths, as the package's list has them and in its order.
    pub modules: Vec<String>,
    key: Digest,
    /// The package's date.
    date: i64,
}

/// The modules of a package as an interpreter was given them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Where the bytecode of each goes, and the permissions that it has there, in the order in which they were given.
    pub files: Vec<(ImagePath, u32)>,
}

impl Wanted {
    /// What the scripts of packages have compiled, package by package, when the interpreter is this one. Modules below
    /// a path that begins with one of `excluded` are left to the scripts, with all of their package.
    pub fn of(
        packages: &[LockedPackage],
        segments: &[Segment],
        interpreter: &Interpreter,
        compression: Compression,
        excluded: &BTreeSet<String>,
    ) -> Vec<Self> {
        let compiles: BTreeSet<_> = segments.iter().flat_map(|segment| &segment.record.compiles).collect();
        let interpreter_key = interpreter.key();
        let mut wanted = Vec::new();
        for (place, (package, segment)) in packages.iter().zip(segments).enumerate() {
            let compiles: Vec<_> = compiles.iter().filter(|compile| compile.package == package.name).collect();
            let is_taken = |path: &&String| compiles.iter().any(|compile| compile.takes(path, &interpreter.version));
            let modules: Vec<String> = segment.record.list.iter().filter(is_taken).cloned().collect();
            let is_excluded = |path: &String| excluded.iter().any(|start| path.starts_with(start));
            if modules.is_empty() || modules.iter().any(is_excluded) {
                continue;
            }
            let key = FramedHasher::new(VERSION)
                .field("deb", package.sha256.as_bytes())
                // Those that another package replaces are not in it.
                .list("list", &segment.record.list)
                .list("modules", &modules)
                .field("interpreter", interpreter_key.as_bytes())
                .field("encoder", compression.encoder())
                .finish();
            wanted.push(Self { place, modules, key, date: segment.record.date });
        }
        wanted
    }

    /// What the cache has of it.
    pub fn known(&self, cache: &Cache) -> Result<Known, BuildError> {
        let (digest, size, boot, unpacked_size, directories) =
            match cache.get_json(Area::Segments, self.record_key())? {
                None => return Ok(Known::Nothing),
                Some(Kept::ByScript) => return Ok(Known::ByScript),
                Some(Kept::Made { digest, size, boot, unpacked_size, directories }) => {
                    (digest, size, boot, unpacked_size, directories)
                }
            };
        let Some(path) = cache.file(Area::Segments, self.key) else { return Ok(Known::Nothing) };
        if !is_settled(cache, &path, (digest, size), boot.as_deref())? {
            return Ok(Known::Nothing);
        }
        if boot.as_deref() != cache.boot() {
            let (boot, directories) = (cache.boot().map(str::to_owned), directories.clone());
            let kept = Kept::Made { digest, size, boot, unpacked_size, directories };
            cache.put_json(Area::Segments, self.record_key(), &kept)?;
        }
        Ok(Known::Made(Bytecode { key: self.key, path, digest, unpacked_size, directories }))
    }

    /// Remembers that the package's script has to do it.
    pub fn leave_to_script(&self, cache: &Cache) -> Result<(), BuildError> {
        Ok(cache.put_json(Area::Segments, self.record_key(), &Kept::ByScript)?)
    }

    /// Keeps what an interpreter made of the modules that it was given: the bytecode of each, after its length in eight
    /// bytes, the lowest first.
    pub fn keep(&self, cache: &Cache, compression: Compression, given: &Given, made: &File) -> Result<(), BuildError> {
        if made.metadata()?.len() > LARGEST {
            return Err(
                invalid(format!("an interpreter made more than {LARGEST} bytes of bytecode of a package")).into()
            );
        }
        let mut made = BufReader::with_capacity(1 << 16, made);
        let mut writer = EntryWriter::new(BlockWriter::new(cache.writer(Area::Segments, self.key)?, compression));
        let mut directories = BTreeMap::new();
        let mut unpacked_size = 0;
        for (path, mode) in &given.files {
            if let Some(parent) = path.parent() {
                directories.entry(parent.clone()).or_insert(directory(&parent, self.date)?);
            }
            let mut length = [0; 8];
            made.read_exact(&mut length)?;
            let size = u64::from_le_bytes(length);
            let metadata = Metadata { mode: *mode, mtime: self.date, ..Metadata::default() };
            let entry = Entry { path: path.clone(), kind: Kind::File { size }, metadata };
            writer.write(&entry, &mut (&mut made).take(size))?;
            unpacked_size += size;
        }
        if made.read(&mut [0])? > 0 {
            return Err(invalid("an interpreter made more bytecode than it was asked for").into());
        }
        let (writer, _): (CacheWriter<'_>, _) = writer.into_inner().finish()?;
        let (_, digest, size) = writer.commit_unsynced()?;
        let (boot, directories) = (cache.boot().map(str::to_owned), directories.into_values().collect());
        let kept = Kept::Made { digest, size, boot, unpacked_size, directories };
        Ok(cache.put_json(Area::Segments, self.record_key(), &kept)?)
    }

    /// Removes what is kept if its bytes are others than when it was made. Returns whether they were.
    pub fn discard_damaged(&self, cache: &Cache) -> Result<bool, BuildError> {
        let Some(Kept::Made { digest, size, .. }) = cache.get_json(Area::Segments, self.record_key())? else {
            return Ok(false);
        };
        let Some(path) = cache.file(Area::Segments, self.key) else { return Ok(false) };
        if io::copy(&mut VerifyingReader::new(File::open(path)?, digest, size), &mut io::sink()).is_ok() {
            return Ok(false);
        }
        cache.remove(Area::Segments, self.key)?;
        Ok(true)
    }

    /// Brings it into the cache from elsewhere. Returns whether something came.
    pub fn borrow(&self, elsewhere: &dyn Elsewhere) -> bool {
        let record = self.record_key();
        elsewhere.has(Area::Segments, record) && elsewhere.piece(self.key) && elsewhere.record(Area::Segments, record)
    }

    fn record_key(&self) -> Digest {
        record_key(self.key)
    }
}

impl Bytecode {
    /// The key of its record.
    pub fn record_key(&self) -> Digest {
        record_key(self.key)
    }
}

fn record_key(bytecode: Digest) -> Digest {
    FramedHasher::new("bytecode record").field("bytecode", bytecode.as_bytes()).finish()
}

/// A directory of bytecode, as `py_compile` makes it where the umask is 022.
fn directory(path: &ImagePath, mtime: i64) -> io::Result<Directory> {
    let path = String::from_utf8(path.as_bytes().to_vec()).map_err(invalid)?;
    Ok(Directory { path, mode: 0o755, uid: 0, gid: 0, mtime })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Where packages say which modules are not compiled by which versions of Python. See dh_python3(1), "bytecompile
/// exceptions".
pub const EXCLUSIONS: &str = "usr/share/python3/bcep";

/// What one file of [`EXCLUSIONS`] says: the beginnings of paths below which there is something that this version does
/// not compile. Lines are `TYPE|VERSIONS|PATH` or `TYPE|VERSIONS|DIRECTORY|PATTERN`.
pub fn exclusions(text: &str, version: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parts = lines.map(|line| line.split('|').collect::<Vec<_>>());
    let meant = parts.filter(|parts| parts.get(1).is_some_and(|range| is_in_range(version, range)));
    meant.filter_map(|parts| Some(parts.get(2)?.trim_end_matches('/').to_owned())).collect()
}

/// Whether a version is in a range as py3compile writes it: `3.2`, `3.2-`, `-3.7` or `3.2-3.7`, without the last. What
/// is not understood counts as if it were.
fn is_in_range(version: &str, range: &str) -> bool {
    let number = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let Some(version) = number(version) else { return true };
    let Some((from, to)) = range.split_once('-') else {
        return number(range).is_none_or(|only| only == version);
    };
    let after = from.is_empty() || number(from).is_none_or(|from| from <= version);
    let before = to.is_empty() || number(to).is_none_or(|to| version < to);
    after && before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_versions_are_those_of_py3compile() {
        let cases = [
            ("-3.6", false),
            ("-3.12", true),
            ("3.11-", true),
            ("3.12-", false),
            ("3.2-3.11", false),
            ("3.2-3.12", true),
            ("3.11", true),
            ("3.1", false),
            ("-", true),
            ("", true),
            ("three", true),
        ];
        for (range, expected) in cases {
            assert_eq!(is_in_range("3.11", range), expected, "{range}");
        }
    }

    #[test]
    fn only_exclusions_for_this_version_count() {
        let text = "# what is not compiled\nre|-3.6|/usr/lib/python3/dist-packages/jinja2|.*/async.py\n\
                    dir|3.0-|/usr/share/templates/\nfile|-|/usr/lib/python3/dist-packages/old.py\n";
        let expected = ["/usr/lib/python3/dist-packages/old.py", "/usr/share/templates"];
        assert_eq!(exclusions(text, "3.11").iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
