//! Blobs on their way in: started, continued in chunks, finished with a digest, mounted, cancelled.
//!
//! An upload lives as long as this process, and until it has rested too long. Its bytes are in the layout's own
//! unfinished files; nothing is visible before the digest was checked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use content::Digest;
use oci::Repository;
use store::{BlobWriter, StoreError};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::api_error::ApiError;
use crate::range;
use crate::receive::{Limits, receive};
use crate::respond::{CONTENT_DIGEST, Respond, UPLOAD_UUID};
use crate::route::parse_digest;
use crate::router::{Server, header_text, parameter};

/// How long a request waits for another one on the same upload: the other one's client may be gone already.
const WAIT_FOR_OTHER: Duration = Duration::from_secs(10);

/// One upload's content.
pub(crate) struct Session {
    /// `None` once the upload has ended, well or not.
    writer: Option<BlobWriter>,
}

impl Session {
    pub(crate) fn size(&self) -> u64 {
        self.writer.as_ref().map_or(0, BlobWriter::size)
    }

    pub(crate) fn writer_mut(&mut self) -> Option<&mut BlobWriter> {
        self.writer.as_mut()
    }

    pub(crate) fn discard(&mut self) {
        self.writer = None;
    }
}

struct Open {
    repository: Repository,
    used: Instant,
    session: Arc<tokio::sync::Mutex<Session>>,
}

/// The uploads that are open.
pub(crate) struct Uploads {
    open: Mutex<HashMap<String, Open>>,
    limit: usize,
    idle: Duration,
}

impl Uploads {
    pub(crate) fn new(limit: usize, idle: Duration) -> Self {
        Self { open: Mutex::new(HashMap::new()), limit, idle }
    }

    fn insert(&self, repository: Repository, writer: BlobWriter) -> Result<String, ApiError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| ApiError::internal(&error))?;
        let id = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|_, upload| {
            let busy = Arc::strong_count(&upload.session) > 1;
            busy || now.duration_since(upload.used) < self.idle
        });
        if open.len() >= self.limit {
            return Err(ApiError::too_many_uploads());
        }
        let session = Arc::new(tokio::sync::Mutex::new(Session { writer: Some(writer) }));
        open.insert(id.clone(), Open { repository, used: now, session });
        Ok(id)
    }

    /// Takes an upload for one request.
    async fn claim(&self, repository: &Repository, id: &str) -> Result<OwnedMutexGuard<Session>, ApiError> {
        let session = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let upload = open.get_mut(id).filter(|upload| upload.repository == *repository);
            let upload = upload.ok_or_else(ApiError::upload_unknown)?;
            upload.used = Instant::now();
            Arc::clone(&upload.session)
        };
        let claimed = tokio::time::timeout(WAIT_FOR_OTHER, session.lock_owned()).await;
        let session = claimed.map_err(|_| ApiError::upload_busy())?;
        if session.writer.is_none() {
            self.remove(id);
            return Err(ApiError::upload_unknown());
        }
        Ok(session)
    }

    fn remove(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// `POST`: mounts a blob, takes a whole one (`?digest=`), or starts an upload.
pub(crate) async fn start(
    server: Arc<Server>,
    name: Repository,
    request: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    if let Some(digest) = parameter(request, "mount") {
        let digest = parse_digest(&digest)?;
        // Blobs are global here, so where it is mounted from does not matter, and may be left out.
        if server.blocking(move |server| Ok(server.layout.blob_size(digest).is_some())).await? {
            return Ok(created(&name, digest));
        }
    }
    let whole = parameter(request, "digest").map(|digest| parse_digest(&digest)).transpose()?;
    let writer = server.blocking(|server| Ok(server.layout.blob_writer()?)).await?;
    if let Some(digest) = whole {
        let session = Arc::new(tokio::sync::Mutex::new(Session { writer: Some(writer) })).lock_owned().await;
        return complete(&server, &name, session, digest, request, body).await;
    }
    let id = server.uploads.insert(name.clone(), writer)?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, 0))
}

