//! Lowers the entries of `files`: exactly one origin, a target that fits it, a mode that means what it says.

use super::Lowering;
use super::family::check_url;
use crate::diagnostic::{Diagnostic, quoted};
use crate::model::{FileContent, FileEntry};
use crate::source::{Located, Span};
use crate::value::{Mode, RelativePath};
use crate::written::{FileItem, ModeForm, Written};

/// The longest target of a symbolic link.
const LONGEST_LINK: usize = 4095;

impl Lowering<'_> {
    /// One entry, or `None` and a note.
    pub(super) fn file_entry(&mut self, directory: &str, written: &Written<FileItem>) -> Option<FileEntry> {
        let item = &written.value;
        let span = self.span(written);
        let content = self.file_content(directory, item, &span);
        let target = self.checked(&item.target);
        let mode = item.mode.as_ref().and_then(|mode| self.mode(mode));
        let owner = self.checked_option(&item.owner);
        let entry = FileEntry { content: content?, target: target?, mode, owner, span };
        self.check_target(&entry);
        Some(entry)
    }

    fn file_content(&mut self, directory: &str, item: &FileItem, span: &Span) -> Option<FileContent> {
        self.check_single_origin(item)?;
        self.check_options(item, span);
        if let Some(source) = &item.source {
            return self.family_path(directory, source).map(|path| FileContent::Source { path, unpack: item.unpack });
        }
        if let Some(url) = &item.url {
            return Some(self.url_content(url, item));
        }
        if let Some(content) = &item.content {
            return Some(FileContent::Text(self.raw(content)));
        }
        if let Some(link) = &item.link {
            return self.link_content(link);
        }
        if item.directory.as_ref().is_some_and(|directory| directory.value) {
            return Some(FileContent::Directory);
        }
        let diagnostic = Diagnostic::new(span.clone(), "this file is made of nothing");
        self.report(diagnostic.label("expected one of `source`, `content`, `link`, `directory`, `url`"));
        None
    }

    fn check_single_origin(&mut self, item: &FileItem) -> Option<()> {
        let is_directory = item.directory.as_ref().filter(|directory| directory.value);
        let origins = [
            ("source", item.source.as_ref().map(|origin| self.span(origin))),
            ("content", item.content.as_ref().map(|origin| self.span(origin))),
            ("link", item.link.as_ref().map(|origin| self.span(origin))),
            ("url", item.url.as_ref().map(|origin| self.span(origin))),
            ("directory", is_directory.map(|origin| self.span(origin))),
        ];
        let mut given = origins.into_iter().filter_map(|(key, place)| place.map(|place| (key, place)));
        if let (Some((first, first_place)), Some((second, place))) = (given.next(), given.next()) {
            let title = format!("a file has either `{first}` or `{second}`");
            let diagnostic = Diagnostic::new(place, title).label("expected only one of them");
            self.report(diagnostic.related(first_place, format!("`{first}` is here")));
            return None;
        }
        Some(())
    }

    fn check_options(&mut self, item: &FileItem, span: &Span) {
        if let (Some(sha256), None) = (&item.sha256, &item.url) {
            let place = self.span(sha256);
            self.report(Diagnostic::new(place, "`sha256` stands without `url`").label("expected beside `url` only"));
        }
        if item.unpack && item.url.is_none() && item.source.is_none() {
            let diagnostic = Diagnostic::new(span.clone(), "`unpack` stands without an archive");
            self.report(diagnostic.label("expected beside `source` or `url` only"));
        }
        if let (Some(mode), Some(_)) = (&item.mode, &item.link) {
            let place = self.span(mode);
            self.report(Diagnostic::new(place, "a symbolic link has no mode").label("expected none"));
        }
    }

    /// A path that an image names, relative to the family's directory and inside it.
    pub(super) fn family_path(&mut self, directory: &str, written: &Written<String>) -> Option<Located<RelativePath>> {
        let path = self.checked::<RelativePath>(written)?;
        let below = path.below(directory);
        if below.leaves_its_directory() {
            let title = format!("{} is outside the family's directory", quoted(path.as_str()));
            self.report(Diagnostic::new(path.span, title).label("expected a file of the family"));
            return None;
        }
        Some(Located::new(below, path.span))
    }

    fn url_content(&mut self, url: &Written<String>, item: &FileItem) -> FileContent {
        let before = self.diagnostics.len();
        let url = self.text(url);
        if self.diagnostics.len() == before {
            check_url(self, &url);
        }
        let sha256 = item.sha256.as_ref().map(|digest| self.text(digest));
        if let Some(digest) = sha256.as_ref().filter(|digest| !is_sha256(digest)) {
            let diagnostic = Diagnostic::new(digest.span.clone(), format!("{} is not a sha256 digest", quoted(digest)));
            self.report(diagnostic.label("expected 64 hexadecimal digits in lower case"));
        }
        FileContent::Url { url, sha256, unpack: item.unpack }
    }

    fn link_content(&mut self, link: &Written<String>) -> Option<FileContent> {
        let link = self.text(link);
        if link.is_empty() || link.len() > LONGEST_LINK {
            let diagnostic = Diagnostic::new(link.span.clone(), "a symbolic link points nowhere");
            self.report(diagnostic.label(format!("expected a path of 1 to {LONGEST_LINK} bytes")));
            return None;
        }
        Some(FileContent::Link(link))
    }

    fn mode(&mut self, written: &Written<ModeForm>) -> Option<Located<Mode>> {
        let span = self.span(written);
        match &written.value {
            ModeForm::Text(text) => match text.parse::<Mode>() {
                Ok(mode) => Some(Located::new(mode, span)),
                Err(invalid) => {
                    self.invalid(span, invalid);
                    None
                }
            },
            ModeForm::Number => {
                let digits = span.text().trim_start_matches("0o").to_owned();
                let help = digits.parse::<Mode>().ok().map(|mode| format!("write `\"{mode}\"`"));
                self.report(
                    Diagnostic::new(span, "a mode without quotes is a decimal number in YAML")
                        .label("expected octal digits between quotes")
                        .help_if(help),
                );
                None
            }
        }
    }

    /// A text and a link have no name of their own to put below a directory.
    fn check_target(&mut self, entry: &FileEntry) {
        let is_nameless = matches!(entry.content, FileContent::Text(_) | FileContent::Link(_));
        if is_nameless && entry.target.ends_in_slash() {
            let diagnostic = Diagnostic::new(entry.target.span.clone(), "the file's name is missing from its target");
            self.report(diagnostic.label("expected a path without a slash at its end"));
        }
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
