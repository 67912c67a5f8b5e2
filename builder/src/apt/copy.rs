//! Copies of what a plan needs of its archives: signed releases, indexes and packages, laid out as apt reads them.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use debian::Package;
use debian::release::Release;
use spec::{AptIndex, AptSource, Located};
use store::Area;

use super::archive::{
    ArchiveError, ArchiveProblem, Archives, LARGEST_INDEX, address, join, read_index, without_signature,
};
use crate::error::BuildError;
use crate::fetch::{Document, STAND_IN, shown};
use crate::package::download;
use crate::plan::LockedPackage;

/// A file of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFile {
    /// In the cache, under its own digest.
    Kept {
        /// The area.
        area: Area,
        /// The digest.
        digest: Digest,
        /// The size.
        size: u64,
    },
    /// A small file.
    Bytes(Vec<u8>),
}

impl Archives<'_> {
    /// What `packages` need of these sources, by path: `mirror/SUITE/…` for suites of mirrors, `sources/NAME/…` for
    /// sources with an address of their own. What the cache does not have is fetched; `progress` learns of bytes.
    /// Stand-ins are left out, since every machine makes them itself.
    pub fn copy(
        &self,
        sources: &[&AptSource],
        packages: &[&LockedPackage],
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<BTreeMap<String, SourceFile>, BuildError> {
        let mut files = BTreeMap::new();
        let mut wanted: BTreeMap<Digest, &LockedPackage> = BTreeMap::new();
        let stands_in = |package: &LockedPackage| package.urls.first().is_some_and(|url| url.scheme() == STAND_IN);
        for package in packages.iter().filter(|package| !stands_in(package)) {
            wanted.insert(package.sha256, package);
        }
        let mut placed: BTreeSet<Digest> = BTreeSet::new();
        for source in sources.iter().filter(|source| !is_stand_in(source)) {
            let copied = self.copy_source(source, &mut files);
            let offered = copied.map_err(|problem| {
                Box::new(ArchiveError { name: source.name.value.clone(), span: source.span.clone(), problem })
            })?;
            for (root, digest, path) in offered {
                let Some(package) = wanted.get(&digest).filter(|_| !placed.contains(&digest)) else { continue };
                self.keep(package, progress)?;
                placed.insert(digest);
                files.insert(
                    format!("{root}/{path}"),
                    SourceFile::Kept { area: Area::Debs, digest, size: package.size },
                );
            }
        }
        // What an older index offered is kept all the same: it is found by its digest.
        for package in wanted.values().filter(|package| !placed.contains(&package.sha256)) {
            self.keep(package, progress)?;
            let kept = SourceFile::Kept { area: Area::Debs, digest: package.sha256, size: package.size };
            files.insert(format!("files/{}", package.sha256.hex()), kept);
        }
        Ok(files)
    }

    /// Copies the indexes of a source. Returns what they offer: the directory of the copy, the digest, the path.
    fn copy_source(
        &self,
        source: &AptSource,
        files: &mut BTreeMap<String, SourceFile>,
    ) -> Result<Vec<(String, Digest, String)>, ArchiveProblem> {
        let mut offered = Vec::new();
        let root_of = |suite: &str| match &source.url {
            Some(_) => format!("sources/{}", source.name.value),
            None => format!("mirror/{suite}"),
        };
        match &source.index {
            AptIndex::Suites { suites, components } => {
                for suite in suites {
                    let root = root_of(suite);
                    for found in self.stored_indexes(source, suite, components)? {
                        offered.extend(found.packages.into_iter().map(|(digest, path)| (root.clone(), digest, path)));
                        files.extend(found.files.into_iter().map(|(path, file)| (format!("{root}/{path}"), file)));
                    }
                }
            }
            AptIndex::Flat(directory) => {
                let root = root_of("");
                let found = self.stored_flat_index(source, directory)?;
                offered.extend(found.packages.into_iter().map(|(digest, path)| (root.clone(), digest, path)));
                files.extend(found.files.into_iter().map(|(path, file)| (format!("{root}/{path}"), file)));
            }
        }
        Ok(offered)
    }

    fn stored_indexes(
        &self,
        source: &AptSource,
        suite: &str,
        components: &[Located<String>],
    ) -> Result<Vec<StoredIndex>, ArchiveProblem> {
        let (archive, release_url, signed) = self.release_text(source, suite)?;
        // The plan has verified it, and so does whoever reads the copy.
        let release = Release::parse(without_signature(&signed));
        let failed = |error| ArchiveProblem::Release { url: shown(&release_url), source: Box::new(error) };
        let release = release.map_err(failed)?;
        let mut found = Vec::new();
        for component in components {
            let directory = format!("{component}/binary-{}", self.architecture);
            let listed = ["gz", "xz"].iter().find_map(|extension| {
                let path = format!("{directory}/Packages.{extension}");
                release.file(&path).map(|file| (path, file))
            });
            // The plan would have failed without.
            let Some((path, file)) = listed else { continue };
            let by_hash = format!("{directory}/by-hash/SHA256/{}", file.digest.hex());
            let path = format!("dists/{suite}/{}", if release.acquire_by_hash { by_hash } else { path });
            let packages = self.index(&join(&archive, &path)?, file)?;
            let index = SourceFile::Kept { area: Area::Indexes, digest: file.digest, size: file.size };
            let signed = SourceFile::Bytes(signed.clone().into_bytes());
            let files = vec![(format!("dists/{suite}/InRelease"), signed), (path, index)];
            found.push(StoredIndex { files, packages: offered(&packages) });
        }
        Ok(found)
    }

    fn stored_flat_index(&self, source: &AptSource, directory: &str) -> Result<StoredIndex, ArchiveProblem> {
        let archive = address(source.url.as_ref().ok_or(ArchiveProblem::NoMirror)?)?;
        let path = format!("{directory}Packages.gz");
        let url = join(&archive, &path)?;
        let bytes = match self.fetcher.document(&url, LARGEST_INDEX, None)? {
            Document::New(bytes, _) => bytes,
            Document::NotModified => Vec::new(),
        };
        let packages = offered(&read_index(&bytes[..], LARGEST_INDEX, &url)?);
        Ok(StoredIndex { files: vec![(path, SourceFile::Bytes(bytes))], packages })
    }

    /// Makes sure that the cache has a package.
    fn keep(&self, package: &LockedPackage, progress: &dyn Fn(u64) -> bool) -> Result<(), BuildError> {
        // One of the wrong size is removed, and counts as absent.
        self.cache.open_content(Area::Debs, package.sha256, package.size)?;
        download::fetch(self.cache, self.fetcher, package, progress)
    }
}

/// An index as an archive stores it, and what it offers.
struct StoredIndex {
    /// Its files, by path below the archive's root.
    files: Vec<(String, SourceFile)>,
    /// The packages: digest, and path below the archive's root.
    packages: Vec<(Digest, String)>,
}

fn offered(packages: &[Package]) -> Vec<(Digest, String)> {
    let downloads = packages.iter().filter_map(Package::download);
    downloads.map(|download| (download.sha256, download.filename.to_owned())).collect()
}

fn is_stand_in(source: &AptSource) -> bool {
    source.url.as_ref().is_some_and(|url| url.starts_with(STAND_IN))
}
