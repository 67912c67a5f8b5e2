//! `drystone pull`: images of a registry into the layout.

use std::sync::Arc;
use std::time::Instant;

use drystone::pull::{self, PullError, PulledImage};
use drystone::push;
use serde::Serialize;
use store::Layout;

use crate::args::{Output, Pull, ReportFormat};
use crate::failure::Failure;
use crate::metadata::write_json;
use crate::{online, progress, registries, session, table};

#[derive(Serialize)]
struct Metadata {
    images: Vec<ImageMetadata>,
    totals: Totals,
}

#[derive(Serialize)]
struct ImageMetadata {
    reference: String,
    digest: content::Digest,
    media_type: String,
    /// What the registry has under the name; another one than `digest` if it is an index.
    registry_digest: content::Digest,
}

#[derive(Serialize)]
struct Totals {
    seconds: f64,
    pulled_bytes: u64,
    present_bytes: u64,
}

/// Runs the command.
pub fn run(arguments: &Pull, output: Output) -> Result<(), Failure> {
    let started = Instant::now();
    let observer = progress::observer(output);
    let client = push::client(registries::options_with_kept_credentials(&arguments.registry)?, observer.clone())?;
    let layout = Arc::new(Layout::open_or_create(&arguments.layout.layout)?);
    let platforms = arguments.platforms.chosen();
    let pulled: Vec<PulledImage> = online::run(async {
        let mut pulled = Vec::new();
        for reference in &arguments.references {
            pulled.push(pull::pull(&client, &layout, reference, &platforms, observer.as_ref()).await?);
        }
        Ok::<_, PullError>(pulled)
    })?;
    // What moves on the terminal is gone before the result is printed.
    drop((client, observer));
    let metadata = Metadata::of(&pulled, started.elapsed().as_secs_f64());
    if let Some(path) = &arguments.metadata_file {
        write_json(path, &metadata)?;
    }
    session::print(&match arguments.format {
        ReportFormat::Json => serde_json::to_string_pretty(&metadata).map_err(Failure::of)? + "\n",
        ReportFormat::Table => {
            pulled.iter().map(|image| format!("{} {}\n", image.reference, image.descriptor.digest)).collect()
        }
    })?;
    if !output.quiet {
        summary(&metadata);
    }
    Ok(())
}

impl Metadata {
    fn of(pulled: &[PulledImage], seconds: f64) -> Self {
        let image = |image: &PulledImage| ImageMetadata {
            reference: image.reference.to_string(),
            digest: image.descriptor.digest,
            media_type: image.descriptor.media_type.to_string(),
            registry_digest: image.named.digest,
        };
        let sum = |bytes: fn(&PulledImage) -> u64| pulled.iter().map(bytes).fold(0, u64::saturating_add);
        let (pulled_bytes, present_bytes) = (sum(|image| image.fetched_bytes), sum(|image| image.present_bytes));
        Self { images: pulled.iter().map(image).collect(), totals: Totals { seconds, pulled_bytes, present_bytes } }
    }
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn summary(metadata: &Metadata) {
    let Totals { seconds, pulled_bytes, present_bytes } = metadata.totals;
    let (fetched, present) = (table::size(pulled_bytes), table::size(present_bytes));
    eprintln!("{fetched} fetched, {present} were there, {seconds:.1} s");
}
