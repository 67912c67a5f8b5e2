//! The files of a tar, by name: read where they lie, in whatever order. A compressed tar is unpacked first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use layer::compress::decompress;

/// How many entries an archive may have.
const MAX_ENTRIES: usize = 1 << 20;
/// The largest tar that a compressed archive may hold.
const MAX_UNPACKED: u64 = 1 << 40;
/// How many links may lead from one to the next.
const MAX_LINKS: usize = 8;

/// What is where in a tar.
pub(super) struct TarIndex {
    file: File,
    entries: HashMap<String, Lies>,
}

enum Lies {
    At { offset: u64, size: u64 },
    LinkTo(String),
}

impl TarIndex {
    /// Looks an archive through. `room` is a directory for what has to be unpacked.
    pub(super) fn open(path: &Path, room: &Path) -> io::Result<Self> {
        let file = plain(File::open(path)?, room)?;
        let mut archive = tar::Archive::new(&file);
        let mut entries = HashMap::new();
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
            let kind = entry.header().entry_type();
            let link = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            let lies = match link {
                _ if kind.is_file() => Lies::At { offset: entry.raw_file_position(), size: entry.size() },
                Some(target) if kind.is_hard_link() => Lies::LinkTo(normal(&target)),
                Some(target) if kind.is_symlink() => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    Lies::LinkTo(normal(&format!("{directory}/{target}")))
                }
                _ => continue,
            };
            if entries.len() == MAX_ENTRIES {
                return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries")));
            }
            entries.insert(name, lies);
        }
        Ok(Self { file, entries })
    }

    /// Reads a file of the tar. Links lead to other files of the tar and nowhere else.
    pub(super) fn read(&self, name: &str) -> io::Result<Part<'_>> {
        let mut wanted = normal(name);
        for _ in 0..MAX_LINKS {
            match self.entries.get(&wanted) {
                Some(Lies::At { offset, size }) => return Ok(Part { file: &self.file, offset: *offset, left: *size }),
                Some(Lies::LinkTo(target)) => wanted.clone_from(target),
                None => break,
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("it has no file `{name}`")))
    }

    /// Reads a file of at most so many bytes.
    pub(super) fn small(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut part = self.read(name)?;
        if part.left > limit {
            return Err(io::Error::other(format!("`{name}` has {} bytes, more than {limit}", part.left)));
        }
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A file in a tar.
pub(super) struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The file itself, or what it unpacks to.
fn plain(mut file: File, room: &Path) -> io::Result<File> {
    let mut magic = [0; 6];
    let read = file.read_at(&mut magic, 0)?;
    let compressed = [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd], b"\xfd7zXZ\0"];
    if !compressed.iter().any(|start| magic[..read].starts_with(start)) {
        return Ok(file);
    }
    let mut unpacked = tempfile::tempfile_in(room)?;
    let copied = io::copy(&mut decompress(&mut file)?.take(MAX_UNPACKED + 1), &mut unpacked)?;
    if copied > MAX_UNPACKED {
        return Err(io::Error::other(format!("it unpacks to more than {MAX_UNPACKED} bytes")));
    }
    unpacked.seek(SeekFrom::Start(0))?;
    Ok(unpacked)
}

/// A path without `.` and `..`, and from the top: `./a/../b` is `b`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
