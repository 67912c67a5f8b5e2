//! What an image has: its files, and its packages by its own dpkg database, whoever made it.
//!
//! Layers are read as streams, each once for all images that have it. Of contents, only the database and a few small
//! files are kept.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use content::Digest;
use debian::deb822::stanzas;
use debian::dpkg::info_file;
use debian::{Package, copyright};
use layer::compress::decompress;
use layer::entry::{Entry, ImagePath, Kind};
use layer::files::{Files, Listed, list};
use oci::Descriptor;
use serde::Serialize;
use store::{Layout, StoreError, StoredImage};

use crate::image::packages_of;

const STATUS: &str = "var/lib/dpkg/status";
/// Where images without dpkg keep a stanza for each package.
const STATUS_DIRECTORY: &str = "var/lib/dpkg/status.d/";
const RELEASE: &str = "etc/os-release";
const RELEASES: [&str; 2] = [RELEASE, "usr/lib/os-release"];
/// The largest database that is read.
const LARGEST_STATUS: u64 = 64 << 20;
/// The largest copyright file that is read.
const LARGEST_COPYRIGHT: u64 = 4 << 20;

/// A package that an image has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InstalledPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The source package that it was built from.
    pub source: String,
    /// That one's version.
    pub source_version: String,
    /// How far it is installed, in dpkg's words.
    pub status: String,
    /// Who maintains it.
    pub maintainer: Option<String>,
    /// The licences that its copyright file names, if that is machine-readable.
    pub licences: Vec<String>,
    /// The layer that it came with.
    pub layer: Option<Digest>,
}

impl InstalledPackage {
    /// Whether its files are there, and not only its configuration or less.
    pub fn is_there(&self) -> bool {
        !["config-files", "not-installed"].contains(&self.status.as_str())
    }
}

/// A layer of an image, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerSummary {
    /// Names its bytes.
    pub digest: Digest,
    /// How many packages it brought.
    pub packages: usize,
    /// How many regular files it has, those of packages included.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What the image's history says of it.
    pub made_by: String,
}

/// What an image has.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Its files, as a container sees them.
    pub files: Files,
    /// Its packages, by name.
    pub packages: Vec<InstalledPackage>,
    /// Whether there is a package database at all.
    pub has_database: bool,
    /// The distribution by its `os-release`: id and version, such as `debian` and `12`.
    pub distribution: Option<(String, Option<String>)>,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerSummary>,
}

/// Why an image cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A layer cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is no tar, or damaged.
    #[error("the layer {digest} cannot be read")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The package database makes no sense.
    #[error("the package database `/{path}` cannot be read: {problem}")]
    Database {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads images of a layout.
pub struct Inventories<'a> {
    layout: &'a Layout,
    read: Mutex<HashMap<Digest, Arc<LayerContent>>>,
}

/// What is kept of a layer.
struct LayerContent {
    listed: Vec<Listed>,
    /// Small files that matter, by their digest.
    texts: HashMap<Digest, Vec<u8>>,
    /// What copyright files name, by their digest.
    licences: HashMap<Digest, Vec<String>>,
}

impl<'a> Inventories<'a> {
    /// A reader that remembers layers as long as it lives.
    pub fn new(layout: &'a Layout) -> Self {
        Self { layout, read: Mutex::default() }
    }

    /// Reads an image.
    pub fn image(&self, image: &StoredImage) -> Result<Inventory, InventoryError> {
        let mut files = Files::default();
        let mut contents = Vec::new();
        for layer in &image.manifest.layers {
            let content = self.layer(layer)?;
            files.lay(&content.listed);
            contents.push(content);
        }
        let looking = Looking { image, files: &files, contents: &contents };
        let (packages, has_database) = looking.packages()?;
        let (layers, distribution) = (looking.layers(&packages), looking.distribution());
        Ok(Inventory { packages, has_database, distribution, layers, files })
    }

    fn layer(&self, layer: &Descriptor) -> Result<Arc<LayerContent>, InventoryError> {
        let known = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = known().get(&layer.digest) {
            return Ok(Arc::clone(content));
        }
        let blob = self.layout.open_blob(layer.digest, layer.size)?;
        let content = decompress(blob).and_then(LayerContent::read);
        let content = content.map_err(|source| InventoryError::Layer { digest: layer.digest, source })?;
        Ok(Arc::clone(known().entry(layer.digest).or_insert(Arc::new(content))))
    }
}

impl LayerContent {
    fn read(tar: impl Read) -> io::Result<Self> {
        let (mut texts, mut licences) = (HashMap::new(), HashMap::new());
        let listed = list(tar, |entry, content| {
            let Some((about, limit)) = interest(entry) else { return Ok(()) };
            if entry.kind.size() > limit {
                return Ok(());
            }
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            match about {
                Interest::Text => {
                    texts.insert(Digest::of(&bytes), bytes);
                }
                Interest::Copyright => {
                    if let Some(named) = copyright::licences(&String::from_utf8_lossy(&bytes)) {
                        licences.insert(Digest::of(&bytes), named);
                    }
                }
            }
            Ok(())
        })?;
        Ok(Self { listed, texts, licences })
    }
}

enum Interest {
    Text,
    Copyright,
}

