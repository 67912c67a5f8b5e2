//! Which stages of a Dockerfile have to be built for one of them, and in which order: those that it is built on, that
//! it copies from, or that its commands see.

use std::collections::BTreeMap;

use oci::Platform;
use spec::dockerfile::{Arguments, Dockerfile, Instruction, Kind, MountType, Scope};
use spec::{Diagnostic, Span, did_you_mean};

use super::settings::text;
use crate::error::BuildError;

/// What a stage is built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, by its name.
    Image {
        /// As the Dockerfile has it, with variables in place.
        name: String,
        /// For which machine.
        platform: Platform,
    },
}

/// A stage and what it needs.
#[derive(Clone, Debug)]
pub struct Need {
    /// Its place in the Dockerfile.
    pub stage: usize,
    /// What it is built on.
    pub origin: Origin,
    /// The stages that must be there first, by their places in the Dockerfile.
    pub stages: Vec<usize>,
    /// The images that it is built on or takes files from.
    pub images: Vec<NeededImage>,
}

/// An image that a stage needs.
#[derive(Clone, Debug)]
pub struct NeededImage {
    /// As the Dockerfile has it, with variables in place.
    pub name: String,
    /// For which machine.
    pub platform: Platform,
    /// Where it is asked for.
    pub span: Span,
}

/// The name that means nothing.
const SCRATCH: &str = "scratch";

/// The stage to build: the one called `target`, or the last.
pub fn target(dockerfile: &Dockerfile, target: Option<&str>) -> Result<usize, BuildError> {
    let Some(name) = target else { return Ok(dockerfile.stages.len() - 1) };
    dockerfile.stage(name).ok_or_else(|| {
        let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref());
        let names: Vec<&str> = names.map(|name| name.value.as_str()).collect();
        let title = format!("there is no stage `{name}`");
        let help = match (did_you_mean(name, names.iter().copied()), names.is_empty()) {
            (Some(question), _) => question,
            (None, true) => format!("no stage has a name; numbers go up to {}", dockerfile.stages.len() - 1),
            (None, false) => format!("there are: {}", names.join(", ")),
        };
        BuildError::at(&Span::start_of(&dockerfile.file), title, help)
    })
}

/// The stages that `target` needs, and it last; each after those that it needs itself.
pub fn needs(
    dockerfile: &Dockerfile,
    target: usize,
    arguments: &Arguments,
    platform: &Platform,
) -> Result<Vec<Need>, BuildError> {
    let mut found: BTreeMap<usize, Need> = BTreeMap::new();
    let mut waiting = vec![target];
    while let Some(stage) = waiting.pop() {
        if found.contains_key(&stage) {
            continue;
        }
        let need = need(dockerfile, stage, arguments, platform)?;
        waiting.extend(need.stages.iter().copied());
        found.insert(stage, need);
    }
    // A stage can only need earlier ones, so their order in the file will do.
    Ok(found.into_values().collect())
}

fn need(dockerfile: &Dockerfile, place: usize, arguments: &Arguments, platform: &Platform) -> Result<Need, BuildError> {
    let stage = &dockerfile.stages[place];
    let global = arguments.global();
    let name = text(global, &stage.from)?;
    if name.trim().is_empty() {
        let title = format!("`{}` is empty once its variables are in place", stage.from.value);
        return Err(BuildError::at(&stage.from.span, title, "give the ARG before FROM a default, or use --build-arg"));
    }
    let target = platform;
    let platform = match &stage.platform {
        None => platform.clone(),
        Some(written) => {
            let wanted = text(global, written)?;
            wanted.parse().map_err(|error: oci::PlatformError| BuildError::at(&written.span, error.to_string(), ""))?
        }
    };
    let origin = match named_before(dockerfile, &name, place) {
        Some(stage) => Origin::Stage(stage),
        None if name == SCRATCH => Origin::Scratch,
        None => Origin::Image { name, platform },
    };
    let mut stages: Vec<usize> = match &origin {
        Origin::Stage(stage) => vec![*stage],
        Origin::Scratch | Origin::Image { .. } => Vec::new(),
    };
    let mut images = Vec::new();
    if let Origin::Image { name, platform } = &origin {
        images.push(NeededImage { name: name.clone(), platform: platform.clone(), span: stage.from.span.clone() });
    }
    for instruction in &stage.instructions {
        for reference in references(instruction, global)? {
            if stage_at(dockerfile, &reference, place + 1) == Some(place) {
                let diagnostic = Diagnostic::new(
                    instruction.span.clone(),
                    format!("the stage `{reference}` takes files from itself"),
                );
                return Err(BuildError::Spec(diagnostic.help("`--from` names an earlier stage, or an image").into()));
            }
            match stage_at(dockerfile, &reference, place) {
                Some(stage) => stages.push(stage),
                None => {
                    let (platform, span) = (target.clone(), instruction.span.clone());
                    images.push(NeededImage { name: reference, platform, span });
                }
            }
        }
    }
    stages.sort_unstable();
    stages.dedup();
    Ok(Need { stage: place, origin, stages, images })
}

/// The last stage of that name among the first `count`.
fn named_before(dockerfile: &Dockerfile, name: &str, count: usize) -> Option<usize> {
    let is_it = |own: &spec::Located<String>| own.value.eq_ignore_ascii_case(name);
    dockerfile.stages[..count].iter().rposition(|stage| stage.name.as_ref().is_some_and(is_it))
}

/// The stage that `--from` means, by name or number, among the first `count`.
pub fn stage_at(dockerfile: &Dockerfile, reference: &str, count: usize) -> Option<usize> {
    let by_number = || reference.parse::<usize>().ok().filter(|number| *number < count);
    named_before(dockerfile, reference, count).or_else(by_number)
}

/// Whether a stage further down has this name: what somebody meant who could not have it.
pub fn stands_further_down(dockerfile: &Dockerfile, name: &str, place: usize) -> bool {
    dockerfile
        .stages
        .iter()
        .skip(place + 1)
        .any(|stage| stage.name.as_ref().is_some_and(|own| own.value.eq_ignore_ascii_case(name)))
}

/// The stages or images that an instruction takes files from, as far as that is written without the stage's own
/// variables, which `--from` may not have.
fn references(instruction: &Instruction, global: &Scope) -> Result<Vec<String>, BuildError> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.iter().map(|from| text(global, from)).collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .map(|mount| {
                let mount = mount.resolve(global).map_err(BuildError::Spec)?;
                let takes = matches!(mount.kind, MountType::Bind | MountType::Cache);
                Ok(mount.from.filter(|_| takes))
            })
            .filter_map(Result::transpose)
            .collect(),
        _ => Ok(Vec::new()),
    }
}
