//! From a directory to a family: reads `family.yaml` and every image's `image.yaml`, and hands the texts to the
//! language of specs.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use spec::{Diagnostics, Family, SourceFile, Variables};

/// The file that makes a directory a family.
pub const FAMILY_FILE: &str = "family.yaml";
/// The file that makes a directory an image.
pub const IMAGE_FILE: &str = "image.yaml";

/// The file that makes a directory an image too, if it has no `image.yaml`.
pub const DOCKERFILE: &str = "Dockerfile";

/// No spec that a person wrote is larger than this.
const LARGEST_SPEC: u64 = 1 << 20;

/// A family and where it was read from.
#[derive(Debug)]
pub struct LoadedFamily {
    /// The family's directory.
    pub directory: PathBuf,
    /// What its files say.
    pub family: Family,
}

/// Why a family could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such family.
    #[error("`{}` is not a family: it has no {FAMILY_FILE}", .0.display())]
    NoFamily(PathBuf),
    /// A file or directory could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files were read, and are wrong.
    #[error(transparent)]
    Wrong(#[from] Diagnostics),
}

/// Reads the family in `directory`, or the one whose `family.yaml` this is.
pub fn load(directory: &Path, variables: &Variables) -> Result<LoadedFamily, LoadError> {
    let directory = match directory.file_name() {
        Some(name) if name == FAMILY_FILE => {
            directory.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
        }
        _ => directory,
    };
    let family_file = directory.join(FAMILY_FILE);
    if !family_file.is_file() {
        return Err(LoadError::NoFamily(directory.to_path_buf()));
    }
    let read = |file: &str| {
        let found = image_directories(directory, file)?.into_iter();
        found.map(|(name, path)| Ok((name, read_spec(&path)?))).collect::<Result<Vec<_>, LoadError>>()
    };
    let images = read(IMAGE_FILE)?;
    // An image has one description; a Dockerfile beside an `image.yaml` is a file like any other.
    let mut dockerfiles = read(DOCKERFILE)?;
    dockerfiles.retain(|(name, _)| !images.iter().any(|(image, _)| image == name));
    let family = Family::assemble_with_dockerfiles(read_spec(&family_file)?, images, dockerfiles, variables)?;
    Ok(LoadedFamily { directory: directory.to_path_buf(), family })
}

/// The directories below the family's that hold this file, by name.
fn image_directories(family: &Path, file: &str) -> Result<Vec<(String, PathBuf)>, LoadError> {
    let read = |source| LoadError::Read { path: family.to_path_buf(), source };
    let mut found = Vec::new();
    for item in fs::read_dir(family).map_err(read)? {
        let item = item.map_err(read)?;
        let file = item.path().join(file);
        if let (true, Ok(name)) = (file.is_file(), item.file_name().into_string()) {
            found.push((name, file));
        }
    }
    found.sort();
    Ok(found)
}

fn read_spec(path: &Path) -> Result<SourceFile, LoadError> {
    let bytes = read_bounded(path, LARGEST_SPEC)?;
    Ok(SourceFile::from_bytes(path.display().to_string(), bytes)?)
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"))));
    }
    Ok(bytes)
}
