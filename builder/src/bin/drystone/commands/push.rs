//! `drystone push`: what the layout holds to a registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drystone::push::{self, Outgoing, PushTotals};
use oci::Reference;
use serde::Serialize;
use store::Layout;

use crate::args::{Output, Push};
use crate::failure::Failure;
use crate::metadata::write_json;
use crate::session::{self, matches};
use crate::{online, progress, registries, table};

#[derive(Serialize)]
struct Metadata {
    images: Vec<PushedImage>,
    totals: Totals,
}

#[derive(Serialize)]
struct PushedImage {
    reference: String,
    digest: content::Digest,
}

#[derive(Serialize)]
struct Totals {
    seconds: f64,
    pushed_bytes: u64,
    mounted_bytes: u64,
}

/// Runs the command.
pub fn run(arguments: &Push, output: Output) -> Result<(), Failure> {
    let started = Instant::now();
    let layout = Arc::new(Layout::open(&arguments.layout.layout)?);
    let outgoing = chosen(&layout, arguments)?;
    if arguments.offline {
        registries::must_be_here(outgoing.iter().map(|image| image.target.registry()))?;
    }
    let observer = progress::observer(output);
    let options = registries::options_with_kept_credentials(&arguments.registry)?;
    let client = push::client_of(&layout, options, observer.clone())?;
    let totals = online::run(push::push(&client, &layout, &outgoing, observer.as_ref()))?;
    finish(arguments, output, &outgoing, totals, started.elapsed())
}

fn finish(
    arguments: &Push,
    output: Output,
    outgoing: &[Outgoing],
    totals: PushTotals,
    elapsed: Duration,
) -> Result<(), Failure> {
    let seconds = elapsed.as_secs_f64();
    if let Some(path) = &arguments.metadata_file {
        let image =
            |image: &Outgoing| PushedImage { reference: image.target.to_string(), digest: image.manifest.digest };
        let PushTotals { pushed_bytes, mounted_bytes, .. } = totals;
        let totals = Totals { seconds, pushed_bytes, mounted_bytes };
        write_json(path, &Metadata { images: outgoing.iter().map(image).collect(), totals })?;
    }
    let line = |image: &Outgoing| format!("{} {}\n", image.target, image.manifest.digest);
    session::print(&outgoing.iter().map(line).collect::<String>())?;
    if !output.quiet {
        summary(totals, seconds);
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn summary(totals: PushTotals, seconds: f64) {
    let (sent, mounted) = (table::size(totals.pushed_bytes), table::size(totals.mounted_bytes));
    let PushTotals { pushed, unchanged, .. } = totals;
    eprintln!("pushed {pushed} images, {unchanged} were there; {sent} sent, {mounted} mounted, {seconds:.1} s");
}

fn chosen(layout: &Layout, arguments: &Push) -> Result<Vec<Outgoing>, Failure> {
    let references = layout.references()?;
    let mut outgoing = Vec::new();
    for (reference, manifest) in references.iter().filter(|(reference, _)| reference.tag().is_some()) {
        if arguments.images.is_empty() || arguments.images.iter().any(|pattern| names(pattern, reference)) {
            let target = match &arguments.to {
                Some(registry) => push::retarget(reference, registry)?,
                None => reference.clone(),
            };
            outgoing.push(Outgoing { target, manifest: manifest.clone() });
        }
    }
    let unknown = arguments.images.iter().find(|pattern| !references.iter().any(|(name, _)| names(pattern, name)));
    match unknown {
        Some(pattern) => {
            let text = format!("no image in `{}` is called `{pattern}`", layout.root().display());
            Err(Failure::with_hint(text, "`drystone images` lists what is there"))
        }
        None if outgoing.is_empty() => {
            let text = format!("`{}` holds no images to push", layout.root().display());
            Err(Failure::with_hint(text, "`drystone build` makes some"))
        }
        None => Ok(outgoing),
    }
}

/// Whether a pattern fits an image by its repository, with its tag, or by its whole name.
pub fn names(pattern: &str, reference: &Reference) -> bool {
    let repository = reference.repository().as_str();
    let tag = reference.tag().map(ToString::to_string).unwrap_or_default();
    let forms = [repository.to_owned(), format!("{repository}:{tag}"), reference.name(), reference.to_string()];
    forms.iter().any(|form| matches(pattern, form))
}
