//! Bills of materials of small images made by hand.

use std::collections::BTreeMap;

use layer::files::Files;
use oci::{Descriptor, ImageConfig, Manifest, MediaType, Platform};

use super::*;

fn package(name: &str, licences: &[&str], layer: Option<Digest>) -> InstalledPackage {
    InstalledPackage {
        name: name.into(),
        version: "1:2.0-1".into(),
        architecture: "amd64".into(),
        source: "source-of-it".into(),
        source_version: "1:2.0-1".into(),
        status: "installed".into(),
        maintainer: Some("Some One <one@registry.example>".into()),
        licences: licences.iter().map(|name| (*name).to_owned()).collect(),
        layer,
    }
}

fn image() -> (StoredImage, Inventory) {
    let mut config = ImageConfig::new(&Platform::linux("amd64"), Vec::new());
    config.created = Some("2025-05-17T08:53:20Z".to_owned());
    let layer = Digest::of(b"layer");
    let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config.to_bytes()), Vec::new());
    let image = StoredImage {
        reference: "localhost:5100/team/redis:v1".parse().unwrap(),
        descriptor: Descriptor::of(MediaType::ImageManifest, &manifest.to_bytes()),
        manifest,
        config,
    };
    let gone = InstalledPackage { status: "config-files".into(), ..package("gone", &[], None) };
    let inventory = Inventory {
        files: Files::default(),
        packages: vec![package("libstdc++6", &["GPL-3+ or odd"], Some(layer)), package("redis", &[], None), gone],
        has_database: true,
        distribution: Some(("debian".into(), Some("12".into()))),
        layers: vec![LayerSummary { digest: layer, packages: 1, files: 3, bytes: 9, made_by: "test".into() }],
    };
    (image, inventory)
}

#[test]
fn both_forms_have_the_packages_that_are_there_and_the_date_of_the_image() {
    let (image, inventory) = image();
    let read = |format| -> Value { serde_json::from_slice(&bill(format, &image, &inventory)).unwrap() };
    let purl = "pkg:deb/debian/libstdc%2B%2B6@1%3A2.0-1?arch=amd64&distro=debian-12&upstream=source-of-it";
    let spdx = read(Format::Spdx);
    let names: Vec<&Value> = spdx["packages"].as_array().unwrap().iter().map(|package| &package["name"]).collect();
    assert_eq!(names, ["team/redis", "libstdc++6", "redis"]);
    assert_eq!(spdx["packages"][1]["externalRefs"][0]["referenceLocator"], purl);
    assert_eq!(spdx["packages"][1]["licenseDeclared"], "GPL-3.0-or-later OR LicenseRef-debian-odd");
    assert_eq!(spdx["hasExtractedLicensingInfos"][0]["name"], "odd");
    assert_eq!(spdx["creationInfo"]["created"], "2025-05-17T08:53:20Z");
    let cyclonedx = read(Format::CycloneDx);
    assert_eq!(cyclonedx["components"].as_array().unwrap().len(), 2);
    assert_eq!(cyclonedx["components"][0]["purl"], purl);
    assert_eq!(cyclonedx["metadata"]["timestamp"], "2025-05-17T08:53:20Z");
    assert_eq!(cyclonedx["metadata"]["component"]["hashes"][0]["content"], image.descriptor.digest.hex());
}

#[test]
fn identifiers_are_there_once_and_another_name_of_the_image_changes_nothing() {
    let (mut image, inventory) = image();
    let before = [Format::Spdx, Format::CycloneDx].map(|format| bill(format, &image, &inventory));
    let spdx: Value = serde_json::from_slice(&before[0]).unwrap();
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for package in spdx["packages"].as_array().unwrap() {
        *ids.entry(package["SPDXID"].as_str().unwrap()).or_default() += 1;
    }
    assert!(ids.values().all(|count| *count == 1), "{ids:?}");
    image.reference = "registry.example/team/redis:v2".parse().unwrap();
    assert_eq!([Format::Spdx, Format::CycloneDx].map(|format| bill(format, &image, &inventory)), before);
}
