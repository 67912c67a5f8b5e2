//! YAML on its way out: block style, short lists on one line, and quotes wherever a reader could take a text for
//! something else.

use std::fmt::Write as _;

/// A mapping, in order.
pub(super) type Entries = Vec<(String, Node)>;

/// Lists of texts that are together shorter than this are written on one line.
const SHORT: usize = 80;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Flag(bool),
    Number(u64),
    List(Vec<Node>),
    Map(Entries),
}

impl Node {
    /// A text that stands as it is.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A text in which a dollar sign would begin a variable.
    pub(super) fn interpolated(text: &str) -> Self {
        Self::Text(text.replace('$', "$$"))
    }

    pub(super) fn texts(texts: &[String]) -> Self {
        Self::List(texts.iter().map(|text| Self::text(text)).collect())
    }

    pub(super) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, node)| (key.to_owned(), node)).collect())
    }

    /// The whole document.
    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        self.block(0, &mut out);
        out
    }

    /// Lines of their own, `depth` blanks from the left.
    fn block(&self, depth: usize, out: &mut String) {
        match self {
            Self::Map(entries) => {
                for (index, (key, node)) in entries.iter().enumerate() {
                    // The first entry of a mapping in a list stands behind the list's sign.
                    if index > 0 || out.is_empty() || out.ends_with('\n') {
                        out.push_str(&" ".repeat(depth));
                    }
                    let _ = write!(out, "{}:", scalar(key));
                    node.after_key(depth, out);
                }
            }
            Self::List(items) => {
                for item in items {
                    let _ = write!(out, "{}-", " ".repeat(depth));
                    match item {
                        Self::Map(entries) if !entries.is_empty() => {
                            out.push(' ');
                            item.block(depth + 2, out);
                        }
                        item => item.after_key(depth, out),
                    }
                }
            }
            other => {
                let _ = writeln!(out, "{}", other.flow());
            }
        }
    }

    /// Behind a key or a list's sign.
    fn after_key(&self, depth: usize, out: &mut String) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                self.block(depth + 2, out);
            }
            Self::List(items) if !items.is_empty() && !self.is_short() => {
                out.push('\n');
                self.block(depth + 2, out);
            }
            Self::Text(text) if is_literal(text) => {
                let sign = if text.ends_with('\n') { "|" } else { "|-" };
                let _ = writeln!(out, " {sign}");
                for line in text.lines() {
                    let indent = if line.is_empty() { 0 } else { depth + 2 };
                    let _ = writeln!(out, "{}{line}", " ".repeat(indent));
                }
            }
            other => {
                let _ = writeln!(out, " {}", other.flow());
            }
        }
    }

    fn is_short(&self) -> bool {
        let Self::List(items) = self else { return true };
        let lengths = items.iter().map(|item| match item {
            Self::Text(text) if !text.contains('\n') => text.len() + 2,
            Self::Flag(_) | Self::Number(_) => 8,
            Self::Text(_) | Self::List(_) | Self::Map(_) => SHORT + 1,
        });
        lengths.sum::<usize>() <= SHORT
    }

    fn flow(&self) -> String {
        match self {
            Self::Text(text) => scalar(text),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::flow).collect::<Vec<_>>().join(", ")),
            Self::Map(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, node)| format!("{}: {}", scalar(key), node.flow())).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

/// Several lines that a block keeps as they are: none that ends in blanks or begins with some that would count.
fn is_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && text.lines().all(|line| line.trim_end() == line)
        && text.chars().all(|letter| letter == '\n' || letter == '\t' || is_printable(letter))
}

/// A text on one line: plain where that is certain to be read as the same text.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-+@=".contains(letter) || letter == ':')
        && !text.ends_with(':')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            letter if is_printable(letter) => out.push(letter),
            letter => {
                let _ = write!(out, "\\U{:08X}", u32::from(letter));
            }
        }
    }
    out + "\""
}

fn is_printable(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}
