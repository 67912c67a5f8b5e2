//! A reader that refuses to end well unless the bytes were the expected ones.

use std::io::{self, Read};

use crate::{Digest, Hash};

/// Reads exactly `size` bytes whose digest is `expected`; anything else is an error of kind `InvalidData` or
/// `UnexpectedEof`. The last read checks the digest, so a caller that reads to the end has read the right bytes.
pub struct VerifyingReader<R> {
    inner: R,
    hash: Option<Hash>,
    expected: Digest,
    size: u64,
    read: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Expects `inner` to give `size` bytes with the digest `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Self { inner, hash: Some(Hash::new(expected.algorithm())), expected, size, read: 0 }
    }

    fn check(&mut self) -> io::Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let found = hash.finish();
        if found == self.expected {
            return Ok(());
        }
        let message = format!("expected {}, but the bytes hash to {found}", self.expected);
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        if self.read > self.size {
            let message = format!("{} is longer than the {} bytes announced", self.expected, self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
        }
        if read == 0 && self.read < self.size {
            let message = format!("{} ends after {} of {} bytes", self.expected, self.read, self.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        if self.read == self.size {
            self.check()?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    fn read(bytes: &[u8], expected: Digest, size: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        VerifyingReader::new(bytes, expected, size).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn the_right_bytes_pass() {
        assert_eq!(read(b"abc", Digest::of(b"abc"), 3).unwrap(), b"abc");
        assert_eq!(read(b"", Digest::of(b""), 0).unwrap(), b"");
        assert_eq!(read(b"abc", Digest::with(Algorithm::Sha512, b"abc"), 3).unwrap(), b"abc");
    }

    #[test]
    fn wrong_short_and_long_bytes_are_errors() {
        let expected = Digest::of(b"abc");
        assert_eq!(read(b"abd", expected, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let other = Digest::with(Algorithm::Sha512, b"abc");
        assert_eq!(read(b"abd", other, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"ab", expected, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"abcd", expected, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"", Digest::of(b"x"), 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
