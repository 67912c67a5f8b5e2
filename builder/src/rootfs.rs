//! The root filesystem of an image: its layers laid over each other, with whiteouts applied, as one tar or in a directory.
//!
//! Layers are read from the layout as streams, each once, and every byte is checked. Contents wait in one file without
//! a name until they are written in the order of their paths, so that the same image gives the same tar. An image for
//! several platforms has a directory for each, called `linux_amd64` and the like, as BuildKit has it.

pub mod directory;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use content::{Digest, HashingReader};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::files::{Files, Found, Listed};
use layer::write::{END_OF_ARCHIVE, EntryWriter};
use oci::{ImageConfig, Manifest, MediaTypeExt};
use store::{Layout, StoreError};

use self::directory::{Directory, LeftOut, Owners};
use crate::archive::Named;
use crate::layers::{StoredTar, read_layer};

/// Writes what is in images.
pub struct Exporter<'a> {
    /// Where the images are.
    pub layout: &'a Layout,
    /// Where contents wait; as much is needed as the layers have unpacked.
    pub scratch: &'a Path,
    /// Set when somebody asks to stop.
    pub interrupt: &'a AtomicBool,
}

/// Why the files of an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// Its documents cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is damaged, or there is no room for what is in it.
    #[error("the layer {digest} cannot be read")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The configuration does not know the image's layers.
    #[error("the image has {layers} layers, and its configuration names {named}")]
    Layers {
        /// How many the manifest has.
        layers: usize,
        /// How many the configuration has.
        named: usize,
    },
    /// The tar cannot be written.
    #[error("the tar cannot be written: `{path}`")]
    Tar {
        /// The entry.
        path: ImagePath,
        /// Why.
        source: io::Error,
    },
    /// A place for it cannot be made or written.
    #[error("cannot write `{}`", path.display())]
    Place {
        /// The place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Exporter<'_> {
    /// Writes the files of an image as a tar: sorted, with the owners, modes and times that they have in the layers.
    pub fn tar(&self, image: &Named, mut out: impl Write) -> Result<(), RootfsError> {
        let mut entries = EntryWriter::new(&mut out);
        let at = |path: &ImagePath| {
            let path = path.clone();
            move |source| RootfsError::Tar { path, source }
        };
        for rootfs in self.read(image)? {
            for entry in &rootfs.entries {
                entries.write(&entry.entry, &mut rootfs.content(entry)).map_err(at(&entry.entry.path))?;
            }
        }
        let root = ImagePath::root();
        out.write_all(&END_OF_ARCHIVE).and_then(|()| out.flush()).map_err(at(&root))
    }

    /// Puts the files of an image into a directory, among what is there. Says how many there are, and what could not be
    /// as in the image.
    pub fn directory(&self, image: &Named, at: &Path, owners: Owners) -> Result<(u64, LeftOut), RootfsError> {
        let all = self.read(image)?;
        let mut directory = Directory::open(at, owners)?;
        let mut count = 0;
        for rootfs in &all {
            for entry in &rootfs.entries {
                if self.interrupt.load(Ordering::Relaxed) {
                    let source = io::Error::other("interrupted");
                    return Err(RootfsError::Place { path: at.to_owned(), source });
                }
                directory.put(&entry.entry, &mut rootfs.content(entry))?;
                count += u64::from(!matches!(entry.entry.kind, Kind::Directory));
            }
        }
        Ok((count, directory.finish()?))
    }

    /// What is in an image, for each of its platforms.
    fn read(&self, image: &Named) -> Result<Vec<Rootfs>, RootfsError> {
        let mut manifests = self.layout.manifests_at(&image.1)?;
        manifests.retain(|(_, manifest)| manifest.config.media_type.is_image_config());
        let several = manifests.len() > 1;
        let mut all = Vec::new();
        for (_, manifest) in manifests {
            let config = self.layout.read_config(&manifest.config)?;
            let below = match several {
                true => ImagePath::root().join(config.platform().to_string().replace('/', "_").as_bytes()),
                false => ImagePath::root(),
            };
            all.push(self.rootfs(&manifest, &config, &below)?);
        }
        Ok(all)
    }

    fn rootfs(&self, manifest: &Manifest, config: &ImageConfig, below: &ImagePath) -> Result<Rootfs, RootfsError> {
        let (layers, named) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != named {
            return Err(RootfsError::Layers { layers, named });
        }
        let place = |source| RootfsError::Place { path: self.scratch.to_owned(), source };
        let mut contents = Contents::new(tempfile::tempfile_in(self.scratch).map_err(place)?);
        let (mut files, mut nodes) = (Files::default(), Vec::new());
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let stored = StoredTar { digest: layer.digest, size: layer.size, diff_id: *diff_id };
            let mut listed = Vec::new();
            let read = read_layer(self.layout, &stored, |entry, content| {
                if self.interrupt.load(Ordering::Relaxed) {
                    return Err(io::Error::other("interrupted"));
                }
                let digest = match entry.kind {
                    Kind::File { .. } => Some(contents.keep(content)?),
                    _ => None,
                };
                listed.push(Listed { entry, digest });
                Ok(())
            });
            read.map_err(|source| RootfsError::Layer { digest: layer.digest, source })?;
            files.lay(&listed);
            nodes.push(nodes_of(&listed));
        }
        let entries = entries(&files, &nodes, below);
        Ok(Rootfs { entries, contents })
    }
}

/// What is in an image.
struct Rootfs {
    /// Sorted by path, what is above before what is in it.
    entries: Vec<RootfsEntry>,
    contents: Contents,
}

struct RootfsEntry {
    entry: Entry,
    digest: Option<Digest>,
}

