//! `gc` and `verify`, also while builds go on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Registry, built, curl};
use crate::support::family::{Bench, noise};
use crate::support::program::{Finished, run};

fn gc(bench: &Bench, more: &[&str]) -> Finished {
    run(bench.drystone().arg("gc").args(more))
}

fn gc_json(bench: &Bench, more: &[&str]) -> serde_json::Value {
    serde_json::from_str(&gc(bench, &[&["--format", "json"][..], more].concat()).success().stdout).unwrap()
}

#[test]
fn what_an_image_had_before_it_changed_goes_and_the_rest_stays_whole() {
    let bench = built();
    assert_eq!(gc_json(&bench, &[])["layout"]["removed"].as_array().unwrap().len(), 0);
    bench.spec("app/entrypoint.sh", "#!/bin/sh\necho changed\n");
    bench.build(&[]).success();
    let dry = gc_json(&bench, &["--dry-run"]);
    // Of two images the manifest and the configuration, and the layer that both had.
    assert_eq!(dry["layout"]["removed"].as_array().unwrap().len(), 5, "{dry}");
    let said = gc(&bench, &["-v"]).success().stdout;
    assert!(said.contains("removed 5 blobs") && said.contains("the cache has too"), "{said}");
    assert!(gc(&bench, &[]).success().stdout.contains("removed 0 blobs"));
    bench.is_whole();
    let digests = bench.digests();
    bench.build(&[]).success();
    assert_eq!(bench.digests(), digests);
}

#[test]
fn the_cache_is_bounded_and_a_build_makes_again_what_it_needs() {
    let bench = built();
    let digests = bench.digests();
    let report = gc_json(&bench, &["--cache-max-size", "0"]);
    assert!(report["cache"]["removed_bytes"].as_u64().unwrap() > 300_000, "{report}");
    assert_eq!(report["cache"]["kept_bytes"], 0);
    for area in ["debs", "segments", "layers", "steps", "trees", "logs"] {
        assert!(bench.cached(area).is_empty(), "{area}");
    }
    fs::remove_dir_all(bench.at("oci")).unwrap();
    bench.build(&[]).success();
    assert_eq!(bench.digests(), digests);
    let report = gc_json(&bench, &["--cache-max-size", "100kB", "--dry-run"]);
    assert!(report["cache"]["kept_bytes"].as_u64().unwrap() <= 100_000, "{report}");
    assert!(!bench.cached("debs").is_empty());
}

#[test]
fn builds_of_several_processes_succeed_while_garbage_is_collected_without_a_pause() {
    let bench = built();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut removed = 0;
            while !ended.load(Ordering::Relaxed) {
                let report = gc_json(&bench, &["--cache-max-size", "0"]);
                removed += report["layout"]["removed"].as_array().unwrap().len();
            }
            removed
        });
        let building = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..6 {
                bench.spec("app/entrypoint.sh", &format!("#!/bin/sh\necho {round}\n"));
                bench.build(&[]).success();
                bench.layout_is_valid();
            }
        }));
        ended.store(true, Ordering::Relaxed);
        let removed = collecting.join().unwrap();
        building.unwrap();
        assert!(removed > 0, "nothing was collected while builds went on");
    });
    run(bench.drystone().arg("verify")).success();
}

#[test]
fn a_push_in_progress_keeps_its_blobs_and_a_deleted_image_does_not() {
    let bench = built();
    let registry = Registry::start(&bench, &[]);
    let blob = noise(10_000);
    fs::write(bench.at("blob"), &blob).unwrap();
    let digest = content::Digest::of(&blob);
    let upload = registry.url(&format!("/v2/new/blobs/uploads/?digest={digest}"));
    let data = format!("@{}", bench.at("blob").display());
    curl(&["--fail", "--request", "POST", "--data-binary", &data, &upload]);
    let report = gc_json(&bench, &[]);
    assert_eq!(report["layout"]["kept"]["for_pushes"], 1, "{report}");
    assert!(bench.blob(&digest.to_string()).exists());
    let manifest = bench.manifest("worker");
    curl(&["--fail", "--request", "DELETE", &registry.url("/v2/worker/manifests/v1")]);
    assert!(gc_json(&bench, &[])["layout"]["removed"].as_array().unwrap().is_empty(), "still there by its digest");
    let report = gc_json(&bench, &["--untagged"]);
    assert_eq!(report["layout"]["untagged"].as_array().unwrap().len(), 1, "{report}");
    assert!(!bench.blob(manifest["config"]["digest"].as_str().unwrap()).exists());
    bench.layout_is_valid();
}

#[test]
fn verify_says_what_is_damaged_and_which_images_need_it() {
    let bench = built();
    let verify = |more: &[&str]| run(bench.drystone().arg("verify").args(more));
    assert!(verify(&[]).success().stdout.contains("all sound"));
    let manifest = bench.manifest("worker");
    let layer = bench.blob(manifest["layers"][0]["digest"].as_str().unwrap());
    let config = bench.blob(manifest["config"]["digest"].as_str().unwrap());
    let mut bytes = fs::read(&layer).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, bytes).unwrap();
    fs::remove_file(&config).unwrap();
    let said = verify(&[]).failure(1, &["damaged or missing in the layout: 2 blobs", "hint:"]);
    for text in ["its bytes hash to", "it is not there", "needed by localhost:5100/base:v1", layer.to_str().unwrap()] {
        assert!(said.stdout.contains(text), "no {text} in {}", said.stdout);
    }
    let said = verify(&["--format", "json"]);
    assert_eq!(said.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let damage = report["layout"]["damage"].as_array().unwrap();
    let missing = damage.iter().find(|entry| entry["problem"] == "missing").unwrap();
    assert_eq!(missing["images"], serde_json::json!(["localhost:5100/worker:v1"]));
    let damaged = damage.iter().find(|entry| entry["problem"] == "damaged").unwrap();
    assert_eq!(damaged["images"].as_array().unwrap().len(), 3);
    // What the hint says helps.
    fs::remove_file(&layer).unwrap();
    bench.build(&[]).success();
    verify(&[]).success();
    let deb = bench.cached("debs").remove(0);
    fs::set_permissions(&deb, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&deb, "no package").unwrap();
    assert!(verify(&[]).failure(1, &["damaged in the cache: 1 file"]).stdout.contains(deb.to_str().unwrap()));
}
