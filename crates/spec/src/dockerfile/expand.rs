//! Words with their quotes, escapes and variables read: `$v`, `${v}`, and `${v:-x}` with all its sisters.
//!
//! The rules are BuildKit's, not a shell's: a name that has no value is empty, a backslash before an ordinary letter
//! goes outside of quotes and stays inside of double ones, and there are no character classes in patterns.

mod glob;

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use glob::Glob;

use super::scope::Scope;

/// What is nested deeper was written to break a reader.
const DEEPEST: usize = 64;

/// What a text may grow by: variables that hold variables could otherwise double without end. The kernel takes none that are
/// longer.
const LONGEST_RESULT: usize = 128 * 1024;

/// A text with its variables in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The names in it that have no value.
    pub unset: BTreeSet<String>,
}

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote is open at the end.
    #[error("a quote ({0}) begins here and does not end")]
    OpenQuote(char),
    /// A `${` is open at the end.
    #[error("a variable begins here and does not end: expected `{0}`")]
    OpenVariable(char),
    /// What follows a `${` is no name.
    #[error("`${{` is not followed by the name of a variable")]
    NoName,
    /// What follows a name is none of the modifiers.
    #[error("`{0}` is no modifier of a variable: expected `-`, `+` or `?`, perhaps after a colon, or `#`, `%`, `/`")]
    Modifier(String),
    /// A backslash in a pattern stands before an ordinary letter.
    #[error("`\\{0}` means nothing in a pattern")]
    PatternEscape(char),
    /// `${v?}` without a value.
    #[error("the variable `{name}` {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the author says about it.
        message: String,
    },
    /// Nested too deeply.
    #[error("variables are nested more than {DEEPEST} deep")]
    TooDeep,
    /// Too long with its variables in place.
    #[error("with its variables in place this text grows by more than {LONGEST_RESULT} bytes")]
    TooLong,
}

/// What happens to quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuoteStyle {
    /// They group, and are taken away.
    Removed,
    /// They group, and stay, and so do escapes.
    Kept,
    /// They are letters like others: the way of heredocs.
    Letters,
}

/// How a text is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer {
    escape: char,
    quotes: QuoteStyle,
    keeps_unset: bool,
}

impl Lexer {
    pub(super) fn new(escape: char) -> Self {
        Self { escape, quotes: QuoteStyle::Removed, keeps_unset: false }
    }

    pub(super) fn quotes(self, quotes: QuoteStyle) -> Self {
        Self { quotes, ..self }
    }

    /// Leaves names without a value as they are written.
    pub(super) fn keeping_unset(self) -> Self {
        Self { keeps_unset: true, ..self }
    }

    /// The text as one word.
    pub(super) fn word(self, text: &str, scope: &Scope) -> Result<Expanded, ExpandError> {
        let mut reader = self.reader(text, scope);
        let text = reader.until(None, self.quotes == QuoteStyle::Kept)?.text;
        Ok(Expanded { text, unset: reader.unset })
    }

    /// The text as words between blanks, where those of a variable's value count too.
    pub(super) fn words(self, text: &str, scope: &Scope) -> Result<Vec<String>, ExpandError> {
        Ok(self.reader(text, scope).until(None, self.quotes == QuoteStyle::Kept)?.words())
    }

    fn reader<'a>(self, text: &'a str, scope: &'a Scope) -> Reader<'a> {
        let letters = text.chars().peekable();
        Reader { lexer: self, letters, scope, depth: 0, unset: BTreeSet::new(), longest: LONGEST_RESULT + text.len() }
    }
}

