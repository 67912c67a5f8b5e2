//! Images for several platforms: one name, an index, and an image for each. skopeo, `docker-registry` and qemu are the
//! judges.

mod emulated;

use std::fs;

use fixtures::{AptRepository, DebBuilder, Suite};
use serde_json::Value;

use crate::support::family::{ARCHIVE_DATE, Bench, FAMILY, key, read_json};
use crate::support::program::{docker_registry, run, tool};

/// A family for two platforms, which runs nothing: a package that differs and a file that does not.
fn family() -> Bench {
    let bench = Bench::new();
    let package = |architecture: &str| {
        DebBuilder::new("hello", "1").architecture(architecture).file("usr/share/hello", 0o644, architecture).build()
    };
    let data = DebBuilder::new("data", "1").architecture("all").file("usr/share/data", 0o644, "same").build();
    let key = key(1);
    let date = jiff::Timestamp::from_second(ARCHIVE_DATE).unwrap();
    let suite = Suite::new("stable", date, &key).also_for("arm64");
    let archive = AptRepository::new().packages([package("amd64"), package("arm64"), data]);
    archive.write_suite(&bench.at("archive"), &suite).unwrap();
    bench
        .trust(&key)
        .spec("family.yaml", &format!("{FAMILY}  platforms: [linux/amd64, linux/arm64]\n"))
        .spec("base/image.yaml", "from: scratch\npackages: [hello, data]\n")
        .spec("app/image.yaml", "from: base\nfiles:\n  - {target: /srv/app, content: app}\ncmd: [work]\n");
    bench
}

