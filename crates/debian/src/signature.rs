//! OpenPGP signatures over `InRelease` files, and the policy that says which of them are believed.
//!
//! The `pgp` crate is a toolkit without a policy, so this is ours: a signature counts if it was made with SHA-256, 384
//! or 512, by a key of the keyring that may sign (see `policy`), not in the future, and not past its own end. One such
//! signature is enough, as for apt. Only the signed text is handed out, never the file around it.

mod policy;

use std::io::Cursor;

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::packet::Signature;
use pgp::types::{Fingerprint, KeyDetails, KeyId};

use policy::Candidate;
pub use policy::Distrust;

/// The largest signed file that is read; Debian's are some 150 KB.
pub const MAX_SIGNED_BYTES: usize = 64 << 20;

/// The largest keyring that is read.
const MAX_KEYRING_BYTES: usize = 16 << 20;

/// The most certificates of a keyring, and the most signatures of a file.
const MAX_CERTIFICATES: usize = 1000;
const MAX_SIGNATURES: usize = 32;

const BEGIN_SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";
const BEGIN_KEYS: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// The certificates ("public keys") whose signatures are believed.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// A text whose signature was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signed text: without dash escapes, without blanks at the ends of lines, and with `\n` line ends.
    pub text: String,
    /// The fingerprint of the key that signed, which may be a subkey, in upper-case hexadecimal digits.
    pub fingerprint: String,
    /// The fingerprint of the certificate that the key belongs to.
    pub certificate: String,
}

impl Keyring {
    /// Reads a keyring as gpg exports it: binary, or one or more armored blocks. Certificates with algorithms that are
    /// not supported are left out; it is an error if none is left.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.len() > MAX_KEYRING_BYTES {
            return Err(KeyringError::TooLarge { size: bytes.len() });
        }
        let mut certificates = Vec::new();
        let mut first_error = None;
        for block in blocks(bytes) {
            match read_certificates(block) {
                Ok(more) => certificates.extend(more),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            _ if certificates.len() > MAX_CERTIFICATES => Err(KeyringError::TooMany),
            Some(source) if certificates.is_empty() => Err(KeyringError::Malformed { source: Box::new(source) }),
            None if certificates.is_empty() => Err(KeyringError::Empty),
            _ => Ok(Self { certificates }),
        }
    }

    /// The fingerprints of the certificates, in upper-case hexadecimal digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.certificates.iter().map(|certificate| format!("{:X}", certificate.fingerprint())).collect()
    }

    /// Checks a file with an inline ("cleartext") signature, such as `InRelease`, and returns what was signed. The
    /// file must be that and nothing else: text before or after the signed message is an error. `now` is in seconds
    /// since 1970.
    pub fn verify_inline(&self, signed: &[u8], now: i64) -> Result<Verified, SignatureError> {
        if signed.len() > MAX_SIGNED_BYTES {
            return Err(SignatureError::TooLarge { size: signed.len() });
        }
        let signed = std::str::from_utf8(signed).map_err(|_| SignatureError::NotText)?;
        check_frame(signed)?;
        let (message, _) =
            CleartextSignedMessage::from_string(signed.trim_ascii_end()).map_err(SignatureError::malformed)?;
        let text = message.signed_text();
        if text.replace("\r\n", "").contains('\r') {
            return Err(SignatureError::CarriageReturn);
        }
        let signer = self.find_signer(message.signatures(), text.as_bytes(), now)?;
        Ok(Verified {
            text: text.replace("\r\n", "\n"),
            fingerprint: format!("{:X}", signer.fingerprint()),
            certificate: format!("{:X}", signer.certificate.fingerprint()),
        })
    }

    fn find_signer(&self, signatures: &[Signature], text: &[u8], now: i64) -> Result<Candidate<'_>, SignatureError> {
        if signatures.is_empty() || signatures.len() > MAX_SIGNATURES {
            return Err(SignatureError::Count { found: signatures.len() });
        }
        let mut problems = Vec::new();
        for signature in signatures {
            for candidate in self.certificates.iter().flat_map(|one| Candidate::of(one, signature)) {
                match candidate.check(signature, text, now) {
                    Ok(()) => return Ok(candidate),
                    Err(reason) => problems.push(Distrusted { key: format!("{:X}", candidate.fingerprint()), reason }),
                }
            }
        }
        if problems.is_empty() {
            return Err(SignatureError::UnknownKeys { keys: signatures.iter().flat_map(issuers).collect() });
        }
        Err(SignatureError::Distrusted(Box::new(Distrusts(problems))))
    }
}

/// The armored blocks of a keyring, or the whole if it is binary.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<_> = memchr::memmem::find_iter(bytes, BEGIN_KEYS).collect();
    if starts.is_empty() || bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &bytes[start..end]).collect()
}

