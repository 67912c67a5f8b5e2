//! Rules about how instructions are written.

use super::facts::{Base, base, instructions};
use super::{Finder, rules};
use crate::diagnostic::{Diagnostic, quoted};
use crate::dockerfile::{CommandForm, Dockerfile, Instruction, Kind, Pairs, Stage};
use crate::source::{Located, Span};

pub(super) fn look(dockerfile: &Dockerfile, finder: &mut Finder) {
    for place in &dockerfile.empty_continuations {
        let title = "an empty line inside of an instruction";
        finder.find(&rules::NO_EMPTY_CONTINUATION, place, title, "expected text, a comment, or no line");
    }
    casing(dockerfile, finder);
    for instruction in instructions(dockerfile) {
        match &instruction.kind {
            Kind::Maintainer(_) => {
                let title = "MAINTAINER is deprecated";
                let label = "expected `LABEL org.opencontainers.image.authors=…`";
                finder.find(&rules::MAINTAINER_DEPRECATED, &instruction.keyword.span, title, label);
            }
            Kind::Env(pairs) | Kind::Label(pairs) => legacy(instruction, pairs, finder),
            Kind::Expose(ports) => ports.iter().for_each(|port| expose(port, finder)),
            _ => {}
        }
    }
    for (number, stage) in dockerfile.stages.iter().enumerate() {
        repeated(stage, finder);
        command_forms(stage, finder);
        workdir(dockerfile, number, finder);
    }
}

/// Keywords in letters other than most of the file's.
fn casing(dockerfile: &Dockerfile, finder: &mut Finder) {
    let keywords: Vec<&Located<String>> = dockerfile
        .stages
        .iter()
        .flat_map(|stage| [&stage.keyword].into_iter().chain(stage.instructions.iter().map(|found| &found.keyword)))
        .collect();
    let is_upper = |word: &str| word == word.to_ascii_uppercase();
    let is_lower = |word: &str| word == word.to_ascii_lowercase();
    let lower = keywords.iter().filter(|word| is_lower(word)).count();
    let upper = keywords.iter().filter(|word| is_upper(word)).count();
    let prefers_lower = lower > upper;
    for keyword in keywords {
        let wanted = if prefers_lower { keyword.to_ascii_lowercase() } else { keyword.to_ascii_uppercase() };
        if keyword.value != wanted {
            let title = format!("{} is in other letters than the other instructions", quoted(keyword));
            let label = format!("expected {}", quoted(&wanted));
            finder.find(&rules::CONSISTENT_INSTRUCTION_CASING, &keyword.span, title, label);
        }
    }
}

fn legacy(instruction: &Instruction, pairs: &Pairs, finder: &mut Finder) {
    if let ([pair], true) = (pairs.list.as_slice(), pairs.is_legacy) {
        let name = instruction.keyword.to_ascii_uppercase();
        let place = Span::new(pair.key.span.file(), pair.key.span.range().start..pair.value.span.range().end);
        let value = &pair.value.value;
        let value = if value.contains(char::is_whitespace) { format!("{value:?}") } else { value.clone() };
        let title = format!("{name} with a blank between name and value");
        let label = format!("expected {}", quoted(&format!("{}={value}", pair.key.value)));
        finder.find(&rules::LEGACY_KEY_VALUE_FORMAT, &place, title, label);
    }
}

fn expose(port: &Located<String>, finder: &mut Finder) {
    if let Some((_, protocol)) = port.split_once('/')
        && !protocol.contains('$')
        && protocol != protocol.to_ascii_lowercase()
    {
        let title = format!("the protocol {} is not in lower case", quoted(protocol));
        let label = format!("expected {}", quoted(&port.to_ascii_lowercase()));
        finder.find(&rules::EXPOSE_PROTO_CASING, &port.span, title, label);
    }
    // A colon outside of a variable.
    if port.contains(':') && !port.contains('$') {
        let title = format!("{} names an address or a port of the machine", quoted(port));
        finder.find(&rules::EXPOSE_INVALID_FORMAT, &port.span, title, "expected a port of the container, `80/tcp`");
    }
}

/// Of these the last one counts.
fn repeated(stage: &Stage, finder: &mut Finder) {
    let name = |instruction: &Instruction| match instruction.kind {
        Kind::Cmd(_) => Some("CMD"),
        Kind::Entrypoint(_) => Some("ENTRYPOINT"),
        Kind::Healthcheck(_) => Some("HEALTHCHECK"),
        _ => None,
    };
    for (at, instruction) in stage.instructions.iter().enumerate() {
        let Some(kind) = name(instruction) else { continue };
        let last = stage.instructions[at + 1..].iter().rfind(|later| name(later) == Some(kind));
        let Some(last) = last else { continue };
        finder.report(
            &rules::MULTIPLE_INSTRUCTIONS_DISALLOWED,
            Diagnostic::new(instruction.keyword.span.clone(), format!("this {kind} has no effect"))
                .label("expected only one in a stage")
                .related(last.keyword.span.clone(), "the last one counts"),
        );
    }
}

fn command_forms(stage: &Stage, finder: &mut Finder) {
    // Who names a shell wants it.
    let has_shell = stage.instructions.iter().any(|instruction| matches!(instruction.kind, Kind::Shell(_)));
    for instruction in &stage.instructions {
        let (name, form) = match &instruction.kind {
            Kind::Cmd(form) => ("CMD", form),
            Kind::Entrypoint(form) => ("ENTRYPOINT", form),
            _ => continue,
        };
        let CommandForm::Shell(text) = form else { continue };
        if !has_shell {
            let title = format!("{name} is a text for a shell: signals do not reach the program");
            finder.find(
                &rules::JSON_ARGS_RECOMMENDED,
                &text.span,
                title,
                "expected a list, `[\"program\", \"argument\"]`",
            );
        }
        if name == "ENTRYPOINT" {
            let title = "an entry point in a shell ignores CMD and the arguments of `run`";
            finder.find(&rules::SHELL_FORM_ENTRYPOINT, &text.span, title, "expected a list");
        }
    }
}

fn workdir(dockerfile: &Dockerfile, number: usize, finder: &mut Finder) {
    let directories = |number: usize| {
        dockerfile.stages[number].instructions.iter().filter_map(|instruction| match &instruction.kind {
            Kind::Workdir(path) => Some(path),
            _ => None,
        })
    };
    let Some(first) = directories(number).next() else { return };
    let mut below = number;
    while let Base::Stage(earlier) = base(dockerfile, below) {
        if directories(earlier).next().is_some() {
            return;
        }
        below = earlier;
    }
    if !first.starts_with(['/', '$', '\\']) && !first.trim_start_matches(['"', '\'']).starts_with(['/', '$']) {
        let title = format!("the directory {} depends on that of the base image", quoted(first));
        finder.find(&rules::WORKDIR_RELATIVE_PATH, &first.span, title, "expected a path from `/`");
    }
}
