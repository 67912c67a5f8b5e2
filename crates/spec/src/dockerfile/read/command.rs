//! Instructions that hold a command: `CMD`, `ENTRYPOINT`, `RUN`, `SHELL`, `HEALTHCHECK`.

use std::ops::Range;
use std::time::Duration;

use super::super::ast::{CommandForm, Healthcheck, Run, RunNetwork, RunSecurity};
use super::super::mount::MountFlag;
use super::super::{duration, words};
use super::{Parts, Reader};
use crate::diagnostic::{Diagnostic, quoted};
use crate::source::Located;
use crate::suggest::did_you_mean;

/// What Docker takes for a time at least.
const SHORTEST_TIME: Duration = Duration::from_millis(1);

impl Reader<'_> {
    /// `CMD` and `ENTRYPOINT`, whose argument may be absent: then it is an empty list.
    pub(super) fn command(&mut self, parts: &Parts<'_>) -> Option<CommandForm> {
        if parts.is_empty() {
            return Some(CommandForm::Exec(Located::new(Vec::new(), parts.keyword.span.clone())));
        }
        self.form(parts, parts.range.clone())
    }

    /// A list of strings is the exec form, a list of anything else is an error, and all else is for the shell: also
    /// what only looks like a list.
    fn form(&mut self, parts: &Parts<'_>, range: Range<usize>) -> Option<CommandForm> {
        let written = parts.line.part(range);
        if let Some(arguments) = words::json_list(&written.value) {
            return Some(CommandForm::Exec(Located::new(arguments, written.span)));
        }
        if words::is_json_list(&written.value) {
            let diagnostic = Diagnostic::new(written.span, "a list that holds something else than strings");
            self.report(diagnostic.label("expected strings between double quotes"));
            return None;
        }
        Some(CommandForm::Shell(written))
    }

    pub(super) fn run(&mut self, parts: &Parts<'_>) -> Option<Run> {
        if parts.is_empty() {
            self.missing(parts, "a command");
            return None;
        }
        let form = self.form(parts, parts.range.clone())?;
        if let CommandForm::Exec(arguments) = &form
            && arguments.is_empty()
        {
            let diagnostic = Diagnostic::new(arguments.span.clone(), "a command without a program");
            self.report(diagnostic.label("expected a program and its arguments"));
            return None;
        }
        let before = self.diagnostics.len();
        let mut mounts = Vec::new();
        for flag in parts.flags.values("mount") {
            match MountFlag::parse(&flag) {
                Ok(mount) => mounts.push(mount),
                Err(found) => self.diagnostics.extend(found),
            }
        }
        let networks = [("default", RunNetwork::Default), ("none", RunNetwork::None), ("host", RunNetwork::Host)];
        let network = self.choice(parts, "network", &networks);
        let securities = [("sandbox", RunSecurity::Sandbox), ("insecure", RunSecurity::Insecure)];
        let security = self.choice(parts, "security", &securities);
        let heredocs = match form {
            CommandForm::Shell(_) => parts.line.heredocs.clone(),
            CommandForm::Exec(_) => Vec::new(),
        };
        let devices = parts.flags.values("device");
        (self.diagnostics.len() == before).then_some(Run { form, heredocs, mounts, network, security, devices })
    }

    /// A flag whose value is one of a few words.
    fn choice<T: Copy>(&mut self, parts: &Parts<'_>, flag: &str, choices: &[(&str, T)]) -> Option<Located<T>> {
        let written = parts.flags.value(flag)?;
        match choices.iter().find(|(word, _)| *word == written.value) {
            Some((_, choice)) => Some(written.map(|_| *choice)),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                let title = format!("{} is no value for `--{flag}`", quoted(&written.value));
                let diagnostic = Diagnostic::new(written.span, title).label(format!("expected {}", words.join(" or ")));
                self.report(diagnostic.help_if(did_you_mean(&written.value, words)));
                None
            }
        }
    }

    pub(super) fn shell(&mut self, parts: &Parts<'_>) -> Option<Vec<String>> {
        if parts.is_empty() {
            self.missing(parts, "a list such as `[\"/bin/bash\", \"-c\"]`");
            return None;
        }
        match words::json_list(parts.text()) {
            Some(shell) if !shell.is_empty() => Some(shell),
            _ => {
                let diagnostic = Diagnostic::new(parts.rest().span, "SHELL takes a JSON list of strings");
                self.report(diagnostic.label("expected a list such as `[\"/bin/bash\", \"-c\"]`"));
                None
            }
        }
    }

    pub(super) fn healthcheck(&mut self, parts: &Parts<'_>) -> Option<Healthcheck> {
        let Some(kind) = words::plain(&parts.line.text, parts.range.clone()).into_iter().next() else {
            self.missing(parts, "`NONE`, or `CMD` and a command");
            return None;
        };
        let rest = kind.end..parts.range.end;
        let command = rest.end - parts.line.text[rest.clone()].trim_start().len()..rest.end;
        let word = parts.line.part(kind);
        match word.to_ascii_uppercase().as_str() {
            "NONE" if command.is_empty() => Some(Healthcheck::None),
            "NONE" => {
                let diagnostic = Diagnostic::new(parts.line.place(command), "HEALTHCHECK NONE has an argument");
                self.report(diagnostic.label("expected nothing here"));
                None
            }
            "CMD" => self.check(parts, command),
            _ => {
                let title = format!("{} is no kind of health check", quoted(&word.value));
                let diagnostic = Diagnostic::new(word.span.clone(), title).label("expected `CMD` or `NONE`");
                self.report(diagnostic.help_if(did_you_mean(&word.to_ascii_uppercase(), ["CMD", "NONE"])));
                None
            }
        }
    }

    fn check(&mut self, parts: &Parts<'_>, command: Range<usize>) -> Option<Healthcheck> {
        if command.is_empty() || words::json_list(&parts.line.text[command.clone()]).is_some_and(|list| list.is_empty())
        {
            let diagnostic = Diagnostic::new(parts.rest().span, "HEALTHCHECK CMD has no command");
            self.report(diagnostic.label("expected a command after it"));
            return None;
        }
        let before = self.diagnostics.len();
        let command = self.form(parts, command)?;
        let check = Healthcheck::Command {
            command,
            interval: self.time(parts, "interval"),
            timeout: self.time(parts, "timeout"),
            start_period: self.time(parts, "start-period"),
            start_interval: self.time(parts, "start-interval"),
            retries: self.retries(parts),
        };
        (self.diagnostics.len() == before).then_some(check)
    }

    fn time(&mut self, parts: &Parts<'_>, flag: &str) -> Option<Duration> {
        let written = parts.flags.value(flag)?;
        let time = duration::parse(&written.value).filter(|time| time.is_zero() || *time >= SHORTEST_TIME);
        if time.is_none() {
            let title = format!("{} is no value for `--{flag}`", quoted(&written.value));
            let expected = "expected a time of at least 1ms, such as `30s` or `1m30s`";
            self.report(Diagnostic::new(written.span, title).label(expected));
        }
        time.filter(|time| !time.is_zero())
    }

    fn retries(&mut self, parts: &Parts<'_>) -> Option<u32> {
        let written = parts.flags.value("retries")?;
        let retries = written.parse::<i32>().ok().and_then(|retries| u32::try_from(retries).ok());
        if retries.is_none() {
            let title = format!("{} is no value for `--retries`", quoted(&written.value));
            self.report(Diagnostic::new(written.span, title).label("expected a number, zero or more"));
        }
        retries.filter(|retries| *retries > 0)
    }
}
