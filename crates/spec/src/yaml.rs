//! The one place that knows the YAML parser: reading a file into a type, and turning the parser's errors into ours.
//!
//! [`Written`] is a value with its place as the parser reports it; [`Entries`] is a mapping that keeps its order and the
//! places of its keys. Merge keys (`<<`) and second documents are refused: a spec is one plain document.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_saphyr::{Error, Location};

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{SourceFile, Span};
use crate::suggest::did_you_mean;

/// A spec longer than this was not written by a person.
const LONGEST_FILE: usize = 1024 * 1024;

/// A longer list of possible words is shown only when none of them resembles the one that stands there.
const MOST_LISTED: usize = 12;

/// Reads one document.
pub(crate) fn parse<T: DeserializeOwned>(file: &Arc<SourceFile>) -> Result<T, Diagnostics> {
    if file.text.len() > LONGEST_FILE {
        let title = format!("this file is {} bytes long", file.text.len());
        let diagnostic = Diagnostic::new(Span::start_of(file), title);
        return Err(diagnostic.label(format!("expected no more than {LONGEST_FILE} bytes")).into());
    }
    serde_saphyr::from_str_with_options(&file.text, options()).map_err(|error| diagnose(file, &error).into())
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_documents: 2, max_depth: 16, max_aliases: 1_000 },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// A value as it stands in a file.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// The value itself.
    pub value: T,
    location: Location,
}

impl<T> Written<T> {
    /// The place of the value in `file`, which must be the file it was read from.
    pub fn span(&self, file: &Arc<SourceFile>) -> Span {
        Span::new(file, byte_range(&file.text, &self.location))
    }

    pub(crate) fn at(value: T, location: Location) -> Self {
        Self { value, location }
    }

    pub(crate) fn place(&self) -> Location {
        self.location
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, location: spanned.referenced })
    }
}

impl<T: JsonSchema> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A mapping with its keys in the order they were written.
#[derive(Clone, Debug)]
pub struct Entries<V> {
    /// Keys and values.
    pub list: Vec<(Written<String>, V)>,
}

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
            type Value = Entries<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    list.push(entry);
                }
                Ok(Entries { list })
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<V: JsonSchema> JsonSchema for Entries<V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = generator.subschema_for::<V>();
        json_schema!({ "type": "object", "additionalProperties": values })
    }
}

/// Byte offsets of a place that the parser reports in bytes where it can, and in lines and columns otherwise.
fn byte_range(text: &str, location: &Location) -> Range<usize> {
    let span = location.span();
    let (start, length) = match (span.byte_offset(), span.byte_len()) {
        (Some(start), Some(length)) => (saturate(start), saturate(length)),
        _ => (offset_of(text, location), 0),
    };
    let start = start.min(text.len());
    let end = start.saturating_add(length).min(text.len());
    start..trimmed_end(text, start, end)
}

/// Containers and plain scalars may be reported with the white space behind them.
fn trimmed_end(text: &str, start: usize, end: usize) -> usize {
    match text.get(start..end) {
        Some(inside) => start + inside.trim_end().len(),
        None => end,
    }
}

fn offset_of(text: &str, location: &Location) -> usize {
    let lines_before = saturate(location.line().saturating_sub(1));
    let line_start: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let column = saturate(location.column().saturating_sub(1));
    line_start + text[line_start..].chars().take(column).map(char::len_utf8).sum::<usize>()
}

