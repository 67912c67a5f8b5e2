//! Patterns of paths: those of `COPY` and `ADD`, and those of `.dockerignore`.
//!
//! Both know `*` (any text without a slash), `?` (any letter but a slash), `[a-z]`, `[^a-z]`, and `\` before a letter
//! that is to mean itself. In `.dockerignore` and with `COPY --parents` and `--exclude`, `**` is any number of
//! directories too.

use std::fmt;

/// A pattern that can be compared with paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    /// The letters at the beginning that mean themselves: most paths differ there.
    prefix: String,
    /// And those at the end.
    suffix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Letter(char),
    /// Any letter but a slash.
    One,
    /// Any text without a slash.
    Star,
    /// Nothing, or any text that ends in a slash.
    Directories,
    /// Any text.
    Everything,
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// `[` without its end.
    #[error("a class of letters begins with `[` and does not end")]
    OpenClass,
    /// `[]`, `[a-]` and the like.
    #[error("a class of letters is not as in `[a-z]` or `[^abc]`")]
    Class,
    /// A backslash at the end.
    #[error("the backslash at the end stands before no letter")]
    TrailingEscape,
}

impl Pattern {
    /// A pattern of `COPY` or `ADD`.
    pub fn path(text: &str) -> Result<Self, BadPattern> {
        Self::parse(text, false)
    }

    /// A pattern with `**`.
    pub fn deep(text: &str) -> Result<Self, BadPattern> {
        Self::parse(text, true)
    }

    /// Whether a source of `COPY` is a pattern rather than the name of a file.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '['])
    }

    fn parse(text: &str, is_deep: bool) -> Result<Self, BadPattern> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            parts.push(match letter {
                '*' if is_deep && rest.starts_with('*') => {
                    rest = &rest[1..];
                    rest = rest.strip_prefix('/').unwrap_or(rest);
                    if rest.is_empty() { Part::Everything } else { Part::Directories }
                }
                '*' => Part::Star,
                '?' => Part::One,
                '[' => {
                    let (class, after) = class(rest)?;
                    rest = after;
                    class
                }
                '\\' => {
                    let escaped = rest.chars().next().ok_or(BadPattern::TrailingEscape)?;
                    rest = &rest[escaped.len_utf8()..];
                    Part::Letter(escaped)
                }
                letter => Part::Letter(letter),
            });
        }
        let literal = |part: &Part| match part {
            Part::Letter(letter) => Some(*letter),
            _ => None,
        };
        let prefix = parts.iter().map_while(literal).collect();
        let reversed: Vec<char> = parts.iter().rev().map_while(literal).collect();
        Ok(Self { parts, prefix, suffix: reversed.into_iter().rev().collect() })
    }

    /// Whether the whole of `path` fits.
    pub fn matches(&self, path: &str) -> bool {
        if !path.starts_with(&self.prefix) || !path.ends_with(&self.suffix) {
            return false;
        }
        // No part but letters: then beginning and end are the same, and the rest is a matter of length.
        if self.prefix.chars().count() == self.parts.len() {
            return path.len() == self.prefix.len();
        }
        self.compare(&path.chars().collect::<Vec<char>>())
    }

    /// Whether something below the directory `path` may fit.
    pub fn may_match_below(&self, path: &str) -> bool {
        let mut parts = self.parts.as_slice();
        for letter in path.chars().chain(['/']) {
            match parts {
                [Part::Letter(own), rest @ ..] if *own == letter => parts = rest,
                [Part::Letter(_), ..] | [] => return false,
                _ => return true,
            }
        }
        !parts.is_empty()
    }

    /// Reads the pattern from its end, so that the time is the product of the lengths, whatever the pattern:
    /// `fits[at]` says whether the parts so far fit what begins at `at`.
    fn compare(&self, path: &[char]) -> bool {
        let end = path.len();
        let mut fits = vec![false; end + 1];
        fits[end] = true;
        for part in self.parts.iter().rev() {
            match part {
                Part::Star => {
                    (0..end).rev().for_each(|at| fits[at] = fits[at] || (path[at] != '/' && fits[at + 1]));
                }
                Part::Everything => (0..end).rev().for_each(|at| fits[at] = fits[at] || fits[at + 1]),
                Part::Directories => {
                    let mut after_a_slash = false;
                    for at in (0..end).rev() {
                        after_a_slash |= path[at] == '/' && fits[at + 1];
                        fits[at] |= after_a_slash;
                    }
                }
                single => {
                    (0..end).for_each(|at| fits[at] = fits[at + 1] && single.fits(path[at]));
                    fits[end] = false;
                }
            }
        }
        fits[0]
    }
}

