//! What commands that build share. The environment and the clock are read in `environment`, and the library gets what they
//! say as values.

mod environment;
mod family;
mod fetching;
mod planned;
mod workplace;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use drystone::archive::Named;
use drystone::build::{Builder, BuiltImage, Finished, lend};
use drystone::cut::Cut;
use drystone::events::{Event, Observer};
use drystone::load::LoadedFamily;
use drystone::lock::files;
use drystone::plan::Plan;
use drystone::platform;
use drystone::remote::{Elsewhere, Lent};
use drystone::rootfs::directory::Owners;
use drystone::statements::{self, Wanted};
use drystone::steps::files::Inputs;
use oci::{Reference, Registry};
use spec::Image;
use store::{Cache, Layout, ScratchDir};

use crate::args::{BuildArgs, Output, RegistryArgs, SharedCacheArgs};
use crate::destination::{self, Destination};
use crate::failure::Failure;
use crate::locking::{self, Decision, Question, Tools};
use crate::remote::Caches;

pub use self::environment::{cache_directory, epoch_of, interrupted, now, print, stop_on_signals};
pub use self::family::{
    HOST_APT, bases, family_tag, load_family, matches, mirrors, must_be_one_image, named_mirrors, puller, references,
    variables,
};
pub use self::fetching::{fetcher, plain_fetcher};
pub use self::planned::{Planned, explain, layout_for_bases, plan};
pub use self::workplace::Workplace;

/// A build that is done.
pub struct Built {
    /// Its images, platform by platform, parents first.
    pub images: Vec<BuiltImage>,
    /// What their names stand for, by name.
    pub named: Vec<Finished>,
    /// The images or patterns that were asked for; if there are none, all images were.
    patterns: Vec<String>,
    /// Where they are.
    pub layout: Arc<Layout>,
    /// What was kept of the build.
    cache: Cache,
    /// Whom files belong to that are written elsewhere.
    file_owners: Owners,
    /// Who is told of what follows.
    observer: Arc<dyn Observer>,
    /// Set when somebody asks to stop.
    pub interrupt: Arc<AtomicBool>,
    /// When the command was started.
    pub started: Instant,
    /// What is to be stored in remote caches.
    pub lent: Option<Lent>,
    /// Holds a place that is gone afterwards.
    _aside: Option<ScratchDir>,
}

impl Built {
    /// The images that were asked for, without those that only came along and those that are only parents for others.
    pub fn asked(&self) -> impl Iterator<Item = &Finished> {
        let asked = |name: &str| self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, name));
        let names: BTreeSet<&Reference> =
            self.images.iter().filter(|image| asked(image.name.as_str())).map(|image| &image.reference).collect();
        self.named.iter().filter(move |image| !image.build_only && names.contains(&image.reference))
    }

    /// Writes the images that were asked for to these places.
    pub fn write_to(&self, destinations: &[Destination]) -> Result<(), Failure> {
        let images: Vec<Named> = self.asked().map(|image| (image.reference.clone(), image.manifest.clone())).collect();
        let writer = destination::Writer {
            layout: &self.layout,
            cache: &self.cache,
            observer: self.observer.as_ref(),
            interrupt: &self.interrupt,
            owners: self.file_owners,
        };
        writer.write(destinations, &images, &platform::usual())
    }
}

/// Where a build happens.
pub struct Surroundings<'a> {
    /// Where images go.
    pub layout: &'a Arc<Layout>,
    /// The registry of the family.
    pub registry: &'a Registry,
    /// Who is told.
    pub observer: &'a Arc<dyn Observer>,
}

