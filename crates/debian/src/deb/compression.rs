//! How the archives inside a `.deb` are compressed.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

/// What an xz decoder may allocate. `xz -9`, the most that dpkg asks for, needs 65 MiB to decompress.
const XZ_MEMORY: u64 = 128 << 20;

/// The logarithm of what a zstd decoder may allocate for its window: 128 MiB, what `zstd --ultra -22` needs.
const ZSTD_WINDOW_LOG: u32 = 27;

const BUFFER_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// What a file name that ends in this suffix, such as `.xz`, is compressed with.
    pub(super) fn of_suffix(suffix: &str) -> Option<Self> {
        match suffix {
            "" => Some(Self::None),
            ".gz" => Some(Self::Gzip),
            ".xz" => Some(Self::Xz),
            ".zst" => Some(Self::Zstd),
            _ => None,
        }
    }
}

pub(super) enum Decoder<R> {
    None(BufReader<R>),
    Gzip(MultiGzDecoder<BufReader<R>>),
    Xz(XzDecoder<BufReader<R>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(compression: Compression, reader: R) -> io::Result<Self> {
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Ok(match compression {
            Compression::None => Self::None(reader),
            Compression::Gzip => Self::Gzip(MultiGzDecoder::new(reader)),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::from)?;
                Self::Xz(XzDecoder::new_stream(reader, stream))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
        })
    }

    /// The reader behind, or nothing if it has bytes that the decoder did not want.
    pub(super) fn into_inner(self) -> Option<R> {
        let mut reader = match self {
            Self::None(reader) => reader,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        // An error here is one of the reader, which will show again when more is read from it.
        let is_empty = reader.fill_buf().map_or(true, <[u8]>::is_empty);
        is_empty.then(|| reader.into_inner())
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None(_) => "Decoder::None",
            Self::Gzip(_) => "Decoder::Gzip",
            Self::Xz(_) => "Decoder::Xz",
            Self::Zstd(_) => "Decoder::Zstd",
        })
    }
}
