//! `drystone explain`: what of an image is kept, and why the rest would run again.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use drystone::build::{ExplainedStep, Reason};
use serde::Serialize;

use crate::args::{Explain, ListFormat, SharedCacheArgs};
use crate::commands::dockerfile::{self, Request};
use crate::failure::Failure;
use crate::session::{self, matches, print};

/// How many changed inputs a step shows before it says how many more there are.
const INPUTS_SHOWN: usize = 20;
/// How much of a digest is shown.
const DIGITS_SHOWN: usize = 12;
/// How much of a long value is shown.
const VALUE_SHOWN: usize = 100;

/// An image, and what would become of each of its steps.
#[derive(Serialize)]
pub struct ExplainedImage {
    /// What it is called in its family, or in what is told of the build.
    pub image: String,
    /// Its name.
    pub reference: String,
    /// Its steps, and those of what it is built on.
    pub steps: Vec<ExplainedStep>,
}

/// Runs the command.
pub fn run(arguments: &Explain) -> Result<(), Failure> {
    let images = match dockerfile::is_meant(&arguments.names, &arguments.dockerfile, &arguments.build) {
        true => vec![of_dockerfile(arguments)?],
        false => of_family(arguments)?,
    };
    match arguments.format {
        ListFormat::Text => print(&images.iter().map(text).collect::<Vec<_>>().join("\n")),
        ListFormat::Json => print(&serde_json::to_string_pretty(&images).map(|text| text + "\n").map_err(Failure::of)?),
    }
}

/// The image of a Dockerfile outside of a family.
fn of_dockerfile(arguments: &Explain) -> Result<ExplainedImage, Failure> {
    dockerfile::explain(&Request {
        context: dockerfile::context_of(&arguments.names)?,
        tags: arguments.build.tag.clone(),
        dockerfile: &arguments.dockerfile,
        build: &arguments.build,
        caches: &SharedCacheArgs::default(),
        registry: &arguments.registry,
        destinations: &[],
    })
}

/// The images of a family that were asked for.
fn of_family(arguments: &Explain) -> Result<Vec<ExplainedImage>, Failure> {
    dockerfile::has_something(&arguments.names)?;
    session::explain(&arguments.names, &arguments.build, &arguments.registry, |planned, builder, patterns| {
        let reference = |image: &spec::Image| planned.names[image.name.as_str()].clone();
        let (plan, cut) = planned.first();
        let images = plan.images.iter().enumerate().filter(|(_, image)| image.wanted);
        let asked = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name));
        let mut explained = Vec::new();
        for (place, planned_image) in images.filter(|(_, planned)| asked(planned.image.name.as_str())) {
            let image = planned_image.image;
            let steps = builder.explain(plan, cut, place, &reference)?;
            let (reference, image) = (reference(image).to_string(), image.name.to_string());
            explained.push(ExplainedImage { image, reference, steps });
        }
        Ok(explained)
    })
}

fn text(image: &ExplainedImage) -> String {
    let again = image.steps.iter().filter(|step| !step.cached).count();
    let what = match again {
        0 => "nothing would run".to_owned(),
        1 => "1 step would run".to_owned(),
        several => format!("{several} steps would run"),
    };
    let mut text = format!("{}: {what}\n", image.reference);
    let owners: BTreeSet<&str> = image.steps.iter().map(|step| step.image.as_str()).collect();
    for step in &image.steps {
        let owner = if owners.len() > 1 { format!("{}: ", step.image) } else { String::new() };
        let state = if step.cached { "cached" } else { "would run" };
        let described = shown(&step.described);
        let _ = writeln!(text, "{:>4}  {owner}{} ({described}): {state}", step.number, step.kind);
        for reason in step.reasons.iter().take(INPUTS_SHOWN) {
            let _ = writeln!(text, "        {}", sentence(reason));
        }
        if let Some(more) = step.reasons.len().checked_sub(INPUTS_SHOWN).filter(|more| *more > 0) {
            let _ = writeln!(text, "        and {more} more; --format json has all");
        }
    }
    text
}

/// A reason in words.
pub fn sentence(reason: &Reason) -> String {
    match reason {
        Reason::New => "no build under this name had this step".to_owned(),
        Reason::Lost => "nothing changed, but the cache has its result no longer".to_owned(),
        Reason::NoCache => "--no-cache".to_owned(),
        Reason::Unforeseen => "what it does depends on what a step before it makes, which would run".to_owned(),
        Reason::Absent { base } => format!("`{base}`, which it is built on, is not here yet: a build pulls it"),
        Reason::Below { step } => format!("it is done over step {step}, which is another one than before"),
        Reason::Input { input, before, now } => match (before, now) {
            (Some(before), Some(now)) => changed(input, before, now),
            (None, Some(now)) => format!("{input}: new, {}", shown(now)),
            (Some(before), None) => format!("{input}: gone, was {}", shown(before)),
            (None, None) => input.clone(),
        },
    }
}

/// The value of a package is its version and a digest, which only matters if the version is the same.
fn changed(input: &str, before: &str, now: &str) -> String {
    let versions = |value: &str| value.split_once(" sha256:").map(|(version, _)| version.to_owned());
    match (versions(before), versions(now)) {
        (Some(before), Some(now)) if before != now => format!("{input}: {before} → {now}"),
        _ => format!("{input}: {} → {}", shown(before), shown(now)),
    }
}

/// A value on a line, its digests shortened.
fn shown(value: &str) -> String {
    let word = |word: &str| match word.strip_prefix("sha256:") {
        Some(digits) => format!("sha256:{}", digits.chars().take(DIGITS_SHOWN).collect::<String>()),
        None => word.to_owned(),
    };
    let line = value.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(VALUE_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "nothing".to_owned(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_shows_its_versions_or_that_its_bytes_changed() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let value = |version: &str, digit: &str| format!("{version} {}", digest(digit));
        assert_eq!(changed("package x", &value("1.0", "a"), &value("1.1", "b")), "package x: 1.0 → 1.1");
        let same = "package x: 1.0 sha256:aaaaaaaaaaaa → 1.0 sha256:bbbbbbbbbbbb";
        assert_eq!(changed("package x", &value("1.0", "a"), &value("1.0", "b")), same);
        assert_eq!(changed("user", "", "www-data"), "user: nothing → www-data");
    }
}
