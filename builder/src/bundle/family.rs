//! The files of a family's directory that go into a bundle: all but images, version control, and what an earlier bundle
//! left there. Links become what they lead to, if that is inside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use spec::{Family, Trust};

use super::carried::keyring;
use super::{BundleError, CARRIED};

/// How deep directories may lie in each other; links could lead in circles.
const DEEPEST: usize = 64;

/// A file of this machine.
pub struct OnDisk {
    /// Where it is.
    pub path: PathBuf,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// The files, by their path below the directory.
pub fn files(directory: &Path, left_out: &[PathBuf]) -> Result<BTreeMap<String, OnDisk>, BundleError> {
    let left_out: Vec<PathBuf> = left_out.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let root = fs::canonicalize(directory).map_err(BundleError::io("read", directory))?;
    let mut found = BTreeMap::new();
    walk(&root, &root, "", 0, &mut found)?;
    found.retain(|_, file| !left_out.contains(&file.path));
    Ok(found)
}

fn walk(
    root: &Path,
    directory: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, OnDisk>,
) -> Result<(), BundleError> {
    if depth > DEEPEST {
        return Err(refused(directory, "its directories lie too deep in each other, or in a circle of links"));
    }
    for item in fs::read_dir(directory).map_err(BundleError::io("read", directory))? {
        let item = item.map_err(BundleError::io("read", directory))?;
        let path = item.path();
        let Some(name) = item.file_name().to_str().map(str::to_owned) else {
            return Err(refused(&path, "its name is not UTF-8"));
        };
        // What a link leads out to, or to nothing, no build may read either.
        let Some(real) = fs::canonicalize(&path).ok().filter(|real| real.starts_with(root)) else { continue };
        let metadata = fs::metadata(&real).map_err(BundleError::io("read", &path))?;
        let inside = format!("{prefix}{name}");
        if metadata.is_dir() {
            if !is_left_out(&path, &inside) {
                walk(root, &path, &format!("{inside}/"), depth + 1, found)?;
            }
        } else if metadata.is_file() {
            let executable = metadata.permissions().mode() & 0o100 != 0;
            found.insert(inside, OnDisk { path, executable });
        }
    }
    Ok(())
}

fn is_left_out(path: &Path, inside: &str) -> bool {
    inside == CARRIED || inside == ".git" || path.join("oci-layout").exists()
}

/// The keyrings that the family names outside of its directory, by their file name.
pub fn keyrings(directory: &Path, family: &Family) -> Result<BTreeMap<String, PathBuf>, BundleError> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for source in &family.sources {
        let Trust::Keyring(file) = &source.trust else { continue };
        if !file.as_str().split('/').any(|part| part == "..") {
            continue;
        }
        let path = keyring(directory, file.as_str());
        let name = file.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let is_same = |other: &PathBuf| fs::read(other).ok() == fs::read(&path).ok();
        if found.get(&name).is_some_and(|other| !is_same(other)) {
            return Err(refused(&path, "another keyring of the same name lies elsewhere"));
        }
        found.insert(name, path);
    }
    Ok(found)
}

fn refused(path: &Path, why: &str) -> BundleError {
    BundleError::Refused { path: path.to_owned(), why: why.to_owned() }
}
