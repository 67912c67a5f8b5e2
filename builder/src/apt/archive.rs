//! Fetches what an archive says it has, and believes it only where a key of the family's keyring, or the family
//! itself with `trusted: true`, vouches for it: signature → `Release` → index → package, each by digest.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use content::{Digest, FramedHasher};
use debian::package::{IndexError, Package, parse_index};
use debian::release::{Release, ReleaseError, ReleaseFile};
use debian::signature::{Keyring, KeyringError, SignatureError};
use layer::compress::decompress;
use serde::{Deserialize, Serialize};
use spec::lock::{LockedIndex, LockedRelease, Sha256};
use spec::{AptIndex, AptSource, Located, Span, Trust};
use store::{Area, Cache, StoreError};
use url::Url;

use crate::apt::mirror::Mirrors;
use crate::bundle::carried;
use crate::fetch::{Document, FetchError, Fetcher, STAND_IN, Validators, shown};
use crate::image::rfc3339;

/// The largest `InRelease` taken.
pub(crate) const LARGEST_RELEASE: u64 = 16 << 20;
/// The largest index taken, as stored and unpacked; Debian's main has 50 MB unpacked.
pub(super) const LARGEST_INDEX: u64 = 512 << 20;

/// What is needed to fetch archives.
pub struct Archives<'a> {
    /// Where suites without an address are.
    pub mirrors: &'a Mirrors,
    /// How files are fetched.
    pub fetcher: &'a Fetcher,
    /// Where indexes are kept between builds.
    pub cache: &'a Cache,
    /// The family's directory, to which keyrings are relative.
    pub family: &'a Path,
    /// Seconds since 1970, for keys and indexes that expire.
    pub now: i64,
    /// Debian's name of the architecture, such as `amd64`.
    pub architecture: &'a str,
}

/// One index of an archive: where it is, what names it, and who vouches for it. [`Archives::packages`] reads what it
/// offers.
pub struct Offer {
    /// The archive's root, to which file names are relative.
    pub url: Url,
    /// The index, as a lock names it.
    pub index: LockedIndex,
    /// The release that names the index; none for a flat archive.
    pub release: Option<LockedRelease>,
    stored: Stored,
}

