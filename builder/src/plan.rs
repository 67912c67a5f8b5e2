//! What a family means today: for every image the exact packages, by digest, in the order in which they are laid.
//! Building a plan makes no more decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use content::Digest;
use debian::order::unpack_order;
use debian::package::Package;
use debian::solver::{PackageId, Request, Universe};
use oci::Platform;
use spec::{
    AptSource, Diagnostic, Family, FileContent, FileEntry, Image, Located, PackageRequest, Parent, Span, Step, Trust,
};
use url::Url;

use crate::apt::archive::{Archives, Offer};
use crate::base::{Base, Bases, Reach};
use crate::entrypoint::refuse_unexecutable;
use crate::error::BuildError;
use crate::fetch::STAND_IN;
use crate::python::{Compiling, Interpreter};
use crate::steps::mounts;

/// The priority of a source that says nothing, as for apt.
const USUAL_PRIORITY: i32 = 500;

/// A package by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Where the `.deb` is.
    pub url: Url,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// The digest of the `.deb`.
    pub sha256: Digest,
}

impl LockedPackage {
    /// `name=version`, as people and metadata files write it.
    pub fn label(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// Something for each step of an image that installs packages, by the step's place in the spec.
pub type ByStep<T> = BTreeMap<usize, T>;

/// An image of a plan.
#[derive(Debug)]
pub struct PlannedImage<'a> {
    /// Its spec.
    pub image: &'a Image,
    /// Its parent's place in the plan.
    pub parent: Option<usize>,
    /// Further images of the family, by their places in the plan, that its Dockerfile needs.
    pub needs: Vec<usize>,
    /// What it is built on, if others made that.
    pub base: Option<Arc<Base>>,
    /// Whether it is to be built. The others are there because layers are cut across the whole family, so that an image
    /// has the same ones whatever is built with it.
    pub wanted: bool,
    /// New packages for each step that installs some, keyed by the step's place in the spec.
    pub packages: ByStep<Vec<LockedPackage>>,
    /// What becomes of the Python modules in them, for each of these steps.
    pub compiling: ByStep<Compiling>,
}

/// A family with every package named by digest; parents come before their children.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The images; those of the family that cannot be resolved and are not wanted are not among them.
    pub images: Vec<PlannedImage<'a>>,
    /// Sources that nobody vouches for.
    pub unsigned_sources: Vec<String>,
    /// Sources whose packages stand in for the real ones.
    pub stand_ins: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Resolves the packages of all images. `wanted` gets a name and says whether it is to be built; what it is built on
    /// comes along. Images that are not to be built and cannot be resolved are left out, with all that is built on them.
    pub fn make(
        family: &'a Family,
        wanted: &dyn Fn(&str) -> bool,
        archives: &Archives<'_>,
        bases: &Bases<'_>,
    ) -> Result<Self, BuildError> {
        refuse_priorities(family)?;
        let chosen = with_parents(family, wanted);
        let mut resolver = Resolver { family, archives, offers: BTreeMap::new(), universes: BTreeMap::new() };
        let mut images: Vec<PlannedImage<'a>> = Vec::new();
        let mut installed: Vec<Vec<Package>> = Vec::new();
        for image in &family.images {
            let wanted = chosen.contains(image.name.as_str());
            if wanted {
                refuse_what_is_missing(image)?;
                refuse_unexecutable(image, archives.family)?;
            }
            let (parent, base) = match &image.from.value {
                Parent::Sibling(name) => {
                    let Some(parent) = images.iter().position(|planned| planned.image.name.value == *name) else {
                        continue;
                    };
                    (Some(parent), None)
                }
                Parent::Scratch => (None, None),
                // What a Dockerfile is built on is found when it is built: its stages have more than one.
                Parent::External(_) if image.dockerfile.is_some() => (None, None),
                Parent::External(name) => match bases.find(name, &platform(), reach(wanted)) {
                    Err(_) if !wanted => continue,
                    found => (None, Some(found.map_err(|error| BuildError::from(error).located(&image.from.span))?)),
                },
            };
            let place_of = |name: &str| images.iter().position(|planned| planned.image.name.as_str() == name);
            let needs: Option<Vec<usize>> = image.needs.iter().map(|name| place_of(name.as_str())).collect();
            let Some(needs) = needs else { continue };
            refuse_packages_on_a_dockerfile(image, parent.map(|parent| images[parent].image))?;
            let mut present = match (parent, &base) {
                (Some(parent), _) => installed[parent].clone(),
                (None, Some(base)) => present_in(base, image)?,
                (None, None) => Vec::new(),
            };
            let ancestors = ancestors(&images, parent);
            let (packages, compiling) = match resolver.image(image, &mut present, ancestors) {
                Err(_) if !wanted => continue,
                resolved => resolved?,
            };
            images.push(PlannedImage { image, parent, needs, base, wanted, packages, compiling });
            installed.push(present);
        }
        let unsigned = |source: &&AptSource| matches!(source.trust, Trust::Unsigned(_));
        let used: BTreeSet<&str> = chosen_sources(&images);
        let unsigned_sources = family.sources.iter().filter(unsigned).map(|source| source.name.value.clone());
        let unsigned_sources = unsigned_sources.filter(|name| used.contains(name.as_str())).collect();
        let stands_in = |source: &&AptSource| {
            used.contains(source.name.as_str()) && source.url.as_ref().is_some_and(|url| url.starts_with("stand-in:"))
        };
        let stand_ins = family.sources.iter().filter(stands_in).map(|source| source.name.value.clone()).collect();
        Ok(Self { images, unsigned_sources, stand_ins })
    }
}

