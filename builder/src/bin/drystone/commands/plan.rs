//! `drystone plan`: what would be built, and what it takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use drystone::overview::{Change, ImageOverview, LayerOverview, Measure, Overview, Sources, overview};

use crate::args::{Plan, PlanFormat};
use crate::failure::Failure;
use crate::session::{self, print};
use crate::table::{columns, size};

/// How many names a line shows before it says how many more there are.
const NAMES_SHOWN: usize = 6;

/// Runs the command.
pub fn run(arguments: &Plan) -> Result<(), Failure> {
    let overview = session::plan(&arguments.names, &arguments.build, &arguments.registry, |planned| {
        let sources =
            Sources { layout: planned.layout, cache: planned.cache, compression: arguments.build.compression };
        let reference = |image: &spec::Image| planned.names[image.name.as_str()].clone();
        Ok(overview(planned.plan, planned.cut, &sources, &reference)?)
    })?;
    match arguments.format {
        PlanFormat::Text => print(&text(&overview)),
        PlanFormat::Json => {
            print(&serde_json::to_string_pretty(&overview).map(|text| text + "\n").map_err(Failure::of)?)
        }
        PlanFormat::Dot => print(&dot(&overview)),
    }
}

fn text(overview: &Overview) -> String {
    let mut text = String::new();
    for image in &overview.images {
        let parent = image.parent.as_ref().map(|parent| format!(" from {parent}")).unwrap_or_default();
        let _ = writeln!(text, "{}{parent}: {}", image.name, said(&image.packages));
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
    text
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
