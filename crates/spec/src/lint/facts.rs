//! What several rules want to know of a Dockerfile.

use super::shell::{self, Simple};
use crate::dockerfile::{Dockerfile, Instruction, Kind, Run, Script, Stage};
use crate::source::{Located, Span};

/// What a stage is built on.
pub(super) enum Base<'a> {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image from elsewhere; its name may hold variables.
    Image(&'a Located<String>),
}

pub(super) fn base<'a>(dockerfile: &'a Dockerfile, number: usize) -> Base<'a> {
    let from = &dockerfile.stages[number].from;
    let name = from.to_ascii_lowercase();
    let is_it = |stage: &Stage| stage.name.as_ref().is_some_and(|own| own.value == name);
    match dockerfile.stages[..number].iter().position(is_it) {
        Some(earlier) => Base::Stage(earlier),
        None if name == "scratch" => Base::Scratch,
        None => Base::Image(from),
    }
}

/// An instruction, also one that waits for a child.
pub(super) fn instructions(dockerfile: &Dockerfile) -> impl Iterator<Item = &Instruction> {
    dockerfile.stages.iter().flat_map(|stage| &stage.instructions).map(|instruction| match &instruction.kind {
        Kind::Onbuild(onbuild) => &onbuild.instruction,
        _ => instruction,
    })
}

/// The commands of a `RUN`, whatever its form.
pub(super) fn commands(run: &Run) -> Vec<Simple> {
    match run.script() {
        Script::Shell(text) => shell::commands(&text),
        Script::Exec(words) => match words.as_slice() {
            [program, option, text] if program.ends_with("sh") && option == "-c" => shell::commands(text),
            _ => vec![Simple { words, is_piped: false }],
        },
        // Its first line names an interpreter: if that is a shell, the rest is a script.
        Script::File { text, .. } => match text.lines().next().is_some_and(|line| line.ends_with("sh")) {
            true => shell::commands(&text),
            false => Vec::new(),
        },
    }
}

/// The place of a word in an instruction, or of the instruction's name.
pub(super) fn place_of(instruction: &Instruction, word: &str) -> Span {
    let whole = &instruction.span;
    match whole.text().find(word) {
        Some(at) => {
            let start = whole.range().start + at;
            Span::new(whole.file(), start..start + word.len())
        }
        None => instruction.keyword.span.clone(),
    }
}
