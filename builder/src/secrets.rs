//! Secrets of a build: given by name, seen by commands that ask for them, and by nobody else.
//!
//! A value is in memory only. It is in no key, so that a command does not run again because a secret has changed; it is
//! not shown by debug output ([`Hidden`]), and what commands print is searched for it ([`Redactor`]).

use std::collections::{BTreeMap, HashMap};

use sandbox::Hidden;
use spec::{Command, Located, MountKind, Span, Step};

use crate::error::BuildError;
use crate::output::printable;
use crate::plan::Plan;

/// What stands where a secret was.
const MASK: &[u8] = b"***";

/// Shorter texts are not looked for: they would be found everywhere.
const SHORTEST: usize = 4;

/// The secrets that a build was given, by name.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    by_name: BTreeMap<String, Hidden>,
}

impl Secrets {
    /// Adds one; false if there is one of that name.
    pub fn add(&mut self, name: impl Into<String>, value: Vec<u8>) -> bool {
        let before = self.by_name.len();
        self.by_name.entry(name.into()).or_insert(Hidden::new(value));
        self.by_name.len() > before
    }

    /// The secret that a mount asks for; without it an error at the place of the mount.
    pub fn get(&self, name: &Located<String>) -> Result<&Hidden, BuildError> {
        self.find(&name.value).ok_or_else(|| self.missing(&name.value, &name.span))
    }

    /// The secret of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Hidden> {
        self.by_name.get(name)
    }

    /// An error at the place that asks for a secret which is not there.
    pub fn missing(&self, name: &str, span: &Span) -> BuildError {
        let title = format!("the build was not given the secret `{name}`");
        let help = format!("pass it: `--secret id={name},src=FILE` or `--secret id={name},env=VARIABLE`");
        let given: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        let given = if given.is_empty() { String::new() } else { format!("; those given are: {}", given.join(", ")) };
        BuildError::at(span, title, help + &given)
    }

    /// An error at the first place of a plan that asks for a secret which is not there. Looking at it first spares
    /// somebody the half of a build.
    pub fn check(&self, plan: &Plan<'_>) -> Result<(), BuildError> {
        for planned in &plan.images {
            let from_parent = planned.parent.map(|parent| plan.images[parent].image.on_build.as_slice());
            let own = planned.image.steps.iter().filter_map(|step| match step {
                Step::Run(command) => Some(command.as_ref()),
                Step::Packages(_) | Step::Groups(_) | Step::Users(_) | Step::Files(_) => None,
            });
            from_parent.into_iter().flatten().chain(own).try_for_each(|command| self.check_command(command))?;
        }
        Ok(())
    }

    fn check_command(&self, command: &Command) -> Result<(), BuildError> {
        command.mounts.iter().try_for_each(|mount| match &mount.kind {
            MountKind::Secret(name) => self.get(name).map(drop),
            MountKind::Cache(_) | MountKind::Tmpfs | MountKind::Bind(_) => Ok(()),
        })
    }

    /// What finds these secrets in texts.
    pub fn redactor(&self) -> Redactor {
        Redactor::new(self.by_name.values().map(Hidden::reveal))
    }
}

/// Finds secrets in lines of text. A secret of several lines is looked for line by line.
#[derive(Default)]
pub struct Redactor {
    /// By their first bytes.
    needles: HashMap<[u8; SHORTEST], Vec<Vec<u8>>>,
    longest: usize,
}

impl Redactor {
    fn new<'s>(secrets: impl Iterator<Item = &'s [u8]>) -> Self {
        let mut redactor = Self::default();
        for line in secrets.flat_map(|secret| secret.split(|byte| *byte == b'\n')) {
            redactor.look_for(line);
            redactor.look_for(line.trim_ascii());
            // As it looks once what would upset a terminal has been taken out.
            redactor.look_for(printable(&String::from_utf8_lossy(line)).trim().as_bytes());
        }
        redactor
    }

    fn look_for(&mut self, needle: &[u8]) {
        let Some(first) = needle.first_chunk::<SHORTEST>() else { return };
        let known = self.needles.entry(*first).or_default();
        if !known.iter().any(|other| other == needle) {
            known.push(needle.to_vec());
            self.longest = self.longest.max(needle.len());
        }
    }

    /// Bytes of the longest text that is looked for.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The text without secrets. Everything that any of them covers is replaced, also where they overlap.
    pub fn redact(&self, text: &[u8]) -> Vec<u8> {
        let mut redacted = Vec::with_capacity(text.len());
        let mut covered = 0;
        for place in 0..text.len() {
            let rest = &text[place..];
            let needles = rest.first_chunk().and_then(|first| self.needles.get(first));
            let found = needles.into_iter().flatten().filter(|needle| rest.starts_with(needle)).map(Vec::len).max();
            if let Some(length) = found {
                if place >= covered {
                    redacted.extend_from_slice(MASK);
                }
                covered = covered.max(place + length);
            }
            if place >= covered {
                redacted.push(text[place]);
            }
        }
        redacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are_and_however_they_overlap() {
        let mut secrets = Secrets::default();
        for (name, value) in [("a", "hunter22\n"), ("b", "22secret"), ("c", "-----KEY-----\r\nabc\n  body  \n")] {
            assert!(secrets.add(name, value.into()));
        }
        assert!(!secrets.add("a", Vec::new()), "a second one of the same name");
        let cases = [
            ("token hunter22!", "token ***!"),
            ("hunter22hunter22", "******"),
            ("hunter22secret", "***"),
            ("-----KEY-----", "***"),
            ("abc", "abc"),
            ("[  body  ] [body]", "[***] [***]"),
            ("hunter2", "hunter2"),
            ("", ""),
        ];
        for (text, expected) in cases {
            let redacted = secrets.redactor().redact(text.as_bytes());
            assert_eq!(String::from_utf8(redacted).unwrap(), expected, "{text}");
        }
        assert!(!format!("{secrets:?}").contains("hunter"), "{secrets:?}");
    }
}
