//! The same input gives the same bytes, whoever builds it, where, when and how.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use fixtures::DebBuilder;

use crate::support::family::{Bench, FAMILY, debs, walk};
use crate::support::program::{Finished, run};
use crate::support::users::{self, Ranged};

fn bench() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench
}

/// Every blob and the index.
pub fn all_bytes(bench: &Bench) -> Vec<(String, Vec<u8>)> {
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
    let plain = given_to(bench(), users::PLAIN);
    let built = build_as(&plain, users::plain(plain.at("drystone")), &[]);
    assert!(built.stderr.starts_with("sandbox userns-single"), "{}", built.stderr);
    assert_same(&root, &plain, "root and a plain user");
    let ranged = given_to(bench(), users::RANGED);
    let built = build_as(&ranged, Ranged::new().command(ranged.at("drystone")), &[]);
    assert!(built.stderr.starts_with("sandbox userns: "), "{}", built.stderr);
    assert_same(&root, &ranged, "root and a user with a range of ids");
}

/// Makes a bench a user's own, with a copy of the binary: the original may lie where only root goes.
pub fn given_to(bench: Bench, user: u32) -> Bench {
    std::fs::copy(env!("CARGO_BIN_EXE_drystone"), bench.at("drystone")).unwrap();
    users::give(&bench.at(""), user);
    bench
}

#[track_caller]
fn build_as(bench: &Bench, mut program: Command, more: &[&str]) -> Finished {
    bench.surround(&mut program);
    run(program.args(["build", "family"]).args(more)).success()
}

/// Makes all that needs root's rights.
const OWNERS: &str = "\
set -e
echo 'redis:x:105:106::/srv:/bin/sh' >> /etc/passwd
mkdir -m 2770 /srv/data; chown 105:106 /srv/data; echo x > /srv/data/file; chown 105:65535 /srv/data/file
cp /usr/bin/busybox /srv/suid; chown 0:106 /srv/suid; chmod 6755 /srv/suid; ln /srv/suid /srv/name
mknod /srv/null c 1 3; mknod -m 640 /srv/disk b 8 1; chown 0:6 /srv/disk; mkfifo -m 600 /srv/fifo; chown 105 /srv/fifo
test -c /srv/null; cp -a /srv/null /srv/nil; ln -s null /srv/link; chown -h 105:106 /srv/link";

/// Changes that over the layer below.
const CHANGES: &str = "\
set -e
test -b /srv/disk; rm /srv/disk; chown 7:7 /srv/null; mv /srv/nil /srv/data/nil; chown -h 8:8 /srv/link
rm -r /srv/fifo; mkdir /srv/fifo; stat -c '%F %t:%T %u:%g' /srv/null > /srv/seen";

/// A family of two images whose commands make and change owners and device nodes.
fn owners() -> Bench {
    let bench = Bench::new();
    let command =
        |script: &str| format!("run:\n  - [busybox, sh, -c, {}]\n", serde_json::Value::String(script.to_owned()));
    bench
        .spec("family.yaml", FAMILY)
        .spec(
            "made/image.yaml",
            &format!("from: scratch\npackages: [busybox]\nenv: {{PATH: /usr/bin}}\n{}", command(OWNERS)),
        )
        .spec("changed/image.yaml", &format!("from: made\n{}", command(CHANGES)));
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut package = DebBuilder::new("busybox", "1").file("usr/bin/busybox", 0o755, busybox).directory("srv", 0o755);
    package = package.file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\n");
    for applet in APPLETS.split(' ') {
        package = package.symlink(&format!("usr/bin/{applet}"), "busybox");
    }
    bench.archive([package.build()], &[]);
    bench
}

const APPLETS: &str = "chmod chown cp ln mkdir mkfifo mknod mv rm sh stat test";

#[test]
fn commands_that_make_owners_and_devices_give_the_same_images_to_every_user() {
    let root = owners();
    root.build(&[]).success();
    let listing = root.listing("changed");
    for expected in
        ["-rwsr-sr-x 0/106", "crw-r--r-- 0/0             1,3", "brw-r----- 0/6", "crw-r--r-- 7/7", "105/65535"]
    {
        assert!(listing.contains(expected), "no `{expected}` in\n{listing}");
    }
    assert_eq!(root.file("changed", "srv/seen").unwrap(), "character special file 1:3 7:7\n");

    let single = given_to(owners(), users::PLAIN);
    build_as(&single, users::plain(single.at("drystone")), &["--sandbox", "userns-single"]);
    assert_same(&root, &single, "root and userns-single");

    let (ranged, user) = (given_to(owners(), users::RANGED), Ranged::new());
    let build = |more: &[&str]| build_as(&ranged, user.command(ranged.at("drystone")), more);
    build(&["--sandbox", "userns"]);
    assert_same(&root, &ranged, "root and userns");
    for area in ["oci", "cache/steps", "cache/layers"] {
        for path in walk(&ranged.at(area)) {
            assert_eq!(std::fs::metadata(&path).unwrap().uid(), users::RANGED, "{}", path.display());
        }
    }
    assert!(ranged.cached("trees").iter().any(|path| path.symlink_metadata().unwrap().uid() > users::FIRST_ID));
}

#[test]
fn trees_of_one_sandbox_are_not_in_the_way_of_another() {
    let (bench, user) = (given_to(owners(), users::RANGED), Ranged::new());
    let build = |more: &[&str]| build_as(&bench, user.command(bench.at("drystone")), more);
    build(&["--sandbox", "userns"]);
    let first = bench.digests();
    // What a killed build has left, with a directory that only its owner in the namespace may enter.
    let left = bench.at("cache/incoming/killed");
    std::fs::create_dir_all(left.join("0/closed")).unwrap();
    std::fs::write(left.with_extension("lock"), "").unwrap();
    users::give(&left, users::RANGED);
    users::give(&left.with_extension("lock"), users::RANGED);
    std::fs::write(left.join("0/closed/file"), "").unwrap();
    std::fs::set_permissions(left.join("0/closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
    users::give(&left.join("0/closed"), users::FIRST_ID + 104);

    build(&["--sandbox", "userns-single", "--no-cache"]);
    assert_eq!(bench.digests(), first);
    let kept = walk(&bench.at("cache/incoming"));
    assert!(kept.iter().any(|path| path.ends_with("closed/file")), "who could remove this? {kept:?}");
    build(&["--sandbox", "userns", "--no-cache"]);
    assert_eq!(bench.digests(), first);
    bench.is_whole();

    // With other ids, none of the trees can be used.
    let other = Ranged::with_first_id(users::FIRST_ID + 65536);
    build_as(&bench, other.command(bench.at("drystone")), &["--sandbox", "userns", "--no-cache"]);
    assert_eq!(bench.digests(), first);
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
