//! What keeps `userns` from working, and what helps.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;

use crate::bench::{As, Bench, RANGED_USER, RANGES, etc_with, ranged_user, template};
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    every_obstacle_is_told_with_what_to_do_about_it,
    what_the_helpers_say_is_told,
    helpers_are_found_without_a_path,
    files_that_the_builder_makes_belong_to_its_user,
];

/// What a builder says that asks for `userns`.
fn ask(ranges: &str, script: &str, options: &[&str]) -> Output {
    let etc = etc_with(ranges);
    let mut command = ranged_user(etc.path(), script, options, &template().join("probe"));
    command.args(["builder", "reason", "--rung", "userns"]).current_dir("/").output().unwrap()
}

#[track_caller]
fn refused(ranges: &str, script: &str, options: &[&str], expected: &[&str]) {
    let output = ask(ranges, script, options);
    let said = String::from_utf8_lossy(&output.stderr);
    let missing: Vec<_> = expected.iter().filter(|text| !said.contains(*text)).collect();
    assert!(output.status.code() == Some(99) && missing.is_empty(), "no {missing:?} in {output:?}");
}

fn every_obstacle_is_told_with_what_to_do_about_it() {
    let none = "the sandbox `userns` is not possible: /etc/subuid gives stone no subordinate ids";
    let usermod = "as root: usermod --add-subuids 165536-231071 --add-subgids 165536-231071 stone";
    refused("root:100000:65536\n", "", &[], &[none, usermod]);
    let short = "/etc/subuid gives stone 1000 subordinate ids, and 65535 are needed";
    refused(
        "stone:100000:1000\n",
        "",
        &[],
        &[short, "usermod --add-subuids 101000-165534 --add-subgids 101000-165534"],
    );

    let missing = "the programs newuidmap and newgidmap are not installed";
    refused(
        RANGES,
        "mkdir /etc/nothing; mount --bind /etc/nothing /usr/bin",
        &[],
        &[missing, "apt-get install uidmap"],
    );
    let no_new = "this process was started with `no new privileges`";
    refused(RANGES, "", &["--no-new-privs"], &[no_new, "allowPrivilegeEscalation"]);
    let bounded = "CAP_SETUID and CAP_SETGID were taken away from this container";
    refused(RANGES, "", &["--bounding-set=-setuid"], &[bounded, "--cap-add=SETUID --cap-add=SETGID"]);
    let nosuid = "mount --bind /usr/bin/newuidmap /usr/bin/newuidmap; mount -o remount,bind,nosuid /usr/bin/newuidmap";
    refused(RANGES, nosuid, &[], &["/usr/bin/newuidmap cannot work: it is on a file system mounted nosuid"]);
    let weak = "cp /usr/bin/newgidmap /etc/weak; chmod 755 /etc/weak; mount --bind /etc/weak /usr/bin/newgidmap";
    let told = ["/usr/bin/newgidmap has neither the set-user-ID bit", "as root: chmod u+s /usr/bin/newgidmap"];
    refused(RANGES, weak, &[], &told);
}

fn what_the_helpers_say_is_told() {
    // The group that the process has is not its user's.
    let other_group = "set -- $(echo \"$@\" | sed 's/--regid 4242/--regid 77/')";
    refused(RANGES, other_group, &[], &["newuidmap: ", "must have the ids of its user's account"]);
}

fn helpers_are_found_without_a_path() {
    let output = ask(RANGES, "PATH=/nowhere; export PATH", &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "userns: asked for\n", "{output:?}");
}

fn files_that_the_builder_makes_belong_to_its_user() {
    let bench = Bench::new(As::RangedUser);
    let (base, upper) = (bench.base(), bench.tree("upper"));
    let owner = |path: &Path| fs::symlink_metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    for path in [bench.path("base"), base.join("root"), base.join("root/etc/motd")] {
        assert_eq!(owner(&path), (RANGED_USER, RANGED_USER), "{}", path.display());
    }
    bench.shell(&[&base], &upper, "cd /work; touch a b; chown 1:40000 a; chown 40001:65535 b");
    // Two ranges one after the other: 1 to 40000, and what follows.
    assert_eq!(owner(&upper.join("root/work/a")), (300_000, 339_999));
    assert_eq!(owner(&upper.join("root/work/b")), (400_000, 425_534));
}
