//! Blobs on their way in: started, continued in chunks, finished with a digest, mounted, cancelled.
//!
//! An upload is a file of the layout until it is finished, has rested too long, or is cancelled; it survives this
//! process, and another one goes on with it. Here is what only this process knows: the hash of what came so far, and
//! who is writing. Nothing is visible before the digest was checked.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use content::Digest;
use oci::Repository;
use store::{BlobWriter, Layout, Resumed, StoreError, Upload};
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

/// Where the bytes go.
pub(crate) enum Writer {
    /// A blob in one request, which leaves nothing if it breaks off.
    Once(BlobWriter),
    /// An upload that can be gone on with.
    Kept(Upload),
}

impl Writer {
    fn size(&self) -> u64 {
        match self {
            Self::Once(writer) => writer.size(),
            Self::Kept(upload) => upload.size(),
        }
    }

    fn commit_named(self, digest: Digest) -> Result<u64, StoreError> {
        match self {
            Self::Once(writer) => writer.commit_named(digest),
            Self::Kept(upload) => upload.commit_named(digest),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Once(writer) => writer.write(bytes),
            Self::Kept(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One upload's content.
pub(crate) struct Session {
    /// `None` once the upload has ended, well or not.
    writer: Option<Writer>,
}

impl Session {
    pub(crate) fn size(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::size)
    }

    pub(crate) fn writer_mut(&mut self) -> Option<&mut Writer> {
        self.writer.as_mut()
    }

    pub(crate) fn discard(&mut self) {
        if let Some(Writer::Kept(upload)) = self.writer.take() {
            upload.discard();
        }
    }
}

struct Open {
    repository: Repository,
    used: Instant,
    session: Arc<tokio::sync::Mutex<Session>>,
}

/// The uploads that this process has open.
pub(crate) struct Uploads {
    open: Mutex<HashMap<String, Open>>,
    limit: usize,
    idle: Duration,
}

impl Uploads {
    pub(crate) fn new(limit: usize, idle: Duration) -> Self {
        Self { open: Mutex::new(HashMap::new()), limit, idle }
    }

    /// How often uploads that rest are looked for.
    pub(crate) fn period(&self) -> Duration {
        (self.idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(60))
    }

    /// Removes uploads that rested too long: of this process, and of those that have ended.
    pub(crate) fn tidy(&self, layout: &Layout) -> Result<(), StoreError> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, upload| {
            let busy = Arc::strong_count(&upload.session) > 1;
            busy || upload.used.elapsed() < self.idle
        });
        let (count, bytes) = layout.remove_resting_uploads(layout.time()?, self.idle)?;
        if count > 0 {
            tracing::info!(count, bytes, "uploads that rested too long were removed");
        }
        Ok(())
    }

    /// Starts an upload. Waits for the disk.
    fn start(&self, layout: &Layout, repository: &Repository) -> Result<String, ApiError> {
        if layout.uploads()? >= self.limit {
            self.tidy(layout)?;
            if layout.uploads()? >= self.limit {
                return Err(ApiError::too_many_uploads());
            }
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| ApiError::internal(&error))?;
        let id = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let upload = layout.start_upload(&id, repository.as_str())?;
        self.insert(&id, repository, upload);
        Ok(id)
    }

    fn insert(&self, id: &str, repository: &Repository, upload: Upload) {
        let session = Session { writer: Some(Writer::Kept(upload)) };
        let session = Arc::new(tokio::sync::Mutex::new(session));
        let open = Open { repository: repository.clone(), used: Instant::now(), session };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), open);
    }

    fn find(&self, repository: &Repository, id: &str) -> Option<Result<Arc<tokio::sync::Mutex<Session>>, ApiError>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = open.get_mut(id)?;
        if upload.repository != *repository {
            return Some(Err(ApiError::upload_unknown()));
        }
        upload.used = Instant::now();
        Some(Ok(Arc::clone(&upload.session)))
    }

    /// Goes on with an upload of a process that has ended.
    fn resume(&self, layout: &Layout, repository: &Repository, id: &str) -> Result<(), ApiError> {
        match layout.resume_upload(id)? {
            Resumed::Absent => Err(ApiError::upload_unknown()),
            Resumed::Busy => Err(ApiError::upload_busy()),
            Resumed::Here(_, whose) if whose != repository.as_str() => Err(ApiError::upload_unknown()),
            Resumed::Here(upload, _) => {
                self.insert(id, repository, upload);
                Ok(())
            }
        }
    }

    fn remove(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Server {
    /// Takes an upload for one request.
    async fn claim(self: &Arc<Self>, name: &Repository, id: &str) -> Result<OwnedMutexGuard<Session>, ApiError> {
        let session = match self.uploads.find(name, id) {
            Some(session) => session?,
            None => {
                let (repository, upload) = (name.clone(), id.to_owned());
                // Two requests may come to this at once: then the file is locked for one of them by the other.
                let resumed =
                    self.blocking(move |server| server.uploads.resume(&server.layout, &repository, &upload)).await;
                match self.uploads.find(name, id) {
                    Some(session) => session?,
                    None => return Err(resumed.err().unwrap_or_else(ApiError::upload_unknown)),
                }
            }
        };
        let claimed = tokio::time::timeout(WAIT_FOR_OTHER, session.lock_owned()).await;
        let session = claimed.map_err(|_| ApiError::upload_busy())?;
        if session.writer.is_none() {
            self.uploads.remove(id);
            return Err(ApiError::upload_unknown());
        }
        Ok(session)
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
        let is_here = server.blocking(move |server| {
            server.expect_name(&[digest]);
            Ok(server.layout.blob_size(digest).is_some())
        });
        if is_here.await? {
            return Ok(created(&name, digest));
        }
    }
    let whole = parameter(request, "digest").map(|digest| parse_digest(&digest)).transpose()?;
    if let Some(digest) = whole {
        let writer = server.blocking(|server| Ok(Writer::Once(server.layout.blob_writer()?))).await?;
        let session = Arc::new(tokio::sync::Mutex::new(Session { writer: Some(writer) })).lock_owned().await;
        return complete(&server, &name, session, digest, request, body).await;
    }
    let repository = name.clone();
    let id = server.blocking(move |server| server.uploads.start(&server.layout, &repository)).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, 0))
}