/// The certificates of a block that can be read; the error of the first that cannot, if none can.
fn read_certificates(block: &[u8]) -> Result<Vec<SignedPublicKey>, pgp::errors::Error> {
    if block.is_empty() {
        return Ok(Vec::new());
    }
    let (parsed, _) = SignedPublicKey::from_reader_many(Cursor::new(block.to_vec()))?;
    let mut certificates = Vec::new();
    let mut first_error = None;
    // Bounded although the parser advances with each item, so that a flaw in it could not keep us here.
    for certificate in parsed.take(MAX_CERTIFICATES + 1) {
        match certificate {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if certificates.is_empty() => Err(error),
        _ => Ok(certificates),
    }
}

/// Refuses everything but one signed message: the parser of `pgp` is told nothing that it could be lenient about.
fn check_frame(signed: &str) -> Result<(), SignatureError> {
    let frame = |found: &str| SignatureError::Frame { found: found.chars().take(80).collect() };
    let mut expected = [BEGIN_SIGNED, BEGIN_SIGNATURE, END_SIGNATURE].into_iter();
    let mut inside_text = false;
    let mut finished = false;
    for (index, line) in signed.split('\n').enumerate() {
        let line = line.trim_end_matches([' ', '\t', '\r']);
        if finished && !line.is_empty() || index == 0 && line != BEGIN_SIGNED {
            return Err(frame(line));
        }
        if line.starts_with("-----") {
            if expected.next() != Some(line) {
                return Err(frame(line));
            }
            inside_text = line == BEGIN_SIGNED;
            finished = line == END_SIGNATURE;
        } else if inside_text && line.starts_with('-') && !line.starts_with("- ") && line != "-" {
            return Err(frame(line));
        }
    }
    if finished { Ok(()) } else { Err(frame("the end of the file")) }
}

/// The keys that a signature says it was made with; what it says is only used to find and to report them.
fn issuers(signature: &Signature) -> Vec<String> {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        signature.issuer_key_id().into_iter().map(readable_key_id).collect()
    } else {
        fingerprints.into_iter().map(readable_fingerprint).collect()
    }
}

fn readable_key_id(id: &KeyId) -> String {
    id.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn readable_fingerprint(fingerprint: &Fingerprint) -> String {
    format!("{fingerprint:X}")
}

/// Why a keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is too large.
    #[error("the keyring has {size} bytes, more than {MAX_KEYRING_BYTES}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// It has too many certificates.
    #[error("the keyring has more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// It has no certificate.
    #[error("the keyring has no certificate")]
    Empty,
    /// It is not an OpenPGP keyring.
    #[error("expected OpenPGP certificates, binary or armored")]
    Malformed {
        /// What the parser says about the first of them.
        source: Box<pgp::errors::Error>,
    },
}

/// Why a signed file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// It is too large.
    #[error("the signed file has {size} bytes, more than {MAX_SIGNED_BYTES}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// It is not UTF-8.
    #[error("the signed file is not UTF-8 text")]
    NotText,
    /// It is not one signed message and nothing else.
    #[error("expected one signed message and nothing around it, found `{found}`")]
    Frame {
        /// The line that should not be there.
        found: String,
    },
    /// There are carriage returns within lines.
    #[error("the signed text has carriage returns within its lines")]
    CarriageReturn,
    /// The message or a signature cannot be parsed.
    #[error("the signed message is malformed")]
    Malformed {
        /// What the parser says.
        source: Box<pgp::errors::Error>,
    },
    /// There is no signature, or there are too many.
    #[error("expected 1 to {MAX_SIGNATURES} signatures, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// None of the keys that signed is in the keyring.
    #[error("signed by {}, of which the keyring has none", keys.join(" and "))]
    UnknownKeys {
        /// The fingerprints or key ids.
        keys: Vec<String>,
    },
    /// Keys of the keyring signed, but no signature counts.
    #[error("{0}")]
    Distrusted(Box<Distrusts>),
}

impl SignatureError {
    fn malformed(source: pgp::errors::Error) -> Self {
        Self::Malformed { source: Box::new(source) }
    }
}

/// Why each signature by a key of the keyring does not count.
#[derive(Debug, PartialEq, Eq)]
pub struct Distrusts(Vec<Distrusted>);

impl Distrusts {
    /// The signatures' problems.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Distrusted> {
        self.0.iter()
    }
}

impl std::fmt::Display for Distrusts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}the signature by {} does not count: {}", problem.key, problem.reason)?;
        }
        Ok(())
    }
}

/// Why a signature by a key of the keyring does not count.
#[derive(Debug, PartialEq, Eq)]
pub struct Distrusted {
    /// The key's fingerprint.
    pub key: String,
    /// What is wrong.
    pub reason: Distrust,
}

#[cfg(test)]
mod tests;
