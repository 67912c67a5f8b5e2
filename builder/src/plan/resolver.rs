//! Which packages each step of each image lays: chosen by the solver from what the image's sources offer, or, where
//! nothing that has a say in it has changed since an earlier build, as they were chosen then.
//!
//! Reading Debian's indexes and choosing is most of what a build that changes nothing would do. So a choice is kept
//! under the digests of the indexes, the requests, and the choices below; the indexes are only read if one is missing.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use content::{Digest, FramedHasher};
use debian::order::unpack_order;
use debian::package::Package;
use debian::solver::{PackageId, Request, Universe};
use serde::{Deserialize, Serialize};
use spec::{Diagnostic, Family, Image, Located, PackageRequest, Span, Step};
use store::Area;
use url::Url;

use super::{ByStep, LockedPackage, PlannedImage};
use crate::apt::archive::{Archives, Offer};
use crate::base::Base;
use crate::error::BuildError;
use crate::python::{Compiling, Interpreter};

/// Counts versions of how packages are chosen and ordered, and of what is kept; part of every key.
const VERSION: &str = "chosen 1";

/// Resolves the packages of images, parents before their children.
pub(super) struct Resolver<'a> {
    family: &'a Family,
    archives: &'a Archives<'a>,
    /// What each source offers.
    offers: BTreeMap<String, Vec<Offer>>,
    /// What there is to choose from, by the names of sources and by packages that are in none of them.
    universes: BTreeMap<Vec<String>, Rc<Choice>>,
}

/// What the steps of an image lay.
pub(super) struct Resolved {
    pub(super) packages: ByStep<Vec<LockedPackage>>,
    pub(super) compiling: ByStep<Compiling>,
    /// Names everything that the packages of the image, its parent's included, depend on.
    pub(super) key: Digest,
}

/// A choice as the cache keeps it. One that the disk damaged is made again, and not believed.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Names the text.
    digest: Digest,
    /// A [`Kept`].
    text: String,
}

impl Sealed {
    fn new(kept: &Kept) -> Self {
        let text = serde_json::to_string(kept).expect("a choice has only strings, whole numbers and lists");
        Self { digest: Digest::of(text.as_bytes()), text }
    }

    fn open(&self) -> Option<Kept> {
        if Digest::of(self.text.as_bytes()) != self.digest {
            return None;
        }
        serde_json::from_str(&self.text).ok()
    }
}

/// The packages of a step.
#[derive(Serialize, Deserialize)]
struct Kept {
    packages: Vec<KeptPackage>,
    /// The Python that compiles their modules, and the names of the packages that it is made of.
    interpreter: Option<(String, Vec<String>)>,
}

/// A package without the address of its archive, which another machine may have elsewhere.
#[derive(Serialize, Deserialize)]
struct KeptPackage {
    name: String,
    version: String,
    architecture: String,
    /// The place of its archive among the offers.
    offer: usize,
    filename: String,
    size: u64,
    sha256: Digest,
}

/// All packages that an image's sources offer.
struct Choice {
    universe: Universe,
    /// Which offer has a `.deb`.
    offers: HashMap<Digest, usize>,
}

/// What an image stands on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'i> {
    /// The place of its parent.
    pub(super) parent: Option<usize>,
    /// What others made.
    pub(super) base: Option<&'i Base>,
    /// Names all that the packages below depend on.
    pub(super) key: Digest,
}

/// An image to resolve, and those planned before it.
#[derive(Clone, Copy)]
struct Place<'i, 'p> {
    image: &'i Image,
    ground: Ground<'i>,
    planned: &'i [PlannedImage<'p>],
}

impl<'a> Resolver<'a> {
    pub(super) fn new(family: &'a Family, archives: &'a Archives<'a>) -> Self {
        Self { family, archives, offers: BTreeMap::new(), universes: BTreeMap::new() }
    }

