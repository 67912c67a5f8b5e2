//! The solver chooses what `apt-get --no-install-recommends` chooses, on the real archive.
//!
//! The oracle is apt itself with an empty dpkg status, so these tests need a Debian 12 machine whose package lists were
//! fetched. They fail where something is missing, and say what: a comparison that did not take place proves nothing.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers here are parts of tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use debian::{PackageRequest, RelationField, Request, Universe, parse_index, unpack_order};

const ARCHITECTURE: &str = "amd64";
const RELEASE: &str = "bookworm";

/// The machine's lists of Debian's own packages, and an apt that sees nothing else.
struct Apt {
    directory: tempfile::TempDir,
    universe: Universe,
}

impl Apt {
    fn shared() -> &'static Self {
        static APT: OnceLock<Apt> = OnceLock::new();
        APT.get_or_init(Self::new)
    }

    fn new() -> Self {
        let targets = index_targets();
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("cache")).unwrap();
        let sources = targets.iter().fold(String::new(), |mut text, target| {
            writeln!(text, "deb {} {} main", target.site, target.release).unwrap();
            text
        });
        std::fs::write(directory.path().join("sources.list"), sources).unwrap();
        let indexes = targets.iter().map(|target| parse_index(&read_list(&target.file)).unwrap()).collect();
        let apt = Self { directory, universe: Universe::new(ARCHITECTURE, indexes).unwrap() };
        // Without a cache of its own, apt reads the lists again for each question.
        let generated = apt.command("apt-cache").arg("gencaches").output().unwrap();
        assert!(generated.status.success(), "apt-cache gencaches: {}", String::from_utf8_lossy(&generated.stderr));
        apt
    }

    /// A program of apt that sees an empty image and Debian's lists only.
    fn command(&self, program: &str) -> Command {
        let here = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = Command::new(program);
        let options = [
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Etc::sourcelist={}", here("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Dir::Etc::preferences=-".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::Cache={}", here("cache")),
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            format!("APT::Architecture={ARCHITECTURE}"),
        ];
        command.env("LC_ALL", "C").args(options.iter().flat_map(|option| ["-o", option]));
        command
    }

    fn essential(&self) -> Vec<String> {
        self.universe.essential().iter().map(|id| self.universe.package(*id).name().to_owned()).collect()
    }

    /// What apt would install into an empty image, as `name version`.
    fn simulate(&self, packages: &[&str], recommends: bool) -> BTreeSet<String> {
        let mut command = self.command("apt-get");
        command.args(["-s", "-q"]);
        command.args(["-o", &format!("APT::Install-Recommends={recommends}"), "install"]);
        let output = command.args(self.essential()).args(packages).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "apt-get install {packages:?} fails; run `apt-get update`?\n{stdout}{stderr}");
        let installed = stdout.lines().filter_map(|line| line.strip_prefix("Inst "));
        let pairs = installed.filter_map(|line| {
            let (name, rest) = line.split_once(" (")?;
            Some(format!("{name} {}", rest.split_once(' ')?.0))
        });
        pairs.collect()
    }

    fn resolve(&self, packages: &[&str], recommends: bool) -> BTreeSet<String> {
        let install: Vec<PackageRequest> = packages.iter().map(|name| name.parse().unwrap()).collect();
        let request = Request { installed: &[], install: &install, essential: true, recommends };
        let resolution = self.universe.resolve(&request).unwrap_or_else(|error| panic!("{packages:?}: {error}"));
        let names = resolution.packages.iter().map(|id| {
            let package = self.universe.package(*id);
            format!("{} {}", package.name(), package.version())
        });
        names.collect()
    }

    fn assert_same(&self, packages: &[&str]) {
        self.assert_same_with(packages, false);
    }

    fn assert_same_with(&self, packages: &[&str], recommends: bool) {
        let (ours, apts) = (self.resolve(packages, recommends), self.simulate(packages, recommends));
        let only_ours: Vec<_> = ours.difference(&apts).collect();
        let only_apts: Vec<_> = apts.difference(&ours).collect();
        println!("{packages:?}: {} packages, apt {}", ours.len(), apts.len());
        assert!(
            only_ours.is_empty() && only_apts.is_empty(),
            "{packages:?}: only here: {only_ours:?}, only apt: {only_apts:?}"
        );
    }
}

struct Target {
    file: PathBuf,
    site: String,
    release: String,
}

