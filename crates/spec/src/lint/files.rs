//! Rules about `COPY` and `ADD`.

use super::facts::instructions;
use super::{Finder, rules};
use crate::diagnostic::quoted;
use crate::dockerfile::{Add, Dockerfile, IgnoreRules, Kind, Pattern, Transfer};
use crate::source::Located;

/// How names of archives end that `ADD` unpacks.
const ARCHIVES: [&str; 9] = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"];

pub(super) fn look(dockerfile: &Dockerfile, ignore: Option<&IgnoreRules>, finder: &mut Finder) {
    for instruction in instructions(dockerfile) {
        match &instruction.kind {
            Kind::Copy(copy) if copy.from.is_none() => context(&copy.transfer, ignore, finder),
            Kind::Add(add) => {
                context(&add.transfer, ignore, finder);
                added(add, finder);
            }
            _ => {}
        }
    }
}

/// Files of the context.
fn context(transfer: &Transfer, ignore: Option<&IgnoreRules>, finder: &mut Finder) {
    for path in transfer.paths().filter(|path| !is_remote(path) && !path.contains('$')) {
        let cleaned = path.trim_start_matches("./").trim_matches('/');
        let is_whole = matches!(cleaned, "" | "." | "*");
        match ignore {
            Some(rules) if !is_whole && !Pattern::is_pattern(cleaned) && rules.excludes(cleaned) => {
                let title = format!("{} is left out by .dockerignore", quoted(path));
                finder.find(&rules::COPY_IGNORED_FILE, &path.span, title, "expected a file that is in the context");
            }
            None if is_whole => {
                let title = "the whole context is copied, and there is no .dockerignore";
                let label = "expected a .dockerignore that leaves out .git, secrets and what is built";
                finder.find(&rules::NO_DOCKERIGNORE, &path.span, title, label);
            }
            _ => {}
        }
    }
}

fn added(add: &Add, finder: &mut Finder) {
    for path in add.transfer.paths().filter(|path| !path.contains('$')) {
        if is_web(path) {
            if add.checksum.is_none() {
                let title = format!("{} is taken as it comes", quoted(path));
                finder.find(&rules::UNCHECKED_DOWNLOAD, &path.span, title, "expected `--checksum=sha256:…`");
            }
        } else if !is_remote(path) && !is_archive(path) && add.unpack.is_none() {
            let title = format!("{} is neither an archive nor an address", quoted(path));
            finder.find(&rules::ADD_INSTEAD_OF_COPY, &path.span, title, "expected `COPY`");
        }
    }
}

fn is_web(path: &str) -> bool {
    (path.starts_with("http://") || path.starts_with("https://")) && !path.contains(".git")
}

fn is_remote(path: &Located<String>) -> bool {
    path.contains("://") || path.starts_with("git@")
}

/// A pattern may stand for archives.
fn is_archive(path: &str) -> bool {
    Pattern::is_pattern(path) || ARCHIVES.iter().any(|ending| path.to_ascii_lowercase().ends_with(ending))
}
