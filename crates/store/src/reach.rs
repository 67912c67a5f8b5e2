//! What manifests lead to: the blobs without which an image is not whole.

use std::collections::BTreeMap;

use content::Digest;
use oci::{Descriptor, Document, MediaTypeExt};

use crate::{Layout, StoreError};

impl Layout {
    /// Everything that these manifests and indexes need, themselves included: each blob once, by digest. Of an index,
    /// the images that are not here are passed over, as are layers that may live outside of registries.
    pub fn reachable(&self, roots: &[Descriptor]) -> Result<BTreeMap<Digest, Descriptor>, StoreError> {
        let mut found = BTreeMap::new();
        let mut waiting = roots.to_vec();
        while let Some(descriptor) = waiting.pop() {
            if found.contains_key(&descriptor.digest) {
                continue;
            }
            let document = self.read_document(&descriptor)?;
            waiting.extend(document.manifests().iter().filter(|entry| self.is_here(entry)).cloned());
            for blob in document.blobs() {
                if !blob.media_type.is_foreign_layer() || self.is_here(blob) {
                    found.insert(blob.digest, blob.clone());
                }
            }
            found.insert(descriptor.digest, descriptor);
        }
        Ok(found)
    }

    fn is_here(&self, descriptor: &Descriptor) -> bool {
        self.blob_size(descriptor.digest).is_some()
    }

    /// The images that a manifest or index leads to, with their descriptors: one, or those of an index that are here.
    pub fn manifests_at(&self, root: &Descriptor) -> Result<Vec<(Descriptor, oci::Manifest)>, StoreError> {
        match self.read_document(root)? {
            Document::Manifest(manifest) => Ok(vec![(root.clone(), manifest)]),
            Document::Index(index) => {
                let mut manifests = Vec::new();
                for entry in index.manifests.into_iter().filter(|entry| self.is_here(entry)) {
                    if let Document::Manifest(manifest) = self.read_document(&entry)? {
                        manifests.push((entry, manifest));
                    }
                }
                Ok(manifests)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use oci::{Index, Manifest, MediaType};

    use super::*;

    #[test]
    fn an_index_leads_to_the_images_that_are_here_and_all_their_blobs() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let put = |kind: MediaType, bytes: &[u8]| {
            layout.put_bytes(bytes).unwrap();
            Descriptor::of(kind, bytes)
        };
        let (config, layer) = (put(MediaType::ImageConfig, b"{}"), put(MediaType::ImageLayerGzip, b"layer"));
        let manifest = Manifest::new(config.clone(), vec![layer.clone()]);
        let manifest = put(MediaType::ImageManifest, &manifest.to_bytes());
        let absent = Descriptor::of(MediaType::ImageManifest, b"absent");
        let index = put(MediaType::ImageIndex, &Index::new(vec![manifest.clone(), absent.clone()]).to_bytes());
        put(MediaType::ImageLayerGzip, b"of nobody");
        let found: Vec<Digest> = layout.reachable(std::slice::from_ref(&index)).unwrap().into_keys().collect();
        let mut expected = vec![config.digest, layer.digest, manifest.digest, index.digest];
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(layout.manifests_at(&index).unwrap().len(), 1);
        assert!(layout.reachable(&[absent]).unwrap_err().is_missing());
    }
}
