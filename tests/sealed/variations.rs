//! One lock gives one layout, whoever builds it, where, when and how. What is varied is drawn at random; a test that
//! fails says what it drew.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::process::Command;

use fixtures::DebBuilder;

use crate::build::same_bytes::all_bytes;
use crate::support::family::{Bench, debs, noise};
use crate::support::program::{Finished, opencontrail, run, shared_cache, tool};
use crate::support::users::{self, Ranged};

/// Numbers that nobody knows beforehand.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(RandomState::new().hash_one("dice") | 1)
    }

    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % sides
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.throw(all.len())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Root,
    Plain,
    Ranged,
}

/// How a build differs from others.
#[derive(Debug)]
struct Variation {
    who: Who,
    sandbox: &'static str,
    jobs: usize,
    umask: &'static str,
    zone: &'static str,
    language: &'static str,
    clock: &'static str,
    directory: &'static str,
    no_cache: bool,
    warm: bool,
}

impl Variation {
    fn draw(dice: &mut Dice) -> Self {
        let (who, sandbox) = dice.one_of(&[
            (Who::Root, "root"),
            (Who::Root, "auto"),
            (Who::Plain, "userns-single"),
            (Who::Plain, "auto"),
            (Who::Ranged, "userns"),
            (Who::Ranged, "userns-single"),
        ]);
        Self {
            who,
            sandbox,
            jobs: dice.one_of(&[1, 2, 3, 8]),
            umask: dice.one_of(&["000", "022", "027", "077"]),
            zone: dice.one_of(&["UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu"]),
            language: dice.one_of(&["C", "tr_TR.UTF-8", "de_DE.UTF-8", "C.UTF-8"]),
            clock: dice.one_of(&["", "1999-12-31 23:59:59", "2031-05-05 05:05:05", "2037-12-31 00:00:00"]),
            directory: dice.one_of(&["/", ".", "family", "family/.."]),
            no_cache: dice.throw(3) == 0,
            warm: dice.throw(2) == 0,
        }
    }

    /// `drystone build FAMILY` so, with more arguments.
    fn build(&self, bench: &Bench, ranged: &Ranged, more: &[&str], surround: &dyn Fn(&mut Command)) -> Finished {
        let binary = bench.at("drystone");
        let mut program = match self.who {
            Who::Root => {
                let mut program = Command::new("env");
                program.arg("--");
                program
            }
            Who::Plain => users::plain("env"),
            Who::Ranged => ranged.command("env"),
        };
        bench.surround(&mut program);
        surround(&mut program);
        let clock = if self.clock.is_empty() { String::new() } else { format!("faketime '{}'", self.clock) };
        let directory = bench.at(self.directory);
        let script = format!("umask {}; cd \"$0\"; exec {clock} \"$@\"", self.umask);
        program.args(["sh", "-ec", &script]).arg(directory).arg(binary).arg("build").arg(bench.at("family"));
        program.args(["--locked", "--sandbox", self.sandbox, "-j", &self.jobs.to_string()]).args(more);
        program.envs([("TZ", self.zone), ("LC_ALL", self.language)]);
        // The clock only: what files say of their times is no business of it.
        program.envs([("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")]);
        if self.no_cache {
            program.arg("--no-cache");
        }
        run(&mut program)
    }

    fn user(&self) -> Option<u32> {
        match self.who {
            Who::Root => None,
            Who::Plain => Some(users::PLAIN),
            Who::Ranged => Some(users::RANGED),
        }
    }
}

impl fmt::Display for Variation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// A family with scripts in the sandbox, owners, and layers that several images share.
fn family() -> Bench {
    let bench = Bench::with_family();
    let shell = DebBuilder::new("busybox", "1").file("usr/bin/busybox", 0o755, fs::read("/bin/busybox").unwrap());
    let big = DebBuilder::new("big", "1").file("usr/share/big", 0o644, noise(3_000_000));
    bench.archive(debs().into_iter().chain([shell.build(), big.build()]), &[]);
    let script = "busybox mkdir -p /srv/made; busybox date > /dev/null; busybox touch /srv/made/file /srv/made/other; \
                  busybox chown 12:34 /srv/made/file; busybox env | busybox grep -v HOSTNAME > /srv/env; \
                  busybox id >> /srv/env; busybox stat -c \"%n %a %u %g\" /srv/made/* /usr/bin/* >> /srv/env";
    bench.spec(
        "made/image.yaml",
        &format!("from: base\npackages: [busybox, big]\nrun:\n  - [busybox, sh, -c, '{script}']\n"),
    );
    bench.spec("leaf/image.yaml", "from: made\npackages: [greeter]\nfiles: [{source: data, target: /data}]\n");
    bench.spec("leaf/data/a", "a").spec("leaf/data/b", "b");
    bench
}

/// A copy of a family and what it is built from, that belongs to whoever builds it.
fn copy_of(bench: &Bench, variation: &Variation) -> Bench {
    let copy = Bench::new();
    for name in ["family", "archive"] {
        if bench.at(name).exists() {
            tool("cp", ["-r".as_ref(), bench.at(name).as_os_str(), copy.at(name).as_os_str()]);
        }
    }
    fs::copy(env!("CARGO_BIN_EXE_drystone"), copy.at("drystone")).unwrap();
    if let Some(user) = variation.user() {
        users::give(&copy.at(""), user);
    }
    copy
}

/// What differs in the first of the images whose names and digests these are, as far as the program can tell.
fn differences(first: &Bench, other: &Bench, digests: &str) -> String {
    let name = digests.split(' ').next().unwrap_or_default();
    let of = |bench: &Bench| format!("oci:{}:{name}", bench.at("oci").display());
    let found = run(first.drystone().args(["diff", &of(first), &of(other)]));
    format!("{}{}", found.stdout, found.stderr)
}

