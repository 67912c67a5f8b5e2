//! `drystone diff`: what differs between two images.

use std::fmt::Write as _;
use std::path::PathBuf;

use drystone::difference::{ConfigChange, Difference, FileChange, FileFacts, PackageChange, difference};
use drystone::inventory::Inventories;
use drystone::output::printable;
use serde_json::{Value, json};
use store::{Layout, StoredImage};

use crate::args::{Diff, Output, TextFormat};
use crate::commands::inspect::find;
use crate::failure::Failure;
use crate::session::print;
use crate::table;

/// Runs the command.
pub fn run(arguments: &Diff, output: Output) -> Result<(), Failure> {
    let found = compare(arguments).map_err(|failure| match failure {
        // As for diff, 1 means that something differs.
        Failure::Failed { text, hint } => Failure::Unknown { text, hint },
        other => other,
    })?;
    let (before, after, difference) = &found;
    match arguments.format {
        TextFormat::Json => print(&json(before, after, difference)?)?,
        TextFormat::Text if output.quiet => {}
        TextFormat::Text => print(&text(before, after, difference))?,
    }
    if difference.is_none() { Ok(()) } else { Err(Failure::Differs) }
}

fn compare(arguments: &Diff) -> Result<(StoredImage, StoredImage, Difference), Failure> {
    let here = &arguments.layout.layout;
    let place = |name: &str| match name.strip_prefix("oci:").and_then(|rest| rest.split_once(':')) {
        Some((directory, image)) => (PathBuf::from(directory), image.to_owned()),
        None => (here.clone(), name.to_owned()),
    };
    let ((left, before), (right, after)) = (place(&arguments.before), place(&arguments.after));
    let (left_layout, right_layout) = (Layout::open(&left)?, Layout::open(&right)?);
    let platform = arguments.platform.chosen();
    let (before, after) = (find(&left_layout, &before, &platform)?, find(&right_layout, &after, &platform)?);
    // In one layout, a layer that both have is read once.
    let left_reader = Inventories::new(&left_layout);
    let other = (left != right).then(|| Inventories::new(&right_layout));
    let right_reader = other.as_ref().unwrap_or(&left_reader);
    let left = left_reader.image(&before).map_err(Failure::of)?;
    let right = right_reader.image(&after).map_err(Failure::of)?;
    let found = difference((&before, &left), (&after, &right));
    Ok((before, after, found))
}

fn json(before: &StoredImage, after: &StoredImage, difference: &Difference) -> Result<String, Failure> {
    let side = |image: &StoredImage| json!({"reference": image.reference, "digest": image.descriptor.digest});
    let mut whole = serde_json::to_value(difference).map_err(Failure::of)?;
    (whole["before"], whole["after"]) = (side(before), side(after));
    whole["differs"] = (!difference.is_none()).into();
    serde_json::to_string_pretty(&whole).map(|text| text + "\n").map_err(Failure::of)
}

fn text(before: &StoredImage, after: &StoredImage, difference: &Difference) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "--- {} {}", before.reference, before.descriptor.digest);
    let _ = writeln!(text, "+++ {} {}", after.reference, after.descriptor.digest);
    section(&mut text, "packages", &difference.packages, package);
    section(&mut text, "files", &difference.files, file);
    section(&mut text, "configuration", &difference.config, config);
    let layers = &difference.layers;
    let (shared, left, right) = (layers.shared.len(), layers.before.len(), layers.after.len());
    let _ = writeln!(text, "\nlayers: {shared} in both, {left} in the first only, {right} in the second only");
    for (sign, digests) in [('-', &layers.before), ('+', &layers.after)] {
        for digest in digests {
            let _ = writeln!(text, "  {sign} {digest}");
        }
    }
    text
}

fn section<T>(text: &mut String, name: &str, changes: &[T], line: impl Fn(&T) -> String) {
    if changes.is_empty() {
        let _ = writeln!(text, "\n{name}: the same");
        return;
    }
    let _ = writeln!(text, "\n{name}: {} differ", changes.len());
    for change in changes {
        // Names and values come from images, which are anybody's.
        let _ = writeln!(text, "  {}", printable(&line(change)));
    }
}

fn package(change: &PackageChange) -> String {
    let PackageChange { name, before, after, .. } = change;
    match (before, after) {
        (Some(before), Some(after)) => format!("~ {name} {before} → {after}"),
        (Some(version), None) => format!("- {name} {version}"),
        (None, version) => format!("+ {name} {}", version.as_deref().unwrap_or_default()),
    }
}

fn file(change: &FileChange) -> String {
    let path = &change.path;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let parts: Vec<String> = change.differs.iter().map(|what| part(what, before, after)).collect();
            format!("~ {path}: {}", parts.join(", "))
        }
        (Some(facts), None) => format!("- {path} ({})", described(facts)),
        (None, Some(facts)) => format!("+ {path} ({})", described(facts)),
        (None, None) => path.clone(),
    }
}

fn part(what: &str, before: &FileFacts, after: &FileFacts) -> String {
    let value = |facts: &FileFacts| match what {
        "type" => facts.kind.to_owned(),
        "mode" => facts.mode.clone(),
        "owner" => format!("{}:{}", facts.uid, facts.gid),
        "link" => facts.target.clone().unwrap_or_else(|| "none".to_owned()),
        "device" => facts.device.clone().unwrap_or_else(|| "none".to_owned()),
        "content" => match (facts.size, facts.digest) {
            (Some(size), Some(digest)) => format!("{} {}", table::size(size), digest.short()),
            _ => "none".to_owned(),
        },
        _ => facts.xattrs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "),
    };
    format!("{what} {} → {}", value(before), value(after))
}

fn described(facts: &FileFacts) -> String {
    let size = facts.size.map(|size| format!(", {}", table::size(size))).unwrap_or_default();
    let target = facts.target.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
    format!("{}{target}, {}, {}:{}{size}", facts.kind, facts.mode, facts.uid, facts.gid)
}

fn config(change: &ConfigChange) -> String {
    let key = &change.key;
    let shown = Value::to_string;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("~ {key}: {} → {}", shown(before), shown(after)),
        (Some(value), None) => format!("- {key}: {}", shown(value)),
        (None, value) => format!("+ {key}: {}", value.as_ref().map(shown).unwrap_or_default()),
    }
}
