//! Blobs on their way to a registry: looked for, mounted, or sent, in one piece or several, going on where the
//! registry says it stopped.

use std::sync::Arc;

use content::Digest;
use oci::{Descriptor, Repository};
use reqwest::header::{CONTENT_LENGTH, HeaderName, LOCATION, RANGE};
use reqwest::{Method, Url};

use crate::auth::Scope;
use crate::backoff::{Backoff, retry_after};
use crate::client::Access;
use crate::error::is_transient_status;
use crate::reply::Reply;
use crate::source::{self, BlobSource, Flow};
use crate::transport::Call;
use crate::{Client, Error, Event, Remote, UploadNote};

/// The smallest piece that a registry wants.
const MIN_CHUNK: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// The largest minimum that we go along with; beyond it the rest of a blob goes out in one piece.
const MAX_MIN_CHUNK: u64 = 1 << 30;

/// How a blob got to where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pushed {
    /// Its bytes were sent.
    Uploaded,
    /// It was there.
    AlreadyThere,
    /// The registry took it from another of its repositories.
    Mounted,
}

/// An upload that the registry has opened.
struct Session {
    url: Url,
    offset: u64,
    min_chunk: u64,
    /// Whether it was interrupted, so that the registry's idea of its content may be wrong.
    resumed: bool,
}

/// What a step of an upload came to.
enum Step {
    Finished,
    Further,
    /// The registry does not go along; the session must be looked at again or given up.
    Stopped(Error, Option<std::time::Duration>),
}

struct Upload<'a> {
    client: &'a Client,
    remote: &'a Remote,
    descriptor: &'a Descriptor,
    source: &'a Arc<dyn BlobSource>,
}

impl Client {
    /// Whether a blob is in a repository. Answers of a wrong size count as absence.
    pub async fn head_blob(&self, remote: &Remote, descriptor: &Descriptor) -> Result<bool, Error> {
        let path = format!("blobs/{}", descriptor.digest);
        let reply = self.send(self.call(Method::HEAD, remote, &path, Access::Pull)?).await?;
        if reply.status() == 404 {
            return Ok(false);
        }
        let reply = reply.expect(&[200]).await?;
        let size = reply.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        Ok(size.is_none_or(|size| size == descriptor.size))
    }

    /// Brings a blob into a repository. It is looked for there, unless `from` names another repository of the same
    /// registry that is known to have it: then it is mounted from there. Otherwise it is sent.
    pub async fn push_blob(
        &self,
        remote: &Remote,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        from: Option<&Repository>,
    ) -> Result<Pushed, Error> {
        if let Some(from) = from.filter(|from| **from != remote.repository)
            && self.mount_blob(remote, descriptor, from).await?
        {
            return Ok(self.finished(descriptor, Pushed::Mounted));
        }
        if self.head_blob(remote, descriptor).await? {
            return Ok(self.finished(descriptor, Pushed::AlreadyThere));
        }
        let pushed = Upload { client: self, remote, descriptor, source }.run().await?;
        Ok(self.finished(descriptor, pushed))
    }

    /// Asks a registry to take a blob from another of its repositories. A registry that does not, or not for us, is
    /// nothing to complain of: the blob can be sent.
    pub async fn mount_blob(&self, remote: &Remote, descriptor: &Descriptor, from: &Repository) -> Result<bool, Error> {
        let mut call = self.call(Method::POST, remote, "blobs/uploads/", Access::Push)?;
        call.url
            .query_pairs_mut()
            .append_pair("mount", &descriptor.digest.to_string())
            .append_pair("from", from.as_str());
        let scope = call.scope.clone().and_pull(from);
        let call = call.with_scope(scope);
        let url = call.url.clone();
        let reply = match self.send(call).await {
            // Who may not read there may write here nevertheless; if not, the upload says so.
            Err(Error::Unauthorized { .. }) => return Ok(false),
            other => other?,
        };
        match reply.status() {
            201 => Ok(true),
            202 => {
                self.give_up(remote, &url, reply).await;
                Ok(false)
            }
            400 | 403 | 404 | 405 => Ok(false),
            _ => Err(reply.refused().await),
        }
    }

    /// Closes an upload that nobody wants. A registry that cannot removes it after a time.
    async fn give_up(&self, remote: &Remote, from: &Url, reply: Reply) {
        let location = reply.header(LOCATION).and_then(|location| self.transport.follow(from, location).ok());
        drop(reply);
        if let Some(url) = location {
            let scope = Scope::of(&remote.repository, Access::Push);
            let _ = self.send(Call::new(Method::DELETE, url, &remote.registry, scope).once()).await;
        }
    }

    pub(crate) fn finished(&self, descriptor: &Descriptor, pushed: Pushed) -> Pushed {
        self.options().events.event(Event::Finished { descriptor, pushed });
        pushed
    }
}

