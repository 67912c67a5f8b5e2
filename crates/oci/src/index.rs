//! A list of manifests: the images of several platforms, or the contents of a layout.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lenient::{is_default, null_is_default};
use crate::{Descriptor, MediaType, Platform, canonical_bytes};

/// Manifests under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own kind; documents without it exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What kind of artifact this is, if it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::ImageIndex),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The manifest for a platform: one that says exactly what was asked for, else the first that will do.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let serving = || {
            let entries = self.manifests.iter().filter_map(|entry| Some((entry, entry.platform.as_ref()?)));
            entries.filter(|(_, platform)| platform.serves(wanted))
        };
        let exactly = serving().find(|(_, platform)| platform.variant == wanted.variant);
        exactly.or_else(|| serving().next()).map(|(entry, _)| entry)
    }

    /// The document's bytes; equal indexes have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical_bytes(self).expect("an index has only strings, whole numbers and maps with string keys")
    }
}