/// Which packages a Dockerfile installs is not known before it is built, so nothing can be planned on it.
fn refuse_packages_on_a_dockerfile(image: &Image, parent: Option<&Image>) -> Result<(), BuildError> {
    match (image.packages().next(), parent.filter(|parent| parent.dockerfile.is_some())) {
        (Some(request), Some(parent)) => {
            let title = format!(
                "{parent} is built from a Dockerfile, so packages cannot be installed on it",
                parent = parent.name
            );
            Err(BuildError::at(&request.span, title, "install them in the Dockerfile, or build this image on another"))
        }
        _ => Ok(()),
    }
}

/// What images are built for.
fn platform() -> Platform {
    Platform::linux("amd64")
}

/// Images that are not to be built are worth no pull.
fn reach(wanted: bool) -> Reach {
    if wanted { Reach::Anywhere } else { Reach::Local }
}

/// The packages that a base has; an error if the image installs some and the base keeps no list of them.
fn present_in(base: &Base, image: &Image) -> Result<Vec<Package>, BuildError> {
    match (&base.packages, image.packages().next()) {
        (Some(packages), _) if !packages.is_empty() => Ok(packages.clone()),
        (_, None) => Ok(Vec::new()),
        (_, Some(request)) => {
            let title = format!("`{}` has no dpkg, so packages cannot be installed on it", base.written);
            let diagnostic = Diagnostic::new(request.span.clone(), title).label("asked for here");
            let help = "build on an image of Debian or on `scratch`, or copy the files in with `files:`";
            Err(BuildError::Spec(diagnostic.help(help).related(image.from.span.clone(), "the base").into()))
        }
    }
}

/// The packages of an image's parent and of all that is below, by digest.
fn ancestors<'i>(images: &'i [PlannedImage<'_>], parent: Option<usize>) -> Vec<&'i LockedPackage> {
    let chain = std::iter::successors(parent, |place| images[*place].parent);
    chain.flat_map(|place| images[place].packages.values().flatten()).collect()
}

fn chosen_sources<'a>(images: &[PlannedImage<'a>]) -> BTreeSet<&'a str> {
    let with_packages = images.iter().filter(|planned| planned.wanted && !planned.packages.is_empty());
    with_packages.flat_map(|planned| planned.image.sources.iter().map(|name| name.value.as_str())).collect()
}

/// The names of the wanted images and of all they are built on.
fn with_parents<'a>(family: &'a Family, wanted: &dyn Fn(&str) -> bool) -> BTreeSet<&'a str> {
    let mut chosen = BTreeSet::new();
    for image in family.images.iter().filter(|image| wanted(image.name.as_str())) {
        chosen.insert(image.name.as_str());
        chosen.extend(family.ancestors(image).map(|parent| parent.name.as_str()));
    }
    chosen
}

/// The same of one step.
fn refuse_step(step: &Step) -> Result<(), BuildError> {
    match step {
        Step::Packages(_) | Step::Groups(_) | Step::Users(_) | Step::Files(_) => Ok(()),
        Step::Run(command) => mounts::check(command),
    }
}

/// What the language knows of sources and this version cannot do.
fn refuse_priorities(family: &Family) -> Result<(), BuildError> {
    match family.sources.iter().find(|source| source.priority != USUAL_PRIORITY) {
        Some(source) => Err(BuildError::at(&source.span, "`priority`: this version cannot do it yet", "")),
        None => Ok(()),
    }
}

/// What the language knows and this version cannot build.
fn refuse_what_is_missing(image: &Image) -> Result<(), BuildError> {
    let later = "this version cannot do it yet";
    if let Some(pattern) = image.exclude.first() {
        return Err(BuildError::at(&pattern.span, format!("`exclude`: {later}"), ""));
    }
    for step in &image.steps {
        refuse_step(step)?;
    }
    image.on_build.iter().try_for_each(mounts::check)?;
    if let Some(platform) = image.platforms.iter().find(|platform| platform.as_str() != "linux/amd64") {
        return Err(BuildError::at(&platform.span, format!("{platform}: {later}"), "only linux/amd64 is built"));
    }
    Ok(())
}

