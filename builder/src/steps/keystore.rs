//! Java's keystores of trusted certificates, in which each entry has the time at which it was made.
//!
//! The form is that of `JKS`, which `sun.security.provider.JavaKeyStore` of OpenJDK reads and writes: all numbers are
//! big-endian, texts have a length of two bytes.
//!
//! ```text
//! feedfeed 00000002 COUNT
//! each     00000002 ALIAS TIME TYPE LENGTH CERTIFICATE      a trusted certificate; the time in ms since 1970
//! SHA-1 of the password in UTF-16, "Mighty Aphrodite", and all that comes before
//! ```

use sha1::{Digest as _, Sha1};

/// What Java and Debian's `ca-certificates-java` take for a password where nobody says another.
const PASSWORD: &str = "changeit";
const MAGIC: &[u8] = b"\xfe\xed\xfe\xed\0\0\0\x02";
const CERTIFICATE: u32 = 2;
const DIGEST: usize = 20;

/// The same keystore with all entries made at `epoch`, in seconds since 1970. None if it is no keystore of certificates
/// alone that has the usual password: then it is not ours to change.
pub fn dated(store: &[u8], epoch: i64) -> Option<Vec<u8>> {
    let (content, digest) = store.split_at_checked(store.len().checked_sub(DIGEST)?)?;
    if signature(content) != *digest {
        return None;
    }
    let mut dated = content.to_vec();
    let time = (epoch.max(0) * 1000).to_be_bytes();
    let mut rest = Rest { bytes: content.strip_prefix(MAGIC)? };
    for _ in 0..rest.number()? {
        if rest.number()? != CERTIFICATE {
            return None;
        }
        rest.text()?;
        let place = content.len() - rest.bytes.len();
        rest.take(time.len())?;
        dated[place..place + time.len()].copy_from_slice(&time);
        rest.text()?;
        let length = rest.number()?;
        rest.take(usize::try_from(length).ok()?)?;
    }
    if !rest.bytes.is_empty() {
        return None;
    }
    let digest = signature(&dated);
    dated.extend(digest);
    Some(dated)
}

fn signature(content: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha1::new();
    PASSWORD.encode_utf16().for_each(|unit| hash.update(unit.to_be_bytes()));
    hash.update(b"Mighty Aphrodite");
    hash.update(content);
    hash.finalize().into()
}

/// What is not read yet.
struct Rest<'a> {
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_be_bytes(bytes.try_into().expect("there are four")))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.take(2).map(|bytes| u16::from_be_bytes(bytes.try_into().expect("there are two")))?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(times: &[u64], tag: u32) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((times.len() as u32).to_be_bytes());
        for time in times {
            bytes.extend(tag.to_be_bytes());
            bytes.extend(b"\0\x05debia");
            bytes.extend(time.to_be_bytes());
            bytes.extend(b"\0\x05X.509\0\0\0\x04cert");
        }
        bytes.extend(signature(&bytes));
        bytes
    }

    #[test]
    fn stores_made_at_other_times_become_the_same() {
        let expected = store(&[7000, 7000], CERTIFICATE);
        assert_eq!(dated(&store(&[1, 2], CERTIFICATE), 7).as_deref(), Some(expected.as_slice()));
        assert_eq!(dated(&expected, 7).as_deref(), Some(expected.as_slice()));
    }

    #[test]
    fn what_is_no_store_of_certificates_with_the_usual_password_stays_as_it_is() {
        let good = store(&[1], CERTIFICATE);
        for length in 0..good.len() {
            assert_eq!(dated(&good[..length], 7), None, "{length}");
        }
        let mut other = good.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(dated(&other, 7), None);
        assert_eq!(dated(&store(&[1], 1), 7), None, "a private key");
    }
}
