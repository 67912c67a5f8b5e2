//! `--cache-to` and `--cache-from`: what one machine did, another need not do.

use std::time::Duration;

use fixtures::http::{FileServer, Outage};
use fixtures::{Deb, DebBuilder};
use serde_json::Value;

use crate::support::family::{Bench, debs, overwrite, read_json, walk};
use crate::support::program::{Background, Finished, eventually, free_port, run};

/// A registry over the layout of a bench of its own.
struct Registry {
    bench: Bench,
    address: String,
    _serving: Background,
}

impl Registry {
    fn start() -> Self {
        let bench = Bench::new();
        let address = format!("127.0.0.1:{}", free_port());
        let serving = Background(bench.drystone().args(["serve", "--quiet", "--listen", &address]).spawn().unwrap());
        eventually("the registry listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
        });
        Self { bench, address, _serving: serving }
    }

    fn cache(&self) -> String {
        format!("{}/team/cache:main", self.address)
    }
}

/// A machine that has built nothing, with the family and an archive of these packages.
fn machine(debs: impl IntoIterator<Item = Deb>) -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs, &[]);
    bench
}

/// Builds from the archive behind a server. Returns which packages were fetched from it.
fn build(bench: &Bench, more: &[&str]) -> (Finished, Vec<String>) {
    let server = FileServer::start(bench.at("archive")).unwrap();
    let built = bench.build_from(&server.url(), more);
    let debs = server.paths().into_iter().filter(|path| path.ends_with(".deb"));
    let name = |path: String| path.rsplit('/').next().unwrap().split('_').next().unwrap().to_owned();
    let mut names: Vec<String> = debs.map(name).collect();
    names.sort();
    (built, names)
}

/// The steps that ran, as `image kind`.
fn ran(bench: &Bench) -> Vec<String> {
    let metadata = read_json(&bench.at("metadata.json"));
    let mut ran = Vec::new();
    for image in metadata["images"].as_array().unwrap() {
        let steps = image["steps"].as_array().unwrap().iter();
        let done = steps.filter(|step| step["cached"] == false && step["kind"] != "config");
        ran.extend(done.map(|step| format!("{} {}", image["name"].as_str().unwrap(), step["kind"].as_str().unwrap())));
    }
    ran
}

#[test]
fn a_machine_that_has_built_nothing_fetches_no_package_and_runs_no_step() {
    let registry = Registry::start();
    let first = machine(debs());
    let cache = format!("type=registry,ref={},mode=max", registry.cache());
    let (stored, fetched) = build(&first, &["--cache-to", &cache]);
    assert!(stored.success().stderr.contains("stored the results in the cache"));
    assert_eq!(fetched, ["greeter", "hello", "libhello"]);
    let fresh = machine(debs());
    let (built, fetched) = build(&fresh, &["--cache-from", &registry.cache(), "--metadata-file", "metadata.json"]);
    built.success();
    assert!(fetched.is_empty(), "{fetched:?}");
    assert!(ran(&fresh).is_empty(), "{:?}", ran(&fresh));
    assert_eq!(fresh.digests(), first.digests());
    fresh.is_whole();
    // What it took is its own from now on.
    run(fresh.drystone().args(["build", "family"])).success();
}

#[test]
fn with_one_package_changed_only_that_is_fetched_and_only_what_follows_is_done() {
    let registry = Registry::start();
    build(&machine(debs()), &["--cache-to", &registry.cache()]).0.success();
    let changed = || {
        let newer =
            DebBuilder::new("greeter", "2:3.1-1").depends("hello").file("usr/bin/greet", 0o755, "#!/bin/sh\n:\n");
        debs().into_iter().filter(|deb| !deb.file_name().starts_with("greeter")).chain([newer.build()])
    };
    let fresh = machine(changed());
    let arguments = ["--cache-from", &registry.cache(), "--metadata-file", "metadata.json"];
    let (built, fetched) = build(&fresh, &arguments);
    built.success();
    assert_eq!(fetched, ["greeter"]);
    assert_eq!(ran(&fresh), ["app packages", "app configure", "app files"]);
    let alone = machine(changed());
    build(&alone, &[]).0.success();
    assert_eq!(fresh.digests(), alone.digests());
    // One of two packages of a layer: the other one's piece is cut out of the layer that the cache has.
    let newer = || {
        let newer =
            DebBuilder::new("hello", "1.1-1").depends("libhello (>= 1)").file("usr/bin/hello", 0o755, "#!/bin/sh\n");
        debs().into_iter().filter(|deb| !deb.file_name().starts_with("hello")).chain([newer.build()])
    };
    let fresh = machine(newer());
    let (built, fetched) = build(&fresh, &arguments);
    built.success();
    assert_eq!(fetched, ["hello"]);
    let alone = machine(newer());
    build(&alone, &[]).0.success();
    assert_eq!(fresh.digests(), alone.digests());
}

