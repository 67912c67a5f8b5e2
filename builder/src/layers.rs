//! Lays a layer: entries and ready-made segments go in, compressed bytes come out, and what must be known of the tar
//! inside is computed in the same pass.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use content::{DiffId, Sha256};
use layer::compress::{BlockWriter, Compression, decompress};
use layer::write::END_OF_ARCHIVE;

/// A layer being written.
pub struct LayerWriter<W> {
    blob: W,
    compression: Compression,
    diff: Sha256,
    uncompressed_size: u64,
    unpacked_size: u64,
}

/// What a layer's tar is, apart from how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laid {
    /// Names the tar.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// Bytes of the files in it.
    pub unpacked_size: u64,
}

impl<W: Write + Send> LayerWriter<W> {
    /// Starts an empty layer, stored in `blob`.
    pub fn new(blob: W, compression: Compression) -> Self {
        Self { blob, compression, diff: Sha256::new(), uncompressed_size: 0, unpacked_size: 0 }
    }

    /// Adds whole tar entries that `write` produces, `unpacked_size` bytes of content among them.
    pub fn entries(
        &mut self,
        unpacked_size: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let compressed = BlockWriter::new(&mut self.blob, self.compression);
        let mut hashed = Tee { hash: &mut self.diff, size: &mut self.uncompressed_size, inner: compressed };
        write(&mut hashed)?;
        hashed.inner.finish()?;
        self.unpacked_size += unpacked_size;
        Ok(())
    }

    /// The same where only `write` knows how many bytes of content there are; it returns them.
    pub fn counted_entries(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<u64>) -> io::Result<()> {
        let mut unpacked_size = 0;
        self.entries(0, |writer| {
            unpacked_size = write(writer)?;
            Ok(())
        })?;
        self.unpacked_size += unpacked_size;
        Ok(())
    }

    /// Adds whole tar entries that are compressed already, in the compression of this layer.
    pub fn segment(&mut self, stored: &Path, unpacked_size: u64) -> io::Result<()> {
        let mut copied = CopyingReader { inner: File::open(stored)?, copy: &mut self.blob };
        let mut tar = decompress(&mut copied)?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            let length = tar.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            self.diff.update(&buffer[..length]);
            self.uncompressed_size += length as u64;
        }
        self.unpacked_size += unpacked_size;
        Ok(())
    }

    /// Ends the archive. Gives back where it is stored.
    pub fn finish(mut self) -> io::Result<(W, Laid)> {
        self.entries(0, |writer| writer.write_all(&END_OF_ARCHIVE))?;
        let laid = Laid {
            diff_id: DiffId(self.diff.finish()),
            uncompressed_size: self.uncompressed_size,
            unpacked_size: self.unpacked_size,
        };
        Ok((self.blob, laid))
    }
}

/// Hashes and counts what goes to another writer.
struct Tee<'a, W> {
    hash: &'a mut Sha256,
    size: &'a mut u64,
    inner: W,
}

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        *self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Copies what is read from one file to a writer.
struct CopyingReader<'a, W> {
    inner: File,
    copy: &'a mut W,
}

impl<W: Write> Read for CopyingReader<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.copy.write_all(&buffer[..length])?;
        Ok(length)
    }
}
