//! Images on images that others made: in the layout, in another layout, of another tool.

use std::fs;
use std::time::Duration;

use fixtures::image::{TestImage, write_layout};
use fixtures::{Compression, DebBuilder, Owner, TarEntry};
use serde_json::{Value, json};

use crate::support::family::{Bench, FAMILY, debs, read_json};
use crate::support::program::{Background, eventually, free_port, run, tool};

/// A name in a registry that nobody asks.
const BASE: &str = "registry.example/team/base:1";

/// An image of others, with whatever its makers like.
fn foreign() -> TestImage {
    TestImage::new()
        .layer([
            TarEntry::directory("./", 0o755),
            TarEntry::directory("etc", 0o755),
            TarEntry::file("etc/name", 0o640, "base").owned_by(Owner::new(7, 8, "", "")),
            TarEntry::file("etc/gone", 0o644, "x"),
            TarEntry::hard_link("etc/alias", "/etc/name"),
            TarEntry::directory("lib", 0o755),
            TarEntry::symlink("lib64", "lib"),
        ])
        .layer([TarEntry::file("etc/.wh.gone", 0o644, ""), TarEntry::file("lib64/late", 0o644, "through a link")])
        .config(json!({"Env": ["PATH=/bin", "LANG=C"], "Cmd": ["/bin/base"], "Labels": {"from": "base"}, "User": "7"}))
}

/// A family with one image on `from`.
fn on(from: &str, more: &str) -> Bench {
    let bench = Bench::new();
    bench.spec("family.yaml", FAMILY).spec("app/image.yaml", &format!("from: \"{from}\"\n{more}"));
    bench.archive(debs(), &[]);
    bench
}

fn config_of(bench: &Bench, image: &str) -> Value {
    read_json(&bench.blob(bench.manifest(image)["config"]["digest"].as_str().unwrap()))
}

