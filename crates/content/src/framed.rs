//! Keys made of several parts, without the trap of hashing concatenated strings: every part carries its length.

use crate::{Digest, Sha256};

/// Hashes a sequence of named fields so that two different sequences cannot give the same bytes to the hash.
///
/// ```
/// use content::FramedHasher;
/// let key = |name: &str, value: &str| FramedHasher::new("example 1").field(name, value.as_bytes()).finish();
/// assert_ne!(key("ab", "c"), key("a", "bc"));
/// ```
#[derive(Clone)]
pub struct FramedHasher(Sha256);

impl FramedHasher {
    /// Starts a key of the given kind; keys of different kinds never collide. Put a version number in the kind.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).part(kind.as_bytes())
    }

    /// Adds a named field.
    #[must_use]
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.part(name.as_bytes()).part(value.as_ref())
    }

    /// Adds a named list; the number of its elements is part of the key.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(
        self,
        name: &str,
        values: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    ) -> Self {
        let values = values.into_iter();
        let counted = self.part(name.as_bytes()).part(&(values.len() as u64).to_be_bytes());
        values.fold(counted, |hasher, value| hasher.part(value.as_ref()))
    }

    /// The key.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_part_ends_changes_the_key() {
        let list = |parts: &[&str]| FramedHasher::new("test").list("parts", parts).finish();
        assert_ne!(list(&["ab", "c"]), list(&["a", "bc"]));
        assert_ne!(list(&["a", ""]), list(&["a"]));
    }
}
