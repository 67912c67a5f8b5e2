//! Debian, made by the program itself from its mirror: what real Dockerfiles are built on.

use std::fs;
use std::process::Command;

use crate::support::family::Bench;
use crate::support::program::{Finished, mirror_variables, repository, run, shared_cache};

const FAMILY: &str = "\
drystone: 1
registry: localhost:5100
tag: v1
sources:
  debian: {type: apt, suites: [bookworm, bookworm-updates, bookworm-security], keyring: archive.gpg}
";

/// The same as the repository's own family has, so that what its tests have built is found in the cache.
const DEBIAN: &str = "\
from: scratch
packages: [apt, ca-certificates, usr-is-merged]
env: {PATH: \"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"}
cmd: [/bin/sh]
";

/// A bench whose layout has `debian:v1`, and images on it with these packages. Packages are fetched once, and kept
/// between runs.
pub fn with_debian(children: &[(&str, &str)]) -> Bench {
    let bench = Bench::new();
    bench.spec("family.yaml", FAMILY).spec("debian/image.yaml", DEBIAN);
    for (name, packages) in children {
        bench.spec(&format!("{name}/image.yaml"), &format!("from: debian\npackages: [{packages}]\n"));
    }
    fs::copy(repository().join("specs/keyrings/debian-archive.gpg"), bench.at("family/archive.gpg")).unwrap();
    run(drystone(&bench).args(["build", "family"])).success();
    bench
}

/// The program, with the cache that tests share and the mirror of this machine.
pub fn drystone(bench: &Bench) -> Command {
    let mut command = bench.drystone();
    command.env("DRYSTONE_CACHE_DIR", shared_cache()).env_remove("DRYSTONE_MIRROR");
    command.envs(mirror_variables());
    command
}

/// Writes a context's files, and builds its Dockerfile, the steps anew.
pub fn build(bench: &Bench, tag: &str, files: &[(&str, &str)], more: &[&str]) -> Finished {
    for (name, text) in files {
        super::write(&bench.at(tag), name, text);
    }
    run(drystone(bench).args(["build", "--no-cache", "-t", tag]).args(more).arg(bench.at(tag))).success()
}
