//! `drystone explain`: which steps would run again, and because of what.

use std::fs;

use fixtures::DebBuilder;
use serde_json::Value;

use crate::support::family::{Bench, FAMILY, walk};
use crate::support::program::{Finished, run};

/// `app` as it is built first: a step of each kind.
const APP: &str = "\
from: base
packages: [tool]
groups: [{name: workers, gid: 700}]
users: [{name: worker, uid: 700, group: workers}]
files: [{source: greeting, target: /etc/greeting}]
run:
  - command: echo done > /done
    mounts: [{type: bind, source: input, target: /input}]
env: {MODE: plain}
cmd: [tool]
";

/// A family with a shell in `base`, and `app` with a step of each kind on it.
fn bench() -> Bench {
    let bench = Bench::new();
    bench
        .spec("family.yaml", FAMILY)
        .spec("base/image.yaml", "from: scratch\npackages: [shell]\nenv: {PATH: /bin}\n")
        .spec("app/image.yaml", APP)
        .spec("app/greeting", "hello\n")
        .spec("app/input", "input\n");
    archive(&bench, "1.0");
    bench
}

/// The archive with this version of `tool`.
fn archive(bench: &Bench, version: &str) {
    let busybox = fs::read("/bin/busybox").expect("tests/run installs busybox-static");
    let accounts = ["passwd", "group", "shadow", "gshadow"];
    let mut shell = DebBuilder::new("shell", "1").file("bin/busybox", 0o755, busybox).symlink("bin/sh", "busybox");
    for file in accounts {
        shell = shell.file(&format!("etc/{file}"), 0o644, "");
    }
    bench.archive([shell.build(), DebBuilder::new("tool", version).file("usr/bin/tool", 0o755, version).build()], &[]);
    if bench.at("family/drystone.lock").exists() {
        bench.lock(&["--update"]).success();
    }
}

fn explain(bench: &Bench, more: &[&str]) -> Finished {
    run(bench.drystone().args(["explain", "family", "app"]).args(more)).success()
}

/// The steps of `app` and of what it is built on.
fn steps(bench: &Bench, more: &[&str]) -> Vec<Value> {
    let explained = explain(bench, &[&["--format", "json"], more].concat());
    let images: Vec<Value> = serde_json::from_str(&explained.stdout).unwrap();
    images[0]["steps"].as_array().unwrap().clone()
}

/// The first step that would run, as `kind: inputs that changed`.
#[track_caller]
fn first(steps: &[Value]) -> String {
    let step = steps.iter().find(|step| step["cached"] == false).expect("a step that would run");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let reasons = step["reasons"].as_array().unwrap();
    let inputs: Vec<String> =
        reasons.iter().map(|reason| text(reason.get("input").unwrap_or(&reason["reason"]))).collect();
    format!("{}: {}", text(&step["kind"]), inputs.join(", "))
}

#[test]
fn nothing_is_cached_before_the_first_build_and_everything_after_it() {
    let bench = bench();
    assert_eq!(first(&steps(&bench, &[])), "packages: new");
    assert!(!bench.at("oci").exists(), "explaining makes no layout");
    bench.build(&[]).success();
    let kinds: Vec<String> = steps(&bench, &[]).iter().map(|step| step["kind"].as_str().unwrap().to_owned()).collect();
    let expected =
        ["packages", "configure", "config", "packages", "configure", "groups", "users", "files", "run", "config"];
    assert_eq!(kinds, expected);
    assert!(steps(&bench, &[]).iter().all(|step| step["cached"] == true));
    let text = explain(&bench, &[]).stdout;
    assert!(text.starts_with("localhost:5100/app:v1: nothing would run\n"), "{text}");
}

/// A change that somebody makes, the arguments of the next build, and what is told of it.
type Case = (&'static str, fn(&Bench), &'static [&'static str], &'static str);

#[test]
fn each_kind_of_change_is_named() {
    let cases: [Case; 12] = [
        ("a package", |bench| archive(bench, "1.1"), &[], "packages: package tool"),
        ("a group", |bench| change(bench, "gid: 700", "gid: 701"), &[], "groups: group workers"),
        ("a user", |bench| change(bench, "uid: 700", "uid: 701"), &[], "users: user worker"),
        ("a file", |bench| rewrite(bench, "app/greeting", "good morning\n"), &[], "files: file /etc/greeting content"),
        (
            "a mode",
            |bench| change(bench, "target: /etc/greeting", "target: /etc/greeting, mode: \"0600\""),
            &[],
            "files: file /etc/greeting mode",
        ),
        ("a command", |bench| change(bench, "echo done", "echo finished"), &[], "run: command line"),
        (
            "a mounted file",
            |bench| rewrite(bench, "app/input", "other\n"),
            &[],
            "run: mount /input: file /shown content",
        ),
        ("a variable", |bench| change(bench, "MODE: plain", "MODE: fancy"), &[], "config: Env"),
        ("a command of the image", |bench| change(bench, "cmd: [tool]", "cmd: [tool, -v]"), &[], "config: Cmd"),
        ("the encoder", |_| {}, &["--compression", "zstd"], "packages: encoder"),
        ("no cache", |_| {}, &["--no-cache"], "packages: no-cache"),
        (
            "a variable of the parent",
            |bench| rewrite(bench, "base/image.yaml", "from: scratch\npackages: [shell]\nenv: {PATH: /bin:/usr/bin}\n"),
            &[],
            "config: Env",
        ),
    ];
    let bench = bench();
    bench.build(&[]).success();
    for (what, make, arguments, expected) in cases {
        bench
            .spec("app/image.yaml", APP)
            .spec("app/greeting", "hello\n")
            .spec("app/input", "input\n")
            .spec("base/image.yaml", "from: scratch\npackages: [shell]\nenv: {PATH: /bin}\n");
        archive(&bench, "1.0");
        make(&bench);
        assert_eq!(first(&steps(&bench, arguments)), expected, "{what}");
    }
}

fn rewrite(bench: &Bench, path: &str, text: &str) {
    bench.spec(path, text);
}

fn change(bench: &Bench, from: &str, to: &str) {
    assert!(APP.contains(from), "{from}");
    bench.spec("app/image.yaml", &APP.replace(from, to));
}

#[test]
fn what_follows_a_changed_step_says_so_and_what_was_lost_is_not_called_changed() {
    let bench = bench();
    bench.build(&[]).success();
    archive(&bench, "1.1");
    let text = explain(&bench, &[]).stdout;
    for line in ["package tool: 1.0 → 1.1", "it is done over step 4, which is another one than before"] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    archive(&bench, "1.0");
    fs::remove_dir_all(bench.at("cache/layers")).unwrap();
    fs::remove_dir_all(bench.at("oci")).unwrap();
    assert_eq!(first(&steps(&bench, &[])), "packages: lost");
    let epoch =
        run(bench.drystone().args(["explain", "family", "app", "--format", "json"]).env("SOURCE_DATE_EPOCH", "1"));
    let images: Vec<Value> = serde_json::from_str(&epoch.success().stdout).unwrap();
    assert_eq!(first(images[0]["steps"].as_array().unwrap()), "packages: SOURCE_DATE_EPOCH");
}

#[test]
fn explaining_changes_nothing_and_a_wrong_name_is_an_error() {
    let bench = bench();
    bench.build(&[]).success();
    let before = walk(&bench.at("oci"));
    archive(&bench, "1.1");
    explain(&bench, &[]);
    assert_eq!(walk(&bench.at("oci")), before);
    run(bench.drystone().args(["explain", "family", "absent"])).failure(2, &["called `absent`", "app, base"]);
}