fn interest(entry: &Entry) -> Option<(Interest, u64)> {
    let path = std::str::from_utf8(entry.path.as_bytes()).ok()?;
    let is_text = path == STATUS || path.starts_with(STATUS_DIRECTORY) || RELEASES.contains(&path);
    if is_text {
        return Some((Interest::Text, LARGEST_STATUS));
    }
    let of_document = path.strip_prefix("usr/share/doc/")?.strip_suffix("/copyright")?;
    (!of_document.contains('/')).then_some((Interest::Copyright, LARGEST_COPYRIGHT))
}

/// An image whose layers were read.
struct Looking<'a> {
    image: &'a StoredImage,
    files: &'a Files,
    contents: &'a [Arc<LayerContent>],
}

impl Looking<'_> {
    fn text(&self, path: &ImagePath) -> Option<String> {
        let digest = self.files.follow(path)?.1.digest?;
        let bytes = self.contents.iter().find_map(|content| content.texts.get(&digest))?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    fn packages(&self) -> Result<(Vec<InstalledPackage>, bool), InventoryError> {
        let within = |path: &ImagePath| path.as_bytes().starts_with(STATUS_DIRECTORY.as_bytes());
        let of_parts = self.files.iter().filter(|(path, found)| within(path) && is_file(&found.kind));
        // Beside a stanza, distroless images have a list of digests.
        let of_parts = of_parts.map(|(path, _)| path).filter(|path| !path.as_bytes().ends_with(b".md5sums"));
        let mut packages = Vec::new();
        let mut has_database = false;
        for path in std::iter::once(path_of(STATUS)).chain(of_parts) {
            let Some(text) = self.text(&path) else { continue };
            has_database = true;
            self.read_database(&path, &text, &mut packages)?;
        }
        packages.sort();
        Ok((packages, has_database))
    }

    fn read_database(
        &self,
        path: &ImagePath,
        text: &str,
        packages: &mut Vec<InstalledPackage>,
    ) -> Result<(), InventoryError> {
        let wrong = |problem: String| InventoryError::Database {
            path: String::from_utf8_lossy(path.as_bytes()).into_owned(),
            problem,
        };
        for stanza in stanzas(text) {
            let stanza = stanza.map_err(|error| wrong(error.to_string()))?;
            let status = stanza.get("Status").unwrap_or("install ok installed");
            // What is only selected for installation, or was purged, has no version.
            if stanza.get("Version").is_none() {
                continue;
            }
            let package = Package::from_stanza(&stanza).map_err(|error| wrong(error.to_string()))?;
            let status = status.split_whitespace().last().unwrap_or_default().to_owned();
            packages.push(self.package(&package, status, stanza.get("Maintainer")));
        }
        Ok(())
    }

    fn package(&self, package: &Package, status: String, maintainer: Option<&str>) -> InstalledPackage {
        let version = package.version().to_string();
        let (source, source_version) = package.source();
        let copyright = path_of(&format!("usr/share/doc/{}/copyright", package.name()));
        let digest = self.files.follow(&copyright).and_then(|(_, found)| found.digest);
        let licences = digest.and_then(|digest| self.contents.iter().find_map(|content| content.licences.get(&digest)));
        InstalledPackage {
            source_version: source_version.unwrap_or(&version).to_owned(),
            source: source.to_owned(),
            architecture: package.architecture().to_owned(),
            status,
            maintainer: maintainer.map(str::to_owned),
            licences: licences.cloned().unwrap_or_default(),
            layer: self.layer_of(package, &version),
            name: package.name().to_owned(),
            version,
        }
    }

    /// By the annotation of a layer of ours, or by the list of files that dpkg keeps.
    fn layer_of(&self, package: &Package, version: &str) -> Option<Digest> {
        let label = format!("{}={version}", package.name());
        let layers = &self.image.manifest.layers;
        let annotated = layers.iter().find(|layer| packages_of(layer).contains(&label.as_str()));
        let by_list = || {
            let list = format!("var/lib/dpkg/info/{}", info_file(&package.database_name(), "list"));
            layers.get(self.files.get(&path_of(&list))?.layer)
        };
        annotated.or_else(by_list).map(|layer| layer.digest)
    }

    fn layers(&self, packages: &[InstalledPackage]) -> Vec<LayerSummary> {
        let mut made_by = self.image.config.history.iter().filter(|entry| !entry.empty_layer);
        let summary = |(layer, content): (&Descriptor, &Arc<LayerContent>)| {
            let files = || content.listed.iter().filter(|listed| is_file(&listed.entry.kind));
            LayerSummary {
                digest: layer.digest,
                packages: packages.iter().filter(|package| package.layer == Some(layer.digest)).count(),
                files: files().count(),
                bytes: files().map(|listed| listed.entry.kind.size()).sum(),
                made_by: made_by.next().and_then(|entry| entry.created_by.clone()).unwrap_or_default(),
            }
        };
        self.image.manifest.layers.iter().zip(self.contents).map(summary).collect()
    }

    fn distribution(&self) -> Option<(String, Option<String>)> {
        let text = self.text(&path_of(RELEASE))?;
        let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |key: &str| {
            let value = lines.get(key)?.trim().trim_matches(['"', '\'']);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            (!value.is_empty() && value.bytes().all(plain)).then(|| value.to_owned())
        };
        Some((value("ID")?, value("VERSION_ID")))
    }
}

fn is_file(kind: &Kind) -> bool {
    matches!(kind, Kind::File { .. })
}

fn path_of(text: &str) -> ImagePath {
    ImagePath::parse(text).unwrap_or_default()
}
