//! Which packages must be installed so that the wanted ones work.
//!
//! Two engines answer. The first (`greedy`) chooses as `apt-get` does, so that the set is the one apt would install.
//! When its way leads nowhere, the second (`complete`) searches all ways, and if there is none, says which demands
//! contradict each other. Only packages of one architecture and of `all` are considered.

mod complete;
mod explain;
mod greedy;
mod request;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::package::{IndexError, MultiArch, Package, RelationField};
use crate::relation::{Alternatives, Provided, Qualifier, Relation};
use crate::version::Version;

use greedy::Greedy;
pub use request::{PackageRequest, PackageRequestError};

/// A package of a [`Universe`]; it means nothing in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageId(u32);

impl PackageId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// All packages that can be chosen from, of one architecture.
#[derive(Debug)]
pub struct Universe {
    architecture: Box<str>,
    packages: Vec<Package>,
    /// The versions of each name, the newest first.
    by_name: HashMap<Box<str>, Vec<PackageId>>,
    /// The packages that provide a name besides their own, in source order.
    providers: HashMap<Box<str>, Vec<Provider>>,
    /// What is essential in its newest version, by name.
    essential: Vec<PackageId>,
}

#[derive(Debug)]
struct Provider {
    package: PackageId,
    provided: Provided,
}

impl Universe {
    /// Collects the packages of several indexes. Where the same version of a package is in more than one, the first
    /// counts; so the order of the indexes is the order of the sources, and packages without a `.deb`, such as those of
    /// a foreign image's `status`, come last.
    pub fn new(architecture: &str, indexes: Vec<Vec<Package>>) -> Result<Self, IndexError> {
        let mut universe = Self {
            architecture: architecture.into(),
            packages: Vec::with_capacity(indexes.iter().map(Vec::len).sum()),
            by_name: HashMap::new(),
            providers: HashMap::new(),
            essential: Vec::new(),
        };
        for package in indexes.into_iter().flatten() {
            if package.architecture() == architecture || package.architecture() == "all" {
                universe.add(package)?;
            }
        }
        universe.essential = universe.find_essential();
        Ok(universe)
    }

    fn add(&mut self, package: Package) -> Result<(), IndexError> {
        let id = PackageId(u32::try_from(self.packages.len()).expect("indexes have far fewer than 2^32 packages"));
        let packages = &self.packages;
        let versions = self.by_name.entry(package.name().into()).or_default();
        let newer = |other: &PackageId| packages[other.index()].version() > package.version();
        let place = versions.iter().position(|other| !newer(other)).unwrap_or(versions.len());
        if versions.get(place).is_some_and(|other| packages[other.index()].version() == package.version()) {
            return Ok(());
        }
        versions.insert(place, id);
        if package.has_provides() {
            for provided in package.provides()? {
                self.providers.entry(provided.name.clone()).or_default().push(Provider { package: id, provided });
            }
        }
        self.packages.push(package);
        Ok(())
    }

    fn find_essential(&self) -> Vec<PackageId> {
        let candidates = self.by_name.keys().filter_map(|name| self.candidate(name));
        let mut essential: Vec<_> = candidates.filter(|id| self.package(*id).essential()).collect();
        essential.sort_by_key(|id| self.package(*id).name());
        essential
    }

    /// The architecture that is installed for.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The package with this id.
    ///
    /// # Panics
    ///
    /// If the id is another universe's.
    pub fn package(&self, id: PackageId) -> &Package {
        &self.packages[id.index()]
    }

    /// All packages, in source order.
    pub fn packages(&self) -> impl ExactSizeIterator<Item = (PackageId, &Package)> {
        self.packages.iter().enumerate().map(|(index, package)| {
            (PackageId(u32::try_from(index).expect("indexes have far fewer than 2^32 packages")), package)
        })
    }

