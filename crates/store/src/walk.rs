//! What the names of a layout lead to.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use oci::{Descriptor, MediaTypeExt, REF_NAME};

use crate::{Layout, StoreError};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: usize = 8;

/// Something that a name leads to: which, how large it should be, and what kind of place names it.
pub(crate) struct Part<'a> {
    pub(crate) descriptor: &'a Descriptor,
    /// Whether it may be absent: an index may list images of platforms that nobody has fetched, and a foreign layer is
    /// kept elsewhere.
    pub(crate) optional: bool,
}

/// How an entry of `index.json` is called in messages.
pub(crate) fn name_of(entry: &Descriptor) -> String {
    entry.annotations.get(REF_NAME).cloned().unwrap_or_else(|| entry.digest.to_string())
}

impl Layout {
    /// Calls `seen` for everything that a descriptor leads to, itself first. A document that is damaged is an error of
    /// its own, handed to `broken`; what it leads to cannot be known. A manifest's subject is not among it: a signature
    /// does not keep what was signed.
    pub(crate) fn walk(
        &self,
        entry: &Descriptor,
        seen: &mut dyn FnMut(&Part<'_>) -> bool,
        broken: &mut dyn FnMut(Digest, StoreError),
    ) {
        self.walk_part(&Part { descriptor: entry, optional: false }, MAX_DEPTH, seen, broken);
    }

    fn walk_part(
        &self,
        part: &Part<'_>,
        depth: usize,
        seen: &mut dyn FnMut(&Part<'_>) -> bool,
        broken: &mut dyn FnMut(Digest, StoreError),
    ) {
        let descriptor = part.descriptor;
        let is_document = descriptor.media_type.is_manifest() || descriptor.media_type.is_index();
        if !seen(part) || !is_document || depth == 0 {
            return;
        }
        let document = match self.read_document(descriptor) {
            Ok(document) => document,
            Err(error) if error.is_missing() => return,
            Err(error) => return broken(descriptor.digest, error),
        };
        for blob in document.blobs() {
            let elsewhere = blob.media_type.is_foreign_layer() || !blob.urls.is_empty();
            seen(&Part { descriptor: blob, optional: elsewhere });
        }
        for manifest in document.manifests() {
            self.walk_part(&Part { descriptor: manifest, optional: true }, depth - 1, seen, broken);
        }
    }

    /// Every blob that is there, by digest, with its size.
    pub(crate) fn stored_blobs(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let mut blobs = BTreeMap::new();
        for algorithm in content::Algorithm::ALL {
            for path in crate::tree::entries(&self.blobs().join(algorithm.name()))? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Ok(digest) = format!("{}:{name}", algorithm.name()).parse::<Digest>() else { continue };
                // What is no file is nobody's blob, and what is gone meanwhile is not there.
                let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
                if metadata.is_file() {
                    blobs.insert(digest, metadata.len());
                }
            }
        }
        Ok(blobs)
    }

    /// The digests that these entries of `index.json` lead to.
    pub(crate) fn needed_by(&self, entries: &[Descriptor]) -> Result<BTreeSet<Digest>, StoreError> {
        let mut reached = BTreeSet::new();
        for entry in entries {
            let mut damaged = None;
            let mut seen = |part: &Part<'_>| reached.insert(part.descriptor.digest);
            self.walk(entry, &mut seen, &mut |_, error| damaged = Some(error));
            if let Some(source) = damaged {
                return Err(StoreError::Unreadable { name: name_of(entry), source: Box::new(source) });
            }
        }
        Ok(reached)
    }
}
