//! Whole images, and families of them: each blob is sent to a registry once, and taken from its first repository for
//! all the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use content::Digest;
use oci::{Descriptor, MediaType, Reference, Registry, Repository};
use tokio::task::JoinSet;

use crate::manifests::ManifestName;
use crate::{BlobSource, Client, Error, Pushed, Remote};

/// An image to push.
pub struct ImagePush {
    /// Where to, and under which tag or digest.
    pub reference: Reference,
    /// The manifest's kind.
    pub media_type: MediaType,
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The blobs that the manifest needs.
    pub blobs: Vec<(Descriptor, Arc<dyn BlobSource>)>,
}

/// What a push came to.
#[derive(Clone, Debug)]
pub struct PushReport {
    /// The manifest's digest.
    pub digest: Digest,
    /// Whether the registry had the same manifest under the same name, so that nothing was done.
    pub unchanged: bool,
    /// How each blob got there, in the order of the image's blobs. Empty if nothing was done.
    pub blobs: Vec<(Descriptor, Pushed)>,
}

impl PushReport {
    /// How many bytes of blobs got there in this way.
    pub fn bytes(&self, how: Pushed) -> u64 {
        self.blobs.iter().filter(|(_, pushed)| *pushed == how).map(|(descriptor, _)| descriptor.size).sum()
    }
}

/// The first repository in which a registry has a blob. Held while it is brought there.
type Place = Arc<tokio::sync::Mutex<Option<Repository>>>;

/// Pushes images that share blobs. Use one for a whole family; images may be pushed at the same time.
#[derive(Clone)]
pub struct Pusher {
    client: Client,
    places: Arc<Mutex<HashMap<(Registry, Digest), Place>>>,
}

impl Pusher {
    /// A pusher that knows of no blobs yet.
    pub fn new(client: Client) -> Self {
        Self { client, places: Arc::default() }
    }

    /// Pushes an image: blobs at the same time, then the manifest, which makes it visible.
    pub async fn push(&self, image: ImagePush) -> Result<PushReport, Error> {
        let remote = Remote::from(&image.reference);
        let name = ManifestName::from(&image.reference);
        let digest = Digest::of(&image.manifest);
        let present = self.client.head_manifest(&remote, &name).await?;
        if present.is_some_and(|present| present.digest == digest) {
            self.remember(&remote, &image.blobs).await;
            return Ok(PushReport { digest, unchanged: true, blobs: Vec::new() });
        }
        let blobs = self.push_blobs(&remote, image.blobs).await?;
        self.client.put_manifest(&remote, &name, &image.media_type, image.manifest).await?;
        Ok(PushReport { digest, unchanged: false, blobs })
    }

    async fn push_blobs(
        &self,
        remote: &Remote,
        blobs: Vec<(Descriptor, Arc<dyn BlobSource>)>,
    ) -> Result<Vec<(Descriptor, Pushed)>, Error> {
        // Dropped on the first error, which ends the other transfers.
        let mut tasks = JoinSet::new();
        let mut results: Vec<Option<(Descriptor, Pushed)>> = vec![None; blobs.len()];
        for (position, (descriptor, source)) in blobs.into_iter().enumerate() {
            let (pusher, remote) = (self.clone(), remote.clone());
            tasks.spawn(async move {
                let pushed = pusher.push_blob(&remote, &descriptor, &source).await?;
                Ok::<_, Error>((position, (descriptor, pushed)))
            });
        }
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(pushed) => {
                    let (position, pushed) = pushed?;
                    results[position] = Some(pushed);
                }
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    async fn push_blob(
        &self,
        remote: &Remote,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
    ) -> Result<Pushed, Error> {
        let place = self.place(&remote.registry, descriptor.digest);
        let mut first = place.lock().await;
        match first.clone() {
            Some(repository) if repository == remote.repository => Ok(Pushed::AlreadyThere),
            Some(repository) => {
                // It is there: whoever else needs it can mount it at the same time.
                drop(first);
                self.client.push_blob(remote, descriptor, source, Some(&repository)).await
            }
            None => {
                let pushed = self.client.push_blob(remote, descriptor, source, None).await?;
                *first = Some(remote.repository.clone());
                Ok(pushed)
            }
        }
    }

    /// An image that is there has its blobs there.
    async fn remember(&self, remote: &Remote, blobs: &[(Descriptor, Arc<dyn BlobSource>)]) {
        for (descriptor, _) in blobs {
            let place = self.place(&remote.registry, descriptor.digest);
            // Whoever holds it is finding out for itself.
            if let Ok(mut first) = place.try_lock() {
                first.get_or_insert_with(|| remote.repository.clone());
            }
        }
    }

    fn place(&self, registry: &Registry, digest: Digest) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry((registry.clone(), digest)).or_default())
    }
}
