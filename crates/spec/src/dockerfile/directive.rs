//! The comments at the head of a Dockerfile that mean something: `# syntax=`, `# escape=`, `# check=`.
//!
//! They end with the first line that does not look like one of them; an empty line is such a line.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{Located, SourceFile, Span};
use crate::suggest::did_you_mean;

/// What they say.
#[derive(Clone, Debug)]
pub struct Directives {
    /// The front end that is asked for. There is one only, so this changes nothing.
    pub syntax: Option<Located<String>>,
    /// The character that continues a line and takes the meaning from the next one: `\`, or `` ` ``.
    pub escape: char,
    /// What `lint` is to do.
    pub check: Option<Located<Check>>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// `# check=skip=…;error=…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Rules that are left out.
    pub skip: RuleNames,
    /// Rules that are looked at although they are so only when asked for.
    pub experimental: RuleNames,
    /// Whether a finding makes the check fail.
    pub error: bool,
}

/// Some rules, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleNames {
    /// All of them.
    All,
    /// Those with these names; possibly none.
    Named(Vec<String>),
}

impl RuleNames {
    fn parse(list: &str) -> Self {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        match list.trim().eq_ignore_ascii_case("all") {
            true => Self::All,
            false => Self::Named(names.map(str::to_owned).collect()),
        }
    }
}

impl Default for RuleNames {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

/// Reads the head of `file`, and says where the instructions begin: the directives are comments for them too.
pub(super) fn read(file: &Arc<SourceFile>, diagnostics: &mut Diagnostics) -> Directives {
    let mut directives = Directives::default();
    let mut seen: Vec<(String, Span)> = Vec::new();
    let mut at = if file.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    for line in file.text[at..].split_inclusive('\n') {
        let Some((name, value)) = split(line) else { break };
        let place = |part: &str| {
            let start = at + (part.as_ptr() as usize - line.as_ptr() as usize);
            Span::new(file, start..start + part.len())
        };
        let (key, name, value) = (name.to_ascii_lowercase(), place(name), Located::new(value.to_owned(), place(value)));
        at += line.len();
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            continue;
        }
        if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == key) {
            let diagnostic = Diagnostic::new(name, format!("`# {key}=` stands twice")).label("the second one");
            diagnostics.push(diagnostic.related(first.clone(), "the first one"));
            continue;
        }
        seen.push((key.clone(), name));
        match key.as_str() {
            "syntax" => directives.syntax = Some(value),
            "escape" => directives.escape = escape(&value, diagnostics).unwrap_or('\\'),
            _ => directives.check = check(value, diagnostics),
        }
    }
    directives
}

/// `# name = value`.
fn split(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value))
}

fn escape(value: &Located<String>, diagnostics: &mut Diagnostics) -> Option<char> {
    match value.value.as_str() {
        "\\" => Some('\\'),
        "`" => Some('`'),
        other => {
            let title = format!("{} cannot be the escape character", quoted(other));
            diagnostics.push(Diagnostic::new(value.span.clone(), title).label("expected `\\` or a backtick"));
            None
        }
    }
}

fn check(value: Located<String>, diagnostics: &mut Diagnostics) -> Option<Located<Check>> {
    let mut check = Check::default();
    for part in value.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, setting) = part.split_once('=').unwrap_or((part, ""));
        match key.trim().to_ascii_lowercase().as_str() {
            "skip" => check.skip = RuleNames::parse(setting),
            "experimental" => check.experimental = RuleNames::parse(setting),
            "error" => match setting.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => check.error = true,
                "false" | "0" | "f" => check.error = false,
                _ => {
                    let title = format!("{} is neither true nor false", quoted(setting));
                    let diagnostic = Diagnostic::new(value.span.clone(), title);
                    diagnostics.push(diagnostic.label("expected `error=true` or `error=false`"));
                    return None;
                }
            },
            other => {
                let diagnostic =
                    Diagnostic::new(value.span.clone(), format!("{} is no option of `# check=`", quoted(other)));
                diagnostics.push(
                    diagnostic
                        .label("expected `skip=…` or `error=…`")
                        .help_if(did_you_mean(other, ["skip", "error", "experimental"])),
                );
                return None;
            }
        }
    }
    Some(value.map(|_| check))
}