impl Rootfs {
    fn content(&self, entry: &RootfsEntry) -> impl Read + '_ {
        let offset = entry.digest.and_then(|digest| self.contents.places.get(&digest)).copied().unwrap_or_default();
        Content { file: &self.contents.file, offset, left: entry.entry.kind.size() }
    }
}

/// The contents of files, each once.
struct Contents {
    file: File,
    end: u64,
    places: HashMap<Digest, u64>,
}

impl Contents {
    fn new(file: File) -> Self {
        Self { file, end: 0, places: HashMap::new() }
    }

    fn keep(&mut self, content: &mut dyn Read) -> io::Result<Digest> {
        let mut hashed = HashingReader::new(content);
        let mut out = At { file: &self.file, offset: self.end };
        let size = io::copy(&mut hashed, &mut out)?;
        let digest = hashed.finish().1;
        if let std::collections::hash_map::Entry::Vacant(place) = self.places.entry(digest) {
            place.insert(self.end);
            self.end += size;
        }
        Ok(digest)
    }
}

/// A file that is written from a place on.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.offset)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of a file.
struct Content<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..most], self.offset)?;
        (self.offset, self.left) = (self.offset + length as u64, self.left - length as u64);
        Ok(length)
    }
}

/// Which names of a layer are one file: those with the same number.
fn nodes_of(layer: &[Listed]) -> HashMap<ImagePath, usize> {
    let mut nodes = HashMap::new();
    for (number, Listed { entry, .. }) in layer.iter().enumerate() {
        let node = match &entry.kind {
            // A link to a file of a layer below is a copy of it.
            Kind::HardLink { target } => nodes.get(target).copied().unwrap_or(number),
            _ => number,
        };
        nodes.insert(entry.path.clone(), node);
    }
    nodes
}

/// All entries, with the directories that layers use without naming them. The root has none: what it is written into
/// has a root of its own.
fn entries(files: &Files, nodes: &[HashMap<ImagePath, usize>], below: &ImagePath) -> Vec<RootfsEntry> {
    let mut entries: BTreeMap<ImagePath, RootfsEntry> = BTreeMap::new();
    let mut first_names: HashMap<(usize, usize), ImagePath> = HashMap::new();
    let moved = |path: &ImagePath| path.names().fold(below.clone(), |at, name| at.join(name));
    let implied = |path: &ImagePath| {
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        RootfsEntry { entry: Entry { path: path.clone(), kind: Kind::Directory, metadata }, digest: None }
    };
    for (path, found) in files.iter() {
        let Found { kind, metadata, digest, layer } = found.clone();
        let at = moved(&path);
        if at.is_root() {
            continue;
        }
        for above in at.ancestors() {
            entries.entry(above.clone()).or_insert_with(|| implied(&above));
        }
        let node = nodes[layer].get(&path).filter(|_| matches!(kind, Kind::File { .. }));
        let first = node.map(|node| first_names.entry((layer, *node)).or_insert_with(|| at.clone()).clone());
        let (kind, digest) = match first {
            Some(first) if first != at => (Kind::HardLink { target: first }, None),
            _ => (kind, digest),
        };
        entries.insert(at.clone(), RootfsEntry { entry: Entry { path: at, kind, metadata }, digest });
    }
    entries.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str, kind: Kind) -> Listed {
        let digest = matches!(kind, Kind::File { .. }).then(|| Digest::of(b"x"));
        Listed { entry: Entry { path: text.parse().unwrap(), kind, metadata: Metadata::default() }, digest }
    }

    fn file(text: &str) -> Listed {
        listed(text, Kind::File { size: 1 })
    }

    fn link(text: &str, target: &str) -> Listed {
        listed(text, Kind::HardLink { target: target.parse().unwrap() })
    }

    /// What layers come to, one line each.
    fn laid(layers: &[&[Listed]], below: &str) -> Vec<String> {
        let mut files = Files::default();
        layers.iter().for_each(|layer| files.lay(layer));
        let nodes: Vec<_> = layers.iter().map(|layer| nodes_of(layer)).collect();
        let line = |entry: RootfsEntry| match entry.entry.kind {
            Kind::HardLink { target } => format!("{} = {target}", entry.entry.path),
            Kind::Directory => format!("{}/", entry.entry.path),
            _ => entry.entry.path.to_string(),
        };
        entries(&files, &nodes, &below.parse().unwrap()).into_iter().map(line).collect()
    }

    #[test]
    fn names_of_one_file_stay_links_as_long_as_they_are_in_one_layer() {
        let base = [file("b"), link("c", "b"), link("a", "c"), file("d")];
        assert_eq!(laid(&[&base], ""), ["/a", "/b = /a", "/c = /a", "/d"]);
        // The first name is another file now, or gone.
        assert_eq!(laid(&[&base, &[file("a")]], ""), ["/a", "/b", "/c = /b", "/d"]);
        assert_eq!(laid(&[&base, &[file(".wh.b")]], ""), ["/a", "/c = /a", "/d"]);
        // A link to a layer below is a copy, and a name that a later entry takes is no link any more.
        assert_eq!(laid(&[&[file("a")], &[link("b", "a")]], ""), ["/a", "/b"]);
        assert_eq!(laid(&[&[file("a"), link("b", "a"), file("b")]], ""), ["/a", "/b"]);
    }

    #[test]
    fn directories_that_no_layer_names_are_made_and_the_root_is_nobodys() {
        let layer = [listed("", Kind::Directory), file("a/b/c"), file("a.b"), link("x/y", "a/b/c")];
        assert_eq!(laid(&[&layer], ""), ["/a/", "/a.b", "/a/b/", "/a/b/c", "/x/", "/x/y = /a/b/c"]);
        assert_eq!(laid(&[&layer[2..3]], "linux_arm64"), ["/linux_arm64/", "/linux_arm64/a.b"]);
    }
}