impl Part {
    fn fits(&self, letter: char) -> bool {
        match self {
            Self::Letter(own) => *own == letter,
            Self::One => letter != '/',
            Self::Class { is_negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *is_negated
            }
            Self::Star | Self::Directories | Self::Everything => true,
        }
    }
}

/// What stands after a `[`, and the rest behind its `]`.
fn class(text: &str) -> Result<(Part, &str), BadPattern> {
    let (is_negated, mut rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
    let mut ranges = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']')
            && !ranges.is_empty()
        {
            return Ok((Part::Class { is_negated, ranges }, after));
        }
        let (low, after) = class_letter(rest)?;
        let (high, after) = match after.strip_prefix('-') {
            Some(after) => class_letter(after)?,
            None => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
}

fn class_letter(text: &str) -> Result<(char, &str), BadPattern> {
    let mut letters = text.chars();
    match letters.next().ok_or(BadPattern::OpenClass)? {
        '-' | ']' => Err(BadPattern::Class),
        '\\' => {
            let escaped = letters.next().ok_or(BadPattern::TrailingEscape)?;
            Ok((escaped, letters.as_str()))
        }
        letter => Ok((letter, letters.as_str())),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Letter(letter) => write!(formatter, "{letter}")?,
                Part::One => write!(formatter, "?")?,
                Part::Star => write!(formatter, "*")?,
                Part::Directories => write!(formatter, "**/")?,
                Part::Everything => write!(formatter, "**")?,
                Part::Class { .. } => write!(formatter, "[…]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_copy_fit_as_in_go() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("**", "a/b", false),
            ("a.b", "axb", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::path(pattern).unwrap().matches(path), expected, "{pattern} against {path}");
        }
    }

    #[test]
    fn a_pattern_without_meaning_is_refused() {
        for text in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a\\"] {
            assert!(Pattern::path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_stars_are_any_directories() {
        let cases = [
            ("**", "a/b/c", true),
            ("**/", "a", true),
            ("**/file", "file", true),
            ("**/file", "a/b/file", true),
            ("**/file", "a/xfile", false),
            ("**file", "a/file", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a**", "abc/d", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/x/yb", false),
            ("**/*.pyc", "x/y.pyc", true),
            ("**/*.pyc", "y.pyc", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/**/*.txt", "dir/dir2/file.txt", true),
            ("dir/**/dir2/**/*.txt", "dir/a/dir2/b/c/file.txt", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::deep(pattern).unwrap().matches(path), expected, "{pattern} against {path}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        assert!(!Pattern::path(&"*a".repeat(300)).unwrap().matches(&"b".repeat(3000)));
        assert!(!Pattern::deep(&"**/a".repeat(300)).unwrap().matches(&"a/".repeat(1000)));
    }

    #[test]
    fn below_a_directory_there_may_be_a_match_unless_the_beginning_says_no() {
        let cases =
            [("a/b", "a", true), ("a/b", "b", false), ("a", "a", false), ("*/x", "q", true), ("a/*", "a", true)];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::deep(pattern).unwrap().may_match_below(path), expected, "{pattern} below {path}");
        }
    }
}
