//! The base against the tree that apt and dpkg make of the same packages: mmdebstrap, as root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use content::Digest;

use super::{Tree, family, python, reference, tree};
use crate::support::program::{run, shared_cache, tool};

/// Where the trees may differ, and why. A directory stands for what is in it.
const DIFFERENCES: &[(&str, &str)] = &[
    ("/dev", "mmdebstrap fills it; a container gets its own"),
    ("/etc/.pwd.lock", "a lock"),
    ("/etc/apt/sources.list", "mmdebstrap writes it"),
    ("/etc/fstab", "mmdebstrap writes it"),
    ("/etc/group-", "a backup, removed"),
    ("/etc/hostname", "mmdebstrap copies the host's"),
    ("/etc/passwd-", "a backup, removed"),
    ("/etc/resolv.conf", "mmdebstrap copies the host's"),
    ("/etc/shadow", "has the day of the installation, which is removed"),
    ("/run/lock", "mmdebstrap makes it"),
    ("/var/cache/apt/archives", "apt's own lock, and its directory for downloads"),
    ("/var/cache/debconf/config.dat-old", "a backup, removed"),
    ("/var/cache/debconf/templates.dat-old", "a backup, removed"),
    ("/var/lib/apt/lists", "apt's own lock, and its directory for downloads"),
    ("/var/lib/dpkg/arch", "mmdebstrap writes it"),
    ("/var/lib/dpkg/available", "empty; dpkg makes it when it is asked for it"),
    ("/var/lib/dpkg/diversions-old", "a backup, removed"),
    ("/var/lib/dpkg/lock", "a lock"),
    ("/var/lib/dpkg/lock-frontend", "a lock"),
    ("/var/lib/dpkg/statoverride", "empty; dpkg makes it when there is an override"),
    ("/var/lib/dpkg/status-old", "a backup, removed"),
    ("/var/lib/dpkg/triggers/Lock", "a lock"),
    ("/var/log", "logs are removed"),
];

#[test]
fn the_base_is_what_apt_makes_of_the_same_packages() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle");
    let source = format!("{}:{}", family().layout.display(), reference("debian"));
    tool("umoci", ["unpack".as_ref(), "--image".as_ref(), source.as_ref(), bundle.as_os_str()]);
    let ours = installed(&bundle.join("rootfs"));

    let archive = repository(directory.path());
    let theirs = directory.path().join("theirs.tar");
    let names: Vec<&str> = ours.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let mut mmdebstrap = Command::new("mmdebstrap");
    // The packages need a merged /usr, which base-files alone does not make for apt.
    mmdebstrap.args(["--mode=root", "--variant=custom", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]);
    mmdebstrap.arg(format!("--include={}", names.join(","))).arg("bookworm").arg(&theirs);
    mmdebstrap.arg(format!("deb [trusted=yes] copy:{} ./", archive.display()));
    run(&mut mmdebstrap).success();

    let unpacked = directory.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar").arg("-xf").arg(&theirs).arg("-C").arg(&unpacked).arg("./var/lib/dpkg")).success();
    assert_eq!(ours, installed(&unpacked));

    let (ours, theirs) = (tree(&family().layout, "debian"), apts_tree(&theirs));
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differ = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path)).collect::<Vec<_>>();
    let known = |path: &str| {
        let below = |known: &str| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        DIFFERENCES.iter().any(|(known, _)| below(known))
    };
    let unknown: Vec<String> = differ
        .iter()
        .filter(|path| !known(path))
        .map(|path| format!("{path}: ours {:?}, apt's {:?}", ours.get(*path), theirs.get(*path)))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// Every package with its version and state.
fn installed(root: &Path) -> Vec<String> {
    let database = format!("--admindir={}", root.join("var/lib/dpkg").display());
    let listed = tool("dpkg-query", [&database, "-W", "-f", "${Package} ${Version} ${Status}\n"]);
    listed.lines().map(str::to_owned).collect()
}

fn apts_tree(archive: &Path) -> Tree {
    serde_json::from_str(&python(&["tar", archive.to_str().unwrap()])).unwrap()
}

/// A repository of the packages that were downloaded for the family, so that both sides have the same ones to use.
fn repository(directory: &Path) -> PathBuf {
    let repository = directory.join("repository");
    fs::create_dir(&repository).unwrap();
    let mut index = String::new();
    for group in fs::read_dir(shared_cache().join("debs")).unwrap() {
        for package in fs::read_dir(group.unwrap().path()).unwrap() {
            let path = package.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let digest = Digest::of(&bytes);
            let name = format!("{}.deb", digest.hex());
            let control = tool("dpkg-deb", ["-f".as_ref(), path.as_os_str()]);
            let size = bytes.len();
            index += &format!("{control}Filename: ./{name}\nSize: {size}\nSHA256: {}\n\n", digest.hex());
            symlink(&path, repository.join(name)).unwrap();
        }
    }
    fs::write(repository.join("Packages"), index).unwrap();
    repository
}
