//! The images of one name for several platforms, and the index that lists them.
//!
//! See the OCI image specification, "OCI Image Index Specification".

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use oci::{Descriptor, Index, MediaType, Reference};
use spec::ImageName;
use store::Layout;

use super::BuiltImage;
use crate::cut::Cut;
use crate::error::BuildError;
use crate::plan::Plan;

/// An image of a family as it is named: that of its only platform, or an index of those of several.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The name.
    pub reference: Reference,
    /// What the name stands for.
    pub manifest: Descriptor,
    /// Whether it is only a parent for others.
    pub build_only: bool,
}

impl Finished {
    /// An image of one platform.
    pub fn alone(image: &BuiltImage) -> Self {
        let manifest = image.manifest.clone();
        Self { reference: image.reference.clone(), manifest, build_only: image.build_only }
    }

    /// The images of one name, one for each platform, in the order in which an index lists them: of several, that is
    /// written. `images` are not empty.
    pub fn of(images: &[&BuiltImage], layout: &Layout) -> Result<Self, BuildError> {
        let Finished { manifest, reference, build_only } = Self::alone(images[0]);
        if images.len() == 1 {
            return Ok(Self { manifest, reference, build_only });
        }
        let index = Index::new(images.iter().map(|image| image.manifest.clone()).collect());
        let bytes = index.to_bytes();
        layout.put_bytes(&bytes)?;
        Ok(Self { manifest: Descriptor::of(MediaType::ImageIndex, &bytes), reference, build_only })
    }
}

/// Waits for the images of every name on all platforms.
pub(super) struct Gathering<'a> {
    layout: &'a Layout,
    /// How many platforms each image is built for.
    expected: BTreeMap<ImageName, usize>,
    found: Mutex<BTreeMap<ImageName, Vec<(usize, BuiltImage)>>>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(plans: &[(&Plan<'_>, &Cut)], layout: &'a Layout) -> Self {
        let mut expected = BTreeMap::new();
        let wanted = plans.iter().flat_map(|(plan, _)| &plan.images).filter(|planned| planned.wanted);
        for planned in wanted {
            *expected.entry(planned.image.name.value.clone()).or_default() += 1;
        }
        Self { layout, expected, found: Mutex::default() }
    }

    /// Adds an image of the platform with this number. Returns the image of that name if it was the last.
    pub(super) fn add(&self, platform: usize, image: &BuiltImage) -> Result<Option<Finished>, BuildError> {
        let expected = self.expected.get(&image.name).copied().unwrap_or(1);
        if expected == 1 {
            return Ok(Some(Finished::alone(image)));
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let images = found.entry(image.name.clone()).or_default();
        images.push((platform, image.clone()));
        if images.len() < expected {
            return Ok(None);
        }
        images.sort_by_key(|(platform, _)| *platform);
        let images: Vec<&BuiltImage> = images.iter().map(|(_, image)| image).collect();
        Finished::of(&images, self.layout).map(Some)
    }
}
