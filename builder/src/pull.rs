//! Brings images from a registry into the layout: their bytes as they came, under the name that was asked for.

use std::io::{self, Write};
use std::sync::Arc;

use content::Hash;
use oci::{Descriptor, Reference};
use registry_client::{Client, Incoming, Platforms, PullReport, Sink};
use store::{BlobWriter, Layout, PartialBlob, StoreError};

use crate::events::{Event, Observer};

/// A layout as the place where pulled content goes. Every blob is verified again as it is written.
pub struct LayoutSink(pub Arc<Layout>);

/// Blobs below this size are fetched again after an interruption, and cost no file that might stay behind.
const WORTH_KEEPING: u64 = 1 << 20;

/// A small blob on its way into a layout, or one that somebody else is fetching too.
struct IncomingBlob {
    writer: BlobWriter,
    expected: Descriptor,
}

/// A blob of which, after an interruption, what has come stays.
struct IncomingPart {
    part: PartialBlob,
    size: u64,
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry, or the way to it, or the layout as a place for blobs.
    #[error("cannot pull {reference}")]
    Registry {
        /// The image.
        reference: Box<Reference>,
        /// Why.
        source: Box<registry_client::Error>,
    },
    /// The layout.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image, or all images of an index, in the layout.
#[derive(Clone, Debug)]
pub struct PulledImage {
    /// Its name in the layout.
    pub reference: Reference,
    /// What that names.
    pub descriptor: Descriptor,
    /// What the registry has under the name: the same, or the index that the image was chosen from.
    pub named: Descriptor,
    /// Bytes of blobs that were fetched.
    pub fetched_bytes: u64,
    /// Bytes of blobs that were there.
    pub present_bytes: u64,
}

impl Sink for LayoutSink {
    fn has(&self, descriptor: &Descriptor) -> bool {
        self.0.has_blob(descriptor.digest, descriptor.size)
    }

    fn begin(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Incoming>> {
        if descriptor.size >= WORTH_KEEPING
            && let Some(part) = self.0.partial_blob(descriptor.digest)
        {
            return Ok(Box::new(IncomingPart { part, size: descriptor.size }));
        }
        let writer = self.0.blob_writer().map_err(io::Error::other)?;
        Ok(Box::new(IncomingBlob { writer, expected: descriptor.clone() }))
    }
}

impl Write for IncomingBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Incoming for IncomingBlob {
    fn commit(self: Box<Self>) -> io::Result<()> {
        let Self { writer, expected } = *self;
        writer.commit_expecting(expected.digest, expected.size).map_err(io::Error::other)
    }
}

impl Write for IncomingPart {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.flush()
    }
}

impl Incoming for IncomingPart {
    fn so_far(&self) -> Option<(Hash, u64)> {
        Some(self.part.so_far())
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        let Self { part, size } = *self;
        part.commit(size).map_err(io::Error::other)
    }

    fn discard(self: Box<Self>) {
        self.part.discard();
    }
}

/// Pulls an image, or all of an index, into the layout, and names it there. What the layout has is not fetched.
pub async fn pull(
    client: &Client,
    layout: &Arc<Layout>,
    reference: &Reference,
    platforms: &Platforms,
    observer: &dyn Observer,
) -> Result<PulledImage, PullError> {
    // Nothing names what arrives until all of it is here.
    let _lease = layout.lease();
    let sink: Arc<dyn Sink> = Arc::new(LayoutSink(Arc::clone(layout)));
    let report = client.pull(reference, platforms, sink).await.map_err(|source| failed(reference, source))?;
    let pulled = PulledImage::new(reference, &report);
    layout.set_references(&[(pulled.reference.clone(), pulled.descriptor.clone())])?;
    let text = pulled.reference.to_string();
    observer.observe(Event::ImagePulled { reference: &text, already_there: pulled.fetched_bytes == 0 });
    Ok(pulled)
}

impl PulledImage {
    fn new(reference: &Reference, report: &PullReport) -> Self {
        let descriptor = report.resolved.taken().descriptor.clone();
        Self {
            reference: name_in_layout(reference, &descriptor),
            descriptor,
            named: report.resolved.named.descriptor.clone(),
            fetched_bytes: report.fetched_bytes(),
            present_bytes: report.present_bytes(),
        }
    }
}

/// The tag that was asked for, `latest` if none was. What was asked for by digest alone is named by the digest of what
/// is there now, which is not the one asked for if that was an index and one image of it was taken.
pub(crate) fn name_in_layout(reference: &Reference, taken: &Descriptor) -> Reference {
    match (reference.tag(), reference.digest()) {
        (Some(_), _) => reference.clone().with_digest(None),
        (None, Some(_)) => reference.clone().with_digest(Some(taken.digest)),
        (None, None) => reference.clone().with_tag(Some(oci::Tag::latest())),
    }
}

fn failed(reference: &Reference, source: registry_client::Error) -> PullError {
    PullError::Registry { reference: Box::new(reference.clone()), source: Box::new(source) }
}
