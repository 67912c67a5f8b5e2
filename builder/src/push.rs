//! Carries images from the layout to a registry: each blob once for all of them, parents before their children.

use std::collections::BTreeSet;
use std::sync::Arc;

use content::{Digest, FramedHasher};
use oci::{Descriptor, MediaTypeExt as _, Reference, Registry, Repository};
use registry_client::{
    Client, FileSource, ImagePush, Options, PushReport, Pushed, Pusher, Remote, UploadNote, UploadNotes,
};
use store::{Layout, Note, StoreError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::events::{Event, Observer};
use crate::referrers::{self, Referrer};

/// How many images are pushed at the same time; their blobs share the client's connections.
const IMAGES: usize = 4;

/// How many indexes may lie in one another.
const MAX_DEPTH: usize = 4;

/// An image to push, and where to.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The name it gets.
    pub target: Reference,
    /// Its manifest in the layout.
    pub manifest: Descriptor,
}

/// What a push came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushTotals {
    /// Images whose manifest and tag were sent.
    pub pushed: usize,
    /// Images that the registry had.
    pub unchanged: usize,
    /// Manifests that say something about images, and are in the registry with them.
    pub statements: usize,
    /// Bytes of blobs sent.
    pub pushed_bytes: u64,
    /// Bytes of blobs that the registry took from another of its repositories.
    pub mounted_bytes: u64,
}

/// Why images could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry, or the way to it.
    #[error("cannot push {reference}")]
    Registry {
        /// The image.
        reference: Box<Reference>,
        /// Why.
        source: Box<registry_client::Error>,
    },
    /// The layout.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An index lists more than the layout has.
    #[error("cannot push {reference}: the layout does not have all that it lists: {platform} is missing")]
    Incomplete {
        /// The index.
        reference: Box<Reference>,
        /// The platform or digest of what is missing.
        platform: String,
    },
    /// The target has no room for the name.
    #[error("`{0}` cannot be a repository's name")]
    Name(String),
}

/// A client that tells `observer` what it sends and gets.
pub fn client(options: Options, observer: Arc<dyn Observer>) -> Result<Client, registry_client::Error> {
    Client::new(Options { events: Arc::new(Progress(observer)), ..options })
}

/// The same for pushes from a layout, in which it is kept how far they have come: the next process goes on there.
pub fn client_of(
    layout: &Arc<Layout>,
    options: Options,
    observer: Arc<dyn Observer>,
) -> Result<Client, registry_client::Error> {
    client(Options { notes: Some(Arc::new(LayoutNotes(Arc::clone(layout)))), ..options }, observer)
}

/// A layout as the place where it is kept how far its pushes have come.
struct LayoutNotes(Arc<Layout>);

struct LayoutNote(Note);

impl UploadNotes for LayoutNotes {
    fn take(&self, remote: &Remote, digest: Digest) -> Option<Box<dyn UploadNote>> {
        let name = FramedHasher::new("upload")
            .field("registry", remote.registry.as_str())
            .field("repository", remote.repository.as_str())
            .field("digest", digest.to_string());
        Some(Box::new(LayoutNote(self.0.note(name.finish())?)))
    }
}

impl UploadNote for LayoutNote {
    fn read(&self) -> Option<String> {
        self.0.read()
    }

    fn write(&self, address: &str) {
        self.0.write(address);
    }

    fn remove(&self) {
        self.0.clear();
    }
}

struct Progress(Arc<dyn Observer>);

impl registry_client::Events for Progress {
    fn event(&self, event: registry_client::Event<'_>) {
        match event {
            registry_client::Event::Sent { bytes, .. } => self.0.observe(Event::PushProgress { bytes }),
            registry_client::Event::Received { bytes, .. } => self.0.observe(Event::PullProgress { bytes }),
            registry_client::Event::Retrying { wait, cause, .. } => {
                let text = format!("{cause}; trying again in {:.1} s", wait.as_secs_f64());
                self.0.observe(Event::Warning(&text));
            }
            _ => {}
        }
    }
}

