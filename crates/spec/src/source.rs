//! Text with a name, and places in it.
//!
//! A [`Span`] carries its file along, so that whoever holds a value can complain about it, long after parsing.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics};

/// One file of a spec: its text, and the name that its reader knows it by.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// As shown to the user, such as `specs/opencontrail/redis/image.yaml`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// Names `text`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Names what was read from a file, if it is a text in UTF-8; else says where it is none.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let readable = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let place = Span::new(&Arc::new(Self::new(name, readable)), valid..valid + 1);
                let title = "this file is binary: it is no text in UTF-8";
                Err(Diagnostic::new(place, title).label("expected a text").into())
            }
        }
    }

    /// Line and column of a byte, both counted from one; columns are characters.
    pub(crate) fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..floor_boundary(&self.text, offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SourceFile({}, {} bytes)", self.name, self.text.len())
    }
}

/// A place in a file. It prints as `file:line:column`.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    file: Arc<SourceFile>,
    start: usize,
    end: usize,
}

impl Span {
    /// The bytes `range` of `file`, pulled inside the text and onto character boundaries.
    pub fn new(file: &Arc<SourceFile>, range: Range<usize>) -> Self {
        let start = floor_boundary(&file.text, range.start);
        let end = floor_boundary(&file.text, range.end).max(start);
        Self { file: Arc::clone(file), start, end }
    }

    /// The beginning of `file`, for what is missing from it altogether.
    pub fn start_of(file: &Arc<SourceFile>) -> Self {
        Self::new(file, 0..0)
    }

    /// The file this place is in.
    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// Byte offsets in the file's text.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// What is written here.
    pub fn text(&self) -> &str {
        &self.file.text[self.start..self.end]
    }

    /// Counted from one.
    pub fn line(&self) -> usize {
        self.file.line_and_column(self.start).0
    }

    /// Counted from one, in characters.
    pub fn column(&self) -> usize {
        self.file.line_and_column(self.start).1
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.file.line_and_column(self.start);
        write!(formatter, "{}:{line}:{column}", self.file.name)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A value and the place where it was written.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value itself; `*located` reaches it too.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

impl<T> Located<T> {
    /// Puts a value and its place together.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// Changes the value, keeps the place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), span: self.span }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> fmt::Display for Located<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

/// The nearest character boundary at or before `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut boundary = offset.min(text.len());
    while !text.is_char_boundary(boundary) {
        boundary -= 1;
    }
    boundary
}
