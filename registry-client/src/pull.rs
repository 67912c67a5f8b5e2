//! Whole images on their way from a registry into a [`Sink`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use content::{Digest, HashingWriter};
use oci::{Descriptor, Reference};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::download::Download;
use crate::{Client, Error, Platforms, Remote, Resolved, Sink};

/// How a blob got to where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pulled {
    /// It was fetched.
    Fetched,
    /// A part of it was there from a pull that was interrupted, and the rest was fetched.
    Continued {
        /// How many bytes were there.
        known: u64,
    },
    /// It was there.
    AlreadyThere,
}

/// What a pull came to.
#[derive(Clone, Debug)]
pub struct PullReport {
    /// What the reference meant.
    pub resolved: Resolved,
    /// How each blob got there, each one once.
    pub blobs: Vec<(Descriptor, Pulled)>,
}

impl PullReport {
    /// How many bytes of blobs were fetched.
    pub fn fetched_bytes(&self) -> u64 {
        self.sum(|descriptor, pulled| match pulled {
            Pulled::Fetched => descriptor.size,
            Pulled::Continued { known } => descriptor.size.saturating_sub(known),
            Pulled::AlreadyThere => 0,
        })
    }

    /// How many bytes of blobs were there.
    pub fn present_bytes(&self) -> u64 {
        self.sum(|descriptor, pulled| match pulled {
            Pulled::Fetched => 0,
            Pulled::Continued { known } => known,
            Pulled::AlreadyThere => descriptor.size,
        })
    }

    fn sum(&self, bytes: impl Fn(&Descriptor, Pulled) -> u64) -> u64 {
        self.blobs.iter().fold(0, |sum, (descriptor, pulled)| sum.saturating_add(bytes(descriptor, *pulled)))
    }
}

impl Client {
    /// Pulls an image, or all images of an index: blobs at the same time, each once, then manifests as they came, then
    /// indexes. What the sink has is not fetched, so a pull that was interrupted goes on when it is repeated, in the
    /// middle of a blob if the sink keeps beginnings. Naming
    /// the result is the caller's, with [`Resolved::taken`].
    pub async fn pull(
        &self,
        reference: &Reference,
        platforms: &Platforms,
        sink: Arc<dyn Sink>,
    ) -> Result<PullReport, Error> {
        let resolved = self.resolve(reference, platforms).await?;
        self.pull_resolved(&Remote::from(reference), resolved, sink).await
    }

    /// Pulls what was resolved before.
    pub async fn pull_resolved(
        &self,
        remote: &Remote,
        resolved: Resolved,
        sink: Arc<dyn Sink>,
    ) -> Result<PullReport, Error> {
        let mut at_hand: BTreeMap<Digest, Bytes> = BTreeMap::new();
        at_hand.extend(resolved.config.iter().map(|(bytes, _)| (Digest::of(bytes), bytes.clone())));
        let mut seen = BTreeSet::new();
        let blobs: Vec<Descriptor> = resolved
            .documents
            .iter()
            .flat_map(|fetched| fetched.document.blobs())
            .filter(|descriptor| seen.insert(descriptor.digest))
            .cloned()
            .collect();
        let blobs = self.pull_blobs(remote, blobs, &at_hand, &sink).await?;
        for fetched in &resolved.documents {
            keep(&sink, &fetched.descriptor, fetched.bytes.clone()).await?;
        }
        Ok(PullReport { resolved, blobs })
    }

