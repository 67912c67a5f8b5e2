//! Images against the trees that apt and dpkg make of the same packages as root, and apt and dpkg as judges of what they
//! find in an image.
//!
//! Each image of the family is a base and a set of packages. Its tree has to be the one that `apt-get install` makes of
//! the set in a chroot by mmdebstrap, path by path; `ARCHITECTURE.md` has a table of what may differ, which is read here.
//! The family, apt's own base and the repository that apt takes packages from are made once for all tests of this
//! directory, in cargo's directory for tests. What the shared cache has of the family is taken from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use serde_json::Value;

use crate::support::docker::Docker;
use crate::support::program::{Finished, drystone, repository, run, shared_cache, tool};
use differences::Difference;

mod differences;

/// An image of the family.
struct Set {
    image: &'static str,
    /// What it has besides the base.
    packages: &'static [&'static str],
    /// A package that it lacks and that one of the others has.
    more: &'static str,
    /// One of its own that nothing else in it needs.
    gone: &'static str,
}

/// Debian's essential packages, apt, and the certificates to trust servers by: what the others are built on.
const BASE: Set = Set { image: "debian", packages: &[], more: "cron", gone: "ca-certificates" };
const BASE_PACKAGES: &str = "apt, ca-certificates, usr-is-merged";

const SETS: [Set; 7] = [REDIS, RABBITMQ, KEYSTONE, NOVA, LIBVIRT, BIND9, HOST];
const REDIS: Set = Set { image: "redis", packages: &["redis-server", "memcached"], more: "cron", gone: "memcached" };
const RABBITMQ: Set =
    Set { image: "rabbitmq", packages: &["rabbitmq-server"], more: "memcached", gone: "rabbitmq-server" };
const KEYSTONE: Set = Set { image: "keystone", packages: &["keystone"], more: "memcached", gone: "keystone" };
const NOVA: Set = Set {
    image: "nova",
    packages: &["nova-api", "nova-conductor", "nova-scheduler"],
    more: "memcached",
    gone: "nova-scheduler",
};
const LIBVIRT: Set =
    Set { image: "libvirt", packages: &["libvirt-daemon-system"], more: "cron", gone: "libvirt-daemon-system" };
const BIND9: Set = Set { image: "bind9", packages: &["bind9"], more: "cron", gone: "bind9" };
const HOST: Set = Set {
    image: "host",
    packages: &["iputils-ping", "sudo", "cron", "dbus", "systemd", "postfix"],
    more: "memcached",
    gone: "cron",
};

#[test]
fn the_base_is_what_apt_makes_of_it() {
    is_what_apt_makes(&BASE);
}

#[test]
fn redis_and_memcached_are_what_apt_makes_of_them() {
    is_what_apt_makes(&REDIS);
}

#[test]
fn rabbitmq_is_what_apt_makes_of_it() {
    is_what_apt_makes(&RABBITMQ);
}

#[test]
fn keystone_is_what_apt_makes_of_it() {
    is_what_apt_makes(&KEYSTONE);
}

#[test]
fn nova_is_what_apt_makes_of_it() {
    is_what_apt_makes(&NOVA);
}

#[test]
fn libvirt_is_what_apt_makes_of_it() {
    is_what_apt_makes(&LIBVIRT);
}

#[test]
fn bind9_is_what_apt_makes_of_it() {
    is_what_apt_makes(&BIND9);
}

#[test]
fn what_a_host_runs_is_what_apt_makes_of_it() {
    is_what_apt_makes(&HOST);
}

#[test]
fn apt_and_dpkg_are_content_in_a_container_and_go_on_working() {
    let (parity, docker) = (parity(), Docker::start());
    let archive = tempfile::Builder::new().suffix(".tar").tempfile_in(&parity.directory).unwrap();
    let target = format!("docker-archive:{}:redis:parity", archive.path().display());
    tool("skopeo", ["--insecure-policy", "copy", "--quiet", &parity.source(REDIS.image), &target]);
    docker.run(["load", "--quiet", "--input", archive.path().to_str().unwrap()]).success();
    let mounted = format!("{}:/mnt:ro", parity.repository.display());
    let judge = include_str!("judge.sh");
    // The policy and the source of packages that the other tests get from outside.
    let script = format!(
        "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d\n\
         chmod 755 /usr/sbin/policy-rc.d\n\
         echo 'deb [trusted=yes] file:/mnt ./' >/etc/apt/sources.list\n{judge}"
    );
    let options = ["run", "--rm", "--network", "host", "--env", "DEBIAN_FRONTEND=noninteractive", "--volume", &mounted];
    let command = ["redis:parity", "/bin/sh", "-euc", &script, "judge.sh", REDIS.more, REDIS.gone];
    docker.run(options.into_iter().chain(command)).success();
}