/// The name of an image in another registry: `registry` may be followed by a path, `registry.example/team`.
pub fn retarget(reference: &Reference, registry: &str) -> Result<Reference, PushError> {
    let invalid = |_| PushError::Name(format!("{registry}/{}", reference.repository()));
    let (host, prefix) = registry.trim_end_matches('/').split_once('/').map_or((registry, None), |(h, p)| (h, Some(p)));
    let host: Registry = host.trim_end_matches('/').parse().map_err(invalid)?;
    let moved = reference.clone().with_registry(host);
    let Some(prefix) = prefix else { return Ok(moved) };
    let prefix: Repository = prefix.parse().map_err(invalid)?;
    let repository = moved.repository().under(&prefix).map_err(invalid)?;
    Ok(moved.with_repository(repository))
}

/// Pushes images in this order, several at a time, and then what the layout's artifacts say about them. The first error
/// ends it; what is under way is given up.
pub async fn push(
    client: &Client,
    layout: &Layout,
    images: &[Outgoing],
    observer: &dyn Observer,
) -> Result<PushTotals, PushError> {
    let totals = push_alone(client, layout, images, observer).await?;
    push_statements(client, layout, images, totals).await
}

/// Pushes images without what is said about them.
pub(crate) async fn push_alone(
    client: &Client,
    layout: &Layout,
    images: &[Outgoing],
    observer: &dyn Observer,
) -> Result<PushTotals, PushError> {
    push_as_they_come(client, layout, waiting(images), observer).await
}

/// Pushes what is said about images that were pushed; adds to what that came to.
pub async fn push_statements(
    client: &Client,
    layout: &Layout,
    images: &[Outgoing],
    totals: PushTotals,
) -> Result<PushTotals, PushError> {
    // The observer and the totals count images, which these are not.
    let statements = statements(layout, images)?;
    let said = push_as_they_come(client, layout, waiting(&statements), &()).await?;
    let pushed_bytes = totals.pushed_bytes + said.pushed_bytes;
    let mounted_bytes = totals.mounted_bytes + said.mounted_bytes;
    Ok(PushTotals { pushed_bytes, mounted_bytes, statements: statements.len(), ..totals })
}

/// Images of which all are there.
fn waiting(images: &[Outgoing]) -> mpsc::UnboundedReceiver<Outgoing> {
    let (sender, receiver) = mpsc::unbounded_channel();
    images.iter().for_each(|image| sender.send(image.clone()).expect("the receiver is here"));
    receiver
}

/// Where what is said about images goes: into the repository of each.
fn statements(layout: &Layout, images: &[Outgoing]) -> Result<Vec<Outgoing>, StoreError> {
    let all = referrers::all(layout)?;
    let mut outgoing = Vec::new();
    for image in images {
        let name = image.target.clone().with_tag(None);
        for referrer in said_by(&all, layout, &image.manifest)? {
            let target = name.clone().with_digest(Some(referrer.descriptor.digest));
            outgoing.push(Outgoing { target, manifest: referrer.descriptor });
        }
    }
    outgoing.sort_by(|left, right| left.target.cmp(&right.target));
    outgoing.dedup_by(|left, right| left.target == right.target);
    Ok(outgoing)
}

/// What a layout's artifacts say about an image or an index, and about what that lists.
pub(crate) fn said_about(layout: &Layout, image: &Descriptor) -> Result<Vec<Referrer>, StoreError> {
    said_by(&referrers::all(layout)?, layout, image)
}

fn said_by(all: &[Referrer], layout: &Layout, image: &Descriptor) -> Result<Vec<Referrer>, StoreError> {
    let listed = layout.manifests_at(image)?.into_iter().map(|(descriptor, _)| descriptor.digest);
    let subjects: BTreeSet<Digest> = listed.chain([image.digest]).collect();
    Ok(subjects.into_iter().flat_map(|subject| referrers::of(all, subject)).collect())
}

