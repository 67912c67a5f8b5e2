//! The lock of a family: what of it still fits the specs, what it prefers where it does not, and what is written anew.
//! The format is [`spec::lock`]'s.

pub mod changes;
pub mod file;
pub mod files;
pub mod pins;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use content::Digest;
use oci::Platform;
use spec::lock::{Lock, LockedDeb, LockedImage, LockedParent, LockedPython, LockedStep};
use spec::{AptIndex, AptSource, Family, Image, Parent, Step, Trust};
use url::Url;

use crate::apt::archive::Archives;
use crate::base::{Base, Pin};
use crate::error::BuildError;
use crate::fetch::{STAND_IN, shown};
use crate::plan::LockedPackage;
use crate::python::{Compiling, Interpreter};

use self::pins::Pins;
pub use record::record;

/// The file in a family's directory.
pub const LOCK_FILE: &str = "drystone.lock";

/// A lock as it was found.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What it says.
    pub lock: Lock,
    /// Packages that are not in it and are to be preferred all the same, from a merge with conflicts.
    pub preferred: Vec<LockedDeb>,
}

/// What is to be resolved again although the lock has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    #[default]
    Nothing,
    /// Everything.
    Everything,
    /// Packages of these names.
    Packages(BTreeSet<String>),
}

/// A lock against the specs of its family.
pub struct Fit<'a> {
    family: &'a Family,
    lock: Option<&'a Known>,
    update: &'a Update,
    platform: &'a Platform,
    /// Sources that are no longer what the lock describes.
    changed: BTreeSet<&'a str>,
}

impl<'a> Fit<'a> {
    /// Compares a lock with the family's sources, for images of this platform.
    pub fn new(
        family: &'a Family,
        lock: Option<&'a Known>,
        update: &'a Update,
        platform: &'a Platform,
        archives: &Archives<'_>,
    ) -> Result<Self, BuildError> {
        let mut changed = BTreeSet::new();
        for source in &family.sources {
            let locked = lock.and_then(|known| known.lock.source(source.name.as_str()));
            let same = match locked {
                Some(locked) if locked.description != description(source) => false,
                // Stand-ins are the program's own, and change with it.
                Some(locked) if is_stand_in(source) => {
                    archives.fetch(source)?.iter().map(|offer| &offer.index).eq(&locked.indexes)
                }
                Some(_) => true,
                None => false,
            };
            if !same {
                changed.insert(source.name.as_str());
            }
        }
        Ok(Self { family, lock, update, platform, changed })
    }

    /// The platform of the images.
    pub fn platform(&self) -> &'a Platform {
        self.platform
    }

    /// What the lock says of an image, if that is what its spec asks for and nothing of it is to be updated.
    pub fn image(&self, image: &Image) -> Option<&'a LockedImage> {
        let found = self.lock?.lock.image(image.name.as_str(), &self.platform.to_string())?;
        let sources: Vec<&str> = image.sources.iter().map(|name| name.as_str()).collect();
        let has_packages = image.packages().next().is_some();
        let fits = found.from == from(image)
            && found.sources == sources
            && found.recommends == image.recommends
            && (!has_packages || !sources.iter().any(|name| self.changed.contains(name)))
            && found.steps.len() == asks(image).count()
            && asks(image).zip(&found.steps).all(|(asks, step)| step.asks == asks)
            && found.steps.iter().all(|step| (step.python == LockedPython::Never) != image.bytecode);
        (fits && !self.is_updated(found)).then_some(found)
    }

    fn is_updated(&self, image: &LockedImage) -> bool {
        match self.update {
            Update::Nothing => false,
            Update::Everything => true,
            Update::Packages(names) => image.packages().any(|package| names.contains(&package.name)),
        }
    }

    /// Whether a base is the one that the lock names.
    pub fn has_base(&self, base: &Base) -> bool {
        let locked = self.lock.and_then(|known| known.lock.parent(&base.written, &self.platform.to_string()));
        locked.is_some_and(|locked| locked.digest == base.digest.to_string())
    }

    /// What the lock says of files by address.
    pub fn files(&self) -> files::Pinned {
        self.lock.map(|known| files::pinned(&known.lock.files)).unwrap_or_default()
    }

    /// What is preferred where something has to be resolved.
    pub fn pins(&self) -> Pins {
        let mut pins = Pins::default();
        let (Some(known), false) = (self.lock, *self.update == Update::Everything) else { return pins };
        let platform = self.platform.to_string();
        let images = known.lock.images.iter().filter(|image| image.platform == platform);
        for package in images.flat_map(LockedImage::packages) {
            let is_known = self.family.source(&package.source).is_some();
            pins.add(package, is_known && !self.changed.contains(package.source.as_str()));
        }
        known.preferred.iter().for_each(|package| pins.add(package, false));
        if let Update::Packages(names) = self.update {
            names.iter().for_each(|name| pins.free(name));
        }
        pins
    }

    /// The first name that is to be updated and that the lock does not have.
    pub fn unknown_update(&self) -> Option<&'a str> {
        let Update::Packages(names) = self.update else { return None };
        let locked = self.lock.map(|known| known.lock.packages()).unwrap_or_default();
        let is_locked = |name: &&String| locked.iter().any(|package| package.name == **name);
        names.iter().find(|name| !is_locked(name)).map(String::as_str)
    }
}

