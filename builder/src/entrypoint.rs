//! Entry points that could not be started: a script that the image puts in itself, without an execute bit.
//!
//! Only what the specs and the family's files say is looked at, before anything is fetched. Commands that run after the
//! file was put in may change its mode, so nothing is said about files that are followed by some.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spec::{CommandLine, Diagnostic, FileContent, FileEntry, Image, RelativePath, Step};

use crate::error::BuildError;

/// The modes of files of the family, as the step that puts files in gives them.
const EXECUTABLE: u32 = 0o755;
const PLAIN: u32 = 0o644;

/// An error at the place of the file, if the image's entry point is a file of its own that nobody may execute.
pub fn refuse_unexecutable(image: &Image, family: &Path) -> Result<(), BuildError> {
    let Some(entrypoint) = &image.config.entrypoint else { return Ok(()) };
    let Some(program) = program(&entrypoint.value) else { return Ok(()) };
    let Some((entry, mode)) = last_entry(image, program, family) else { return Ok(()) };
    if mode & 0o111 != 0 {
        return Ok(());
    }
    let span = entry.mode.as_ref().map_or(&entry.span, |mode| &mode.span);
    let title = format!("the entry point `{program}` cannot be executed: its mode is {mode:04o}");
    let diagnostic = Diagnostic::new(span.clone(), title).help("add `mode: \"0755\"` to the file");
    Err(BuildError::Spec(diagnostic.related(entrypoint.span.clone(), "started here").into()))
}

/// The first word: what the kernel or the shell executes.
fn program(line: &CommandLine) -> Option<&str> {
    match line {
        CommandLine::Exec(arguments) => arguments.first().map(String::as_str),
        CommandLine::Shell(line) => line.split_whitespace().next(),
    }
}

/// The entry that decides on the mode of `path`, if no command comes after it.
fn last_entry<'a>(image: &'a Image, path: &str, family: &Path) -> Option<(&'a FileEntry, u32)> {
    let entries = |step: &'a Step| match step {
        Step::Run(_) => None,
        Step::Files(entries) => Some(entries.as_slice()),
        Step::Packages(_) | Step::Groups(_) | Step::Users(_) => Some(&[][..]),
    };
    let mut last_first = image.steps.iter().rev().map_while(entries).flat_map(|entries| entries.iter().rev());
    last_first.find_map(|entry| Some((entry, mode_of(entry, path, family)?)))
}

/// The mode that an entry gives to the file `path`, if it puts one there.
fn mode_of(entry: &FileEntry, path: &str, family: &Path) -> Option<u32> {
    let usual = match &entry.content {
        FileContent::Source { path: source, unpack: false } => mode_of_source(entry, source, path, family)?,
        FileContent::Url { url, unpack: false, .. } => {
            let name = url.rsplit('/').next().unwrap_or_default();
            (entry.destination(name).as_str() == path).then_some(PLAIN)?
        }
        FileContent::Text(_) => (entry.target.as_str() == path).then_some(PLAIN)?,
        FileContent::Source { .. } | FileContent::Url { .. } | FileContent::Link(_) | FileContent::Directory => {
            return None;
        }
    };
    Some(entry.mode.as_ref().map_or(usual, |mode| mode.bits()))
}

/// The same for a file or a directory of the family. What cannot be read is said by the step that reads it.
fn mode_of_source(entry: &FileEntry, source: &RelativePath, path: &str, family: &Path) -> Option<u32> {
    let mut found = family.join(source.as_str());
    if found.is_dir() {
        found = found.join(path.strip_prefix(entry.target.as_str().trim_end_matches('/'))?.strip_prefix('/')?);
    } else if entry.destination(source.file_name().unwrap_or_default()).as_str() != path {
        return None;
    }
    let metadata = fs::metadata(&found).ok().filter(fs::Metadata::is_file)?;
    Some(if metadata.permissions().mode() & 0o100 != 0 { EXECUTABLE } else { PLAIN })
}