fn saturate(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What the parser found, in our words.
fn diagnose(file: &Arc<SourceFile>, error: &Error) -> Diagnostic {
    let error = error.without_snippet();
    let place = |location: &Location| Span::new(file, word_range(&file.text, byte_range(&file.text, location)));
    match error {
        Error::SerdeUnknownField { field, expected, location } => {
            let suggestion = did_you_mean(field, expected.iter().copied());
            // All keys of an image beside a good suggestion would bury it.
            let label = match suggestion {
                Some(_) if expected.len() > MOST_LISTED => String::from("no such key"),
                _ => format!("expected one of {}", listed(expected)),
            };
            Diagnostic::new(place(location), format!("unknown key {}", quoted(field))).label(label).help_if(suggestion)
        }
        Error::SerdeUnknownVariant { variant, expected, location } => {
            Diagnostic::new(place(location), format!("unknown value {}", quoted(variant)))
                .label(format!("expected one of {}", listed(expected)))
                .help_if(did_you_mean(variant, expected.iter().copied()))
        }
        Error::SerdeMissingField { field, location } => {
            Diagnostic::new(place(location), format!("the key {} is missing", quoted(field))).label("expected here")
        }
        Error::DuplicateMappingKey { key, location } => {
            let key = key.as_deref().map_or_else(|| String::from("this key"), |key| format!("the key {}", quoted(key)));
            Diagnostic::new(place(location), format!("{key} stands twice")).label("the second one")
        }
        Error::SerdeInvalidType { unexpected, expected, location }
        | Error::SerdeInvalidValue { unexpected, expected, location } => {
            Diagnostic::new(place(location), format!("expected {expected}, found {unexpected}"))
                .label(format!("expected {expected}"))
        }
        Error::Unexpected { expected, location } => unexpected(file, expected, location),
        Error::InvalidScalar { ty, location } => {
            let span = place(location);
            let title = format!("{} is not {}", quoted(span.text()), type_name(ty));
            Diagnostic::new(span, title).label(format!("expected {}", type_name(ty)))
        }
        Error::InvalidBooleanStrict { location } => {
            let span = place(location);
            let title = format!("{} is neither `true` nor `false`", quoted(span.text()));
            Diagnostic::new(span, title).label("expected `true` or `false`")
        }
        Error::NullIntoString { location } => Diagnostic::new(place(location), "a value is missing")
            .label("expected a string")
            .help("write `\"\"` for an empty one"),
        Error::MergeKeyNotAllowed { location } => {
            Diagnostic::new(place(location), "merge keys are not part of the language").label("expected a key")
        }
        Error::MultipleDocuments { location, .. } => {
            Diagnostic::new(place(location), "a second document begins here").label("expected the end of the file")
        }
        Error::Eof { .. } if file.text.trim().is_empty() => {
            Diagnostic::new(Span::start_of(file), "this file is empty").label("expected a mapping")
        }
        Error::Message { msg, location } => Diagnostic::new(place(location), msg.clone()),
        other => {
            let location = other.location().unwrap_or(Location::UNKNOWN);
            Diagnostic::new(place(&location), syntax_message(other))
        }
    }
}

/// The parser's wish for an event, said as a wish for a value.
fn unexpected(file: &Arc<SourceFile>, expected: &str, location: &Location) -> Diagnostic {
    let wish = match expected {
        wish if wish.contains("sequence") => "a list",
        wish if wish.contains("mapping") => "a mapping",
        wish if wish.contains("scalar") => "a string",
        wish => wish,
    };
    let span = Span::new(file, word_range(&file.text, byte_range(&file.text, location)));
    let help = (wish == "a list" && !span.text().is_empty() && !span.text().contains(['\n', '[', '{']))
        .then(|| format!("write `[{}]` for a list of one", span.text()));
    Diagnostic::new(span, format!("expected {wish} here")).label(format!("not {wish}")).help_if(help)
}

/// A place without extent is shown as the word that stands there.
fn word_range(text: &str, range: Range<usize>) -> Range<usize> {
    if !range.is_empty() {
        return range;
    }
    let rest = text.get(range.start..).unwrap_or("");
    let line = rest.lines().next().unwrap_or("");
    let word = line.find([':', ' ', ',', ']', '}']).unwrap_or(line.len());
    range.start..range.start + word
}

fn type_name(parser_name: &str) -> String {
    match parser_name {
        name if name.contains("bool") => String::from("`true` or `false`"),
        name if name.starts_with('u') || name.starts_with('i') || name.contains("integer") => String::from("a number"),
        name => name.to_owned(),
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The parser's own words, without the place it appends: the place is drawn.
fn syntax_message(error: &Error) -> String {
    let message = error.to_string();
    let first_line = message.lines().next().unwrap_or("this is not YAML");
    let first_line = first_line.split(" at line ").next().unwrap_or(first_line);
    first_line.trim_end_matches('.').to_owned()
}