/// The manifest of a layout's only image.
fn only_manifest(layout: &std::path::Path) -> Value {
    let digest = read_json(&layout.join("index.json"))["manifests"][0]["digest"].as_str().unwrap().to_owned();
    read_json(&layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")))
}

#[test]
fn a_child_of_an_image_in_the_layout_has_its_layers_as_they_are_and_inherits_its_configuration() {
    let bench = on(BASE, "files: [{content: hello, target: /etc/hello}]\nenv: {LANG: de}\n");
    foreign().write_layout(&bench.at("oci"), BASE).unwrap();
    let base = only_manifest(&bench.at("oci"));
    bench.build(&[]).success();
    let child = bench.manifest("app");
    let layers = |manifest: &Value| manifest["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&child)[..2], layers(&base)[..]);
    assert_eq!(layers(&child).len(), 3);
    let config = config_of(&bench, "app");
    assert_eq!(config["config"]["Env"], json!(["PATH=/bin", "LANG=de"]));
    assert_eq!(config["config"]["Cmd"], json!(["/bin/base"]));
    assert_eq!(config["config"]["Labels"]["from"], "base");
    assert_eq!(config["config"]["User"], "7");
    assert_eq!(config["history"][0]["created_by"], "made for tests");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    bench.layout_is_valid();
    assert!(bench.build(&[]).success().stderr.contains("nothing to build"));
    assert!(run(bench.drystone().args(["plan", "family"])).success().stdout.contains(BASE));
}

#[test]
fn names_are_found_short_by_digest_and_in_another_layout() {
    let bench = on("team/base:1", "labels: {a: b}\n");
    let digest = foreign().write_layout(&bench.at("oci"), BASE).unwrap();
    bench.build(&[]).success();
    let first = bench.digests();
    bench.spec("app/image.yaml", &format!("from: \"registry.example/team/base@{digest}\"\nlabels: {{a: b}}\n"));
    bench.build(&[]).success();
    assert_eq!(bench.digests(), first);
    write_layout(&bench.at("family/other"), &[("one", &foreign()), ("two", &TestImage::new())]).unwrap();
    bench.spec("app/image.yaml", "from: oci:other:one\nlabels: {a: b}\n");
    bench.build(&[]).success();
    assert_eq!(bench.digests(), first);
    run(std::process::Command::new("tar").args(["-cf", "../other.tar", "."]).current_dir(bench.at("family/other")))
        .success();
    bench.spec("app/image.yaml", "from: oci-archive:other.tar:one\nlabels: {a: b}\n");
    bench.build(&[]).success();
    assert_eq!(bench.digests(), first);
    bench.spec("app/image.yaml", "from: oci:other:three\n");
    bench.build(&[]).failure(1, &["app/image.yaml:1:7", "three", "one, two"]);
    bench.spec("app/image.yaml", "from: registry.example/team/other:1\n");
    bench.build(&[]).failure(1, &["app/image.yaml:1:7", "registry.example/team/other:1"]);
}

#[test]
fn packages_go_on_a_foreign_base_that_has_dpkgs_list_and_on_no_other() {
    let status = "Package: hello\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n";
    let with_list = TestImage::new()
        .layer([TarEntry::file("var/lib/dpkg/status", 0o644, "")])
        .layer([TarEntry::file("var/lib/dpkg/status", 0o644, status)])
        .compression(Compression::Zstd);
    let bench = on(BASE, "packages: [hello, tool]\n");
    let tool = DebBuilder::new("tool", "2").depends("hello").file("usr/bin/tool", 0o755, "x").build();
    bench.archive(debs().into_iter().chain([tool]), &[]);
    write_layout(&bench.at("oci"), &[(BASE, &with_list), ("registry.example/none:1", &foreign())]).unwrap();
    bench.build(&["--metadata-file", "metadata.json"]).success();
    let image = &read_json(&bench.at("metadata.json"))["images"][0];
    let labels: Vec<&Value> =
        image["layers"].as_array().unwrap().iter().flat_map(|layer| layer["packages"].as_array().unwrap()).collect();
    assert_eq!(labels, [&json!("tool=2")]);
    assert_eq!(bench.manifest("app")["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    bench.spec("app/image.yaml", "from: registry.example/none:1\npackages: [hello]\n");
    bench.build(&[]).failure(2, &["app/image.yaml:2:", "`registry.example/none:1` has no dpkg", "hello"]);
}

#[test]
fn a_base_of_docker_runs_its_triggers_in_the_child_and_is_named_in_ocis_words() {
    let bench = on(BASE, "cmd: [/x]\n");
    let busybox = fs::read("/bin/busybox").expect("tests/run installs busybox-static");
    let image = TestImage::new()
        .layer([TarEntry::file("bin/busybox", 0o755, busybox), TarEntry::symlink("bin/sh", "busybox")])
        .config(json!({"OnBuild": ["RUN echo done >/done", "RUN [\"/bin/busybox\", \"touch\", \"/exec\"]"]}));
    image.write_layout(&bench.at("foreign"), "x").unwrap();
    to_docker(&bench.at("foreign"));
    bench.spec("app/image.yaml", "from: oci:../foreign\ncmd: [/x]\n");
    bench.build(&[]).success();
    let child = bench.manifest("app");
    let layers = child["layers"].as_array().unwrap();
    assert_eq!(layers[0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(layers.len(), 3);
    assert!(bench.listing("app").contains("exec") && bench.listing("app").contains("done"));
    assert_eq!(config_of(&bench, "app")["config"].get("OnBuild"), None);
}

/// Gives the documents of a layout Docker's media types.
fn to_docker(layout: &std::path::Path) {
    let blob =
        |digest: &Value| layout.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"));
    let mut index = read_json(&layout.join("index.json"));
    let mut manifest = read_json(&blob(&index["manifests"][0]["digest"]));
    manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    }
    let bytes = manifest.to_string();
    let digest = json!(content::Digest::of(bytes.as_bytes()).to_string());
    fs::write(blob(&digest), &bytes).unwrap();
    index["manifests"][0]["mediaType"] = manifest["mediaType"].clone();
    index["manifests"][0]["digest"] = digest;
    index["manifests"][0]["size"] = json!(bytes.len());
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn hostile_layers_are_refused_or_stay_inside() {
    let bench = on(BASE, "files: [{content: x, target: /way/x}]\n");
    let outside = bench.at("outside");
    fs::create_dir(&outside).unwrap();
    let way = TestImage::new().layer([
        TarEntry::symlink("way", outside.to_str().unwrap()),
        TarEntry::file("way/inside", 0o644, "x"),
        TarEntry::symlink("up", "../../../../../../../../etc"),
        TarEntry::file("up/inside", 0o644, "x"),
    ]);
    let up = TestImage::new().layer([TarEntry::file("../up", 0o644, "x")]);
    let link = TestImage::new().layer([TarEntry::hard_link("passwd", "/etc/passwd")]);
    let bomb = TestImage::new().layer([TarEntry::file("zero", 0o644, vec![0; 1 << 20])]);
    let names = ["registry.example/up:1", "registry.example/link:1", "registry.example/bomb:1"];
    let images = [(BASE, &way), (names[0], &up), (names[1], &link), (names[2], &bomb)];
    write_layout(&bench.at("oci"), &images).unwrap();
    bench.build(&[]).success();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was written outside of the image");
    for (name, why) in [(names[0], ".."), (names[1], "is not there")] {
        bench.spec("app/image.yaml", &format!("from: {name}\nfiles: [{{content: x, target: /x}}]\n"));
        bench.build(&[]).failure(1, &[why]);
    }
    // A configuration that lies about a layer must not get it into the cache under another's name.
    let config = bench.manifest("bomb")["config"]["digest"].as_str().unwrap().to_owned();
    let mut lying = read_json(&bench.blob(&config));
    lying["rootfs"]["diff_ids"][0] = json!(content::Digest::of(b"other").to_string());
    replace_config(&bench, "bomb", &lying);
    bench.spec("app/image.yaml", &format!("from: {}\nlabels: {{a: b}}\n", names[2]));
    bench.build(&[]).failure(1, &["app/image.yaml:1:7", "should hash to"]);
}

/// Puts another configuration under an image's name.
fn replace_config(bench: &Bench, image: &str, config: &Value) {
    let mut manifest = bench.manifest(image);
    let old = content::Digest::of(manifest.to_string().as_bytes()).to_string();
    let store = |value: &Value| {
        let bytes = value.to_string();
        let digest = content::Digest::of(bytes.as_bytes()).to_string();
        fs::write(bench.blob(&digest), &bytes).unwrap();
        (digest, bytes.len())
    };
    let (digest, size) = store(config);
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let (digest, size) = store(&manifest);
    let mut index = read_json(&bench.at("oci/index.json"));
    let entry = index["manifests"].as_array_mut().unwrap().iter_mut().find(|entry| entry["digest"] == old.as_str());
    let entry = entry.unwrap();
    entry["digest"] = json!(digest);
    entry["size"] = json!(size);
    fs::write(bench.at("oci/index.json"), index.to_string()).unwrap();
}

#[test]
fn an_image_that_buildah_made_is_a_base() {
    let bench = on("oci:../theirs", "run: [cat /etc/made >/copied]\n");
    fs::copy("/bin/busybox", bench.at("busybox")).unwrap();
    fs::write(
        bench.at("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/cat\nCOPY Dockerfile /etc/made\nENV A=b\n",
    )
    .unwrap();
    let storage = bench.at("storage");
    let storage =
        ["--root", storage.to_str().unwrap(), "--runroot", storage.to_str().unwrap(), "--storage-driver", "vfs"];
    let (context, target) = (bench.at(""), format!("oci:{}", bench.at("theirs").display()));
    let context = context.to_str().unwrap();
    let build = ["bud", "--isolation", "chroot", "-q", "-t", "made", context];
    tool("buildah", storage.iter().chain(&build));
    tool("buildah", storage.iter().chain(&["push", "-q", "made", target.as_str()]));
    bench.build(&[]).success();
    assert_eq!(bench.manifest("app")["layers"][0], only_manifest(&bench.at("theirs"))["layers"][0]);
    assert!(bench.listing("app").contains("copied"));
    assert!(config_of(&bench, "app")["config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
}

#[test]
fn a_base_is_pulled_from_a_registry_once_and_kept_by_its_digest() {
    let theirs = Bench::new();
    let image = TestImage::new().layer([TarEntry::file("etc/name", 0o644, "first")]);
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let name = format!("{address}/team/base:1");
    image.write_layout(&theirs.at("oci"), &name).unwrap();
    let serving =
        Background(theirs.drystone().args(["serve", "--listen", &address, "--name", &address]).spawn().unwrap());
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    let bench = on(&name, "labels: {a: b}\n");
    bench.build(&[]).success();
    assert_eq!(bench.manifest("app")["layers"], only_manifest(&theirs.at("oci"))["layers"]);
    // What was only pulled is neither listed nor pushed.
    assert!(!run(bench.drystone().arg("images")).success().stdout.contains("team/base"));
    bench.is_whole();
    drop(serving);
    bench.build(&["--no-cache"]).success();
    // Another layout, the same cache, and nobody to ask.
    fs::remove_dir_all(bench.at("oci")).unwrap();
    bench.build(&[]).failure(1, &["app/image.yaml:1:7", "cannot pull", &name]);
}