/// The family in a layout, and what apt makes of the base.
struct Parity {
    directory: PathBuf,
    layout: PathBuf,
    /// Every package that was downloaded for tests, for apt.
    repository: PathBuf,
    /// A chroot by mmdebstrap with the packages of the base.
    base: PathBuf,
    /// What made them.
    made: Vec<Finished>,
    /// Another process with these tests waits for this one: both need the same directory.
    _alone: File,
}

/// The family and apt's base, made by whichever test asks first.
#[track_caller]
fn parity() -> &'static Parity {
    static PARITY: OnceLock<Parity> = OnceLock::new();
    let parity = PARITY.get_or_init(make);
    for Finished { line, code, stdout, stderr } in &parity.made {
        assert_eq!(*code, Some(0), "{line}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    }
    parity
}

fn make() -> Parity {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let alone = File::create(temporary.join("parity.lock")).unwrap();
    alone.lock().unwrap();
    let directory = temporary.join("parity");
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    write_family(&directory.join("family"));
    let (layout, base) = (directory.join("oci"), directory.join("base"));
    let mut build = drystone();
    build.arg("build").arg(directory.join("family")).arg("--layout").arg(&layout);
    let built = run(&mut build);
    let repository = write_repository(&directory.join("repository"));
    let mut parity = Parity { directory, layout, repository, base, made: vec![built], _alone: alone };
    if parity.made[0].code == Some(0) {
        let debootstrapped = parity.debootstrap();
        parity.made.push(debootstrapped);
    }
    parity
}

fn write_family(family: &Path) {
    fs::create_dir_all(family).unwrap();
    fs::copy(repository().join("specs/keyrings/debian-archive.gpg"), family.join("debian.gpg")).unwrap();
    let spec = "drystone: 1\n\
                registry: localhost:5100\n\
                tag: parity\n\
                sources:\n  \
                debian: {type: apt, suites: [bookworm, bookworm-updates, bookworm-security], keyring: debian.gpg}\n";
    fs::write(family.join("family.yaml"), spec).unwrap();
    let write = |image: &str, parent: &str, packages: &str| {
        fs::create_dir(family.join(image)).unwrap();
        let spec = format!("from: {parent}\npackages: [{packages}]\n");
        fs::write(family.join(image).join("image.yaml"), spec).unwrap();
    };
    write(BASE.image, "scratch", BASE_PACKAGES);
    for set in &SETS {
        write(set.image, BASE.image, &set.packages.join(", "));
    }
}

/// A repository of the packages that were downloaded for tests, so that both sides have the same ones to use.
fn write_repository(repository: &Path) -> PathBuf {
    fs::create_dir_all(repository).unwrap();
    let groups = fs::read_dir(shared_cache().join("debs")).unwrap().map(|group| group.unwrap().path());
    let files = groups.flat_map(|group| fs::read_dir(group).unwrap().map(|file| file.unwrap().path()));
    let mut packages: Vec<PathBuf> = files.collect();
    packages.sort();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let index: String = thread::scope(|scope| {
        let parts = packages.chunks(packages.len().div_ceil(threads).max(1));
        let running: Vec<_> = parts.map(|part| scope.spawn(|| stanzas(part, repository))).collect();
        running.into_iter().map(|part| part.join().unwrap()).collect()
    });
    fs::write(repository.join("Packages"), index).unwrap();
    repository.to_path_buf()
}

/// What the index says of some packages, which are put into the repository. The cache has each under its SHA-256, which
/// apt checks.
fn stanzas(packages: &[PathBuf], repository: &Path) -> String {
    let mut stanzas = String::new();
    for path in packages {
        let sha256 = path.file_name().unwrap().to_str().unwrap();
        let target = repository.join(format!("{sha256}.deb"));
        if fs::hard_link(path, &target).is_err() {
            fs::copy(path, &target).unwrap();
        }
        let control = tool("dpkg-deb", ["-f".as_ref(), path.as_os_str()]);
        let size = fs::metadata(&target).unwrap().len();
        stanzas += &format!("{control}Filename: ./{sha256}.deb\nSize: {size}\nSHA256: {sha256}\n\n");
    }
    stanzas
}

impl Parity {
    /// What other tools call an image of the layout.
    fn source(&self, image: &str) -> String {
        format!("oci:{}", self.image(image))
    }

    fn image(&self, image: &str) -> String {
        format!("{}:localhost:5100/{image}:parity", self.layout.display())
    }

    /// The image's tree as umoci unpacks it.
    fn unpack(&self, image: &str, to: &Path) {
        tool(
            "umoci",
            ["raw".as_ref(), "unpack".as_ref(), "--image".as_ref(), self.image(image).as_ref(), to.as_os_str()],
        );
    }

    /// The date of an image, in seconds since 1970.
    fn date(&self, image: &str) -> i64 {
        let config = tool("skopeo", ["inspect", "--config", &self.source(image)]);
        let config: Value = serde_json::from_str(&config).unwrap();
        config["created"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
    }

    /// Makes apt's base of the packages of ours.
    fn debootstrap(&self) -> Finished {
        let ours = tempfile::tempdir_in(&self.directory).unwrap();
        self.unpack(BASE.image, &ours.path().join("root"));
        let database = format!("--admindir={}", ours.path().join("root/var/lib/dpkg").display());
        let names = tool("dpkg-query", [&database, "-W", "-f", "${Package}\n"]);
        let names: Vec<&str> = names.lines().collect();
        let mut mmdebstrap = Command::new("mmdebstrap");
        // The packages need a merged /usr, which base-files alone does not make for apt.
        mmdebstrap.args(["--mode=root", "--variant=custom", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]);
        // They are this machine's.
        mmdebstrap.arg("--customize-hook=rm \"$1/etc/hostname\" \"$1/etc/resolv.conf\"");
        mmdebstrap.arg(format!("--include={}", names.join(","))).arg("bookworm").arg(&self.base);
        run(mmdebstrap.arg(format!("deb [trusted=yes] copy:{} ./", self.repository.display())))
    }

    /// Runs a script over a tree as a build of this image runs scripts. `tell` is given what is there afterwards, and
    /// says what is returned.
    #[track_caller]
    fn chroot(&self, tree: &Path, set: &Set, (script, arguments): (&str, &[&str]), tell: &Path) -> String {
        let at = tempfile::tempdir_in(&self.directory).unwrap();
        let mut chroot = Command::new("unshare");
        chroot.args(["--mount", "--uts", "--pid", "--net", "--ipc", "--fork", "--kill-child", "sh"]);
        chroot.arg(program("chroot.sh")).arg(tree).arg(&self.repository).arg(at.path());
        chroot.arg(self.date(set.image).to_string()).arg(tell).arg(program(script)).args(arguments);
        run(&mut chroot).success().stdout
    }
}

/// A script of this directory.
fn program(name: &str) -> PathBuf {
    repository().join("tests/parity").join(name)
}

/// A path with its type, mode, owner, attributes and content.
type Tree = BTreeMap<String, Value>;

/// Panics unless the image's tree is apt's, and dpkg and apt go on from there.
#[track_caller]
fn is_what_apt_makes(set: &Set) {
    let parity = parity();
    let directory = tempfile::tempdir_in(&parity.directory).unwrap();
    let unpacked = directory.path().join("unpacked");
    parity.unpack(set.image, &unpacked);
    let ours = tool("python3", [&program("tree.py"), &unpacked]);
    let theirs = parity.chroot(&parity.base, set, ("install.sh", set.packages), &program("tree.py"));
    let (ours, theirs): (Tree, Tree) = (serde_json::from_str(&ours).unwrap(), serde_json::from_str(&theirs).unwrap());
    let known = differences::known();
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let unknown: Vec<String> = paths
        .into_iter()
        .filter_map(|path| Difference::at(path, ours.get(path), theirs.get(path)))
        .filter(|difference| !known.iter().any(|known| known.allows(difference)))
        .map(|difference| difference.to_string())
        .collect();
    assert!(unknown.is_empty(), "{} paths:\n{}", unknown.len(), unknown.join("\n"));
    parity.chroot(&unpacked, set, ("judge.sh", &[set.more, set.gone]), Path::new(""));
}
