//! What a reference means: an image, or an index from which one platform or all of them are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use content::Digest;
use oci::{Descriptor, Document, ImageConfig, MAX_CONFIG_SIZE, Manifest, MediaTypeExt, Platform, Reference};

use crate::download::Download;
use crate::{Client, Error, FetchedManifest, ManifestName, Remote};

/// How many indexes may lie in one another.
const MAX_DEPTH: usize = 4;
/// How many manifests one reference may lead to.
const MAX_DOCUMENTS: usize = 4096;

/// Which images of an index are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// The one for this platform. An image that is alone must be for it too.
    One(Platform),
    /// All that it lists, and the index itself.
    All,
}

/// What a reference means in a registry, before any layer was fetched.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the registry has under the reference: the image, or an index that lists it.
    pub named: FetchedManifest,
    /// What was asked for, in the order in which it may be stored: images, then the indexes that list them. Of one
    /// platform it is the image alone.
    pub documents: Vec<FetchedManifest>,
    /// The configuration's bytes, as they are stored, and what they mean, if one platform of an image was asked for.
    pub config: Option<(Bytes, ImageConfig)>,
}

impl Resolved {
    /// What to call by the reference's name wherever the images go: the image, or the whole index.
    pub fn taken(&self) -> &FetchedManifest {
        self.documents.last().unwrap_or(&self.named)
    }

    /// The manifests of images and artifacts.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.documents.iter().filter_map(|fetched| match &fetched.document {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        })
    }
}

/// Platforms, as a sentence lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformList(Vec<Platform>);

impl fmt::Display for PlatformList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none that says what it is for");
        }
        let names: BTreeSet<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&names.into_iter().collect::<Vec<_>>().join(", "))
    }
}

impl Client {
    /// Finds out what a reference means: fetches the manifests that it leads to, and no layer.
    pub async fn resolve(&self, reference: &Reference, platforms: &Platforms) -> Result<Resolved, Error> {
        let remote = Remote::from(reference);
        let named = self.manifest_of(&remote, &ManifestName::from(reference)).await?;
        match platforms {
            Platforms::All => {
                let documents = self.everything(&remote, &named).await?;
                Ok(Resolved { named, documents, config: None })
            }
            Platforms::One(platform) => {
                let image = self.image_for(&remote, &named, platform, reference).await?;
                let config = self.config_for(&remote, &image, platform, reference).await?;
                Ok(Resolved { named, documents: vec![image], config })
            }
        }
    }

    /// Follows an index to the image of a platform.
    async fn image_for(
        &self,
        remote: &Remote,
        named: &FetchedManifest,
        platform: &Platform,
        reference: &Reference,
    ) -> Result<FetchedManifest, Error> {
        let mut current = named.clone();
        for _ in 0..MAX_DEPTH {
            let Document::Index(index) = &current.document else { return Ok(current) };
            let entry = index.select(platform).or_else(|| only_nested_index(&index.manifests));
            let Some(entry) = entry else {
                let there = index.manifests.iter().filter_map(|entry| entry.platform.clone());
                return Err(no_such_platform(reference, platform, there.filter(is_known)));
            };
            current = self.listed(remote, &entry.clone()).await?;
        }
        Err(Error::TooManyManifests { remote: remote.to_string(), limit: MAX_DOCUMENTS, depth: MAX_DEPTH })
    }

    /// The configuration of an image, which must be for the platform. An artifact has none.
    async fn config_for(
        &self,
        remote: &Remote,
        image: &FetchedManifest,
        platform: &Platform,
        reference: &Reference,
    ) -> Result<Option<(Bytes, ImageConfig)>, Error> {
        let Document::Manifest(manifest) = &image.document else { return Ok(None) };
        if !manifest.config.media_type.is_image_config() {
            return Ok(None);
        }
        let (bytes, config) = self.image_config(remote, &manifest.config).await?;
        let found = config.platform();
        // Old tools leave these empty.
        let says = !config.os.is_empty() && !config.architecture.is_empty();
        if says && !found.serves(platform) {
            return Err(no_such_platform(reference, platform, [found]));
        }
        Ok(Some((bytes, config)))
    }

