//! Paths inside an image, and paths inside a family's directory. They are different types on purpose.

use std::fmt;
use std::str::FromStr;

use super::Invalid;

/// The kernel's own limit.
const LONGEST_PATH: usize = 4096;

/// An absolute path inside an image, without `.`, `..` and double slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImagePath {
    path: String,
    ends_in_slash: bool,
}

impl ImagePath {
    /// The path, without a slash at its end; the root is `/`.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Whether the author ended it in a slash, which means: a directory, put things into it.
    pub fn ends_in_slash(&self) -> bool {
        self.ends_in_slash
    }

    /// The path without its leading slash, as tar entries are named; empty for the root.
    pub fn relative(&self) -> &str {
        &self.path[1..]
    }

    /// The path of `name` below this one.
    pub(crate) fn join(&self, name: &str) -> Self {
        let separator = if self.path == "/" { "" } else { "/" };
        Self { path: format!("{}{separator}{name}", self.path), ends_in_slash: false }
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.path)
    }
}

impl FromStr for ImagePath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "an absolute path without `..`";
        if !text.starts_with('/') {
            let invalid = Invalid::new(text, "an absolute path", expected);
            let with_slash = format!("/{text}");
            let is_near = !text.is_empty() && with_slash.parse::<Self>().is_ok();
            return Err(if is_near { invalid.help(format!("did you mean `{with_slash}`?")) } else { invalid });
        }
        if text.len() > LONGEST_PATH || text.contains('\0') || text.split('/').any(|part| part == "..") {
            return Err(Invalid::new(text, "a path in an image", expected));
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Ok(Self { path: format!("/{}", parts.join("/")), ends_in_slash: text.ends_with('/') })
    }
}

/// A path below a directory that the caller knows, without `.`; `..` only at its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelativePath(String);

impl RelativePath {
    /// The path as written, cleaned; `.` for the directory itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the path, if it has one.
    pub fn file_name(&self) -> Option<&str> {
        self.0.rsplit('/').next().filter(|name| *name != "." && *name != "..")
    }

    /// Whether the path leaves the directory it starts in.
    pub fn leaves_its_directory(&self) -> bool {
        self.0 == ".." || self.0.starts_with("../")
    }

    /// The same place, seen from the directory that holds `directory`.
    pub(crate) fn below(&self, directory: &str) -> Self {
        let joined = format!("{directory}/{}", self.0);
        Self(clean(&joined))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for RelativePath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "a path relative to this file";
        if text.is_empty() || text.starts_with('/') || text.len() > LONGEST_PATH || text.contains('\0') {
            return Err(Invalid::new(text, "a relative path", expected));
        }
        Ok(Self(clean(text)))
    }
}

fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { String::from(".") } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_paths_are_absolute_and_clean() {
        let cases = [("/", "/", true), ("/a//b/./c", "/a/b/c", false), ("/etc/", "/etc", true), ("/.", "/", false)];
        for (text, expected, slash) in cases {
            let path: ImagePath = text.parse().unwrap();
            assert_eq!((path.as_str(), path.ends_in_slash()), (expected, slash), "{text}");
        }
        for text in ["", "etc", "./etc", "/a/../b", "/..", "/a\0"] {
            assert!(text.parse::<ImagePath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn relative_paths_are_cleaned_and_know_when_they_leave() {
        let cases = [
            ("a", "a", false),
            ("./a//b", "a/b", false),
            ("a/..", ".", false),
            ("../x", "../x", true),
            ("a/../../x", "../x", true),
        ];
        for (text, expected, leaves) in cases {
            let path: RelativePath = text.parse().unwrap();
            assert_eq!((path.as_str(), path.leaves_its_directory()), (expected, leaves), "{text}");
        }
        assert_eq!("../common/x".parse::<RelativePath>().unwrap().below("redis").as_str(), "common/x");
        assert!("/etc".parse::<RelativePath>().is_err());
    }
}
