//! Files by address: which bytes they are, as the spec says, or the lock, or the address itself when it is asked first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use content::{Digest, HashingReader};
use spec::lock::{Lock, LockedFile};
use spec::{FileContent, Image, Located};
use store::{Area, Cache};
use url::Url;

use super::{Update, digest};
use crate::apt::archive::locked_digest;
use crate::error::BuildError;
use crate::fetch::{Fetcher, STAND_IN, shown};
use crate::plan::Plan;

/// Which bytes files by address are, as far as the lock decides that.
pub type Pinned = BTreeMap<String, PinnedFile>;

/// A file by address, as the lock has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedFile {
    /// What it is.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
}

/// How files are found out about.
pub struct Finder<'a> {
    /// What is known already.
    pub lock: Option<&'a Lock>,
    /// What is to be asked again.
    pub update: &'a Update,
    /// How files are fetched.
    pub fetcher: &'a Fetcher,
    /// Where they are kept.
    pub cache: &'a Cache,
}

impl Finder<'_> {
    /// The files of all images of plans. Those of images that are to be built are fetched if they are not known yet; of
    /// the others, what the lock knows is kept.
    pub fn files(&self, plans: &[Plan<'_>]) -> Result<Vec<LockedFile>, BuildError> {
        let mut files: BTreeMap<String, LockedFile> = BTreeMap::new();
        let planned = plans.iter().flat_map(|plan| &plan.images).map(|planned| (planned.image, planned.wanted));
        let left_out = plans.iter().flat_map(|plan| &plan.left_out).map(|image| (*image, false));
        for (image, wanted) in planned.chain(left_out) {
            for (url, sha256) in by_address(image) {
                let address = Url::parse(url).map_err(|error| BuildError::at(&url.span, error.to_string(), ""))?;
                let name = shown(&address).to_string();
                if address.scheme() == STAND_IN || files.contains_key(&name) {
                    continue;
                }
                if let Some(known) = self.known(&address, &name, sha256) {
                    files.insert(name, known);
                } else if wanted {
                    let found = self.fetch(&address, sha256).map_err(|error| error.located(&url.span))?;
                    files.insert(name.clone(), LockedFile { url: name, ..found });
                }
            }
        }
        Ok(files.into_values().collect())
    }

    /// What the lock says of an address, if the spec does not say otherwise and it is not to be asked again.
    fn known(&self, address: &Url, name: &str, sha256: Option<&Located<String>>) -> Option<LockedFile> {
        if *self.update == Update::Everything && self.fetcher.may_fetch(address) {
            return None;
        }
        let known = self.lock.and_then(|lock| lock.file(name));
        let fits = |known: &&LockedFile| sha256.is_none_or(|sha256| sha256.value == known.sha256.as_str());
        known.filter(fits).cloned()
    }

    fn fetch(&self, url: &Url, sha256: Option<&Located<String>>) -> Result<LockedFile, BuildError> {
        let locked =
            |(digest, size): (Digest, u64)| LockedFile { url: String::new(), size, sha256: locked_digest(digest) };
        let expected = sha256.map(|sha256| {
            Digest::from_hex(sha256).map_err(|error| BuildError::at(&sha256.span, error.to_string(), ""))
        });
        let expected = expected.transpose()?;
        if let Some(digest) = expected
            && let Some(file) = self.cache.open_file(Area::Debs, digest)?
            && let Some(found) = hash(file).ok().filter(|found| found.0 == digest)
        {
            return Ok(locked(found));
        }
        let scratch = self.cache.scratch_dir()?;
        let path = scratch.path().join("file");
        let open = || File::create(&path);
        let (digest, size) = match expected {
            Some(digest) => (digest, self.fetcher.file_of_unknown_size(url, digest, open)?.1),
            None => {
                let (_, digest, size) = self.fetcher.file_of_unknown_digest(url, open)?;
                (digest, size)
            }
        };
        let mut writer = self.cache.writer(Area::Debs, digest)?;
        io::copy(&mut File::open(&path)?, &mut writer)?;
        writer.commit_content(size)?;
        Ok(locked((digest, size)))
    }
}

/// The files of an image that are named by an address, with the digest that the spec gives.
fn by_address(image: &Image) -> impl Iterator<Item = (&Located<String>, Option<&Located<String>>)> {
    image.files().filter_map(|file| match &file.content {
        FileContent::Url { url, sha256, .. } => Some((url, sha256.as_ref())),
        _ => None,
    })
}

fn hash(file: File) -> io::Result<(Digest, u64)> {
    let mut reader = HashingReader::new(file);
    io::copy(&mut reader, &mut io::sink())?;
    let (_, digest, size) = reader.finish();
    Ok((digest, size))
}

/// What a lock says of files by address.
pub fn pinned(files: &[LockedFile]) -> Pinned {
    let pinned = |file: &LockedFile| PinnedFile { digest: digest(&file.sha256), size: file.size };
    files.iter().map(|file| (file.url.clone(), pinned(file))).collect()
}
