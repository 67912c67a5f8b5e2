//! What the disk lost: a build notices, and either makes it again or says what is wrong.

use std::path::{Path, PathBuf};

use crate::support::family::{Bench, debs, overwrite};

fn built() -> (Bench, String) {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    let digests = bench.digests();
    (bench, digests)
}

/// Cuts a file in the middle.
fn truncate(path: &Path) {
    overwrite(path, |bytes| bytes.truncate(bytes.len() / 2));
}

/// Changes a byte in the middle of a file.
fn flip(path: &Path) {
    overwrite(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

fn empty(path: &Path) {
    overwrite(path, Vec::clear);
}

type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 3] = [("truncated", truncate), ("changed", flip), ("emptied", empty)];

#[test]
fn damaged_downloads_are_fetched_again() {
    for (how, damage) in DAMAGES {
        for area in ["debs", "indexes"] {
            let (bench, digests) = built();
            bench.cached(area).iter().for_each(|path| damage(path));
            // Everything made of them is gone too.
            for made in ["segments", "layers", "steps", "trees"] {
                let _ = std::fs::remove_dir_all(bench.at("cache").join(made));
            }
            std::fs::remove_dir_all(bench.at("oci")).unwrap();
            let again = bench.build(&[]);
            assert_eq!(again.code, Some(0), "{area} {how}: {}", again.stderr);
            assert_eq!(bench.digests(), digests, "{area} {how}");
            bench.is_whole();
        }
    }
}

#[test]
fn damaged_segments_are_made_again() {
    for (how, damage) in DAMAGES {
        let (bench, digests) = built();
        // Not their records, without which they would be made again anyway.
        let is_segment = |path: &&PathBuf| std::fs::read(path).unwrap().first() != Some(&b'{');
        let segments = bench.cached("segments");
        assert_eq!(segments.iter().filter(is_segment).map(|path| damage(path)).count(), 3);
        let again = bench.build(&["--no-cache"]);
        assert_eq!(again.code, Some(0), "{how}: {}", again.stderr);
        assert_eq!(bench.digests(), digests, "{how}");
        bench.is_whole();
    }
}

#[test]
fn damaged_records_of_steps_and_damaged_layers_are_made_again() {
    for (how, damage) in DAMAGES {
        for area in ["steps", "layers"] {
            let (bench, digests) = built();
            bench.cached(area).iter().for_each(|path| damage(path));
            // Layers are looked at only where the layout lacks them.
            std::fs::remove_dir_all(bench.at("oci")).unwrap();
            let again = bench.build(&[]);
            assert_eq!(again.code, Some(0), "{area} {how}: {}", again.stderr);
            assert_eq!(bench.digests(), digests, "{area} {how}");
            bench.is_whole();
        }
    }
}

#[test]
fn blobs_that_the_layout_lost_are_put_back() {
    let (bench, digests) = built();
    for blob in crate::support::family::walk(&bench.at("oci/blobs")) {
        std::fs::remove_file(blob).unwrap();
    }
    bench.build(&[]).success();
    assert_eq!(bench.digests(), digests);
    bench.is_whole();
}

#[test]
fn truncated_blobs_of_the_layout_are_put_right() {
    let (bench, digests) = built();
    for blob in crate::support::family::walk(&bench.at("oci/blobs")) {
        truncate(&blob);
    }
    bench.build(&[]).success();
    assert_eq!(bench.digests(), digests);
    bench.is_whole();
}

#[test]
fn a_cache_that_is_gone_costs_time_and_changes_nothing() {
    let (bench, digests) = built();
    std::fs::remove_dir_all(bench.at("cache")).unwrap();
    bench.build(&[]).success();
    assert_eq!(bench.digests(), digests);
    bench.is_whole();
}
