//! What a build says: results on standard output, everything else on standard error, and files for programs.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::family::{Bench, debs, read_json};
use crate::support::program::run;

fn bench() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench
}

#[test]
fn standard_output_has_the_images_and_nothing_else() {
    let bench = bench();
    let first = bench.build(&[]).success();
    let names: Vec<&str> = first.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["localhost:5100/base:v1", "localhost:5100/app:v1", "localhost:5100/worker:v1"]);
    assert!(first.stdout.lines().all(|line| line.split(" sha256:").nth(1).is_some_and(|hex| hex.len() == 64)));
    assert!(
        first.stderr.contains("base: 2 packages") && first.stderr.contains("built 3 of 3 images"),
        "{}",
        first.stderr
    );
    let again = bench.build(&[]).success();
    assert_eq!(again.stdout, first.stdout);
    assert!(again.stderr.contains("nothing to build: all 3 images are up to date"), "{}", again.stderr);
    let quiet = bench.build(&["--quiet"]).success();
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (first.stdout, ""));
}

#[test]
fn some_images_are_built_with_what_they_stand_on() {
    let bench = bench();
    let built = bench.build(&["a*"]).success();
    assert_eq!(built.stdout.lines().count(), 2, "{}", built.stdout);
    assert!(!bench.digests().contains("worker"));
    let tagged = bench.build(&["worker", "--tag", "v9", "--registry", "registry.example:7000"]).success();
    assert!(tagged.stdout.contains("registry.example:7000/worker:v9 sha256:"), "{}", tagged.stdout);
}

#[test]
fn the_metadata_file_has_exactly_the_documented_keys() {
    let bench = bench();
    for steps_cached in [false, true] {
        bench.build(&["--metadata-file", "metadata.json"]).success();
        let metadata = read_json(&bench.at("metadata.json"));
        assert_eq!(keys(&metadata), ["images", "totals"]);
        let totals = "bytes layers mounted_bytes pushed_bytes seconds unique_bytes unique_layers";
        assert_eq!(keys(&metadata["totals"]).join(" "), totals);
        let images = metadata["images"].as_array().unwrap();
        assert_eq!(images.len(), 3);
        for image in images {
            let expected = "config_digest digest layers name reference size steps virtual_size";
            assert_eq!(keys(image).join(" "), expected);
            for layer in image["layers"].as_array().unwrap() {
                let expected = "diff_id digest from media_type packages size uncompressed_size";
                assert_eq!(keys(layer).join(" "), expected);
            }
            for step in image["steps"].as_array().unwrap() {
                assert_eq!(keys(step).join(" "), "cached id kind seconds");
                assert_eq!(step["cached"], steps_cached, "{step}");
            }
        }
        let base = &images[0];
        assert_eq!((&base["name"], &base["reference"]), (&"base".into(), &"localhost:5100/base:v1".into()));
        assert_eq!(base["layers"][0]["packages"], serde_json::json!(["hello=1.0-1", "libhello=1.2"]));
        assert_eq!(base["layers"][0]["from"], "base");
        let kinds: Vec<&Value> = images[1]["steps"].as_array().unwrap().iter().map(|step| &step["kind"]).collect();
        assert_eq!(kinds, ["packages", "configure", "files", "config"]);
        let digests: BTreeSet<&str> = images
            .iter()
            .flat_map(|image| image["layers"].as_array().unwrap())
            .map(|l| l["digest"].as_str().unwrap())
            .collect();
        assert_eq!(metadata["totals"]["unique_layers"], digests.len());
    }
}

#[test]
fn a_metadata_file_that_cannot_be_written_is_an_error() {
    bench()
        .build(&["--metadata-file", "no/such/directory/metadata.json"])
        .failure(1, &["cannot write `no/such/directory"]);
}

#[test]
fn raw_progress_is_an_object_a_line() {
    let bench = bench();
    let built = run(bench.drystone().args(["--progress", "rawjson", "build", "family"])).success();
    let summary = |line: &&str| line.starts_with("built ");
    let lines: Vec<&str> = built.stderr.lines().filter(|line| !summary(line)).collect();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(named("image-finished"), 3);
    assert_eq!(named("step-finished"), 5);
    let fetched: u64 =
        events.iter().filter(|event| event["event"] == "fetch-progress").map(|e| e["bytes"].as_u64().unwrap()).sum();
    let wanted: u64 =
        events.iter().filter(|event| event["event"] == "fetch-started").map(|e| e["bytes"].as_u64().unwrap()).sum();
    assert!(wanted > 300_000 && fetched == wanted, "{fetched} of {wanted}");
}

#[test]
fn no_colours_reach_a_file_and_they_come_when_asked_for() {
    let bench = bench();
    bench.spec("app/image.yaml", "from: bsae\n");
    assert!(!bench.build(&[]).failure(2, &["bsae"]).stderr.contains('\u{1b}'));
    assert!(bench.build(&["--color", "always"]).failure(2, &["bsae"]).stderr.contains('\u{1b}'));
}

#[test]
fn help_goes_to_standard_output_and_names_the_exit_codes() {
    let help = run(bench().drystone().arg("--help")).success();
    assert!(help.stderr.is_empty() && help.stdout.contains("Exit codes: 0 done; 1 "), "{}", help.stdout);
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
