//! `drystone doctor`: what this machine allows, and what would help.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drystone::apt::mirror::Mirrors;
use drystone::doctor::{Check, Question, Report, SandboxCheck, Status, examine};
use drystone::error::chain;
use drystone::load::{FAMILY_FILE, load};
use oci::Registry;
use spec::{AptIndex, Family};

use crate::args::{Doctor, Output, ReportFormat};
use crate::failure::{Failure, colors_on};
use crate::{registries, session};

/// How long mirrors and the registry may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The suite that is asked for where no family says which.
const USUAL_SUITE: &str = "bookworm";

/// Runs the command.
pub fn run(arguments: &Doctor, output: Output) -> Result<(), Failure> {
    let report = examine(&question(arguments)?);
    session::print(&match arguments.format {
        ReportFormat::Table => table(&report, colors_on(&std::io::stdout(), output.color)),
        ReportFormat::Json => serde_json::to_string_pretty(&report).map_err(Failure::of)? + "\n",
    })?;
    if report.runs_commands() {
        return Ok(());
    }
    let hint = "the fixes above; images that need no commands can be built as it is";
    Err(Failure::with_hint("nothing can be run in images on this machine: no sandbox but `none` works", hint))
}

fn question(arguments: &Doctor) -> Result<Question, Failure> {
    let family = family(arguments)?;
    let of_family = |family: &Family| family.registry.as_str().parse::<Registry>().ok();
    let named = session::named_mirrors(&arguments.mirror)?;
    let named_by = if named.is_some() { "--mirror or DRYSTONE_MIRROR" } else { session::HOST_APT };
    let of_host = || Mirrors::of_host(Path::new(session::HOST_APT)).map_err(|error| chain(&error));
    Ok(Question {
        mirrors: named.map_or_else(of_host, Ok),
        named_by,
        suites: family.as_ref().map_or_else(|| vec![USUAL_SUITE.to_owned()], suites),
        registry: arguments.registry.clone().or_else(|| family.as_ref().and_then(of_family)),
        reach: registries::options_with_kept_credentials(&arguments.registries)?,
        // Not to know where is a finding of its own.
        cache: session::cache_directory(arguments.cache.cache_dir.as_deref()).ok(),
        layout: arguments.layout.layout.clone(),
        now: session::now(),
        patience: PATIENCE,
    })
}

/// The family that was named, or the one in this directory. That one may be broken: nobody asked about it.
fn family(arguments: &Doctor) -> Result<Option<Family>, Failure> {
    let variables = session::variables(&arguments.set);
    match &arguments.family {
        Some(directory) => Ok(Some(load(directory, &variables)?.family)),
        None if Path::new(FAMILY_FILE).is_file() => {
            Ok(load(&PathBuf::from("."), &variables).ok().map(|loaded| loaded.family))
        }
        None => Ok(None),
    }
}

/// The suites that a family leaves to the mirror.
fn suites(family: &Family) -> Vec<String> {
    let mut suites = Vec::new();
    for source in family.sources.iter().filter(|source| source.url.is_none()) {
        let AptIndex::Suites { suites: of_source, .. } = &source.index else { continue };
        suites.extend(of_source.iter().map(|suite| suite.value.clone()));
    }
    suites.sort();
    suites.dedup();
    suites
}

/// Two tables: the sandboxes, and everything else; below each line that calls for it, what to do.
fn table(report: &Report, colored: bool) -> String {
    let names = report.sandboxes.iter().map(|sandbox| sandbox.sandbox.name().len());
    let names = names.chain(report.checks.iter().map(|check| check.name.chars().count()));
    let layout = Layout { width: names.max().unwrap_or(0), colored };
    let mut text = String::new();
    layout.heading("SANDBOX", "WORKS", &mut text);
    for SandboxCheck { sandbox, works, check } in &report.sandboxes {
        let word = if *works { "yes" } else { "no" };
        layout.line(sandbox.name(), word, check, &mut text);
    }
    text.push('\n');
    layout.heading("CHECK", "STATUS", &mut text);
    for check in &report.checks {
        layout.line(&check.name, check.status.name(), check, &mut text);
    }
    text
}

struct Layout {
    /// Of the first column.
    width: usize,
    colored: bool,
}

/// Of the second column.
const STATUS_WIDTH: usize = 6;

impl Layout {
    fn heading(&self, name: &str, status: &str, text: &mut String) {
        let width = self.width;
        let _ = writeln!(text, "{name:<width$}   {status:<STATUS_WIDTH$}   FOUND");
    }

    fn line(&self, name: &str, word: &str, check: &Check, text: &mut String) {
        let width = self.width;
        let status = self.painted(&format!("{word:<STATUS_WIDTH$}"), check.status);
        let _ = writeln!(text, "{name:<width$}   {status}   {}", check.found);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:<width$}   {:<STATUS_WIDTH$}   fix: {fix}", "", "");
        }
    }

    fn painted(&self, word: &str, status: Status) -> String {
        let color = match status {
            Status::Ok => 32,
            Status::Warn => 33,
            Status::Fail => 31,
            Status::Info => 36,
        };
        if self.colored { format!("\u{1b}[{color}m{word}\u{1b}[0m") } else { word.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use sandbox::Rung;

    use super::*;

    fn report() -> Report {
        let check = |name: &str, status, found: &str, fix: Option<&str>| Check {
            name: name.to_owned(),
            status,
            found: found.to_owned(),
            fix: fix.map(str::to_owned),
        };
        Report {
            taken: Rung::Root,
            sandboxes: vec![
                SandboxCheck {
                    sandbox: Rung::Root,
                    works: true,
                    check: check("sandbox root", Status::Ok, "`auto` takes it", None),
                },
                SandboxCheck {
                    sandbox: Rung::Userns,
                    works: false,
                    check: check("sandbox userns", Status::Info, "no ids", Some("get some")),
                },
            ],
            checks: vec![check("cache space", Status::Warn, "1.0 GiB free", None)],
        }
    }

    #[test]
    fn the_tables_have_a_line_for_each_check_and_one_for_its_fix() {
        let expected = "\
SANDBOX       WORKS    FOUND
root          yes      `auto` takes it
userns        no       no ids
                       fix: get some

CHECK         STATUS   FOUND
cache space   warn     1.0 GiB free
";
        assert_eq!(table(&report(), false), expected);
    }

    #[test]
    fn colours_are_only_added() {
        let colored = table(&report(), true);
        assert!(colored.contains("\u{1b}[33mwarn  \u{1b}[0m   1.0 GiB free"), "{colored}");
        let mut plain = colored.replace("\u{1b}[0m", "");
        for color in [31, 32, 33, 36] {
            plain = plain.replace(&format!("\u{1b}[{color}m"), "");
        }
        assert_eq!(plain, table(&report(), false));
    }
}
