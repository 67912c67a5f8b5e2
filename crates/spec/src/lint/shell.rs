//! A shell script, seen from far: its simple commands, one after the other.
//!
//! This is no shell. It knows quotes, escapes, and what stands between commands; of constructs it sees the commands in
//! them. What it does not understand it leaves in the words.

/// The simple commands of a script, each without the variables that are set before it.
pub(super) fn commands(script: &str) -> Vec<Simple> {
    let mut reader = Reader::default();
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, reader.quote) {
            (letter, Some(quote)) if letter == quote => reader.quote = None,
            ('\\', quote) if quote != Some('\'') => match letters.next() {
                Some('\n') | None => {}
                Some(escaped) => reader.push(escaped),
            },
            (letter, Some(_)) => reader.push(letter),
            ('\'' | '"', None) => {
                reader.quote = Some(letter);
                reader.word.get_or_insert_default();
            }
            ('#', None) if reader.word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            ('\n' | ';' | '&' | '|' | '(' | ')', None) => {
                // `>&2` and `2>&1` are one word.
                if letter == '&' && reader.word.as_ref().is_some_and(|word| word.ends_with('>')) {
                    reader.push(letter);
                    continue;
                }
                let is_pipe = letter == '|' && letters.next_if_eq(&'|').is_none();
                reader.end_command(is_pipe);
            }
            (letter, None) if letter.is_whitespace() => reader.end_word(),
            (letter, None) => reader.push(letter),
        }
    }
    reader.end_command(false);
    reader.commands
}

/// A program and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Simple {
    /// At least one.
    pub(super) words: Vec<String>,
    /// Whether its output is the next command's input.
    pub(super) is_piped: bool,
}

impl Simple {
    /// The name of the program, without directories.
    pub(super) fn program(&self) -> &str {
        self.words[0].rsplit('/').next().unwrap_or_default()
    }

    /// Whether one of its words is `word`.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// The first argument that is no option, and those behind it.
    pub(super) fn operands(&self) -> impl Iterator<Item = &str> {
        self.words[1..].iter().map(String::as_str).filter(|word| !word.starts_with('-'))
    }
}

/// Words that stand before a command and are none.
const PREFIXES: [&str; 12] =
    ["if", "then", "else", "elif", "while", "until", "do", "!", "{", "exec", "time", "command"];
/// Words that end a construct.
const ENDS: [&str; 4] = ["fi", "done", "}", "esac"];

#[derive(Default)]
struct Reader {
    commands: Vec<Simple>,
    words: Vec<String>,
    word: Option<String>,
    quote: Option<char>,
}

impl Reader {
    fn push(&mut self, letter: char) {
        self.word.get_or_insert_default().push(letter);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let is_first = self.words.is_empty();
        if !(is_first && (PREFIXES.contains(&word.as_str()) || is_assignment(&word))) {
            self.words.push(word);
        }
    }

    fn end_command(&mut self, is_piped: bool) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        if words.first().is_some_and(|first| !ENDS.contains(&first.as_str())) {
            self.commands.push(Simple { words, is_piped });
        }
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_seen_as_its_commands() {
        let cases: &[(&str, &[&str])] = &[
            ("a b && c", &["a b", "c"]),
            ("a 'b && c' \"d;e\"", &["a b && c d;e"]),
            ("if a; then b; else c; fi", &["a", "b", "c"]),
            ("A=1 B=2 make x=3", &["make x=3"]),
            ("a | b || c", &["a", "b", "c"]),
            ("a 2>&1 >/dev/null", &["a 2>&1 >/dev/null"]),
            ("(cd x; y)", &["cd x", "y"]),
            ("a # b; c\nd", &["a", "d"]),
            ("a \\\n b", &["a b"]),
            ("a#b", &["a#b"]),
            ("'' x", &[" x"]),
            ("", &[]),
            ("set -e; { a; }", &["set -e", "a"]),
        ];
        for (script, expected) in cases {
            let found: Vec<String> = commands(script).iter().map(|command| command.words.join(" ")).collect();
            assert_eq!(found, *expected, "{script}");
        }
        assert!(commands("a | b")[0].is_piped && !commands("a || b")[0].is_piped);
    }
}
