//! What a family means today: for every image the exact packages, by digest, in the order in which they are laid.
//! Building a plan makes no more decisions.

mod resolver;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use content::{Digest, FramedHasher};
use oci::Platform;
use spec::{AptSource, Diagnostic, Family, FileContent, FileEntry, Image, ImageName, Parent, Step, Trust};
use url::Url;

use self::resolver::{Ground, Resolved, Resolver};
use crate::apt::archive::Archives;
use crate::base::{Base, Bases, Reach};
use crate::entrypoint::refuse_unexecutable;
use crate::error::BuildError;
use crate::fetch::STAND_IN;
use crate::python::Compiling;
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
        let mut resolver = Resolver::new(family, archives);
        let mut images: Vec<PlannedImage<'a>> = Vec::new();
        let mut places: HashMap<&ImageName, usize> = HashMap::new();
        let mut keys: Vec<Digest> = Vec::new();
        for image in &family.images {
            let wanted = chosen.contains(image.name.as_str());
            if wanted {
                refuse_what_is_missing(image)?;
                refuse_unexecutable(image, archives.family)?;
            }
            let (parent, base) = match &image.from.value {
                Parent::Sibling(name) => {
                    let Some(parent) = places.get(name) else { continue };
                    (Some(*parent), None)
                }
                Parent::Scratch => (None, None),
                // What a Dockerfile is built on is found when it is built: its stages have more than one.
                Parent::External(_) if image.dockerfile.is_some() => (None, None),
                Parent::External(name) => match bases.find(name, &platform(), reach(wanted)) {
                    Err(_) if !wanted => continue,
                    found => (None, Some(found.map_err(|error| BuildError::from(error).located(&image.from.span))?)),
                },
            };
            let needs: Option<Vec<usize>> = image.needs.iter().map(|name| places.get(&name.value).copied()).collect();
            let Some(needs) = needs else { continue };
            refuse_packages_on_a_dockerfile(image, parent.map(|parent| images[parent].image))?;
            let below = match (parent, &base) {
                (Some(parent), _) => keys[parent],
                (None, Some(base)) => {
                    refuse_unknown_packages(base, image)?;
                    base.key()
                }
                (None, None) => FramedHasher::new("nothing").finish(),
            };
            let on = Ground { parent, base: base.as_deref(), key: below };
            let Resolved { packages, compiling, key } = match resolver.image(image, on, &images) {
                Err(_) if !wanted => continue,
                resolved => resolved?,
            };
            places.insert(&image.name.value, images.len());
            images.push(PlannedImage { image, parent, needs, base, wanted, packages, compiling });
            keys.push(key);
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

/// An error if an image installs packages on a base that keeps no list of its own.
fn refuse_unknown_packages(base: &Base, image: &Image) -> Result<(), BuildError> {
    let has_list = base.packages.as_ref().is_some_and(|packages| !packages.is_empty());
    let Some(request) = image.packages().next().filter(|_| !has_list) else { return Ok(()) };
    let title = format!("`{}` has no dpkg, so packages cannot be installed on it", base.written);
    let diagnostic = Diagnostic::new(request.span.clone(), title).label("asked for here");
    let help = "build on an image of Debian or on `scratch`, or copy the files in with `files:`";
    Err(BuildError::Spec(diagnostic.help(help).related(image.from.span.clone(), "the base").into()))
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

/// Whether a family names stand-ins, as an archive or as a file.
pub fn uses_stand_ins(family: &Family) -> bool {
    let is_stand_in = |url: &str| url.strip_prefix(STAND_IN).is_some_and(|rest| rest.starts_with("://"));
    let in_file = |file: &FileEntry| matches!(&file.content, FileContent::Url { url, .. } if is_stand_in(url));
    family.sources.iter().any(|source| source.url.as_ref().is_some_and(|url| is_stand_in(url)))
        || family.images.iter().any(|image| image.files().any(in_file))
}
