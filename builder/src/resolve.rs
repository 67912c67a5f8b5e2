//! Chooses the packages of images: what the lock names, as far as that goes, and else what the archives have today.

use std::collections::{BTreeMap, HashMap};

use content::Digest;
use debian::order::unpack_order;
use debian::package::Package;
use debian::solver::{PackageId, Request, Universe};
use spec::lock::{LockedDeb, LockedSource};
use spec::{AptSource, Diagnostic, Family, Image, Located, PackageRequest, Span, Step};
use url::Url;

use crate::apt::archive::{Archives, Offer};
use crate::error::BuildError;
use crate::lock::description;
use crate::lock::pins::{Needs, Pins};
use crate::package::download;
use crate::plan::{ByStep, LockedPackage, Origin};
use crate::python::{Compiling, Interpreter};

/// Resolves images one after the other, and remembers what archives said.
pub struct Resolver<'a> {
    family: &'a Family,
    archives: &'a Archives<'a>,
    pins: Pins,
    offers: BTreeMap<String, Vec<Read>>,
    universes: BTreeMap<Vec<String>, Choice>,
}

/// An index, and what it offers.
struct Read {
    offer: Offer,
    packages: Vec<Package>,
}

/// All packages that an image's sources offer, as far as they may be chosen.
struct Choice {
    universe: Universe,
    /// The indexes.
    indexes: Vec<Index>,
    /// Which index has a `.deb`.
    origins: HashMap<Digest, usize>,
    /// What is in none, and known from the lock and the `.deb`.
    kept: HashMap<Digest, LockedPackage>,
    /// What the lock names and no source has any more, by name.
    gone: BTreeMap<String, LockedDeb>,
}

/// Where an index is.
struct Index {
    root: Url,
    source: String,
    suite: String,
}

impl<'a> Resolver<'a> {
    /// A resolver that has asked nobody yet.
    pub fn new(family: &'a Family, archives: &'a Archives<'a>, pins: Pins) -> Self {
        Self { family, archives, pins, offers: BTreeMap::new(), universes: BTreeMap::new() }
    }

    /// Resolves every step of an image; `present` are the packages it has so far, and `ancestors` the same by digest.
    pub fn image(
        &mut self,
        image: &Image,
        present: &mut Vec<Package>,
        ancestors: &[LockedPackage],
    ) -> Result<(ByStep<Vec<LockedPackage>>, ByStep<Compiling>), BuildError> {
        let (mut locked, mut compiling) = (ByStep::new(), ByStep::new());
        for (place, step) in image.steps.iter().enumerate() {
            let Step::Packages(requests) = step else { continue };
            locked.insert(place, self.step(image, requests, present)?);
            let known: Vec<&LockedPackage> = ancestors.iter().chain(locked.values().flatten()).collect();
            let interpreter = image.bytecode.then(|| Interpreter::among(present, &known));
            compiling.insert(place, interpreter.map_or(Compiling::Never, Compiling::by));
        }
        Ok((locked, compiling))
    }

    /// Resolves one step. If what the lock names stands in the way of what is asked for, as much of it as is needed is
    /// given up.
    fn step(
        &mut self,
        image: &Image,
        requests: &[Located<PackageRequest>],
        present: &mut Vec<Package>,
    ) -> Result<Vec<LockedPackage>, BuildError> {
        loop {
            let family = self.family;
            let choice = self.choice(image, present, requests)?;
            let error = match resolve(family, &choice.universe, image, requests, present) {
                Ok(new) => {
                    let gone = new.iter().find_map(|id| choice.gone.get(choice.universe.package(*id).name()));
                    if let Some(gone) = gone.cloned() {
                        return Err(self.no_longer_there(&gone));
                    }
                    present.extend(new.iter().map(|id| choice.universe.package(*id).clone()));
                    return Ok(new.iter().map(|id| choice.lock(*id)).collect());
                }
                Err(error) => error,
            };
            if self.pins.is_empty() {
                return Err(error);
            }
            let names = source_names(image);
            let free = self.choose_from(&names, present, &Pins::default())?;
            let new = resolve(family, &free.universe, image, requests, present)?;
            let newest: Vec<&Package> = new.iter().map(|id| free.universe.package(*id)).collect();
            let locked = &self.choice(image, present, requests)?.universe;
            let locked: Vec<Package> = newest
                .iter()
                .filter_map(|package| locked.candidate(package.name()).map(|id| locked.package(id).clone()))
                .collect();
            let needs = Needs { installed: present, newest: &newest, locked: &locked };
            if !self.pins.give_up(&needs) {
                return Err(error);
            }
            self.universes.clear();
        }
    }