    /// Fetches an image's configuration, verified.
    pub async fn image_config(&self, remote: &Remote, descriptor: &Descriptor) -> Result<(Bytes, ImageConfig), Error> {
        let invalid = |source| Error::Document { what: format!("{} in {remote}", descriptor.digest), source };
        if descriptor.size > MAX_CONFIG_SIZE {
            let (size, limit) = (descriptor.size, MAX_CONFIG_SIZE);
            return Err(invalid(oci::DocumentError::TooLarge { size, limit }));
        }
        let bytes = loop {
            let error = match self.pull_blob(remote, descriptor, Vec::new()).await {
                Ok(bytes) => break bytes,
                Err(error) => error,
            };
            // One mirror less is asked each time.
            match Download::new(self, remote, descriptor).mirror_to_blame(&error) {
                Some(mirror) => self.transport.distrust(&mirror, &error),
                None => return Err(error),
            }
        };
        let config = ImageConfig::parse(&bytes).map_err(invalid)?;
        Ok((bytes.into(), config))
    }

    /// Everything that a document lists, and the document itself, children first.
    pub(crate) async fn everything(
        &self,
        remote: &Remote,
        named: &FetchedManifest,
    ) -> Result<Vec<FetchedManifest>, Error> {
        let mut fetched = BTreeMap::from([(named.descriptor.digest, named.clone())]);
        let mut level = vec![named.clone()];
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for entry in level.iter().flat_map(|parent| parent.document.manifests()) {
                if !fetched.contains_key(&entry.digest) && fetched.len() < MAX_DOCUMENTS {
                    let child = self.listed(remote, entry).await?;
                    fetched.insert(entry.digest, child.clone());
                    next.push(child);
                }
            }
            level = next;
        }
        if fetched.len() >= MAX_DOCUMENTS || level.iter().any(|last| !last.document.manifests().is_empty()) {
            return Err(Error::TooManyManifests { remote: remote.to_string(), limit: MAX_DOCUMENTS, depth: MAX_DEPTH });
        }
        let mut ordered = Vec::with_capacity(fetched.len());
        children_first(named.descriptor.digest, &mut fetched, &mut ordered);
        Ok(ordered)
    }

    /// Fetches what an index lists; it must be there.
    async fn listed(&self, remote: &Remote, entry: &Descriptor) -> Result<FetchedManifest, Error> {
        let fetched = self.manifest_of(remote, &ManifestName::Digest(entry.digest)).await?;
        let (expected, found) = (entry.size, fetched.descriptor.size);
        if found != expected {
            let (registry, digest) = (remote.registry.clone(), entry.digest);
            return Err(Error::WrongSize { registry, digest, expected, found });
        }
        Ok(fetched)
    }
}

/// The one index in an index of one: some tools wrap what they push.
fn only_nested_index(manifests: &[Descriptor]) -> Option<&Descriptor> {
    match manifests {
        [only] if only.media_type.is_index() => Some(only),
        _ => None,
    }
}

/// Attestations are listed for the platform `unknown/unknown`.
fn is_known(platform: &Platform) -> bool {
    platform.os != "unknown"
}

fn no_such_platform(reference: &Reference, wanted: &Platform, there: impl IntoIterator<Item = Platform>) -> Error {
    let there = PlatformList(there.into_iter().collect());
    Error::Platform { reference: Box::new(reference.clone()), wanted: Box::new(wanted.clone()), there }
}

/// Moves a document after all that it lists. A digest cannot lead back to itself, so this ends.
fn children_first(digest: Digest, waiting: &mut BTreeMap<Digest, FetchedManifest>, ordered: &mut Vec<FetchedManifest>) {
    let Some(document) = waiting.remove(&digest) else { return };
    for entry in document.document.manifests() {
        children_first(entry.digest, waiting, ordered);
    }
    ordered.push(document);
}