/// Debian's own main indexes among those that apt has.
fn index_targets() -> Vec<Target> {
    let format = "$(FILENAME)|$(SITE)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(ARCHITECTURE)";
    let output = Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output();
    let output = output.expect("these tests compare with apt: `apt-get` is missing on this machine");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut targets = Vec::new();
    for line in text.lines() {
        let [file, site, release, component, origin, architecture] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("`apt-get indextargets` prints an unknown line: {line}");
        };
        let is_ours = origin == "Debian" && component == "main" && architecture == ARCHITECTURE;
        if is_ours && release.starts_with(RELEASE) && Path::new(file).exists() {
            let (file, site, release) = (PathBuf::from(file), site.to_owned(), release.to_owned());
            targets.push(Target { file, site, release });
        }
    }
    assert!(
        targets.iter().any(|target| target.release == RELEASE),
        "these tests need the lists of Debian {RELEASE}, main, {ARCHITECTURE} in apt's sources: run `apt-get update`"
    );
    targets
}

/// The text of a list, which apt may keep compressed.
fn read_list(file: &Path) -> String {
    let output = Command::new("/usr/lib/apt/apt-helper").arg("cat-file").arg(file).output();
    let output = output.expect("these tests need /usr/lib/apt/apt-helper, which comes with apt");
    assert!(output.status.success(), "apt-helper cannot read {}", file.display());
    String::from_utf8(output.stdout).unwrap()
}

/// What a Debian base image has.
const BASE: [&str; 2] = ["apt", "ca-certificates"];

fn with_base<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    BASE.iter().copied().chain(packages.iter().copied()).collect()
}

#[test]
fn base_images_have_apts_packages() {
    Apt::shared().assert_same(&[]);
    Apt::shared().assert_same(&BASE);
}

#[test]
fn services_have_apts_packages() {
    let sets: [&[&str]; 8] = [
        &["redis-server", "gosu"],
        &["memcached"],
        &["rabbitmq-server", "gosu"],
        &["keystone", "default-mysql-client", "python3-keystoneclient", "python3-memcache", "python3-mysqldb"],
        &["nodejs"],
        &["nova-api", "nova-conductor", "nova-scheduler"],
        &["neutron-server"],
        &["libvirt-daemon-system"],
    ];
    for set in sets {
        Apt::shared().assert_same(&with_base(set));
    }
}

#[test]
fn other_sets_have_apts_packages() {
    let sets: [&[&str]; 9] = [
        &["nginx"],
        &["postgresql-15"],
        &["default-jre-headless"],
        &["build-essential", "git", "curl"],
        &["ruby-full", "nodejs", "php", "redis-server"],
        &["exim4"],
        &["postfix", "mutt"],
        &["glance", "cinder-api", "nova-compute", "bind9", "zookeeperd"],
        &["chromium"],
    ];
    for set in sets {
        Apt::shared().assert_same(&with_base(set));
    }
}

#[test]
fn recommended_packages_are_apts() {
    let sets: [&[&str]; 3] = [&["redis-server"], &["nginx"], &["python3"]];
    for set in sets {
        Apt::shared().assert_same_with(&with_base(set), true);
    }
}

/// A child image is resolved on top of its parent, and together they are what one installation would have given.
#[test]
fn a_child_on_its_parent_has_what_one_installation_has() {
    let universe = &Apt::shared().universe;
    let base: Vec<PackageRequest> = BASE.iter().map(|name| name.parse().unwrap()).collect();
    let request = Request { install: &base, essential: true, ..Request::default() };
    let parent = universe.resolve(&request).unwrap();
    let install = ["keystone".parse().unwrap(), "nodejs".parse().unwrap()];
    let request = Request { installed: &parent.packages, install: &install, ..Request::default() };
    let child = universe.resolve(&request).unwrap();
    let whole = Apt::shared().simulate(&with_base(&["keystone", "nodejs"]), false);
    assert_eq!(parent.packages.len() + child.packages.len(), whole.len());
}

/// In the order of unpacking, a package comes after those it must have been configured with before.
#[test]
fn pre_dependencies_are_unpacked_first() {
    let universe = &Apt::shared().universe;
    let install: Vec<PackageRequest> = ["nova-api", "apt"].iter().map(|name| name.parse().unwrap()).collect();
    let request = Request { install: &install, essential: true, ..Request::default() };
    let packages = universe.resolve(&request).unwrap().packages;
    let order = unpack_order(universe, &packages).unwrap();
    assert_eq!(order.len(), packages.len());
    for (place, id) in order.iter().enumerate() {
        for group in universe.package(*id).relations(RelationField::PreDepends).unwrap() {
            let meets = |other| group.iter().any(|relation| universe.meets(other, relation));
            assert!(
                order[..place].iter().any(|other| meets(*other)),
                "{} before {group}",
                universe.package(*id).name()
            );
        }
    }
}
