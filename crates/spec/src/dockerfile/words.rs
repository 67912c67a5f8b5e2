//! Lines cut into words, without a change to them: ranges of the text, so that each word knows its place.

use std::ops::Range;

/// The name of the instruction, and the range of what follows it.
pub(super) fn keyword(line: &str) -> (&str, Range<usize>) {
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    let rest = line[end..].trim_start();
    (&line[..end], line.len() - rest.len()..line.len())
}

/// A flag as written, and its text without quotes.
pub(super) struct FlagWord {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}

/// The words at the beginning of `range` that begin with `--`, and the range of what follows them. A word `--` ends
/// them.
pub(super) fn flags(line: &str, range: Range<usize>) -> (Vec<FlagWord>, Range<usize>) {
    let mut words = Vec::new();
    let mut at = range.start;
    loop {
        at += leading_blanks(&line[at..range.end]);
        if !line[at..range.end].starts_with("--") {
            return (words, at..range.end);
        }
        let (text, length) = flag_word(&line[at..range.end]);
        let word = at..at + length;
        at = word.end;
        if text == "--" {
            return (words, at + leading_blanks(&line[at..range.end])..range.end);
        }
        words.push(FlagWord { range: word, text });
    }
}

/// The first word of `text` without its quotes and escapes, and its length with them. The escape character of flags is
/// the backslash, whatever the file says.
fn flag_word(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', open) if open != Some('\'') => word.extend(letters.next().map(|(_, escaped)| escaped)),
            (letter, Some(_)) => word.push(letter),
            ('\'' | '"', None) => quote = Some(letter),
            (letter, None) if letter.is_whitespace() => return (word, at),
            (letter, None) => word.push(letter),
        }
    }
    (word, text.len())
}

/// The words of `range` between blanks; quotes mean nothing.
pub(super) fn plain(line: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let base = line.as_ptr() as usize;
    line[range]
        .split_whitespace()
        .map(|word| {
            let start = word.as_ptr() as usize - base;
            start..start + word.len()
        })
        .collect()
}

/// The words of `range` between blanks that are neither quoted nor escaped; quotes and escapes stay part of them.
pub(super) fn quoted(line: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut quote: Option<char> = None;
    let mut letters = line[range.clone()].char_indices().map(|(at, letter)| (range.start + at, letter));
    while let Some((at, letter)) = letters.next() {
        if quote.is_none() && letter.is_whitespace() {
            words.extend(start.take().map(|start| start..at));
            continue;
        }
        start.get_or_insert(at);
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            (letter, open) if letter == escape && open != Some('\'') => {
                letters.next();
            }
            ('\'' | '"', None) => quote = Some(letter),
            _ => {}
        }
    }
    words.extend(start.map(|start| start..range.end));
    words
}

/// The strings of a JSON list, or `None` if the text is no list of strings; see [`is_json_list`].
pub(super) fn json_list(text: &str) -> Option<Vec<String>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Whether the text is a JSON list, of whatever.
pub(super) fn is_json_list(text: &str) -> bool {
    text.trim_start().starts_with('[') && serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).is_ok()
}

fn leading_blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}
