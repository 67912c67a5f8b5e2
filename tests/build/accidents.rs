//! Builds that are stopped, killed, doubled, or run out of room. The next one works, and nothing is left behind.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::family::{Bench, DrippingServer, debs};
use crate::support::program::{eventually, run};

/// Sends a signal by its name.
fn signal(child: &Child, name: &str) {
    run(Command::new("kill").args(["-s", name, &child.id().to_string()])).success();
}

#[test]
fn an_interrupted_build_ends_with_130_and_the_next_one_works() {
    for name in ["INT", "TERM"] {
        let bench = Bench::with_family();
        bench.archive(debs(), &[]);
        let server = DrippingServer::start(bench.at("archive"), "libhello");
        let mut child = bench.start(&server.url(), &[]);
        server.wait_until_slow();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(130), "SIG{name}");
        let log = std::fs::read_to_string(bench.at("log")).unwrap();
        assert!(log.contains("interrupted; the same command goes on from what was finished"), "{log}");
        assert_eq!(bench.digests(), "");
        bench.is_whole();
        server.open();
        bench.build_from(&server.url(), &[]).success();
        bench.is_whole();
    }
}

#[test]
fn a_build_whose_mirror_falls_silent_can_be_interrupted() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let server = DrippingServer::stalling(bench.at("archive"), "libhello");
    let mut child = bench.start(&server.url(), &[]);
    server.wait_until_slow();
    signal(&child, "INT");
    let code = eventually("the build ends", Duration::from_secs(20), || {
        child.try_wait().unwrap().ok_or_else(|| "it goes on".to_owned())
    });
    assert_eq!(code.code(), Some(130));
    assert!(std::fs::read_to_string(bench.at("log")).unwrap().contains("interrupted; the same command goes on"));
    bench.layout_is_valid();
    server.open();
    bench.build_from(&server.url(), &[]).success();
    bench.is_whole();
}

#[test]
fn a_killed_build_leaves_nothing_that_the_next_one_does_not_take_away() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let server = DrippingServer::start(bench.at("archive"), "libhello");
    let mut child = bench.start(&server.url(), &[]);
    server.wait_until_slow();
    signal(&child, "KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!bench.cached("incoming").is_empty(), "the build was killed while it stored something");
    bench.layout_is_valid();
    server.open();
    bench.build_from(&server.url(), &[]).success();
    bench.is_whole();
}

/// Kills builds at many moments. Whatever is there then, the layout is valid, and one more build gives what an
/// undisturbed one gives.
#[test]
fn builds_killed_at_any_moment_change_nothing_in_the_end() {
    let calm = Bench::with_family();
    calm.archive(debs(), &[]);
    calm.build(&[]).success();
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let mirror = format!("file://{}", bench.at("archive").display());
    for pause in (0..16).map(|step| step * 15) {
        let mut child = bench.start(&mirror, &[]);
        std::thread::sleep(Duration::from_millis(pause));
        // It may be done already.
        let _ = child.kill();
        child.wait().unwrap();
        bench.layout_is_valid();
    }
    bench.build(&[]).success();
    bench.is_whole();
    assert_eq!(bench.digests(), calm.digests());
}

#[test]
fn two_builds_at_once_share_a_cache_and_a_layout() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let server = DrippingServer::start(bench.at("archive"), "libhello");
    let first = bench.start(&server.url(), &[]);
    server.wait_until_slow();
    let second = bench.start(&server.url(), &["--no-cache"]);
    let third = bench.start(&server.url(), &["--tag", "v2"]);
    std::thread::sleep(Duration::from_millis(200));
    server.open();
    for mut build in [first, second, third] {
        let status = build.wait().unwrap();
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(bench.at("log")).unwrap());
    }
    bench.is_whole();
    let digests = bench.digests();
    assert_eq!(digests.lines().count(), 6, "{digests}");
    for image in ["app", "base", "worker"] {
        let mut found: Vec<&str> = digests.lines().filter(|line| line.contains(&format!("/{image}:"))).collect();
        found.iter_mut().for_each(|line| *line = line.split(' ').next_back().unwrap());
        assert_eq!(found[0], found[1], "{digests}");
    }
}

