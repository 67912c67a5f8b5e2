//! A part of the repository's own family, from its specs to containers that answer, judged by other people's tools: the
//! services that are Debian's, and a base with two subcontainers. `whole_family` has all of it.
//!
//! It is built once for all tests of this directory, every step anew, from packages that are kept between runs. It lies
//! in cargo's directory for tests, where the next run replaces it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::Value;

use crate::support::program::{self, Finished, drystone, opencontrail, run, shared_cache, tool};

mod containers;
mod owners;
mod registries;
mod tools;
mod up;

/// Every image of this part; those that others are built on come along.
pub const IMAGES: [&str; 9] =
    ["debian", "keystone", "memcached", "openstackbase", "rabbitmq", "redis", "webui", "webui-job", "webui-server"];

/// The family's tag.
const TAG: &str = "contrail-3.0-2668";

/// The family's registry.
const REGISTRY: &str = "localhost:5100";

/// The name of an image at a registry.
pub fn named(registry: &str, image: &str) -> String {
    format!("{registry}/{image}:{TAG}")
}

/// The name of an image in the layout.
pub fn reference(image: &str) -> String {
    named(REGISTRY, image)
}

/// The family after its first `up --once`.
pub struct Family {
    /// The layout with all images.
    pub layout: PathBuf,
    /// What the first `up --once` said.
    pub first: Finished,
    /// The most memory that it had, in KiB.
    pub peak: u64,
    /// Another process with these tests waits for this one: both need the family's port and the same directory.
    _alone: File,
}

impl Family {
    /// The binary, for this layout.
    pub fn drystone(&self, command: &str) -> Command {
        let mut drystone = drystone();
        drystone.arg(command).arg("--layout").arg(&self.layout);
        drystone
    }

    /// `drystone up specs/opencontrail --once`. Whoever calls it has the [`port`].
    pub fn up_once(&self) -> Finished {
        run(self.drystone("up").arg(opencontrail()).args(IMAGES).arg("--once")).success()
    }

    /// What skopeo calls an image of the layout.
    pub fn source(&self, image: &str) -> String {
        format!("oci:{}:{}", self.layout.display(), reference(image))
    }

    /// What `drystone images` knows of each image, by name.
    pub fn images(&self) -> BTreeMap<String, Value> {
        images(&self.layout)
    }
}

/// What `drystone images` knows of each image of a layout, by name.
pub fn images(layout: &Path) -> BTreeMap<String, Value> {
    let listed = run(drystone().args(["images", "--format", "json", "--layout"]).arg(layout)).success();
    let rows: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
    let name = |row: &Value| row["repository"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    rows.into_iter().map(|row| (name(&row), row)).collect()
}

/// The family, built by whichever test asks first.
#[track_caller]
pub fn family() -> &'static Family {
    static FAMILY: OnceLock<Family> = OnceLock::new();
    let family = FAMILY.get_or_init(build);
    let Finished { line, code, stdout, stderr } = &family.first;
    assert_eq!(*code, Some(0), "{line}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    family
}

fn build() -> Family {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let alone = File::create(directory.join("family.lock")).unwrap();
    alone.lock().unwrap();
    let layout = directory.join("family");
    if layout.exists() {
        fs::remove_dir_all(&layout).unwrap();
    }
    let _port = port();
    let mut up = drystone();
    up.arg("up").arg(opencontrail()).args(IMAGES).args(["--once", "--no-cache", "--layout"]).arg(&layout);
    let (first, peak) = program::run_measured(&mut up);
    Family { layout, first, peak, _alone: alone }
}

/// The family's port, for one test at a time.
pub fn port() -> MutexGuard<'static, ()> {
    static PORT: Mutex<()> = Mutex::new(());
    // A test that failed has let go of the port all the same.
    let guard = PORT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    must_be_free(&[5100]);
    guard
}

/// Panics if somebody else listens at a port that a test needs by its number.
#[track_caller]
pub fn must_be_free(ports: &[u16]) {
    for port in ports {
        if let Err(error) = TcpListener::bind(("0.0.0.0", *port)) {
            panic!("this test needs port {port} of this machine, and something else has it: {error}");
        }
    }
}

/// A path with its type, mode, owner and content, as Python's own `tarfile` sees it.
pub type Tree = BTreeMap<String, Value>;

/// The tree that an image's layers make; `tree.py` says what it checks.
pub fn tree(layout: &Path, image: &str) -> Tree {
    tree_of(layout, &reference(image))
}

/// The same of an image by its whole name.
pub fn tree_of(layout: &Path, reference: &str) -> Tree {
    let tree = tool("python3", ["-c", include_str!("tree.py"), layout.to_str().unwrap(), reference]);
    serde_json::from_str(&tree).unwrap()
}

/// Copies what was downloaded from the shared cache into another one, so that nothing is downloaded twice.
pub fn copy_downloads(to: &Path) {
    family();
    fs::create_dir_all(to).unwrap();
    for area in ["debs", "indexes"] {
        tool("cp", ["-r".as_ref(), shared_cache().join(area).as_os_str(), to.as_os_str()]);
    }
}
