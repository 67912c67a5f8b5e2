//! Two layouts that should hold the same image: where the first byte differs, and whose it is.
//!
//! Blobs are compared as they lie on the disk, so that one which the disk damaged is found as well.

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use content::Digest;
use layer::compress::decompress;
use layer::entry::ImagePath;
use serde::Serialize;
use store::Layout;

use crate::build::BuiltImage;
use crate::error::BuildError;
use crate::image::Layer;
use crate::package::segment::merged;

/// How much is compared at once.
const CHUNK: usize = 1 << 16;
/// What the entries of a tar are padded to.
const BLOCK: u64 = 512;
/// Where dpkg keeps what belongs to which package.
const INFO: &str = "var/lib/dpkg/info/";
/// The longest list of a package's files that is read.
const LONGEST_LIST: u64 = 64 << 20;

/// What became of an image when it was built again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Comparison {
    /// Every byte is the same.
    Same {
        /// The manifest.
        digest: Digest,
    },
    /// The layout has no such image.
    Absent,
    /// Something differs.
    Different(Box<Difference>),
}

/// The first byte that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The part of the image.
    pub part: Part,
    /// The first different byte, counted from 0: in the file's content if there is one, else in the part as it is once
    /// unpacked, or as it is stored if that is all that differs.
    pub offset: u64,
    /// What is meant by the offset.
    pub within: Within,
    /// The file.
    pub path: Option<String>,
    /// The package whose file it is.
    pub package: Option<String>,
    /// What the layout has, and what was built: digests of the part.
    pub digests: (Digest, Digest),
}

/// A part of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A layer, by its place from the lowest, and what made it.
    Layer {
        /// Counted from 1.
        number: usize,
        /// What made it.
        made_by: String,
    },
    /// The number of layers.
    Layers {
        /// How many the layout's image has.
        stored: usize,
        /// How many the new one has.
        built: usize,
    },
    /// The configuration.
    Config,
    /// The manifest.
    Manifest,
}

/// What an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Within {
    /// Bytes of a file's content.
    Content,
    /// Bytes of the layer's tar, in the header of the file: its attributes differ.
    Header,
    /// Bytes of the layer's tar.
    Tar,
    /// Bytes as stored: what is in them is the same, or cannot be unpacked.
    Stored,
}

/// Compares an image that was built anew, in a layout of its own, with the one that `layout` has.
pub fn compare(layout: &Layout, built: &BuiltImage, anew: &Layout) -> Result<Comparison, BuildError> {
    let Some(stored) = layout.image_at(&built.reference, &built.config.platform())? else {
        return Ok(Comparison::Absent);
    };
    let layers = stored.manifest.layers.iter().zip(&built.layers).enumerate();
    for (place, (descriptor, layer)) in layers {
        let files = (layout.open_blob_file(descriptor.digest)?.0, anew.open_blob_file(layer.digest)?.0);
        let Some(offset) = first_difference(files.0, files.1)? else { continue };
        let digests = (descriptor.digest, layer.digest);
        let part = Part::Layer { number: place + 1, made_by: layer.made_by.clone() };
        return Ok(different(in_layer(layout, anew, digests, layer, offset, part)?));
    }
    let (before, after) = (stored.manifest.layers.len(), built.layers.len());
    let simple = |part, offset, digests| {
        different(Difference { part, offset, within: Within::Stored, path: None, package: None, digests })
    };
    let manifests = (stored.descriptor.digest, built.manifest.digest);
    if before != after {
        return Ok(simple(Part::Layers { stored: before, built: after }, 0, manifests));
    }
    let configs = (stored.manifest.config.digest, built.config_digest);
    for (part, digests) in [(Part::Config, configs), (Part::Manifest, manifests)] {
        let files = (layout.open_blob_file(digests.0)?.0, anew.open_blob_file(digests.1)?.0);
        if let Some(offset) = first_difference(files.0, files.1)? {
            return Ok(simple(part, offset, digests));
        }
    }
    Ok(Comparison::Same { digest: built.manifest.digest })
}

fn different(difference: Difference) -> Comparison {
    Comparison::Different(Box::new(difference))
}

/// The place of the first byte that differs; where one ends, the other does.
fn first_difference(left: impl Read, right: impl Read) -> io::Result<Option<u64>> {
    let (mut left, mut right) = (BufReader::with_capacity(CHUNK, left), BufReader::with_capacity(CHUNK, right));
    let (mut ours, mut theirs) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    let mut offset = 0;
    loop {
        ours.clear();
        theirs.clear();
        left.by_ref().take(CHUNK as u64).read_to_end(&mut ours)?;
        right.by_ref().take(CHUNK as u64).read_to_end(&mut theirs)?;
        let same = ours.iter().zip(&theirs).take_while(|(left, right)| left == right).count();
        if same < ours.len().max(theirs.len()) {
            return Ok(Some(offset + same as u64));
        }
        if ours.is_empty() {
            return Ok(None);
        }
        offset += same as u64;
    }
}

