//! The names of content: `Digest` for bytes as they are stored, `DiffId` for a layer's bytes before compression.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// How a digest is computed: one of the two algorithms that the OCI image specification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// What everything of ours is named by.
    Sha256,
    /// What others may name content by.
    Sha512,
}

impl Algorithm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name before the colon, and of the directory of blobs in an image layout.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The hash of some bytes, written `sha256:<64 hex digits>`, or `sha512:<128 hex digits>` if somebody else named them.
///
/// See "Digests" in the OCI image specification, `descriptor.md`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// What the algorithm does not fill is zero.
    bytes: [u8; 64],
}

impl Digest {
    /// The sha256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by an algorithm.
    pub fn with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hash = Hash::new(algorithm);
        hash.update(bytes);
        hash.finish()
    }

    /// A digest from the 32 bytes of a sha256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut all = [0; 64];
        let mut index = 0;
        while index < bytes.len() {
            all[index] = bytes[index];
            index += 1;
        }
        Self { algorithm: Algorithm::Sha256, bytes: all }
    }

    /// A sha256 from 64 hexadecimal digits without the algorithm, as Debian's indexes write it.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        Self::from_digits(Algorithm::Sha256, text).ok_or_else(|| DigestError::of(text))
    }

    fn from_digits(algorithm: Algorithm, digits: &str) -> Option<Self> {
        if digits.len() != 2 * algorithm.length() || digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(digits, &mut bytes[..algorithm.length()]).ok()?;
        Some(Self { algorithm, bytes })
    }

    /// How it is computed.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes of the hash: 32 of a sha256, 64 of a sha512.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.length()]
    }

    /// The hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The first twelve hexadecimal digits, the form in which people read image ids.
    pub fn short(&self) -> String {
        hex::encode(&self.bytes[..6])
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let parsed = text.split_once(':').and_then(|(name, digits)| {
            let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?;
            Self::from_digits(algorithm, digits)
        });
        parsed.ok_or_else(|| DigestError::of(text))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's uncompressed tar, as an image's config lists it under `rootfs.diff_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that is not an algorithm and as many lower-case hexadecimal digits as it gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: expected `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits")]
pub struct DigestError {
    text: String,
}

impl DigestError {
    fn of(text: &str) -> Self {
        Self { text: text.chars().take(150).collect() }
    }
}

/// A running sha256 that ends in a [`Digest`].
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// A hash of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

/// A running hash by either algorithm.
#[derive(Clone)]
pub struct Hash(Running);

#[derive(Clone)]
enum Running {
    Sha256(Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hash {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Running::Sha256(Sha256::new()),
            Algorithm::Sha512 => Running::Sha512(Box::default()),
        })
    }

    /// Adds `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Sha256(hash) => hash.update(bytes),
            Running::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self.0 {
            Running::Sha256(hash) => hash.finish(),
            Running::Sha512(hash) => Digest { algorithm: Algorithm::Sha512, bytes: hash.finalize().into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_prints() {
        let digest = Digest::of(b"drystone");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::from_hex(&digest.hex()), Ok(digest));
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let expected = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), expected);
    }

    #[test]
    fn a_sha512_is_told_apart_by_its_name_and_length() {
        let digest = Digest::with(Algorithm::Sha512, b"");
        let text = digest.to_string();
        assert!(text.starts_with("sha512:cf83e1357eefb8bd") && text.len() == 7 + 128, "{text}");
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!((digest.algorithm(), digest.as_bytes().len()), (Algorithm::Sha512, 64));
        assert!(format!("sha256:{}", digest.hex()).parse::<Digest>().is_err());
    }

    #[test]
    fn other_algorithms_lengths_and_cases_are_refused() {
        let hex = Digest::of(b"").hex();
        for text in [
            "",
            "sha256:",
            &hex,
            &format!("sha512:{hex}"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha256:{hex}0"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