/// An index, named by what vouches for it.
enum Stored {
    /// It is in the cache, or is fetched when somebody wants to read it.
    Kept(Url, ReleaseFile),
    /// It is small, and nothing says whether it has changed.
    Read(Url, Vec<u8>),
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("source `{name}` cannot be used")]
pub struct ArchiveError {
    /// The source's name.
    pub name: String,
    /// The source in `family.yaml`.
    pub span: Span,
    /// What is wrong.
    #[source]
    pub problem: ArchiveProblem,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveProblem {
    /// Nobody said where Debian is.
    #[error(
        "no mirror is known: name one with --mirror URL or DRYSTONE_MIRROR, or on a Debian host in /etc/apt/sources.list"
    )]
    NoMirror,
    /// The source's address is none.
    #[error("`{0}` is not the address of an archive: expected http://, https:// or file://, or an absolute directory")]
    Address(String),
    /// None of the mirrors has the suite.
    #[error("no mirror has the suite `{suite}`")]
    NoSuite {
        /// The suite.
        suite: String,
        /// What the last mirror said.
        source: Box<FetchError>,
    },
    /// The suite lacks a component for this architecture.
    #[error("the suite `{suite}` has no index of `{component}` for {architecture}")]
    NoIndex {
        /// The suite.
        suite: String,
        /// The component.
        component: String,
        /// The architecture.
        architecture: String,
    },
    /// The keyring cannot be read.
    #[error("cannot read the keyring `{}`", path.display())]
    ReadKeyring {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keyring holds no keys.
    #[error("the keyring `{}` cannot be used", path.display())]
    Keyring {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: KeyringError,
    },
    /// The signature is not good.
    #[error("{url} is not signed by a key of the source's keyring")]
    Signature {
        /// The signed file.
        url: Url,
        /// Why.
        source: Box<SignatureError>,
    },
    /// The `Release` file is wrong, or has expired.
    #[error("{url} cannot be used")]
    Release {
        /// The file.
        url: Url,
        /// Why.
        source: Box<ReleaseError>,
    },
    /// An index is wrong.
    #[error("{url} cannot be read")]
    Index {
        /// The file.
        url: Url,
        /// Why.
        source: Box<IndexError>,
    },
    /// An index cannot be unpacked.
    #[error("{url} cannot be unpacked")]
    Unpack {
        /// The file.
        url: Url,
        /// Why.
        source: io::Error,
    },
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// The cache failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FetchError> for ArchiveProblem {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

/// An `InRelease` as it was fetched last, to ask only whether there is a newer one.
#[derive(Serialize, Deserialize)]
struct KnownRelease {
    validators: Validators,
    /// Names the text: one that the disk damaged is fetched again.
    digest: Digest,
    text: String,
}

impl Archives<'_> {
    /// What a source offers, the indexes in the order of the spec.
    pub fn fetch(&self, source: &AptSource) -> Result<Vec<Offer>, Box<ArchiveError>> {
        self.offers(source).map_err(|problem| about(source, problem))
    }

    /// The packages that a source offers.
    pub fn packages(&self, source: &AptSource, offer: &Offer) -> Result<Vec<Package>, Box<ArchiveError>> {
        let packages = match &offer.stored {
            Stored::Read(url, bytes) => read_index(&bytes[..], LARGEST_INDEX, url),
            Stored::Kept(url, file) => self.kept_index(url, *file),
        };
        packages.map_err(|problem| about(source, problem))
    }

    fn offers(&self, source: &AptSource) -> Result<Vec<Offer>, ArchiveProblem> {
        match &source.index {
            AptIndex::Suites { suites, components } => {
                let keyring = self.keyring(&source.trust)?;
                let mut offers = Vec::new();
                for suite in suites {
                    offers.extend(self.suite(source, suite, components, keyring.as_ref())?);
                }
                Ok(offers)
            }
            AptIndex::Flat(directory) => self.flat(source, directory).map(|offer| vec![offer]),
        }
    }

    fn keyring(&self, trust: &Trust) -> Result<Option<Keyring>, ArchiveProblem> {
        let Trust::Keyring(file) = trust else { return Ok(None) };
        let path = carried::keyring(self.family, file.as_str());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(ArchiveProblem::ReadKeyring { path, source }),
        };
        Keyring::from_bytes(&bytes).map(Some).map_err(|source| ArchiveProblem::Keyring { path, source })
    }

    fn suite(
        &self,
        source: &AptSource,
        suite: &str,
        components: &[Located<String>],
        keyring: Option<&Keyring>,
    ) -> Result<Vec<Offer>, ArchiveProblem> {
        let (archive, release_url, signed) = self.release_text(source, suite)?;
        let (text, signer) = match keyring {
            Some(keyring) => {
                let failed = |error| ArchiveProblem::Signature { url: shown(&release_url), source: Box::new(error) };
                let verified = keyring.verify_inline(signed.as_bytes(), self.now).map_err(failed)?;
                (verified.text, Some(verified.fingerprint))
            }
            None => (without_signature(&signed).to_owned(), None),
        };
        let failed = |error| ArchiveProblem::Release { url: shown(&release_url), source: Box::new(error) };
        let release = Release::parse(&text).map_err(failed)?;
        release.check_suite(suite).map_err(failed)?;
        if !source.allow_expired {
            release.check_validity(self.now).map_err(failed)?;
        }
        let locked = LockedRelease {
            suite: suite.to_owned(),
            date: rfc3339(release.date),
            size: signed.len() as u64,
            sha256: locked_digest(Digest::of(signed.as_bytes())),
            signer,
        };
        let offer = |component: &Located<String>| {
            let offer = self.component(&archive, suite, component, &release)?;
            Ok(Offer { release: Some(locked.clone()), ..offer })
        };
        components.iter().map(offer).collect()
    }

    /// The `InRelease` of a suite, from the first archive that has one. Returns the archive, the file and its text.
    pub(super) fn release_text(&self, source: &AptSource, suite: &str) -> Result<(Url, Url, String), ArchiveProblem> {
        let archives = match &source.url {
            Some(url) => vec![address(url)?],
            None => self.mirrors.candidates(suite),
        };
        let mut missing = None;
        for archive in archives {
            let url = join(&archive, &format!("dists/{suite}/InRelease"))?;
            match self.refreshed(&url) {
                Ok(text) => return Ok((archive, url, text)),
                Err(ArchiveProblem::Fetch(error)) if matches!(*error, FetchError::Missing { .. }) => {
                    missing = Some(*error)
                }
                Err(error) => return Err(error),
            }
        }
        Err(match missing {
            Some(error) => ArchiveProblem::NoSuite { suite: suite.to_owned(), source: Box::new(error) },
            None => ArchiveProblem::NoMirror,
        })
    }

    /// A text that changes, fetched again only if it has.
    fn refreshed(&self, url: &Url) -> Result<String, ArchiveProblem> {
        let key = FramedHasher::new("release 1").field("url", url.as_str()).finish();
        let known: Option<KnownRelease> = self.cache.get_json(Area::Indexes, key)?;
        let known = known.filter(|known| Digest::of(known.text.as_bytes()) == known.digest);
        if !self.fetcher.may_fetch(url) {
            let known = known.ok_or_else(|| FetchError::Offline { url: shown(url) })?;
            return Ok(known.text);
        }
        let validators = known.as_ref().map(|known| &known.validators);
        match (self.fetcher.document(url, LARGEST_RELEASE, validators)?, known) {
            (Document::NotModified, Some(known)) => Ok(known.text),
            (Document::NotModified, None) => Ok(String::new()),
            (Document::New(bytes, validators), _) => {
                let text = String::from_utf8(bytes).map_err(|error| ArchiveProblem::Unpack {
                    url: shown(url),
                    source: io::Error::new(io::ErrorKind::InvalidData, error),
                })?;
                let known = KnownRelease { validators, digest: Digest::of(text.as_bytes()), text };
                self.cache.put_json(Area::Indexes, key, &known)?;
                Ok(known.text)
            }
        }
    }

    fn component(
        &self,
        archive: &Url,
        suite: &str,
        component: &str,
        release: &Release,
    ) -> Result<Offer, ArchiveProblem> {
        let directory = format!("{component}/binary-{}", self.architecture);
        // gzip is larger than xz and five times faster to read, which counts in every build.
        let listed = ["gz", "xz"].iter().find_map(|extension| {
            let path = format!("{directory}/Packages.{extension}");
            release.file(&path).map(|file| (path, file))
        });
        let Some((path, file)) = listed else {
            let architecture = self.architecture.to_owned();
            return Err(ArchiveProblem::NoIndex {
                suite: suite.to_owned(),
                component: component.to_owned(),
                architecture,
            });
        };
        let by_hash = format!("{directory}/by-hash/SHA256/{}", file.digest.hex());
        let stored = if release.acquire_by_hash { &by_hash } else { &path };
        let url = join(archive, &format!("dists/{suite}/{stored}"))?;
        let index = LockedIndex { suite: suite.to_owned(), path, size: file.size, sha256: locked_digest(file.digest) };
        Ok(Offer { url: archive.clone(), index, release: None, stored: Stored::Kept(url, file) })
    }

    fn kept_index(&self, url: &Url, file: ReleaseFile) -> Result<Vec<Package>, ArchiveProblem> {
        match self.index(url, file) {
            Err(ArchiveProblem::Unpack { .. }) => {
                // The disk may have damaged what was kept.
                self.cache.remove(Area::Indexes, file.digest)?;
                self.index(url, file)
            }
            other => other,
        }
    }

    /// The packages of an index, which is fetched if the cache does not have it.
    pub(super) fn index(&self, url: &Url, file: ReleaseFile) -> Result<Vec<Package>, ArchiveProblem> {
        self.verified_index(url, file)?;
        let opened = self.cache.open_content(Area::Indexes, file.digest, file.size)?;
        read_index(opened.ok_or(StoreError::Missing { digest: file.digest })?, LARGEST_INDEX, url)
    }

    /// Makes sure that the cache has an index of this digest.
    fn verified_index(&self, url: &Url, file: ReleaseFile) -> Result<(), ArchiveProblem> {
        if self.cache.open_content(Area::Indexes, file.digest, file.size)?.is_some() {
            return Ok(());
        }
        if file.size > LARGEST_INDEX {
            return Err(FetchError::TooLarge { url: shown(url), limit: LARGEST_INDEX }.into());
        }
        let open = || self.cache.writer(Area::Indexes, file.digest).map_err(io::Error::other);
        let writer = self.fetcher.file(url, (file.digest, file.size), open, &|_| true)?;
        writer.commit_content(file.size)?;
        Ok(())
    }

    /// An archive of the old flat form, `deb URL directory/`, with nothing but an index: only for `trusted: true`.
    fn flat(&self, source: &AptSource, directory: &str) -> Result<Offer, ArchiveProblem> {
        const INDEX: &str = "Packages.gz";
        let archive = match &source.url {
            Some(url) => address(url)?,
            None => return Err(ArchiveProblem::NoMirror),
        };
        let url = join(&archive, &format!("{directory}{INDEX}"))?;
        let bytes = self.unsigned(&url)?;
        let index = LockedIndex {
            suite: directory.to_owned(),
            path: INDEX.to_owned(),
            size: bytes.len() as u64,
            sha256: locked_digest(Digest::of(&bytes)),
        };
        Ok(Offer { url: archive, index, release: None, stored: Stored::Read(url, bytes) })
    }

    /// An index that nothing else names. It is fetched each time, and kept for when nothing may be fetched.
    fn unsigned(&self, url: &Url) -> Result<Vec<u8>, ArchiveProblem> {
        let key = FramedHasher::new("flat index 1").field("url", url.as_str()).finish();
        if self.fetcher.may_fetch(url) {
            let Document::New(bytes, _) = self.fetcher.document(url, LARGEST_INDEX, None)? else {
                return Ok(Vec::new());
            };
            if self.fetcher.local(url).is_none() {
                self.cache.put_bytes(Area::Indexes, key, &bytes)?;
            }
            return Ok(bytes);
        }
        let kept = self.cache.read_bytes(Area::Indexes, key, LARGEST_INDEX)?;
        Ok(kept.ok_or_else(|| FetchError::Offline { url: shown(url) })?)
    }

    /// Where a file of a source may be, the likeliest place first: nowhere if no mirror is known.
    pub fn places(&self, source: &AptSource, suite: &str, path: &str) -> Result<Vec<Url>, Box<ArchiveError>> {
        let archives = match &source.url {
            Some(url) => address(url).map(|url| vec![url]),
            None => Ok(self.mirrors.candidates(suite)),
        };
        let places = archives.and_then(|archives| archives.iter().map(|archive| join(archive, path)).collect());
        places.map_err(|problem| {
            Box::new(ArchiveError { name: source.name.value.clone(), span: source.span.clone(), problem })
        })
    }
}

