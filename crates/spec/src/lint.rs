//! Rules for Dockerfiles and specs: what is allowed, and better not done.
//!
//! A rule has a number, a name and a page; the names of BuildKit's rules are BuildKit's. [`fn@dockerfile`] and
//! [`fn@family`] look at a text that was read, and answer with [`Finding`]s. Nothing is asked of a registry, so what only
//! the base image can tell is not said.

mod commands;
mod facts;
mod family;
mod files;
mod pages;
mod rules;
mod secrets;
mod shell;
mod stages;
mod style;
mod variables;

use annotate_snippets::Level;

pub use family::family;
pub use rules::{RULES, Rule};

use crate::diagnostic::{Diagnostic, Diagnostics, draw, quoted};
use crate::dockerfile::{self, Check, Dockerfile, IgnoreRules, Reading, RuleNames};
use crate::source::{SourceFile, Span};
use crate::suggest::did_you_mean;

use std::sync::Arc;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Error,
}

impl Severity {
    /// `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that a rule has to say.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which rule.
    pub rule: &'static Rule,
    /// How much it matters here.
    pub severity: Severity,
    /// What is said, and where.
    pub diagnostic: Diagnostic,
}

impl Finding {
    /// Draws it with its line, as a compiler would.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let id = format!("{} {}", self.rule.code(), self.rule.name);
        draw(level, Some(&id), &self.diagnostic, color)
    }
}

/// Everything that was found, in the order of places, and whether the file itself asks for strictness.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In order.
    pub findings: Vec<Finding>,
    /// Whether a warning is enough to fail: `# check=error=true`.
    pub is_strict: bool,
}

impl Report {
    /// Adds another report.
    pub fn extend(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.is_strict |= other.is_strict;
    }

    /// Whether the check as a whole fails. `strict` adds to what the files ask for.
    pub fn fails(&self, strict: bool) -> bool {
        self.findings.iter().any(|finding| strict || self.is_strict || finding.severity == Severity::Error)
    }

    /// How many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// A report of texts that cannot be read at all.
    pub fn of_errors(diagnostics: Diagnostics) -> Self {
        let findings = diagnostics.into_iter().map(|diagnostic| {
            let rule = match diagnostic.title.starts_with(dockerfile::SAME_NAME) {
                true => &rules::DUPLICATE_STAGE_NAME,
                false => &rules::INVALID_SYNTAX,
            };
            Finding { rule, severity: Severity::Error, diagnostic }
        });
        Self { findings: findings.collect(), is_strict: false }
    }
}

/// Which rules are looked at, beside what a Dockerfile says itself.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    skipped: Vec<&'static Rule>,
    added: Vec<&'static Rule>,
}

impl Selection {
    /// Rules by number or name; `all` is all of them.
    pub fn new<'a>(
        skip: impl IntoIterator<Item = &'a str>,
        enable: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, UnknownRule> {
        Ok(Self { skipped: named(skip)?, added: named(enable)? })
    }

    fn includes(&self, rule: &Rule, check: &Check) -> bool {
        let names = |names: &RuleNames| match names {
            RuleNames::All => true,
            RuleNames::Named(names) => names.iter().any(|name| rule.is_called(name)),
        };
        let contains = |rules: &[&Rule]| rules.iter().any(|other| other.number == rule.number);
        let is_wanted = rule.is_default || names(&check.experimental) || contains(&self.added);
        // What cannot be read cannot be skipped either.
        rule.number == rules::INVALID_SYNTAX.number || is_wanted && !names(&check.skip) && !contains(&self.skipped)
    }
}

fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<&'static Rule>, UnknownRule> {
    let mut rules = Vec::new();
    for name in names {
        match name.eq_ignore_ascii_case("all") {
            true => rules.extend(RULES),
            false => rules.push(Rule::find(name).ok_or_else(|| UnknownRule::new(name))?),
        }
    }
    Ok(rules)
}

/// There is no rule of this name.
#[derive(Clone, Debug, thiserror::Error)]
#[error("there is no rule {}{}", quoted(name), help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
pub struct UnknownRule {
    name: String,
    help: Option<String>,
}

impl UnknownRule {
    /// Says so, with the rule whose name is most like it.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), help: did_you_mean(name, RULES.iter().map(|rule| rule.name)) }
    }
}

/// Looks at a Dockerfile. `ignore` are the rules for its context, if they are known; `siblings` the images of its
/// family.
pub fn dockerfile(
    file: &Arc<SourceFile>,
    ignore: Option<&IgnoreRules>,
    siblings: &[String],
    selection: &Selection,
) -> Report {
    let Reading { dockerfile, diagnostics } = dockerfile::read(file);
    let mut report = Report::of_errors(diagnostics);
    let mut check = Check::default();
    if let Some(dockerfile) = &dockerfile {
        check = dockerfile.directives.check.as_ref().map(|check| check.value.clone()).unwrap_or_default();
        report.is_strict = check.error;
        let mut finder = Finder::default();
        check_names(dockerfile, &check, &mut finder);
        stages::look(dockerfile, siblings, &mut finder);
        style::look(dockerfile, &mut finder);
        variables::look(dockerfile, &mut finder);
        secrets::look(dockerfile, &mut finder);
        commands::look(dockerfile, &mut finder);
        files::look(dockerfile, ignore, &mut finder);
        report.findings.extend(finder.findings);
    }
    report.findings.retain(|finding| selection.includes(finding.rule, &check));
    sort(&mut report.findings);
    report
}

/// Names of rules in `# check=` that are none of ours are told: else a misspelt one would do nothing.
fn check_names(dockerfile: &Dockerfile, check: &Check, finder: &mut Finder) {
    let Some(written) = &dockerfile.directives.check else { return };
    let named = |names: &RuleNames| match names {
        RuleNames::All => Vec::new(),
        RuleNames::Named(names) => names.clone(),
    };
    for name in named(&check.skip).iter().chain(&named(&check.experimental)) {
        // Others have rules that we do not have; their names do no harm here.
        if Rule::find(name).is_none() && !rules::ELSEWHERE.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            let error = UnknownRule::new(name);
            let title = format!("there is no rule {}", quoted(name));
            finder.report(
                &rules::UNKNOWN_RULE,
                Diagnostic::new(written.span.clone(), title)
                    .label("expected the names or numbers of rules")
                    .help_if(error.help),
            );
        }
    }
}

fn sort(findings: &mut [Finding]) {
    findings.sort_by(|left, right| {
        let key = |finding: &Finding| {
            let span = &finding.diagnostic.span;
            (span.file().name.clone(), span.range().start, finding.rule.number)
        };
        key(left).cmp(&key(right))
    });
}

/// Collects what the rules say.
#[derive(Default)]
struct Finder {
    findings: Vec<Finding>,
}

impl Finder {
    fn report(&mut self, rule: &'static Rule, diagnostic: Diagnostic) {
        self.findings.push(Finding { rule, severity: rule.severity, diagnostic });
    }

    fn find(&mut self, rule: &'static Rule, span: &Span, title: impl Into<String>, label: impl Into<String>) {
        self.report(rule, Diagnostic::new(span.clone(), title).label(label));
    }
}

/// The names of the programs that a script calls, in order.
pub(crate) fn programs(script: &str) -> Vec<String> {
    shell::commands(script).iter().map(|command| command.program().to_owned()).collect()
}
