//! Images as a layout holds them: the name, the manifest and the configuration read together.

use oci::{Descriptor, Document, ImageConfig, Manifest, MediaTypeExt, Platform, Reference};

use crate::{Layout, StoreError};

/// One image of one platform.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// The tag that leads to it.
    pub reference: Reference,
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The manifest. Its config's digest is the image id.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

/// A tag, and the image behind it or why it cannot be read.
pub type NamedImage = (Reference, Result<StoredImage, StoreError>);

impl Layout {
    /// Every tagged image, sorted by name; an index gives each of its images that is here. An image that cannot be
    /// read is an error in its own place and does not hide the others. Artifacts that are not images are passed over.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        let mut images = Vec::new();
        for (reference, descriptor) in self.references()? {
            if reference.tag().is_none() {
                continue;
            }
            match self.read_document(&descriptor) {
                Ok(Document::Manifest(manifest)) => images.extend(self.image(reference, descriptor, manifest)),
                Ok(Document::Index(index)) => {
                    for entry in index.manifests {
                        images.extend(self.image_of_index(&reference, entry));
                    }
                }
                Err(error) => images.push((reference, Err(error))),
            }
        }
        Ok(images)
    }

    /// The image that a tag or digest leads to: of an index, the one for this platform, if it is here.
    pub fn image_at(&self, reference: &Reference, platform: &Platform) -> Result<Option<StoredImage>, StoreError> {
        let Some(descriptor) = self.find(reference)? else { return Ok(None) };
        match self.read_document(&descriptor)? {
            Document::Manifest(manifest) => {
                self.image(reference.clone(), descriptor, manifest).map(|(_, image)| image).transpose()
            }
            Document::Index(index) => {
                let chosen = index.select(platform).cloned();
                let chosen = chosen.and_then(|entry| self.image_of_index(reference, entry));
                chosen.map(|(_, image)| image).transpose()
            }
        }
    }

    fn image_of_index(&self, reference: &Reference, entry: Descriptor) -> Option<NamedImage> {
        if !entry.media_type.is_manifest() || self.blob_size(entry.digest).is_none() {
            return None;
        }
        match self.read_document(&entry) {
            Ok(Document::Manifest(manifest)) => self.image(reference.clone(), entry, manifest),
            Ok(Document::Index(_)) => None,
            Err(error) => Some((reference.clone(), Err(error))),
        }
    }

    fn image(&self, reference: Reference, descriptor: Descriptor, manifest: Manifest) -> Option<NamedImage> {
        if !manifest.config.media_type.is_image_config() {
            return None;
        }
        let image = self.read_config(&manifest.config).map(|config| StoredImage {
            reference: reference.clone(),
            descriptor,
            manifest,
            config,
        });
        Some((reference, image))
    }
}

#[cfg(test)]
mod tests {
    use oci::{Index, MediaType};

    use super::*;

    fn put_image(layout: &Layout, name: &str) -> Descriptor {
        let mut config = ImageConfig::new(&Platform::linux("amd64"), Vec::new());
        config.config.labels.insert("name".to_owned(), name.to_owned());
        let config = config.to_bytes();
        layout.put_bytes(&config).unwrap();
        let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config), Vec::new()).to_bytes();
        layout.put_bytes(&manifest).unwrap();
        Descriptor::of(MediaType::ImageManifest, &manifest)
    }

    #[test]
    fn images_are_listed_and_a_damaged_one_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let name = |text: &str| -> Reference { text.parse().unwrap() };
        let (a, b, c) = (put_image(&layout, "a"), put_image(&layout, "b"), put_image(&layout, "c"));
        let index = Index::new(vec![c.clone()]).to_bytes();
        layout.put_bytes(&index).unwrap();
        let references = [
            (name("localhost:5100/a:t"), a),
            (name("localhost:5100/b:t"), b.clone()),
            (name("localhost:5100/c:t"), Descriptor::of(MediaType::ImageIndex, &index)),
            (name(&format!("localhost:5100/c@{}", c.digest)), c),
        ];
        layout.set_references(&references).unwrap();
        std::fs::remove_file(layout.blob_path(b.digest)).unwrap();
        let images = layout.images().unwrap();
        assert_eq!(images.len(), 3);
        assert_eq!(images[0].1.as_ref().unwrap().config.config.labels["name"], "a");
        assert!(images[1].1.as_ref().unwrap_err().is_missing());
        assert_eq!(images[2].1.as_ref().unwrap().config.config.labels["name"], "c");
        let usual = Platform::linux("amd64");
        assert!(layout.image_at(&references[0].0, &usual).unwrap().is_some());
        assert!(layout.image_at(&name("localhost:5100/absent:t"), &usual).unwrap().is_none());
    }

    #[test]
    fn of_an_index_the_image_for_the_platform_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let (here, there) = (Platform::linux("amd64"), Platform::linux("arm64"));
        let entry = |name: &str, platform: &Platform| put_image(&layout, name).with_platform(platform.clone());
        let index = Index::new(vec![entry("a", &here), entry("b", &there)]).to_bytes();
        layout.put_bytes(&index).unwrap();
        let name: Reference = "localhost:5100/both:t".parse().unwrap();
        layout.set_references(&[(name.clone(), Descriptor::of(MediaType::ImageIndex, &index))]).unwrap();
        let label = |platform: &Platform| {
            layout.image_at(&name, platform).unwrap().map(|image| image.config.config.labels["name"].clone())
        };
        assert_eq!((label(&here).as_deref(), label(&there).as_deref()), (Some("a"), Some("b")));
        assert_eq!(label(&Platform::linux("riscv64")), None);
    }
}
