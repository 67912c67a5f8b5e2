//! The records of what cannot carry its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Read, Write};

use super::{Record, TreeDir, damaged};

/// No sidecar that we wrote is larger than this.
const LARGEST_SIDECAR: u64 = 256 << 20;

/// The first line of a sidecar.
const SIDECAR_FORMAT: &str = "drystone links 1";

/// What tells one inode from another that had its number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKey {
    /// The inode number.
    pub inode: u64,
    /// When the inode was made: seconds since 1970.
    pub born_seconds: i64,
    /// And nanoseconds.
    pub born_nanoseconds: u32,
}

/// The records of a tree's symbolic links, fifos and sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecar {
    records: BTreeMap<NodeKey, Record>,
}

impl Sidecar {
    /// Reads a tree's sidecar; empty if there is none.
    pub fn load(tree: &TreeDir) -> io::Result<Self> {
        let path = tree.links();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut lines = io::BufReader::new(file.take(LARGEST_SIDECAR)).split(b'\n');
        if lines.next().transpose()?.as_deref() != Some(SIDECAR_FORMAT.as_bytes()) {
            return Err(damaged(format!("{}: expected the first line `{SIDECAR_FORMAT}`", path.display())));
        }
        let mut sidecar = Self::default();
        for (number, line) in lines.enumerate() {
            let line = line?;
            let (key, record) = decode_line(&line).ok_or_else(|| {
                damaged(format!("{}:{}: expected an inode and its record", path.display(), number + 2))
            })?;
            sidecar.set(key, record);
        }
        Ok(sidecar)
    }

    /// Replaces a tree's sidecar by this one, at once or not at all. An empty one is no file.
    pub fn save(&self, tree: &TreeDir) -> io::Result<()> {
        if self.is_empty() {
            return match fs::remove_file(tree.links()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let unfinished = tree.path().join("links.new");
        let mut file = io::BufWriter::new(fs::File::create(&unfinished)?);
        writeln!(file, "{SIDECAR_FORMAT}")?;
        for (key, record) in &self.records {
            writeln!(file, "{} {}.{:09} {record}", key.inode, key.born_seconds, key.born_nanoseconds)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(unfinished, tree.links())
    }

    /// The record of an inode.
    pub fn get(&self, key: NodeKey) -> Option<&Record> {
        self.records.get(&key)
    }

    /// Stores the record of an inode; the default is not stored.
    pub fn set(&mut self, key: NodeKey, record: Record) {
        if record == Record::default() {
            self.records.remove(&key);
        } else {
            self.records.insert(key, record);
        }
    }

    /// Takes over the records of another sidecar.
    pub fn absorb(&mut self, other: Self) {
        self.records.extend(other.records);
    }

    /// Forgets an inode.
    pub fn remove(&mut self, key: NodeKey) {
        self.records.remove(&key);
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

fn decode_line(line: &[u8]) -> Option<(NodeKey, Record)> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(words.next()?).ok();
    let inode = text()?.parse().ok()?;
    let (seconds, nanoseconds) = text()?.split_once('.')?;
    let key = NodeKey { inode, born_seconds: seconds.parse().ok()?, born_nanoseconds: nanoseconds.parse().ok()? };
    Some((key, Record::decode(words.next()?)?))
}
