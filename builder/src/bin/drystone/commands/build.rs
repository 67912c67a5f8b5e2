//! `drystone build`: a family's images into the layout.

use std::fmt::Write as _;

use drystone::build::BuiltImage;
use drystone::push::PushTotals;

use crate::args::{Build, Output};
use crate::commands::dockerfile::{self, Request};
use crate::failure::Failure;
use crate::session::{self, Built};
use crate::{destination, metadata, table};

/// Runs the command.
pub fn run(arguments: &Build, output: Output) -> Result<(), Failure> {
    if dockerfile::is_meant(&arguments.names, &arguments.dockerfile, &arguments.build) {
        return from_dockerfile(arguments, output);
    }
    dockerfile::has_something(&arguments.names)?;
    let destinations = &arguments.output.destinations;
    destination::check(destinations)?;
    session::must_be_one_image(destinations, &arguments.names, &arguments.build.set)?;
    let remote = (&arguments.caches, &arguments.registry);
    let (built, caches) = session::build(&arguments.names, &arguments.build, remote, output, &())?;
    let seconds = built.started.elapsed().as_secs_f64();
    if let Some(path) = &arguments.build.metadata_file {
        metadata::write(path, (&built.images, &built.named), PushTotals::default(), seconds)?;
    }
    let mut text = String::new();
    for image in built.named.iter().filter(|image| !image.build_only) {
        let _ = writeln!(text, "{} {}", image.reference, image.manifest.digest);
    }
    built.write_to(destinations)?;
    if destination::takes_stdout(destinations) {
        eprint(output, &text);
    } else {
        session::print(&text)?;
    }
    if !output.quiet {
        eprint_summary(&built);
    }
    session::store_results(&built, caches.as_ref())
}

/// Builds one image from a Dockerfile.
fn from_dockerfile(arguments: &Build, output: Output) -> Result<(), Failure> {
    let request = Request {
        context: dockerfile::context_of(&arguments.names)?,
        tags: arguments.build.tag.clone(),
        dockerfile: &arguments.dockerfile,
        build: &arguments.build,
        caches: &arguments.caches,
        registry: &arguments.registry,
        destinations: &arguments.output.destinations,
    };
    dockerfile::run(&request, output).map(drop)
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn eprint(output: Output, text: &str) {
    if !output.quiet {
        eprint!("{text}");
    }
}

/// Says in one line what was done, and what it would take to store the layers in other ways.
#[expect(clippy::print_stderr, reason = "this is the command line")]
pub fn eprint_summary(built: &Built) {
    let fresh = built.images.iter().filter(|image| !image.is_cached()).count();
    let mut layers: Vec<_> = built.images.iter().flat_map(|image| &image.layers).collect();
    layers.sort_by_key(|layer| layer.digest);
    layers.dedup_by_key(|layer| layer.digest);
    let bytes = layers.iter().map(|layer| layer.size).sum();
    let what = match (fresh, built.images.len()) {
        (0, all) => format!("nothing to build: all {all} images are up to date"),
        (fresh, all) => format!("built {fresh} of {all} images"),
    };
    let whole = built.images.iter().flat_map(|image| &image.layers).map(|layer| layer.size).sum();
    let own = |image: &BuiltImage| {
        image.layers.iter().filter(|layer| layer.from == *image.name.as_str()).map(|layer| layer.size).sum::<u64>()
    };
    let by_parent = built.images.iter().map(own).sum();
    let ways = format!("whole {}, shared by parent {}", table::size(whole), table::size(by_parent));
    let seconds = built.started.elapsed().as_secs_f64();
    eprintln!("{what}; {} layers, {} stored ({ways}), {seconds:.1} s", layers.len(), table::size(bytes));
}
