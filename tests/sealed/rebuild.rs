//! `drystone verify --rebuild`: whether an image has the same bytes when it is built again, and if not, whose differ.

use std::fs;

use fixtures::{Deb, DebBuilder};
use serde_json::{Value, json};

use crate::build::same_bytes::all_bytes;
use crate::support::family::{Bench, FAMILY, debs, overwrite, walk};
use crate::support::program::{Finished, run};

fn verify(bench: &Bench, more: &[&str]) -> Finished {
    run(bench.drystone().args(["verify", "--rebuild", "family"]).args(more))
}

/// A shell that runs without libraries.
fn busybox() -> Deb {
    let package = DebBuilder::new("busybox", "1").directory("srv", 0o755);
    package.file("usr/bin/busybox", 0o755, fs::read("/bin/busybox").unwrap()).build()
}

#[test]
fn an_image_that_is_the_same_again_is_said_to_be_and_nothing_is_left_behind() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    verify(&bench, &[]).failure(1, &["oci` is not an OCI image layout"]);
    bench.build(&[]).success();
    let (before, cached) = (all_bytes(&bench), walk(&bench.at("cache")).len());
    let verified = verify(&bench, &[]).success();
    let digests = bench.digests();
    for (image, line) in ["app", "base", "worker"].iter().zip(digests.lines()) {
        let expected = format!("{image}: the same, {}\n", line.split(' ').next_back().unwrap());
        assert!(verified.stdout.contains(&expected), "no `{expected}` in\n{}", verified.stdout);
    }
    assert!(all_bytes(&bench) == before);
    assert!(walk(&bench.at("cache")).len() <= cached + 1, "{:?}", walk(&bench.at("cache/incoming")));
    bench.is_whole();
    // Each step was done anew.
    assert!(verified.stderr.contains("packages"), "{}", verified.stderr);
    bench.spec("more/image.yaml", "from: base\n");
    let absent = verify(&bench, &["more"]).failure(1, &["1 of 2 images are not in the layout"]);
    assert!(absent.stdout.contains("more: not in the layout\n"), "{}", absent.stdout);
}

#[test]
fn an_image_of_another_registry_may_be_called_like_one_of_the_family() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&["base", "--registry", "others.example"]).success();
    bench.spec("on/image.yaml", "from: others.example/base:v1\npackages: [greeter]\n");
    bench.build(&[]).success();
    let verified = verify(&bench, &["on"]).success();
    assert!(verified.stdout.contains("on: the same, "), "{}", verified.stdout);
}

#[test]
fn a_command_that_gives_other_bytes_each_time_is_found_with_its_file() {
    let bench = Bench::new();
    let command = "cat /proc/sys/kernel/random/uuid > /srv/random";
    bench
        .archive([busybox()], &[])
        .spec("family.yaml", FAMILY)
        .spec("base/image.yaml", "from: scratch\npackages: [busybox]\nenv: {PATH: /usr/bin}\n")
        .spec("random/image.yaml", &format!("from: base\nrun:\n  - [busybox, sh, -c, 'busybox {command}']\n"));
    bench.build(&[]).success();
    let found = verify(&bench, &["--format", "json"]).failure(1, &["1 of 2 images differ"]);
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    let of = |name: &str| {
        let images = report["images"].as_array().unwrap();
        images.iter().find(|image| image["name"] == name).unwrap().clone()
    };
    assert_eq!(of("base")["result"], "same");
    let random = of("random");
    assert_eq!((&random["result"], &random["path"]), (&json!("different"), &json!("/srv/random")), "{random}");
    assert_eq!((&random["within"], &random["package"]), (&json!("content"), &Value::Null), "{random}");
    assert!(random["offset"].as_u64().unwrap() < 37, "{random}");
    let text = verify(&bench, &["random"]).failure(1, &["hint: "]).stdout;
    assert!(text.contains(", /srv/random differs from byte ") && text.contains(" of its content on ("), "{text}");
}

#[test]
fn a_file_of_a_package_is_found_with_its_package() {
    let tool = |content: &str| {
        let tool = DebBuilder::new("tool", "1").file("lib/tool/data", 0o644, content);
        vec![tool.build(), DebBuilder::new("aaa", "1").file("usr/share/aaa", 0o644, "a").build()]
    };
    let bench = Bench::with_image("tool, aaa");
    bench.archive(tool("the first one"), &[]);
    bench.build(&[]).success();
    // The archive has other bytes under the same version, and nobody remembers.
    bench.archive(tool("the other one"), &[]);
    fs::remove_file(bench.at("family/drystone.lock")).unwrap();
    fs::remove_dir_all(bench.at("cache")).unwrap();
    let text = verify(&bench, &[]).failure(1, &["1 of 1 images differ"]).stdout;
    assert!(
        text.contains(
            "layer 1 (drystone: 2 packages), /usr/lib/tool/data of tool=1 differs from byte 4 of its content"
        ),
        "{text}"
    );
    assert!(!bench.at("family/drystone.lock").exists());
}

#[test]
fn a_blob_that_the_disk_damaged_is_found() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    let layer = bench.manifest("hello")["layers"][0]["digest"].as_str().unwrap().to_owned();
    overwrite(&bench.blob(&layer), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let text = verify(&bench, &[]).failure(1, &["differ"]).stdout;
    assert!(text.contains("hello: layer 1 (drystone: 2 packages)"), "{text}");
}
