//! Blobs on their way from a registry: verified while they come, going on after a break.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use content::{Digest, HashingWriter};
use oci::Descriptor;
use reqwest::Method;
use reqwest::header::CONTENT_RANGE;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backoff::{Backoff, retry_after};
use crate::client::Access;
use crate::error::is_transient_status;
use crate::reply::Reply;
use crate::{Client, Error, Event, Remote};

/// How many pieces may wait to be written.
const PIECES: usize = 8;

/// The writing end: hashing and writing wait for the disk, so they have a thread.
struct Sink<W> {
    pieces: mpsc::Sender<Bytes>,
    writing: JoinHandle<(io::Result<()>, HashingWriter<W>)>,
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
        let sink = Sink::new(writer);
        let fetched = self.fetch(remote, descriptor, &sink).await;
        let digest = descriptor.digest;
        let (writer, found, size) = sink.finish(digest).await?;
        fetched?;
        let registry = remote.registry.clone();
        if size != descriptor.size {
            return Err(Error::WrongSize { registry, digest, expected: descriptor.size, found: size });
        }
        if found != digest {
            return Err(Error::Damaged { registry, expected: digest, found });
        }
        Ok(writer)
    }

    async fn fetch<W>(&self, remote: &Remote, descriptor: &Descriptor, sink: &Sink<W>) -> Result<(), Error> {
        let mut backoff = Backoff::new(&self.options().retry);
        let mut offset = 0;
        loop {
            let before = offset;
            let Break { error, asked } = match self.fetch_from(remote, descriptor, &mut offset, sink).await {
                Ok(_) if offset == descriptor.size => return Ok(()),
                // The body ended where the registry said it would, and that was too early.
                Ok(request) => {
                    let reason = format!("it ends after {offset} of {} bytes", descriptor.size);
                    Error::Protocol { request, reason }.into()
                }
                Err(broken) if broken.error.is_transient() => broken,
                Err(broken) => return Err(broken.error),
            };
            if offset > before {
                backoff.reset();
            }
            let request = self.call(Method::GET, remote, &blob_path(descriptor), Access::Pull)?.name();
            if !self.transport.pause(&mut backoff, asked, &request, &error.to_string()).await? {
                return Err(error);
            }
        }
    }

    /// Fetches from `offset` to the end or to a break; `offset` follows.
    async fn fetch_from<W>(
        &self,
        remote: &Remote,
        descriptor: &Descriptor,
        offset: &mut u64,
        sink: &Sink<W>,
    ) -> Result<crate::RequestName, Break> {
        let mut call = self
            .call(Method::GET, remote, &blob_path(descriptor), Access::Pull)?
            .header("accept-encoding", "identity")
            .once();
        if *offset > 0 {
            call = call.header("range", format!("bytes={offset}-"));
        }
        let reply = self.send(call).await?;
        if reply.status() == 404 {
            return Err(Error::Missing { what: descriptor.digest.to_string(), place: remote.to_string() }.into());
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
            let bytes = piece.len() as u64;
            let found = offset.saturating_add(bytes);
            if found > descriptor.size {
                let (registry, digest) = (remote.registry.clone(), descriptor.digest);
                return Err(Error::WrongSize { registry, digest, expected: descriptor.size, found }.into());
            }
            if sink.pieces.send(piece).await.is_err() {
                // The writer failed and says why when it is asked.
                return Err(reply.protocol("it cannot be written").into());
            }
            *offset = found;
            self.options().events.event(Event::Received { digest: descriptor.digest, bytes });
        }
        Ok(reply.request)
    }
}

fn blob_path(descriptor: &Descriptor) -> String {
    format!("blobs/{}", descriptor.digest)
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

impl<W: Write + Send + 'static> Sink<W> {
    fn new(writer: W) -> Self {
        let (pieces, mut received) = mpsc::channel::<Bytes>(PIECES);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = HashingWriter::new(writer);
            while let Some(piece) = received.blocking_recv() {
                if let Err(error) = writer.write_all(&piece) {
                    return (Err(error), writer);
                }
            }
            (writer.flush(), writer)
        });
        Self { pieces, writing }
    }

    async fn finish(self, digest: Digest) -> Result<(W, Digest, u64), Error> {
        drop(self.pieces);
        let failed = |source| Error::Sink { digest, source };
        let (written, writer) = self.writing.await.map_err(|panicked| failed(io::Error::other(panicked)))?;
        written.map_err(failed)?;
        Ok(writer.finish())
    }
}