    async fn pull_blobs(
        &self,
        remote: &Remote,
        blobs: Vec<Descriptor>,
        at_hand: &BTreeMap<Digest, Bytes>,
        sink: &Arc<dyn Sink>,
    ) -> Result<Vec<(Descriptor, Pulled)>, Error> {
        // An image has hundreds of layers at most, but somebody's index has what he likes: no more files are open than
        // there are connections.
        let places = Arc::new(Semaphore::new(self.options().connections_per_host.max(1)));
        // Dropped on the first error, which ends the other transfers.
        let mut running = JoinSet::new();
        let mut results = Vec::with_capacity(blobs.len());
        for descriptor in blobs {
            let (client, remote, sink) = (self.clone(), remote.clone(), Arc::clone(sink));
            let (places, bytes) = (Arc::clone(&places), at_hand.get(&descriptor.digest).cloned());
            running.spawn(async move {
                let _place = places.acquire_owned().await.expect("this semaphore is never closed");
                let pulled = match bytes {
                    Some(bytes) => keep(&sink, &descriptor, bytes).await?,
                    None => client.pull_into(&remote, &descriptor, &sink).await?,
                };
                Ok::<_, Error>((descriptor, pulled))
            });
        }
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(pulled) => results.push(pulled?),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Ok(results)
    }

    /// Fetches one blob into a sink, unless it is there. A layer that is not in the registry, because it may not be
    /// passed on, is fetched from the addresses that its descriptor has; nobody there is shown a credential.
    pub async fn pull_into(
        &self,
        remote: &Remote,
        descriptor: &Descriptor,
        sink: &Arc<dyn Sink>,
    ) -> Result<Pulled, Error> {
        if is_there(sink, descriptor).await {
            return Ok(Pulled::AlreadyThere);
        }
        let download = Download::new(self, remote, descriptor);
        let elsewhere = download.by_its_urls();
        let mut outcome = download.into_sink(sink).await;
        for other in elsewhere {
            if !matches!(outcome, Err(Error::Foreign { .. })) {
                break;
            }
            if let Ok(pulled) = other.into_sink(sink).await {
                outcome = Ok(pulled);
            }
        }
        outcome
    }
}

impl Download<'_> {
    /// Fetches the blob into a sink. Wrong bytes, of a mirror or from an earlier transfer, are thrown away, and all of them
    /// fetched once more without these.
    async fn into_sink(self, sink: &Arc<dyn Sink>) -> Result<Pulled, Error> {
        let digest = self.descriptor().digest;
        let failed = move |source| Error::Sink { digest, source };
        loop {
            let begin = {
                let (sink, descriptor) = (Arc::clone(sink), self.descriptor().clone());
                move || {
                    let writer = sink.begin(&descriptor)?;
                    let so_far = writer.so_far().filter(|(_, size)| *size > 0);
                    Ok((writer, so_far))
                }
            };
            let (writer, so_far) = waiting(begin).await.map_err(failed)?;
            let known = so_far.as_ref().map_or(0, |(_, size)| *size);
            let writer = match so_far {
                Some((hash, size)) => HashingWriter::resumed(writer, hash, size),
                None => HashingWriter::with(digest.algorithm(), writer),
            };
            let (outcome, writer) = self.fetch_into(writer).await?;
            let Err(error) = outcome else {
                waiting(move || writer.commit()).await.map_err(failed)?;
                return Ok(if known > 0 { Pulled::Continued { known } } else { Pulled::Fetched });
            };
            writer.discard();
            match self.mirror_to_blame(&error) {
                Some(mirror) => self.distrust(&mirror, &error),
                None if known > 0 => {}
                None => return Err(error),
            }
        }
    }
}

/// Puts bytes that are at hand into a sink.
async fn keep(sink: &Arc<dyn Sink>, descriptor: &Descriptor, bytes: Bytes) -> Result<Pulled, Error> {
    let (digest, descriptor, sink) = (descriptor.digest, descriptor.clone(), Arc::clone(sink));
    let write = move || {
        if sink.has(&descriptor) {
            return Ok(Pulled::AlreadyThere);
        }
        let mut writer = sink.begin(&descriptor)?;
        writer.write_all(&bytes)?;
        writer.commit().map(|()| Pulled::Fetched)
    };
    waiting(write).await.map_err(|source| Error::Sink { digest, source })
}

async fn is_there(sink: &Arc<dyn Sink>, descriptor: &Descriptor) -> bool {
    let (sink, descriptor) = (Arc::clone(sink), descriptor.clone());
    waiting(move || Ok(sink.has(&descriptor))).await.unwrap_or(false)
}

/// Does what waits for the disk on a thread of its own.
async fn waiting<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)))
}
