//! Blobs on their way from a registry: verified while they come, going on after a break.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use content::{Digest, HashingWriter};
use oci::{Descriptor, MediaTypeExt, Registry};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Url};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backoff::{Backoff, retry_after};
use crate::client::Access;
use crate::error::{is_transient_status, tamed};
use crate::reply::Reply;
use crate::transport::Call;
use crate::{Client, Error, Event, Remote};

/// How many pieces may wait to be written.
const PIECES: usize = 8;

/// A blob, and where it comes from.
pub(crate) struct Download<'a> {
    client: &'a Client,
    remote: &'a Remote,
    descriptor: &'a Descriptor,
    /// Somebody else than the registry, who has it.
    elsewhere: Option<Url>,
}

/// The writing end: hashing and writing wait for the disk, so they have a thread.
struct Writing<W> {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<(io::Result<()>, HashingWriter<W>)>,
}

/// Why a transfer ended before its end, and the pause that the registry asks for.
struct Break {
    error: Error,
    asked: Option<Duration>,
}

/// Who gave bytes of a blob: the registry, or mirrors of it.
#[derive(Default)]
pub(crate) struct Givers(BTreeSet<Registry>);

impl From<Error> for Break {
    fn from(error: Error) -> Self {
        Self { error, asked: None }
    }
}

impl Client {
    /// Fetches a blob into a writer and gives the writer back, after the last byte was verified. After an error, what
    /// was written must be thrown away.
    pub async fn pull_blob<W: Write + Send + 'static>(
        &self,
        remote: &Remote,
        descriptor: &Descriptor,
        writer: W,
    ) -> Result<W, Error> {
        let writer = HashingWriter::with(descriptor.digest.algorithm(), writer);
        let (outcome, writer) = Download::new(self, remote, descriptor).fetch_into(writer).await?;
        outcome.map(|()| writer)
    }
}

impl<'a> Download<'a> {
    pub(crate) fn new(client: &'a Client, remote: &'a Remote, descriptor: &'a Descriptor) -> Self {
        Self { client, remote, descriptor, elsewhere: None }
    }

    /// The same blob from the addresses that its descriptor has, if it is a layer that need not be in registries.
    pub(crate) fn by_its_urls(&self) -> impl Iterator<Item = Download<'a>> + use<'a> {
        let (client, remote, descriptor) = (self.client, self.remote, self.descriptor);
        let urls = descriptor.urls.iter().filter(move |_| descriptor.media_type.is_foreign_layer());
        let usable = |url: &String| Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        urls.filter_map(usable).map(move |url| Download { client, remote, descriptor, elsewhere: Some(url) })
    }