/// A digest as a lock writes it.
pub(crate) fn locked_digest(digest: Digest) -> Sha256 {
    Sha256::new(digest.hex()).expect("a digest is 64 hexadecimal digits")
}

fn about(source: &AptSource, problem: ArchiveProblem) -> Box<ArchiveError> {
    Box::new(ArchiveError { name: source.name.value.clone(), span: source.span.clone(), problem })
}

/// The text of an `InRelease` whose signature nobody asked about.
pub(crate) fn without_signature(text: &str) -> &str {
    let Some(signed) = text.strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----") else { return text };
    let body = signed.split_once("\n\n").map_or(signed, |(_, body)| body);
    body.split_once("-----BEGIN PGP SIGNATURE-----").map_or(body, |(body, _)| body)
}

pub(super) fn read_index(stored: impl Read + Send, limit: u64, url: &Url) -> Result<Vec<Package>, ArchiveProblem> {
    let failed = |source| ArchiveProblem::Unpack { url: shown(url), source };
    let mut text = String::new();
    let unpacked = decompress(stored).map_err(failed)?;
    unpacked.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(FetchError::TooLarge { url: shown(url), limit }.into());
    }
    parse_index(&text).map_err(|error| ArchiveProblem::Index { url: shown(url), source: Box::new(error) })
}

/// An archive's address as a spec writes it; an absolute directory of this machine stands for its `file:` URL.
pub(super) fn address(text: &str) -> Result<Url, ArchiveProblem> {
    let url = match text.starts_with('/') {
        true => Url::from_directory_path(text).ok(),
        false => Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "file" | STAND_IN)),
    };
    let mut url = url.ok_or_else(|| ArchiveProblem::Address(text.to_owned()))?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

pub(super) fn join(archive: &Url, path: &str) -> Result<Url, ArchiveProblem> {
    archive.join(path).map_err(|_| ArchiveProblem::Address(format!("{archive}{path}")))
}
