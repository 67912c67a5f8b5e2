//! The format of control files, `Packages`, `Release` and dpkg's `status`: stanzas of fields, separated by empty lines.
//!
//! Goals: no copy of the text, one pass, a line number in every error, and a bound on everything a hostile file could
//! grow. What a field means is left to the caller. See Debian policy, chapter 5, and deb822(5).

use memchr::memchr;

/// The longest stanza that is read; the longest in Debian's archive is below 100 KiB, a `Release` file below 1 MiB.
pub const MAX_STANZA_BYTES: usize = 16 << 20;

/// The most fields that a stanza may have.
pub const MAX_FIELDS: usize = 256;

/// Iterates over the stanzas of `text`. Iteration ends after the first error.
pub fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { rest: text, line: 1 }
}

/// Reads a text that must hold exactly one stanza, as a package's control file does.
pub fn single_stanza(text: &str) -> Result<Stanza<'_>, Deb822Error> {
    let mut stanzas = stanzas(text);
    let stanza = stanzas.next().unwrap_or(Err(Deb822Error::Empty))?;
    match stanzas.next() {
        None => Ok(stanza),
        Some(Ok(second)) => Err(Deb822Error::SeveralStanzas { line: second.line }),
        Some(Err(error)) => Err(error),
    }
}

/// One paragraph of fields.
#[derive(Clone, Debug)]
pub struct Stanza<'a> {
    fields: Vec<Field<'a>>,
    line: usize,
}

impl<'a> Stanza<'a> {
    /// The value of a field, whatever the case of its name; continuation lines are in it, with their first blank.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The fields in the order of the file.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &Field<'a>> {
        self.fields.iter()
    }

    /// The line in which the stanza begins, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// A field of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, as the file writes it.
    pub name: &'a str,
    /// The value without the blanks around it; inner line ends and the blanks that begin continuation lines are kept.
    pub value: &'a str,
}

impl<'a> Field<'a> {
    /// The lines of the value, each without the blanks around it; for lists such as `Conffiles` or `SHA256`.
    pub fn lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value.lines().map(str::trim).filter(|line| !line.is_empty())
    }
}

/// The iterator that [`stanzas`] returns.
#[derive(Clone, Debug)]
pub struct Stanzas<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, Deb822Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_empty_lines();
        if self.rest.is_empty() {
            return None;
        }
        let stanza = self.read();
        if stanza.is_err() {
            self.rest = "";
        }
        Some(stanza)
    }
}

impl<'a> Stanzas<'a> {
    fn skip_empty_lines(&mut self) {
        while let Some((line, rest)) = next_line(self.rest) {
            if !is_blank(line) {
                return;
            }
            self.line += 1;
            self.rest = rest;
        }
    }

    fn read(&mut self) -> Result<Stanza<'a>, Deb822Error> {
        let mut stanza = Stanza { fields: Vec::with_capacity(24), line: self.line };
        let begin = self.rest;
        while let Some((line, rest)) = next_line(self.rest) {
            if is_blank(line) {
                break;
            }
            let colon = name_length(line).ok_or_else(|| Deb822Error::not_a_field(line, self.line))?;
            let (value, after, lines) = value(self.rest, colon + 1, rest);
            let field = Field { name: &line[..colon], value };
            if begin.len() - after.len() > MAX_STANZA_BYTES {
                return Err(Deb822Error::TooLong { line: stanza.line });
            }
            if stanza.fields.len() == MAX_FIELDS {
                return Err(Deb822Error::TooManyFields { line: stanza.line });
            }
            if stanza.get(field.name).is_some() {
                return Err(Deb822Error::Duplicate { name: shorten(field.name), line: self.line });
            }
            stanza.fields.push(field);
            self.rest = after;
            self.line += lines;
        }
        Ok(stanza)
    }
}

/// The first line without its end, and what follows it.
fn next_line(text: &str) -> Option<(&str, &str)> {
    if text.is_empty() {
        return None;
    }
    match memchr(b'\n', text.as_bytes()) {
        Some(end) => Some((&text[..end], &text[end + 1..])),
        None => Some((text, "")),
    }
}

