//! Variables that are used and have never been given a value.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Base, base};
use super::stages::platform;
use super::{Finder, rules};
use crate::diagnostic::{Diagnostic, quoted};
use crate::dockerfile::{Arguments, Dockerfile, Instruction, Kind, PLATFORM_ARGUMENTS, PROXY_ARGUMENTS, Scope};
use crate::source::{Located, Span};
use crate::suggest::did_you_mean;

/// What images have, if anyone sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn look(dockerfile: &Dockerfile, finder: &mut Finder) {
    // Values may need what only the caller has; then there is nothing to say here.
    let Ok(arguments) = Arguments::read(dockerfile, BTreeMap::new(), platform()) else { return };
    let mut scopes: Vec<Scope> = Vec::new();
    for number in 0..dockerfile.stages.len() {
        let escape = dockerfile.directives.escape;
        let (scope, is_known) = match base(dockerfile, number) {
            Base::Stage(earlier) => (scopes[earlier].clone(), true),
            Base::Scratch => (Scope::new(escape).with_environment(path()), true),
            Base::Image(_) => (Scope::new(escape).with_environment(path()), false),
        };
        let mut looker = Looker { arguments: &arguments, scope, is_known, finder };
        dockerfile.stages[number].instructions.iter().for_each(|instruction| looker.instruction(instruction));
        scopes.push(looker.scope);
    }
}

fn path() -> [(String, String); 1] {
    [("PATH".to_owned(), DEFAULT_PATH.to_owned())]
}

struct Looker<'a> {
    arguments: &'a Arguments,
    scope: Scope,
    /// Whether nothing comes from an image that was not looked at.
    is_known: bool,
    finder: &'a mut Finder,
}

impl Looker<'_> {
    fn instruction(&mut self, instruction: &Instruction) {
        // All words of an instruction see the values from before it.
        for word in instruction.words() {
            self.word(word);
        }
        if let Kind::Run(run) = &instruction.kind {
            run.mounts.iter().flat_map(|mount| mount.texts()).for_each(|text| self.word(&text));
        }
        match &instruction.kind {
            Kind::Env(pairs) => {
                let values: Vec<(String, String)> = pairs
                    .list
                    .iter()
                    .filter_map(|pair| {
                        let key = self.scope.expand(&pair.key).ok()?.value.text;
                        Some((key, self.scope.expand(&pair.value).ok()?.value.text))
                    })
                    .collect();
                values.into_iter().for_each(|(key, value)| self.scope.set(&key, value));
            }
            Kind::Arg(arguments) => {
                for argument in arguments {
                    // What a missing value would do is the build's to say.
                    if self.arguments.declare(argument, &mut self.scope).is_err() {
                        self.scope.declare(&argument.name, None);
                    }
                }
            }
            _ => {}
        }
    }

    fn word(&mut self, word: &Located<String>) {
        let Ok(expanded) = self.scope.expand(word) else { return };
        for name in unknown(&expanded.unset, &self.scope) {
            let title = match self.is_known {
                true => format!("the variable {} is set nowhere", quoted(name)),
                false => format!("the variable {} is set nowhere, unless by the base image", quoted(name)),
            };
            let label = match PLATFORM_ARGUMENTS.contains(&name.as_str()) {
                true => format!("expected an `ARG {name}` in this stage"),
                false => format!("expected an `ARG {name}` or `ENV {name}=…` before"),
            };
            let diagnostic = Diagnostic::new(place(word, name), title).label(label);
            self.finder.report(&rules::UNDEFINED_VAR, diagnostic.help_if(did_you_mean(name, self.scope.names())));
        }
    }
}

fn unknown<'a>(unset: &'a BTreeSet<String>, scope: &'a Scope) -> impl Iterator<Item = &'a String> {
    unset.iter().filter(|name| {
        // Signs such as `$@` are for a shell, and a number is no name.
        let is_name = name.starts_with(|first: char| first.is_alphabetic() || first == '_');
        is_name && !scope.declares(name) && !PROXY_ARGUMENTS.contains(&name.as_str())
    })
}

/// Where the name stands in the word.
fn place(word: &Located<String>, name: &str) -> Span {
    let text = word.span.text();
    let at = text.match_indices(name).map(|(at, _)| at).find(|at| text[..*at].ends_with(['$', '{']));
    match at {
        Some(at) => {
            let start = word.span.range().start + at;
            Span::new(word.span.file(), start..start + name.len())
        }
        None => word.span.clone(),
    }
}
