//! Downloads of blobs, whole or in part; and their removal.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use content::Digest;
use futures_util::{Stream, stream};
use store::Removal;

use crate::api_error::ApiError;
use crate::range::{Wanted, wanted};
use crate::respond::{CONTENT_DIGEST, Respond};
use crate::router::{Server, header_text};

/// How much is read and sent at a time: with a few KiB a loopback client gets a twentieth of the speed.
const CHUNK: usize = 256 << 10;

/// `GET` and `HEAD` of a blob.
pub(crate) async fn get(server: Arc<Server>, digest: Digest, request: &Parts) -> Result<Response, ApiError> {
    // Whoever asks whether a blob is there, and then does not send it, will name it soon.
    let will_be_named = request.method == Method::HEAD && !server.options.read_only;
    let (file, size) = server
        .blocking(move |server| {
            let opened = server.layout.open_blob_file(digest)?;
            if !will_be_named {
                return Ok(opened);
            }
            server.expect_name(&[digest]);
            // Once more: before it was written down it could be removed.
            Ok(server.layout.open_blob_file(digest)?)
        })
        .await?;
    let tag = format!("\"{digest}\"");
    if header_text(request, header::IF_NONE_MATCH).is_some_and(|known| known.contains(&tag)) {
        return Ok(Respond::with(StatusCode::NOT_MODIFIED).header(header::ETAG, tag).head());
    }
    let range = match wanted(header_text(request, header::RANGE), size) {
        Wanted::Unsatisfiable => return Err(ApiError::range(size)),
        Wanted::Part(range) => Some(range),
        Wanted::Whole => None,
    };
    let sent = range.clone().unwrap_or(0..size);
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut respond = Respond::with(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, sent.end - sent.start)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "max-age=31536000, immutable")
        .header(header::ETAG, tag)
        .header(CONTENT_DIGEST, digest);
    if let Some(range) = range {
        respond = respond.header(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    if request.method == Method::HEAD {
        return Ok(respond.head());
    }
    Ok(respond.body(Body::from_stream(pieces(Arc::clone(&server.pool), file, sent))))
}

/// `DELETE` of a blob. Blobs are global here, so one goes only if no image of any repository needs it.
pub(crate) async fn delete(server: Arc<Server>, digest: Digest) -> Result<Response, ApiError> {
    let removal = move |server: &Server| Ok(server.layout.remove_blob(digest, server.layout.time()?)?);
    match server.blocking(removal).await? {
        Removal::Done => Ok(Respond::with(StatusCode::ACCEPTED).empty()),
        Removal::Absent => Err(ApiError::blob_unknown(digest)),
        Removal::Named(_) => Err(ApiError::blob_needed("an image names it: delete that image first")),
        Removal::Leased => Err(ApiError::blob_needed("a build or a push in progress needs it")),
    }
}

/// The bytes of a part of a file. Each piece is read on a thread that may wait for the disk, straight into the memory
/// from which it is sent.
fn pieces(pool: Arc<Pool>, file: File, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((pool, file, part), |(pool, file, part)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        let length = CHUNK.min((part.end - part.start).try_into().unwrap_or(CHUNK));
        let read = tokio::task::spawn_blocking(move || {
            let piece = Piece::read(&pool, &file, part.start, length)?;
            Ok::<_, io::Error>((Bytes::from_owner(piece), pool, file))
        });
        let (piece, pool, file) = read.await.map_err(io::Error::other)??;
        let rest = part.start + piece.len() as u64..part.end;
        Ok(Some((piece, (pool, file, rest))))
    })
}

/// Memory for pieces, used again: asking the system for it each time costs more than reading the file.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Box<[u8]>>>);

/// How much memory waits in the pool at most, in pieces.
const POOLED: usize = 128;

/// A piece of a file, whose memory goes back into the pool.
struct Piece {
    memory: Box<[u8]>,
    length: usize,
    pool: Arc<Pool>,
}

impl Piece {
    fn read(pool: &Arc<Pool>, file: &File, start: u64, length: usize) -> io::Result<Self> {
        let waiting = pool.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = waiting.unwrap_or_else(|| vec![0; CHUNK].into());
        let mut piece = Self { memory, length: 0, pool: Arc::clone(pool) };
        piece.length = loop {
            match file.read_at(&mut piece.memory[..length], start) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if piece.length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than it was"));
        }
        Ok(piece)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut waiting = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < POOLED {
            waiting.push(std::mem::take(&mut self.memory));
        }
    }
}
