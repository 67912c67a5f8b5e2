//! Dockerfiles in a family, among images with specs.

use std::fs;

use crate::support::family::{Bench, FAMILY, debs};

fn family() -> Bench {
    let bench = Bench::new();
    bench
        .archive(debs(), &[])
        .spec("family.yaml", FAMILY)
        .spec(
            "base/image.yaml",
            "from: scratch\nfiles: [{source: busybox, target: /bin/busybox, mode: \"0755\"}, {link: busybox, target: /bin/sh}]\n\
             env: {PATH: /bin}\n",
        )
        .spec("middle/Dockerfile", "FROM base\nCOPY note /note\nRUN busybox cat /note > /copied\nONBUILD RUN busybox touch /triggered\n")
        .spec("middle/note", "noted\n")
        .spec("leaf/image.yaml", "from: middle\nrun: [busybox cp /copied /again]\ncmd: [/bin/sh]\n")
        .spec("tool/Dockerfile", "FROM scratch\nCOPY --from=middle /copied /from-middle\nCOPY --from=leaf /again /from-leaf\n");
    fs::copy("/bin/busybox", bench.at("family/base/busybox")).expect("tests/run installs busybox-static");
    bench
}

#[test]
fn dockerfiles_and_specs_are_built_on_each_other() {
    let bench = family();
    bench.build(&[]).success();
    for (image, path, expected) in [
        ("middle", "copied", Some("noted\n")),
        ("middle", "triggered", None),
        ("leaf", "again", Some("noted\n")),
        ("leaf", "triggered", Some("")),
        ("tool", "from-middle", Some("noted\n")),
        ("tool", "from-leaf", Some("noted\n")),
    ] {
        assert_eq!(bench.file(image, path).as_deref(), expected, "{image} {path}");
    }
    let layers = |image: &str| bench.manifest(image)["layers"].as_array().unwrap().clone();
    assert_eq!(layers("middle")[..layers("base").len()], layers("base")[..]);
    assert_eq!(layers("leaf")[..layers("middle").len()], layers("middle")[..]);
    assert!(bench.build(&[]).success().stderr.contains("nothing to build"));
    // One of them, with what it needs.
    fs::remove_dir_all(bench.at("oci")).unwrap();
    bench.build(&["tool"]).success();
    assert_eq!(bench.digests().lines().count(), 4, "{}", bench.digests());
    bench.is_whole();
}

#[test]
fn what_cannot_be_among_them_is_said_at_its_place() {
    let bench = family();
    bench.spec("leaf/image.yaml", "from: middle\npackages: [hello]\n");
    bench.build(&[]).failure(2, &["leaf/image.yaml:2:", "built from a Dockerfile"]);
    bench.spec("leaf/image.yaml", "from: middle\n").spec("middle/Dockerfile", "FROM leaf\n");
    bench.build(&[]).failure(2, &["its own ancestor", "leaf", "middle"]);
    bench.spec("middle/Dockerfile", "FROM base\nRUNN x\n");
    bench.build(&[]).failure(2, &["middle/Dockerfile:2:1", "RUNN"]);
}
