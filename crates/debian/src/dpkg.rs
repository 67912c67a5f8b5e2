//! dpkg's database, below `/var/lib/dpkg`: reading what an image has, and writing what was unpacked into it.
//!
//! ```text
//! status              every package with its state: `status`
//! info/format         the version of this layout: `INFO_FORMAT`
//! info/NAME.list      the paths of a package: `list_file`
//! info/NAME.KIND      the files of its control archive but `control`; NAME is `database_name`
//! triggers/File       who wants to know about which paths: `triggers`
//! triggers/TRIGGER    who wants to know about a trigger by name
//! triggers/Unincorp   what was triggered and not yet noted in `status`
//! ```

mod conffiles;
mod md5;
mod status;
mod triggers;

pub use conffiles::{Conffile, ConffileEntry, ConffileError, ConffileHash, parse_conffiles};
pub use md5::{Md5Hasher, Md5Sum};
pub use status::{PackageState, Selection, Status, StatusEntry, StatusError};
pub use triggers::{Activation, Interest, PackageTriggers, TriggerDatabase, TriggerError, parse_triggers};

use crate::package::MultiArch;

/// What `info/format` says: names may have an architecture.
pub const INFO_FORMAT: &str = "1\n";

/// The name under which dpkg files a package: with its architecture if it is `Multi-Arch: same`.
pub fn database_name(name: &str, architecture: &str, multi_arch: MultiArch) -> String {
    if multi_arch == MultiArch::Same { format!("{name}:{architecture}") } else { name.to_owned() }
}

/// The name of a file in `info/`, such as `libc6:amd64.postinst`.
pub fn info_file(database_name: &str, kind: &str) -> String {
    format!("{database_name}.{kind}")
}

/// The content of a package's `.list`: the root, and then each path as the package has it. Paths may begin with `./`,
/// `/` or neither.
pub fn list_file<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<String, ListError> {
    let mut list = String::from("/.\n");
    for path in paths {
        let path = absolute_path(path);
        if path.contains('\n') {
            return Err(ListError { path });
        }
        if path != "/" {
            list.push_str(&path);
            list.push('\n');
        }
    }
    Ok(list)
}

/// The paths of a `.list`, without the root.
pub fn parse_list_file(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('/') && *line != "/.")
}

/// A path of a package with exactly one slash before it, and none behind.
fn absolute_path(path: &str) -> String {
    let path = path.strip_prefix('.').filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    format!("/{}", path.trim_matches('/'))
}

/// A path that a list of lines cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} has a line end, which dpkg's database cannot hold")]
pub struct ListError {
    path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_may_be_there_twice_are_filed_with_their_architecture() {
        assert_eq!(database_name("libc6", "amd64", MultiArch::Same), "libc6:amd64");
        assert_eq!(database_name("dpkg", "amd64", MultiArch::Foreign), "dpkg");
        assert_eq!(info_file("libc6:amd64", "postinst"), "libc6:amd64.postinst");
    }

    #[test]
    fn lists_have_the_root_and_absolute_paths() {
        let list = list_file(["./", "./usr/", "./usr/bin", "etc", "/.hidden", "./..x"]).unwrap();
        assert_eq!(list, "/.\n/usr\n/usr/bin\n/etc\n/.hidden\n/..x\n");
        assert_eq!(parse_list_file(&list).collect::<Vec<_>>(), ["/usr", "/usr/bin", "/etc", "/.hidden", "/..x"]);
        assert!(list_file(["./a\nb"]).is_err());
    }
}
