//! `drystone lock`: every input of a family by digest.

use drystone::dockerfile;
use drystone::lock::changes::Changes;
use drystone::lock::file::Conflicts;
use serde::Serialize;
use store::Cache;

use crate::args::{self, LockFormat, Output};
use crate::failure::Failure;
use crate::locking::{self, Decided, Question, Tools};
use crate::{progress, session};

#[derive(Serialize)]
struct Report<'a> {
    lock: String,
    packages: usize,
    images: usize,
    is_changed: bool,
    changes: &'a Changes,
}

/// Runs the command.
pub fn run(arguments: &args::Lock, output: Output) -> Result<(), Failure> {
    let names: Vec<String> = arguments.family.iter().cloned().collect();
    let (loaded, patterns) = session::load_family(&names, &arguments.set)?;
    if !patterns.is_empty() {
        return Err(Failure::Usage("a lock is of a whole family: name its directory, and no images".to_owned()));
    }
    let cache = Cache::open(session::cache_directory(arguments.cache.cache_dir.as_deref())?)?;
    let (layout, _elsewhere) = session::layout_for_bases(&loaded, &arguments.layout, &cache)?;
    let fetcher = session::fetcher(&loaded, &cache, arguments.lock.offline)?;
    let observer = progress::observer(output);
    let puller = session::puller(&loaded, &arguments.registry, &layout, &observer, arguments.lock.offline)?;
    let mut bases = session::bases(&loaded, &layout, &cache, puller.as_ref());
    let question = Question {
        loaded: &loaded,
        patterns: &[],
        mirror: &arguments.mirror,
        lock: &arguments.lock,
        platforms: &arguments.platform,
        with_locked_platforms: true,
        update: locking::update(&arguments.update),
        conflicts: Conflicts::Repair,
        recut: arguments.recut,
        layer_budget: None,
        naming: None,
        fetches: true,
    };
    let tools = Tools { cache: &cache, fetcher: &fetcher, layout: Some(&layout) };
    let mut decided = locking::decide(&question, &tools, &mut bases)?;
    for decision in &decided.plans {
        dockerfile::bases::find(&decision.plan, &bases)?;
    }
    decided.note(&bases);
    if arguments.locked {
        decided.must_be_locked()?;
    } else {
        decided.write()?;
    }
    tell(&decided, arguments.format, output)
}

fn tell(decided: &Decided<'_>, format: LockFormat, output: Output) -> Result<(), Failure> {
    let changes = decided.changes();
    let report = Report {
        lock: decided.path().display().to_string(),
        packages: decided.lock.packages().len(),
        images: decided.lock.images.len(),
        is_changed: changes.is_some(),
        changes: &changes.unwrap_or_default(),
    };
    match format {
        LockFormat::Json => {
            let text = serde_json::to_string_pretty(&report).map_err(Failure::of)?;
            session::print(&format!("{text}\n"))?;
        }
        LockFormat::Text => {
            let lines = report.changes.lines().into_iter().map(|line| format!("{line}\n"));
            session::print(&lines.collect::<String>())?;
        }
    }
    if !output.quiet {
        eprint_summary(&report);
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn eprint_summary(report: &Report<'_>) {
    let Report { lock, packages, images, is_changed, .. } = report;
    let what = if *is_changed { "written" } else { "up to date" };
    eprintln!("{lock}: {what}; {packages} packages, {images} images");
}
