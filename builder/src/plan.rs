//! What a family means today: for every image the exact packages, by digest, in the order in which they are laid.
//! Building a plan makes no more decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use content::Digest;
use debian::package::Package;
use layer::compress::Compression;
use oci::Platform;
use spec::lock::{LockedDeb, LockedImage, LockedSource};
use spec::{AptSource, Diagnostic, Family, FileContent, FileEntry, Image, Parent, Step, Trust};
use url::Url;

use crate::apt::archive::{Archives, locked_digest};
use crate::base::{Base, Bases, Reach};
use crate::dockerfile::bases;
use crate::entrypoint::refuse_unexecutable;
use crate::error::BuildError;
use crate::fetch::STAND_IN;
use crate::lock::{self, Fit};
use crate::missing::Missing;
use crate::package::segment::Segment;
use crate::platform::is_for;
use crate::python::Compiling;
use crate::resolve::Resolver;
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
    /// Where it comes from.
    pub origin: Origin,
    /// Where the `.deb` may be, the likeliest place first; nowhere if no mirror is known.
    pub urls: Vec<Url>,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// The digest of the `.deb`.
    pub sha256: Digest,
}

/// Where a package comes from, whatever mirror that is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name of the source in the family.
    pub source: String,
    /// The suite, or the directory of a flat archive.
    pub suite: String,
    /// The path below the archive's root.
    pub path: String,
}

impl LockedPackage {
    /// As a lock has it.
    pub fn to_lock(&self) -> LockedDeb {
        let Origin { source, suite, path } = self.origin.clone();
        LockedDeb {
            name: self.name.clone(),
            version: self.version.clone(),
            architecture: self.architecture.clone(),
            source,
            suite,
            path,
            size: self.size,
            sha256: locked_digest(self.sha256),
        }
    }

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
    /// The family.
    pub family: &'a Family,
    /// The platform that its images are built for here.
    pub platform: Platform,
    /// The images of that platform; those of the family that cannot be resolved and are not wanted are not among them.
    pub images: Vec<PlannedImage<'a>>,
    /// Those that are not.
    pub left_out: Vec<&'a Image>,
    /// What the archives said that had to be asked, by the name of the source.
    pub sources: BTreeMap<String, LockedSource>,
    /// Sources that nobody vouches for.
    pub unsigned_sources: Vec<String>,
    /// Sources whose packages stand in for the real ones.
    pub stand_ins: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Resolves the packages of all images, or takes what the lock says of them. `wanted` gets a name and says whether it
    /// is to be built; what it is built on comes along. Images that are not to be built and cannot be resolved are left
    /// out, with all that is built on them; if nothing has to be resolved for those that are to be built, no other image
    /// is resolved either.
    pub fn make(
        family: &'a Family,
        wanted: &dyn Fn(&str) -> bool,
        archives: &Archives<'_>,
        bases: &Bases<'_>,
        fit: &Fit<'_>,
    ) -> Result<Self, BuildError> {
        refuse_priorities(family)?;
        let platform = fit.platform().clone();
        let is_for = |image: &Image| is_for(image, &platform);
        let chosen = with_parents(family, &|image| is_for(image) && wanted(image.name.as_str()));
        let is_missing = |image: &&Image| chosen.contains(image.name.as_str()) && fit.image(image).is_none();
        let mut planner = Planner {
            resolver: Resolver::new(family, archives, fit.pins()),
            archives,
            bases,
            fit,
            resolves: family.images.iter().any(|image| is_missing(&image)),
            installed: Vec::new(),
        };
        let mut images: Vec<PlannedImage<'a>> = Vec::new();
        let (mut left_out, mut absent) = (Vec::new(), Vec::new());
        for image in family.images.iter().filter(|image| is_for(image) || chosen.contains(image.name.as_str())) {
            let wanted = chosen.contains(image.name.as_str());
            if wanted {
                refuse_what_is_missing(image)?;
                refuse_other_platforms(image, &platform)?;
                refuse_unexecutable(image, archives.family)?;
            }
            match planner.image(image, wanted, &images) {
                Ok(Some(planned)) => images.push(planned),
                Err(error) if wanted && archives.fetcher.is_offline() && error.absent_base().is_some() => {
                    absent.extend(error.absent_base().map(str::to_owned));
                }
                Err(error) if wanted => return Err(error),
                Ok(None) | Err(_) => left_out.push(image),
            }
        }
        if !absent.is_empty() {
            let images = family.images.iter().filter(|image| chosen.contains(image.name.as_str()));
            planner.refuse_absent(&absent, family, images)?;
        }
        let unsigned = |source: &&AptSource| matches!(source.trust, Trust::Unsigned(_));
        let used: BTreeSet<&str> = chosen_sources(&images);
        let unsigned_sources = family.sources.iter().filter(unsigned).map(|source| source.name.value.clone());
        let unsigned_sources = unsigned_sources.filter(|name| used.contains(name.as_str())).collect();
        let stands_in = |source: &&AptSource| {
            used.contains(source.name.as_str()) && source.url.as_ref().is_some_and(|url| url.starts_with("stand-in:"))
        };
        let stand_ins = family.sources.iter().filter(stands_in).map(|source| source.name.value.clone()).collect();
        let sources = planner.resolver.into_sources();
        Ok(Self { family, platform, images, left_out, sources, unsigned_sources, stand_ins })
    }
}