/// Pushes images as they come, several at a time, until no more can come. Parents come before their children. The first
/// error ends it; what is under way is given up.
pub async fn push_as_they_come(
    client: &Client,
    layout: &Layout,
    mut images: mpsc::UnboundedReceiver<Outgoing>,
    observer: &dyn Observer,
) -> Result<PushTotals, PushError> {
    // Another build may replace an image while it is on its way; its blobs stay until it has arrived.
    let _lease = layout.lease();
    let pusher = Pusher::new(client.clone());
    let places = Arc::new(Semaphore::new(IMAGES));
    let mut running = JoinSet::new();
    let mut totals = PushTotals::default();
    let mut more = true;
    loop {
        tokio::select! {
            image = images.recv(), if more => match image {
                Some(image) => {
                    let (push, pusher, places) = (prepare(layout, &image)?, pusher.clone(), Arc::clone(&places));
                    running.spawn(async move {
                        let _place = places.acquire_owned().await.expect("the semaphore is never closed");
                        (image.target, pusher.push(push).await)
                    });
                }
                None => more = false,
            },
            Some(done) = running.join_next() => {
                let (reference, pushed) =
                    done.expect("a push does not panic, and is not cancelled before the set is dropped");
                let failed = |source| PushError::Registry { reference: Box::new(reference.clone()), source };
                let report = pushed.map_err(|error| failed(Box::new(error)))?;
                totals.add(&report);
                let (text, already_there) = (reference.to_string(), report.unchanged);
                observer.observe(Event::ImagePushed { reference: &text, already_there });
            }
            else => return Ok(totals),
        }
    }
}

impl PushTotals {
    fn add(&mut self, report: &PushReport) {
        if report.unchanged {
            self.unchanged += 1;
        } else {
            self.pushed += 1;
        }
        self.pushed_bytes += report.bytes(Pushed::Uploaded);
        self.mounted_bytes += report.bytes(Pushed::Mounted);
    }
}

fn prepare(layout: &Layout, image: &Outgoing) -> Result<ImagePush, PushError> {
    prepared(layout, image, MAX_DEPTH)
}

/// An image, or an index and before it all that it lists.
fn prepared(layout: &Layout, image: &Outgoing, depth: usize) -> Result<ImagePush, PushError> {
    let manifest = layout.read_small(image.manifest.digest, oci::MAX_MANIFEST_SIZE)?;
    let document = layout.read_document(&image.manifest)?;
    let mut lists = Vec::new();
    for entry in document.manifests() {
        let incomplete = || PushError::Incomplete {
            reference: Box::new(image.target.clone()),
            platform: entry.platform.as_ref().map_or_else(|| entry.digest.to_string(), ToString::to_string),
        };
        if depth == 0 || layout.blob_size(entry.digest).is_none() {
            return Err(incomplete());
        }
        let target = image.target.clone().with_tag(None).with_digest(Some(entry.digest));
        lists.push(prepared(layout, &Outgoing { target, manifest: entry.clone() }, depth - 1)?);
    }
    let source = |descriptor: &Descriptor| -> Arc<dyn registry_client::BlobSource> {
        layout.rely_on(descriptor.digest);
        Arc::new(FileSource(layout.blob_path(descriptor.digest)))
    };
    // A layer that may not be passed on stays where its addresses say, if it is not here.
    let is_sent = |descriptor: &&Descriptor| {
        !descriptor.media_type.is_foreign_layer() || layout.blob_size(descriptor.digest).is_some()
    };
    let blobs = document.blobs().into_iter().filter(is_sent);
    Ok(ImagePush {
        reference: image.target.clone(),
        media_type: image.manifest.media_type.clone(),
        manifest: manifest.into(),
        blobs: blobs.map(|descriptor| (descriptor.clone(), source(descriptor))).collect(),
        lists,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_move_to_another_registry_and_below_a_prefix() {
        let reference: Reference = "localhost:5100/redis:v1".parse().unwrap();
        for (registry, expected) in [
            ("registry.example", "registry.example/redis:v1"),
            ("registry.example:5000/team/a", "registry.example:5000/team/a/redis:v1"),
            ("localhost:5101/", "localhost:5101/redis:v1"),
        ] {
            assert_eq!(retarget(&reference, registry).unwrap().to_string(), expected);
        }
        assert!(retarget(&reference, "Bad Host").is_err());
    }
}
