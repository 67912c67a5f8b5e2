//! Where bases are: in the layout by name or digest, in another layout, in a registry.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use content::{Digest, FramedHasher};
use layer::compress::decompress;
use layer::entry::Kind;
use oci::{Descriptor, Document, Manifest, MediaTypeExt, Platform, REF_NAME, Reference};
use serde::{Deserialize, Serialize};
use store::{Area, Layout};

use super::{Base, BaseError, Bases, Fetched, Reach};
use crate::layers::Bounded;

/// What stands before the directory of another layout.
const LAYOUT_PREFIX: &str = "oci:";

/// What stands before the file of another layout that is a tar.
const ARCHIVE_PREFIX: &str = "oci-archive:";

/// The tag of a name that has none.
const USUAL_TAG: &str = "latest";

/// What a name stood for when it was pulled.
#[derive(Serialize, Deserialize)]
struct Pulled {
    named: Digest,
    manifest: Descriptor,
}

/// What a name stands for, and a document that leads to its image.
struct Named {
    named: Digest,
    document: Descriptor,
}

/// An image that is here.
struct Located {
    /// What the name stands for: a manifest or an index.
    named: Digest,
    /// The manifest for the platform.
    descriptor: Descriptor,
    manifest: Manifest,
}

impl Bases<'_> {
    pub(super) fn look_for(&self, written: &str, platform: &Platform, reach: Reach) -> Result<Base, BaseError> {
        // What is brought here is named once all of it is here.
        let _lease = self.layout.lease();
        let found = if let Some(place) = written.strip_prefix(LAYOUT_PREFIX) {
            let (directory, name) = self.place(place);
            self.in_other_layout(written, &directory, name, platform)?
        } else if let Some(place) = written.strip_prefix(ARCHIVE_PREFIX) {
            let (file, name) = self.place(place);
            let scratch = self.cache.scratch_dir()?;
            unpack(&file, scratch.path()).map_err(|source| BaseError::Archive { archive: file, source })?;
            self.in_other_layout(written, scratch.path(), name, platform)?
        } else {
            self.by_reference(written, platform, reach)?
        };
        self.describe(written, found.named, found.descriptor, &found.manifest, platform)
    }

    fn by_reference(&self, written: &str, platform: &Platform, reach: Reach) -> Result<Located, BaseError> {
        let name = |source| BaseError::Name { name: written.to_owned(), source: Box::new(source) };
        let is_short = written.parse::<Reference>().is_err();
        let mut reference = Reference::parse_familiar(written).map_err(name)?;
        if let Some(pinned) = self.pins.get(&(written.to_owned(), platform.clone())) {
            reference = reference.with_digest(Some(pinned.digest));
        } else if reference.tag().is_none() && reference.digest().is_none() {
            reference = reference.with_tag(Some(USUAL_TAG.parse().expect("a constant tag is valid")));
        }
        let here = self.here(written, &reference, is_short, platform)?;
        // A digest always stands for the same; a tag may have moved, but only a registry would know.
        let asks = self.refresh && reference.digest().is_none() && reach != Reach::Local && self.puller.is_some();
        if let Some(here) = here
            && !asks
            && let Some(found) = self.whole(written, here, platform)?
        {
            return Ok(found);
        }
        let Some(puller) = self.puller.filter(|_| reach != Reach::Local) else {
            return Err(BaseError::NotHere { name: written.to_owned() });
        };
        let failed = |source| BaseError::Pull { name: written.to_owned(), source };
        if reach == Reach::AnywhereAtOnce {
            puller.reach(&reference, platform).map_err(failed)?;
        }
        let Fetched { named, manifest } = puller.pull(&reference, platform).map_err(failed)?;
        // By digest alone: it is nothing that this layout was asked to offer.
        let pinned = reference.clone().with_tag(None).with_digest(Some(manifest.digest));
        self.layout.set_references(&[(pinned, manifest.clone())])?;
        let pulled = Pulled { named, manifest: manifest.clone() };
        self.cache.put_json(Area::Steps, pulled_key(&reference, platform), &pulled)?;
        let found = self.whole(written, Named { named, document: manifest }, platform)?;
        found.ok_or_else(|| BaseError::NotHere { name: written.to_owned() })
    }

    /// What a name stands for, if that can be known without a registry.
    fn here(
        &self,
        written: &str,
        reference: &Reference,
        is_short: bool,
        platform: &Platform,
    ) -> Result<Option<Named>, BaseError> {
        let found = match reference.digest() {
            Some(digest) => self.by_digest(digest)?,
            None => self.layout.find(reference)?,
        };
        let found = match found {
            None if is_short && reference.digest().is_none() => self.by_short_name(written, reference)?,
            found => found,
        };
        if let Some(document) = found {
            return Ok(Some(Named { named: document.digest, document }));
        }
        let pulled = self.cache.get_json::<Pulled>(Area::Steps, pulled_key(reference, platform))?;
        Ok(pulled.map(|pulled| Named { named: pulled.named, document: pulled.manifest }))
    }

    fn by_digest(&self, digest: Digest) -> Result<Option<Descriptor>, BaseError> {
        let Ok(bytes) = self.layout.read_small(digest, oci::MAX_MANIFEST_SIZE) else { return Ok(None) };
        let Ok(document) = Document::parse(&bytes, None) else { return Ok(None) };
        Ok(Some(Descriptor::new(document.media_type(), digest, bytes.len() as u64)))
    }

    /// `debian:12` is an image of this layout whatever its registry, if exactly one is called so.
    fn by_short_name(&self, written: &str, reference: &Reference) -> Result<Option<Descriptor>, BaseError> {
        let path = written.split(['@', ':']).next().unwrap_or_default();
        let mut fitting: Vec<(Reference, Descriptor)> = self.layout.references()?;
        fitting.retain(|(known, _)| known.repository().as_str() == path && known.tag() == reference.tag());
        let first = fitting.first().map(|(_, descriptor)| descriptor.clone());
        if fitting.iter().any(|(_, descriptor)| Some(descriptor.digest) != first.as_ref().map(|first| first.digest)) {
            let found = fitting.iter().map(|(known, _)| known.to_string()).collect();
            return Err(BaseError::Ambiguous { name: written.to_owned(), found });
        }
        Ok(first)
    }

    /// The image for the platform, if all of it is in the layout.
    fn whole(&self, written: &str, name: Named, platform: &Platform) -> Result<Option<Located>, BaseError> {
        let Named { named, document } = name;
        let found = manifest_of(self.layout, written, &document, platform)?;
        let Some((descriptor, manifest)) = found else { return Ok(None) };
        let mut blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        let is_whole = blobs.all(|blob| self.layout.has_blob(blob.digest, blob.size));
        Ok(is_whole.then_some(Located { named, descriptor, manifest }))
    }

    /// `PATH[:NAME]`.
    fn place<'p>(&self, place: &'p str) -> (PathBuf, Option<&'p str>) {
        let whole = self.directory.join(place);
        match place.split_once(':') {
            Some((path, name)) if !whole.exists() => (self.directory.join(path), Some(name)),
            _ => (whole, None),
        }
    }

    /// An image of another layout, which is copied into this one.
    fn in_other_layout(
        &self,
        written: &str,
        directory: &Path,
        name: Option<&str>,
        platform: &Platform,
    ) -> Result<Located, BaseError> {
        let other = Layout::open(directory)?;
        let top = entry_of(&other, directory, name)?;
        let missing = || BaseError::NotThere {
            layout: directory.to_path_buf(),
            name: name.unwrap_or(written).to_owned(),
            found: vec!["a part of it".to_owned()],
        };
        let (descriptor, manifest) = manifest_of(&other, written, &top, platform)?.ok_or_else(missing)?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers).chain([&descriptor]) {
            self.layout.put_file_link(&other.blob_path(blob.digest), blob.digest, blob.size)?;
        }
        Ok(Located { named: top.digest, descriptor, manifest })
    }
}