#[track_caller]
fn assert_same(first: &Bench, other: &Bench, variation: &Variation) {
    let (before, after) = (first.digests(), other.digests());
    if before != after {
        panic!("{variation}:\n{before}{after}{}", differences(first, other, &before));
    }
    assert!(all_bytes(first) == all_bytes(other), "{variation}: the same digests, and other files");
    assert_eq!(first.lock_text(), other.lock_text(), "{variation}");
}

#[test]
fn one_lock_gives_one_layout_whatever_else_differs() {
    let first = family();
    first.build(&[]).success();
    let (mut dice, ranged) = (Dice::new(), Ranged::new());
    for _ in 0..8 {
        let variation = Variation::draw(&mut dice);
        let copy = copy_of(&first, &variation);
        let build = || {
            let built = variation.build(&copy, &ranged, &[], &|_| {});
            assert_eq!(built.code, Some(0), "{variation}\n{}", built.stderr);
        };
        build();
        if variation.warm {
            fs::remove_dir_all(copy.at("oci")).unwrap();
            build();
        }
        assert_same(&first, &copy, &variation);
    }
}

#[test]
fn packages_of_debian_are_the_same_at_another_time_and_place() {
    let first = Bench::new();
    let specs = opencontrail().parent().unwrap().to_path_buf();
    tool("cp", ["-r".as_ref(), specs.join("examples/toolbox").as_os_str(), first.at("family").as_os_str()]);
    let family = first.at("family/family.yaml");
    let keyring = specs.join("keyrings/debian-archive.gpg");
    let text = fs::read_to_string(&family).unwrap().replace("../../keyrings/debian-archive.gpg", "keyring.gpg");
    fs::write(&family, text).unwrap();
    fs::copy(keyring, first.at("family/keyring.gpg")).unwrap();
    let debian = |program: &mut Command| {
        program.env_remove("DRYSTONE_MIRROR").env("DRYSTONE_CACHE_DIR", shared_cache());
        program.envs(std::env::vars_os().filter(|(name, _)| name == "DRYSTONE_MIRROR"));
    };
    let mut build = first.drystone();
    debian(&mut build);
    // The cache is shared: what the other build left there at another time would be compared with itself.
    run(build.args(["build", "family", "--no-cache"])).success();
    let variation = Variation {
        who: Who::Root,
        sandbox: "auto",
        jobs: 3,
        umask: "077",
        zone: "Pacific/Kiritimati",
        language: "tr_TR.UTF-8",
        clock: "2031-05-05 05:05:05",
        directory: "/",
        no_cache: true,
        warm: false,
    };
    let copy = copy_of(&first, &variation);
    variation.build(&copy, &Ranged::new(), &[], &debian).success();
    assert_same(&first, &copy, &variation);
}

/// The images of the family that were there first.
const PART_ONE: [&str; 8] =
    ["redis", "memcached", "rabbitmq", "keystone", "webui", "webui-job", "webui-server", "openstackbase"];

#[test]
#[ignore = "twenty builds of real packages take about a quarter of an hour: `tests/run sealed -- --ignored`"]
fn twenty_builds_of_part_one_give_one_set_of_digests() {
    let first = Bench::new();
    let specs = opencontrail().parent().unwrap().to_path_buf();
    tool("cp", ["-r".as_ref(), specs.join("opencontrail").as_os_str(), first.at("family").as_os_str()]);
    let family = first.at("family/family.yaml");
    let text = fs::read_to_string(&family).unwrap().replace("../keyrings/debian-archive.gpg", "keyring.gpg");
    fs::write(&family, text).unwrap();
    fs::copy(specs.join("keyrings/debian-archive.gpg"), first.at("family/keyring.gpg")).unwrap();
    let mirror = |program: &mut Command, cache: &Path| {
        program.env_remove("DRYSTONE_MIRROR").env("DRYSTONE_CACHE_DIR", cache);
        program.envs(std::env::vars_os().filter(|(name, _)| name == "DRYSTONE_MIRROR"));
    };
    let mut build = first.drystone();
    mirror(&mut build, &shared_cache());
    run(build.args(["build", "family"]).args(PART_ONE)).success();
    let (mut dice, ranged, mut caches) = (Dice::new(), Ranged::new(), BTreeMap::new());
    for number in 1..=20 {
        let variation = Variation::draw(&mut dice);
        let copy = copy_of(&first, &variation);
        // Each user has a cache; who is not to find it warm gets one with the downloads and nothing else.
        let kept = caches.entry((variation.who, variation.warm.then_some(())));
        let cache = kept.or_insert_with(|| tempfile::Builder::new().prefix("drystone-cache").tempdir().unwrap());
        if !cache.path().join("debs").exists() {
            let downloads = shared_cache().join("debs");
            tool("cp", ["-r".as_ref(), downloads.as_os_str(), cache.path().as_os_str()]);
            // Only now: later there are trees whose files have owners of their own.
            if let Some(user) = variation.user() {
                users::give(cache.path(), user);
            }
        }
        for area in ["segments", "layers", "steps", "trees"].iter().filter(|_| !variation.warm) {
            let _ = tool("rm", ["-rf".as_ref(), cache.path().join(area).as_os_str()]);
        }
        let built = variation.build(&copy, &ranged, &PART_ONE, &|program| mirror(program, cache.path()));
        assert_eq!(built.code, Some(0), "{variation}\n{}", built.stderr);
        assert_same(&first, &copy, &variation);
        println!("{number}: {variation}: the same");
    }
}
