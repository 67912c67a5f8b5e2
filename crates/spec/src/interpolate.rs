//! Variables in specs: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar sign.
//!
//! They are put in place in every string of `family.yaml` and `image.yaml`, except in what belongs to a shell or
//! goes into the image as it stands: `run`, `on_build`, `entrypoint`, `cmd`, a health check's command, and the
//! `content` of a file. There, `${NAME}` stays as written.

use std::collections::BTreeMap;

/// A scalar may not grow beyond this: variables that hold variables could otherwise double without end.
const LONGEST_RESULT: usize = 64 * 1024;

/// Names and values that specs may refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, String>,
}

impl Variables {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name`, in place of an earlier value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// Sets `name` unless it has a value already.
    pub fn set_default(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.entry(name.into()).or_insert_with(|| value.into());
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { values: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

/// Why a text with variables has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InterpolationError {
    /// `${NAME}` names nothing, and has no default.
    Unknown { name: String, token: String },
    /// `${` without `}`.
    Unclosed { token: String },
    /// What stands between the braces is not a name.
    BadName { name: String, token: String },
    /// The result would be longer than [`LONGEST_RESULT`].
    TooLong,
}

/// Puts the variables in place.
pub(crate) fn interpolate(text: &str, variables: &Variables) -> Result<String, InterpolationError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        push(&mut result, &rest[..dollar])?;
        rest = match &rest[dollar + 1..] {
            after if after.starts_with('$') => {
                push(&mut result, "$")?;
                &after[1..]
            }
            after if after.starts_with('{') => {
                let (value, remainder) = expand(&rest[dollar..], variables)?;
                push(&mut result, value)?;
                remainder
            }
            after => {
                push(&mut result, "$")?;
                after
            }
        };
    }
    push(&mut result, rest)?;
    Ok(result)
}

/// Reads one `${…}` at the beginning of `text`: its value, and the text behind it.
fn expand<'a>(text: &'a str, variables: &'a Variables) -> Result<(&'a str, &'a str), InterpolationError> {
    let Some(close) = text.find('}') else {
        return Err(InterpolationError::Unclosed { token: text.to_owned() });
    };
    let (token, rest) = text.split_at(close + 1);
    let inside = &token[2..close];
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(InterpolationError::BadName { name: name.to_owned(), token: token.to_owned() });
    }
    // As in a shell, `:-` also stands in for a value that is empty.
    match (variables.get(name), default) {
        (Some(""), Some(default)) | (None, Some(default)) => Ok((default, rest)),
        (Some(value), _) => Ok((value, rest)),
        (None, None) => Err(InterpolationError::Unknown { name: name.to_owned(), token: token.to_owned() }),
    }
}

fn push(result: &mut String, text: &str) -> Result<(), InterpolationError> {
    if result.len() + text.len() > LONGEST_RESULT {
        return Err(InterpolationError::TooLong);
    }
    result.push_str(text);
    Ok(())
}

/// Whether `text` may name a variable: letters, digits and `_`, no digit first.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> Variables {
        [("A", "one"), ("EMPTY", "")].into_iter().collect()
    }

    #[test]
    fn variables_defaults_and_dollar_signs_read_as_in_a_shell() {
        let cases = [
            ("plain", "plain"),
            ("${A}", "one"),
            ("x${A}y${A}z", "xoneyonez"),
            ("${NONE:-two}", "two"),
            ("${EMPTY:-two}", "two"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("$A $", "$A $"),
            ("${NONE:-a:-b}", "a:-b"),
        ];
        for (text, expected) in cases {
            assert_eq!(interpolate(text, &variables()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unknown_unclosed_and_misnamed_variables_are_errors() {
        use InterpolationError::{BadName, Unclosed, Unknown};
        let name = String::from;
        assert_eq!(interpolate("a${B}", &variables()), Err(Unknown { name: name("B"), token: name("${B}") }));
        assert_eq!(interpolate("a${A", &variables()), Err(Unclosed { token: name("${A") }));
        assert_eq!(interpolate("${A-b}", &variables()), Err(BadName { name: name("A-b"), token: name("${A-b}") }));
        assert_eq!(interpolate("${}", &variables()), Err(BadName { name: name(""), token: name("${}") }));
    }

    #[test]
    fn a_result_that_grows_without_bound_is_refused() {
        let variables: Variables = [("A", "x".repeat(LONGEST_RESULT))].into_iter().collect();
        assert!(interpolate("${A}", &variables).is_ok());
        assert_eq!(interpolate("${A}${A}", &variables), Err(InterpolationError::TooLong));
    }

    proptest! {
        #[test]
        fn interpolation_of_any_text_ends_without_a_panic(text in any::<String>()) {
            let _ = interpolate(&text, &variables());
        }

        #[test]
        fn interpolation_of_any_arrangement_of_its_own_signs_ends_without_a_panic(text in "[$A{}:ü-]{0,40}") {
            let _ = interpolate(&text, &variables());
        }

        #[test]
        fn text_without_a_dollar_sign_stays_as_it_is(text in "[^$]{0,40}") {
            prop_assert_eq!(interpolate(&text, &Variables::new()), Ok(text));
        }
    }
}
