//! Lowers commands: of `run` and `on_build`, of health checks, entry points. Their words are left as they are.

use std::time::Duration;

use super::Lowering;
use crate::diagnostic::{Diagnostic, quoted};
use crate::model::{Command, CommandLine, Healthcheck, Mount, MountKind, Network};
use crate::source::{Located, Span};
use crate::value::ImagePath;
use crate::written::{
    CommandForm, DetailedCommand, HealthcheckFile, HealthcheckForm, MountItem, MountType, NetworkName, RunList, Written,
};

/// Where secrets are that have no target.
const SECRETS: &str = "/run/secrets";

impl Lowering<'_> {
    pub(super) fn commands(&mut self, directory: &str, written: Option<&RunList>) -> Vec<Command> {
        let list = written.map(|list| list.0.as_slice()).unwrap_or_default();
        list.iter().map(|run| self.command(directory, &run.value.0)).collect()
    }

    fn command(&mut self, directory: &str, written: &DetailedCommand) -> Command {
        let line = self.command_line(&written.command);
        let is_empty = match &line.value {
            CommandLine::Shell(line) => line.trim().is_empty(),
            CommandLine::Exec(arguments) => arguments.first().is_none_or(String::is_empty),
        };
        if is_empty {
            let diagnostic = Diagnostic::new(line.span.clone(), "this command is empty");
            self.report(diagnostic.label("expected something to run"));
        }
        Command {
            line,
            user: self.checked_option(&written.user),
            workdir: self.checked_option(&written.workdir),
            env: self.entries(&written.env),
            network: match &written.network {
                Some(network) if network.value == NetworkName::Host => Network::Host(self.span(network)),
                _ => Network::None,
            },
            mounts: written.mounts.iter().flatten().filter_map(|mount| self.mount(directory, mount)).collect(),
        }
    }

    pub(super) fn command_line(&mut self, written: &Written<CommandForm>) -> Located<CommandLine> {
        let span = self.span(written);
        let line = match &written.value {
            CommandForm::Shell(line) => {
                self.without_nul(line, &span);
                CommandLine::Shell(line.clone())
            }
            CommandForm::Exec(arguments) => {
                CommandLine::Exec(arguments.iter().map(|argument| self.raw(argument).value).collect())
            }
        };
        Located::new(line, span)
    }

    fn mount(&mut self, directory: &str, written: &Written<MountItem>) -> Option<Mount> {
        let span = self.span(written);
        let item = &written.value;
        let target = self.target(item, &span);
        self.check_mount_options(item);
        let kind = match (item.kind, &item.id, &item.source) {
            (MountType::Cache, id, _) => MountKind::Cache(id.as_ref().map(|id| self.text(id))),
            (MountType::Secret, Some(id), _) => MountKind::Secret(self.text(id)),
            (MountType::Secret, None, _) => {
                self.report(Diagnostic::new(span, "a secret has no name").label("expected `id:`"));
                return None;
            }
            (MountType::Tmpfs, _, _) => MountKind::Tmpfs,
            (MountType::Bind, _, Some(source)) => MountKind::Bind(self.family_path(directory, source)?),
            (MountType::Bind, _, None) => {
                self.report(Diagnostic::new(span, "a bind mount has no source").label("expected `source:`"));
                return None;
            }
        };
        Some(Mount { kind, target: target?, span })
    }

    /// Where a mount appears; a secret may leave it out.
    fn target(&mut self, item: &MountItem, span: &Span) -> Option<Located<ImagePath>> {
        match (&item.target, &item.id) {
            (Some(target), _) => self.checked(target),
            (None, Some(id)) if item.kind == MountType::Secret => {
                let id = self.text(id);
                let path = (!id.contains('/')).then(|| format!("{SECRETS}/{}", id.value).parse().ok()).flatten();
                if path.is_none() {
                    let diagnostic = Diagnostic::new(id.span.clone(), format!("{} is not a file name", quoted(&id)));
                    self.report(diagnostic.label("expected a name, or a `target:` beside it"));
                }
                Some(Located::new(path?, id.span))
            }
            // That a secret has no name is said elsewhere.
            (None, None) if item.kind == MountType::Secret => None,
            (None, _) => {
                self.report(Diagnostic::new(span.clone(), "this mount has no target").label("expected `target:`"));
                None
            }
        }
    }

    fn check_mount_options(&mut self, item: &MountItem) {
        let takes_id = matches!(item.kind, MountType::Cache | MountType::Secret);
        if let Some(id) = item.id.as_ref().filter(|_| !takes_id) {
            let diagnostic = Diagnostic::new(self.span(id), "this kind of mount has no `id`");
            self.report(diagnostic.label("expected for `cache` and `secret` only"));
        }
        if let Some(source) = item.source.as_ref().filter(|_| item.kind != MountType::Bind) {
            let diagnostic = Diagnostic::new(self.span(source), "this kind of mount has no `source`");
            self.report(diagnostic.label("expected for `bind` only"));
        }
    }

    pub(super) fn healthcheck(&mut self, written: &Written<HealthcheckForm>) -> Located<Healthcheck> {
        let span = self.span(written);
        let check = match &written.value {
            HealthcheckForm::Word(word) => {
                if word != "none" {
                    let diagnostic = Diagnostic::new(span.clone(), format!("{} is not a health check", quoted(word)));
                    self.report(diagnostic.label("expected `none`, or a mapping with `command`"));
                }
                Healthcheck::Off
            }
            HealthcheckForm::Check(check) => self.check(check),
        };
        Located::new(check, span)
    }

    fn check(&mut self, written: &HealthcheckFile) -> Healthcheck {
        Healthcheck::Check {
            command: self.command_line(&written.command),
            interval: self.duration(written.interval.as_ref()),
            timeout: self.duration(written.timeout.as_ref()),
            start_period: self.duration(written.start_period.as_ref()),
            retries: written.retries.as_ref().map(|retries| retries.value),
        }
    }

    fn duration(&mut self, written: Option<&Written<String>>) -> Option<Duration> {
        let before = self.diagnostics.len();
        let text = self.text(written?);
        let duration = parse_duration(&text);
        if duration.is_none() && self.diagnostics.len() == before {
            let diagnostic = Diagnostic::new(text.span.clone(), format!("{} is not a time span", quoted(&text)));
            self.report(diagnostic.label("expected one such as `30s`, `1m30s` or `500ms`"));
        }
        duration
    }
}

/// Hours, minutes, seconds and milliseconds, each with its unit, at most a day altogether.
fn parse_duration(text: &str) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let length = match &rest[..unit] {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(length.checked_mul(number)?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty() && total <= LONGEST).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_numbers_with_units() {
        let cases = [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("24h", 86_400_000), ("0s", 0)];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "-1s", "25h", "99999999999h", "1 s", "4000000000h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
