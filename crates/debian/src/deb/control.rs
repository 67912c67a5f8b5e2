//! The control archive of a `.deb`: the control file, maintainer scripts and lists that dpkg keeps in its database.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::deb822::{Deb822Error, Stanza, single_stanza};

/// The most files that a control archive may have; dpkg knows about a dozen.
const MAX_FILES: usize = 256;

/// The files of a control archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlArchive {
    files: BTreeMap<String, ControlFile>,
}

/// A file of a control archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The permission bits.
    pub mode: u32,
    /// The content.
    pub bytes: Vec<u8>,
}

impl ControlArchive {
    pub(super) fn read(tar: &mut impl Read) -> Result<Self, ControlError> {
        let mut archive = tar::Archive::new(tar);
        let mut files = BTreeMap::new();
        for entry in archive.entries().map_err(ControlError::read)? {
            let mut entry = entry.map_err(ControlError::read)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = path.trim_start_matches("./").trim_end_matches('/').to_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() && (name.is_empty() || name == ".") {
                continue;
            }
            if !kind.is_file() || !is_plain_name(&name) {
                return Err(ControlError::Entry { path: path.chars().take(200).collect() });
            }
            if files.len() == MAX_FILES {
                return Err(ControlError::TooManyFiles);
            }
            let mode = entry.header().mode().map_err(ControlError::read)? & 0o7777;
            // The whole archive is bounded by its reader, so no file of it can be too large.
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(ControlError::read)?;
            if files.insert(name.clone(), ControlFile { mode, bytes }).is_some() {
                return Err(ControlError::Duplicate { name });
            }
        }
        let control = Self { files };
        control.stanza()?;
        Ok(control)
    }

    /// The file with this name, such as `postinst`.
    pub fn file(&self, name: &str) -> Option<&ControlFile> {
        self.files.get(name)
    }

    /// The text of a file with this name; nothing if there is no such file or it is not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.file(name).and_then(|file| std::str::from_utf8(&file.bytes).ok())
    }

    /// All files by name, `control` among them.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &ControlFile)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// The control file.
    pub fn stanza(&self) -> Result<Stanza<'_>, ControlError> {
        let file = self.file("control").ok_or(ControlError::NoControl)?;
        let text = std::str::from_utf8(&file.bytes).map_err(|_| ControlError::NotText)?;
        Ok(single_stanza(text)?)
    }
}

/// The name becomes part of a file's name in dpkg's database.
fn is_plain_name(name: &str) -> bool {
    let valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+'));
    valid && !name.is_empty() && !name.starts_with('.') && name.len() <= 64
}

/// Why a control archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The tar cannot be read.
    #[error("cannot read the tar")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// An entry is not a plain file at the top.
    #[error("expected plain files, found `{path}`")]
    Entry {
        /// The entry's path.
        path: String,
    },
    /// A file is there twice.
    #[error("the file `{name}` is there twice")]
    Duplicate {
        /// The file's name.
        name: String,
    },
    /// There are too many files.
    #[error("there are more than {MAX_FILES} files")]
    TooManyFiles,
    /// The control file is missing.
    #[error("expected a file `control`, found none")]
    NoControl,
    /// The control file is not UTF-8.
    #[error("the file `control` is not UTF-8 text")]
    NotText,
    /// The control file is not in its format.
    #[error("the file `control`")]
    Format(#[from] Deb822Error),
}

impl ControlError {
    fn read(source: io::Error) -> Self {
        Self::Read { source }
    }
}
