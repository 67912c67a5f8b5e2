//! `COPY` and `ADD` as `files`.

use super::{Converter, Node, RemarkKind, Step};
use crate::diagnostic::{Diagnostics, quoted};
use crate::dockerfile::{Add, Copy, Pattern, Source, Transfer};
use crate::source::{Located, Span};
use crate::value::{ImagePath, Mode, Owner};

/// Directories that every image has, with owners and modes that are not ours to change.
const EVERYWHERE: [&str; 14] = [
    "/",
    "/bin",
    "/dev",
    "/etc",
    "/home",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
];

/// How names of archives end that `ADD` unpacks.
const ARCHIVES: [&str; 9] = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"];

pub(super) fn is_everywhere(path: &str) -> bool {
    EVERYWHERE.contains(&path) || path.starts_with("/usr/")
}

/// What all sources of one instruction have in common.
struct Common {
    target: String,
    options: Vec<(&'static str, Node)>,
}

impl Converter<'_> {
    pub(super) fn copy(&mut self, copy: &Copy, span: &Span) -> Result<(), Diagnostics> {
        if let Some(from) = &copy.from {
            let text = format!("files of {} are not files of the family", quoted(from));
            self.lost(span, text);
            return Ok(());
        }
        if copy.parents {
            self.lost(span, "a spec has no `--parents`");
            return Ok(());
        }
        let Some(common) = self.common(&copy.transfer, span)? else { return Ok(()) };
        for source in &copy.transfer.sources {
            match source {
                Source::Text(text) => self.heredoc(text, &common)?,
                Source::Path(path) => self.family_file(path, false, &common)?,
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, add: &Add, span: &Span) -> Result<(), Diagnostics> {
        let Some(common) = self.common(&add.transfer, span)? else { return Ok(()) };
        for source in &add.transfer.sources {
            match source {
                Source::Text(text) => self.heredoc(text, &common)?,
                Source::Path(path) if path.starts_with("http://") || path.starts_with("https://") => {
                    self.address(path, add, &common)?;
                }
                Source::Path(path) if path.contains("://") || path.starts_with("git@") => {
                    self.lost(&path.span, "a spec takes nothing from git");
                }
                Source::Path(path) => {
                    let name = path.to_ascii_lowercase();
                    let is_archive = ARCHIVES.iter().any(|ending| name.ends_with(ending));
                    self.family_file(path, add.unpack.unwrap_or(is_archive), &common)?;
                }
            }
        }
        Ok(())
    }

    fn common(&mut self, transfer: &Transfer, span: &Span) -> Result<Option<Common>, Diagnostics> {
        if !transfer.exclude.is_empty() {
            self.lost(span, "a spec has no `--exclude`");
            return Ok(None);
        }
        let mut target = self.word(&transfer.target)?;
        target = self.absolute(&target);
        if transfer.sources.len() > 1 && !target.ends_with('/') {
            target.push('/');
        }
        if target.parse::<ImagePath>().is_err() {
            self.lost(&transfer.target.span, format!("{} is no path of an image", quoted(&target)));
            return Ok(None);
        }
        let mut options = Vec::new();
        if let Some(written) = &transfer.chmod {
            let mode = self.word(written)?;
            let is_short = mode.len() == 3 && mode.starts_with(|digit: char| digit.is_ascii_digit());
            let mode = if is_short { format!("0{mode}") } else { mode };
            match mode.parse::<Mode>() {
                Ok(_) => options.push(("mode", Node::Text(mode))),
                Err(_) => {
                    self.lost(&written.span, format!("{} is no mode in octal digits", quoted(&mode)));
                    return Ok(None);
                }
            }
        }
        if let Some(written) = &transfer.chown {
            let owner = self.word(written)?;
            match owner.parse::<Owner>() {
                Ok(_) => options.push(("owner", Node::Text(owner))),
                Err(_) => {
                    self.lost(&written.span, format!("{} is no owner", quoted(&owner)));
                    return Ok(None);
                }
            }
        }
        Ok(Some(Common { target, options }))
    }

    fn family_file(&mut self, written: &Located<String>, unpack: bool, common: &Common) -> Result<(), Diagnostics> {
        let word = self.word(written)?;
        if Pattern::is_pattern(&word) {
            self.lost(&written.span, format!("a spec has no patterns: name the files that {} means", quoted(&word)));
            return Ok(());
        }
        let path = word.trim_start_matches('/').trim_end_matches('/');
        let path = if path.is_empty() { "." } else { path };
        if path == "." {
            let text =
                "the whole directory is copied, this Dockerfile and the spec too; .dockerignore is not looked at";
            self.remark(RemarkKind::Differs, &written.span, text);
        }
        if path.split('/').any(|part| part == "..") {
            self.lost(&written.span, format!("{} is outside of the context", quoted(&word)));
            return Ok(());
        }
        let mut entries = vec![("source", Node::interpolated(path)), ("target", Node::interpolated(&common.target))];
        if unpack {
            entries.push(("unpack", Node::Flag(true)));
        }
        entries.extend(common.options.iter().cloned());
        self.push_file(entries);
        Ok(())
    }

    fn address(&mut self, written: &Located<String>, add: &Add, common: &Common) -> Result<(), Diagnostics> {
        let url = self.word(written)?;
        let mut entries = vec![("url", Node::interpolated(&url))];
        match &add.checksum {
            Some(checksum) => {
                let checksum = self.word(checksum)?;
                let digest = checksum.strip_prefix("sha256:").unwrap_or(&checksum);
                entries.push(("sha256", Node::text(digest)));
            }
            None => {
                let text = "a spec needs the `sha256:` of what the address gives, in the spec or its lock";
                self.remark(RemarkKind::Differs, &written.span, text);
            }
        }
        if add.unpack == Some(true) {
            entries.push(("unpack", Node::Flag(true)));
        }
        entries.push(("target", Node::interpolated(&common.target)));
        // What is fetched is for its owner alone, unless something else is said.
        if add.transfer.chmod.is_none() {
            entries.push(("mode", Node::text("0600")));
        }
        entries.extend(common.options.iter().cloned());
        self.push_file(entries);
        Ok(())
    }

    fn heredoc(&mut self, heredoc: &crate::dockerfile::Heredoc, common: &Common) -> Result<(), Diagnostics> {
        let mut text = heredoc.text();
        if heredoc.expands {
            text = self.scope.expand_text(&text, &heredoc.content.span)?.value.text;
        }
        let target = match common.target.ends_with('/') {
            true => format!("{}{}", common.target, heredoc.name),
            false => common.target.clone(),
        };
        let mut entries = vec![("content", Node::Text(text)), ("target", Node::interpolated(&target))];
        entries.extend(common.options.iter().cloned());
        self.push_file(entries);
        Ok(())
    }

    pub(super) fn push_file(&mut self, entries: Vec<(&str, Node)>) {
        let entry = Node::map(entries);
        match self.steps.last_mut() {
            Some(Step::Files(files)) => files.push(entry),
            _ => self.steps.push(Step::Files(vec![entry])),
        }
    }
}
