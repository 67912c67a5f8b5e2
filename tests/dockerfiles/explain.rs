//! `drystone explain -f Dockerfile`: what `build` with the same arguments would run again, and because of what.

use std::fs;

use serde_json::Value;

use super::with_base;
use crate::support::family::{Bench, walk};
use crate::support::program::run;

const DOCKERFILE: &str = "\
FROM base AS made
ARG V=1
RUN echo $V > /v
FROM base
WORKDIR /srv
COPY --from=made /v .
COPY list .
RUN cat v list > both
CMD [\"both\"]
";

/// A bench with the context `app`.
fn bench() -> Bench {
    let bench = with_base();
    fs::create_dir(bench.at("app")).unwrap();
    fs::write(bench.at("app/Dockerfile"), DOCKERFILE).unwrap();
    fs::write(bench.at("app/list"), "one\n").unwrap();
    bench
}

fn build(bench: &Bench, more: &[&str]) {
    run(bench.drystone().args(["build", "-t", "app", "app"]).args(more)).success();
}

/// The steps that would run, as `kind: reasons`.
fn would_run(bench: &Bench, arguments: &[&str]) -> Vec<String> {
    let explained = run(bench.drystone().args(["explain", "--format", "json"]).args(arguments)).success().stdout;
    let images: Vec<Value> = serde_json::from_str(&explained).unwrap();
    assert_eq!(images.len(), 1);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let reason = |reason: &Value| text(reason.get("input").unwrap_or(&reason["reason"]));
    let steps = images[0]["steps"].as_array().unwrap().iter().filter(|step| step["cached"] == false);
    let line = |step: &Value| {
        let reasons: Vec<String> = step["reasons"].as_array().unwrap().iter().map(reason).collect();
        format!("{}: {}", text(&step["kind"]), reasons.join(", "))
    };
    steps.map(line).collect()
}

#[test]
fn a_dockerfile_is_explained_with_the_arguments_of_its_build() {
    let bench = bench();
    let usual = ["-t", "app", "app"];
    let first = would_run(&bench, &usual);
    assert_eq!(first.len(), 6);
    assert!(first.iter().all(|step| step.ends_with(": new")), "{first:?}");
    build(&bench, &["--label", "a=b"]);
    let with = |more: &[&'static str]| [&usual[..], more].concat();
    assert_eq!(would_run(&bench, &with(&["--label", "a=b"])), [] as [&str; 0]);
    // As it was built, but for one thing.
    for (more, expected) in [
        (&["--label", "a=c"][..], &["config: Labels a"][..]),
        (&["--label", "a=b", "--target", "made"], &["config: Cmd, WorkingDir"]),
        (
            &["--label", "a=b", "--build-arg", "V=2"],
            &["run: argument V", "files: unforeseen", "files: unforeseen", "run: unforeseen"],
        ),
        // What a Dockerfile's users put behind `build` may stand here too.
        (&["--label", "a=b", "--push", "--iidfile", "id"], &[]),
    ] {
        assert_eq!(would_run(&bench, &with(more)), expected, "{more:?}");
    }
    assert!(!bench.at("id").exists());
    let no_cache = would_run(&bench, &with(&["--label", "a=b", "--no-cache"]));
    assert!(no_cache.len() == 6 && no_cache.iter().all(|step| step.ends_with(": no-cache")), "{no_cache:?}");
    fs::write(bench.at("app/list"), "two\n").unwrap();
    fs::rename(bench.at("app/Dockerfile"), bench.at("elsewhere")).unwrap();
    let text = run(bench.drystone().args(["explain", "-f", "elsewhere", "--label", "a=b"]).args(usual));
    let expected = "\
localhost/app:latest: 2 steps would run
   1  run (made: RUN echo $V > /v): cached
   2  workdir (WORKDIR /srv): cached
   3  files (COPY --from=made /v .): cached
   4  files (COPY list .): would run
        file /list content: sha256:2c8b08da5ce6 → sha256:27dd8ed44a83
   5  run (RUN cat v list > both): would run
        it is done over step 4, which is another one than before
   6  config (configuration): cached
";
    assert_eq!(text.success().stdout, expected);
}

#[test]
fn explaining_a_dockerfile_pulls_builds_and_writes_nothing() {
    let bench = bench();
    build(&bench, &[]);
    fs::write(bench.at("app/Dockerfile"), DOCKERFILE.replace("V=1", "V=2")).unwrap();
    let kept = |bench: &Bench| (walk(&bench.at("oci")), walk(&bench.at("cache")), walk(&bench.at("app")));
    let before = kept(&bench);
    assert_eq!(would_run(&bench, &["-t", "app", "app"]).len(), 4);
    fs::write(bench.at("absent"), "FROM registry.example/nowhere:1\nRUN true\n").unwrap();
    assert_eq!(would_run(&bench, &["-f", "absent", "app"]), ["dockerfile: absent"]);
    // It may be an image, although a stage has nearly this name: a build would know.
    fs::write(bench.at("like"), "FROM base AS golang-build\nFROM golang\n").unwrap();
    assert_eq!(would_run(&bench, &["-f", "like", "app"]), ["dockerfile: absent"]);
    assert!(kept(&bench) == before, "something was written");
    // Nor is there a layout afterwards where there was none.
    let elsewhere = ["-f", "absent", "app", "--layout", "new/oci", "--cache-dir", "new/cache"];
    assert_eq!(would_run(&bench, &elsewhere), ["dockerfile: absent"]);
    assert!(!bench.at("new/oci").exists());
}

#[test]
fn what_no_build_would_begin_with_is_an_error_for_explain_too() {
    let bench = bench();
    let explain = |arguments: &[&str]| run(bench.drystone().arg("explain").args(arguments));
    explain(&["-f", "none", "app"]).failure(2, &["there is no Dockerfile `none`"]);
    explain(&["-f", "app/Dockerfile", "app", "base"]).failure(2, &["one context"]);
    explain(&["app", "--target", "amde"]).failure(2, &["there is no stage `amde`", "made"]);
    explain(&["app", "--locked"]).failure(2, &["no lock"]);
    explain(&["oci"]).failure(2, &["neither a Dockerfile nor a family.yaml"]);
    fs::write(bench.at("app/Dockerfile"), "FROM base\nCOPY absent /\n").unwrap();
    explain(&["app"]).failure(2, &["Dockerfile:2:6", "`absent` is not there"]);
    fs::write(bench.at("app/Dockerfile"), "").unwrap();
    explain(&["app"]).failure(2, &["this file has no instructions"]);
}

#[test]
fn a_context_that_is_a_tar_is_explained_as_the_directory_is() {
    let bench = bench();
    build(&bench, &[]);
    fs::write(bench.at("app/list"), "two\n").unwrap();
    run(std::process::Command::new("tar").args(["-cf", "app.tar", "-C", "app", "."]).current_dir(bench.at("")))
        .success();
    let expected = ["files: file /list content", "run: below"];
    assert_eq!(would_run(&bench, &["-t", "app", "app.tar"]), expected);
    assert_eq!(would_run(&bench, &["-t", "app", "app"]), expected);
    bench.is_whole();
}
