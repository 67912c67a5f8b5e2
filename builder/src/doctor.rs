//! What this machine allows: the sandboxes, the kernel behind them, the directories, the mirror and the registry.
//!
//! Everything is looked at and nothing changed: no directory is made, no file written, and only the start of an archive
//! and of a registry are asked for. What takes longer than the caller's patience counts as no answer.

mod machine;
mod network;
mod place;

use std::path::PathBuf;
use std::time::Duration;

use oci::Registry;
use registry_client::Options;
use sandbox::{Rung, RungReport};
use serde::Serialize;

use crate::apt::mirror::Mirrors;

/// What is to be looked at.
#[derive(Clone)]
pub struct Question {
    /// Where suites are, or why that cannot be known.
    pub mirrors: Result<Mirrors, String>,
    /// Who named the mirrors, such as `--mirror`.
    pub named_by: &'static str,
    /// Which suites are asked for.
    pub suites: Vec<String>,
    /// Where images would be pushed, if that is known.
    pub registry: Option<Registry>,
    /// How registries are reached.
    pub reach: Options,
    /// The cache's directory, if it is known.
    pub cache: Option<PathBuf>,
    /// The layout's directory.
    pub layout: PathBuf,
    /// Seconds since 1970.
    pub now: i64,
    /// How long mirrors and the registry may take to answer.
    pub patience: Duration,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but not well, or not always.
    Warn,
    /// Builds that need it will fail.
    Fail,
    /// Neither good nor bad.
    Info,
}

impl Status {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Info => "info",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at; no two checks of a report have the same name.
    #[serde(rename = "check")]
    pub name: String,
    /// How it is.
    pub status: Status,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it, if anything has to be.
    pub fix: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, found: impl Into<String>) -> Self {
        Self { name: name.into(), status, found: found.into(), fix: None }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Whether one sandbox works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SandboxCheck {
    /// Its name on the command line.
    #[serde(serialize_with = "as_name")]
    pub sandbox: Rung,
    /// Whether it does.
    pub works: bool,
    /// The reason and the fix.
    #[serde(flatten)]
    pub check: Check,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The sandbox that a build takes unless it is told otherwise.
    #[serde(rename = "sandbox", serialize_with = "as_name")]
    pub taken: Rung,
    /// All of them, in the order in which they are tried.
    pub sandboxes: Vec<SandboxCheck>,
    /// Everything else.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether commands can be run in images.
    pub fn runs_commands(&self) -> bool {
        self.taken != Rung::None
    }
}

fn as_name<S: serde::Serializer>(rung: &Rung, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rung.name())
}

/// Looks at everything.
pub fn examine(question: &Question) -> Report {
    // The probes copy this process, so they come before its threads.
    let (taken, sandboxes) = sandboxes(&sandbox::probe());
    let asked = network::Asked::start(question);
    let mut checks = machine::checks(question.now);
    checks.extend(place::cache(question.cache.as_deref(), taken));
    checks.extend(place::layout(&question.layout));
    checks.extend(asked.answers());
    Report { taken, sandboxes, checks }
}

/// Which sandbox is taken, and how each is.
fn sandboxes(reports: &[RungReport]) -> (Rung, Vec<SandboxCheck>) {
    let taken = reports.iter().find(|report| report.usable.is_ok()).map_or(Rung::None, |report| report.rung);
    (taken, reports.iter().map(|report| of_rung(report, taken)).collect())
}

fn of_rung(report: &RungReport, taken: Rung) -> SandboxCheck {
    let rung = report.rung;
    let name = format!("sandbox {rung}");
    let check = match (&report.usable, rung) {
        (Ok(()), Rung::None) if taken == Rung::None => {
            let found = "`auto` takes it: nothing can be run; files, configuration, and packages without scripts only";
            Check::new(name, Status::Warn, found).fix("make one of the others work")
        }
        (Ok(()), Rung::None) => Check::new(name, Status::Ok, "always possible; runs nothing"),
        (Ok(()), _) if rung == taken => Check::new(name, Status::Ok, "`auto` takes it"),
        (Ok(()), _) => Check::new(name, Status::Ok, "works"),
        (Err(obstacle), _) => {
            let status = if taken == Rung::None { Status::Fail } else { Status::Info };
            Check::new(name, status, obstacle.to_string()).fix(obstacle.fix())
        }
    };
    SandboxCheck { sandbox: rung, works: report.usable.is_ok(), check }
}

#[cfg(test)]
mod tests {
    use sandbox::Obstacle;

    use super::*;

    fn reports(usable: [bool; 4]) -> Vec<RungReport> {
        let report = |(rung, usable): (Rung, bool)| RungReport {
            rung,
            usable: if usable { Ok(()) } else { Err(Obstacle::AppArmor) },
        };
        Rung::ALL.into_iter().zip(usable.into_iter().chain([true])).map(report).collect()
    }

    #[test]
    fn the_first_sandbox_that_works_is_taken_and_the_others_say_why_not() {
        let (taken, sandboxes) = sandboxes(&reports([false, false, true, true]));
        assert_eq!(taken, Rung::UsernsSingle);
        let works: Vec<bool> = sandboxes.iter().map(|sandbox| sandbox.works).collect();
        assert_eq!(works, [false, false, true, true, true]);
        let first = &sandboxes[0].check;
        assert_eq!((first.name.as_str(), first.status), ("sandbox root", Status::Info));
        assert_eq!(first.found, "AppArmor restricts unprivileged user namespaces");
        assert!(first.fix.as_ref().unwrap().contains("sysctl -w"));
        assert_eq!(sandboxes[2].check.found, "`auto` takes it");
    }

    #[test]
    fn where_nothing_can_be_run_the_sandboxes_have_failed() {
        let (taken, sandboxes) = sandboxes(&reports([false; 4]));
        assert_eq!(taken, Rung::None);
        let statuses: Vec<Status> = sandboxes.iter().map(|sandbox| sandbox.check.status).collect();
        assert_eq!(statuses, [Status::Fail, Status::Fail, Status::Fail, Status::Fail, Status::Warn]);
        assert!(!Report { taken, sandboxes, checks: Vec::new() }.runs_commands());
    }

    #[test]
    fn json_has_a_name_a_status_what_was_found_and_the_fix_for_each_entry() {
        let (taken, sandboxes) = sandboxes(&reports([false, false, true, false]));
        let checks = vec![Check::new("kernel", Status::Ok, "Linux 6.1")];
        let json = serde_json::to_value(Report { taken, sandboxes, checks }).unwrap();
        assert_eq!(json["sandbox"], "userns-single");
        assert_eq!(json["sandboxes"][0]["sandbox"], "root");
        assert_eq!(json["sandboxes"][0]["works"], false);
        assert_eq!(json["sandboxes"][0]["check"], "sandbox root");
        let expected = serde_json::json!({"check": "kernel", "status": "ok", "found": "Linux 6.1", "fix": null});
        assert_eq!(json["checks"][0], expected);
    }
}