struct Resolver<'a> {
    family: &'a Family,
    archives: &'a Archives<'a>,
    offers: BTreeMap<String, Vec<Offer>>,
    universes: BTreeMap<Vec<String>, Choice>,
}

/// All packages that an image's sources offer.
struct Choice {
    universe: Universe,
    /// Which archive has a `.deb`.
    archives: HashMap<Digest, Url>,
}

impl Resolver<'_> {
    /// Resolves every step of an image; `present` are the packages it has so far, and `ancestors` the same by digest.
    fn image(
        &mut self,
        image: &Image,
        present: &mut Vec<Package>,
        ancestors: Vec<&LockedPackage>,
    ) -> Result<(ByStep<Vec<LockedPackage>>, ByStep<Compiling>), BuildError> {
        let family = self.family;
        let (mut locked, mut compiling) = (ByStep::new(), ByStep::new());
        for (place, step) in image.steps.iter().enumerate() {
            let Step::Packages(requests) = step else { continue };
            let choice = self.choice(image, present, requests)?;
            let new = resolve(family, &choice.universe, image, requests, present)?;
            locked.insert(place, new.iter().map(|id| choice.lock(*id)).collect());
            present.extend(new.iter().map(|id| choice.universe.package(*id).clone()));
            let known: Vec<&LockedPackage> = ancestors.iter().copied().chain(locked.values().flatten()).collect();
            let interpreter = image.bytecode.then(|| Interpreter::among(present, &known));
            compiling.insert(place, interpreter.map_or(Compiling::Never, Compiling::by));
        }
        Ok((locked, compiling))
    }

    fn choice(
        &mut self,
        image: &Image,
        present: &[Package],
        requests: &[Located<PackageRequest>],
    ) -> Result<&Choice, BuildError> {
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
        if !self.universes.contains_key(&names) {
            let offers = names.iter().flat_map(|name| &self.offers[name]);
            let choice = Choice::new(self.archives.architecture, offers, &[])?;
            self.universes.insert(names.clone(), choice);
        }
        let known = &self.universes[&names].universe;
        let missing = present.iter().filter(|package| known.find(package.name(), package.version()).is_none());
        let foreign: Vec<Package> = missing.cloned().collect();
        if !foreign.is_empty() {
            // The parent has packages from sources that this image does not use: they stay, but offer no choice.
            let offers = names.iter().flat_map(|name| &self.offers[name]);
            let choice = Choice::new(self.archives.architecture, offers, &foreign)?;
            let versions = foreign.iter().map(|package| format!("{}={}", package.name(), package.version()));
            let key = [names.clone(), versions.collect()].concat();
            return Ok(self.universes.entry(key).or_insert(choice));
        }
        Ok(&self.universes[&names])
    }
}

impl Choice {
    fn new<'o>(
        architecture: &str,
        offers: impl Iterator<Item = &'o Offer> + Clone,
        foreign: &[Package],
    ) -> Result<Self, BuildError> {
        let mut archives = HashMap::new();
        for offer in offers.clone() {
            for digest in offer.packages.iter().filter_map(|package| package.download().map(|found| found.sha256)) {
                archives.entry(digest).or_insert_with(|| offer.url.clone());
            }
        }
        let mut indexes: Vec<Vec<Package>> = offers.map(|offer| offer.packages.clone()).collect();
        indexes.push(foreign.to_vec());
        Ok(Self { universe: Universe::new(architecture, indexes)?, archives })
    }

    fn lock(&self, id: PackageId) -> LockedPackage {
        let package = self.universe.package(id);
        let download = package.download().expect("only packages of an index are chosen");
        let archive = self.archives.get(&download.sha256).expect("every package of an index has an archive");
        LockedPackage {
            name: package.name().to_owned(),
            version: package.version().to_string(),
            architecture: package.architecture().to_owned(),
            url: archive.join(download.filename).expect("file names of an index are checked when it is read"),
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

/// Whether a family names stand-ins, as an archive or as a file.
pub fn uses_stand_ins(family: &Family) -> bool {
    let is_stand_in = |url: &str| url.strip_prefix(STAND_IN).is_some_and(|rest| rest.starts_with("://"));
    let in_file = |file: &FileEntry| matches!(&file.content, FileContent::Url { url, .. } if is_stand_in(url));
    family.sources.iter().any(|source| source.url.as_ref().is_some_and(|url| is_stand_in(url)))
        || family.images.iter().any(|image| image.files().any(in_file))
}
