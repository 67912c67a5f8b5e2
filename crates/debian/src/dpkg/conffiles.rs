//! Conffiles: the configuration files that dpkg does not overwrite when their owner has changed them.

use std::fmt;

use super::md5::{Md5Error, Md5Sum};

/// The most conffiles of a package.
const MAX_CONFFILES: usize = 20_000;

/// An entry of a package's `conffiles` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conffile {
    /// The absolute path.
    pub path: String,
    /// Whether the file is not in this version, and an unchanged one of an earlier version is to go.
    pub remove_on_upgrade: bool,
}

/// Reads a `conffiles` file of a control archive (deb-conffiles(5)).
pub fn parse_conffiles(text: &str) -> Result<Vec<Conffile>, ConffileError> {
    let mut conffiles: Vec<Conffile> = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        let conffile = match line.split_once(' ') {
            Some(("remove-on-upgrade", path)) => Conffile { path: path.trim().to_owned(), remove_on_upgrade: true },
            _ => Conffile { path: line.to_owned(), remove_on_upgrade: false },
        };
        if !conffile.path.starts_with('/') || conffile.path.split('/').any(|part| part == "..") {
            return Err(ConffileError::malformed(line));
        }
        if conffiles.len() == MAX_CONFFILES {
            return Err(ConffileError::TooMany);
        }
        conffiles.push(conffile);
    }
    Ok(conffiles)
}

/// An entry of the field `Conffiles` in `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConffileEntry {
    /// The absolute path.
    pub path: String,
    /// What dpkg knows of the file as its package ships it.
    pub hash: ConffileHash,
    /// Whether the file is a leftover of an earlier version.
    pub obsolete: bool,
    /// As in the package's list.
    pub remove_on_upgrade: bool,
}

impl ConffileEntry {
    /// The entry of a file that is in place as its package ships it.
    pub fn in_place(path: &str, md5: Md5Sum) -> Self {
        Self { path: path.to_owned(), hash: ConffileHash::Md5(md5), obsolete: false, remove_on_upgrade: false }
    }

    /// The entry of a file that a new package wants removed on upgrade; it is not there.
    pub fn to_remove(path: &str) -> Self {
        Self { path: path.to_owned(), hash: ConffileHash::New, obsolete: false, remove_on_upgrade: true }
    }

    pub(super) fn parse(line: &str) -> Result<Self, ConffileError> {
        let mut words: Vec<&str> = line.split(' ').collect();
        let mut take_flag = |flag| {
            let found = words.len() > 2 && words.last() == Some(&flag);
            if found {
                words.pop();
            }
            found
        };
        let remove_on_upgrade = take_flag("remove-on-upgrade");
        let obsolete = take_flag("obsolete");
        // The path may have blanks, so the hash is taken from the end.
        let (path, hash) = match words.split_last() {
            Some((hash, path)) if !path.is_empty() => (path.join(" "), *hash),
            _ => return Err(ConffileError::malformed(line)),
        };
        if !path.starts_with('/') {
            return Err(ConffileError::malformed(line));
        }
        Ok(Self { path, hash: ConffileHash::parse(hash)?, obsolete, remove_on_upgrade })
    }
}

impl fmt::Display for ConffileEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let obsolete = if self.obsolete { " obsolete" } else { "" };
        let remove_on_upgrade = if self.remove_on_upgrade { " remove-on-upgrade" } else { "" };
        write!(f, "{} {}{obsolete}{remove_on_upgrade}", self.path, self.hash)
    }
}

/// What dpkg knows of a conffile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConffileHash {
    /// The MD5 of the file as it was shipped.
    Md5(Md5Sum),
    /// It was unpacked, and is not configured yet.
    New,
    /// It was not there when its package was configured.
    Nonexistent,
    /// Nothing.
    Empty,
}

impl ConffileHash {
    fn parse(text: &str) -> Result<Self, ConffileError> {
        match text {
            "newconffile" => Ok(Self::New),
            "nonexistent" => Ok(Self::Nonexistent),
            "-" => Ok(Self::Empty),
            _ => Ok(Self::Md5(text.parse()?)),
        }
    }
}

impl fmt::Display for ConffileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(sum) => fmt::Display::fmt(sum, f),
            Self::New => f.write_str("newconffile"),
            Self::Nonexistent => f.write_str("nonexistent"),
            Self::Empty => f.write_str("-"),
        }
    }
}

/// Why a list of conffiles cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConffileError {
    /// A line is not an entry.
    #[error("expected an absolute path of a conffile, found `{line}`")]
    Malformed {
        /// The line.
        line: String,
    },
    /// A hash is not one.
    #[error(transparent)]
    Hash(#[from] Md5Error),
    /// There are too many.
    #[error("there are more than {MAX_CONFFILES} conffiles")]
    TooMany,
}

impl ConffileError {
    fn malformed(line: &str) -> Self {
        Self::Malformed { line: line.chars().take(200).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_conffiles_are_read() {
        let conffiles = parse_conffiles("/etc/a\n\nremove-on-upgrade /etc/b\n/etc/with blank  \n").unwrap();
        let found: Vec<_> = conffiles.iter().map(|one| (one.path.as_str(), one.remove_on_upgrade)).collect();
        assert_eq!(found, [("/etc/a", false), ("/etc/b", true), ("/etc/with blank", false)]);
        for text in ["etc/a\n", "other-flag /etc/a\n", "/etc/../../x\n"] {
            assert!(parse_conffiles(text).is_err(), "{text}");
        }
    }

    #[test]
    fn entries_of_status_print_as_they_were_read() {
        let lines = [
            "/etc/a d41d8cd98f00b204e9800998ecf8427e",
            "/etc/with blank d41d8cd98f00b204e9800998ecf8427e obsolete",
            "/etc/c newconffile remove-on-upgrade",
            "/etc/d nonexistent obsolete remove-on-upgrade",
            "/etc/e -",
        ];
        for line in lines {
            assert_eq!(ConffileEntry::parse(line).unwrap().to_string(), line);
        }
        for line in ["", "/etc/a", "/etc/a short", "etc/a -"] {
            assert!(ConffileEntry::parse(line).is_err(), "{line}");
        }
    }
}
