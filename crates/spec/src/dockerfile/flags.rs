//! The flags of an instruction: `--name=value`, or `--name` for a truth.

use super::line::Line;
use super::words::FlagWord;
use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{Located, Span};
use crate::suggest::did_you_mean;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One value.
    Value,
    /// A value each time; it may stand several times.
    Values,
    /// `true` or `false`; without either, it is true.
    Truth,
}

struct Flag {
    name: &'static str,
    value: Located<String>,
    span: Span,
}

/// The flags of one instruction, checked against those that it knows.
pub(super) struct Flags {
    list: Vec<Flag>,
}

impl Flags {
    /// Reads the words that stand before the arguments. What is unknown, twice or without a value is noted and left
    /// out.
    pub(super) fn read(
        line: &Line,
        words: &[FlagWord],
        known: &[(&'static str, Takes)],
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut flags = Self { list: Vec::new() };
        for word in words {
            match flags.flag(line, word, known) {
                Ok(flag) => flags.list.push(flag),
                Err(found) => diagnostics.extend(found),
            }
        }
        flags
    }

    fn flag(&self, line: &Line, word: &FlagWord, known: &[(&'static str, Takes)]) -> Result<Flag, Diagnostics> {
        let span = line.place(word.range.clone());
        let written = &word.text[2..];
        let (name, value) = written.split_once('=').map_or((written, None), |(name, value)| (name, Some(value)));
        let Some((known_name, takes)) = known.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(span, line, name, known).into());
        };
        let earlier = self.list.iter().find(|flag| flag.name == *known_name);
        if let (Some(earlier), Takes::Value | Takes::Truth) = (earlier, takes) {
            let diagnostic = Diagnostic::new(span, format!("the flag `--{name}` stands twice")).label("the second one");
            return Err(diagnostic.related(earlier.span.clone(), "the first one").into());
        }
        let value = match (value, takes) {
            (Some(value), Takes::Truth) if !matches!(value, "true" | "false") => {
                let diagnostic = Diagnostic::new(span, format!("{} is neither true nor false", quoted(value)));
                return Err(diagnostic
                    .label(format!("expected `--{name}`, `--{name}=true` or `--{name}=false`"))
                    .into());
            }
            (Some(value), _) => value,
            (None, Takes::Truth) => "true",
            (None, Takes::Value | Takes::Values) => {
                let diagnostic = Diagnostic::new(span, format!("the flag `--{name}` has no value"));
                return Err(diagnostic.label(format!("expected `--{name}=…`")).into());
            }
        };
        let raw = &line.text[word.range.clone()];
        let value_at = raw.find('=').map_or(word.range.end, |equals| word.range.start + equals + 1);
        let place = line.place(value_at..word.range.end);
        Ok(Flag { name: known_name, value: Located::new(value.to_owned(), place), span })
    }

    /// The value of a flag, if it is given.
    pub(super) fn value(&self, name: &str) -> Option<Located<String>> {
        self.list.iter().find(|flag| flag.name == name).map(|flag| flag.value.clone())
    }

    /// All values of a flag, in order.
    pub(super) fn values(&self, name: &str) -> Vec<Located<String>> {
        self.list.iter().filter(|flag| flag.name == name).map(|flag| flag.value.clone()).collect()
    }

    /// A truth, if it is given.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        self.list.iter().find(|flag| flag.name == name).map(|flag| flag.value.value == "true")
    }
}

fn unknown(span: Span, line: &Line, name: &str, known: &[(&'static str, Takes)]) -> Diagnostic {
    let keyword = super::words::keyword(&line.text).0.to_ascii_uppercase();
    let expected = match known {
        [] => format!("{keyword} has no flags"),
        known => {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("`--{name}`")).collect();
            format!("expected {}", names.join(", "))
        }
    };
    Diagnostic::new(span, format!("unknown flag {} of {keyword}", quoted(&format!("--{name}"))))
        .label(expected)
        .help_if(did_you_mean(name, known.iter().map(|(name, _)| *name)).map(|help| help.replacen('`', "`--", 1)))
}