/// Finds the file in which two layers differ first. `stored` is the first byte that differs as they are stored.
fn in_layer(
    layout: &Layout,
    anew: &Layout,
    digests: (Digest, Digest),
    layer: &Layer,
    stored: u64,
    part: Part,
) -> Result<Difference, BuildError> {
    let open = |layout: &Layout, digest| -> Result<_, BuildError> {
        Ok(decompress(BufReader::new(layout.open_blob_file(digest)?.0))?)
    };
    let as_stored = Difference { part, offset: stored, within: Within::Stored, path: None, package: None, digests };
    // A blob that the disk damaged may not be unpacked to its end: then the stored bytes have to do.
    let Ok(Some(offset)) = first_difference(open(layout, digests.0)?, open(anew, digests.1)?) else {
        return Ok(as_stored);
    };
    let place = entry_at(open(anew, digests.1)?, offset)?;
    let Some((path, content)) = place else {
        return Ok(Difference { offset, within: Within::Tar, ..as_stored });
    };
    let package = package_of(open(anew, digests.1)?, &path, layer)?;
    let (offset, within) = match offset.checked_sub(content) {
        Some(offset) => (offset, Within::Content),
        None => (offset, Within::Header),
    };
    Ok(Difference { offset, within, path: Some(path.to_string()), package, ..as_stored })
}

/// The entry that has this byte of a tar, and the byte at which its content begins.
fn entry_at(tar: impl Read, offset: u64) -> io::Result<Option<(ImagePath, u64)>> {
    let read = Cell::new(0);
    let mut found = None;
    // An entry is handed out when its header has been read, and nothing of its content.
    layer::read::entries(Counted { inner: tar, read: &read }, |entry, _| {
        let begin = read.get();
        if found.is_none() && offset < begin + entry.kind.size().next_multiple_of(BLOCK) {
            found = Some((entry.path, begin));
        }
        Ok(())
    })?;
    Ok(found)
}

struct Counted<'a, R> {
    inner: R,
    read: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read.set(self.read.get() + length as u64);
        Ok(length)
    }
}

/// The package of a layer that a file belongs to, as the lists in the layer say.
fn package_of(tar: impl Read, path: &ImagePath, layer: &Layer) -> Result<Option<String>, BuildError> {
    let labelled = |name: &str| {
        let label = layer.packages.iter().find(|label| label.split('=').next() == Some(name));
        label.cloned().unwrap_or_else(|| name.to_owned())
    };
    let text = path.to_string();
    let in_database = |path: &str| {
        let (name, _) = path.trim_start_matches('/').strip_prefix(INFO)?.rsplit_once('.')?;
        Some(name.split(':').next().unwrap_or(name).to_owned())
    };
    if let Some(name) = in_database(&text) {
        return Ok(Some(labelled(&name)));
    }
    let wanted = [text.clone(), module_of(&text).unwrap_or_default()];
    let mut found = None;
    layer::read::entries(tar, |entry, content| {
        let path = entry.path.to_string();
        let (Some(name), true, None) = (in_database(&path), path.ends_with(".list"), &found) else { return Ok(()) };
        let mut list = String::new();
        content.take(LONGEST_LIST).read_to_string(&mut list)?;
        let laid = |line: &str| ImagePath::parse(line).ok().map(|path| merged(&path).to_string());
        if list.lines().filter_map(laid).any(|path| wanted.contains(&path)) {
            found = Some(name);
        }
        Ok(())
    })?;
    let only = || match layer.packages.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    };
    Ok(found.map(|name| labelled(&name)).or_else(only))
}

/// The module that bytecode was compiled from.
fn module_of(path: &str) -> Option<String> {
    let (directory, file) = path.split_once("__pycache__/")?;
    Some(format!("{directory}{}.py", file.split('.').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_different_byte_is_found_wherever_chunks_end() {
        let bytes: Vec<u8> = (0..CHUNK * 2 + 5).map(|place| place as u8).collect();
        assert_eq!(first_difference(&bytes[..], &bytes[..]).unwrap(), None);
        for place in [0, 1, CHUNK - 1, CHUNK, CHUNK * 2 + 4] {
            let mut other = bytes.clone();
            other[place] ^= 1;
            assert_eq!(first_difference(&bytes[..], &other[..]).unwrap(), Some(place as u64));
            assert_eq!(first_difference(&bytes[..], &bytes[..place]).unwrap(), Some(place as u64));
            assert_eq!(first_difference(&bytes[..place], &bytes[..]).unwrap(), Some(place as u64));
        }
    }

    #[test]
    fn bytecode_belongs_to_its_module() {
        let module = module_of("/usr/lib/python3/dist-packages/a/__pycache__/b.cpython-311.pyc");
        assert_eq!(module.as_deref(), Some("/usr/lib/python3/dist-packages/a/b.py"));
        assert_eq!(module_of("/usr/bin/python3"), None);
    }
}
