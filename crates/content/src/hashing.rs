//! A reader and a writer that hash and count what passes through them.

use std::io::{self, Read, Write};

use crate::{Algorithm, Digest, Hash};

/// Passes bytes on to another writer, hashing and counting those it accepted.
pub struct HashingWriter<W> {
    inner: W,
    hash: Hash,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes what is written to `inner`.
    pub fn new(inner: W) -> Self {
        Self::with(Algorithm::Sha256, inner)
    }

    /// Hashes what is written to `inner` by an algorithm.
    pub fn with(algorithm: Algorithm, inner: W) -> Self {
        Self { inner, hash: Hash::new(algorithm), size: 0 }
    }

    /// Goes on where another one stopped: `inner` has got `size` bytes already, which `hash` has seen.
    pub fn resumed(inner: W, hash: Hash, size: u64) -> Self {
        Self { inner, hash, size }
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of them, which others may go on with.
    pub fn hash_so_far(&self) -> Hash {
        self.hash.clone()
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer, the digest and the number of bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hash.finish(), self.size)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads from another reader, hashing and counting what it gave.
pub struct HashingReader<R> {
    inner: R,
    hash: Hash,
    size: u64,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Self::with(Algorithm::Sha256, inner)
    }

    /// Hashes what is read from `inner` by an algorithm.
    pub fn with(algorithm: Algorithm, inner: R) -> Self {
        Self { inner, hash: Hash::new(algorithm), size: 0 }
    }

    /// The inner reader, and the digest and number of the bytes read so far.
    pub fn finish(self) -> (R, Digest, u64) {
        (self.inner, self.hash.finish(), self.size)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_and_writer_agree_with_the_digest_of_the_whole() {
        let mut reader = HashingReader::new(&b"some bytes"[..]);
        let mut writer = HashingWriter::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        let (_, read, read_size) = reader.finish();
        let (_, written, written_size) = writer.finish();
        assert_eq!((read, read_size), (Digest::of(b"some bytes"), 10));
        assert_eq!((written, written_size), (read, read_size));
    }
}
