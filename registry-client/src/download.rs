//! Blobs on their way from a registry: verified while they come, going on after a break.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use content::{Digest, HashingWriter};
use oci::{Descriptor, MediaTypeExt};
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
        Download::new(self, remote, descriptor).into_writer(writer).await
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

    /// Fetches the blob into a writer and gives the writer back, after the last byte was verified.
    pub(crate) async fn into_writer<W: Write + Send + 'static>(self, writer: W) -> Result<W, Error> {
        let writing = Writing::new(writer);
        let fetched = self.fetch(0, &writing.pieces).await;
        let digest = self.descriptor.digest;
        let (writer, found, size) = writing.finish(digest).await?;
        fetched?;
        let registry = self.remote.registry.clone();
        if size != self.descriptor.size {
            return Err(Error::WrongSize { registry, digest, expected: self.descriptor.size, found: size });
        }
        if found != digest {
            return Err(Error::Damaged { registry, expected: digest, found });
        }
        Ok(writer)
    }

    /// Fetches everything from `offset` on, in pieces, as often as it breaks. Nothing is verified but the number.
    pub(crate) async fn fetch(&self, mut offset: u64, pieces: &mpsc::Sender<Bytes>) -> Result<(), Error> {
        let size = self.descriptor.size;
        let mut backoff = Backoff::new(&self.client.options().retry);
        loop {
            let before = offset;
            let Break { error, asked } = match self.fetch_from(&mut offset, pieces).await {
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
            if !self.client.transport.pause(&mut backoff, asked, &request, &error.to_string()).await? {
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
    async fn fetch_from(&self, offset: &mut u64, pieces: &mpsc::Sender<Bytes>) -> Result<crate::RequestName, Break> {
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
                let registry = self.remote.registry.clone();
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

impl<W: Write + Send + 'static> Writing<W> {
    fn new(writer: W) -> Self {
        let (pieces, mut received) = mpsc::channel::<Bytes>(PIECES);
        let thread = tokio::task::spawn_blocking(move || {
            let mut writer = HashingWriter::new(writer);
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
