//! Saving: everything is named and counted first, since the list comes first, and then written once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use content::{Digest, HashingReader, VerifyingReader};
use store::{Area, Cache, Layout};

use super::family;
use super::{Address, Bundle, BundleError, LIST, Member, VERSION};
use crate::apt::copy::SourceFile;
use crate::archive::{Named, TarWriter, index, unreadable};
use crate::load::LoadedFamily;

/// What goes into a bundle.
pub struct Contents<'a> {
    /// The family.
    pub loaded: &'a LoadedFamily,
    /// The name of its directory.
    pub name: String,
    /// Where its images are.
    pub layout: &'a Layout,
    /// Its images, and what is said about them.
    pub images: Vec<Named>,
    /// Where packages and indexes are kept.
    pub cache: &'a Cache,
    /// What it is built from, by path below `drystone/`; nothing if it is not to come along.
    pub sources: Option<BTreeMap<String, SourceFile>>,
    /// Files by address.
    pub addresses: Vec<Address>,
    /// A bundle whose files need not be in this one.
    pub since: Option<Bundle>,
    /// Files that are not part of the family although they lie in its directory.
    pub left_out: Vec<PathBuf>,
}

/// What was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the earlier bundle has.
    pub earlier: usize,
}

/// Where the bytes of a member are.
enum Body {
    Blob,
    Disk(PathBuf),
    Kept(Area),
    Bytes(Vec<u8>),
}

/// A bundle that is ready to be written.
pub struct Prepared<'a> {
    contents: Contents<'a>,
    index: Vec<u8>,
    bundle: Bundle,
    members: Vec<(Member, Body)>,
}

/// Names and counts everything that goes into a bundle.
pub fn prepare(contents: Contents<'_>) -> Result<Prepared<'_>, BundleError> {
    let index = index(&contents.images).to_bytes();
    let mut members = members(&contents)?;
    let earlier = contents.since.iter().flat_map(|since| &since.files);
    let known: BTreeSet<(&str, Digest)> = earlier.map(|member| (member.path.as_str(), member.digest)).collect();
    for (member, _) in &mut members {
        member.earlier = known.contains(&(member.path.as_str(), member.digest));
    }
    let builds_on_it = members.iter().any(|(member, _)| member.earlier);
    let bundle = Bundle {
        version: VERSION,
        family: contents.name.clone(),
        with_sources: contents.sources.is_some(),
        index: Digest::of(&index),
        since: contents.since.as_ref().filter(|_| builds_on_it).map(Bundle::id),
        addresses: contents.addresses.clone(),
        files: members.iter().map(|(member, _)| member.clone()).collect(),
    };
    Ok(Prepared { contents, index, bundle, members })
}

impl Prepared<'_> {
    /// Writes the bundle.
    pub fn write(&self, out: impl Write) -> Result<Saved, BundleError> {
        let mut tar = TarWriter::new(out);
        tar.bytes("oci-layout", store::LAYOUT_MARKER.as_bytes())?;
        tar.bytes("index.json", &self.index)?;
        tar.bytes(LIST, &self.bundle.to_bytes())?;
        let (here, earlier): (Vec<_>, Vec<_>) = self.members.iter().partition(|(member, _)| !member.earlier);
        for (member, body) in &here {
            let mode = if member.executable { 0o755 } else { 0o644 };
            tar.file_of_mode(&member.path, member.size, mode, &mut self.open(member, body)?)?;
        }
        tar.finish()?;
        let bytes = here.iter().map(|(member, _)| member.size).sum();
        Ok(Saved { files: here.len(), bytes, earlier: earlier.len() })
    }

    /// The bytes of a member, checked while they are read.
    fn open<'b>(&'b self, member: &Member, body: &'b Body) -> Result<Box<dyn Read + 'b>, BundleError> {
        let Contents { layout, cache, .. } = self.contents;
        Ok(match body {
            Body::Blob => Box::new(layout.open_blob(member.digest, member.size)?),
            Body::Bytes(bytes) => Box::new(&bytes[..]),
            Body::Disk(path) => {
                let file = File::open(path).map_err(BundleError::io("read", path))?;
                Box::new(VerifyingReader::new(file, member.digest, member.size))
            }
            Body::Kept(area) => {
                let kept = cache.open_content(*area, member.digest, member.size)?;
                Box::new(kept.ok_or(store::StoreError::Missing { digest: member.digest })?)
            }
        })
    }
}

/// All members, the specs first and the blobs after them, each by its path.
fn members(contents: &Contents<'_>) -> Result<Vec<(Member, Body)>, BundleError> {
    let mut members = Vec::new();
    let directory = &contents.loaded.directory;
    let in_family =
        family::files(directory, &contents.left_out)?.into_iter().map(|(path, file)| (format!("family/{path}"), file));
    for (path, file) in in_family {
        members.push(on_disk(format!("drystone/{path}"), file.path, file.executable)?);
    }
    for (name, path) in family::keyrings(directory, &contents.loaded.family)? {
        members.push(on_disk(format!("drystone/keyrings/{name}"), path, false)?);
    }
    for (path, source) in contents.sources.iter().flatten() {
        let path = format!("drystone/{path}");
        members.push(match source {
            SourceFile::Kept { area, digest, size } => (member(path, *size, *digest, false), Body::Kept(*area)),
            SourceFile::Bytes(bytes) => {
                (member(path, bytes.len() as u64, Digest::of(bytes), false), Body::Bytes(bytes.clone()))
            }
        });
    }
    let mut blobs = BTreeMap::new();
    for (reference, descriptor) in &contents.images {
        let reachable = contents.layout.reachable(std::slice::from_ref(descriptor));
        blobs.extend(reachable.map_err(|source| unreadable(reference, source))?);
    }
    for blob in blobs.into_values() {
        let path = format!("blobs/sha256/{}", blob.digest.hex());
        members.push((member(path, blob.size, blob.digest, false), Body::Blob));
    }
    Ok(members)
}

fn member(path: String, size: u64, digest: Digest, executable: bool) -> Member {
    Member { path, size, digest, executable, earlier: false }
}

fn on_disk(inside: String, path: PathBuf, executable: bool) -> Result<(Member, Body), BundleError> {
    let read = |path: &PathBuf| -> io::Result<(Digest, u64)> {
        let mut hashed = HashingReader::new(File::open(path)?);
        io::copy(&mut hashed, &mut io::sink())?;
        let (_, digest, size) = hashed.finish();
        Ok((digest, size))
    };
    let (digest, size) = read(&path).map_err(BundleError::io("read", &path))?;
    Ok((member(inside, size, digest, executable), Body::Disk(path)))
}
