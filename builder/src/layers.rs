//! Lays a layer: entries and ready-made segments go in, compressed bytes come out, and what must be known of the tar
//! inside is computed in the same pass.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use content::{DiffId, Digest, HashingReader, Sha256};
use layer::compress::{BlockWriter, Compression, decompress};
use layer::entry::Entry;
use layer::write::END_OF_ARCHIVE;
use store::Layout;

/// A small layer may become this large when it is unpacked, and a larger one so many times its size: what is beyond is
/// no image, but meant to fill disks.
const LARGEST_OF_SMALL: u64 = 4 << 30;
const LARGEST_OF_SMALL_ARCHIVE: u64 = 512 << 20;
const MOST_TIMES: u64 = 200;

/// How much of a tar is hashed at once.
const BUFFER: usize = 1 << 17;

/// Somebody who sees every entry of a tar, and may read its content.
pub type Visit<'v> = dyn FnMut(Entry, &mut dyn Read) -> io::Result<()> + 'v;

/// A layer being written.
pub struct LayerWriter<W> {
    blob: W,
    compression: Compression,
    diff: Sha256,
    stored_size: u64,
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
        Self { blob, compression, diff: Sha256::new(), stored_size: 0, uncompressed_size: 0, unpacked_size: 0 }
    }

    /// Bytes stored so far.
    pub fn stored_size(&self) -> u64 {
        self.stored_size
    }

    /// Adds whole tar entries that `write` produces, `unpacked_size` bytes of content among them.
    pub fn entries(
        &mut self,
        unpacked_size: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let compressed = BlockWriter::new(&mut self.blob, self.compression);
        let mut hashed = Counting { hash: &mut self.diff, size: &mut self.uncompressed_size, inner: compressed };
        write(&mut hashed)?;
        let (_, stored) = hashed.inner.finish()?;
        self.stored_size += stored;
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

    /// Adds whole tar entries that are compressed already, in the compression of this layer. `visit` sees them: to read
    /// them once more would be half of the work again.
    pub fn segment(&mut self, stored: &Path, unpacked_size: u64, visit: Option<&mut Visit<'_>>) -> io::Result<()> {
        let mut copied =
            CopyingReader { inner: File::open(stored)?, copy: &mut self.blob, copied: &mut self.stored_size };
        let tar = decompress(&mut copied)?;
        let hashed = Counting { hash: &mut self.diff, size: &mut self.uncompressed_size, inner: tar };
        let mut tar = BufReader::with_capacity(BUFFER, hashed);
        if let Some(visit) = visit {
            layer::read::entries(&mut tar, visit)?;
        }
        drain(&mut tar)?;
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

/// A layer as it is stored, and what is known of the tar in it.
pub struct StoredTar {
    /// Names the bytes as they are stored.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// Names the tar.
    pub diff_id: DiffId,
}

/// Calls `each` with every entry of a stored layer. Fails, perhaps after the last one, unless the bytes are those of
/// the digest and the tar is that of the diff ID. Returns the size of the tar.
pub fn read_layer(
    layout: &Layout,
    layer: &StoredTar,
    each: impl FnMut(Entry, &mut dyn Read) -> io::Result<()>,
) -> io::Result<u64> {
    let mut stored = layout.open_blob(layer.digest, layer.size).map_err(io::Error::other)?;
    let hashed = HashingReader::new(Bounded::layer(decompress(&mut stored)?, layer.size));
    let mut tar = BufReader::with_capacity(BUFFER, hashed);
    layer::read::entries(&mut tar, each)?;
    // What stands behind the end of the archive belongs to the digests too.
    drain(&mut tar)?;
    let (_, found, size) = tar.into_inner().finish();
    io::copy(&mut stored, &mut io::sink())?;
    if found != layer.diff_id.0 {
        let text = format!("its tar should hash to {}, but hashes to {found}", layer.diff_id);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(size)
}

/// Reads what comes out of a decompressor, and fails where it is more than any honest archive has.
pub struct Bounded<R> {
    inner: R,
    limit: u64,
    read: u64,
}

impl<R: Read> Bounded<R> {
    /// A layer, of so many bytes as it is stored.
    pub fn layer(inner: R, stored: u64) -> Self {
        Self { inner, limit: stored.saturating_mul(MOST_TIMES).max(LARGEST_OF_SMALL), read: 0 }
    }

    /// Something whose size as it is stored is not known.
    pub fn at_most(inner: R, limit: u64) -> Self {
        Self { inner, limit, read: 0 }
    }

    /// An archive that is unpacked into an image.
    pub fn archive(inner: R, stored: u64) -> Self {
        Self { inner, limit: stored.saturating_mul(MOST_TIMES).max(LARGEST_OF_SMALL_ARCHIVE), read: 0 }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read += length as u64;
        if self.read > self.limit {
            let text = format!("it becomes larger than {} bytes when it is unpacked", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(length)
    }
}

/// Reads to the end.
fn drain(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let length = reader.fill_buf()?.len();
        if length == 0 {
            return Ok(());
        }
        reader.consume(length);
    }
}

/// Hashes and counts what goes to another writer, or comes from another reader.
struct Counting<'a, I> {
    hash: &'a mut Sha256,
    size: &'a mut u64,
    inner: I,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        *self.size += length as u64;
        Ok(length)
    }
}

impl<W: Write> Write for Counting<'_, W> {
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
    copied: &'a mut u64,
}

impl<W: Write> Read for CopyingReader<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.copy.write_all(&buffer[..length])?;
        *self.copied += length as u64;
        Ok(length)
    }
}
