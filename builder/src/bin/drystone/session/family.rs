//! Which family and which images a command line means, and what they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone::apt::mirror::Mirrors;
use drystone::base::{Bases, Puller};
use drystone::bundle::carried::Carried;
use drystone::events::Observer;
use drystone::load::{FAMILY_FILE, IMAGE_FILE, LoadedFamily, load};
use drystone::plan::Plan;
use oci::Reference;
use spec::{Image, Parent, Variables};
use store::{Cache, Layout};

use crate::args::{BuildArgs, MirrorArgs, RegistryArgs};
use crate::destination::{self, Destination};
use crate::failure::Failure;
use crate::pulling::RegistryPuller;

/// Where apt keeps its sources.
pub const HOST_APT: &str = "/etc/apt";

/// Reads the family that names begin with, and checks the patterns that follow.
pub fn load_family(names: &[String], set: &[(String, String)]) -> Result<(LoadedFamily, Vec<String>), Failure> {
    let (family, patterns) = family_and_patterns(names);
    let loaded = load(&family, &variables(set))?;
    if loaded.family.images.is_empty() {
        let text = format!("the family `{}` has no images: no directory in it has an {IMAGE_FILE}", family.display());
        return Err(Failure::Usage(text));
    }
    check_patterns(&loaded, &patterns)?;
    Ok((loaded, patterns))
}

/// Fails if destinations take the files of one image, and more than one is asked for. That is known before it is built.
pub fn must_be_one_image(
    destinations: &[Destination],
    names: &[String],
    set: &[(String, String)],
) -> Result<(), Failure> {
    if !destination::takes_files(destinations) {
        return Ok(());
    }
    let (loaded, patterns) = load_family(names, set)?;
    let asked = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name));
    let images = loaded.family.images.iter().filter(|image| !image.build_only && asked(image.name.as_str()));
    match images.count() {
        0 | 1 => Ok(()),
        several => Err(destination::several_images(several)),
    }
}

/// The first name is a family's directory if it holds a family; otherwise the family is here, and all are patterns.
pub(super) fn family_and_patterns(names: &[String]) -> (PathBuf, Vec<String>) {
    let is_family = |name: &String| {
        let path = Path::new(name);
        path.join(FAMILY_FILE).is_file() || path.file_name().is_some_and(|file| file == FAMILY_FILE)
    };
    let here = Path::new(FAMILY_FILE).is_file();
    match names.split_first() {
        // Without a family here, the first name must have meant one: the error is then about that directory.
        Some((first, rest)) if is_family(first) || !here => (first.into(), rest.to_vec()),
        _ => (PathBuf::from("."), names.to_vec()),
    }
}

fn check_patterns(loaded: &LoadedFamily, patterns: &[String]) -> Result<(), Failure> {
    let names: BTreeSet<&str> = loaded.family.images.iter().map(|image| image.name.as_str()).collect();
    match patterns.iter().find(|pattern| !names.iter().any(|name| matches(pattern, name))) {
        None => Ok(()),
        Some(pattern) => {
            let known = names.into_iter().collect::<Vec<_>>().join(", ");
            Err(Failure::Usage(format!("no image of the family is called `{pattern}`; there are: {known}")))
        }
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text and `?` for one character.
pub fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            matches(rest, name) || name.chars().next().is_some_and(|first| matches(pattern, &name[first.len_utf8()..]))
        }
        (Some('?'), Some(first)) => matches(&pattern[1..], &name[first.len_utf8()..]),
        (Some(wanted), Some(found)) if wanted == found => {
            matches(&pattern[wanted.len_utf8()..], &name[found.len_utf8()..])
        }
        _ => false,
    }
}

/// The tag that a command line gives a family.
pub fn family_tag(arguments: &BuildArgs) -> Result<Option<spec::Tag>, Failure> {
    match arguments.tag.as_slice() {
        [] => Ok(None),
        [tag] => tag.parse().map(Some).map_err(|error: spec::Invalid| {
            Failure::Usage(format!("`{tag}` cannot be the tag of a family: {}", error.title))
        }),
        _ => Err(Failure::Usage("a family has one tag: give --tag once".to_owned())),
    }
}

/// The full name of every image of plans.
pub fn references(
    plans: &[Plan<'_>],
    registry: &str,
    tag: Option<&spec::Tag>,
) -> Result<BTreeMap<String, Reference>, Failure> {
    let name = |image: &Image| {
        let text = format!("{registry}/{}:{}", image.name, tag.unwrap_or(&image.tag.value));
        let reference = text.parse::<Reference>();
        let reference = reference.map_err(|error| Failure::Usage(format!("`{text}` cannot name an image: {error}")))?;
        Ok((image.name.to_string(), reference))
    };
    plans.iter().flat_map(|plan| &plan.images).map(|planned| name(planned.image)).collect()
}

/// Variables for specs: those of the command line, then those of the environment.
pub fn variables(set: &[(String, String)]) -> Variables {
    let mut variables = Variables::new();
    for (name, value) in set {
        variables.set(name, value);
    }
    for (name, value) in std::env::vars_os() {
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            variables.set_default(name, value);
        }
    }
    variables
}

/// Whether images are built on what others made.
pub(super) fn has_bases(loaded: &LoadedFamily) -> bool {
    loaded
        .family
        .images
        .iter()
        .any(|image| image.dockerfile.is_some() || matches!(image.from.value, Parent::External(_)))
}

/// Who pulls what the family's images are built on, if anything has to be and may be.
pub fn puller(
    loaded: &LoadedFamily,
    registry: &RegistryArgs,
    layout: &Arc<Layout>,
    observer: &Arc<dyn Observer>,
    offline: bool,
) -> Result<Option<RegistryPuller>, Failure> {
    let make = || RegistryPuller::new(registry, Arc::clone(layout), Arc::clone(observer));
    (has_bases(loaded) && !offline).then(make).transpose()
}

/// Finds what the family's images are built on.
pub fn bases<'a>(
    loaded: &LoadedFamily,
    layout: &'a Layout,
    cache: &'a Cache,
    puller: Option<&'a RegistryPuller>,
) -> Bases<'a> {
    Bases::new(layout, cache, puller.map(|puller| puller as &dyn Puller)).relative_to(&loaded.directory)
}

/// Where suites are: as the command line or the environment says, or what a bundle brought, or what the host's apt uses.
pub fn mirrors(arguments: &MirrorArgs, family: &Path) -> Result<Mirrors, Failure> {
    if let Some(named) = named_mirrors(arguments)? {
        return Ok(named);
    }
    let carried = Carried::of(family).map(|carried| carried.mirrors()).unwrap_or_default();
    match carried.is_empty() {
        false => Mirrors::parse(carried.iter().map(String::as_str)).map_err(Failure::of),
        true => Mirrors::of_host(Path::new(HOST_APT)).map_err(Failure::of),
    }
}

/// The mirrors that the command line or the environment names.
pub fn named_mirrors(arguments: &MirrorArgs) -> Result<Option<Mirrors>, Failure> {
    let given: Vec<&str> = arguments.mirror.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect();
    if given.is_empty() {
        return Ok(None);
    }
    Mirrors::parse(given).map(Some).map_err(|error| Failure::Usage(error.to_string()))
}
