//! `drystone plan`: what would be built, and what it takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use drystone::build::ExplainedStep;
use drystone::error::chain;
use drystone::overview::{
    Change, Held, ImageOverview, LayerOverview, Measure, Overview, Sources, Upload, ask, mark, overview,
};
use registry_client::{Client, Options, RetryPolicy};

use crate::args::{Output, Plan, PlanFormat};
use crate::commands::explain::sentence;
use crate::failure::Failure;
use crate::registries;
use crate::session::{self, Planned, print};
use crate::table::{columns, size};

/// How many names a line shows before it says how many more there are.
const NAMES_SHOWN: usize = 6;

/// How many steps that would run are shown with a reason.
const STEPS_SHOWN: usize = 8;

/// How long the registry may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the command.
pub fn run(arguments: &Plan, output: Output) -> Result<(), Failure> {
    let overview = session::explain(&arguments.names, &arguments.build, &arguments.registry, |planned, builder, _| {
        let sources =
            Sources { layout: planned.layout, cache: planned.cache, compression: arguments.build.compression };
        let reference = |image: &spec::Image| planned.names[image.name.as_str()].clone();
        let (plan, cut) = planned.first();
        let mut overview = overview(plan, cut, &sources, &reference)?;
        let wanted = plan.images.iter().enumerate().filter(|(_, image)| image.wanted);
        for ((place, planned_image), image) in wanted.zip(&mut overview.images) {
            let steps = builder.explain(plan, cut, place, &reference)?;
            let own = |step: &ExplainedStep| !step.cached && step.image == planned_image.image.name.as_str();
            image.rebuild = steps.into_iter().filter(own).collect();
        }
        match held(arguments, planned) {
            Ok(held) => mark(&mut overview, planned.layout, &held),
            Err(reason) => say(output, &format!("what a push would send is not known: {reason}")),
        }
        for other in &planned.plans[1..] {
            let platform = &other.plan.platform;
            say(output, &format!("this is for {}; --platform {platform} shows the other", plan.platform));
        }
        Ok(overview)
    })?;
    match arguments.format {
        PlanFormat::Text => print(&text(&overview)),
        PlanFormat::Json => {
            print(&serde_json::to_string_pretty(&overview).map(|text| text + "\n").map_err(Failure::of)?)
        }
        PlanFormat::Dot => print(&dot(&overview)),
    }
}

/// Asks the registry of the images what it has of them. Fails with what is said to people.
fn held(arguments: &Plan, planned: &Planned<'_>) -> Result<Held, String> {
    let wanted = planned.first().0.images.iter().filter(|image| image.wanted && !image.image.build_only);
    let references: Vec<_> = wanted.map(|image| planned.names[image.image.name.as_str()].clone()).collect();
    let Some(registry) = references.first().map(|reference| reference.registry().to_string()) else {
        return Ok(Held::default());
    };
    if arguments.build.lock.offline && !references.iter().all(|reference| reference.registry().is_loopback()) {
        return Err(format!("{registry} is not on this machine, and with --offline it is not asked"));
    }
    let failed = |error: &(dyn std::error::Error + 'static)| format!("{registry}: {}", chain(error));
    let options = registries::options_with_kept_credentials(&arguments.registry).map_err(|failure| failure.reason())?;
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let options = Options { retry, ..options };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let client = Client::new(options).map_err(|error| failed(&error))?;
        match tokio::time::timeout(PATIENCE, ask(&client, references)).await {
            Ok(held) => held.map_err(|error| failed(&error)),
            Err(_) => Err(format!("{registry} did not answer within {} seconds", PATIENCE.as_secs())),
        }
    })
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn say(output: Output, text: &str) {
    if !output.quiet {
        eprintln!("{text}");
    }
}