    /// The versions of a package, the newest first.
    pub fn versions(&self, name: &str) -> &[PackageId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The newest version of a package that can be fetched.
    pub fn candidate(&self, name: &str) -> Option<PackageId> {
        self.versions(name).iter().copied().find(|id| self.package(*id).download().is_some())
    }

    /// A package by name and exact version.
    pub fn find(&self, name: &str, version: &Version) -> Option<PackageId> {
        self.versions(name).iter().copied().find(|id| self.package(*id).version() == version)
    }

    /// The packages that are essential in their newest version, by name.
    pub fn essential(&self) -> &[PackageId] {
        &self.essential
    }

    /// The packages that provide `name` besides their own, in source order.
    pub fn providers(&self, name: &str) -> impl Iterator<Item = (PackageId, &Provided)> {
        self.providers.get(name).into_iter().flatten().map(|provider| (provider.package, &provider.provided))
    }

    /// Whether the package meets the relation, by its name or by a name it provides.
    pub fn meets(&self, id: PackageId, relation: &Relation) -> bool {
        let package = self.package(id);
        let constraint = relation.constraint.as_ref();
        let by_name = || {
            *relation.name == *package.name()
                && constraint.is_none_or(|constraint| constraint.accepts(package.version()))
        };
        let by_provision =
            || self.providers(&relation.name).any(|(provider, provided)| provider == id && provided.meets(constraint));
        self.qualifies(package, relation) && (by_name() || by_provision())
    }

    fn qualifies(&self, package: &Package, relation: &Relation) -> bool {
        match &relation.qualifier {
            None | Some(Qualifier::Native) => true,
            Some(Qualifier::Any) => package.multi_arch() == MultiArch::Allowed,
            Some(Qualifier::Architecture(name)) => **name == *self.architecture,
        }
    }

    /// All packages that meet the relation: those of its name, newest first, then those that provide it, in the order
    /// in which apt tries them.
    pub fn meeting(&self, relation: &Relation) -> Vec<PackageId> {
        let mut all: Vec<_> = self.versions(&relation.name).to_vec();
        let mut providers: Vec<_> = self.providers(&relation.name).map(|(id, _)| id).collect();
        providers.retain(|id| *self.package(*id).name() != *relation.name);
        providers.sort_by_key(|id| self.provider_rank(*id));
        providers.dedup();
        all.extend(providers);
        all.retain(|id| self.meets(*id, relation));
        all
    }

    /// What apt prefers among several providers.
    fn provider_rank(&self, id: PackageId) -> impl Ord + use<'_> {
        let package = self.package(id);
        let version = std::cmp::Reverse(package.version());
        (!package.essential(), !package.protected(), package.priority(), package.name(), version)
    }

    /// The groups of a relation field that count on this architecture.
    fn groups(&self, id: PackageId, field: RelationField) -> Result<Vec<Vec<Relation>>, IndexError> {
        let groups = self.package(id).relations(field)?;
        let applying = groups.iter().map(|group| self.applying(group));
        Ok(applying.filter(|group| !group.is_empty()).collect())
    }

    fn applying(&self, group: &Alternatives) -> Vec<Relation> {
        group.iter().filter(|relation| relation.applies_to(&self.architecture)).cloned().collect()
    }

    /// The packages that may not be installed together with this one, as it says itself.
    fn refusals(&self, id: PackageId) -> Result<Vec<(RelationField, Relation)>, IndexError> {
        let mut all = Vec::new();
        for field in [RelationField::Conflicts, RelationField::Breaks] {
            let relations = self.package(id).relation_list(field)?;
            let applying = relations.into_iter().filter(|relation| relation.applies_to(&self.architecture));
            all.extend(applying.map(|relation| (field, relation)));
        }
        Ok(all)
    }

