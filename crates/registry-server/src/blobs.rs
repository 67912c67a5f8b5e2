//! Downloads of blobs, whole or in part; and their removal.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

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
const CHUNK: u64 = 256 << 10;

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
    Ok(respond.body(Body::from_stream(pieces(file, sent))))
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
fn pieces(file: File, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, part), |(file, part)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        let length = CHUNK.min(part.end - part.start);
        let read =
            tokio::task::spawn_blocking(move || read_piece(&file, part.start, length).map(|piece| (file, piece)));
        let (file, piece) = read.await.map_err(io::Error::other)??;
        let rest = part.start + piece.len() as u64..part.end;
        Ok(Some((Bytes::from(piece), (file, rest))))
    })
}

fn read_piece(mut file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(length as usize);
    file.seek(SeekFrom::Start(start))?;
    file.take(length).read_to_end(&mut piece)?;
    if piece.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than it was"));
    }
    Ok(piece)
}
