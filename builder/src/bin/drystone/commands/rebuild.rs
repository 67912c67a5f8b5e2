//! `drystone verify --rebuild`: built again, an image has the same bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use drystone::rebuild::{Comparison, Difference, Part, Within, compare};
use serde::Serialize;
use store::Layout;

use crate::args::{Output, ReportFormat, Verify};
use crate::failure::Failure;
use crate::session;

#[derive(Serialize)]
struct Report {
    images: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    reference: String,
    platform: String,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Runs the command.
pub fn run(arguments: &Verify, output: Output) -> Result<(), Failure> {
    let layout = Layout::open(&arguments.build.layout.layout)?;
    let built = session::build_aside(&arguments.names, &arguments.build, &arguments.registry, output)?;
    let mut images = Vec::new();
    for image in &built.images {
        let comparison = compare(&layout, image, &built.layout)?;
        let (name, reference, platform) =
            (image.name.to_string(), image.reference.to_string(), image.platform().to_string());
        images.push(Row { name, reference, platform, comparison });
    }
    let report = Report { images };
    match arguments.format {
        ReportFormat::Json => {
            let text = serde_json::to_string_pretty(&report).map_err(Failure::of)?;
            session::print(&format!("{text}\n"))?;
        }
        ReportFormat::Table => session::print(&text(&report))?,
    }
    verdict(&report)
}

fn verdict(report: &Report) -> Result<(), Failure> {
    let count = |wanted: fn(&Comparison) -> bool| report.images.iter().filter(|row| wanted(&row.comparison)).count();
    let different = count(|comparison| matches!(comparison, Comparison::Different(_)));
    let absent = count(|comparison| matches!(comparison, Comparison::Absent));
    match (different, absent) {
        (0, 0) => Ok(()),
        (0, absent) => {
            let text = format!("{absent} of {} images are not in the layout", report.images.len());
            Err(Failure::with_hint(text, "`drystone build` makes them"))
        }
        (different, _) => {
            let text = format!("{different} of {} images differ when they are built again", report.images.len());
            let hint = "the specs, the lock or the flags may be others than when they were built; \
                        or the disk has damaged a blob; else it is a defect of drystone, or of a command in a spec";
            Err(Failure::with_hint(text, hint))
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let platforms: BTreeSet<&str> = report.images.iter().map(|row| row.platform.as_str()).collect();
    for row in &report.images {
        let image = match platforms.len() {
            1 => row.name.clone(),
            _ => format!("{} ({})", row.name, row.platform),
        };
        let _ = match &row.comparison {
            Comparison::Same { digest } => writeln!(text, "{image}: the same, {digest}"),
            Comparison::Absent => writeln!(text, "{image}: not in the layout"),
            Comparison::Different(difference) => writeln!(text, "{image}: {}", said(difference)),
        };
    }
    text
}

fn said(difference: &Difference) -> String {
    let Difference { part, offset, within, path, package, digests } = difference;
    let part = match part {
        Part::Layer { number, made_by } => format!("layer {number} ({made_by})"),
        Part::Layers { stored, built } => return format!("has {stored} layers, and {built} when it is built again"),
        Part::Config => "the configuration".to_owned(),
        Part::Manifest => "the manifest".to_owned(),
    };
    let file = path.as_ref().map(|path| format!(", {path}")).unwrap_or_default();
    let package = package.as_ref().map(|package| format!(" of {package}")).unwrap_or_default();
    let within = match within {
        Within::Content => "of its content",
        Within::Header => "of the tar, in its header",
        Within::Tar => "of the tar",
        Within::Stored => "as stored",
    };
    format!(
        "{part}{file}{package} differs from byte {offset} {within} on ({} in the layout, {} anew)",
        digests.0, digests.1
    )
}
