//! `drystone inspect`: an image's documents, or what is in which of its layers.

use std::fmt::Write as _;

use drystone::contents::{LayerContents, contents};
use drystone::inventory::{InstalledPackage, Inventories};
use oci::{Platform, Reference};
use serde_json::json;
use store::{Layout, StoredImage};

use crate::args::{Inspect, TextFormat};
use crate::commands::push::names;
use crate::failure::Failure;
use crate::session::print;
use crate::table::{columns, size};

/// Runs the command.
pub fn run(arguments: &Inspect) -> Result<(), Failure> {
    let layout = Layout::open(&arguments.layout.layout)?;
    let image = find(&layout, &arguments.image, &arguments.platform.chosen())?;
    if arguments.layers {
        return print(&layers(&contents(&layout, &image)?));
    }
    if arguments.packages {
        return packages(&layout, &image, arguments.format);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest.to_bytes()).map_err(Failure::of)?;
    let config: serde_json::Value = serde_json::from_slice(&image.config.to_bytes()).map_err(Failure::of)?;
    let (reference, digest) = (image.reference.to_string(), image.descriptor.digest);
    let whole = json!({"reference": reference, "digest": digest, "manifest": manifest, "config": config});
    print(&serde_json::to_string_pretty(&whole).map(|text| text + "\n").map_err(Failure::of)?)
}

/// The packages by the image's own database, and the layer that each came with.
fn packages(layout: &Layout, image: &StoredImage, format: TextFormat) -> Result<(), Failure> {
    let inventory = Inventories::new(layout).image(image).map_err(Failure::of)?;
    if !inventory.has_database {
        let text = format!("{} has no dpkg database, so that its packages cannot be told", image.reference);
        return Err(Failure::new(text));
    }
    if format == TextFormat::Json {
        return print(&serde_json::to_string_pretty(&inventory.packages).map(|text| text + "\n").map_err(Failure::of)?);
    }
    let header = ["PACKAGE", "VERSION", "ARCHITECTURE", "SOURCE", "STATUS", "LAYER"].map(str::to_owned).to_vec();
    let row = |package: &InstalledPackage| {
        let InstalledPackage { name, version, architecture, source, status, layer, .. } = package;
        let layer = layer.map(|digest| digest.short()).unwrap_or_default();
        vec![name.clone(), version.clone(), architecture.clone(), source.clone(), status.clone(), layer]
    };
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(inventory.packages.iter().map(row)).collect();
    print(&columns(&rows))
}

/// The one image of a layout that a name or pattern means.
pub fn find(layout: &Layout, pattern: &str, platform: &Platform) -> Result<StoredImage, Failure> {
    let references = layout.references()?;
    let is_named = |reference: &&Reference| reference.tag().is_some() && names(pattern, reference);
    let found: Vec<&Reference> = references.iter().map(|(reference, _)| reference).filter(is_named).collect();
    let here = layout.root().display();
    match found.as_slice() {
        [] => {
            let text = format!("no image in `{here}` is called `{pattern}`");
            Err(Failure::with_hint(text, "`drystone images` lists what is there"))
        }
        [reference] => layout
            .image_at(reference, platform)?
            .ok_or_else(|| Failure::new(format!("{reference} has no image for {platform}"))),
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::Usage(format!("`{pattern}` means several images: {}", several.join(", "))))
        }
    }
}

fn layers(layers: &[LayerContents]) -> String {
    let header = ["LAYER", "SIZE", "ENTRIES", "MADE BY"].map(str::to_owned).to_vec();
    let row = |layer: &LayerContents| {
        let made_by = layer.made_by.lines().next().unwrap_or_default().to_owned();
        vec![layer.digest.short(), size(layer.size), layer.entries.to_string(), made_by]
    };
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(layers.iter().map(row)).collect();
    let mut text = String::new();
    for (line, layer) in columns(&rows).lines().zip(std::iter::once(None).chain(layers.iter().map(Some))) {
        let _ = writeln!(text, "{line}");
        for package in layer.into_iter().flat_map(|layer| &layer.packages) {
            let _ = writeln!(text, "  {package}");
        }
    }
    text
}
