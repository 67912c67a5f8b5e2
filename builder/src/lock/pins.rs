//! What a lock says of packages, when something has to be resolved all the same: what is locked is preferred, and given
//! up only as far as something that is asked for strictly needs another version.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use content::Digest;
use debian::package::{Package, RelationField};
use debian::relation::Relation;
use spec::lock::LockedDeb;

/// The packages of a lock, by name.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    by_name: BTreeMap<String, Vec<Pin>>,
    /// Names that are to have their newest version.
    free: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Pin {
    deb: LockedDeb,
    digest: Digest,
    /// Whether it is an error that the archive no longer has it, and not only a reason to take another version.
    firm: bool,
}

/// What an image of some sources may choose.
pub struct Allowed {
    /// For each locked name, the only packages.
    only: BTreeMap<String, HashSet<Digest>>,
    /// Names of which only the newest version may be chosen.
    newest: BTreeSet<String>,
    /// Locked packages that no source offers.
    missing: Vec<LockedDeb>,
    gone: BTreeMap<String, LockedDeb>,
}

impl Pins {
    /// Adds a locked package.
    pub fn add(&mut self, deb: &LockedDeb, firm: bool) {
        let digest = Digest::from_hex(deb.sha256.as_str()).expect("a lock has whole digests");
        let known = self.by_name.entry(deb.name.clone()).or_default();
        if !known.iter().any(|pin| pin.digest == digest) {
            known.push(Pin { deb: deb.clone(), digest, firm });
        }
    }

    /// Gives a name up: its newest version is taken.
    pub fn free(&mut self, name: &str) {
        self.free.insert(name.to_owned());
    }

    /// Whether nothing is preferred.
    pub fn is_empty(&self) -> bool {
        self.by_name.keys().all(|name| self.free.contains(name))
    }

    fn holds(&self, name: &str) -> bool {
        self.by_name.contains_key(name) && !self.free.contains(name)
    }

    /// What an image of these sources may choose. `is_offered` says what the sources have.
    pub fn among(&self, sources: &[String], is_offered: &dyn Fn(Digest) -> bool) -> Allowed {
        let mut allowed =
            Allowed { only: BTreeMap::new(), newest: self.free.clone(), missing: Vec::new(), gone: BTreeMap::new() };
        for (name, pins) in self.by_name.iter().filter(|(name, _)| !self.free.contains(*name)) {
            let of_sources = || pins.iter().filter(|pin| sources.contains(&pin.deb.source));
            let offered: HashSet<Digest> = of_sources().map(|pin| pin.digest).filter(|pin| is_offered(*pin)).collect();
            if offered.is_empty() {
                allowed.missing.extend(of_sources().find(|pin| pin.firm).map(|pin| pin.deb.clone()));
            } else {
                allowed.only.insert(name.clone(), offered);
            }
        }
        allowed
    }

    /// Gives up the names without which what is wanted can be had. Returns whether there are any.
    pub fn give_up(&mut self, needs: &Needs<'_>) -> bool {
        let before = self.free.len();
        while let Some(name) = needs.in_the_way(&|name| self.holds(name)) {
            self.free(&name);
        }
        if self.free.len() > before {
            return true;
        }
        // Whatever it is that stands in the way, it is one of these.
        let all: Vec<&str> =
            needs.newest.iter().map(|package| package.name()).filter(|name| self.holds(name)).collect();
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        all.iter().for_each(|name| self.free(name));
        !all.is_empty()
    }
}

impl Allowed {
    /// The locked packages that no source offers: each is either found elsewhere, or gone.
    pub fn take_missing(&mut self) -> Vec<LockedDeb> {
        std::mem::take(&mut self.missing)
    }

    /// Allows one package of a name only.
    pub fn only(&mut self, name: &str, digest: Digest) {
        self.only.insert(name.to_owned(), HashSet::from([digest]));
    }

    /// Notes that a locked package is nowhere: whoever needs one of its name cannot have it.
    pub fn gone(&mut self, deb: LockedDeb) {
        self.gone.insert(deb.name.clone(), deb);
    }

    /// The packages of an index that may be chosen.
    pub fn filter<'p>(&'p self, packages: &'p [Package]) -> impl Iterator<Item = &'p Package> {
        let newest = self.newest_versions(packages);
        packages.iter().filter(move |package| match self.only.get(package.name()) {
            Some(only) => package.download().is_some_and(|download| only.contains(&download.sha256)),
            None => newest.get(package.name()).is_none_or(|newest| package.version() == *newest),
        })
    }

    fn newest_versions<'p>(&self, packages: &'p [Package]) -> BTreeMap<&'p str, &'p debian::Version> {
        let mut newest: BTreeMap<&str, &debian::Version> = BTreeMap::new();
        for package in packages.iter().filter(|package| self.newest.contains(package.name())) {
            let known = newest.entry(package.name()).or_insert(package.version());
            *known = (*known).max(package.version());
        }
        newest
    }

    /// What is nowhere, by name.
    pub fn into_gone(self) -> BTreeMap<String, LockedDeb> {
        self.gone
    }
}

/// What an image would have if nothing were locked, beside what it has by the lock.
pub struct Needs<'a> {
    /// What is installed already, and stays.
    pub installed: &'a [Package],
    /// The set that would be chosen without a lock.
    pub newest: &'a [&'a Package],
    /// The locked versions of these names, as far as there are any.
    pub locked: &'a [Package],
}

