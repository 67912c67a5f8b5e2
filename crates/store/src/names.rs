//! Names in a layout that are no whole references, as other tools write them.

use oci::{Descriptor, REF_NAME};

use crate::{Layout, StoreError};

impl Layout {
    /// Names a manifest with a text that need not be a reference. A name that was there before moves.
    pub fn set_name(&self, name: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        if self.blob_size(descriptor.digest).is_none() {
            return Err(StoreError::Missing { digest: descriptor.digest });
        }
        let entry = descriptor.clone().with_annotation(REF_NAME, name);
        self.update_index(|manifests| {
            manifests.retain(|old| old.annotations.get(REF_NAME).map(String::as_str) != Some(name));
            manifests.push(entry);
        })
    }
}

#[cfg(test)]
mod tests {
    use oci::{Manifest, MediaType};

    use super::*;

    #[test]
    fn entries_have_any_name_that_is_theirs_alone() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let config = Descriptor::of(MediaType::EmptyJSON, b"{}");
        let bytes = Manifest::new(config, Vec::new()).to_bytes();
        layout.put_bytes(&bytes).unwrap();
        let image = Descriptor::of(MediaType::ImageManifest, &bytes);
        layout.set_name("v1", &image).unwrap();
        layout.set_name("v1", &image).unwrap();
        layout.set_name("v2", &image).unwrap();
        let names: Vec<String> =
            layout.entries().unwrap().iter().map(|entry| entry.annotations[REF_NAME].clone()).collect();
        assert_eq!(names, ["v1", "v2"]);
        let absent = Descriptor::of(MediaType::ImageManifest, b"absent");
        assert!(layout.set_name("absent", &absent).unwrap_err().is_missing());
    }
}