impl Upload<'_> {
    async fn run(&self) -> Result<Pushed, Error> {
        let note = self.note().await;
        let pushed = self.send_noting(note.as_ref()).await?;
        if let Some(note) = note {
            note.tell(|note| note.remove()).await;
        }
        Ok(pushed)
    }

    /// The note about this upload, if it goes in pieces: what goes in one is sent again.
    async fn note(&self) -> Option<NoteInUse> {
        let notes = self.client.options().notes.clone()?;
        if self.descriptor.size <= self.client.options().chunk_size {
            return None;
        }
        let (remote, digest) = (self.remote.clone(), self.digest());
        let taken = tokio::task::spawn_blocking(move || notes.take(&remote, digest)).await.ok()??;
        Some(NoteInUse(Arc::from(taken)))
    }

    /// The upload of an earlier process, if the registry still knows it.
    async fn taken_up(&self, note: &NoteInUse) -> Option<Session> {
        let address = note.tell(|note| note.read()).await??;
        let home = self.client.transport.url(&self.remote.registry, "/v2/").ok()?;
        let url = self.client.transport.follow(&home, &address).ok()?;
        let session = Session { url, offset: 0, min_chunk: 0, resumed: false };
        let session = self.look_at(session, Call::once).await.ok()??;
        tracing::debug!(digest = %self.digest(), offset = session.offset, "an earlier upload goes on");
        Some(session)
    }

    async fn send_noting(&self, note: Option<&NoteInUse>) -> Result<Pushed, Error> {
        let earlier = match note {
            Some(note) => self.taken_up(note).await,
            None => None,
        };
        let mut session = match earlier {
            Some(session) => session,
            None => self.open().await?,
        };
        let mut backoff = Backoff::new(&self.client.options().retry);
        loop {
            let before = session.offset;
            if let Some(note) = note {
                let address = session.url.to_string();
                note.tell(move |note| note.write(&address)).await;
            }
            let stopped = match self.step(&mut session).await {
                Ok(Step::Finished) => return Ok(Pushed::Uploaded),
                Ok(Step::Further) => None,
                Ok(Step::Stopped(error, asked)) => Some((error, asked)),
                Err(error) if error.is_transient() => Some((error, None)),
                Err(error) => return Err(error),
            };
            if session.offset > before {
                backoff.reset();
            }
            let Some((error, asked)) = stopped else { continue };
            let request = self.named(&session);
            if !self.client.transport.pause(&mut backoff, asked, &request, &error.whole()).await? {
                return Err(error);
            }
            match self.reopen(session).await? {
                Some(reopened) => session = reopened,
                None => return Ok(Pushed::Uploaded),
            }
            if session.offset > before {
                backoff.reset();
            }
            let (digest, offset) = (self.digest(), session.offset);
            self.client.options().events.event(Event::Rewound { digest, offset });
        }
    }

    fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    fn named(&self, session: &Session) -> crate::RequestName {
        crate::RequestName::new(&Method::PUT, &session.url)
    }

    /// `POST`: asks for an upload.
    async fn open(&self) -> Result<Session, Error> {
        let call = self.client.call(Method::POST, self.remote, "blobs/uploads/", Access::Push)?;
        let url = call.url.clone();
        let reply = self.client.send(call).await?.expect(&[202]).await?;
        let min_chunk = reply.header(MIN_CHUNK).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let url = self.location(&url, &reply)?.ok_or_else(|| reply.protocol("an upload without a Location"))?;
        Ok(Session { url, offset: 0, min_chunk: min_chunk.min(MAX_MIN_CHUNK), resumed: false })
    }

    /// Sends the next piece, or the last one with the digest.
    async fn step(&self, session: &mut Session) -> Result<Step, Error> {
        let left = self.descriptor.size - session.offset;
        let chunk = self.client.options().chunk_size.max(session.min_chunk).max(1);
        if session.offset == 0 && left <= chunk {
            return self.put(session, left).await;
        }
        if left == 0 {
            return self.put(session, 0).await;
        }
        self.patch(session, left.min(chunk)).await
    }

    async fn put(&self, session: &mut Session, length: u64) -> Result<Step, Error> {
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.digest().to_string());
        let reply = self.transfer(Method::PUT, url, session.offset, length, None).await?;
        match reply.status() {
            201 | 204 => {
                let found = reply.digest();
                if found.is_some_and(|found| found != self.digest()) {
                    return Err(reply.protocol("the registry stored it under another digest"));
                }
                Ok(Step::Finished)
            }
            _ => self.stopped(session, reply).await,
        }
    }

    async fn patch(&self, session: &mut Session, length: u64) -> Result<Step, Error> {
        let end = session.offset + length;
        let range = format!("{}-{}", session.offset, end - 1);
        let reply = self.transfer(Method::PATCH, session.url.clone(), session.offset, length, Some(range)).await?;
        if !matches!(reply.status(), 201 | 202 | 204) {
            return self.stopped(session, reply).await;
        }
        if let Some(url) = self.location(&session.url, &reply)? {
            session.url = url;
        }
        session.offset = match received(&reply) {
            Some(offset) if offset > end => return Err(reply.protocol("the registry has more than was sent")),
            Some(offset) => offset,
            None => end,
        };
        Ok(Step::Further)
    }

    /// Sorts refusals: those after which the upload may go on, and those that end it.
    async fn stopped(&self, session: &Session, reply: Reply) -> Result<Step, Error> {
        let asked = retry_after(reply.headers());
        let goes_on = match reply.status() {
            // The session is lost, or stands elsewhere than we thought.
            404 | 409 | 416 => true,
            // The registry mixed something up when it was interrupted.
            400 => session.resumed,
            status => is_transient_status(status),
        };
        let error = reply.refused().await;
        if goes_on { Ok(Step::Stopped(error, asked)) } else { Err(error) }
    }

    /// Sends a part of the blob. A 401 (tokens run out during long uploads) is answered by sending it once more.
    async fn transfer(
        &self,
        method: Method,
        url: Url,
        offset: u64,
        length: u64,
        range: Option<String>,
    ) -> Result<Reply, Error> {
        let scope = Scope::of(&self.remote.repository, Access::Push);
        let mut call =
            Call::new(method, url, &self.remote.registry, scope).header("content-type", "application/octet-stream");
        if let Some(range) = range {
            call = call.header("content-range", range);
        }
        let reply = self.transfer_once(&call, offset, length).await?;
        // Others than the registry, to whom it may have sent us, have nothing to ask for.
        if reply.status() != 401 || !self.client.transport.is_home(&call) {
            return Ok(reply);
        }
        self.client.transport.challenged(&call, reply).await?;
        let reply = self.transfer_once(&call, offset, length).await?;
        if reply.status() == 401 { Err(self.client.transport.unauthorized(&call, reply).await) } else { Ok(reply) }
    }

    async fn transfer_once(&self, call: &Call, offset: u64, length: u64) -> Result<Reply, Error> {
        if length == 0 {
            return self.client.transport.attempt(call, None).await;
        }
        let digest = self.digest();
        let reader = self.source.open(offset).await.map_err(|source| Error::Source { digest, source })?;
        let flow = Flow::new(length);
        let body = source::body(reader, digest, Arc::clone(&flow), Arc::clone(&self.client.options().events));
        let answered = self.client.transport.attempt(call, Some((body, Arc::clone(&flow)))).await;
        match flow.take_failure() {
            Some(source) => Err(Error::Source { digest, source }),
            None => answered,
        }
    }

    /// Finds out where an interrupted upload stands. `None`: the blob is there after all (its last answer was lost).
    async fn reopen(&self, session: Session) -> Result<Option<Session>, Error> {
        if let Some(session) = self.look_at(session, |call| call).await? {
            return Ok(Some(session));
        }
        if self.client.head_blob(self.remote, self.descriptor).await? {
            return Ok(None);
        }
        self.open().await.map(Some)
    }

    /// Where an upload stands, by the registry. `None` if it does not know it, or going on with it is in vain.
    async fn look_at(&self, session: Session, how: impl FnOnce(Call) -> Call) -> Result<Option<Session>, Error> {
        let scope = Scope::of(&self.remote.repository, Access::Push);
        let call = Call::new(Method::GET, session.url.clone(), &self.remote.registry, scope);
        let reply = self.client.send(how(call)).await?;
        if matches!(reply.status(), 200 | 202 | 204)
            && let Some(offset) = received(&reply)
            && offset <= self.descriptor.size
            && !session.resumed_in_vain(offset)
        {
            let url = self.location(&session.url, &reply)?.unwrap_or_else(|| session.url.clone());
            return Ok(Some(Session { url, offset, resumed: true, ..session }));
        }
        Ok(None)
    }

    fn location(&self, from: &Url, reply: &Reply) -> Result<Option<Url>, Error> {
        reply.header(LOCATION).map(|location| self.client.transport.follow(from, location)).transpose()
    }
}

/// A note, which is read and written on threads that may wait.
#[derive(Clone)]
struct NoteInUse(Arc<dyn UploadNote>);

impl NoteInUse {
    async fn tell<T: Send + 'static>(&self, what: impl FnOnce(&dyn UploadNote) -> T + Send + 'static) -> Option<T> {
        let note = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || what(&*note)).await.ok()
    }
}

impl Session {
    /// Whether going on led back to the same place twice: then a fresh upload is better.
    fn resumed_in_vain(&self, offset: u64) -> bool {
        self.resumed && offset <= self.offset
    }
}

/// How many bytes the registry says it has. `0-0` means none: the API has no word for nothing, and an upload that has
/// one byte is found out by its answer to the next piece.
fn received(reply: &Reply) -> Option<u64> {
    let text = reply.header(RANGE)?;
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    match (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}
