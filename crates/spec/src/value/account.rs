//! Who owns a file or runs a process, and with which permissions.

use std::fmt;
use std::str::FromStr;

use super::Invalid;

/// The longest name that Debian's `adduser` takes.
const LONGEST_ACCOUNT: usize = 32;

/// A user and perhaps a group, by name or number: `redis`, `redis:adm`, `0:0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Before the colon.
    pub user: String,
    /// Behind the colon. Without one, the user's own group is meant.
    pub group: Option<String>,
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(formatter, "{}:{group}", self.user),
            None => formatter.write_str(&self.user),
        }
    }
}

impl FromStr for Owner {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        if !is_account(user) || !group.is_none_or(is_account) {
            return Err(Invalid::new(text, "a user", "`name`, `name:group` or numbers in their places"));
        }
        Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) })
    }
}

/// Whether `text` is a name or a number that may stand in passwd.
pub(crate) fn is_account(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u32>().is_ok();
    }
    text.len() <= LONGEST_ACCOUNT
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Permission bits, written in octal between quotes: `"0755"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mode(u32);

impl Mode {
    /// The bits, at most `0o7777`.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04o}", self.0)
    }
}

impl FromStr for Mode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if is_octal => Ok(Self(bits)),
            _ => Err(Invalid::new(text, "a mode", "three or four octal digits between quotes, such as `\"0755\"`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_three_or_four_octal_digits() {
        assert_eq!("0755".parse::<Mode>().unwrap().bits(), 0o755);
        assert_eq!("4755".parse::<Mode>().unwrap().to_string(), "4755");
        for text in ["", "7", "0o755", "0758", "00755", "u+x", "+755"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }

    #[test]
    fn owners_are_names_or_numbers() {
        for text in ["redis", "redis:adm", "0:0", "0", "_apt", "www-data"] {
            assert_eq!(text.parse::<Owner>().unwrap().to_string(), text);
        }
        for text in ["", ":", "a:", ":b", "a:b:c", "a b", "4294967296", "-a"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
