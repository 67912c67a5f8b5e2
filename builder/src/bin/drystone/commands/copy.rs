//! `drystone copy`: an image between registries, layouts and archives.

use std::time::Instant;

use drystone::copy::{self, Copied};
use registry_client::Platforms;
use serde::Serialize;

use crate::args::{Copy, Output, ReportFormat, here};
use crate::failure::Failure;
use crate::metadata::write_json;
use crate::{online, progress, registries, session, table};

#[derive(Serialize)]
struct Metadata {
    from: String,
    to: String,
    digest: content::Digest,
    media_type: String,
    referrers: usize,
    totals: Totals,
}

#[derive(Serialize)]
struct Totals {
    seconds: f64,
    copied_bytes: u64,
    mounted_bytes: u64,
}

/// Runs the command.
pub fn run(arguments: &Copy, output: Output) -> Result<(), Failure> {
    let started = Instant::now();
    let options = registries::options_with_kept_credentials(&arguments.registry)?;
    let observer = progress::observer(output);
    let copy = copy::Copy {
        platforms: arguments.platform.clone().map_or(Platforms::All, Platforms::One),
        referrers: arguments.referrers,
        machine: arguments.platform.clone().unwrap_or_else(here),
        scratch: std::env::temp_dir(),
    };
    let copied = online::run(copy.run(&arguments.from, &arguments.to, options, observer.clone()))?;
    // What moves on the terminal is gone before the result is printed.
    drop(observer);
    let metadata = metadata(arguments, &copied, started.elapsed().as_secs_f64());
    if let Some(path) = &arguments.metadata_file {
        write_json(path, &metadata)?;
    }
    session::print(&match arguments.format {
        ReportFormat::Json => serde_json::to_string_pretty(&metadata).map_err(Failure::of)? + "\n",
        ReportFormat::Table => format!("{} {}\n", arguments.to, copied.descriptor.digest),
    })?;
    if !output.quiet {
        summary(&metadata);
    }
    Ok(())
}

fn metadata(arguments: &Copy, copied: &Copied, seconds: f64) -> Metadata {
    let Copied { descriptor, copied_bytes, mounted_bytes, referrers } = copied.clone();
    Metadata {
        from: arguments.from.to_string(),
        to: arguments.to.to_string(),
        digest: descriptor.digest,
        media_type: descriptor.media_type.to_string(),
        referrers,
        totals: Totals { seconds, copied_bytes, mounted_bytes },
    }
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn summary(metadata: &Metadata) {
    let Totals { seconds, copied_bytes, mounted_bytes } = metadata.totals;
    let (copied, mounted) = (table::size(copied_bytes), table::size(mounted_bytes));
    eprintln!("{copied} copied, {mounted} mounted, {seconds:.1} s");
}
