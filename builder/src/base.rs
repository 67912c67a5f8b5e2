//! Images that others made and ours are built on: found in the layout or pulled, checked, and described so that a plan
//! can go on from them.
//!
//! A base's layers are never written again: a child's manifest names the same blobs, with the same descriptors, in
//! OCI's words where the base has Docker's. Every byte is verified before it counts, packed against the manifest and
//! unpacked against the configuration.

mod find;
mod survey;
mod triggers;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use content::{Digest, FramedHasher};
use debian::package::Package;
use oci::{Descriptor, ImageConfig, Platform, Reference, ReferenceError};
use store::{Cache, Layout, StoreError};

use crate::image::Layer;

pub use triggers::triggers;

/// An image to build on.
#[derive(Debug)]
pub struct Base {
    /// Its name as the spec has it.
    pub written: String,
    /// The platform for which it was asked.
    pub asked: Platform,
    /// What the name stands for today, of all platforms: what a lock keeps.
    pub digest: Digest,
    /// The manifest that was chosen for the platform.
    pub manifest: Descriptor,
    /// Its configuration.
    pub config: ImageConfig,
    /// The digest of that.
    pub config_digest: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The Debian packages that are installed in it; none without dpkg's database.
    pub packages: Option<Vec<Package>>,
}

impl Base {
    /// Names all that a step over it can depend on.
    pub fn key(&self) -> Digest {
        let layers: Vec<&[u8]> = self.layers.iter().map(|layer| layer.diff_id.0.as_bytes()).collect();
        FramedHasher::new("base 1").list("layers", layers).field("config", self.config_digest.as_bytes()).finish()
    }

    /// The machine that its programs are for.
    pub fn platform(&self) -> Platform {
        let said = self.config.platform();
        if said.architecture.is_empty() { self.asked.clone() } else { said }
    }

    /// Its date, in seconds since 1970; 0 if it has none.
    pub fn created(&self) -> i64 {
        let created = self.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        created.map_or(0, |created| created.as_second().max(0))
    }
}

/// What a lock says that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// A manifest, or an index that leads to it.
    pub digest: Digest,
    /// Bytes of the layers as they are stored, if the lock says so.
    pub size: Option<u64>,
}

/// How far a base may be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is on this machine.
    Local,
    /// Registries too.
    Anywhere,
    /// Registries too, if they can be reached at once: the name may be a mistake, and nobody should wait to hear so.
    AnywhereAtOnce,
}

/// What a registry has under a name.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What the name stands for: the manifest, or an index that lists it.
    pub named: Digest,
    /// The manifest of the image for the platform.
    pub manifest: Descriptor,
}

/// Fetches images from registries.
pub trait Puller: Sync {
    /// Puts the image of that name and platform into the layout where bases are looked for, with all its blobs, each of
    /// them verified. The name is not entered into the layout.
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Fetched, Box<dyn Error + Send + Sync>>;

    /// Fails if nobody can be reached who would know the image. Each is asked once; what they answer does not matter.
    fn reach(&self, reference: &Reference, platform: &Platform) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Finds bases, each once.
pub struct Bases<'a> {
    /// Where images are, and go.
    pub layout: &'a Layout,
    /// What is remembered of earlier pulls, and of what is in layers.
    pub cache: &'a Cache,
    /// Who fetches what is not here; nobody if no registry may be asked.
    pub puller: Option<&'a dyn Puller>,
    /// Ask registries also for what is here.
    pub refresh: bool,
    /// What names stand for, whatever registries say: a lock's.
    pub pins: BTreeMap<(String, Platform), Pin>,
    directory: PathBuf,
    found: Mutex<BTreeMap<(String, Platform), Arc<Base>>>,
}

/// Why there is no base of that name.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The name is none.
    #[error("`{name}` does not name an image")]
    Name {
        /// What was written.
        name: String,
        /// Why it is none.
        source: Box<ReferenceError>,
    },
    /// A short name fits several images of the layout.
    #[error("the layout has several images called `{name}`: {}", found.join(", "))]
    Ambiguous {
        /// What was written.
        name: String,
        /// What it fits.
        found: Vec<String>,
    },
    /// It is not here, and nobody may be asked.
    #[error("`{name}` is not in the layout, and no registry may be asked for it")]
    NotHere {
        /// What was written.
        name: String,
    },
    /// Another layout does not have it.
    #[error("the layout `{}` has no image `{name}`; it has: {}", layout.display(), found.join(", "))]
    NotThere {
        /// The layout.
        layout: PathBuf,
        /// The name in it.
        name: String,
        /// The names that it has.
        found: Vec<String>,
    },
    /// An archive cannot be read.
    #[error("the archive `{}` cannot be read", archive.display())]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A registry did not give it.
    #[error("cannot pull `{name}`")]
    Pull {
        /// What was written.
        name: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is not for this platform.
    #[error("`{name}` is not for {wanted}, but for {}", found.join(", "))]
    Platform {
        /// What was written.
        name: String,
        /// The platform of the build.
        wanted: String,
        /// Those that there are.
        found: Vec<String>,
    },
    /// An artifact of another kind.
    #[error("`{name}` is not an image: {why}")]
    NotAnImage {
        /// What was written.
        name: String,
        /// What it is instead.
        why: String,
    },
    /// A layer is damaged, or not what the configuration says.
    #[error("`{name}`: the layer {digest} cannot be used")]
    Layer {
        /// What was written.
        name: String,
        /// The layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// dpkg's database in it is damaged.
    #[error("`{name}`: the list of its packages, /var/lib/dpkg/status, cannot be read")]
    Packages {
        /// What was written.
        name: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The layout or the cache failed.
    #[error(transparent)]
    Store(Box<StoreError>),
}

impl From<StoreError> for BaseError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl<'a> Bases<'a> {
    /// Finds bases in a layout, and where there is somebody to pull, in registries.
    pub fn new(layout: &'a Layout, cache: &'a Cache, puller: Option<&'a dyn Puller>) -> Self {
        Self {
            layout,
            cache,
            puller,
            refresh: false,
            pins: BTreeMap::new(),
            directory: PathBuf::from("."),
            found: Mutex::default(),
        }
    }

    /// Paths in names are relative to this directory.
    #[must_use]
    pub fn relative_to(mut self, directory: &Path) -> Self {
        self.directory = directory.to_path_buf();
        self
    }

    /// How large an image is that need not be here, in bytes of its layers as they are stored, if the lock says so.
    pub fn size_of(&self, written: &str, platform: &Platform) -> Option<u64> {
        self.pins.get(&(written.to_owned(), platform.clone()))?.size
    }

    /// All that were found so far.
    pub fn all(&self) -> Vec<Arc<Base>> {
        let found = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.values().cloned().collect()
    }

    /// The base of a name. The same name gives the same base for as long as this lives.
    pub fn find(&self, written: &str, platform: &Platform, reach: Reach) -> Result<Arc<Base>, BaseError> {
        let mut found = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (written.to_owned(), platform.clone());
        if let Some(base) = found.get(&key) {
            return Ok(Arc::clone(base));
        }
        let base = Arc::new(self.look_for(written, platform, reach)?);
        found.insert(key, Arc::clone(&base));
        Ok(base)
    }
}
