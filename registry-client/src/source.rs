//! Where the bytes of an upload come from, and how they flow.

use std::future::Future;
use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use content::Digest;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use crate::{Event, Events};

/// How much is read and sent at a time. With tokio's default a file goes out at a twentieth of the speed.
const PIECE: usize = 256 << 10;

/// A reader somewhere in a blob.
pub type BlobReader = Box<dyn AsyncRead + Send + Unpin>;

/// A [`BlobReader`] to be.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<BlobReader>> + Send + 'a>>;

/// A blob's bytes, as often as they are needed and from any place in them: uploads are repeated and resumed.
pub trait BlobSource: Send + Sync {
    /// Reads from `offset` on. The same bytes every time.
    fn open(&self, offset: u64) -> Opening<'_>;
}

/// A blob in a file.
pub struct FileSource(pub PathBuf);

impl BlobSource for FileSource {
    fn open(&self, offset: u64) -> Opening<'_> {
        Box::pin(async move {
            let mut file = tokio::fs::File::open(&self.0).await?;
            file.set_max_buf_size(PIECE);
            if offset > 0 {
                file.seek(SeekFrom::Start(offset)).await?;
            }
            Ok(Box::new(file) as BlobReader)
        })
    }
}

/// A blob in memory.
pub struct BytesSource(pub Bytes);

impl BlobSource for BytesSource {
    fn open(&self, offset: u64) -> Opening<'_> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let rest = self.0.slice(start..);
        Box::pin(async move { Ok(Box::new(io::Cursor::new(rest)) as BlobReader) })
    }
}

/// One request's body under way: how much of it is sent, and what went wrong with the source.
pub(crate) struct Flow {
    pub(crate) sent: AtomicU64,
    pub(crate) length: u64,
    failure: Mutex<Option<io::Error>>,
}

impl Flow {
    pub(crate) fn new(length: u64) -> Arc<Self> {
        Arc::new(Self { sent: AtomicU64::new(0), length, failure: Mutex::new(None) })
    }

    /// What went wrong with the source, if that is why the request failed.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: io::Error) -> io::Error {
        let told = io::Error::new(error.kind(), "the source failed");
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    }
}

/// Exactly `flow.length` bytes of `reader` as a request's body.
pub(crate) fn body(reader: BlobReader, digest: Digest, flow: Arc<Flow>, events: Arc<dyn Events>) -> reqwest::Body {
    let pieces = stream::try_unfold(reader, move |mut reader| {
        let (flow, events) = (Arc::clone(&flow), Arc::clone(&events));
        async move {
            let left = flow.length - flow.sent.load(Ordering::Relaxed);
            if left == 0 {
                return Ok(None);
            }
            let piece = read_piece(&mut reader, left).await.map_err(|error| flow.fail(error))?;
            flow.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            events.event(Event::Sent { digest, bytes: piece.len() as u64 });
            Ok::<_, io::Error>(Some((piece, reader)))
        }
    });
    reqwest::Body::wrap_stream(pieces)
}

async fn read_piece(reader: &mut BlobReader, left: u64) -> io::Result<Bytes> {
    let limit = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
    let mut piece = BytesMut::with_capacity(limit);
    let read = reader.take(limit as u64).read_buf(&mut piece).await?;
    if read == 0 {
        let message = format!("the content ends {left} bytes too early");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    Ok(piece.freeze())
}
