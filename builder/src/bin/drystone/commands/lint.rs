//! `drystone lint`: what is allowed, and better not done.

use std::path::PathBuf;

use drystone::lint::{LintError, json, lint, sarif};
use spec::lint::{RULES, Rule, Selection, Severity, UnknownRule};

use crate::args::{Lint, LintFormat, Output};
use crate::failure::{Failure, colors_on};
use crate::session::{print, variables};
use crate::table::columns;

/// Runs the command.
pub fn run(arguments: &Lint, output: Output) -> Result<(), Failure> {
    if let Some(name) = &arguments.explain {
        let rule = Rule::find(name).ok_or_else(|| Failure::Usage(UnknownRule::new(name).to_string()))?;
        return print(rule.page);
    }
    if arguments.rules {
        return print(&list());
    }
    let (skip, enable) = (&arguments.skip, &arguments.enable);
    let selection = Selection::new(skip.iter().map(String::as_str), enable.iter().map(String::as_str))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let paths = match arguments.paths.as_slice() {
        [] => vec![PathBuf::from(".")],
        paths => paths.to_vec(),
    };
    let looked = lint(&paths, &variables(&arguments.set), &selection).map_err(|error| match error {
        LintError::Load(error) => error.into(),
        nothing => Failure::Usage(nothing.to_string()),
    })?;
    let report = &looked.report;
    match arguments.format {
        LintFormat::Text => {
            let color = colors_on(&std::io::stdout(), output.color);
            let drawn: Vec<String> = report.findings.iter().map(|finding| finding.render(color) + "\n").collect();
            print(&drawn.join("\n"))?;
        }
        LintFormat::Json => print(&(json(report).map_err(Failure::of)? + "\n"))?,
        LintFormat::Sarif => print(&(sarif(report).map_err(Failure::of)? + "\n"))?,
    }
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let files = counted(looked.files, "file");
    let summary = format!("{} and {} in {files}", counted(errors, "error"), counted(warnings, "warning"));
    if report.fails(arguments.error_on_warning) {
        return Err(Failure::new(format!("{summary}; `drystone lint --explain RULE` says more of a rule")));
    }
    if !output.quiet && arguments.format == LintFormat::Text {
        tell(&summary);
    }
    Ok(())
}

/// All rules, a line each.
fn list() -> String {
    let row = |rule: &&Rule| vec![rule.code(), rule.name.to_owned(), rule.summary.to_owned()];
    columns(&RULES.iter().map(row).collect::<Vec<_>>())
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn tell(text: &str) {
    eprintln!("{text}");
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