impl Needs<'_> {
    /// A name whose locked version contradicts another package of the set.
    fn in_the_way(&self, holds: &dyn Fn(&str) -> bool) -> Option<String> {
        let newest: BTreeMap<&str, &Package> = self.newest.iter().map(|package| (package.name(), *package)).collect();
        let mut set: BTreeMap<&str, &Package> =
            self.installed.iter().map(|package| (package.name(), package)).collect();
        set.extend(&newest);
        set.extend(self.locked.iter().filter(|package| holds(package.name())).map(|package| (package.name(), package)));
        set.values().find_map(|package| {
            let others = unmet(package, &set).or_else(|| Some(vec![refused(package, &set)?]))?;
            let mut names = others.into_iter().chain([package.name().to_owned()]);
            names.find(|name| holds(name) && newest.contains_key(name.as_str()))
        })
    }
}

type Set<'p> = BTreeMap<&'p str, &'p Package>;

/// The names in a dependency of a package that is not met although one of them is in the set.
fn unmet(package: &Package, set: &Set<'_>) -> Option<Vec<String>> {
    let fields = [RelationField::PreDepends, RelationField::Depends];
    // A field that cannot be read was an error when the packages were chosen.
    let groups = fields.into_iter().flat_map(|field| package.relations(field).unwrap_or_default());
    groups
        .filter(|group| !group.iter().any(|relation| meeting(relation, set).next().is_some()))
        .map(|group| group.iter().map(|relation| relation.name.to_string()).collect::<Vec<_>>())
        .find(|names| names.iter().any(|name| set.contains_key(name.as_str())))
}

/// A package of the set that this one does not want beside it.
fn refused(package: &Package, set: &Set<'_>) -> Option<String> {
    let fields = [RelationField::Conflicts, RelationField::Breaks];
    let relations = fields.into_iter().flat_map(|field| package.relation_list(field).unwrap_or_default());
    relations.into_iter().find_map(|relation| {
        let other = meeting(&relation, set).find(|other| other.name() != package.name())?;
        Some(other.name().to_owned())
    })
}

/// The packages of the set that meet a relation.
fn meeting<'s>(relation: &'s Relation, set: &'s Set<'_>) -> impl Iterator<Item = &'s Package> {
    let constraint = relation.constraint.as_ref();
    let named = set.get(&*relation.name).copied();
    let named = named.filter(|package| constraint.is_none_or(|constraint| constraint.accepts(package.version())));
    let provides = move |package: &&Package| {
        let provided = package.provides().unwrap_or_default();
        provided.iter().any(|provided| provided.name == relation.name && provided.meets(constraint))
    };
    named.into_iter().chain(set.values().copied().filter(|package| package.has_provides()).filter(provides))
}

#[cfg(test)]
mod tests {
    use debian::parse_index;

    use super::*;

    fn packages(stanzas: &str) -> Vec<Package> {
        let whole = |stanza: &str| {
            let digest = Digest::of(stanza.trim().as_bytes()).hex();
            format!("{}\nArchitecture: all\nFilename: x.deb\nSize: 1\nSHA256: {digest}\n\n", stanza.trim())
        };
        stanzas.split("\n\n").flat_map(|stanza| parse_index(&whole(stanza)).unwrap()).collect()
    }

    fn pins(packages: &[Package]) -> Pins {
        let mut pins = Pins::default();
        for package in packages {
            let download = package.download().unwrap();
            let deb = LockedDeb {
                name: package.name().to_owned(),
                version: package.version().to_string(),
                architecture: "all".to_owned(),
                source: "debian".to_owned(),
                suite: "stable".to_owned(),
                path: "x.deb".to_owned(),
                size: 1,
                sha256: crate::apt::archive::locked_digest(download.sha256),
            };
            pins.add(&deb, true);
        }
        pins
    }

    const LOCKED: &str = "\
Package: app\nVersion: 1\nDepends: lib (= 1), tool\n
Package: lib\nVersion: 1\n
Package: tool\nVersion: 1\nDepends: lib (>= 1)\n
Package: other\nVersion: 1";

    const NEWEST: &str = "\
Package: app\nVersion: 2\nDepends: lib (= 2), tool\n
Package: lib\nVersion: 2\n
Package: tool\nVersion: 2\nDepends: lib (>= 1)\n
Package: other\nVersion: 2";

    /// The names that are given up so that the newest version of one can be had.
    fn given_up(name: &str, newest: &str) -> Vec<String> {
        let (locked, newest) = (packages(LOCKED), packages(newest));
        let mut pins = pins(&locked);
        pins.free(name);
        let newest: Vec<&Package> = newest.iter().collect();
        assert!(pins.give_up(&Needs { installed: &[], newest: &newest, locked: &locked }));
        pins.free.into_iter().collect()
    }

    #[test]
    fn a_new_version_brings_what_it_strictly_needs_and_nothing_else() {
        assert_eq!(given_up("app", NEWEST), ["app", "lib"]);
        assert_eq!(given_up("lib", NEWEST), ["app", "lib"]);
    }

    #[test]
    fn who_refuses_another_version_brings_it() {
        let newest = NEWEST.replace("Version: 2\n\nPackage: tool", "Version: 2\nBreaks: other (<< 2)\n\nPackage: tool");
        assert_eq!(given_up("lib", &newest), ["app", "lib", "other"]);
    }

    #[test]
    fn an_image_of_other_sources_is_not_bound() {
        let locked = packages(LOCKED);
        let pins = pins(&locked);
        let of = |source: &str| pins.among(&[source.to_owned()], &|_| true).filter(&packages(NEWEST)).count();
        assert_eq!((of("debian"), of("other")), (0, 4));
        let mut missing = pins.among(&["debian".to_owned()], &|_| false);
        assert_eq!(missing.take_missing().len(), 4);
    }
}