fn text(overview: &Overview) -> String {
    let mut text = String::new();
    for image in &overview.images {
        let parent = image.parent.as_ref().map(|parent| format!(" from {parent}")).unwrap_or_default();
        let _ = writeln!(text, "{}{parent}: {}", image.name, said(&image.packages));
        text.push_str(&running(image));
        if let Some(upload) = &image.upload {
            let _ = writeln!(text, "  push: {}", sent(upload));
        }
        let own = image.layers.iter().filter(|layer| layer.from == image.name);
        let rows: Vec<Vec<String>> = own.map(row).collect();
        columns(&rows).lines().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
    let totals = &overview.totals;
    let _ = writeln!(
        text,
        "\n{} images, {} packages in {} layers; whole {}, shared by parent {}, as planned {}, each package once {}",
        overview.images.len(),
        totals.packages,
        totals.layers,
        size(totals.whole),
        size(totals.shared_by_parent),
        size(totals.planned),
        size(totals.packages_once),
    );
    let running: usize = overview.images.iter().map(|image| image.rebuild.len()).sum();
    let rebuilt = overview.images.iter().filter(|image| !image.rebuild.is_empty()).count();
    let _ = writeln!(
        text,
        "{}",
        match running {
            0 => "nothing would run".to_owned(),
            1 => "1 step would run".to_owned(),
            steps => format!("{steps} steps of {rebuilt} images would run"),
        }
    );
    if let Some(bytes) = totals.upload {
        let unchanged =
            overview.images.iter().filter(|image| image.upload.as_ref().is_some_and(|upload| upload.unchanged));
        let changed = overview.images.iter().filter(|image| image.upload.is_some()).count() - unchanged.count();
        let more = if running == 0 { "" } else { ", and what steps make" };
        let _ = writeln!(text, "a push would send {}{more}, and change {changed} images", size(bytes));
    }
    text
}

/// The steps of an image that would run, each with its first reason.
fn running(image: &ImageOverview) -> String {
    let mut text = String::new();
    for step in image.rebuild.iter().take(STEPS_SHOWN) {
        let more = match step.reasons.len() {
            0 | 1 => String::new(),
            reasons => format!(", and {} more", reasons - 1),
        };
        let why = step.reasons.first().map(sentence).unwrap_or_default();
        let _ = writeln!(text, "  runs: {} ({}): {why}{more}", step.kind, step.described);
    }
    if let Some(more) = image.rebuild.len().checked_sub(STEPS_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more steps; `drystone explain {}` has all", image.name);
    }
    text
}

fn sent(upload: &Upload) -> String {
    let unknown = match upload.unknown_layers {
        0 => String::new(),
        1 => ", and at most 1 that is not built yet".to_owned(),
        layers => format!(", and at most {layers} that are not built yet"),
    };
    match upload.layers {
        _ if upload.unchanged => "nothing".to_owned(),
        1 => format!("1 layer, {}{unknown}", size(upload.bytes)),
        layers => format!("{layers} layers, {}{unknown}", size(upload.bytes)),
    }
}

fn said(change: &Change) -> String {
    match change {
        Change::New => "new".to_owned(),
        Change::Same => "packages as in the layout".to_owned(),
        Change::Recut => "packages as in the layout, in other layers".to_owned(),
        Change::Changed { added, removed } => {
            let list = |sign: &str, names: &[String]| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                if names.is_empty() { String::new() } else { format!(" {sign}{}", shortened(&names)) }
            };
            format!("packages differ from the layout's:{}{}", list("+ ", added), list("- ", removed))
        }
    }
}

fn row(layer: &LayerOverview) -> Vec<String> {
    let names: Vec<&str> = layer.packages.iter().map(|label| label.split('=').next().unwrap_or(label)).collect();
    let sign = if layer.measure == Measure::Debs { "~" } else { "" };
    let others: Vec<&str> = layer.shared_with.iter().map(String::as_str).collect();
    let shared = if others.is_empty() { String::new() } else { format!("also in {}", shortened(&others)) };
    vec![format!("{sign}{}", size(layer.bytes)), shortened(&names), shared]
}

fn shortened(names: &[&str]) -> String {
    match names.len().checked_sub(NAMES_SHOWN) {
        None | Some(0) => names.join(" "),
        Some(more) => format!("{} and {more} more", names[..NAMES_SHOWN].join(" ")),
    }
}

/// The graph of images, and the layers that those have which are not parent and child.
fn dot(overview: &Overview) -> String {
    let mut text = String::from("digraph family {\n  rankdir=LR;\n  node [shape=box];\n");
    let mut layers: BTreeMap<_, (&LayerOverview, Vec<&ImageOverview>)> = BTreeMap::new();
    for image in &overview.images {
        let _ = writeln!(text, "  \"{}\";", image.name);
        if let Some(parent) = &image.parent {
            let _ = writeln!(text, "  \"{parent}\" -> \"{}\";", image.name);
        }
        for layer in image.layers.iter().filter(|layer| layer.from == image.name) {
            layers.entry(layer.id).or_insert_with(|| (layer, Vec::new())).1.push(image);
        }
    }
    for (id, (layer, images)) in layers {
        let count = layer.packages.len();
        let what = if count == 1 { layer.packages[0].clone() } else { format!("{count} packages") };
        let _ = writeln!(text, "  \"{id}\" [shape=ellipse, label=\"{what}\\n{}\"];", size(layer.bytes));
        for image in images {
            let _ = writeln!(text, "  \"{id}\" -> \"{}\" [style=dashed];", image.name);
        }
    }
    text + "}\n"
}
