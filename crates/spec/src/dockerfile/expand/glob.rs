//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` is any text, `?` is any letter, and neither is the end of a
//! line.

use super::ExpandError;

/// A pattern and a value of together this size are compared; beyond it someone is trying something.
const MOST_COMPARISONS: usize = 64 * 1024 * 1024;

pub(super) struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Copy)]
enum Part {
    Any,
    One,
    Letter(char),
}

impl Part {
    fn fits(self, letter: char) -> bool {
        match self {
            Self::Any | Self::One => letter != '\n',
            Self::Letter(own) => own == letter,
        }
    }
}

impl Glob {
    pub(super) fn parse(pattern: &str) -> Result<Self, ExpandError> {
        let mut parts = Vec::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                '*' => Part::Any,
                '?' => Part::One,
                // These two are escaped for the sake of the braces around the pattern, and mean themselves.
                '\\' if matches!(letters.peek(), Some('}' | '/')) => continue,
                '\\' => match letters.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Part::Letter(escaped),
                    other => return Err(ExpandError::PatternEscape(other.unwrap_or(' '))),
                },
                letter => Part::Letter(letter),
            });
        }
        Ok(Self { parts })
    }

    pub(super) fn without_prefix(&self, value: &str, is_longest: bool) -> Result<String, ExpandError> {
        let letters: Vec<char> = value.chars().collect();
        let end = self.ends(&letters, is_longest)?[0];
        Ok(letters[end.unwrap_or(0)..].iter().collect())
    }

    pub(super) fn without_suffix(&self, value: &str, is_longest: bool) -> Result<String, ExpandError> {
        let mirrored = Self { parts: self.parts.iter().rev().copied().collect() };
        let letters: Vec<char> = value.chars().rev().collect();
        let end = mirrored.ends(&letters, is_longest)?[0];
        Ok(letters[end.unwrap_or(0)..].iter().rev().collect())
    }

    pub(super) fn replaced(
        &self,
        value: &str,
        replacement: &str,
        is_everywhere: bool,
        longest: usize,
    ) -> Result<String, ExpandError> {
        let letters: Vec<char> = value.chars().collect();
        let ends = self.ends(&letters, true)?;
        let mut result = String::new();
        let (mut at, mut previous_end) = (0, None);
        while at <= letters.len() {
            match ends[at] {
                // An empty match right behind another match is none.
                Some(end) if !(end == at && previous_end == Some(at)) => {
                    result.push_str(replacement);
                    previous_end = Some(end);
                    result.extend(letters.get(at).filter(|_| end == at));
                    at = end.max(at + 1);
                    if !is_everywhere {
                        break;
                    }
                }
                _ => {
                    result.extend(letters.get(at));
                    at += 1;
                }
            }
            if result.len() > longest {
                return Err(ExpandError::TooLong);
            }
        }
        result.extend(letters.get(at..).unwrap_or_default());
        Ok(result)
    }

    /// For each place of `letters`, and for their end, where the longest or shortest match from there ends. The pattern
    /// is read from its end, so that the time is the product of the two lengths, whatever the pattern.
    fn ends(&self, letters: &[char], is_longest: bool) -> Result<Vec<Option<usize>>, ExpandError> {
        if self.parts.len().saturating_mul(letters.len()) > MOST_COMPARISONS {
            return Err(ExpandError::TooLong);
        }
        let mut ends: Vec<Option<usize>> = (0..=letters.len()).map(Some).collect();
        for part in self.parts.iter().rev() {
            match part {
                Part::Any => {
                    for at in (0..letters.len()).rev().filter(|at| part.fits(letters[*at])) {
                        ends[at] = match (ends[at], ends[at + 1]) {
                            (Some(here), Some(later)) if is_longest => Some(here.max(later)),
                            (Some(here), Some(later)) => Some(here.min(later)),
                            (here, later) => here.or(later),
                        };
                    }
                }
                Part::One | Part::Letter(_) => {
                    for at in 0..letters.len() {
                        ends[at] = ends[at + 1].filter(|_| part.fits(letters[at]));
                    }
                    ends[letters.len()] = None;
                }
            }
        }
        Ok(ends)
    }
}
