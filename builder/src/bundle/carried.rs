//! What a loaded bundle leaves in a family's directory, and how builds find it there.
//!
//! Suites are read from the archives that came along, as if they were named with `--mirror`; sources with an address of
//! their own, and files by address, from their copies. So builds of a loaded family are offline by nature.

use std::fs;
use std::path::{Path, PathBuf};

use spec::{AptSource, Family};
use url::Url;

use super::{Bundle, CARRIED};

/// The list of a loaded bundle, in [`CARRIED`].
pub(super) const KEPT_LIST: &str = "bundle.json";

/// What came along with a family.
pub struct Carried {
    directory: PathBuf,
    bundle: Bundle,
}

impl Carried {
    /// What is in a family's directory, if a bundle was loaded there.
    pub fn of(family: &Path) -> Option<Self> {
        let directory = fs::canonicalize(family.join(CARRIED)).ok()?;
        let bundle = Bundle::parse(&fs::read(directory.join(KEPT_LIST)).ok()?).ok()?;
        Some(Self { directory, bundle })
    }

    /// The list of the bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Mirrors for the suites that came along, as `--mirror` takes them.
    pub fn mirrors(&self) -> Vec<String> {
        let mirrors = self.directory.join("mirror");
        let Ok(items) = fs::read_dir(&mirrors) else { return Vec::new() };
        let suites = items.filter_map(|item| item.ok()?.file_name().into_string().ok());
        let mirror = |suite: String| {
            let url = Url::from_directory_path(mirrors.join(&suite)).ok()?;
            Some(format!("{suite}={url}"))
        };
        let mut found: Vec<String> = suites.filter_map(mirror).collect();
        found.sort();
        found
    }

    /// For each address of the family that came along: the address, and its copy, a directory or file.
    pub fn copies(&self, family: &Family) -> Vec<(Url, PathBuf)> {
        let of_source = |source: &AptSource| {
            let copy = self.directory.join("sources").join(&source.name.value);
            let mut url = Url::parse(source.url.as_ref()?).ok()?;
            if !url.path().ends_with('/') {
                url.set_path(&format!("{}/", url.path()));
            }
            copy.is_dir().then_some((url, copy))
        };
        let sources = family.sources.iter().filter_map(of_source);
        let files = self.bundle.addresses.iter().filter_map(|address| {
            let copy = self.directory.join("files").join(address.digest.hex());
            Some((Url::parse(&address.url).ok()?, copy)).filter(|(_, copy)| copy.is_file())
        });
        sources.chain(files).collect()
    }
}

/// Where a keyring of a family is: where the family says or, if there is nothing, among those that came along.
pub fn keyring(family: &Path, file: &str) -> PathBuf {
    let named = family.join(file);
    if named.exists() {
        return named;
    }
    let name = file.rsplit('/').next().unwrap_or_default();
    let carried = family.join(CARRIED).join("keyrings").join(name);
    if carried.is_file() { carried } else { named }
}
