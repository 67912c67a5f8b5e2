//! `drystone.lock`: every input of a family by digest, and the decisions that outlive a build.
//!
//! Goals of the format, the first ones first:
//!
//! 1. **Complete.** A build needs nothing from a lock's archives but the files that it names, and no decision is left.
//! 2. **Verifiable without a network.** What is fetched is named by size and sha256; so are the index and the signed
//!    release that vouched for it, with dates and the signer's key.
//! 3. **Readable**, by people and by `awk`: words between blanks, one thing a line, no quoting. Whatever belongs to a
//!    line is indented below it.
//! 4. **Small diffs.** One line a package, in one table for all images, so that a new version is one changed line.
//!    Images name packages without versions. Everything is sorted, except where the order is itself the information:
//!    packages in an image stand in the order in which they are unpacked, layers from the lowest up.
//! 5. **Hosts are not in it** where the family leaves them to the machine: paths are relative to an archive.
//!
//! ```text
//! drystone-lock 1
//!
//! source NAME KEY=VALUE…                       how the family describes it; what no longer fits is resolved again
//!   release SUITE DATE SIZE SHA256 KEY         the InRelease, and the fingerprint that signed it (or `unsigned`)
//!   index SUITE PATH SIZE SHA256               the Packages file that it names
//!
//! parent REFERENCE PLATFORM DIGEST [SIZE]      an image of a registry, and the bytes of its layers as they are stored
//!
//! file URL SIZE SHA256                         a file by address
//!
//! package NAME VERSION ARCHITECTURE SOURCE SUITE PATH SIZE SHA256
//!
//! image NAME PLATFORM
//!   from PARENT
//!   budget LAYERS [squashed]                  its own steps' layers may be one, to keep within the budget
//!   sources NAME…
//!   recommends yes|no
//!   step NUMBER                                the image's first, second… step that installs packages
//!     ask REQUEST                              what the spec asks for
//!     python VERSION NAME…|by-scripts|never    the interpreter that compiles modules, and what it needs
//!     layer LABEL                              a layer, by the first of its packages
//!     lay NAME LABEL                           a package, and its layer
//! ```
//!
//! Where a lock has several packages of one name, images say `NAME:ARCHITECTURE`, else `NAME=VERSION`, else
//! `NAME=VERSION#` and the first digits of the sha256. Lines that begin with `#` are comments, and are not kept.

mod conflict;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;

/// The version of the format that is written, and the only one that is read.
pub const LOCK_VERSION: u32 = 1;

/// All inputs of a family. Equal locks are written as equal texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// The archives, sorted by name.
    pub sources: Vec<LockedSource>,
    /// Images of registries, sorted.
    pub parents: Vec<LockedParent>,
    /// Files by address, sorted.
    pub files: Vec<LockedFile>,
    /// Images, sorted by name and platform.
    pub images: Vec<LockedImage>,
}

/// A sha256 as 64 hexadecimal digits in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(String);

impl Sha256 {
    /// The digest with these digits, if they are 64 in lower case.
    pub fn new(digits: impl Into<String>) -> Option<Self> {
        let digits = digits.into();
        let valid = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then_some(Self(digits))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An archive, and what of it was believed when it was asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedSource {
    /// Its name in the family.
    pub name: String,
    /// How the family describes it: `KEY=VALUE`, in a fixed order.
    pub description: Vec<String>,
    /// The signed releases, in the order of the suites.
    pub releases: Vec<LockedRelease>,
    /// The indexes, in the order in which they count.
    pub indexes: Vec<LockedIndex>,
}

/// A suite's `InRelease`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedRelease {
    /// The suite.
    pub suite: String,
    /// When it was made, as `2026-11-14T09:12:33Z`.
    pub date: String,
    /// Bytes of the file.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// The fingerprint of the key that signed it; `None` if nobody asked.
    pub signer: Option<String>,
}

/// A `Packages` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedIndex {
    /// The suite, or the directory of a flat archive.
    pub suite: String,
    /// The path below that.
    pub path: String,
    /// Bytes as stored.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// An image of a registry that others are built on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedParent {
    /// The reference, as the spec writes it.
    pub reference: String,
    /// For which platform.
    pub platform: String,
    /// The manifest's digest, as `sha256:…`.
    pub digest: String,
    /// Bytes of its layers, as they are stored; older locks do not say.
    pub size: Option<u64>,
}

/// A file by address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedFile {
    /// Where it is.
    pub url: String,
    /// How many bytes it has.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// A package by digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockedDeb {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The source that it comes from.
    pub source: String,
    /// The suite, or the directory of a flat archive.
    pub suite: String,
    /// The path below the archive's root.
    pub path: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// The digest of the `.deb`.
    pub sha256: Sha256,
}

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedImage {
    /// Its name.
    pub name: String,
    /// Its platform.
    pub platform: String,
    /// What it is built on, as the spec writes it.
    pub from: String,
    /// How many layers it may have.
    pub budget: u32,
    /// Whether the layers of its own steps are squashed.
    pub squashed: bool,
    /// The names of its sources.
    pub sources: Vec<String>,
    /// Whether recommended packages came along.
    pub recommends: bool,
    /// The steps that install packages.
    pub steps: Vec<LockedStep>,
}

/// A step that installs packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedStep {
    /// What the spec asks for, in its order.
    pub asks: Vec<String>,
    /// What becomes of Python modules.
    pub python: LockedPython,
    /// The new packages, in the order in which they are unpacked.
    pub packages: Vec<LockedDeb>,
    /// The layers, the lowest first; each the places of its packages in `packages`, in the order of their names.
    pub layers: Vec<Vec<usize>>,
}

/// What becomes of the Python modules of a step's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockedPython {
    /// They are not compiled.
    Never,
    /// The packages' scripts compile what they will.
    ByScripts,
    /// This interpreter compiles them.
    Interpreter {
        /// Its version, as `3.11`.
        version: String,
        /// The packages with it and those they need, by name.
        packages: Vec<String>,
    },
}

impl Lock {
    /// Every package, once, sorted.
    pub fn packages(&self) -> Vec<&LockedDeb> {
        let mut packages: Vec<&LockedDeb> = self.images.iter().flat_map(LockedImage::packages).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }

    /// The image of that name for that platform.
    pub fn image(&self, name: &str, platform: &str) -> Option<&LockedImage> {
        self.images.iter().find(|image| image.name == name && image.platform == platform)
    }

    /// The source of that name.
    pub fn source(&self, name: &str) -> Option<&LockedSource> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// The file at that address.
    pub fn file(&self, url: &str) -> Option<&LockedFile> {
        self.files.iter().find(|file| file.url == url)
    }

    /// The digest of an image of a registry.
    pub fn parent(&self, reference: &str, platform: &str) -> Option<&LockedParent> {
        self.parents.iter().find(|parent| parent.reference == reference && parent.platform == platform)
    }
}

impl Lock {
    /// Puts everything into the order in which it is written.
    pub fn sort(&mut self) {
        self.sources.sort_by(|left, right| left.name.cmp(&right.name));
        self.parents.sort();
        self.parents.dedup();
        self.files.sort();
        self.files.dedup();
        self.images.sort_by(|left, right| (&left.name, &left.platform).cmp(&(&right.name, &right.platform)));
    }
}

impl LockedImage {
    /// The packages of all its steps.
    pub fn packages(&self) -> impl Iterator<Item = &LockedDeb> {
        self.steps.iter().flat_map(|step| &step.packages)
    }
}
