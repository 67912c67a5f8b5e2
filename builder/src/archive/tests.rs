//! Archives hold what the layout holds, in the forms that other tools read, and the same bytes each time.

use std::collections::BTreeMap;
use std::fs;

use content::{DiffId, Digest};
use layer::compress::{BlockWriter, Compression};
use oci::{ImageConfig, Index, Manifest, MediaType, Platform, REF_NAME};
use store::Layout;

use super::*;

fn bench() -> (tempfile::TempDir, Layout) {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(directory.path().join("oci")).unwrap();
    (directory, layout)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An image of one layer, which is this text.
fn image(layout: &Layout, architecture: &str, text: &str, compression: Compression) -> Descriptor {
    let mut blob = Vec::new();
    let mut writer = BlockWriter::new(&mut blob, compression);
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap();
    let kind = match compression {
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    };
    let platform = Platform::linux(architecture);
    let config = ImageConfig::new(&platform, vec![DiffId(Digest::of(text.as_bytes()))]).to_bytes();
    let layer = Descriptor::of(kind, &blob);
    let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config), vec![layer]).to_bytes();
    for bytes in [&blob, &config, &manifest] {
        layout.put_bytes(bytes).unwrap();
    }
    Descriptor::of(MediaType::ImageManifest, &manifest).with_platform(platform)
}

/// The files of a tar, by name.
fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    layer::read::entries(tar, |entry, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!((entry.metadata.uid, entry.metadata.mtime), (0, 0));
        files.insert(entry.path.to_string(), bytes);
        Ok(())
    })
    .unwrap();
    files
}

fn written(format: Format, layout: &Layout, images: &[Named]) -> Vec<u8> {
    let mut tar = Vec::new();
    write(format, layout, images, &Platform::linux("amd64"), &mut tar).unwrap();
    tar
}

#[test]
fn an_oci_archive_has_each_blob_once_and_does_not_depend_on_the_order() {
    let (_directory, layout) = bench();
    let (a, b) = (image(&layout, "amd64", "a", Compression::Gzip), image(&layout, "amd64", "b", Compression::Gzip));
    let images = [(reference("localhost:5100/b:v1"), b), (reference("localhost:5100/a:v1"), a)];
    let tar = written(Format::Oci, &layout, &images);
    let mut turned = images.to_vec();
    turned.reverse();
    turned.push(images[0].clone());
    assert_eq!(written(Format::Oci, &layout, &turned), tar);
    let files = files(&tar);
    let index: Index = serde_json::from_slice(&files["/index.json"]).unwrap();
    let names: Vec<&str> = index.manifests.iter().map(|entry| entry.annotations[REF_NAME].as_str()).collect();
    assert_eq!(names, ["localhost:5100/a:v1", "localhost:5100/b:v1"]);
    let blobs: Vec<&String> = files.keys().filter(|name| name.starts_with("/blobs/sha256/")).collect();
    assert_eq!(blobs.len(), 6);
    for name in blobs {
        assert_eq!(Digest::of(&files[name]).hex(), name.rsplit('/').next().unwrap());
    }
}

#[test]
fn an_archive_for_docker_keeps_gzip_unpacks_zstd_and_merges_the_names_of_one_image() {
    let (_directory, layout) = bench();
    let gzip = image(&layout, "amd64", "gzip", Compression::Gzip);
    let zstd = image(&layout, "amd64", "zstd", Compression::Zstd);
    let images = [
        (reference("localhost:5100/z:v1"), zstd),
        (reference("localhost:5100/g:v2"), gzip.clone()),
        (reference("localhost:5100/g:v1"), gzip),
    ];
    let files = files(&written(Format::Docker, &layout, &images));
    let list: serde_json::Value = serde_json::from_slice(&files["/manifest.json"]).unwrap();
    assert_eq!(list[0]["RepoTags"], serde_json::json!(["localhost:5100/g:v1", "localhost:5100/g:v2"]));
    assert_eq!(list[1]["RepoTags"], serde_json::json!(["localhost:5100/z:v1"]));
    let layer = |image: usize| &files[&format!("/{}", list[image]["Layers"][0].as_str().unwrap())];
    assert_eq!(layer(0)[..2], [0x1f, 0x8b]);
    assert_eq!(layer(1), b"zstd");
    for image in 0..2 {
        let config = &files[&format!("/{}", list[image]["Config"].as_str().unwrap())];
        ImageConfig::parse(config).unwrap();
    }
}

#[test]
fn of_an_index_docker_gets_the_image_for_the_platform_and_oci_gets_all() {
    let (_directory, layout) = bench();
    let (amd, arm) = (image(&layout, "amd64", "a", Compression::Gzip), image(&layout, "arm64", "b", Compression::Gzip));
    let index = Index::new(vec![arm, amd]).to_bytes();
    layout.put_bytes(&index).unwrap();
    let images = [(reference("localhost:5100/both:v1"), Descriptor::of(MediaType::ImageIndex, &index))];
    let docker = files(&written(Format::Docker, &layout, &images));
    assert_eq!(docker.len(), 3);
    let blobs = files(&written(Format::Oci, &layout, &images));
    assert_eq!(blobs.keys().filter(|name| name.starts_with("/blobs/sha256/")).count(), 7);
    let error = docker_archive(&layout, &images, &Platform::linux("riscv64"), Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "localhost:5100/both:v1 has no image for linux/riscv64");
}

#[test]
fn a_missing_or_damaged_blob_is_an_error_that_names_it() {
    let (_directory, layout) = bench();
    let one = image(&layout, "amd64", "one", Compression::Gzip);
    let oci::Document::Manifest(manifest) = layout.read_document(&one).unwrap() else { panic!("not an image") };
    let layer = &manifest.layers[0];
    let path = layout.blob_path(layer.digest);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![0; bytes.len()]).unwrap();
    let images = [(reference("localhost:5100/one:v1"), one)];
    for format in [Format::Oci, Format::Docker] {
        let error = write(format, &layout, &images, &Platform::linux("amd64"), Vec::new()).unwrap_err();
        assert!(error.to_string().contains(layer.digest.hex().as_str()), "{error}");
    }
    fs::remove_file(&path).unwrap();
    for format in [Format::Oci, Format::Docker] {
        assert!(write(format, &layout, &images, &Platform::linux("amd64"), Vec::new()).is_err());
    }
}
