//! Heredocs: texts that stand below an instruction, between a mark such as `<<EOF` and a line with its name.
//!
//! `ADD`, `COPY` and `RUN` have them, and so has an `ONBUILD` of one of these. A mark is a whole word: `<<EOF`,
//! `<<-EOF` (tabs at the beginning of lines do not count), `<<"EOF"` (no variables), `3<<EOF`.

use super::expand::{Lexer, QuoteStyle};
use super::scope::Scope;
use super::words;
use crate::source::Located;

/// A text, and the mark that announced it.
#[derive(Clone, Debug)]
pub struct Heredoc {
    /// The name, without quotes.
    pub name: String,
    /// The text as it stands in the file, ends of lines included.
    pub content: Located<String>,
    /// Whether tabs at the beginning of its lines are left out.
    pub chomps: bool,
    /// Whether its variables are put in place when a file is made of it: no part of the name is quoted.
    pub expands: bool,
    /// The number before the mark; zero if there is none.
    pub descriptor: u32,
}

impl Heredoc {
    /// The text, without the tabs that do not count.
    pub fn text(&self) -> String {
        if !self.chomps {
            return self.content.value.clone();
        }
        self.content.value.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Whether `word` announces a heredoc.
    pub(super) fn is_mark(word: &str) -> bool {
        Mark::parse(word).is_some()
    }
}

/// What announces a heredoc.
pub(super) struct Mark {
    pub(super) word: String,
    pub(super) name: String,
    pub(super) chomps: bool,
    expands: bool,
    descriptor: u32,
}

impl Mark {
    pub(super) fn with(self, content: Located<String>) -> Heredoc {
        let Self { name, chomps, expands, descriptor, .. } = self;
        Heredoc { name, content, chomps, expands, descriptor }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        let digits = word.len() - word.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let rest = word[digits..].strip_prefix("<<")?;
        let (rest, chomps) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        // A name that reads differently with its quotes than without has some: then its text has no variables.
        let [name] = <[String; 1]>::try_from(lex(rest, QuoteStyle::Removed)?).ok()?;
        let [raw] = <[String; 1]>::try_from(lex(rest, QuoteStyle::Kept)?).ok()?;
        let descriptor = word[..digits].parse().unwrap_or(0);
        Some(Self { word: word.to_owned(), expands: name == raw, name, chomps, descriptor })
    }
}

/// The heredocs that follow this line, in order.
pub(super) fn announced(line: &str) -> Vec<Mark> {
    if !line.contains("<<") || !can_have_heredocs(line) {
        return Vec::new();
    }
    let words = lex(line, QuoteStyle::Kept).unwrap_or_default();
    words.iter().filter_map(|word| Mark::parse(word)).collect()
}

/// Whether the line is one of the instructions that have heredocs, or an `ONBUILD` of one, and not in its JSON form.
fn can_have_heredocs(line: &str) -> bool {
    let (keyword, rest) = words::keyword(line);
    let (line, keyword, rest) = match keyword.eq_ignore_ascii_case("ONBUILD") {
        true => {
            let (inner, after) = words::keyword(&line[rest.clone()]);
            (&line[rest], inner, after)
        }
        false => (line, keyword, rest),
    };
    if !["ADD", "COPY", "RUN"].iter().any(|name| keyword.eq_ignore_ascii_case(name)) {
        return false;
    }
    let arguments = words::flags(line, rest).1;
    words::json_list(&line[arguments]).is_none()
}

fn lex(text: &str, quotes: QuoteStyle) -> Option<Vec<String>> {
    // The shell's own escape character, whatever the file's is: a mark is the shell's language.
    Lexer::new('\\').quotes(quotes).keeping_unset().words(text, &Scope::default()).ok()
}