fn is_blank(line: &str) -> bool {
    line.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// Where the colon after a valid field name is: printable ASCII, no blank, not beginning with `#` or `-`.
fn name_length(line: &str) -> Option<usize> {
    let colon = memchr(b':', line.as_bytes())?;
    let name = &line.as_bytes()[..colon];
    let valid = !name.is_empty() && name.iter().all(u8::is_ascii_graphic) && !matches!(name[0], b'#' | b'-');
    valid.then_some(colon)
}

/// The value that begins at `start` in `text` and goes on over the continuation lines of `rest`; then what follows,
/// and the number of lines taken.
fn value<'a>(text: &'a str, start: usize, mut rest: &'a str) -> (&'a str, &'a str, usize) {
    let mut lines = 1;
    while rest.starts_with([' ', '\t']) {
        let Some((line, after)) = next_line(rest) else { break };
        // A line of blanks only separates stanzas in old files; dpkg and apt stop there, too.
        if is_blank(line) {
            break;
        }
        rest = after;
        lines += 1;
    }
    (text[start..text.len() - rest.len()].trim_matches([' ', '\t', '\r', '\n']), rest, lines)
}

/// Why a text is not in the control file format. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Deb822Error {
    /// A line is neither `Name: value` nor a continuation.
    #[error("line {line}: expected `Name: value`, found `{text}`")]
    NotAField {
        /// The line's number.
        line: usize,
        /// The line, shortened.
        text: String,
    },
    /// A field is there twice.
    #[error("line {line}: the field `{name}` appears a second time in its stanza")]
    Duplicate {
        /// The field's name.
        name: String,
        /// The line of the second one.
        line: usize,
    },
    /// A stanza is longer than [`MAX_STANZA_BYTES`].
    #[error("line {line}: the stanza that begins here is longer than {MAX_STANZA_BYTES} bytes")]
    TooLong {
        /// Where the stanza begins.
        line: usize,
    },
    /// A stanza has more fields than [`MAX_FIELDS`].
    #[error("line {line}: the stanza that begins here has more than {MAX_FIELDS} fields")]
    TooManyFields {
        /// Where the stanza begins.
        line: usize,
    },
    /// There is no stanza.
    #[error("expected a stanza of `Name: value` lines, found nothing")]
    Empty,
    /// There should be only one stanza.
    #[error("line {line}: expected the end of the text, found a second stanza")]
    SeveralStanzas {
        /// Where the second stanza begins.
        line: usize,
    },
}

impl Deb822Error {
    fn not_a_field(text: &str, line: usize) -> Self {
        Self::NotAField { line, text: shorten(text) }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "Package: a\nDescription: short\n long\n .\n more\nTag:\n x,\n y\n\n\nPackage: b\n";

    #[test]
    fn stanzas_fields_and_continuations_are_found() {
        let all: Vec<_> = stanzas(TWO).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("package"), Some("a"));
        assert_eq!(all[0].get("DESCRIPTION"), Some("short\n long\n .\n more"));
        assert_eq!(all[0].get("Tag"), Some("x,\n y"));
        assert_eq!(all[0].get("Version"), None);
        assert_eq!((all[1].line(), all[1].get("Package")), (11, Some("b")));
        let names: Vec<_> = all[0].fields().map(|field| field.name).collect();
        assert_eq!(names, ["Package", "Description", "Tag"]);
    }

    #[test]
    fn a_last_line_without_line_end_and_windows_line_ends_are_read() {
        assert_eq!(single_stanza("A: 1\nB: 2").unwrap().get("b"), Some("2"));
        assert_eq!(single_stanza("A: 1\r\nB: 2\r\n\r\n").unwrap().get("a"), Some("1"));
        assert_eq!(single_stanza("A:\n").unwrap().get("a"), Some(""));
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("A: 1\nnonsense\n", "line 2: expected `Name: value`, found `nonsense`"),
            ("A: 1\n\n: x\n", "line 3: expected `Name: value`, found `: x`"),
            (" lead\n", "line 1: expected `Name: value`, found ` lead`"),
            ("#c: d\n", "line 1: expected `Name: value`, found `#c: d`"),
            ("A: 1\nB: 2\n c\na: 3\n", "line 4: the field `a` appears a second time in its stanza"),
            ("A: 1\n\nB: 2\n", "line 3: expected the end of the text, found a second stanza"),
            ("\n\n", "expected a stanza of `Name: value` lines, found nothing"),
        ];
        for (text, message) in cases {
            assert_eq!(single_stanza(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn too_many_fields_and_too_long_stanzas_are_refused() {
        let many: String = (0..=MAX_FIELDS).map(|number| format!("F{number}: x\n")).collect();
        assert_eq!(single_stanza(&many).unwrap_err(), Deb822Error::TooManyFields { line: 1 });
        let long = format!("A: {}\n", "x".repeat(MAX_STANZA_BYTES));
        assert_eq!(single_stanza(&long).unwrap_err(), Deb822Error::TooLong { line: 1 });
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[A-Za-z#:é \t\r\n.-]{0,200}") {
            for stanza in stanzas(&text).flatten() {
                proptest::prop_assert!(stanza.fields().len() > 0);
            }
        }
    }
}
