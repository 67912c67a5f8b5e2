//! The whole family of the repository, as built for users: its labels, its layers, and every image that has a process,
//! run by Docker. And what families are as graphs, with small ones made for a test.
//!
//! The whole family is built once for all tests of this directory. What the shared cache has of it is taken from there:
//! a first build takes minutes, the next ones seconds. The layout lies in cargo's directory for tests, where the next
//! run replaces it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::family;
use crate::support::family::read_json;
use crate::support::program::{Finished, drystone, opencontrail, run};

mod bad_input;
mod containers;
mod graph;
mod labels;
mod layers;
mod services;

/// What others are built on: no process, no labels.
const BASES: [&str; 9] =
    ["analytics", "cinder", "config", "control", "debian", "glance", "nova", "openstackbase", "webui"];

/// The whole family in a layout.
struct Whole {
    layout: PathBuf,
    built: Finished,
    /// What the build wrote for programs.
    metadata: PathBuf,
    /// Another process with these tests waits for this one: both need the same directory.
    _alone: File,
}

/// The whole family, built by whichever test asks first.
#[track_caller]
fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    let whole = WHOLE.get_or_init(build);
    let Finished { line, code, stdout, stderr } = &whole.built;
    assert_eq!(*code, Some(0), "{line}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    whole
}

fn build() -> Whole {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let alone = File::create(directory.join("whole-family.lock")).unwrap();
    alone.lock().unwrap();
    let layout = directory.join("whole-family");
    if layout.exists() {
        fs::remove_dir_all(&layout).unwrap();
    }
    let metadata = directory.join("whole-family.json");
    let mut build = drystone();
    build.arg("build").arg(opencontrail()).arg("--layout").arg(&layout).arg("--metadata-file").arg(&metadata);
    Whole { built: run(&mut build), layout, metadata, _alone: alone }
}

impl Whole {
    /// The binary, for this layout.
    fn drystone(&self, command: &str) -> Command {
        let mut drystone = drystone();
        drystone.arg(command).arg("--layout").arg(&self.layout);
        drystone
    }

    /// What `drystone images` knows of each image, by name.
    fn images(&self) -> BTreeMap<String, Value> {
        family::images(&self.layout)
    }

    /// The names of the images with these labels, sorted.
    fn labelled(&self, filters: &[&str]) -> Vec<String> {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        let listed = run(self.drystone("images").args(["--format", "{{.Repository}}"]).args(filters)).success();
        names(&listed.stdout)
    }

    /// What the build says of each image, by name.
    fn metadata(&self) -> BTreeMap<String, Value> {
        let metadata = read_json(&self.metadata);
        let images = metadata["images"].as_array().unwrap().iter();
        images.map(|image| (image["name"].as_str().unwrap().to_owned(), image.clone())).collect()
    }

    /// Where a blob is.
    fn blob(&self, digest: &Value) -> PathBuf {
        self.layout.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
    }
}

/// The last parts of repositories, one a line, sorted.
fn names(repositories: &str) -> Vec<String> {
    let mut names: Vec<String> =
        repositories.lines().map(|line| line.rsplit('/').next().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}
