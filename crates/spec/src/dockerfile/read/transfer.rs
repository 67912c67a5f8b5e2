//! `ADD` and `COPY`.

use super::super::ast::{Add, Copy, Source, Transfer};
use super::super::heredoc::Heredoc;
use super::super::words;
use super::{Parts, Reader};
use crate::diagnostic::Diagnostic;
use crate::source::Located;

impl Reader<'_> {
    pub(super) fn add(&mut self, parts: &Parts<'_>) -> Option<Add> {
        Some(Add {
            transfer: self.transfer(parts)?,
            checksum: parts.flags.value("checksum"),
            keep_git_directory: parts.flags.truth("keep-git-dir").unwrap_or(false),
            unpack: parts.flags.truth("unpack"),
        })
    }

    pub(super) fn copy(&mut self, parts: &Parts<'_>) -> Option<Copy> {
        let from = parts.flags.value("from");
        if let Some(from) = from.as_ref().filter(|from| from.is_empty()) {
            let diagnostic = Diagnostic::new(from.span.clone(), "`--from` names nothing");
            self.report(diagnostic.label("expected a stage or an image"));
            return None;
        }
        let transfer = self.transfer(parts)?;
        Some(Copy { transfer, from, parents: parts.flags.truth("parents").unwrap_or(false) })
    }

    fn transfer(&mut self, parts: &Parts<'_>) -> Option<Transfer> {
        let mut words = self.list_or_words(parts)?;
        let Some(target) = words.pop().filter(|_| !words.is_empty()) else {
            let name = parts.keyword.to_ascii_uppercase();
            let diagnostic = Diagnostic::new(parts.line.span(), format!("{name} takes at least two arguments"));
            self.report(diagnostic.label("expected a source and a target"));
            return None;
        };
        if Heredoc::is_mark(&target.value) {
            let diagnostic = Diagnostic::new(target.span, "a heredoc cannot be a target");
            self.report(diagnostic.label("expected a path"));
            return None;
        }
        // Marks come in the order of their heredocs; a mark without one has been reported.
        let mut heredocs = parts.line.heredocs.iter();
        let is_list = words::json_list(parts.text()).is_some();
        let sources = words
            .into_iter()
            .filter_map(|word| match !is_list && Heredoc::is_mark(&word.value) {
                true => heredocs.next().cloned().map(Source::Text),
                false => Some(Source::Path(word)),
            })
            .collect();
        Some(Transfer {
            sources,
            target,
            chown: parts.flags.value("chown"),
            chmod: parts.flags.value("chmod"),
            link: parts.flags.truth("link").unwrap_or(false),
            exclude: parts.flags.values("exclude"),
        })
    }

    /// A JSON list of strings, or words between blanks.
    pub(super) fn list_or_words(&mut self, parts: &Parts<'_>) -> Option<Vec<Located<String>>> {
        if let Some(list) = words::json_list(parts.text()) {
            let span = parts.rest().span;
            return Some(list.into_iter().map(|word| Located::new(word, span.clone())).collect());
        }
        if words::is_json_list(parts.text()) {
            let diagnostic = Diagnostic::new(parts.rest().span, "a list that holds something else than strings");
            self.report(diagnostic.label("expected strings between double quotes"));
            return None;
        }
        Some(parts.line_words())
    }
}
