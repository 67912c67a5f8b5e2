//! A blob of one registry as the source of an upload to another: it flows through, and no disk is needed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use oci::Descriptor;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::download::{Download, Givers};
use crate::source::Opening;
use crate::{BlobReader, BlobSource, Client, Error, Remote};

/// How many pieces may wait to be sent on.
const PIECES: usize = 4;

/// A blob in a registry. It is fetched as fast as it is read, and goes on after a break.
///
/// The client must be another one than that which sends it on, if both speak to the same registry: an upload that
/// waits for its source would hold the connection that the source needs.
pub struct RemoteSource {
    /// Who fetches.
    pub client: Client,
    /// From where.
    pub remote: Remote,
    /// What.
    pub descriptor: Descriptor,
}

/// What is fetched, as it comes.
struct Stream {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
    /// Until its end was told.
    fetching: Option<JoinHandle<Result<(), Error>>>,
}

impl BlobSource for RemoteSource {
    fn open(&self, offset: u64) -> Opening<'_> {
        Box::pin(async move {
            let (sender, pieces) = mpsc::channel(PIECES);
            let (client, remote, descriptor) = (self.client.clone(), self.remote.clone(), self.descriptor.clone());
            let fetching = tokio::spawn(async move {
                Download::new(&client, &remote, &descriptor).fetch(offset, &sender, &mut Givers::default()).await
            });
            Ok(Box::new(Stream { pieces, rest: Bytes::new(), fetching: Some(fetching) }) as BlobReader)
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match self.pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(piece)) => self.rest = piece,
                Poll::Ready(None) => return self.poll_end(context),
            }
        }
        let length = self.rest.len().min(out.remaining());
        let piece = self.rest.split_to(length);
        out.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Nothing more comes: because that was all, or because something broke for good.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A task may be asked for its outcome once only.
        let Some(fetching) = &mut self.fetching else { return Poll::Ready(Ok(())) };
        let ended = std::task::ready!(Pin::new(fetching).poll(context));
        self.fetching = None;
        Poll::Ready(match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.fetching.iter().for_each(JoinHandle::abort);
    }
}
