//! `.dockerignore`: which files of a context are not there.
//!
//! A line is a pattern; the last one that fits decides, and one with a `!` before it brings back what an earlier one
//! took away. A pattern that fits a directory fits everything in it.

use std::sync::Arc;

use super::pattern::Pattern;
use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{Located, SourceFile, Span};

/// The lines of a `.dockerignore`, or the values of `--exclude`.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    is_exception: bool,
}

impl IgnoreRules {
    /// The names under which the rules for a Dockerfile are looked for: one of its own beside it, and if there is none
    /// the one at the root of the context.
    pub fn names(dockerfile: &str) -> [String; 2] {
        [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()]
    }

    /// Reads a file.
    pub fn parse(file: &Arc<SourceFile>) -> Result<Self, Diagnostics> {
        let mut lines = Vec::new();
        let mut at = 0;
        for line in file.text.split_inclusive('\n') {
            let without_mark = line.strip_prefix('\u{feff}').filter(|_| at == 0).unwrap_or(line);
            let text = without_mark.trim();
            // A comment begins at the beginning of its line: a blank before the sign makes a pattern of it.
            if !text.is_empty() && !without_mark.starts_with('#') {
                let start = at + (text.as_ptr() as usize - line.as_ptr() as usize);
                lines.push(Located::new(text.to_owned(), Span::new(file, start..start + text.len())));
            }
            at += line.len();
        }
        Self::from_patterns(&lines)
    }

    /// Takes patterns from elsewhere.
    pub fn from_patterns(patterns: &[Located<String>]) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut rules = Vec::with_capacity(patterns.len());
        for written in patterns {
            match rule(written) {
                Ok(rule) => rules.extend(rule),
                Err(found) => diagnostics.extend(found),
            }
        }
        if diagnostics.is_empty() { Ok(Self { rules }) } else { Err(diagnostics) }
    }

    /// Whether there is nothing to leave out.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether `path`, relative to the context and with slashes, is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut is_excluded = false;
        for rule in &self.rules {
            // An exception to nothing, and a second reason to leave out, change nothing.
            if rule.is_exception == is_excluded && rule.fits(path) {
                is_excluded = !rule.is_exception;
            }
        }
        is_excluded
    }

    /// Whether something below `directory`, which is left out itself, may be brought back: else it need not be read.
    pub fn may_bring_back_below(&self, directory: &str) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.is_exception && (rule.pattern.may_match_below(directory) || rule.fits(directory)))
    }
}

impl Rule {
    /// Whether the pattern fits the path or a directory above it.
    fn fits(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.filter(|end| *end > 0).any(|end| self.pattern.matches(&path[..end]))
    }
}

/// `None` for a pattern that leaves nothing over.
fn rule(written: &Located<String>) -> Result<Option<Rule>, Diagnostics> {
    let text = written.trim();
    let (is_exception, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim()));
    if text.is_empty() && is_exception {
        let diagnostic = Diagnostic::new(written.span.clone(), "an exception to nothing");
        return Err(diagnostic.label("expected a pattern after the `!`").into());
    }
    let cleaned = cleaned(text);
    if cleaned.is_empty() {
        return Ok(None);
    }
    let pattern = Pattern::deep(&cleaned).map_err(|error| {
        Diagnostic::new(written.span.clone(), format!("{} is no pattern", quoted(text))).label(error.to_string())
    })?;
    Ok(Some(Rule { pattern, is_exception }))
}

/// The path without `.`, `..`, doubled slashes, and slashes at its ends.
fn cleaned(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            // What would lead out of the context stays inside of it.
            ".." if parts.last().is_none_or(|last| *last == "..") && !text.starts_with('/') => parts.push(part),
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> IgnoreRules {
        IgnoreRules::parse(&Arc::new(SourceFile::new(".dockerignore", text))).unwrap()
    }

    #[test]
    fn the_last_pattern_that_fits_decides() {
        let cases: &[(&str, &str, bool)] = &[
            ("*.md\n!README.md\n", "a.md", true),
            ("*.md\n!README.md\n", "README.md", false),
            ("*.md\n!README*.md\nREADME-secret.md\n", "README-secret.md", true),
            ("*.md\nREADME-secret.md\n!README*.md\n", "README-secret.md", false),
            ("*.md", "docs/a.md", false),
            ("**/*.md", "docs/a.md", true),
            ("node_modules", "node_modules/x/y.js", true),
            ("node_modules", "web/node_modules/x", false),
            ("/foo/bar/", "foo/bar/x", true),
            ("foo/./bar//baz", "foo/bar/baz", true),
            ("a/../b", "b", true),
            ("*\n!src\n", "src/main.rs", false),
            ("*\n!src\n", "target/x", true),
            ("*\n!src/*.rs\n", "src/main.rs", false),
            ("*\n!src/*.rs\n", "src/main.c", true),
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/*/temp*", "a/b/temp", true),
            ("temp?", "tempa", true),
            ("# a comment\n\n  # no comment\n", "# no comment", true),
            ("# a comment\n", "# a comment", false),
            ("\u{feff}x\n", "x", true),
            ("x\r\n", "x", true),
            (".", "x", false),
            ("/", "x", false),
            ("", "x", false),
            ("!x", "x", false),
            ("dir\n!dir/keep\n", "dir/keep/deep", false),
        ];
        for (text, path, expected) in cases {
            assert_eq!(rules(text).excludes(path), *expected, "{path} by {text:?}");
        }
    }

    #[test]
    fn a_directory_is_entered_only_if_something_may_come_back() {
        assert!(rules("*\n!src/*.rs\n").may_bring_back_below("src"));
        assert!(!rules("*\n!src/*.rs\n").may_bring_back_below("target"));
        assert!(rules("*\n!**/x\n").may_bring_back_below("target"));
        assert!(!rules("target\n").may_bring_back_below("target"));
    }

    #[test]
    fn a_pattern_that_means_nothing_is_told_with_its_line() {
        let file = Arc::new(SourceFile::new(".dockerignore", "a\n  b[\n!\n"));
        let said = IgnoreRules::parse(&file).unwrap_err().to_string();
        assert_eq!(said, ".dockerignore:2:3: `b[` is no pattern\n.dockerignore:3:1: an exception to nothing");
    }
}
