//! Findings as SARIF 2.1.0, which code hosts show beside the lines.

use serde_json::{Value, json};
use spec::Span;
use spec::lint::{Finding, RULES, Report, Rule};

/// One run with all rules, and what they found.
pub fn sarif(report: &Report) -> serde_json::Result<String> {
    let rules: Vec<Value> = RULES.iter().map(|rule| described(rule)).collect();
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    serde_json::to_string_pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "drystone", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

fn described(rule: &Rule) -> Value {
    json!({
        "id": rule.code(),
        "name": rule.name,
        "shortDescription": { "text": rule.summary },
        "help": { "text": rule.page, "markdown": rule.page },
        "defaultConfiguration": { "level": rule.severity.as_str(), "enabled": rule.is_default },
    })
}

fn result(finding: &Finding) -> Value {
    let diagnostic = &finding.diagnostic;
    let said = [&diagnostic.title, &diagnostic.label].map(String::as_str).into_iter().chain(diagnostic.help.as_deref());
    let text = said.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    let related = diagnostic.related.iter().map(|(span, label)| {
        let mut place = location(span);
        place["message"] = json!({ "text": label });
        place
    });
    json!({
        "ruleId": finding.rule.code(),
        "ruleIndex": RULES.iter().position(|rule| rule.number == finding.rule.number),
        "level": finding.severity.as_str(),
        "message": { "text": text },
        "locations": [location(&diagnostic.span)],
        "relatedLocations": related.collect::<Vec<_>>(),
    })
}

fn location(span: &Span) -> Value {
    let end = Span::new(span.file(), span.range().end..span.range().end);
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&span.file().name) },
            "region": {
                "startLine": span.line(),
                "startColumn": span.column(),
                "endLine": end.line(),
                "endColumn": end.column(),
            },
        },
    })
}

/// The path as a reference: what a URI cannot hold is escaped.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