    fn choice(
        &mut self,
        image: &Image,
        present: &[Package],
        requests: &[Located<PackageRequest>],
    ) -> Result<&Choice, BuildError> {
        let names = source_names(image);
        if names.is_empty() {
            let help = "name one under `sources:` of family.yaml, and under `defaults: sources:` or in the image";
            return Err(BuildError::at(&requests[0].span, "packages need a source, and the image has none", help));
        }
        for name in &names {
            self.ask(name)?;
        }
        if !self.universes.contains_key(&names) {
            let choice = self.choose_from(&names, &[], &self.pins)?;
            self.universes.insert(names.clone(), choice);
        }
        let foreign = foreign(&self.universes[&names].universe, present);
        if foreign.is_empty() {
            return Ok(&self.universes[&names]);
        }
        // The parent has packages from sources that this image does not use: they stay, but offer no choice.
        let versions = foreign.iter().map(|package| format!("{}={}", package.name(), package.version()));
        let key = [names.clone(), versions.collect()].concat();
        if !self.universes.contains_key(&key) {
            let choice = self.choose_from(&names, &foreign, &self.pins)?;
            self.universes.insert(key.clone(), choice);
        }
        Ok(&self.universes[&key])
    }

    /// Gets what a source offers, once.
    fn ask(&mut self, name: &str) -> Result<(), BuildError> {
        if !self.offers.contains_key(name) {
            let source = self.family.source(name).expect("assembling a family checks the names of sources");
            let read = |offer| -> Result<Read, BuildError> {
                Ok(Read { packages: self.archives.packages(source, &offer)?, offer })
            };
            let offers = self.archives.fetch(source)?.into_iter().map(read).collect::<Result<_, _>>()?;
            self.offers.insert(name.to_owned(), offers);
        }
        Ok(())
    }

    /// What the sources of these names offer, and `foreign` besides.
    fn choose_from(&self, names: &[String], foreign: &[Package], pins: &Pins) -> Result<Choice, BuildError> {
        let (mut indexes, mut origins) = (Vec::new(), HashMap::new());
        let offers = || names.iter().flat_map(|name| self.offers[name].iter().map(move |offer| (name, offer)));
        for (source, Read { offer, packages }) in offers() {
            for download in packages.iter().filter_map(Package::download) {
                origins.entry(download.sha256).or_insert(indexes.len());
            }
            indexes.push(Index { root: offer.url.clone(), source: source.clone(), suite: offer.index.suite.clone() });
        }
        let mut allowed = pins.among(names, &|digest| origins.contains_key(&digest));
        let mut kept = HashMap::new();
        let mut described = Vec::new();
        for deb in allowed.take_missing() {
            let Some(package) = self.kept(&deb)? else {
                allowed.gone(deb);
                continue;
            };
            let locked = self.locked(&deb)?;
            allowed.only(&deb.name, locked.sha256);
            kept.insert(locked.sha256, locked);
            described.push(package);
        }
        let offered = offers().map(|(_, read)| allowed.filter(&read.packages).cloned().collect());
        let all = offered.chain([described, foreign.to_vec()]).collect();
        let universe = Universe::new(self.archives.architecture, all)?;
        Ok(Choice { universe, indexes, origins, kept, gone: allowed.into_gone() })
    }

    /// A package as its index or its own `.deb` describes it.
    pub fn describe(&mut self, package: &LockedPackage) -> Result<Package, BuildError> {
        if self.family.source(&package.origin.source).is_some() {
            self.ask(&package.origin.source)?;
        }
        let offers = self.offers.get(&package.origin.source).into_iter().flatten();
        let is_meant = |known: &&Package| known.download().is_some_and(|download| download.sha256 == package.sha256);
        let found = offers.flat_map(|read| &read.packages).filter(|known| known.name() == package.name);
        if let Some(found) = found.into_iter().find(is_meant) {
            return Ok(found.clone());
        }
        let deb = package.to_lock();
        if let Some(kept) = self.kept(&deb)? {
            return Ok(kept);
        }
        download::fetch(self.archives.cache, self.archives.fetcher, package, &|_| true)?;
        self.kept(&deb)?.ok_or_else(|| self.no_longer_there(&deb))
    }

    /// A package of the lock that the cache has, with what its index said of it.
    fn kept(&self, deb: &LockedDeb) -> Result<Option<Package>, BuildError> {
        download::described(self.archives.cache, deb)
    }

    /// A package of a lock, with the places where it may be.
    pub fn locked(&self, deb: &LockedDeb) -> Result<LockedPackage, BuildError> {
        locked_package(self.family, self.archives, deb)
    }

    fn no_longer_there(&self, deb: &LockedDeb) -> BuildError {
        let places = self.locked(deb).map(|package| package.urls).unwrap_or_default();
        BuildError::Gone { name: deb.name.clone(), version: deb.version.clone(), places }
    }