    /// Chooses packages so that everything asked for can be installed.
    pub fn resolve(&self, request: &Request<'_>) -> Result<Resolution, ResolveError> {
        let wanted = self.wanted(request)?;
        let greedy = Greedy::new(self, request.installed, request.recommends);
        if let Some(resolution) = greedy.resolve(&wanted)? {
            return Ok(resolution);
        }
        let chosen = complete::solve(self, request.installed, &wanted)?;
        Greedy::new(self, request.installed, request.recommends).justify(&wanted, &chosen)
    }
}

/// What to resolve.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// What is installed already. It is kept as it is, and meets what others need.
    pub installed: &'a [PackageId],
    /// What to install.
    pub install: &'a [PackageRequest],
    /// Whether to install all essential packages, too.
    pub essential: bool,
    /// Whether to install what new packages recommend, as far as possible.
    pub recommends: bool,
}

/// A package that must be installed.
struct Wanted {
    /// The versions that will do, the preferred first.
    versions: Vec<PackageId>,
    reason: Reason,
}

impl Wanted {
    fn preferred(&self) -> PackageId {
        self.versions[0]
    }
}

/// The packages to install, and why.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The new packages, by name.
    pub packages: Vec<PackageId>,
    /// Why each of them is there.
    pub reasons: BTreeMap<PackageId, Reason>,
}

impl Resolution {
    /// The packages that led to this one, beginning with it and ending with one that was asked for.
    pub fn chain(&self, package: PackageId) -> Vec<PackageId> {
        let mut chain = vec![package];
        while let Some(Reason::Needed { by, .. }) = chain.last().and_then(|last| self.reasons.get(last)) {
            if chain.contains(by) {
                break;
            }
            chain.push(*by);
        }
        chain
    }
}

/// Why a package is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is essential.
    Essential,
    /// It was asked for, in these words.
    Requested(PackageRequest),
    /// Another package needs it.
    Needed {
        /// The package that needs it.
        by: PackageId,
        /// The field that says so.
        field: RelationField,
        /// What the field says, such as `libc6 (>= 2.36)`.
        relation: String,
    },
}

/// Why packages cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No source has such a package.
    #[error("no source has a package `{name}`{}", SimilarNames(similar))]
    UnknownPackage {
        /// The name that was asked for.
        name: String,
        /// Names that look like it.
        similar: Vec<String>,
    },
    /// The package has no such version.
    #[error("no source has `{name}` in version {version}, but in {}", available.join(", "))]
    UnknownVersion {
        /// The package's name.
        name: String,
        /// The version that was asked for.
        version: Version,
        /// The versions there are.
        available: Vec<String>,
    },
    /// The name is only provided, by several packages.
    #[error("`{name}` is a virtual package provided by {}: ask for one of them", providers.join(", "))]
    Virtual {
        /// The name that was asked for.
        name: String,
        /// The packages that provide it.
        providers: Vec<String>,
    },
    /// A package of another architecture was asked for.
    #[error("`{request}` is not for the architecture {architecture}")]
    OtherArchitecture {
        /// What was asked for.
        request: PackageRequest,
        /// The architecture that is installed for.
        architecture: String,
    },
    /// Another version is installed already.
    #[error("`{request}` cannot be installed: {installed} is installed already, and is kept")]
    Kept {
        /// What was asked for.
        request: PackageRequest,
        /// The version that is installed.
        installed: Version,
    },
    /// Two versions of the same package were asked for.
    #[error("`{first}` and `{second}` cannot both be installed")]
    TwoVersions {
        /// One request.
        first: PackageRequest,
        /// The other.
        second: PackageRequest,
    },
    /// There is no set of packages that would do.
    #[error("the packages cannot be installed together: {}", explanation.join("; "))]
    Unsatisfiable {
        /// The demands that contradict each other, a sentence each.
        explanation: Vec<String>,
    },
    /// A package's relations cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
}

struct SimilarNames<'a>(&'a [String]);

impl fmt::Display for SimilarNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", but {}", self.0.join(", ")) }
    }
}

#[cfg(test)]
mod tests;
