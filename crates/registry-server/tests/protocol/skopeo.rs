//! Somebody else's client against our server. Skipped, aloud, where skopeo is not installed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use content::{DiffId, Digest};
use flate2::Compression;
use flate2::write::GzEncoder;
use oci::{Descriptor, ImageConfig, Manifest, MediaType, Platform, Reference};
use store::Layout;

use crate::bench::Bench;

async fn skopeo(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let ran = tokio::task::spawn_blocking(move || Command::new("skopeo").args(arguments).output()).await.unwrap();
    ran.expect("skopeo of the Debian package of that name; tests/run installs it")
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn image(layout: &Layout, name: &str) -> Digest {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "file", &b"abc"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&tar).unwrap();
    let layer = gzip.finish().unwrap();
    let config = ImageConfig::new(&Platform::linux("amd64"), vec![DiffId(Digest::of(&tar))]).to_bytes();
    let manifest = Manifest::new(
        Descriptor::of(MediaType::ImageConfig, &config),
        vec![Descriptor::of(MediaType::ImageLayerGzip, &layer)],
    )
    .to_bytes();
    for blob in [&layer, &config, &manifest] {
        layout.put_bytes(blob).unwrap();
    }
    let reference: Reference = name.parse().unwrap();
    layout.set_references(&[(reference, Descriptor::of(MediaType::ImageManifest, &manifest))]).unwrap();
    Digest::of(&manifest)
}

fn manifest_digest(layout: &Path) -> String {
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_an_image_from_a_layout_in_and_out_again_unchanged() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    let digest = image(&Layout::open_or_create(&source).unwrap(), "localhost:5100/app:v1");
    let from = format!("oci:{}:localhost:5100/app:v1", source.display());
    let remote = format!("docker://{}/team/app:v1", bench.address);
    let to = directory.path().join("copied");
    let pushed = skopeo(&["copy", "--dest-tls-verify=false", &from, &remote]).await;
    succeeded(&pushed);
    let named: Reference = format!("{}/team/app:v1", bench.address).parse().unwrap();
    assert_eq!(bench.layout.find(&named).unwrap().unwrap().digest, digest);
    let layout = format!("oci:{}:v1", to.display());
    succeeded(&skopeo(&["copy", "--src-tls-verify=false", &remote, &layout]).await);
    assert_eq!(manifest_digest(&to), digest.to_string());
    let inspected = succeeded(&skopeo(&["inspect", "--tls-verify=false", &remote]).await);
    assert!(inspected.contains(&digest.to_string()), "{inspected}");
    let tags = format!("docker://{}/team/app", bench.address);
    assert!(succeeded(&skopeo(&["list-tags", "--tls-verify=false", &tags]).await).contains("\"v1\""));
    succeeded(&skopeo(&["delete", "--tls-verify=false", &remote]).await);
    assert!(bench.layout.references().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_an_image_that_a_build_put_into_the_layout() {
    let bench = Bench::new().await;
    let digest = image(&bench.layout, "localhost:5100/app:v1");
    let remote = format!("docker://{}/app:v1", bench.address);
    let output = skopeo(&["inspect", "--tls-verify=false", &remote]).await;
    assert!(succeeded(&output).contains(&digest.to_string()));
    let unknown = format!("docker://{}/app:v2", bench.address);
    let output = skopeo(&["inspect", "--tls-verify=false", &unknown]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("manifest unknown"), "{output:?}");
}
