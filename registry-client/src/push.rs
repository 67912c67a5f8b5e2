//! Whole images, and families of them: each blob is sent to a registry once, and taken from its first repository for
//! all the others.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use content::Digest;
use oci::{Descriptor, MediaType, Reference, Registry, Repository};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::manifests::ManifestName;
use crate::{BlobSource, Client, Error, Pushed, Remote};

/// An image to push, or an index with all that it lists.
pub struct ImagePush {
    /// Where to, and under which tag or digest.
    pub reference: Reference,
    /// The manifest's kind.
    pub media_type: MediaType,
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The blobs that the manifest needs.
    pub blobs: Vec<(Descriptor, Arc<dyn BlobSource>)>,
    /// The manifests that an index needs, by digest and in an order in which they may be stored.
    pub lists: Vec<ImagePush>,
}

/// What a push came to.
#[derive(Clone, Debug)]
pub struct PushReport {
    /// The manifest's digest.
    pub digest: Digest,
    /// Whether the registry had the same manifest under the same name, so that nothing was done.
    pub unchanged: bool,
    /// How each blob got there, in the order of the image's blobs; those of listed images first. Empty if nothing was
    /// done.
    pub blobs: Vec<(Descriptor, Pushed)>,
}

impl PushReport {
    /// How many bytes of blobs got there in this way.
    pub fn bytes(&self, how: Pushed) -> u64 {
        self.blobs.iter().filter(|(_, pushed)| *pushed == how).map(|(descriptor, _)| descriptor.size).sum()
    }
}

/// The first repository in which a registry has a blob.
#[derive(Clone)]
struct Home {
    repository: Repository,
    /// The push that brought it there. A push waits for older ones only, so that no two wait for each other.
    push: u64,
    /// Whether the image that it belongs to is there.
    named: watch::Receiver<bool>,
}

/// Held while a blob is brought to its home.
type Place = Arc<tokio::sync::Mutex<Option<Home>>>;

/// One image on its way.
#[derive(Clone)]
struct Way {
    remote: Remote,
    push: u64,
    named: watch::Receiver<bool>,
}

impl Way {
    fn home(&self) -> Home {
        Home { repository: self.remote.repository.clone(), push: self.push, named: self.named.clone() }
    }
}

/// Pushes images that share blobs. Use one for a whole family; images may be pushed at the same time.
#[derive(Clone)]
pub struct Pusher {
    client: Client,
    places: Arc<Mutex<HashMap<(Registry, Digest), Place>>>,
    /// Registries that do not mount what an image of theirs has either.
    impatient: Arc<Mutex<HashSet<Registry>>>,
    pushes: Arc<AtomicU64>,
}

impl Pusher {
    /// A pusher that knows of no blobs yet.
    pub fn new(client: Client) -> Self {
        Self { client, places: Arc::default(), impatient: Arc::default(), pushes: Arc::default() }
    }

    /// Takes note that a repository has a blob, which others of its registry may take from there.
    pub fn known(&self, remote: &Remote, digest: Digest) {
        let place = self.place(&remote.registry, digest);
        // Whoever holds it is finding out for itself.
        if let Ok(mut home) = place.try_lock() {
            let named = watch::channel(true).1;
            home.get_or_insert_with(|| Home { repository: remote.repository.clone(), push: 0, named });
        }
    }

    /// Pushes an image: what it lists, its blobs at the same time, then the manifest, which makes it visible.
    pub async fn push(&self, image: ImagePush) -> Result<PushReport, Error> {
        let remote = Remote::from(&image.reference);
        let name = ManifestName::from(&image.reference);
        let digest = name.of(&image.manifest);
        let present = self.client.head_manifest(&remote, &name).await?;
        if present.is_some_and(|present| present.digest == digest) {
            // An image that is there has its blobs there.
            let listed = image.lists.iter().flat_map(|listed| &listed.blobs);
            image.blobs.iter().chain(listed).for_each(|(descriptor, _)| self.known(&remote, descriptor.digest));
            return Ok(PushReport { digest, unchanged: true, blobs: Vec::new() });
        }
        let mut blobs = Vec::new();
        for listed in image.lists {
            blobs.extend(Box::pin(self.push(listed)).await?.blobs);
        }
        // Dropped unsent, it tells those who wait for this image that it does not come.
        let (tell, named) = watch::channel(false);
        let push = self.pushes.fetch_add(1, Ordering::Relaxed) + 1;
        let way = Way { remote, push, named };
        blobs.extend(self.push_blobs(&way, image.blobs).await?);
        self.client.put_manifest(&way.remote, &name, &image.media_type, image.manifest).await?;
        tell.send_replace(true);
        Ok(PushReport { digest, unchanged: false, blobs })
    }

    async fn push_blobs(
        &self,
        way: &Way,
        blobs: Vec<(Descriptor, Arc<dyn BlobSource>)>,
    ) -> Result<Vec<(Descriptor, Pushed)>, Error> {
        // Dropped on the first error, which ends the other transfers.
        let mut tasks = JoinSet::new();
        let mut results: Vec<Option<(Descriptor, Pushed)>> = vec![None; blobs.len()];
        for (position, (descriptor, source)) in blobs.into_iter().enumerate() {
            let (pusher, way) = (self.clone(), way.clone());
            tasks.spawn(async move {
                let pushed = pusher.push_blob(&way, &descriptor, &source).await?;
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
        way: &Way,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
    ) -> Result<Pushed, Error> {
        let place = self.place(&way.remote.registry, descriptor.digest);
        let mut first = place.lock().await;
        match first.clone() {
            Some(home) if home.repository == way.remote.repository => Ok(Pushed::AlreadyThere),
            Some(home) => {
                // It is there: whoever else needs it can mount it at the same time.
                drop(first);
                if self.mount(way, descriptor, home).await? {
                    return Ok(self.client.finished(descriptor, Pushed::Mounted));
                }
                self.client.push_blob(&way.remote, descriptor, source, None).await
            }
            None => {
                let pushed = self.client.push_blob(&way.remote, descriptor, source, None).await?;
                *first = Some(way.home());
                Ok(pushed)
            }
        }
    }

    /// Takes a blob from its home. Some registries share a blob only once an image of theirs has it: then it is worth
    /// waiting for that image, unless that was in vain before.
    async fn mount(&self, way: &Way, descriptor: &Descriptor, home: Home) -> Result<bool, Error> {
        let was_named = *home.named.borrow();
        if self.client.mount_blob(&way.remote, descriptor, &home.repository).await? {
            return Ok(true);
        }
        if was_named || home.push >= way.push || self.impatient().contains(&way.remote.registry) {
            return Ok(false);
        }
        let Home { repository, mut named, .. } = home;
        if named.wait_for(|named| *named).await.is_err() {
            return Ok(false);
        }
        let mounted = self.client.mount_blob(&way.remote, descriptor, &repository).await?;
        if !mounted {
            self.impatient().insert(way.remote.registry.clone());
        }
        Ok(mounted)
    }

    fn impatient(&self) -> MutexGuard<'_, HashSet<Registry>> {
        self.impatient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, registry: &Registry, digest: Digest) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry((registry.clone(), digest)).or_default())
    }
}