    /// What the archives said that were asked.
    pub fn into_sources(self) -> BTreeMap<String, LockedSource> {
        let family = self.family;
        let locked = |(name, offers): (String, Vec<Read>)| {
            let source = family.source(&name)?;
            let offers: Vec<Offer> = offers.into_iter().map(|read| read.offer).collect();
            Some((name, locked_source(source, &offers)))
        };
        self.offers.into_iter().filter_map(locked).collect()
    }
}

/// An archive as a lock remembers it.
pub fn locked_source(source: &AptSource, offers: &[Offer]) -> LockedSource {
    let mut releases = Vec::new();
    for release in offers.iter().filter_map(|offer| offer.release.as_ref()) {
        if !releases.contains(release) {
            releases.push(release.clone());
        }
    }
    let indexes = offers.iter().map(|offer| offer.index.clone()).collect();
    LockedSource { name: source.name.value.clone(), description: description(source), releases, indexes }
}

/// A package of a lock, with the places where it may be.
pub fn locked_package(family: &Family, archives: &Archives<'_>, deb: &LockedDeb) -> Result<LockedPackage, BuildError> {
    let urls = match family.source(&deb.source) {
        Some(source) => archives.places(source, &deb.suite, &deb.path)?,
        None => Vec::new(),
    };
    Ok(LockedPackage {
        name: deb.name.clone(),
        version: deb.version.clone(),
        architecture: deb.architecture.clone(),
        origin: Origin { source: deb.source.clone(), suite: deb.suite.clone(), path: deb.path.clone() },
        urls,
        size: deb.size,
        sha256: Digest::from_hex(deb.sha256.as_str()).expect("a lock has whole digests"),
    })
}

impl Choice {
    fn lock(&self, id: PackageId) -> LockedPackage {
        let package = self.universe.package(id);
        let download = package.download().expect("only packages of an index are chosen");
        if let Some(kept) = self.kept.get(&download.sha256) {
            return kept.clone();
        }
        let index = self.origins.get(&download.sha256).expect("every package of an index has an archive");
        let Index { root, source, suite } = &self.indexes[*index];
        LockedPackage {
            name: package.name().to_owned(),
            version: package.version().to_string(),
            architecture: package.architecture().to_owned(),
            origin: Origin { source: source.clone(), suite: suite.clone(), path: download.filename.to_owned() },
            urls: vec![root.join(download.filename).expect("file names of an index are checked when it is read")],
            size: download.size,
            sha256: download.sha256,
        }
    }
}

fn source_names(image: &Image) -> Vec<String> {
    image.sources.iter().map(|name| name.value.clone()).collect()
}

/// The installed packages that no source offers.
fn foreign(universe: &Universe, present: &[Package]) -> Vec<Package> {
    let missing = present.iter().filter(|package| universe.find(package.name(), package.version()).is_none());
    missing.cloned().collect()
}

fn resolve(
    family: &Family,
    universe: &Universe,
    image: &Image,
    requests: &[Located<PackageRequest>],
    present: &[Package],
) -> Result<Vec<PackageId>, BuildError> {
    let installed: Vec<PackageId> =
        present.iter().filter_map(|package| universe.find(package.name(), package.version())).collect();
    let mut install = Vec::new();
    for request in requests {
        let parsed = request.to_string().parse();
        install.push(parsed.map_err(|error: debian::solver::PackageRequestError| {
            BuildError::at(&request.span, error.to_string(), "")
        })?);
    }
    let essential = present.is_empty();
    let request = Request { installed: &installed, install: &install, essential, recommends: image.recommends };
    match universe.resolve(&request) {
        Ok(resolution) => Ok(unpack_order(universe, &resolution.packages)?),
        Err(error) => {
            let place = unresolved(universe, requests, &installed);
            let diagnostic = Diagnostic::new(place.clone(), error.to_string()).label("asked for here");
            Err(BuildError::Spec(diagnostic.help(sources_of(family, image)).into()))
        }
    }
}

/// The place of the request that cannot be met: the first that fails when it is asked for alone, else the first.
fn unresolved<'r>(universe: &Universe, requests: &'r [Located<PackageRequest>], installed: &[PackageId]) -> &'r Span {
    let fails = |request: &&Located<PackageRequest>| {
        let Ok(parsed) = request.to_string().parse() else { return true };
        let alone = Request { installed, install: &[parsed], essential: false, recommends: false };
        universe.resolve(&alone).is_err()
    };
    &requests.iter().find(fails).unwrap_or(&requests[0]).span
}

/// Where an image's packages come from, and where they could.
fn sources_of(family: &Family, image: &Image) -> String {
    let used: Vec<&str> = image.sources.iter().map(|name| name.value.as_str()).collect();
    let known = family.sources.iter().map(|source| source.name.value.as_str());
    let others: Vec<&str> = known.filter(|name| !used.contains(name)).collect();
    let mut text = format!("the image {} uses the sources: {}", image.name, used.join(", "));
    if !others.is_empty() {
        text.push_str(&format!("; the family has others: {}", others.join(", ")));
    }
    text
}