/// The index that a name of the layout stands for: the platform and the digest of each image.
fn listed(bench: &Bench, image: &str) -> Vec<(String, String)> {
    let layout = read_json(&bench.at("oci/index.json"));
    let is_it = |entry: &&Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .is_some_and(|name| name.contains(&format!("/{image}:")))
    };
    let entry = layout["manifests"].as_array().unwrap().iter().find(is_it).unwrap();
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.index.v1+json");
    let index = read_json(&bench.blob(entry["digest"].as_str().unwrap()));
    let line = |entry: &Value| {
        let platform = &entry["platform"];
        let name = format!("{}/{}", platform["os"].as_str().unwrap(), platform["architecture"].as_str().unwrap());
        (name, entry["digest"].as_str().unwrap().to_owned())
    };
    index["manifests"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn a_family_for_two_platforms_has_an_index_under_each_name() {
    let bench = family();
    let built = bench.build(&["--metadata-file", "built.json"]).success();
    let mut lines: Vec<&str> = built.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n") + "\n", bench.digests());
    bench.is_whole();
    for image in ["base", "app"] {
        let platforms: Vec<String> = listed(&bench, image).into_iter().map(|(platform, _)| platform).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    }
    let oci = format!("oci:{}:localhost:5100/app:v1", bench.at("oci").display());
    for architecture in ["amd64", "arm64"] {
        let config = tool("skopeo", ["--override-arch", architecture, "inspect", "--config", &oci]);
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
    // What is the same on both is there once.
    let metadata = read_json(&bench.at("built.json"));
    let rows = metadata["images"].as_array().unwrap();
    let of_app: Vec<&Value> = rows.iter().filter(|row| row["name"] == "app").collect();
    assert_eq!(of_app.len(), 2);
    assert_eq!((&of_app[0]["platform"], &of_app[1]["platform"]), (&"linux/amd64".into(), &"linux/arm64".into()));
    assert_eq!(of_app[0]["index"], of_app[1]["index"]);
    let top = |row: &Value| row["layers"].as_array().unwrap().last().unwrap()["digest"].clone();
    assert_eq!(top(of_app[0]), top(of_app[1]));
    assert_ne!(of_app[0]["layers"][0], of_app[1]["layers"][0]);
    // And nothing is done twice.
    let again = bench.build(&["--locked"]).success();
    assert!(again.stderr.contains("nothing to build: all 4 images"), "{}", again.stderr);
}

#[test]
fn one_of_the_platforms_gives_the_image_that_the_index_lists_and_keeps_the_lock() {
    let bench = family();
    bench.build(&[]).success();
    let (listed, lock) = (listed(&bench, "app"), bench.lock_text());
    for line in ["image app linux/amd64", "image app linux/arm64", "main/binary-arm64/Packages", "hello 1 arm64"] {
        assert!(lock.contains(line), "no `{line}` in\n{lock}");
    }
    assert_eq!(lock.matches("package data 1 all").count(), 1, "{lock}");
    bench.build(&["--platform", "linux/arm64", "app", "--locked"]).success();
    assert!(bench.digests().contains(&format!("localhost:5100/app:v1 {}", listed[1].1)), "{}", bench.digests());
    bench.build(&["--platform", "linux/arm64"]).success();
    assert_eq!(bench.lock_text(), lock);
    bench.lock(&["--locked"]).success();
    // An update asks for both, whatever was built last.
    bench.lock(&["--update"]).success();
    assert_eq!(bench.lock_text(), lock);
    bench.build(&["--platform", "linux/s390x"]).failure(2, &["no image is for it", "linux/amd64, linux/arm64"]);
    bench.spec("base/image.yaml", "from: scratch\nplatforms: [linux/amd64]\npackages: [hello, data]\n");
    bench.build(&[]).failure(2, &["base is not for linux/arm64", "base/image.yaml:2:13"]);
}

#[test]
fn an_index_is_pushed_whole_and_only_once() {
    let bench = family();
    let (registry, _server) = docker_registry(&bench.at(""));
    bench.build(&["--registry", &registry, "--sbom", "spdx"]).success();
    let push = || run(bench.drystone().args(["push", "app"])).success();
    push();
    let target = format!("docker://{registry}/app:v1");
    for architecture in ["amd64", "arm64"] {
        let inspected =
            tool("skopeo", ["inspect", "--tls-verify=false", "--override-arch", architecture, "--config", &target]);
        let config: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
    let raw: Value =
        serde_json::from_str(&tool("skopeo", ["inspect", "--tls-verify=false", "--raw", &target])).unwrap();
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
    let again = push();
    assert!(again.stderr.contains("pushed 0 images, 1 were there; 0 B sent"), "{}", again.stderr);
}

#[test]
fn what_is_said_of_images_and_bundles_hold_for_all_platforms() {
    let bench = family();
    bench.build(&["--sbom", "spdx", "--provenance"]).success();
    for (platform, other) in [("linux/amd64", "arch=arm64"), ("linux/arm64", "arch=amd64")] {
        let bill = run(bench.drystone().args(["sbom", "base", "--platform", platform])).success().stdout;
        let own = format!("arch={}", platform.trim_start_matches("linux/"));
        assert!(bill.contains(&own) && !bill.contains(other), "{bill}");
    }
    // What was said stays said.
    let before = bench.digests();
    bench.build(&["--sbom", "spdx", "--provenance"]).success();
    assert_eq!(bench.digests(), before);
    run(bench.drystone().args(["bundle", "save", "family.tar", "family", "--with-sources"])).success();
    fs::create_dir(bench.at("air")).unwrap();
    let load = ["bundle", "load", "family.tar", "air/family", "--layout", "air/oci", "--cache-dir", "air/cache"];
    run(bench.drystone().args(load)).success();
    fs::remove_dir_all(bench.at("archive")).unwrap();
    let rebuild = ["build", "air/family", "--offline", "--locked", "--layout", "air/new", "--cache-dir", "air/cache"];
    let rebuilt = run(bench.drystone().env_remove("DRYSTONE_MIRROR").args(rebuild)).success().stdout;
    let images = |digests: &str| -> Vec<String> {
        let mut lines: Vec<String> = digests.lines().filter(|line| line.contains(":v1 ")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(images(&rebuilt), images(&before));
    let verified =
        run(bench.drystone().args(["verify", "--rebuild", "air/family", "--offline", "--layout", "air/new"]));
    let verified = verified.success().stdout;
    assert!(verified.contains("app (linux/arm64): the same") && verified.contains("app (linux/amd64): the same"));
}

#[test]
fn a_dockerfile_for_two_platforms_knows_for_which_it_is() {
    let bench = crate::dockerfiles::with_base();
    fs::create_dir_all(bench.at("context")).unwrap();
    for architecture in ["amd64", "arm64"] {
        fs::write(bench.at(&format!("context/tool-{architecture}")), architecture).unwrap();
    }
    // A stage of this machine may run; only what it makes differs.
    let dockerfile = "\
FROM --platform=$BUILDPLATFORM base AS make
ARG TARGETARCH
RUN echo made for $TARGETARCH >/made
FROM scratch
ARG TARGETARCH
COPY tool-$TARGETARCH /tool
COPY --from=make /made /made
";
    fs::write(bench.at("context/Dockerfile"), dockerfile).unwrap();
    let build = |platforms: &str, more: &[&str]| {
        let arguments = ["build", "context", "-t", "localhost:5100/two:v1", "--platform", platforms];
        run(bench.drystone().args(arguments).args(more))
    };
    build("linux/amd64,linux/arm64", &["--iidfile", "id"]).success();
    let images = listed(&bench, "two");
    assert_eq!(
        images.iter().map(|(platform, _)| platform.as_str()).collect::<Vec<_>>(),
        ["linux/amd64", "linux/arm64"]
    );
    let id = fs::read_to_string(bench.at("id")).unwrap();
    assert!(bench.digests().contains(&format!("localhost:5100/two:v1 {id}")));
    for architecture in ["amd64", "arm64"] {
        build(&format!("linux/{architecture}"), &["--output", "type=docker-archive,dest=image.tar"]).success();
        let unpack = "tar -xf image.tar && for layer in *.tar.gz; do tar -xzf $layer; done && cat made tool";
        let script = format!("mkdir -p {architecture} && cd {architecture} && mv ../image.tar . && {unpack}");
        let unpacked = run(std::process::Command::new("sh").current_dir(bench.at("")).args(["-c", &script])).success();
        assert_eq!(unpacked.stdout, format!("made for {architecture}\n{architecture}"));
    }
}

#[test]
fn without_an_emulator_the_first_command_is_named_before_anything_is_built() {
    let bench = family();
    bench.spec("family.yaml", &FAMILY.replace("defaults:\n", "defaults:\n  platforms: [linux/amd64, linux/riscv64]\n"));
    bench.spec("base/image.yaml", "from: scratch\nfiles:\n  - {target: /x, content: x}\n");
    bench.spec("app/image.yaml", "from: base\nrun:\n  - [/x]\n");
    let failed = bench.build(&[]);
    failed
        .failure(1, &["app/image.yaml:3:5", "programs for riscv64 cannot be run on this machine", "qemu-user-static"]);
    assert_eq!(bench.digests(), "");
}