/// `GET` of an upload: how far it has come.
pub(crate) async fn status(server: Arc<Server>, name: Repository, id: String) -> Result<Response, ApiError> {
    let session = server.uploads.claim(&name, &id).await?;
    Ok(progress(StatusCode::NO_CONTENT, &name, &id, session.size()))
}

/// `PATCH` of an upload: the next bytes.
pub(crate) async fn append(
    server: Arc<Server>,
    name: Repository,
    id: String,
    request: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let session = server.uploads.claim(&name, &id).await?;
    let limits = check_chunk(&server, request, &session).map_err(|error| at(error, &name, &id, session.size()))?;
    let session = receive(body, session, limits).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, session.size()))
}

/// `PUT` of an upload: perhaps the last bytes, and the digest of all.
pub(crate) async fn finish(
    server: Arc<Server>,
    name: Repository,
    id: String,
    request: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let digest = parameter(request, "digest");
    let digest = digest.ok_or_else(|| ApiError::digest_invalid("the parameter `digest` is missing"))?;
    let digest = parse_digest(&digest)?;
    let session = server.uploads.claim(&name, &id).await?;
    let size = session.size();
    let answer = complete(&server, &name, session, digest, request, body).await;
    match &answer {
        Ok(_) => server.uploads.remove(&id),
        // The writer is gone if the digest was wrong or the disk failed; a broken connection leaves it to go on with.
        Err(_) => drop(server.uploads.claim(&name, &id).await),
    }
    answer.map_err(|error| at(error, &name, &id, size))
}

/// `DELETE` of an upload.
pub(crate) async fn cancel(server: Arc<Server>, name: Repository, id: String) -> Result<Response, ApiError> {
    let mut session = server.uploads.claim(&name, &id).await?;
    session.discard();
    server.uploads.remove(&id);
    Ok(Respond::with(StatusCode::NO_CONTENT).head())
}

/// Takes the rest of the content and makes the blob visible if it has the digest.
async fn complete(
    server: &Arc<Server>,
    name: &Repository,
    session: OwnedMutexGuard<Session>,
    digest: Digest,
    request: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let limits = check_chunk(server, request, &session)?;
    let mut session = receive(body, session, limits).await?;
    let writer = session.writer.take().ok_or_else(ApiError::upload_unknown)?;
    drop(session);
    server
        .blocking(move |_| match writer.commit_named(digest) {
            Err(StoreError::Damaged { expected, found }) => {
                Err(ApiError::digest_invalid(format!("expected {expected}, but the content hashes to {found}")))
            }
            other => Ok(other?),
        })
        .await?;
    Ok(created(name, digest))
}

/// Whether a body belongs where the upload is, and what it may be.
fn check_chunk(server: &Server, request: &Parts, session: &Session) -> Result<Limits, ApiError> {
    let mut limits = Limits { upload: server.options.max_blob_size, body: None, idle: server.options.body_idle };
    let Some(text) = header_text(request, header::CONTENT_RANGE) else { return Ok(limits) };
    let range = range::chunk(text)
        .ok_or_else(|| ApiError::upload_invalid("Content-Range is not of the form `<first>-<last>`"))?;
    if range.start != session.size() {
        return Err(ApiError::upload_offset(session.size(), range.start));
    }
    let length = range.end - range.start;
    let announced = header_text(request, header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced != length) {
        return Err(ApiError::size_invalid("Content-Length and Content-Range disagree"));
    }
    limits.body = Some(length);
    Ok(limits)
}

fn location(name: &Repository, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// The last byte that an upload has. An empty one says `0-0` too: the API has no word for nothing.
fn range_header(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(status: StatusCode, name: &Repository, id: &str, size: u64) -> Response {
    Respond::with(status)
        .header(header::LOCATION, location(name, id))
        .header(header::RANGE, range_header(size))
        .header(UPLOAD_UUID, id)
        .head()
}

fn created(name: &Repository, digest: Digest) -> Response {
    Respond::with(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header(CONTENT_DIGEST, digest)
        .empty()
}

/// Says in a refusal where the upload is, so that the client can go on from there.
fn at(error: ApiError, name: &Repository, id: &str, size: u64) -> ApiError {
    error.with_header(header::LOCATION, location(name, id)).with_header(header::RANGE, range_header(size))
}