    pub(crate) fn descriptor(&self) -> &'a Descriptor {
        self.descriptor
    }

    /// The mirror that wrong bytes came from, if it was one and may not have been asked in vain before.
    pub(crate) fn mirror_to_blame(&self, error: &Error) -> Option<Registry> {
        match error {
            Error::Damaged { registry, .. } | Error::WrongSize { registry, .. }
                if *registry != self.remote.registry =>
            {
                Some(registry.clone())
            }
            _ => None,
        }
    }

    pub(crate) fn distrust(&self, mirror: &Registry, cause: &Error) {
        self.client.transport.distrust(mirror, cause);
    }

    /// Fetches the blob into a writer, which may have its beginning, and gives the writer back, with what came of it: the
    /// last byte was verified, or it must be thrown away.
    pub(crate) async fn fetch_into<W: Write + Send + 'static>(
        &self,
        writer: HashingWriter<W>,
    ) -> Result<(Result<(), Error>, W), Error> {
        let (expected, digest) = (self.descriptor.size, self.descriptor.digest);
        let from_before = writer.size();
        let writing = Writing::new(writer);
        let mut givers = Givers::default();
        let fetched = match from_before > expected {
            // It is checked below.
            true => Ok(()),
            false => self.fetch(from_before, &writing.pieces, &mut givers).await,
        };
        let (writer, hashed, found) = writing.finish(digest).await?;
        match fetched {
            Ok(()) => {}
            Err(error @ Error::WrongSize { .. }) => return Ok((Err(error), writer)),
            Err(error) => return Err(error),
        }
        let registry = givers.blamed(&self.remote.registry);
        let outcome = match (found == expected, hashed == digest) {
            (true, true) => Ok(()),
            (false, _) => Err(Error::WrongSize { registry, digest, expected, found }),
            (_, false) => Err(Error::Damaged { registry, expected: digest, found: hashed }),
        };
        Ok((outcome, writer))
    }

    /// Fetches everything from `offset` on, in pieces, as often as it breaks. Nothing is verified but the number.
    pub(crate) async fn fetch(
        &self,
        mut offset: u64,
        pieces: &mpsc::Sender<Bytes>,
        givers: &mut Givers,
    ) -> Result<(), Error> {
        let size = self.descriptor.size;
        if offset == size && size > 0 {
            return Ok(());
        }
        let mut backoff = Backoff::new(&self.client.options().retry);
        loop {
            let before = offset;
            let Break { error, asked } = match self.fetch_from(&mut offset, pieces, givers).await {
                Ok(_) if offset == size => return Ok(()),
                // The body ended where the registry said it would, and that was too early.
                Ok(request) => {
                    let reason = format!("it ends after {offset} of {size} bytes");
                    Error::Protocol { request, reason }.into()
                }
                Err(broken) if broken.error.is_transient() => broken,
                Err(broken) => return Err(broken.error),
            };
            if offset > before {
                backoff.reset();
            }
            let request = self.call()?.name();
            if !self.client.transport.pause(&mut backoff, asked, &request, &error.whole()).await? {
                return Err(error);
            }
        }
    }

    fn call(&self) -> Result<Call, Error> {
        let call = match &self.elsewhere {
            Some(url) => Call::elsewhere(Method::GET, url.clone(), &self.remote.registry),
            None => {
                let path = format!("blobs/{}", self.descriptor.digest);
                self.client.call(Method::GET, self.remote, &path, Access::Pull)?.mirrored()
            }
        };
        Ok(call.header("accept-encoding", "identity").once())
    }

    /// Fetches from `offset` to the end or to a break; `offset` follows.
    async fn fetch_from(
        &self,
        offset: &mut u64,
        pieces: &mpsc::Sender<Bytes>,
        givers: &mut Givers,
    ) -> Result<crate::RequestName, Break> {
        let mut call = self.call()?;
        if *offset > 0 {
            call = call.header("range", format!("bytes={offset}-"));
        }
        let reply = self.client.send(call).await?;
        if reply.status() == 404 {
            return Err(self.missing(reply).await.into());
        }
        if is_transient_status(reply.status()) {
            let asked = retry_after(reply.headers());
            return Err(Break { error: reply.refused().await, asked });
        }
        let mut reply = reply.expect(&[200, 206]).await?;
        givers.0.insert(reply.asked.clone());
        // A registry that knows no ranges starts again from the first byte.
        let mut skipped = if reply.status() == 206 {
            check_range(&reply, *offset)?;
            0
        } else {
            *offset
        };
        while let Some(mut piece) = reply.piece().await? {
            let known = skipped.min(piece.len() as u64);
            skipped -= known;
            let _ = piece.split_to(known as usize);
            if piece.is_empty() {
                continue;
            }
            let (digest, bytes) = (self.descriptor.digest, piece.len() as u64);
            let found = offset.saturating_add(bytes);
            if found > self.descriptor.size {
                let registry = reply.asked.clone();
                return Err(Error::WrongSize { registry, digest, expected: self.descriptor.size, found }.into());
            }
            if pieces.send(piece).await.is_err() {
                // Whoever writes has failed and says why when it is asked.
                return Err(reply.protocol("nobody wants it any more").into());
            }
            *offset = found;
            self.client.options().events.event(Event::Received { digest, bytes });
        }
        Ok(reply.request)
    }

    async fn missing(&self, reply: Reply) -> Error {
        let descriptor = self.descriptor;
        if !descriptor.media_type.is_foreign_layer() || descriptor.urls.is_empty() {
            let said = reply.errors().await;
            return Error::Missing { what: descriptor.digest.to_string(), place: self.remote.to_string(), said };
        }
        let urls = descriptor.urls.iter().take(3).map(|url| tamed(url)).collect();
        Error::Foreign { digest: descriptor.digest, remote: self.remote.to_string(), urls }
    }
}

/// A part must be the part that was asked for.
fn check_range(reply: &Reply, offset: u64) -> Result<(), Error> {
    let start = reply
        .header(CONTENT_RANGE)
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split_once('-'))
        .and_then(|(start, _)| start.parse::<u64>().ok());
    if start == Some(offset) { Ok(()) } else { Err(reply.protocol("it is another part than the one asked for")) }
}

impl Givers {
    /// Who is to blame for wrong bytes: a mirror that gave some of them rather than the registry.
    fn blamed(&self, registry: &Registry) -> Registry {
        self.0.iter().find(|giver| *giver != registry).unwrap_or(registry).clone()
    }
}

impl<W: Write + Send + 'static> Writing<W> {
    fn new(mut writer: HashingWriter<W>) -> Self {
        let (pieces, mut received) = mpsc::channel::<Bytes>(PIECES);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(piece) = received.blocking_recv() {
                if let Err(error) = writer.write_all(&piece) {
                    return (Err(error), writer);
                }
            }
            (writer.flush(), writer)
        });
        Self { pieces, thread }
    }

    async fn finish(self, digest: Digest) -> Result<(W, Digest, u64), Error> {
        drop(self.pieces);
        let failed = |source| Error::Sink { digest, source };
        let (written, writer) = self.thread.await.map_err(|panicked| failed(io::Error::other(panicked)))?;
        written.map_err(failed)?;
        Ok(writer.finish())
    }
}