    /// Resolves every step of an image; `planned` are the images so far.
    pub(super) fn image(
        &mut self,
        image: &Image,
        ground: Ground<'_>,
        planned: &[PlannedImage<'_>],
    ) -> Result<Resolved, BuildError> {
        let place = Place { image, ground, planned };
        let (packages, compiling) = (ByStep::new(), ByStep::new());
        let mut resolved = Resolved { packages, compiling, key: ground.key };
        for (number, step) in image.steps.iter().enumerate() {
            let Step::Packages(requests) = step else { continue };
            let names = self.sources(image, requests)?;
            resolved.key = self.key(&names, image, requests, resolved.key);
            if !self.recall(&names, place, number, &mut resolved)? {
                self.choose(&names, place, number, &mut resolved)?;
            }
        }
        Ok(resolved)
    }

    /// The names of an image's sources, of which it is known what they offer.
    fn sources(&mut self, image: &Image, requests: &[Located<PackageRequest>]) -> Result<Vec<String>, BuildError> {
        let names: Vec<String> = image.sources.iter().map(|name| name.value.clone()).collect();
        if names.is_empty() {
            let help = "name one under `sources:` of family.yaml, and under `defaults: sources:` or in the image";
            return Err(BuildError::at(&requests[0].span, "packages need a source, and the image has none", help));
        }
        for name in &names {
            if !self.offers.contains_key(name) {
                let source = self.family.source(name).expect("assembling a family checks the names of sources");
                self.offers.insert(name.clone(), self.archives.fetch(source)?);
            }
        }
        Ok(names)
    }

    fn key(&self, names: &[String], image: &Image, requests: &[Located<PackageRequest>], below: Digest) -> Digest {
        let offers = self.offered(names).map(|offer| offer.digest);
        let requests = requests.iter().map(ToString::to_string);
        FramedHasher::new(VERSION)
            .field("below", below.as_bytes())
            .field("architecture", self.archives.architecture)
            .list("offers", offers.collect::<Vec<_>>())
            .list("requests", requests.collect::<Vec<_>>())
            .field("recommends", [u8::from(image.recommends)])
            .field("bytecode", [u8::from(image.bytecode)])
            .finish()
    }

    fn offered(&self, names: &[String]) -> impl Iterator<Item = &Offer> {
        names.iter().flat_map(|name| &self.offers[name])
    }

    /// Takes what was chosen before. Returns whether something was.
    fn recall(
        &self,
        names: &[String],
        place: Place<'_, '_>,
        number: usize,
        resolved: &mut Resolved,
    ) -> Result<bool, BuildError> {
        let sealed = self.archives.cache.get_json::<Sealed>(Area::Indexes, resolved.key)?;
        let Some(kept) = sealed.and_then(|sealed| sealed.open()) else { return Ok(false) };
        let offers: Vec<&Offer> = self.offered(names).collect();
        let packages: Option<Vec<LockedPackage>> =
            kept.packages.into_iter().map(|package| package.locked(&offers)).collect();
        let Some(packages) = packages else { return Ok(false) };
        resolved.packages.insert(number, packages);
        let compiling = match kept.interpreter {
            _ if !place.image.bytecode => Some(Compiling::Never),
            None => Some(Compiling::ByScripts),
            Some((version, names)) => {
                let by_name: HashMap<&str, &LockedPackage> =
                    place.locked(resolved).into_iter().map(|package| (package.name.as_str(), package)).collect();
                let packages: Option<Vec<LockedPackage>> =
                    names.iter().map(|name| by_name.get(name.as_str()).map(|package| (*package).clone())).collect();
                packages.map(|packages| Compiling::Once(Interpreter { version, packages }))
            }
        };
        let known = compiling.is_some();
        resolved.compiling.extend(compiling.map(|compiling| (number, compiling)));
        Ok(known)
    }

    /// Chooses, and keeps what was chosen.
    fn choose(
        &mut self,
        names: &[String],
        place: Place<'_, '_>,
        number: usize,
        resolved: &mut Resolved,
    ) -> Result<(), BuildError> {
        let Step::Packages(requests) = &place.image.steps[number] else { return Ok(()) };
        resolved.packages.remove(&number);
        let mut present = self.present(place, resolved)?;
        let choice = self.choice(names, &present)?;
        let new = resolve(self.family, &choice.universe, place.image, requests, &present)?;
        let offers: Vec<&Offer> = self.offered(names).collect();
        let kept: Vec<KeptPackage> = new.iter().map(|id| choice.kept(*id)).collect();
        let locked = kept.iter().map(|package| package.locked(&offers));
        let locked: Option<Vec<LockedPackage>> = locked.collect();
        resolved.packages.insert(number, locked.expect("file names of an index are checked when it is read"));
        present.extend(new.iter().map(|id| choice.universe.package(*id).clone()));
        let known = place.locked(resolved);
        let interpreter = place.image.bytecode.then(|| Interpreter::among(&present, &known)).flatten();
        let named = |interpreter: &Interpreter| {
            let names = interpreter.packages.iter().map(|package| package.name.clone()).collect();
            (interpreter.version.clone(), names)
        };
        let kept = Kept { packages: kept, interpreter: interpreter.as_ref().map(named) };
        self.archives.cache.put_json(Area::Indexes, resolved.key, &Sealed::new(&kept))?;
        let compiling = if place.image.bytecode { Compiling::by(interpreter) } else { Compiling::Never };
        resolved.compiling.insert(number, compiling);
        Ok(())
    }

    /// What an image has so far, in the order in which it was laid.
    fn present(&mut self, place: Place<'_, '_>, resolved: &Resolved) -> Result<Vec<Package>, BuildError> {
        let ancestors = place.ancestors();
        let base = ancestors.first().map_or(place.ground.base, |root| root.base.as_deref());
        let mut present = base.and_then(|base| base.packages.clone()).unwrap_or_default();
        for planned in ancestors {
            self.found(planned.image, planned.packages.values().flatten(), &mut present)?;
        }
        self.found(place.image, resolved.packages.values().flatten(), &mut present)?;
        Ok(present)
    }

    /// Adds what the indexes say of packages that were chosen from an image's sources.
    fn found<'l>(
        &mut self,
        image: &Image,
        packages: impl Iterator<Item = &'l LockedPackage>,
        present: &mut Vec<Package>,
    ) -> Result<(), BuildError> {
        let mut packages = packages.peekable();
        if packages.peek().is_none() {
            return Ok(());
        }
        let names: Vec<String> = image.sources.iter().map(|name| name.value.clone()).collect();
        let choice = self.choice(&names, &[])?;
        let universe = &choice.universe;
        for package in packages {
            let version = package.version.parse().map_err(|error: debian::VersionError| BuildError::Package {
                package: package.label(),
                source: error.into(),
            })?;
            let id = universe.find(&package.name, &version).expect("it was chosen from the same indexes");
            present.push(universe.package(id).clone());
        }
        Ok(())
    }

