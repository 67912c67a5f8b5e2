//! Downloads of blobs, whole or in part.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use content::Digest;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::api_error::ApiError;
use crate::range::{Wanted, wanted};
use crate::respond::{CONTENT_DIGEST, Respond};
use crate::router::{Server, header_text};

/// How much is read and sent at a time: with tokio's default a loopback client gets a twentieth of the speed.
const CHUNK: usize = 256 << 10;

/// `GET` and `HEAD` of a blob.
pub(crate) async fn get(server: Arc<Server>, digest: Digest, request: &Parts) -> Result<Response, ApiError> {
    let (file, size) = server.blocking(move |server| Ok(server.layout.open_blob_file(digest)?)).await?;
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
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK);
    if sent.start > 0 {
        file.seek(SeekFrom::Start(sent.start)).await.map_err(|error| ApiError::internal(&error))?;
    }
    let stream = ReaderStream::with_capacity(file.take(sent.end - sent.start), CHUNK);
    Ok(respond.body(Body::from_stream(stream)))
}
