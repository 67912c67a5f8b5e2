//! Dockerfiles in a family, among images with specs.

use std::fs;

use serde_json::Value;

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::run;

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

#[test]
fn a_lock_has_what_dockerfiles_are_built_on_and_take_files_from() {
    let bench = super::with_base();
    bench
        .spec("family.yaml", "drystone: 1\nregistry: localhost:5100\ntag: v1\n")
        .spec("own/Dockerfile", "FROM localhost/base:latest\nCMD [\"x\"]\n")
        .spec("taker/Dockerfile", "FROM own AS made\nFROM scratch\nCOPY --from=base /bin/busybox /busybox\n");
    let locked = bench.lock(&[]).success();
    assert!(
        locked.stdout.contains("localhost/base:latest") && !locked.stdout.contains("parent own"),
        "{}",
        locked.stdout
    );
    let text = bench.lock_text();
    let parents: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("parent ")?.split(' ').next()).collect();
    assert_eq!(parents, ["base", "localhost/base:latest"]);
    bench.build(&["--locked"]).success();
    bench.lock(&["--locked"]).success();
    // They travel with the family.
    run(bench.drystone().args(["bundle", "save", "family.tar", "family", "--with-sources"])).success();
    let there = ["--layout", "there/oci", "--cache-dir", "there/cache"];
    run(bench.drystone().args(["bundle", "load", "family.tar", "there/family"]).args(there)).success();
    let rebuilt =
        run(bench.drystone().args(["build", "there/family", "--offline", "--locked", "--no-cache"]).args(there));
    let digests = bench.digests();
    assert!(rebuilt.success().stdout.lines().all(|line| digests.contains(line)), "{digests}");
    bench.spec("own/Dockerfile", "FROM localhost/other:latest\n");
    bench.lock(&["--locked"]).failure(1, &["own/Dockerfile:1:6", "localhost/other:latest"]);
}

/// The steps that would run for an image, as `image kind: reasons`.
fn would_run(bench: &Bench, image: &str) -> Vec<String> {
    let explained = run(bench.drystone().args(["explain", "family", image, "--format", "json"])).success().stdout;
    let images: Vec<Value> = serde_json::from_str(&explained).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let reason = |reason: &Value| text(reason.get("input").unwrap_or(&reason["reason"]));
    let steps = images[0]["steps"].as_array().unwrap().iter().filter(|step| step["cached"] == false);
    let line = |step: &Value| {
        let reasons: Vec<String> = step["reasons"].as_array().unwrap().iter().map(reason).collect();
        format!("{} {}: {}", text(&step["image"]), text(&step["kind"]), reasons.join(", "))
    };
    steps.map(line).collect()
}

#[test]
fn what_would_run_of_dockerfiles_is_explained_step_by_step() {
    let bench = family();
    bench.spec(
        "app/Dockerfile",
        "FROM middle AS made\nARG V=1\nRUN busybox echo $V > /v\n\
         FROM base\nWORKDIR /srv\nCOPY --from=made /v .\nCOPY list .\nRUN busybox cat v list > both\nCMD [\"both\"]\n",
    );
    bench.spec("app/list", "one\n");
    let first = would_run(&bench, "app");
    assert!(first.iter().all(|step| step.ends_with(": new")), "{first:?}");
    bench.build(&[]).success();
    for image in ["app", "leaf", "tool"] {
        assert_eq!(would_run(&bench, image), [] as [&str; 0], "{image}");
    }
    // One file: what is above it stays, and so does the other stage.
    bench.spec("app/list", "two\n");
    assert_eq!(would_run(&bench, "app"), ["app files: file /list content", "app run: below"]);
    bench.spec("app/list", "one\n");
    // An argument of a stage that is copied from: nobody knows what its command will make of it.
    let dockerfile = fs::read_to_string(bench.at("family/app/Dockerfile")).unwrap();
    bench.spec("app/Dockerfile", &dockerfile.replace("V=1", "V=2").replace("[\"both\"]", "[\"v\"]"));
    let expected = [
        "app run: argument V",
        "app files: unforeseen",
        "app files: unforeseen",
        "app run: unforeseen",
        "app config: Cmd",
    ];
    assert_eq!(would_run(&bench, "app"), expected);
    let text = run(bench.drystone().args(["explain", "family", "app"])).success().stdout;
    assert!(text.contains("run (made: RUN busybox echo $V > /v): would run"), "{text}");
    bench.spec("app/Dockerfile", &dockerfile);
    // Through a Dockerfile into a spec, and back.
    bench.spec("middle/note", "another\n");
    assert_eq!(
        would_run(&bench, "tool"),
        [
            "middle files: file /note content",
            "middle run: below",
            "leaf run: below",
            "leaf run: below",
            "tool files: unforeseen",
            "tool files: unforeseen"
        ]
    );
    bench.build(&[]).success();
    assert_eq!(would_run(&bench, "tool"), [] as [&str; 0]);
    // What is not here is not pulled for an answer.
    bench.spec("tool/Dockerfile", "FROM registry.example/nowhere:1\nRUN true\n");
    assert_eq!(would_run(&bench, "tool"), ["tool dockerfile: absent"]);
}
