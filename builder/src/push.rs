//! Carries images from the layout to a registry: each blob once for all of them, parents before their children.

use std::sync::Arc;

use oci::{Descriptor, Reference, Registry, Repository};
use registry_client::{Client, FileSource, ImagePush, Options, PushReport, Pushed, Pusher};
use store::{Layout, StoreError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::events::{Event, Observer};
use crate::referrers;

/// How many images are pushed at the same time; their blobs share the client's connections.
const IMAGES: usize = 4;

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
    /// The target has no room for the name.
    #[error("`{0}` cannot be a repository's name")]
    Name(String),
}

/// A client that tells `observer` what it sends and gets.
pub fn client(options: Options, observer: Arc<dyn Observer>) -> Result<Client, registry_client::Error> {
    Client::new(Options { events: Arc::new(Progress(observer)), ..options })
}

struct Progress(Arc<dyn Observer>);

impl registry_client::Events for Progress {
    fn event(&self, event: registry_client::Event<'_>) {
        match event {
            registry_client::Event::Sent { bytes, .. } => self.0.observe(Event::PushProgress { bytes }),
            registry_client::Event::Received { bytes, .. } => self.0.observe(Event::PullProgress { bytes }),
            registry_client::Event::Retrying { request, wait, cause, .. } => {
                let text = format!("{request}: {cause}; trying again in {:.1} s", wait.as_secs_f64());
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
    let totals = push_as_they_come(client, layout, waiting(images), observer).await?;
    push_statements(client, layout, images, totals).await
}

/// Pushes what is said about images that were pushed; adds to what that came to.
pub async fn push_statements(
    client: &Client,
    layout: &Layout,
    images: &[Outgoing],
    totals: PushTotals,
) -> Result<PushTotals, PushError> {
    // The observer and the totals count images, which these are not.
    let said = push_as_they_come(client, layout, waiting(&statements(layout, images)?), &()).await?;
    let pushed_bytes = totals.pushed_bytes + said.pushed_bytes;
    Ok(PushTotals { pushed_bytes, mounted_bytes: totals.mounted_bytes + said.mounted_bytes, ..totals })
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
    let of_image = |image: &Outgoing| {
        let name = image.target.clone().with_tag(None);
        referrers::of(&all, image.manifest.digest).into_iter().map(move |referrer| Outgoing {
            target: name.clone().with_digest(Some(referrer.descriptor.digest)),
            manifest: referrer.descriptor,
        })
    };
    let mut outgoing: Vec<Outgoing> = images.iter().flat_map(of_image).collect();
    outgoing.sort_by(|left, right| left.target.cmp(&right.target));
    outgoing.dedup_by(|left, right| left.target == right.target);
    Ok(outgoing)
}

/// Pushes images as they come, several at a time, until no more can come. Parents come before their children. The first
/// error ends it; what is under way is given up.
pub async fn push_as_they_come(
    client: &Client,
    layout: &Layout,
    mut images: mpsc::UnboundedReceiver<Outgoing>,
    observer: &dyn Observer,
) -> Result<PushTotals, PushError> {
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
    let manifest = layout.read_small(image.manifest.digest, oci::MAX_MANIFEST_SIZE)?;
    let document = layout.read_document(&image.manifest)?;
    let source = |descriptor: &Descriptor| -> Arc<dyn registry_client::BlobSource> {
        Arc::new(FileSource(layout.blob_path(descriptor.digest)))
    };
    let blobs = document.blobs().into_iter().map(|descriptor| (descriptor.clone(), source(descriptor))).collect();
    Ok(ImagePush {
        reference: image.target.clone(),
        media_type: image.manifest.media_type.clone(),
        manifest: manifest.into(),
        blobs,
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
