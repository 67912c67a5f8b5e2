//! From what was written to what is meant: variables in place, texts checked, defaults added.
//!
//! Each function returns what it can and notes what is wrong, so that one run shows every error. A [`Lowering`] belongs
//! to one file.

mod command;
mod dockerfile;
mod family;
mod files;
mod image;

use std::str::FromStr;
use std::sync::Arc;

pub(crate) use dockerfile::lower_dockerfile;
pub(crate) use family::{Settings, lower_family};
pub(crate) use image::{Names, lower_image};

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::interpolate::{InterpolationError, Variables, interpolate};
use crate::model::Entry;
use crate::source::{Located, SourceFile, Span};
use crate::suggest::did_you_mean;
use crate::value::Invalid;
use crate::written::{Entries, Written};

/// One file on its way through.
pub(crate) struct Lowering<'a> {
    pub(crate) file: &'a Arc<SourceFile>,
    pub(crate) variables: &'a Variables,
    pub(crate) diagnostics: &'a mut Diagnostics,
}

impl Lowering<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn span<T>(&self, written: &Written<T>) -> Span {
        written.span(self.file)
    }

    /// The value as written, without variables.
    fn raw(&mut self, written: &Written<String>) -> Located<String> {
        let span = self.span(written);
        self.without_nul(&written.value, &span);
        Located::new(written.value.clone(), span)
    }

    /// The value with its variables in place. What has none is noted, and stays as written.
    fn text(&mut self, written: &Written<String>) -> Located<String> {
        let span = self.span(written);
        let value = match interpolate(&written.value, self.variables) {
            Ok(value) => value,
            Err(error) => {
                let diagnostic = self.unresolved(&span, error);
                self.report(diagnostic);
                written.value.clone()
            }
        };
        self.without_nul(&value, &span);
        Located::new(value, span)
    }

    /// Environment, labels and arguments end at a NUL wherever the kernel or another program reads them.
    fn without_nul(&mut self, value: &str, span: &Span) {
        if value.contains('\0') {
            self.report(Diagnostic::new(span.clone(), "this text holds a NUL character").label("expected none"));
        }
    }

    fn unresolved(&self, span: &Span, error: InterpolationError) -> Diagnostic {
        match error {
            InterpolationError::Unknown { name, token } => Diagnostic::new(
                place_of(span, &token),
                format!("the variable {} has no value", quoted(&name)),
            )
            .label("expected a variable that is set")
            .help(format!(
                "set it with `--set {name}=…`, in the environment or under `vars:`, or write `${{{name}:-default}}`"
            ))
            .help_if(did_you_mean(&name, self.variables.names())),
            InterpolationError::Unclosed { token } => {
                Diagnostic::new(place_of(span, &token), "a variable begins here and does not end")
                    .label("expected `}`")
                    .help("write `$$` for a dollar sign")
            }
            InterpolationError::BadName { name, token } => {
                Diagnostic::new(place_of(span, &token), format!("{} is not a name for a variable", quoted(&name)))
                    .label("expected `${NAME}` or `${NAME:-default}`")
                    .help("write `$$` for a dollar sign")
            }
            InterpolationError::TooLong => {
                Diagnostic::new(span.clone(), "with its variables in place this text is too long")
                    .label("expected no more than 64 KiB")
            }
        }
    }

    /// A checked value, or a note of why it is not one.
    fn checked<T: FromStr<Err = Invalid>>(&mut self, written: &Written<String>) -> Option<Located<T>> {
        let before = self.diagnostics.len();
        let text = self.text(written);
        // A variable without a value has been noted already; that the text around it is no port goes without saying.
        if self.diagnostics.len() > before {
            return None;
        }
        match text.parse::<T>() {
            Ok(value) => Some(Located::new(value, text.span)),
            Err(invalid) => {
                self.invalid(text.span, invalid);
                None
            }
        }
    }

    fn invalid(&mut self, span: Span, invalid: Invalid) {
        self.report(Diagnostic::new(span, invalid.title).label(invalid.expected).help_if(invalid.help));
    }

    fn checked_option<T: FromStr<Err = Invalid>>(&mut self, written: &Option<Written<String>>) -> Option<Located<T>> {
        written.as_ref().and_then(|written| self.checked(written))
    }

    fn checked_list<T: FromStr<Err = Invalid>>(&mut self, written: Option<&Vec<Written<String>>>) -> Vec<Located<T>> {
        written.into_iter().flatten().filter_map(|written| self.checked(written)).collect()
    }

    fn texts(&mut self, written: Option<&Vec<Written<String>>>) -> Vec<Located<String>> {
        written.into_iter().flatten().map(|written| self.text(written)).collect()
    }

    /// Names and values; a name that stands twice once its variables are in place is an error.
    fn entries<K: FromStr<Err = Invalid> + PartialEq>(&mut self, written: &Entries<Written<String>>) -> Vec<Entry<K>> {
        let mut entries: Vec<Entry<K>> = Vec::with_capacity(written.list.len());
        for (key, value) in &written.list {
            let key = self.checked::<K>(key);
            let value = self.text(value);
            let Some(key) = key else { continue };
            match entries.iter().find(|earlier| earlier.key.value == key.value) {
                Some(earlier) => {
                    let title = format!("the key {} stands twice", quoted(key.span.text()));
                    let diagnostic = Diagnostic::new(key.span.clone(), title).label("the second one");
                    let diagnostic = diagnostic.related(earlier.key.span.clone(), "the first one");
                    self.report(diagnostic);
                }
                None => entries.push(Entry { key, value }),
            }
        }
        entries
    }
}

/// The part of a scalar where `token` is written, or the whole scalar if escapes hide it.
fn place_of(span: &Span, token: &str) -> Span {
    match span.text().find(token) {
        Some(at) => {
            let start = span.range().start + at;
            Span::new(span.file(), start..start + token.len())
        }
        None => span.clone(),
    }
}
