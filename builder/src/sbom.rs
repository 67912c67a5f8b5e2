//! Bills of materials: what an image is made of, in the two forms that other tools read.
//!
//! They are made from the image alone, by its own package database: no scanner guesses, nothing is asked of a network.
//! The same image gives the same bytes, whenever and wherever it is asked, whatever it is called: there are no random
//! numbers, and the date is the image's.

mod cyclonedx;
mod licence;
mod purl;
mod spdx;

use std::str::FromStr;

use content::Digest;
use serde_json::Value;
use store::StoredImage;

use crate::inventory::{InstalledPackage, Inventory, LayerSummary};

pub use purl::{deb as deb_purl, deb_file, oci as oci_purl};

/// The form of a bill of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// SPDX 2.3, as JSON.
    Spdx,
    /// CycloneDX 1.6, as JSON.
    CycloneDx,
}

impl Format {
    /// The media type, which is also the type of the artifact.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Spdx => "application/spdx+json",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "spdx" | "spdx-json" => Ok(Self::Spdx),
            "cyclonedx" | "cyclonedx-json" => Ok(Self::CycloneDx),
            other => Err(format!("`{other}` is not a form of a bill of materials: there are spdx and cyclonedx")),
        }
    }
}

/// The bill of materials of an image, as canonical JSON.
pub fn bill(format: Format, image: &StoredImage, inventory: &Inventory) -> Vec<u8> {
    let subject = Subject { image, inventory };
    let document: Value = match format {
        Format::Spdx => spdx::document(&subject),
        Format::CycloneDx => cyclonedx::document(&subject),
    };
    oci::canonical_bytes(&document).expect("a bill has only strings, whole numbers and maps with string keys")
}

/// What a bill is about.
struct Subject<'a> {
    image: &'a StoredImage,
    inventory: &'a Inventory,
}

impl Subject<'_> {
    /// The repository: the same image is told of in the same words, wherever it is pushed.
    fn name(&self) -> &str {
        self.image.reference.repository().as_str()
    }

    fn digest(&self) -> Digest {
        self.image.descriptor.digest
    }

    fn purl(&self) -> String {
        oci_purl(self.name(), self.digest(), &self.image.config.platform().architecture)
    }

    /// Whole seconds, as SPDX wants it.
    fn created(&self) -> String {
        let created = self.image.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        crate::image::rfc3339(created.map_or(0, jiff::Timestamp::as_second))
    }

    fn packages(&self) -> impl Iterator<Item = &InstalledPackage> {
        self.inventory.packages.iter().filter(|package| package.is_there())
    }

    fn package_purl(&self, package: &InstalledPackage) -> String {
        let distribution = self.inventory.distribution.as_ref();
        deb_purl(package, distribution.map(|(id, version)| (id.as_str(), version.as_deref())))
    }
}

/// A layer in a sentence: what is not in packages is at least counted.
fn sentence(layer: &LayerSummary) -> String {
    let made_by = layer.made_by.lines().next().unwrap_or_default();
    let LayerSummary { digest, packages, files, bytes, .. } = layer;
    format!("layer {digest}: {packages} packages, {files} files of {bytes} bytes; {made_by}")
}

/// Who made the bill.
const TOOL: &str = "drystone";
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests;