/// A limit on the size of files stands for a disk that is full: the write fails in the same places.
#[test]
fn a_file_that_cannot_be_written_to_its_end_is_an_error_and_the_layout_stays_valid() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    for limit in [0, 100, 4000, 100_000, 250_000] {
        let mut limited = Command::new("prlimit");
        // Without the signal that comes with the limit, the write fails as on a full disk.
        limited.arg(format!("--fsize={limit}")).args(["env", "--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_drystone")]);
        limited.args(["build", "family"]);
        bench.surround(&mut limited);
        let failed = run(&mut limited);
        assert_eq!(failed.code, Some(1), "{limit}: {}", failed.stderr);
        assert!(
            failed.stderr.contains("error: ") && failed.stderr.contains("File too large"),
            "{limit}: {}",
            failed.stderr
        );
        bench.layout_is_valid();
    }
    bench.build(&[]).success();
    bench.is_whole();
}

/// Runs a script as root in mounts of its own, which end with it.
fn with_mounts(bench: &Bench, script: &str) -> crate::support::program::Finished {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_drystone"));
    bench.surround(&mut command);
    run(&mut command)
}

#[test]
fn a_full_disk_is_an_error_with_advice_and_the_layout_stays_valid() {
    needs_root();
    for full in ["oci", "cache"] {
        let bench = Bench::with_family();
        bench.archive(debs(), &[]);
        for directory in ["oci", "cache", "kept"] {
            std::fs::create_dir(bench.at(directory)).unwrap();
        }
        // What is on the small disk is copied away, to be looked at when the mount is gone.
        let script = format!(
            "mount -t tmpfs -o size=256k,mode=0700 none {full}\ncode=0\n\"$1\" build family || code=$?\n\
             cp -a {full}/. kept\nexit $code"
        );
        let expected = ["error: ", "No space left on device", "free some space, or choose other places with --layout"];
        with_mounts(&bench, &script).failure(1, &expected);
        if full == "oci" {
            std::fs::remove_dir_all(bench.at("oci")).unwrap();
            std::fs::rename(bench.at("kept"), bench.at("oci")).unwrap();
        }
        bench.layout_is_valid();
        bench.build(&[]).success();
        bench.is_whole();
    }
}

#[test]
fn a_layout_or_a_cache_that_cannot_be_written_is_an_error_that_names_it() {
    needs_root();
    for place in ["oci", "cache"] {
        let bench = Bench::with_family();
        bench.archive(debs(), &[]);
        std::fs::create_dir(bench.at(place)).unwrap();
        let script = format!("mount -t tmpfs -o ro,mode=0755 none {place}\n\"$1\" build family");
        let named = format!("/{place}");
        with_mounts(&bench, &script).failure(1, &["error: cannot ", &named, "Read-only file system"]);
    }
}

#[test]
fn a_layout_with_a_broken_index_or_of_something_else_is_not_touched() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    std::fs::write(bench.at("oci/index.json"), "{\"schemaVersion\": 2, \"manif").unwrap();
    bench.build(&[]).failure(1, &["oci/index.json` is not a valid index"]);
    assert_eq!(std::fs::read_to_string(bench.at("oci/index.json")).unwrap(), "{\"schemaVersion\": 2, \"manif");

    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    std::fs::create_dir(bench.at("oci")).unwrap();
    std::fs::write(bench.at("oci/thesis.txt"), "years of work").unwrap();
    bench.build(&[]).failure(1, &["is not an OCI image layout"]);
    assert_eq!(names(&bench.at("oci")), ["thesis.txt"]);
}

#[test]
fn a_stopped_build_leaves_no_process_behind() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let server = DrippingServer::start(bench.at("archive"), "libhello");
    let mut child = bench.start(&server.url(), &[]);
    server.wait_until_slow();
    signal(&child, "INT");
    child.wait().unwrap();
    let directory = bench.at("").display().to_string();
    eventually("no process works in the directory", Duration::from_secs(5), || {
        let working = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
            let place = std::fs::read_link(process.path().join("cwd"));
            place.is_ok_and(|place| place.starts_with(directory.trim_end_matches('/')))
        });
        let left: Vec<_> = working.map(|process| process.file_name()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn needs_root() {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(uid, 0, "a small disk is mounted for this test, which needs root: run tests/run as root");
}