/// What an image is built on, as a lock writes it.
fn from(image: &Image) -> String {
    match &image.from.value {
        Parent::Scratch => "scratch".to_owned(),
        Parent::Sibling(name) => name.to_string(),
        Parent::External(reference) => reference.clone(),
    }
}

/// What the steps of an image that install packages ask for.
fn asks(image: &Image) -> impl Iterator<Item = Vec<String>> {
    image.steps.iter().filter_map(|step| match step {
        Step::Packages(requests) => Some(requests.iter().map(ToString::to_string).collect()),
        Step::Groups(_) | Step::Users(_) | Step::Files(_) | Step::Run(_) => None,
    })
}

fn is_stand_in(source: &AptSource) -> bool {
    source.url.as_ref().is_some_and(|url| url.starts_with(STAND_IN))
}

/// How a family describes a source, as far as it decides what the source offers.
pub fn description(source: &AptSource) -> Vec<String> {
    let list =
        |items: &[spec::Located<String>]| items.iter().map(|item| item.value.as_str()).collect::<Vec<_>>().join(",");
    let mut words = match &source.index {
        AptIndex::Suites { suites, components } => {
            vec![format!("suites={}", list(suites)), format!("components={}", list(components))]
        }
        AptIndex::Flat(directory) => vec![format!("flat={}", directory.value)],
    };
    words.extend(source.url.as_ref().map(|url| format!("url={}", without_credentials(url))));
    if matches!(source.trust, Trust::Unsigned(_)) {
        words.push("unsigned".to_owned());
    }
    words.into_iter().map(|word| word.replace(char::is_whitespace, "%20")).collect()
}

/// An address as it may be written down.
fn without_credentials(url: &str) -> String {
    Url::parse(url).map_or_else(|_| url.to_owned(), |url| shown(&url).to_string())
}

/// What a locked step says of Python, given the packages of its image by digest.
pub fn compiling(step: &LockedStep, known: &[&LockedPackage]) -> Option<Compiling> {
    Some(match &step.python {
        LockedPython::Never => Compiling::Never,
        LockedPython::ByScripts => Compiling::ByScripts,
        LockedPython::Interpreter { version, packages } => {
            let find = |name: &String| known.iter().find(|package| package.name == *name).copied().cloned();
            let packages = packages.iter().map(find).collect::<Option<Vec<_>>>()?;
            Compiling::Once(Interpreter { version: version.clone(), packages })
        }
    })
}

/// What the names of bases stand for on each platform, by a lock.
pub fn bases(lock: &Lock) -> BTreeMap<(String, Platform), Pin> {
    let pin = |parent: &LockedParent| {
        let pin = Pin { digest: parent.digest.parse().ok()?, size: parent.size };
        Some(((parent.reference.clone(), parent.platform.parse().ok()?), pin))
    };
    lock.parents.iter().filter_map(pin).collect()
}

/// Adds bases to a lock.
pub fn note_bases(lock: &mut Lock, bases: &[Arc<Base>]) {
    for base in bases {
        let found = locked_parent(base, Some(lock));
        lock.parents.retain(|known| known.reference != found.reference || known.platform != found.platform);
        lock.parents.push(found);
    }
    lock.sort();
}

/// A base as a lock names it: as it does already, if that is the same image.
fn locked_parent(base: &Base, lock: Option<&Lock>) -> LockedParent {
    let (platform, digest) = (base.asked.to_string(), base.digest.to_string());
    let known = lock.and_then(|lock| lock.parent(&base.written, &platform));
    known.filter(|known| known.digest == digest).cloned().unwrap_or_else(|| {
        let size = base.layers.iter().map(|layer| layer.size).sum();
        LockedParent { reference: base.written.clone(), platform, digest, size: Some(size) }
    })
}

/// A digest of a lock.
pub(crate) fn digest(sha256: &spec::lock::Sha256) -> Digest {
    Digest::from_hex(sha256.as_str()).expect("a lock has whole digests")
}