    /// All that some sources offer, and those of the present packages that are in none of them.
    fn choice(&mut self, names: &[String], present: &[Package]) -> Result<Rc<Choice>, BuildError> {
        if !self.universes.contains_key(names) {
            let choice = self.universe(names, &[])?;
            self.universes.insert(names.to_vec(), Rc::new(choice));
        }
        let known = &self.universes[names].universe;
        let missing = present.iter().filter(|package| known.find(package.name(), package.version()).is_none());
        let foreign: Vec<Package> = missing.cloned().collect();
        if foreign.is_empty() {
            return Ok(Rc::clone(&self.universes[names]));
        }
        // The parent has packages from sources that this image does not use: they stay, but offer no choice.
        let versions = foreign.iter().map(|package| format!("{}={}", package.name(), package.version()));
        let key = [names.to_vec(), versions.collect()].concat();
        if !self.universes.contains_key(&key) {
            let choice = self.universe(names, &foreign)?;
            self.universes.insert(key.clone(), Rc::new(choice));
        }
        Ok(Rc::clone(&self.universes[&key]))
    }

    fn universe(&self, names: &[String], foreign: &[Package]) -> Result<Choice, BuildError> {
        let mut offers = HashMap::new();
        let mut indexes = Vec::new();
        for name in names {
            let source = self.family.source(name).expect("assembling a family checks the names of sources");
            for offer in &self.offers[name] {
                let packages = self.archives.packages(source, offer)?;
                let number = indexes.len();
                for digest in packages.iter().filter_map(|package| package.download().map(|found| found.sha256)) {
                    offers.entry(digest).or_insert(number);
                }
                indexes.push(packages);
            }
        }
        indexes.push(foreign.to_vec());
        Ok(Choice { universe: Universe::new(self.archives.architecture, indexes)?, offers })
    }
}

impl<'i> Place<'i, '_> {
    /// The image's parent and all that is below, the lowest first.
    fn ancestors(&self) -> Vec<&'i PlannedImage<'i>> {
        let chain = std::iter::successors(self.ground.parent, |place| self.planned[*place].parent);
        let mut ancestors: Vec<&PlannedImage<'_>> = chain.map(|place| &self.planned[place]).collect();
        ancestors.reverse();
        ancestors
    }

    /// The packages of the image so far, and of all that is below it.
    fn locked<'l>(&self, resolved: &'l Resolved) -> Vec<&'l LockedPackage>
    where
        'i: 'l,
    {
        let below = self.ancestors().into_iter().flat_map(|planned| planned.packages.values().flatten());
        below.chain(resolved.packages.values().flatten()).collect()
    }
}

impl KeptPackage {
    /// The package where its archive is now; nothing if the record is not of these offers.
    fn locked(&self, offers: &[&Offer]) -> Option<LockedPackage> {
        let url: Url = offers.get(self.offer)?.url.join(&self.filename).ok()?;
        Some(LockedPackage {
            name: self.name.clone(),
            version: self.version.clone(),
            architecture: self.architecture.clone(),
            url,
            size: self.size,
            sha256: self.sha256,
        })
    }
}

impl Choice {
    fn kept(&self, id: PackageId) -> KeptPackage {
        let package = self.universe.package(id);
        let download = package.download().expect("only packages of an index are chosen");
        KeptPackage {
            name: package.name().to_owned(),
            version: package.version().to_string(),
            architecture: package.architecture().to_owned(),
            offer: *self.offers.get(&download.sha256).expect("every package of an index is offered"),
            filename: download.filename.to_owned(),
            size: download.size,
            sha256: download.sha256,
        }
    }
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