/// Somebody who does something with images before all of them are built.
pub trait Follow: Sync {
    /// All is decided, and nothing is built yet.
    fn begin(&self, _: &Surroundings<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// An image is whole.
    fn finished(&self, _: &Finished) {}

    /// Whether the images go to their registry.
    fn pushes(&self) -> bool {
        false
    }
}

/// Nobody does.
impl Follow for () {}

/// Builds the images that `names` ask for: a family's directory first, if there is one, and then images or patterns.
pub fn build<'a>(
    names: &[String],
    arguments: &BuildArgs,
    (shared, registry): (&'a SharedCacheArgs, &RegistryArgs),
    output: Output,
    follower: &dyn Follow,
) -> Result<(Built, Option<Caches<'a>>), Failure> {
    let started = Instant::now();
    let (loaded, patterns) = load_family(names, &arguments.set)?;
    let place = Workplace::open(arguments, output)?;
    build_in(place, (loaded, patterns), arguments, (shared, registry), follower, started)
}

/// The same in a layout and a cache of their own, which are gone afterwards; only downloads are the cache's. The lock is
/// not written.
pub fn build_aside(
    names: &[String],
    arguments: &BuildArgs,
    registry: &RegistryArgs,
    output: Output,
) -> Result<Built, Failure> {
    let started = Instant::now();
    let (loaded, patterns) = load_family(names, &arguments.set)?;
    let place = Workplace::open(arguments, output)?.aside(&loaded)?;
    let nobody = SharedCacheArgs::default();
    Ok(build_in(place, (loaded, patterns), arguments, (&nobody, registry), &(), started)?.0)
}

fn build_in<'a>(
    place: Workplace,
    (loaded, patterns): (LoadedFamily, Vec<String>),
    arguments: &BuildArgs,
    (shared, registry): (&'a SharedCacheArgs, &RegistryArgs),
    follower: &dyn Follow,
    started: Instant,
) -> Result<(Built, Option<Caches<'a>>), Failure> {
    let Workplace { cache, layout, observer, .. } = &place;
    let fetcher = fetcher(&loaded, cache, arguments.lock.offline)?;
    let puller = puller(&loaded, registry, layout, observer, arguments.lock.offline)?;
    let mut bases = bases(&loaded, layout, cache, puller.as_ref());
    let tools = Tools { cache, fetcher: &fetcher, layout: Some(layout) };
    let mut decided = locking::decide(&Question::of(&loaded, &patterns, arguments), &tools, &mut bases)?;
    if arguments.locked {
        decided.must_be_locked()?;
    }
    for source in of_plans(&decided.plans, |plan| &plan.stand_ins) {
        let text = format!(
            "the packages of `{source}` are stand-ins, which answer in the place of the vendor's programs; \
             the family says which variable names the real archive"
        );
        observer.observe(Event::Warning(&text));
    }
    let stand_ins = of_plans(&decided.plans, |plan| &plan.stand_ins);
    for source in of_plans(&decided.plans, |plan| &plan.unsigned_sources).difference(&stand_ins) {
        let text = format!("nobody signs the source `{source}`: the family says `trusted: true`");
        observer.observe(Event::Warning(&text));
    }
    let home = arguments.registry.as_ref().unwrap_or(&loaded.family.registry.value);
    let reference = |image: &Image| decided.names[image.name.as_str()].clone();
    let home: Registry = home.as_str().parse().map_err(Failure::of)?;
    follower.begin(&Surroundings { layout, registry: &home, observer })?;
    let caches = Caches::new(shared, registry, arguments.lock.offline, observer)?;
    let borrowing = caches.as_ref().map(|caches| caches.borrowing(cache, layout, observer));
    let elsewhere: &dyn Elsewhere = borrowing.as_ref().map_or(&(), |borrowing| borrowing);
    let pinned = files::pinned(&decided.lock.files);
    let builder = place.builder(arguments, &loaded.directory, &fetcher, &bases)?.with_files(pinned.clone());
    let builder = Builder { elsewhere, ..builder };
    let plans: Vec<(&Plan<'_>, &Cut)> = decided.plans.iter().map(|Decision { plan, cut }| (plan, cut)).collect();
    let (images, named) = builder.build(&plans, &reference, &|image| follower.finished(image))?;
    let lent = match &caches {
        Some(caches) if caches.wants_results() => Some(lend(cache, elsewhere, &images, follower.pushes())?),
        _ => None,
    };
    let inputs = Inputs { family: &loaded.directory, fetcher: &fetcher, cache, pinned: &pinned };
    let plans: Vec<&Plan<'_>> = plans.into_iter().map(|(plan, _)| plan).collect();
    attach_statements(layout, &images, Some((&plans, &inputs)), arguments, observer.as_ref())?;
    drop(builder);
    drop(borrowing);
    // Only now is it known what Dockerfiles are built on, and that an archive has what its index promised.
    decided.note(&bases);
    match (arguments.locked, &place.aside) {
        (true, _) => decided.must_be_locked()?,
        (false, None) => decided.keep(observer.as_ref()),
        (false, Some(_)) => {}
    }
    drop(decided);
    drop(bases);
    let Workplace { layout, cache, file_owners, observer, interrupt, aside, .. } = place;
    let built = Built {
        images,
        named,
        patterns,
        layout,
        cache,
        file_owners,
        observer,
        interrupt,
        started,
        lent,
        _aside: aside,
    };
    Ok((built, caches))
}

/// Keeps what is to be said about images.
pub fn attach_statements(
    layout: &Layout,
    images: &[BuiltImage],
    from: Option<(&[&Plan<'_>], &Inputs<'_>)>,
    arguments: &BuildArgs,
    observer: &dyn Observer,
) -> Result<(), Failure> {
    let bills = arguments.sbom.iter().filter_map(|bill| bill.0).collect();
    let wanted = Wanted { bills, provenance: arguments.provenance };
    let said = statements::attach(layout, images, from, &wanted).map_err(Failure::of_statement)?;
    if said > 0 {
        observer.observe(Event::Note(&format!("{said} new statements about images: bills of materials, provenance")));
    }
    Ok(())
}

/// What the plans of all platforms name.
fn of_plans<'a>(plans: &'a [Decision<'_>], names: impl Fn(&'a Plan<'_>) -> &'a Vec<String>) -> BTreeSet<&'a str> {
    plans.iter().flat_map(|decision| names(&decision.plan)).map(String::as_str).collect()
}

/// Stores the results of a build in the caches of `--cache-to`.
pub fn store_results(built: &Built, caches: Option<&Caches<'_>>) -> Result<(), Failure> {
    match (caches, &built.lent) {
        (Some(caches), Some(lent)) => caches.store(&built.layout, lent),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("redis", "redis", true),
            ("redis", "redis2", false),
            ("web*", "webui-job", true),
            ("*-api", "nova-api", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*i-*", "webui-job", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
