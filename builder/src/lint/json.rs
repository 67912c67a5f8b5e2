//! Findings as JSON, for scripts.

use serde::Serialize;
use spec::lint::{Finding, Report, Severity};

#[derive(Serialize)]
struct Document<'a> {
    findings: Vec<Row<'a>>,
    errors: usize,
    warnings: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    rule: String,
    name: &'a str,
    severity: &'a str,
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
    expected: &'a str,
    help: Option<&'a str>,
}

/// `{"findings": [{rule, name, severity, file, line, column, message, expected, help}], "errors", "warnings"}`.
pub fn json(report: &Report) -> serde_json::Result<String> {
    let document = Document {
        findings: report.findings.iter().map(row).collect(),
        errors: report.count(Severity::Error),
        warnings: report.count(Severity::Warning),
    };
    serde_json::to_string_pretty(&document)
}

fn row(finding: &Finding) -> Row<'_> {
    let diagnostic = &finding.diagnostic;
    Row {
        rule: finding.rule.code(),
        name: finding.rule.name,
        severity: finding.severity.as_str(),
        file: &diagnostic.span.file().name,
        line: diagnostic.span.line(),
        column: diagnostic.span.column(),
        message: &diagnostic.title,
        expected: &diagnostic.label,
        help: diagnostic.help.as_deref(),
    }
}
