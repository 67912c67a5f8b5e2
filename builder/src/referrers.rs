//! What is said about images, kept beside them: artifacts of the OCI image specification 1.1 whose `subject` is the
//! image's manifest. In a layout they are named `registry/repository@digest`, so that they are no images, and the
//! registry over it lists them as referrers.

use std::collections::BTreeMap;

use content::Digest;
use oci::{Descriptor, Manifest, MediaType, MediaTypeExt as _, Reference};
use store::{Layout, StoreError};

/// What artifacts without a configuration have in its place.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const CREATED: &str = "org.opencontainers.image.created";

/// Something that is said about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its media type, which is also the type of the artifact.
    pub media_type: &'static str,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Stores a statement about an image, and gives the name and manifest under which the layout is to have it. The same
/// statement gives the same manifest.
pub fn store(
    layout: &Layout,
    image: &Reference,
    subject: &Descriptor,
    created: Option<&str>,
    statement: &Statement,
) -> Result<(Reference, Descriptor), StoreError> {
    let empty = Descriptor::of(MediaType::from(EMPTY_TYPE), EMPTY);
    let content = Descriptor::of(MediaType::from(statement.media_type), &statement.bytes);
    let mut manifest = Manifest::new(empty, vec![content]);
    manifest.artifact_type = Some(statement.media_type.to_owned());
    manifest.subject = Some(Descriptor::new(subject.media_type.clone(), subject.digest, subject.size));
    if let Some(created) = created {
        manifest.annotations = BTreeMap::from([(CREATED.to_owned(), created.to_owned())]);
    }
    let bytes = manifest.to_bytes();
    for bytes in [EMPTY, &statement.bytes, &bytes] {
        layout.put_bytes(bytes)?;
    }
    let mut descriptor = Descriptor::of(MediaType::ImageManifest, &bytes);
    descriptor.artifact_type = manifest.artifact_type;
    let name = image.clone().with_tag(None).with_digest(Some(descriptor.digest));
    Ok((name, descriptor))
}

/// An artifact of a layout that says something about an image.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// The name that it has in the layout.
    pub reference: Reference,
    /// Its manifest's descriptor.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Everything that a layout's artifacts say about images. What cannot be read says nothing.
pub fn all(layout: &Layout) -> Result<Vec<Referrer>, StoreError> {
    let named = layout.references()?.into_iter();
    let untagged = named.filter(|(name, entry)| name.tag().is_none() && entry.media_type.is_manifest());
    let read = |(reference, descriptor): (Reference, Descriptor)| match layout.read_document(&descriptor) {
        Ok(oci::Document::Manifest(manifest)) if manifest.subject.is_some() => {
            Some(Referrer { reference, descriptor, manifest })
        }
        _ => None,
    };
    Ok(untagged.filter_map(read).collect())
}

/// What is said about the image with this manifest, each statement once.
pub fn of(all: &[Referrer], manifest: Digest) -> Vec<Referrer> {
    let is_about =
        |referrer: &&Referrer| referrer.manifest.subject.as_ref().is_some_and(|subject| subject.digest == manifest);
    let mut found: Vec<Referrer> = all.iter().filter(is_about).cloned().collect();
    found.sort_by_key(|referrer| referrer.descriptor.digest);
    found
}

/// What an artifact with one file of this type says about an image.
pub fn statement(layout: &Layout, referrers: &[Referrer], media_type: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let wanted = |referrer: &&Referrer| referrer.manifest.artifact_type.as_deref() == Some(media_type);
    let Some(content) = referrers.iter().find(wanted).and_then(|found| found.manifest.layers.first()) else {
        return Ok(None);
    };
    layout.read_small(content.digest, LARGEST_STATEMENT).map(Some)
}

/// The largest statement that is read.
const LARGEST_STATEMENT: u64 = 64 << 20;
