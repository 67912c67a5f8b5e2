//! What the cache lacks, for whoever may not fetch anything: each thing once, with its size where that is known.

use std::collections::BTreeMap;

use content::Digest;
use oci::Platform;
use spec::{FileContent, FileEntry};
use store::{Area, Cache};
use url::Url;

use crate::base::{BaseError, Bases, Reach};
use crate::error::{BuildError, MissingInput};
use crate::fetch::{Fetcher, shown};
use crate::lock::files::Pinned;
use crate::plan::LockedPackage;

/// A list of what is missing.
pub struct Missing<'a> {
    cache: &'a Cache,
    fetcher: &'a Fetcher,
    /// By name.
    inputs: BTreeMap<String, MissingInput>,
}

impl<'a> Missing<'a> {
    /// Nothing is, yet. What `fetcher` may read all the same is not missing.
    pub fn new(cache: &'a Cache, fetcher: &'a Fetcher) -> Self {
        Self { cache, fetcher, inputs: BTreeMap::new() }
    }

    fn note(&mut self, what: String, size: Option<u64>) {
        self.inputs.insert(what.clone(), MissingInput { what, size });
    }

    /// An image that others made is not here.
    pub fn base(&mut self, name: &str, platform: &Platform, bases: &Bases<'_>) {
        self.note(format!("{name} for {platform}"), bases.size_of(name, platform));
    }

    /// An image that others made is needed.
    pub fn base_unless_here(&mut self, name: &str, platform: &Platform, bases: &Bases<'_>) {
        // Anything else that is wrong with it is told where it is used.
        if matches!(bases.find(name, platform, Reach::Local), Err(BaseError::NotHere { .. })) {
            self.base(name, platform, bases);
        }
    }

    /// A package is needed, if it is not `made` already.
    pub fn package(&mut self, package: &LockedPackage, made: impl FnOnce() -> bool) {
        let is_local = |url: &Url| self.fetcher.local(url).is_some_and(|path| path.is_file());
        let is_here =
            self.cache.file(Area::Debs, package.sha256).is_some() || package.urls.iter().any(is_local) || made();
        if !is_here {
            self.note(package.label(), Some(package.size));
        }
    }

    /// Files are needed. Returns whether one of those by address is not here.
    pub fn files<'f>(&mut self, entries: impl IntoIterator<Item = &'f FileEntry>, pinned: &Pinned) -> bool {
        let mut lacks = false;
        for entry in entries {
            let FileContent::Url { url, sha256, .. } = &entry.content else { continue };
            let Ok(address) = Url::parse(url) else { continue };
            if self.fetcher.may_fetch(&address) {
                continue;
            }
            let name = shown(&address).to_string();
            let locked = pinned.get(&name);
            let by_spec = sha256.as_ref().and_then(|sha256| Digest::from_hex(sha256).ok());
            let digest = by_spec.or(locked.map(|locked| locked.digest));
            if digest.is_none_or(|digest| self.cache.file(Area::Debs, digest).is_none()) {
                let size = locked.filter(|locked| Some(locked.digest) == digest).map(|locked| locked.size);
                self.note(name, size);
                lacks = true;
            }
        }
        lacks
    }

    /// An error that names all of it, if there is any.
    pub fn refuse(self) -> Result<(), BuildError> {
        let missing: Vec<MissingInput> = self.inputs.into_values().collect();
        if missing.is_empty() { Ok(()) } else { Err(BuildError::NotCached { missing }) }
    }
}