/// `GET` of an upload: how far it has come.
pub(crate) async fn status(server: Arc<Server>, name: Repository, id: String) -> Result<Response, ApiError> {
    let session = server.claim(&name, &id).await?;
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
    let session = server.claim(&name, &id).await?;
    let limits = check_chunk(&server, request, &session).await;
    let limits = limits.map_err(|error| at(error, &name, &id, session.size()))?;
    let session = receive(&server, body, session, limits).await?;
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
    let session = server.claim(&name, &id).await?;
    let size = session.size();
    let answer = complete(&server, &name, session, digest, request, body).await;
    match &answer {
        Ok(_) => server.uploads.remove(&id),
        // The writer is gone if the digest was wrong or the disk failed; a broken connection leaves it to go on with.
        Err(_) => drop(server.claim(&name, &id).await),
    }
    answer.map_err(|error| at(error, &name, &id, size))
}

/// `DELETE` of an upload.
pub(crate) async fn cancel(server: Arc<Server>, name: Repository, id: String) -> Result<Response, ApiError> {
    let mut session = server.claim(&name, &id).await?;
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
    let limits = check_chunk(server, request, &session).await?;
    let mut session = receive(server, body, session, limits).await?;
    let writer = session.writer.take().ok_or_else(ApiError::upload_unknown)?;
    drop(session);
    server
        .blocking(move |server| {
            server.expect_name(&[digest]);
            match writer.commit_named(digest) {
                Err(StoreError::Damaged { expected, found }) => {
                    Err(ApiError::digest_invalid(format!("expected {expected}, but the content hashes to {found}")))
                }
                other => Ok(other?),
            }
        })
        .await?;
    Ok(created(name, digest))
}

/// Whether a body belongs where the upload is, and what it may be.
async fn check_chunk(server: &Arc<Server>, request: &Parts, session: &Session) -> Result<Limits, ApiError> {
    let mut limits = Limits { upload: server.options.max_blob_size, body: None, idle: server.options.body_idle };
    let announced = header_text(request, header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    server.check_room(announced.unwrap_or(0)).await?;
    let Some(text) = header_text(request, header::CONTENT_RANGE) else { return Ok(limits) };
    let range = range::chunk(text)
        .ok_or_else(|| ApiError::upload_invalid("Content-Range is not of the form `<first>-<last>`"))?;
    if range.start != session.size() {
        return Err(ApiError::upload_offset(session.size(), range.start));
    }
    let length = range.end - range.start;
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