/// Plans images one after the other, parents before their children.
struct Planner<'f, 'r> {
    resolver: Resolver<'r>,
    archives: &'f Archives<'f>,
    bases: &'f Bases<'f>,
    fit: &'f Fit<'f>,
    /// Whether anything has to be resolved.
    resolves: bool,
    /// What is known of each planned image: nothing as long as nobody asked what its packages need.
    installed: Vec<Installed>,
}

struct Installed {
    /// Whether its packages, and its parents', are those of the lock.
    locked: bool,
    described: Option<Vec<Package>>,
}

impl Planner<'_, '_> {
    /// One image; none if its parent is not there, or if it is not wanted and would have to be resolved for nothing.
    fn image<'a>(
        &mut self,
        image: &'a Image,
        wanted: bool,
        images: &[PlannedImage<'a>],
    ) -> Result<Option<PlannedImage<'a>>, BuildError> {
        let (parent, base) = match &image.from.value {
            Parent::Sibling(name) => match images.iter().position(|planned| planned.image.name.value == *name) {
                None => return Ok(None),
                parent => (parent, None),
            },
            Parent::Scratch => (None, None),
            // What a Dockerfile is built on is found when it is built: its stages have more than one.
            Parent::External(_) if image.dockerfile.is_some() => (None, None),
            Parent::External(name) => {
                let found = self.bases.find(name, self.fit.platform(), reach(wanted));
                (None, Some(found.map_err(|error| BuildError::from(error).located(&image.from.span))?))
            }
        };
        let place_of = |name: &str| images.iter().position(|planned| planned.image.name.as_str() == name);
        let needs: Option<Vec<usize>> = image.needs.iter().map(|name| place_of(name.as_str())).collect();
        let Some(needs) = needs else { return Ok(None) };
        refuse_packages_on_a_dockerfile(image, parent.map(|parent| images[parent].image))?;
        let below: Vec<LockedPackage> = ancestors(images, parent).into_iter().cloned().collect();
        let is_as_locked = parent.is_none_or(|parent| self.installed[parent].locked)
            && base.as_ref().is_none_or(|base| self.fit.has_base(base));
        let known = self.fit.image(image).filter(|_| is_as_locked);
        if let Some(known) = known
            && let Some((packages, compiling)) = self.locked(image, known, &below)?
        {
            self.installed.push(Installed { locked: true, described: None });
            return Ok(Some(PlannedImage { image, parent, needs, base, wanted, packages, compiling }));
        }
        if !self.resolves && !wanted {
            return Ok(None);
        }
        let mut present = match (parent, &base) {
            (Some(parent), _) => self.described(parent, images)?,
            (None, Some(base)) => {
                refuse_unknown_packages(base, image)?;
                base.packages.clone().unwrap_or_default()
            }
            (None, None) => Vec::new(),
        };
        let (packages, compiling) = self.resolver.image(image, &mut present, &below)?;
        let locked = known.is_some_and(|known| {
            let found: Vec<LockedDeb> = packages.values().flatten().map(LockedPackage::to_lock).collect();
            known.packages().eq(&found)
        });
        self.installed.push(Installed { locked, described: Some(present) });
        Ok(Some(PlannedImage { image, parent, needs, base, wanted, packages, compiling }))
    }

    /// Fails because images that others made are not here, and nobody may be asked. Names with them all else that the cache
    /// lacks of what the lock says of these images: without what they are built on it cannot be said which of their steps
    /// need nothing of it.
    fn refuse_absent<'a>(
        &self,
        absent: &[String],
        family: &Family,
        images: impl Iterator<Item = &'a Image>,
    ) -> Result<(), BuildError> {
        const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];
        let Archives { cache, fetcher, .. } = *self.archives;
        let mut missing = Missing::new(cache, fetcher);
        for name in absent {
            missing.base(name, self.fit.platform(), self.bases);
        }
        let pinned = self.fit.files();
        for image in images {
            for (_, _, needed) in bases::of_image(image, family, self.fit.platform())? {
                missing.base_unless_here(&needed.name, &needed.platform, self.bases);
            }
            for deb in self.fit.image(image).into_iter().flat_map(LockedImage::packages) {
                let package = self.resolver.locked(deb)?;
                missing.package(&package, || BOTH.iter().any(|kind| Segment::is_kept(cache, &package, *kind)));
            }
            missing.files(image.files(), &pinned);
        }
        missing.refuse()
    }

    /// What the lock says of an image.
    #[expect(clippy::type_complexity, reason = "two lists by step, as everywhere here")]
    fn locked(
        &self,
        image: &Image,
        locked: &LockedImage,
        below: &[LockedPackage],
    ) -> Result<Option<(ByStep<Vec<LockedPackage>>, ByStep<Compiling>)>, BuildError> {
        let (mut packages, mut compiling) = (ByStep::new(), ByStep::new());
        let is_packages = |(_, step): &(usize, &Step)| matches!(step, Step::Packages(_));
        for ((place, _), step) in image.steps.iter().enumerate().filter(is_packages).zip(&locked.steps) {
            let new = step.packages.iter().map(|deb| self.resolver.locked(deb)).collect::<Result<Vec<_>, _>>()?;
            packages.insert(place, new);
            let known: Vec<&LockedPackage> = below.iter().chain(packages.values().flatten()).collect();
            let Some(found) = lock::compiling(step, &known) else { return Ok(None) };
            compiling.insert(place, found);
        }
        Ok(Some((packages, compiling)))
    }

    /// What an image's packages say of themselves, its parents' included.
    fn described(&mut self, place: usize, images: &[PlannedImage<'_>]) -> Result<Vec<Package>, BuildError> {
        if let Some(known) = &self.installed[place].described {
            return Ok(known.clone());
        }
        let planned = &images[place];
        let mut packages = match (planned.parent, &planned.base) {
            (Some(parent), _) => self.described(parent, images)?,
            (None, Some(base)) => base.packages.clone().unwrap_or_default(),
            (None, None) => Vec::new(),
        };
        for package in planned.packages.values().flatten() {
            packages.push(self.resolver.describe(package)?);
        }
        self.installed[place].described = Some(packages.clone());
        Ok(packages)
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

/// Images that are not to be built are worth no pull.
fn reach(wanted: bool) -> Reach {
    if wanted { Reach::Anywhere } else { Reach::Local }
}

/// An error if an image installs packages on a base that keeps no list of its own.
fn refuse_unknown_packages(base: &Base, image: &Image) -> Result<(), BuildError> {
    let has_list = base.packages.as_ref().is_some_and(|packages| !packages.is_empty());
    let Some(request) = image.packages().next().filter(|_| !has_list) else { return Ok(()) };
    let title = format!("`{}` has no dpkg, so packages cannot be installed on it", base.written);
    let diagnostic = Diagnostic::new(request.span.clone(), title).label("asked for here");
    let help = "build on an image of Debian or on `scratch`, or copy the files in with `files:`";
    Err(BuildError::Spec(diagnostic.help(help).related(image.from.span.clone(), "the base").into()))
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
fn with_parents<'a>(family: &'a Family, wanted: &dyn Fn(&Image) -> bool) -> BTreeSet<&'a str> {
    let mut chosen = BTreeSet::new();
    for image in family.images.iter().filter(|image| wanted(image)) {
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
    Ok(())
}

/// An error if an image that another one of this platform is built on is not for it.
fn refuse_other_platforms(image: &Image, platform: &Platform) -> Result<(), BuildError> {
    match image.platforms.first() {
        Some(first) if !is_for(image, platform) => {
            let title = format!("{} is not for {platform}, and what is built on it is", image.name);
            Err(BuildError::at(&first.span, title, format!("add {platform} to its `platforms`")))
        }
        _ => Ok(()),
    }
}

/// Whether a family names stand-ins, as an archive or as a file.
pub fn uses_stand_ins(family: &Family) -> bool {
    let is_stand_in = |url: &str| url.strip_prefix(STAND_IN).is_some_and(|rest| rest.starts_with("://"));
    let in_file = |file: &FileEntry| matches!(&file.content, FileContent::Url { url, .. } if is_stand_in(url));
    family.sources.iter().any(|source| source.url.as_ref().is_some_and(|url| is_stand_in(url)))
        || family.images.iter().any(|image| image.files().any(in_file))
}
