//! Lines as instructions see them: continued lines joined, comments gone, heredocs set apart.
//!
//! A [`Line`] remembers where each of its pieces comes from, so that a place in it is a place in the file.

use std::ops::Range;
use std::sync::Arc;

use super::heredoc::{self, Heredoc};
use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{Located, SourceFile, Span};

/// One instruction with its continuations.
pub(super) struct Line {
    file: Arc<SourceFile>,
    /// Begins with the instruction's name.
    pub(super) text: String,
    /// Where pieces begin: in the text, and in the file.
    pieces: Vec<(usize, usize)>,
    /// The texts that follow it.
    pub(super) heredocs: Vec<Heredoc>,
    /// The comments right above it.
    pub(super) comments: Vec<Located<String>>,
    /// From its name to its end, heredocs included.
    pub(super) whole: Range<usize>,
}

impl Line {
    /// The place in the file of a part of the text.
    pub(super) fn place(&self, range: Range<usize>) -> Span {
        let start = self.offset(range.start);
        let end = if range.is_empty() { start } else { self.offset(range.end - 1) + 1 };
        Span::new(&self.file, start..end.max(start))
    }

    /// A part of the text with its place.
    pub(super) fn part(&self, range: Range<usize>) -> Located<String> {
        Located::new(self.text[range.clone()].to_owned(), self.place(range))
    }

    /// All of it.
    pub(super) fn span(&self) -> Span {
        Span::new(&self.file, self.whole.clone())
    }

    fn offset(&self, position: usize) -> usize {
        let piece = self.pieces.partition_point(|(start, _)| *start <= position).saturating_sub(1);
        let (start, in_file) = self.pieces[piece];
        in_file + (position - start)
    }
}

/// Reads a file line by line.
pub(super) struct Lines<'a> {
    file: &'a Arc<SourceFile>,
    escape: char,
    at: usize,
    /// Lines without text inside of an instruction.
    pub(super) empty_continuations: Vec<Span>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(file: &'a Arc<SourceFile>, escape: char) -> Self {
        let at = if file.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { file, escape, at, empty_continuations: Vec::new() }
    }

    /// The next instruction, or `None` at the end. What is wrong with its heredocs is noted.
    pub(super) fn next(&mut self, diagnostics: &mut Diagnostics) -> Option<Line> {
        let mut comments = Vec::new();
        loop {
            let physical = self.physical()?;
            let trimmed = trimmed_start(self.file, physical.clone());
            let text = &self.file.text[trimmed.clone()];
            if let Some(comment) = text.strip_prefix('#') {
                let start = trimmed.start + (text.len() - comment.trim_start().len());
                let comment = comment.trim();
                comments.push(Located::new(comment.to_owned(), Span::new(self.file, start..start + comment.len())));
                continue;
            }
            let (end, is_last) = self.without_continuation(trimmed.clone());
            if is_last && end == trimmed.start {
                comments.clear();
                continue;
            }
            return Some(self.join(trimmed.start..end, is_last, comments, diagnostics));
        }
    }

    /// Adds the lines that continue the first one, and the heredocs that it announces.
    fn join(
        &mut self,
        first: Range<usize>,
        mut is_last: bool,
        comments: Vec<Located<String>>,
        diagnostics: &mut Diagnostics,
    ) -> Line {
        let mut line = Line {
            file: Arc::clone(self.file),
            text: self.file.text[first.clone()].to_owned(),
            pieces: vec![(0, first.start)],
            heredocs: Vec::new(),
            comments,
            whole: first,
        };
        while !is_last {
            let Some(physical) = self.physical() else { break };
            let visible = self.file.text[physical.clone()].trim_start();
            if visible.starts_with('#') {
                continue;
            }
            if visible.is_empty() {
                self.empty_continuations.push(Span::new(self.file, physical));
                continue;
            }
            let (end, last) = self.without_continuation(physical.clone());
            line.pieces.push((line.text.len(), physical.start));
            line.text.push_str(&self.file.text[physical.start..end]);
            line.whole.end = end;
            is_last = last;
        }
        let length = line.text.trim_end().len();
        line.text.truncate(length);
        self.read_heredocs(&mut line, diagnostics);
        line
    }

    fn read_heredocs(&mut self, line: &mut Line, diagnostics: &mut Diagnostics) {
        for mark in heredoc::announced(&line.text) {
            let start = self.at;
            let mut end = None;
            while let Some(physical) = self.physical() {
                let text = &self.file.text[physical.clone()];
                let text = if mark.chomps { text.trim_start_matches('\t') } else { text };
                if text == mark.name {
                    end = Some(physical);
                    break;
                }
            }
            let Some(end) = end else {
                let mark_at = line.text.find(&mark.word).unwrap_or(0);
                let place = line.place(mark_at..mark_at + mark.word.len());
                let title = format!("the heredoc {} has no end", quoted(&mark.name));
                let expected = format!("expected a line {} after it", quoted(&mark.name));
                diagnostics.push(Diagnostic::new(place, title).label(expected));
                line.whole.end = self.at;
                return;
            };
            let content = Span::new(self.file, start..end.start);
            line.whole.end = end.end;
            line.heredocs.push(mark.with(Located::new(content.text().to_owned(), content)));
        }
    }

    /// The next line as the file has it, without its end.
    fn physical(&mut self) -> Option<Range<usize>> {
        let rest = &self.file.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        let start = self.at;
        self.at += length;
        Some(start..start + rest[..length].trim_end_matches(['\r', '\n']).len())
    }

    /// Where the text of a line ends, and whether the instruction ends with it. Blanks after the sign that continues it
    /// do not matter; two such signs are text.
    fn without_continuation(&self, range: Range<usize>) -> (usize, bool) {
        let text = self.file.text[range.clone()].trim_end_matches([' ', '\t']);
        match text.strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => (range.start + before.len(), false),
            _ => (range.end, true),
        }
    }
}

fn trimmed_start(file: &SourceFile, range: Range<usize>) -> Range<usize> {
    let text = &file.text[range.clone()];
    range.start + (text.len() - text.trim_start().len())..range.end
}
