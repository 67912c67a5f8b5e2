//! MD5, which dpkg compares conffiles with. It protects against nothing but accidents.

use std::fmt;
use std::str::FromStr;

use md5::{Digest as _, Md5};

/// The MD5 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Md5Sum([u8; 16]);

impl Md5Sum {
    /// The MD5 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Md5Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// A running MD5.
#[derive(Clone, Debug, Default)]
pub struct Md5Hasher(Md5);

impl Md5Hasher {
    /// The hash of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of everything added.
    pub fn finish(self) -> Md5Sum {
        Md5Sum(self.0.finalize().into())
    }
}

impl fmt::Display for Md5Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Md5Sum {
    type Err = Md5Error;

    fn from_str(text: &str) -> Result<Self, Md5Error> {
        let invalid = || Md5Error { text: text.chars().take(80).collect() };
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(invalid());
        }
        let mut sum = [0; 16];
        for (index, byte) in sum.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(sum))
    }
}

/// A text that is not an MD5.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an MD5: expected 32 lower-case hexadecimal digits")]
pub struct Md5Error {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_reads_what_it_prints() {
        assert_eq!(Md5Sum::of(b"").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Md5Sum::of(b"x").to_string().parse(), Ok(Md5Sum::of(b"x")));
        for text in ["", "d41d", "D41D8CD98F00B204E9800998ECF8427E", "éééééééééééééééé"] {
            assert!(text.parse::<Md5Sum>().is_err(), "{text}");
        }
    }
}
