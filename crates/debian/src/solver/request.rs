//! What somebody asks for by name, and which package that is.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::{PackageId, Reason, Request, ResolveError, Universe, Wanted};
use crate::relation::{is_architecture, is_package_name};
use crate::version::{Version, VersionError};

/// A package by name, as people write it: `name`, `name=version`, `name:architecture` or all three parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageRequest {
    name: Box<str>,
    architecture: Option<Box<str>>,
    version: Option<Version>,
}

impl PackageRequest {
    /// The package's name, which may be virtual.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The exact version, if one was asked for.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }
}

impl FromStr for PackageRequest {
    type Err = PackageRequestError;

    fn from_str(text: &str) -> Result<Self, PackageRequestError> {
        let shortened = || text.chars().take(80).collect();
        let (package, version) = match text.split_once('=') {
            Some((package, version)) => (package, Some(version)),
            None => (text, None),
        };
        let (name, architecture) = match package.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (package, None),
        };
        if !is_package_name(name) {
            return Err(PackageRequestError::Name { text: shortened() });
        }
        if architecture.is_some_and(|architecture| !is_architecture(architecture)) {
            return Err(PackageRequestError::Architecture { text: shortened() });
        }
        let version = version.map(str::parse).transpose();
        let version = version.map_err(|source| PackageRequestError::Version { text: shortened(), source })?;
        Ok(Self { name: name.into(), architecture: architecture.map(Into::into), version })
    }
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(f, ":{architecture}")?;
        }
        if let Some(version) = &self.version {
            write!(f, "={version}")?;
        }
        Ok(())
    }
}

/// Why a text does not ask for a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageRequestError {
    /// The name is none.
    #[error("`{text}` does not name a package: expected `NAME`, `NAME=VERSION` or `NAME:ARCHITECTURE`")]
    Name {
        /// The text.
        text: String,
    },
    /// The architecture is none.
    #[error("`{text}` does not name a package: expected an architecture after the colon")]
    Architecture {
        /// The text.
        text: String,
    },
    /// The version is none.
    #[error("`{text}` does not name a package")]
    Version {
        /// The text.
        text: String,
        /// Why the version is none.
        source: VersionError,
    },
}

impl Universe {
    /// What is wanted beyond what is installed: the essential packages first, then the requests in their order.
    pub(super) fn wanted(&self, request: &Request<'_>) -> Result<Vec<Wanted>, ResolveError> {
        let installed: HashMap<_, _> = request.installed.iter().map(|id| (self.package(*id).name(), *id)).collect();
        let essential = request.essential.then_some(self.essential()).into_iter().flatten();
        let missing = essential.filter(|id| !installed.contains_key(self.package(**id).name()));
        let mut wanted: Vec<_> = missing.map(|id| Wanted { versions: vec![*id], reason: Reason::Essential }).collect();
        for one in request.install {
            if let Some(versions) = self.find_requested(one, &installed)? {
                add_wanted(self, &mut wanted, one, versions)?;
            }
        }
        Ok(wanted)
    }

    /// The packages that a request may mean, the preferred first; none if it is met by what is installed.
    fn find_requested(
        &self,
        request: &PackageRequest,
        installed: &HashMap<&str, PackageId>,
    ) -> Result<Option<Vec<PackageId>>, ResolveError> {
        let native = [self.architecture(), "all", "any", "native"];
        if request.architecture.as_deref().is_some_and(|architecture| !native.contains(&architecture)) {
            let architecture = self.architecture().to_owned();
            return Err(ResolveError::OtherArchitecture { request: request.clone(), architecture });
        }
        if let Some(id) = installed.get(request.name()) {
            let found = self.package(*id).version();
            return match request.version() {
                Some(version) if version != found => {
                    Err(ResolveError::Kept { request: request.clone(), installed: found.clone() })
                }
                _ => Ok(None),
            };
        }
        let versions: Vec<_> = self.versions(request.name()).iter().copied().filter(|id| self.can_fetch(*id)).collect();
        match (request.version(), versions.is_empty()) {
            (_, true) => self.find_provider(request, installed),
            (None, false) => Ok(Some(versions)),
            (Some(version), false) => {
                let exact: Vec<_> =
                    versions.iter().copied().filter(|id| self.package(*id).version() == version).collect();
                if exact.is_empty() { Err(self.unknown_version(request, version, &versions)) } else { Ok(Some(exact)) }
            }
        }
    }

    fn can_fetch(&self, id: PackageId) -> bool {
        self.package(id).download().is_some()
    }

    fn unknown_version(&self, request: &PackageRequest, version: &Version, versions: &[PackageId]) -> ResolveError {
        ResolveError::UnknownVersion {
            name: request.name().to_owned(),
            version: version.clone(),
            available: versions.iter().map(|id| self.package(*id).version().to_string()).collect(),
        }
    }

    /// A virtual package stands for its provider if it has only one; which of several is meant, nobody can know.
    fn find_provider(
        &self,
        request: &PackageRequest,
        installed: &HashMap<&str, PackageId>,
    ) -> Result<Option<Vec<PackageId>>, ResolveError> {
        let providers: Vec<_> = self.providers(request.name()).map(|(id, _)| id).collect();
        if providers.iter().any(|id| installed.get(self.package(*id).name()) == Some(id)) && request.version().is_none()
        {
            return Ok(None);
        }
        let is_candidate = |id: &PackageId| self.candidate(self.package(*id).name()) == Some(*id);
        let mut candidates: Vec<_> = providers.into_iter().filter(is_candidate).collect();
        candidates.sort_by_key(|id| self.package(*id).name());
        candidates.dedup();
        match candidates.as_slice() {
            [only] if request.version().is_none() => Ok(Some(vec![*only])),
            [] | [_] => Err(self.unknown_package(request.name())),
            _ => Err(ResolveError::Virtual {
                name: request.name().to_owned(),
                providers: candidates.iter().map(|id| self.package(*id).name().to_owned()).collect(),
            }),
        }
    }

    fn unknown_package(&self, name: &str) -> ResolveError {
        let mut scored: Vec<_> = self
            .by_name
            .keys()
            .map(|other| (strsim::jaro_winkler(name, other), other))
            .filter(|(score, _)| *score > 0.88)
            .collect();
        scored.sort_by(|left, right| right.0.total_cmp(&left.0).then_with(|| left.1.cmp(right.1)));
        let similar = scored.into_iter().take(3).map(|(_, other)| format!("`{other}`")).collect();
        ResolveError::UnknownPackage { name: name.to_owned(), similar }
    }
}

fn add_wanted(
    universe: &Universe,
    wanted: &mut Vec<Wanted>,
    request: &PackageRequest,
    versions: Vec<PackageId>,
) -> Result<(), ResolveError> {
    let name_of = |id: PackageId| universe.package(id).name();
    let same = wanted.iter_mut().find(|one| name_of(one.preferred()) == name_of(versions[0]));
    let Some(same) = same else {
        wanted.push(Wanted { versions, reason: Reason::Requested(request.clone()) });
        return Ok(());
    };
    let both: Vec<_> = versions.iter().copied().filter(|id| same.versions.contains(id)).collect();
    match &same.reason {
        _ if !both.is_empty() => same.versions = both,
        // An essential package that is also asked for in another version than the newest.
        Reason::Requested(first) => {
            return Err(ResolveError::TwoVersions { first: first.clone(), second: request.clone() });
        }
        _ => same.versions = versions,
    }
    same.reason = Reason::Requested(request.clone());
    Ok(())
}
