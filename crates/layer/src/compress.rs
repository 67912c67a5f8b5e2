//! Compression in blocks that stand alone: a gzip layer is a sequence of members, a zstd layer a sequence of frames,
//! one per MiB of input. Compressed runs can therefore be kept and concatenated into any layer without compressing
//! again, blocks are compressed on all cores, and the bytes depend neither on the number of cores nor on how a caller
//! cuts its writes.
//!
//! Concatenated members and frames are one stream to every reader that follows RFC 1952 §2.2 and RFC 8878 §3.1.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use rayon::prelude::*;

/// Bytes of input in one block.
const BLOCK: usize = 1 << 20;
/// Blocks compressed at the same time, at most; bounds the memory of a writer.
const BATCH: usize = 8;

/// How the layers of an image are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// gzip, which every tool and registry reads.
    #[default]
    Gzip,
    /// zstd: smaller and faster; Docker before 23 and docker schema 2 do not know it.
    Zstd,
}

impl Compression {
    /// Names the exact encoder; part of every cache key under which compressed bytes are kept, since other versions of
    /// an encoder give other bytes.
    pub const fn encoder(self) -> &'static str {
        match self {
            Self::Gzip => "libdeflater 1.26.1 level 6, members of 1 MiB",
            Self::Zstd => "zstd 1.5.7 level 3, frames of 1 MiB with checksums",
        }
    }

    /// Compresses one block.
    fn block(self, input: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => gzip_member(input),
            Self::Zstd => zstd_frame(input),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        match text {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(UnknownCompression(other.to_owned())),
        }
    }
}

/// A compression that drystone does not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a compression: expected `gzip` or `zstd`")]
pub struct UnknownCompression(String);

fn gzip_member(input: &[u8]) -> io::Result<Vec<u8>> {
    let level = libdeflater::CompressionLvl::new(6).expect("6 is a level of libdeflate");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut member = vec![0; compressor.gzip_compress_bound(input.len())];
    let size = compressor.gzip_compress(input, &mut member).map_err(io::Error::other)?;
    member.truncate(size);
    Ok(member)
}

fn zstd_frame(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(3)?;
    // Like a gzip member, so that a segment damaged on disk is noticed when it is laid.
    compressor.include_checksum(true)?;
    compressor.compress(input)
}

/// Compresses what is written, a block at a time, into another writer.
pub struct BlockWriter<W> {
    inner: W,
    compression: Compression,
    pending: Vec<u8>,
    compressed: u64,
}

impl<W: Write> BlockWriter<W> {
    /// Writes compressed blocks to `inner`.
    pub fn new(inner: W, compression: Compression) -> Self {
        Self { inner, compression, pending: Vec::new(), compressed: 0 }
    }

    /// Compresses what remains and gives back the inner writer and the number of compressed bytes. Nothing written
    /// gives nothing: an empty run of blocks.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.drain(true)?;
        Ok((self.inner, self.compressed))
    }

    fn drain(&mut self, all: bool) -> io::Result<()> {
        let ready = if all { self.pending.len() } else { self.pending.len() / BLOCK * BLOCK };
        let compression = self.compression;
        let blocks: Vec<&[u8]> = self.pending[..ready].chunks(BLOCK).collect();
        let done: Vec<io::Result<Vec<u8>>> = match blocks.as_slice() {
            [only] => vec![compression.block(only)],
            several => several.par_iter().map(|block| compression.block(block)).collect(),
        };
        for block in done {
            let block = block?;
            self.inner.write_all(&block)?;
            self.compressed += block.len() as u64;
        }
        self.pending.drain(..ready);
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BATCH * BLOCK - self.pending.len();
        let taken = bytes.len().min(room);
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == BATCH * BLOCK {
            self.drain(false)?;
        }
        Ok(taken)
    }

    /// Keeps the incomplete block: where blocks end must not depend on who flushes.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What an xz decoder may allocate; a header may ask for gigabytes. `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// How something is stored, as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// How many first bytes tell how something is stored.
const MAGIC: u64 = 6;

impl Stored {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

/// Whether what begins like this is compressed in one of the ways that [`decompress`] knows.
pub fn is_compressed(head: &[u8]) -> bool {
    Stored::of(head) != Stored::Plain
}

/// Reads a layer or another archive as it is stored, whatever its compression (gzip, zstd, xz, bzip2 or none), which its
/// first bytes tell.
pub fn decompress<'a>(mut stored: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::with_capacity(MAGIC as usize);
    Read::by_ref(&mut stored).take(MAGIC).read_to_end(&mut magic)?;
    let kind = Stored::of(&magic);
    let whole = io::Cursor::new(magic).chain(stored);
    let buffered = |whole| io::BufReader::with_capacity(1 << 16, whole);
    Ok(match kind {
        Stored::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
        Stored::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
        Stored::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered(whole), stream))
        }
        // Its blocks have at most 900 kB, so that a header cannot ask for much memory.
        Stored::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(whole))),
        Stored::Plain => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compress(input: &[u8], compression: Compression, cut: usize) -> Vec<u8> {
        let mut writer = BlockWriter::new(Vec::new(), compression);
        for part in input.chunks(cut) {
            writer.write_all(part).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn input() -> Vec<u8> {
        (0..10 * BLOCK as u32 + 12_345).map(|n| (n.wrapping_mul(2_654_435_761) >> 28) as u8).collect()
    }

    #[test]
    fn both_compressions_read_back() {
        let input = input();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let stored = compress(&input, compression, 1 << 16);
            let mut back = Vec::new();
            decompress(&stored[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == input, "{compression}");
        }
    }

    #[test]
    fn bzip2_is_read_to_the_end_of_its_last_stream() {
        let input = input();
        let (first, second) = input.split_at(input.len() / 3);
        let mut stored = Vec::new();
        for part in [first, second] {
            bzip2::read::BzEncoder::new(part, bzip2::Compression::fast()).read_to_end(&mut stored).unwrap();
        }
        let mut back = Vec::new();
        decompress(&stored[..]).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == input);
        // What only begins like one is itself.
        let mut back = Vec::new();
        decompress(&b"BZhello"[..]).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, b"BZhello");
        assert!(decompress(&stored[..stored.len() - 9]).unwrap().read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn the_bytes_do_not_depend_on_how_writes_are_cut() {
        let input = input();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let once = compress(&input, compression, input.len());
            for cut in [1000, 4096, BLOCK + 1] {
                assert!(compress(&input, compression, cut) == once, "{compression} cut at {cut}");
            }
        }
    }

    #[test]
    fn uncompressed_and_empty_layers_pass_through() {
        for stored in [&b""[..], b"abc", b"plain tar bytes"] {
            let mut back = Vec::new();
            decompress(stored).unwrap().read_to_end(&mut back).unwrap();
            assert_eq!(back, stored);
        }
    }

    #[test]
    fn concatenated_runs_are_one_stream() {
        let stored = [compress(b"one ", Compression::Gzip, 9), compress(b"two", Compression::Gzip, 9)].concat();
        let mut back = Vec::new();
        decompress(&stored[..]).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, b"one two");
    }
}
