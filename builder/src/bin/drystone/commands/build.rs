//! `drystone build`: a family's images into the layout.

use std::fmt::Write as _;

use drystone::push::PushTotals;

use crate::args::{Build, Output};
use crate::failure::Failure;
use crate::session::{self, Built};
use crate::{metadata, table};

/// Runs the command.
pub fn run(arguments: &Build, output: Output) -> Result<(), Failure> {
    let built = session::build(&arguments.names, &arguments.build, output)?;
    let seconds = built.started.elapsed().as_secs_f64();
    if let Some(path) = &arguments.build.metadata_file {
        metadata::write(path, &built.images, PushTotals::default(), seconds)?;
    }
    let mut text = String::new();
    for image in built.images.iter().filter(|image| !image.build_only) {
        let _ = writeln!(text, "{} {}", image.reference, image.manifest.digest);
    }
    session::print(&text)?;
    if !output.quiet {
        eprint_summary(&built);
    }
    Ok(())
}

/// Says in one line what was done.
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
    let seconds = built.started.elapsed().as_secs_f64();
    eprintln!("{what}; {} layers, {} stored, {seconds:.1} s", layers.len(), table::size(bytes));
}