/// A text on its way out: whole, and in words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Output {
    /// A letter that may end a word.
    fn push(&mut self, letter: char) {
        self.text.push(letter);
        if !letter.is_whitespace() {
            self.word.push(letter);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// Text that is part of a word, blanks and all.
    fn push_whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Reader<'a> {
    lexer: Lexer,
    letters: Peekable<Chars<'a>>,
    scope: &'a Scope,
    depth: usize,
    unset: BTreeSet<String>,
    longest: usize,
}

impl Reader<'_> {
    /// Reads up to `stop`, which is taken, or to the end. `keeps_escapes`: the escape character stays before what it
    /// escapes.
    fn until(&mut self, stop: Option<char>, keeps_escapes: bool) -> Result<Output, ExpandError> {
        let mut output = Output::default();
        while let Some(letter) = self.letters.next() {
            match letter {
                letter if Some(letter) == stop => return Ok(output),
                '$' => {
                    let value = self.variable()?;
                    if output.text.len() + value.len() > self.longest {
                        return Err(ExpandError::TooLong);
                    }
                    value.chars().for_each(|letter| output.push(letter));
                }
                '\'' if self.lexer.quotes != QuoteStyle::Letters => output.push_whole(&self.single_quoted()?),
                '"' if self.lexer.quotes != QuoteStyle::Letters => {
                    output.push_whole(&self.double_quoted(keeps_escapes)?);
                }
                letter if letter == self.lexer.escape => {
                    if keeps_escapes {
                        output.push_whole(letter.encode_utf8(&mut [0; 4]));
                    }
                    // At the end of a text it escapes nothing.
                    if let Some(escaped) = self.letters.next() {
                        output.push_whole(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                letter => output.push(letter),
            }
            if output.text.len() > self.longest {
                return Err(ExpandError::TooLong);
            }
        }
        stop.map_or(Ok(output), |stop| Err(ExpandError::OpenVariable(stop)))
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = self.kept_quote('\'');
        loop {
            match self.letters.next().ok_or(ExpandError::OpenQuote('\''))? {
                '\'' => return Ok(text + &self.kept_quote('\'')),
                letter => text.push(letter),
            }
        }
    }

    fn double_quoted(&mut self, keeps_escapes: bool) -> Result<String, ExpandError> {
        let mut text = self.kept_quote('"');
        loop {
            match self.letters.next().ok_or(ExpandError::OpenQuote('"'))? {
                '"' => return Ok(text + &self.kept_quote('"')),
                '$' => text.push_str(&self.variable()?),
                letter if letter == self.lexer.escape => {
                    if keeps_escapes {
                        text.push(letter);
                    }
                    match self.letters.peek() {
                        None => return Err(ExpandError::OpenQuote('"')),
                        Some(&escaped) if matches!(escaped, '"' | '$') || escaped == self.lexer.escape => {
                            text.push(escaped);
                            self.letters.next();
                        }
                        // Before any other letter it is an ordinary one.
                        Some(_) => text.push(letter),
                    }
                }
                letter => text.push(letter),
            }
            if text.len() > self.longest {
                return Err(ExpandError::TooLong);
            }
        }
    }

    fn kept_quote(&self, quote: char) -> String {
        if self.lexer.quotes == QuoteStyle::Kept { quote.to_string() } else { String::new() }
    }

    /// What stands after a dollar sign.
    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.letters.next_if_eq(&'{').is_some() {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(ExpandError::TooDeep);
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.value(&name).unwrap_or_else(|| self.unset_as(|| format!("${name}"))))
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.letters.peek() {
            None => return Err(ExpandError::OpenVariable('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::NoName),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.letters.next().ok_or(ExpandError::OpenVariable('}'))?;
        match modifier {
            '}' => Ok(self.value(&name).unwrap_or_else(|| self.unset_as(|| format!("${{{name}}}")))),
            ':' => {
                let modifier = self.letters.next().ok_or(ExpandError::OpenVariable('}'))?;
                if !matches!(modifier, '-' | '+' | '?') {
                    return Err(ExpandError::Modifier(format!(":{modifier}")));
                }
                self.conditional(&name, modifier, true)
            }
            '-' | '+' | '?' => self.conditional(&name, modifier, false),
            '#' | '%' => self.trimmed(&name, modifier),
            '/' => self.replaced(&name),
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    /// `-`, `+` and `?`, with a colon (an empty value is none) or without.
    fn conditional(&mut self, name: &str, modifier: char, has_colon: bool) -> Result<String, ExpandError> {
        // Names in the text that have no value are noted only if the text is used.
        let before = self.unset.clone();
        let word = self.until(Some('}'), false)?.text;
        let noted = std::mem::replace(&mut self.unset, before);
        let value = self.scope.get(name).map(str::to_owned);
        if value.is_none() && self.lexer.keeps_unset {
            let colon = if has_colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let usable = value.clone().filter(|value| !(has_colon && value.is_empty()));
        match (modifier, usable) {
            ('+', None) => Ok(String::new()),
            ('-' | '?', Some(value)) => Ok(value),
            ('?', None) => {
                let problem = if value.is_none() { "has no value" } else { "is empty" };
                let message = if word.is_empty() { problem.to_owned() } else { format!("{problem}: {word}") };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
            _ => {
                self.unset.extend(noted);
                Ok(word)
            }
        }
    }

    /// `#`, `##`, `%` and `%%`.
    fn trimmed(&mut self, name: &str, side: char) -> Result<String, ExpandError> {
        let is_longest = self.letters.next_if_eq(&side).is_some();
        let pattern = self.until(Some('}'), true)?.text;
        let Some(value) = self.value(name) else {
            let signs = side.to_string().repeat(if is_longest { 2 } else { 1 });
            return Ok(self.unset_as(|| format!("${{{name}{signs}{pattern}}}")));
        };
        let glob = Glob::parse(&pattern)?;
        match side {
            '#' => glob.without_prefix(&value, is_longest),
            _ => glob.without_suffix(&value, is_longest),
        }
    }

    /// `/` and `//`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let is_everywhere = self.letters.next_if_eq(&'/').is_some();
        let pattern = self.until(Some('/'), true)?.text;
        let replacement = self.until(Some('}'), true)?.text;
        let Some(value) = self.value(name) else {
            return Ok(self.unset_as(|| format!("${{{name}/{pattern}/{replacement}}}")));
        };
        Glob::parse(&pattern)?.replaced(&value, &replacement, is_everywhere, self.longest)
    }

    /// A name, or one of the signs that shells keep for themselves: those are names of one letter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.letters.peek() {
            Some(first) if first.is_numeric() => {
                while let Some(digit) = self.letters.next_if(|letter| letter.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.extend(self.letters.next());
                return name;
            }
            _ => {}
        }
        while let Some(letter) = self.letters.next_if(|letter| letter.is_alphanumeric() || *letter == '_') {
            name.push(letter);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.scope.get(name).map(str::to_owned);
        if value.is_none() {
            self.unset.insert(name.to_owned());
        }
        value
    }

    fn unset_as(&self, written: impl FnOnce() -> String) -> String {
        if self.lexer.keeps_unset { written() } else { String::new() }
    }
}

#[cfg(test)]
mod tests;