#[test]
fn what_was_taken_can_be_given_on() {
    let registry = Registry::start();
    build(&machine(debs()), &["--cache-to", &registry.cache()]).0.success();
    let second = format!("{}/team/cache:second", registry.address);
    build(&machine(debs()), &["--cache-from", &registry.cache(), "--cache-to", &second]).0.success();
    let manifest = |tag: &str| {
        let name = format!("{}/team/cache:{tag}", registry.address);
        let index = read_json(&registry.bench.at("oci/index.json"));
        let entries = index["manifests"].as_array().unwrap();
        let entry = entries.iter().find(|entry| {
            let found = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            found.ends_with(name.split_once('/').unwrap().1)
        });
        read_json(&registry.bench.blob(entry.unwrap()["digest"].as_str().unwrap()))
    };
    let layers = |tag: &str| -> Vec<Value> { manifest(tag)["layers"].as_array().unwrap()[1..].to_vec() };
    assert_eq!(manifest("main")["artifactType"], "application/vnd.drystone.cache.v1");
    assert_eq!(layers("second"), layers("main"));
    assert!(build(&machine(debs()), &["--cache-from", &second]).1.is_empty());
}

#[test]
fn up_stores_no_layer_twice_in_its_registry() {
    let registry = Registry::start();
    let bench = machine(debs());
    let arguments = ["up", "family", "--once", "--registry", &registry.address, "--cache-to", &registry.cache()];
    run(bench.drystone().args(arguments)).success();
    let blobs = walk(&registry.bench.at("oci/blobs")).len();
    // Three images of a manifest and a configuration each, their layers, and of the cache: manifest, nothing, records.
    let layers: std::collections::BTreeSet<String> = ["base", "app", "worker"]
        .iter()
        .flat_map(|image| bench.manifest(image)["layers"].as_array().unwrap().clone())
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(blobs, 3 * 2 + layers.len() + 3);
}

#[test]
fn a_cache_that_is_absent_denied_or_damaged_is_a_warning_and_the_build_does_it_all() {
    let registry = Registry::start();
    let fresh = machine(debs());
    let (built, _) = build(&fresh, &["--cache-from", &registry.cache()]);
    let text = built.success().stderr;
    assert!(text.contains("warning: the cache") && text.contains("there is none"), "{text}");
    let server = FileServer::start(fresh.at("archive")).unwrap();
    server.fail(Outage::Status(403));
    let denied = format!("{}/cache:main", server.address());
    let (built, fetched) = build(&machine(debs()), &["--cache-from", &denied]);
    assert!(built.success().stderr.contains("is not used"));
    assert_eq!(fetched.len(), 3);
    build(&fresh, &["--cache-to", &registry.cache()]).0.success();
    let layer = fresh.manifest("base")["layers"][0]["digest"].as_str().unwrap().to_owned();
    overwrite(&registry.bench.blob(&layer), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let other = machine(debs());
    let (built, fetched) = build(&other, &["--cache-from", &registry.cache()]);
    let text = built.success().stderr;
    assert!(text.contains("warning: a layer of the remote cache cannot be used"), "{text}");
    assert!(fetched.contains(&"hello".to_owned()), "{fetched:?}");
    assert_eq!(other.digests(), fresh.digests());
    other.is_whole();
}

#[test]
fn what_cannot_be_stored_is_an_error_unless_that_is_allowed_and_a_wrong_spelling_is_one_of_usage() {
    let bench = machine(debs());
    let server = FileServer::start(bench.at("archive")).unwrap();
    server.fail(Outage::Status(403));
    let target = format!("{}/cache:main", server.address());
    build(&bench, &["--cache-to", &target]).0.failure(1, &["cannot be stored in the cache", "ignore-error=true"]);
    let allowed = format!("type=registry,ref={target},ignore-error=true");
    let text = build(&bench, &["--cache-to", &allowed]).0.success().stderr;
    assert!(text.contains("warning: nothing is stored in the cache"), "{text}");
    for (wrong, expected) in [("type=local,dest=/x", "dest=/x"), ("type=registry", "ref=REF"), ("No Name", "No Name")] {
        build(&bench, &["--cache-from", wrong]).0.failure(2, &["--cache-from", expected]);
    }
}

#[test]
fn dockerfiles_share_results_too() {
    let registry = Registry::start();
    let build = |flag: &str| {
        let bench = Bench::new();
        std::fs::create_dir(bench.at("context")).unwrap();
        std::fs::write(bench.at("context/Dockerfile"), "FROM scratch\nCOPY greeting /etc/\nWORKDIR /data\n").unwrap();
        std::fs::write(bench.at("context/greeting"), "hello\n").unwrap();
        let arguments =
            ["build", "-t", "localhost:5100/one:v1", flag, &registry.cache(), "--metadata-file", "metadata.json"];
        run(bench.drystone().args(arguments).arg("context")).success();
        bench
    };
    let first = build("--cache-to");
    assert_eq!(ran(&first).len(), 2, "{:?}", ran(&first));
    let fresh = build("--cache-from");
    assert!(ran(&fresh).is_empty(), "{:?}", ran(&fresh));
    assert_eq!(fresh.digests(), first.digests());
}
