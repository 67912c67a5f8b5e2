//! The same input gives the same bytes, whoever builds it, where, when and how.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use crate::support::family::{Bench, debs, walk};
use crate::support::program::run;

fn bench() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench
}

/// Every blob and the index.
fn all_bytes(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let mut files = walk(&bench.at("oci/blobs"));
    files.push(bench.at("oci/index.json"));
    let name = |path: &std::path::Path| path.strip_prefix(bench.at("oci")).unwrap().display().to_string();
    files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[track_caller]
fn assert_same(left: &Bench, right: &Bench, what: &str) {
    assert_eq!(left.digests(), right.digests(), "{what}");
    assert!(all_bytes(left) == all_bytes(right), "{what}: the same digests, and other files");
}

#[test]
fn jobs_umask_zone_language_directory_and_cache_change_nothing() {
    let usual = bench();
    usual.build(&["-j", "1"]).success();

    let unusual = bench();
    // Files of the family have the modes and dates of a check-out under another umask.
    let entrypoint = unusual.at("family/app/entrypoint.sh");
    std::fs::set_permissions(&entrypoint, std::fs::Permissions::from_mode(0o600)).unwrap();
    run(Command::new("touch").args(["-d", "1999-12-31"]).arg(&entrypoint)).success();
    let mut shell = Command::new("sh");
    unusual.surround(&mut shell);
    shell
        .args(["-c", "umask 077; cd /; exec \"$0\" build \"$1\" -j 7", env!("CARGO_BIN_EXE_drystone")])
        .arg(unusual.at("family"))
        .envs([("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "de_DE"), ("USER", "somebody")]);
    run(&mut shell).success();
    assert_same(&usual, &unusual, "umask, TZ, LC_ALL, directory, jobs");

    usual.build(&["--no-cache"]).success();
    assert_same(&usual, &unusual, "--no-cache");
    std::fs::remove_dir_all(usual.at("cache")).unwrap();
    std::fs::remove_dir_all(usual.at("oci")).unwrap();
    run(usual.drystone().current_dir(usual.at("family")).arg("build")).success();
    assert_same(&usual, &unusual, "an empty cache");

    // One image after the other, the last one first in the family's own order of things.
    let piecemeal = bench();
    for image in ["app", "base", "worker"] {
        piecemeal.build(&[image]).success();
    }
    assert_eq!(piecemeal.digests(), usual.digests());
}

#[test]
fn a_plain_user_and_root_build_the_same() {
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()),
        0,
        "run tests/run as root"
    );
    let root = bench();
    root.build(&[]).success();
    let plain = bench();
    for path in ["", "family", "family/app/entrypoint.sh"] {
        chown(plain.at(path), Some(65534), Some(65534)).unwrap();
    }
    // The binary may lie where only root goes.
    let binary = plain.at("drystone");
    std::fs::copy(env!("CARGO_BIN_EXE_drystone"), &binary).unwrap();
    let mut command = Command::new("setpriv");
    plain.surround(&mut command);
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(binary)
        .args(["build", "family"]);
    let built = run(&mut command).success();
    assert!(built.stderr.starts_with("userns"), "{}", built.stderr);
    assert_same(&root, &plain, "root and a plain user");
}

#[test]
fn the_date_of_images_is_that_of_their_newest_package_or_what_source_date_epoch_says() {
    let created = |bench: &Bench| {
        let config = bench.manifest("base")["config"]["digest"].as_str().unwrap().to_owned();
        let config = crate::support::family::read_json(&bench.blob(&config));
        config["created"].as_str().unwrap().to_owned()
    };
    let bench = bench();
    bench.build(&[]).success();
    assert_eq!(created(&bench), "2015-11-10T00:00:00Z");
    let before = bench.digests();
    run(bench.drystone().args(["build", "family"]).env("SOURCE_DATE_EPOCH", "1700000000")).success();
    assert_eq!(created(&bench), "2023-11-14T22:13:20Z");
    assert_ne!(bench.digests(), before);
    bench.build(&[]).success();
    assert_eq!(bench.digests(), before);
}

#[test]
fn compressions_differ_in_bytes_and_agree_in_content() {
    let bench = bench();
    let diff_ids = || {
        let config = bench.manifest("app")["config"]["digest"].as_str().unwrap().to_owned();
        crate::support::family::read_json(&bench.blob(&config))["rootfs"]["diff_ids"].clone()
    };
    bench.build(&[]).success();
    let (gzip, first) = (bench.digests(), diff_ids());
    bench.build(&["--compression", "zstd"]).success();
    assert_ne!(bench.digests(), gzip);
    assert_eq!(diff_ids(), first);
    bench.is_whole();
}