/// Unpacks a layout that is a tar, and of it only what belongs to a layout. Blobs are checked when they are taken.
fn unpack(archive: &Path, directory: &Path) -> io::Result<()> {
    let stored = File::open(archive)?;
    let tar = Bounded::layer(decompress(&stored)?, stored.metadata()?.len());
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    layer::read::entries(tar, |entry, content| {
        let path = entry.path.to_string();
        let is_blob = path.strip_prefix("/blobs/sha256/").is_some_and(|name| Digest::from_hex(name).is_ok());
        let belongs = is_blob || matches!(path.as_str(), "/oci-layout" | "/index.json");
        match (&entry.kind, belongs) {
            (Kind::File { .. }, true) => {
                io::copy(content, &mut File::create(directory.join(path.trim_start_matches('/')))?).map(drop)
            }
            _ => Ok(()),
        }
    })
}

fn pulled_key(reference: &Reference, platform: &Platform) -> Digest {
    let (reference, platform) = (reference.to_string(), platform.to_string());
    FramedHasher::new("pulled 1").field("reference", reference).field("platform", platform).finish()
}

/// The entry of a layout that a name means: its own, or the only one. Other tools write bare tags as names.
fn entry_of(layout: &Layout, directory: &Path, name: Option<&str>) -> Result<Descriptor, BaseError> {
    let entries = layout.entries()?;
    let named = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let found = match name {
        Some(name) => entries.iter().find(|entry| named(entry).as_deref() == Some(name)),
        None if entries.len() == 1 => entries.first(),
        None => entries.iter().find(|entry| named(entry).as_deref() == Some(USUAL_TAG)),
    };
    found.cloned().ok_or_else(|| BaseError::NotThere {
        layout: directory.to_path_buf(),
        name: name.unwrap_or(USUAL_TAG).to_owned(),
        found: entries.iter().filter_map(named).collect(),
    })
}

/// The manifest for a platform; none if it, or the index that should name it, is not in the layout.
fn manifest_of(
    layout: &Layout,
    written: &str,
    top: &Descriptor,
    platform: &Platform,
) -> Result<Option<(Descriptor, Manifest)>, BaseError> {
    let read = |descriptor: &Descriptor| match layout.read_document(descriptor) {
        Err(error) if error.is_missing() => Ok(None),
        read => read.map(Some),
    };
    match read(top)? {
        None => Ok(None),
        Some(Document::Manifest(manifest)) => Ok(Some((top.clone(), manifest))),
        Some(Document::Index(index)) => {
            let Some(descriptor) = index.select(platform) else {
                let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
                let found = platforms.map(ToString::to_string).collect();
                return Err(BaseError::Platform { name: written.to_owned(), wanted: platform.to_string(), found });
            };
            match read(descriptor)? {
                Some(Document::Manifest(manifest)) => Ok(Some((descriptor.clone(), manifest))),
                Some(Document::Index(_)) => Err(BaseError::NotAnImage {
                    name: written.to_owned(),
                    why: "its index leads to another index".to_owned(),
                }),
                None => Ok(None),
            }
        }
    }
}

/// Whether this is a manifest of an image, and not of some artifact.
pub(super) fn is_image(manifest: &Manifest) -> bool {
    manifest.artifact_type.is_none() && manifest.config.media_type.is_image_config()
}
