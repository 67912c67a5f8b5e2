//! Images that go round: pulled, copied between registries, layouts and archives, listed and deleted, with Debian's
//! `docker-registry` at the other end, skopeo and umoci as the judges.

use std::fs;

use serde_json::Value;

use crate::support::family::Bench;
use crate::support::program::{Background, Finished, docker_registry, repository, run, tool};

/// A layout with one image in it, and a registry that has it as `team/hello:latest`.
struct World {
    bench: Bench,
    registry: String,
    _process: Background,
}

impl World {
    fn new() -> Self {
        Self::with(&[])
    }

    /// Built with these flags.
    fn with(flags: &[&str]) -> Self {
        let bench = Bench::new();
        let (registry, process) = docker_registry(&bench.at(""));
        let world = Self { bench, registry, _process: process };
        run(world.bench.drystone().arg("build").arg(repository().join("specs/examples/hello")).args(flags)).success();
        world.run(&["push", "--to", &format!("{}/team", world.registry)]).success();
        world
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        run(self.bench.drystone().args(arguments))
    }

    /// Runs a command that prints JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(arguments).success();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
    }

    fn at(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry)
    }

    fn path(&self, name: &str) -> String {
        self.bench.at(name).display().to_string()
    }
}

/// The digest of the manifest, and that of the configuration, as skopeo sees them.
fn judged(place: &str) -> (String, String) {
    let insecure = if place.starts_with("docker://") { &["--tls-verify=false"][..] } else { &[] };
    let inspect = |more: &[&str]| tool("skopeo", [&["inspect"][..], insecure, more, &[place]].concat());
    let manifest = inspect(&["--format", "{{.Digest}}"]).trim().to_owned();
    let raw: Value = serde_json::from_str(&inspect(&["--raw"])).unwrap();
    (manifest, raw["config"]["digest"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_image_keeps_its_digest_wherever_it_is_copied() {
    let world = World::new();
    let source = world.at("team/hello:latest");
    let (digest, config) = judged(&format!("docker://{source}"));
    let copied = world.json(&["copy", "--format", "json", &source, &world.at("other/hello:v1")]);
    assert_eq!(copied["digest"], digest.as_str());
    assert!(copied["totals"]["mounted_bytes"].as_u64().unwrap() > 0, "{copied}");
    assert_eq!(copied["totals"]["copied_bytes"], 0, "within a registry nothing is sent: {copied}");
    assert_eq!(judged(&format!("docker://{}", world.at("other/hello:v1"))).0, digest);

    let (archive, saved) = (world.path("hello.tar"), world.path("saved.tar"));
    world.run(&["copy", &source, &format!("oci-archive:{archive}")]).success();
    assert_eq!(judged(&format!("oci-archive:{archive}")).0, digest);
    world.run(&["copy", &format!("oci-archive:{archive}"), &format!("oci:{}:v7", world.path("layout"))]).success();
    assert_eq!(judged(&format!("oci:{}:v7", world.path("layout"))).0, digest);
    tool("umoci", ["stat", "--image", &format!("{}:v7", world.path("layout"))]);
    let unpacked = world.path("unpacked");
    tool("umoci", ["unpack", "--rootless", "--image", &format!("{}:v7", world.path("layout")), &unpacked]);
    assert!(world.bench.at("unpacked/rootfs/hello.txt").exists());
    let back = world.at("back/hello:v2");
    world.run(&["copy", &format!("oci:{}:v7", world.path("layout")), &back]).success();
    assert_eq!(judged(&format!("docker://{back}")).0, digest);

    // Docker's archive has no manifest, but the configuration is the image's identity.
    world.run(&["copy", &source, &format!("docker-archive:{saved}:hello:saved")]).success();
    assert_eq!(judged(&format!("docker-archive:{saved}")).1, config);
    let theirs = world.path("theirs.tar");
    let written = format!("docker-archive:{theirs}:localhost/hello:theirs");
    tool("skopeo", ["copy", "-q", "--src-tls-verify=false", &format!("docker://{source}"), &written]);
    for file in [&saved, &theirs] {
        let target = world.at("from-archive:v1");
        world.run(&["copy", &format!("docker-archive:{file}"), &target]).success();
        assert_eq!(judged(&format!("docker://{target}")).1, config);
    }
    tool("gzip", [&theirs]);
    world.run(&["copy", &format!("docker-archive:{theirs}.gz"), &format!("oci:{}:z", world.path("layout"))]).success();
    assert_eq!(judged(&format!("oci:{}:z", world.path("layout"))).1, config);
}

#[test]
fn images_of_other_tools_are_pulled_byte_for_byte() {
    let world = World::new();
    let theirs = world.at("docker/hello:v2s2");
    let source = format!("docker://{}", world.at("team/hello:latest"));
    let flags = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let target = format!("docker://{theirs}");
    tool("skopeo", [&flags[..], &["--format", "v2s2", "--dest-compress-format", "gzip", &source, &target]].concat());
    let (digest, config) = judged(&target);
    let pulled = world.json(&["pull", "--layout", "pulled", "--format", "json", &theirs]);
    assert_eq!(pulled["images"][0]["digest"], digest.as_str());
    assert!(pulled["images"][0]["media_type"].as_str().unwrap().contains("docker"), "{pulled}");
    let again = world.json(&["pull", "--layout", "pulled", "--format", "json", &theirs]);
    assert_eq!(again["totals"]["pulled_bytes"], 0, "{again}");
    // skopeo does not look for Docker's kinds in a layout, so it judges what goes back.
    let back = world.at("back/hello:v2s2");
    world.run(&["copy", &format!("oci:{}:{theirs}", world.path("pulled")), &back]).success();
    assert_eq!(judged(&format!("docker://{back}")), (digest, config));
    assert!(world.run(&["images", "--layout", "pulled"]).success().stdout.contains("docker/hello"));
    let failed = world.run(&["pull", "--layout", "pulled", "--platform", "linux/s390x", &theirs]);
    failed.failure(1, &["has no image for linux/s390x; it has images for: linux/amd64", "--platform"]);
}

#[test]
fn what_a_registry_has_is_listed_and_deleted() {
    let world = World::new();
    let repository = world.at("team/hello");
    for tag in ["a", "b"] {
        world.run(&["copy", &world.at("team/hello:latest"), &format!("{repository}:{tag}")]).success();
    }
    assert_eq!(world.run(&["tags", &repository]).success().stdout, "a\nb\nlatest\n");
    assert_eq!(world.json(&["ls", "--format", "json", &repository])["tags"].as_array().unwrap().len(), 3);
    assert_eq!(world.run(&["catalog", &world.registry]).success().stdout, "team/hello\n");
    world.run(&["tags", &world.at("nobody")]).failure(1, &["has no repository `nobody`", "drystone catalog"]);
    world.run(&["tags", &format!("{repository}:a")]).failure(2, &["without a tag"]);
    world.run(&["delete", &repository]).failure(2, &["a tag or a digest"]);
    // This registry deletes manifests only; nothing more is deleted than was named.
    let (digest, _) = judged(&format!("docker://{repository}:a"));
    world
        .run(&["delete", &format!("{repository}:a")])
        .failure(1, &["DIGEST_INVALID", &format!("{repository}@{digest}")]);
    assert_eq!(world.run(&["tags", &repository]).success().stdout, "a\nb\nlatest\n");
    let image = format!("{repository}@{digest}");
    let absent = format!("{repository}@sha256:{}", "0".repeat(64));
    // What was deleted is said although something failed.
    let both = world.run(&["delete", "--format", "json", &image, &absent]).failure(1, &["is not there"]);
    assert_eq!(serde_json::from_str::<Value>(&both.stdout).unwrap()["deleted"], serde_json::json!([image]));
    assert_eq!(world.run(&["tags", &repository]).success().stdout, "");
    world.run(&["delete", &format!("{repository}@{digest}")]).failure(1, &["is not there"]);
}

#[test]
fn what_is_said_about_an_image_comes_along_if_asked_for() {
    let world = World::with(&["--sbom", "spdx"]);
    let source = world.at("team/hello:latest");
    let said = world.json(&["referrers", "--format", "json", &source]);
    let count = said["referrers"].as_array().unwrap().len();
    assert_eq!(count, 1, "{said}");
    let without = world.json(&["copy", "--format", "json", &source, &world.at("without:v1")]);
    assert_eq!(without["referrers"], 0);
    let with = world.json(&["copy", "-r", "--format", "json", &source, &world.at("with:v1")]);
    assert_eq!(with["referrers"], count);
    let there = world.json(&["referrers", "--format", "json", &world.at("with:v1")]);
    assert_eq!(there["referrers"].as_array().unwrap().len(), count);
    world.run(&["copy", "-r", &source, &format!("oci:{}", world.path("kept"))]).success();
    let back =
        world.json(&["copy", "-r", "--format", "json", &format!("oci:{}", world.path("kept")), &world.at("back:v1")]);
    assert_eq!(back["referrers"], count, "{back}");
    let archive = format!("oci-archive:{}", world.path("said.tar"));
    assert_eq!(world.json(&["copy", "-r", "--format", "json", &source, &archive])["referrers"], count);
    let unpacked = world.json(&["copy", "-r", "--format", "json", &archive, &world.at("unpacked:v1")]);
    assert_eq!(unpacked["referrers"], count, "{unpacked}");
    let dockers = format!("docker-archive:{}", world.path("said-docker.tar"));
    world.run(&["copy", "-r", &source, &dockers]).failure(1, &["cannot hold what is said about an image"]);
}

#[test]
fn archives_that_are_damaged_or_somebody_elses_are_refused() {
    let world = World::new();
    let archive = world.path("hello.tar");
    world.run(&["copy", &world.at("team/hello:latest"), &format!("oci-archive:{archive}")]).success();
    let whole = fs::read(&archive).unwrap();
    let target = format!("oci:{}:x", world.path("target"));
    let refused = |bytes: &[u8], kind: &str| {
        fs::write(&archive, bytes).unwrap();
        world.run(&["copy", &format!("{kind}:{archive}"), &target]).failure(1, &["cannot be read as", "hello.tar"]);
    };
    refused(b"", "oci-archive");
    refused(b"no tar", "oci-archive");
    refused(&whole, "docker-archive");
    refused(&whole[..whole.len() / 2], "oci-archive");
    let mut flipped = whole.clone();
    // The layer is the last blob but for its end: a byte of some blob is another one.
    let place = whole.len() - 3 * 512 - 100;
    let place = whole[..place].iter().rposition(|byte| *byte != 0).unwrap();
    flipped[place] ^= 1;
    refused(&flipped, "oci-archive");
    world.run(&["copy", "oci-archive:absent.tar", &target]).failure(1, &["absent.tar"]);
    world.run(&["copy", "redis", &target]).failure(2, &["no place for an image"]);
    world.run(&["copy", "docker-daemon:redis", &target]).failure(2, &["docker-archive:"]);
    let incoming = world.bench.at("target/.store/incoming");
    assert!(!incoming.exists() || fs::read_dir(incoming).unwrap().next().is_none(), "nothing is left");
}

#[test]
fn a_mirror_stands_in_for_a_registry_that_cannot_be_reached() {
    let world = World::new();
    let (digest, _) = judged(&format!("docker://{}", world.at("team/hello:latest")));
    // Nobody has the first name, and Docker's is not asked since the mirror has the image.
    let mirrors =
        [("registry.invalid", format!("registry.invalid={}", world.registry)), ("docker.io", world.registry.clone())];
    for (registry, mirror) in mirrors {
        let (layout, image) = (world.path(registry), format!("{registry}/team/hello:latest"));
        let pull = ["pull", &image, "--layout", &layout, "--format", "json", "--registry-mirror", &mirror];
        assert!(world.run(&pull).success().stdout.contains(&digest), "{registry}");
    }
    run(world.bench.drystone().args(["pull", "registry.invalid/team/hello", "--registry-mirror", "/path"]))
        .failure(2, &["--registry-mirror", "is not a registry"]);
}
