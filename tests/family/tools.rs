//! The layout on disk: what skopeo, umoci, oci-image-tool, Python and GNU tar make of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{IMAGES, family, reference, tree};
use crate::support::program::{run, tool};

#[test]
fn skopeo_reads_every_image_from_the_layout() {
    let copies = tempfile::tempdir().unwrap();
    let listed = family().images();
    assert!(listed.keys().eq(IMAGES), "{listed:?}");
    for image in IMAGES {
        let inspected = tool("skopeo", ["inspect", &family().source(image)]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        let known = &listed[image];
        assert_eq!(inspected["Digest"], known["digest"], "{image}");
        assert_eq!(inspected["Labels"], known["labels"], "{image}");
        assert_eq!((&inspected["Os"], &inspected["Architecture"]), (&"linux".into(), &"amd64".into()), "{image}");
        // skopeo checks every blob that it copies against its digest.
        let copy = format!("oci:{}:{image}", copies.path().display());
        tool("skopeo", ["copy", "--preserve-digests", &family().source(image), &copy]);
        let digest = tool("skopeo", ["inspect", "--format", "{{.Digest}}", &copy]);
        assert_eq!(digest.trim(), known["digest"], "{image}");
    }
}

#[test]
fn umoci_unpacks_every_image() {
    for image in IMAGES {
        let bundles = tempfile::tempdir().unwrap();
        let bundle = bundles.path().join(image);
        let source = format!("{}:{}", family().layout.display(), reference(image));
        tool("umoci", ["unpack".as_ref(), "--image".as_ref(), source.as_ref(), bundle.as_os_str()]);
        let su = fs::metadata(bundle.join("rootfs/usr/bin/su")).unwrap();
        assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 0, 0), "{image}");
        let runtime: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
        let config = tool("skopeo", ["inspect", "--config", &family().source(image)]);
        let config: Value = serde_json::from_str(&config).unwrap();
        let part = |name: &str| config["config"][name].as_array().cloned().unwrap_or_default();
        let expected = [part("Entrypoint"), part("Cmd")].concat();
        assert_eq!(runtime["process"]["args"], Value::Array(expected), "{image}");
        let program = runtime["process"]["args"][0].as_str().unwrap();
        let found = fs::metadata(bundle.join("rootfs").join(program.trim_start_matches('/')));
        let mode = found.unwrap_or_else(|error| panic!("{image}: {program}: {error}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{image}: {program}");
    }
}

#[test]
fn oci_image_tool_accepts_the_layout() {
    let layout = &family().layout;
    let accepts = |kind: &str, path: &Path| {
        let validated = run(Command::new("oci-image-tool").args(["validate", "--type", kind]).arg(path)).success();
        assert!(validated.stdout.contains("Validation succeeded"), "{}{}", validated.stdout, validated.stderr);
    };
    // Every image with its layers, and then each kind of document by its JSON Schema.
    accepts("image", layout);
    accepts("imageIndex", &layout.join("index.json"));
    for known in family().images().values() {
        let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        accepts("manifest", &blob(&known["digest"]));
        accepts("config", &blob(&known["id"]));
    }
}

#[test]
fn python_reads_every_layer_and_finds_the_digests_that_the_images_name() {
    for image in IMAGES {
        let tree = tree(&family().layout, image);
        assert_eq!(tree["/etc/debian_version"]["type"], "file", "{image}");
        let removed: Vec<&String> = tree.keys().filter(|path| path.contains("/.wh.")).collect();
        assert!(removed.is_empty(), "{image}: {removed:?}");
    }
}

#[test]
fn gnu_tar_reads_every_layer_without_a_word() {
    let index = serde_json::from_slice::<Value>(&fs::read(family().layout.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &Value| family().layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let mut layers = std::collections::BTreeSet::new();
    for entry in index["manifests"].as_array().unwrap() {
        let manifest: Value = serde_json::from_slice(&fs::read(blob(&entry["digest"])).unwrap()).unwrap();
        layers.extend(manifest["layers"].as_array().unwrap().iter().map(|layer| blob(&layer["digest"])));
    }
    assert!(layers.len() > IMAGES.len(), "{layers:?}");
    for layer in layers {
        let listed = run(Command::new("tar").arg("-tzf").arg(&layer)).success();
        assert!(listed.stdout.lines().count() > 0, "{}", layer.display());
        assert_eq!(listed.stderr, "", "{}", layer.display());
    }
}

#[test]
fn a_label_lists_exactly_the_two_subcontainers() {
    let filter = ["--filter", "label=net.juniper.contrail=webui", "--format", "{{.Repository}}:{{.Tag}}"];
    let listed = run(family().drystone("images").args(filter)).success().stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["webui-job", "webui-server"].map(reference));
}
