//! From lines to instructions.

mod command;
mod transfer;

use std::sync::Arc;

use super::ast::{Argument, Dockerfile, Instruction, Kind, Onbuild, Pair, Pairs, Stage};
use super::flags::{Flags, Takes};
use super::line::{Line, Lines};
use super::{INSTRUCTIONS, directive, words};
use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{Located, SourceFile, Span};
use crate::suggest::did_you_mean;

/// A file longer than this was not written by a person, heredocs and all.
const LONGEST_FILE: usize = 16 * 1024 * 1024;

/// Reads a Dockerfile. On failure everything that is wrong with it is told, in the order of its lines.
pub fn parse(file: &Arc<SourceFile>) -> Result<Dockerfile, Diagnostics> {
    let Reading { dockerfile, mut diagnostics } = read(file);
    match dockerfile.filter(|_| diagnostics.is_empty()) {
        Some(dockerfile) => Ok(dockerfile),
        None => {
            diagnostics.sort();
            Err(diagnostics)
        }
    }
}

/// Reads one instruction that an image keeps for those who build on it.
pub fn parse_trigger(file: &Arc<SourceFile>) -> Result<Instruction, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let mut lines = Lines::new(file, '\\');
    let first = lines.next(&mut diagnostics);
    let mut reader = Reader { escape: '\\', diagnostics: &mut diagnostics };
    let instruction = first.as_ref().and_then(|line| match reader.trigger_keyword(line, 0) {
        true => reader.instruction(line),
        false => None,
    });
    if let Some(second) = lines.next(&mut diagnostics) {
        let diagnostic = Diagnostic::new(second.span(), "a second instruction in an ONBUILD trigger");
        diagnostics.push(diagnostic.label("expected one only"));
    }
    if instruction.is_none() && diagnostics.is_empty() {
        diagnostics.push(Diagnostic::new(Span::start_of(file), "an ONBUILD trigger without an instruction"));
    }
    match instruction.filter(|_| diagnostics.is_empty()) {
        Some(instruction) => Ok(instruction),
        None => Err(diagnostics),
    }
}

/// What could be read, and what is wrong.
pub(crate) struct Reading {
    /// Absent if there is no stage.
    pub(crate) dockerfile: Option<Dockerfile>,
    pub(crate) diagnostics: Diagnostics,
}

/// Reads what can be read: an instruction that is wrong is noted and left out.
pub(crate) fn read(file: &Arc<SourceFile>) -> Reading {
    let mut diagnostics = Diagnostics::new();
    if let Some(diagnostic) = unreadable(file) {
        return Reading { dockerfile: None, diagnostics: diagnostic.into() };
    }
    let directives = directive::read(file, &mut diagnostics);
    let escape = directives.escape;
    let mut lines = Lines::new(file, escape);
    let mut dockerfile = Dockerfile {
        file: Arc::clone(file),
        directives,
        arguments: vec![],
        stages: vec![],
        empty_continuations: vec![],
    };
    let mut is_empty = true;
    while let Some(line) = lines.next(&mut diagnostics) {
        is_empty = false;
        Reader { escape, diagnostics: &mut diagnostics }.line(&line, &mut dockerfile);
    }
    dockerfile.empty_continuations = lines.empty_continuations;
    if is_empty {
        let diagnostic = Diagnostic::new(Span::start_of(file), "this file has no instructions");
        diagnostics.push(diagnostic.label("expected a `FROM`"));
    } else if dockerfile.stages.is_empty() && diagnostics.is_empty() {
        let diagnostic = Diagnostic::new(Span::start_of(file), "this file has no stage");
        diagnostics.push(diagnostic.label("expected a `FROM`"));
    }
    repeated_names(&dockerfile.stages, &mut diagnostics);
    Reading { dockerfile: Some(dockerfile).filter(|dockerfile| !dockerfile.stages.is_empty()), diagnostics }
}

fn unreadable(file: &Arc<SourceFile>) -> Option<Diagnostic> {
    let length = file.text.len();
    if length > LONGEST_FILE {
        let diagnostic = Diagnostic::new(Span::start_of(file), format!("this file is {length} bytes long"));
        return Some(diagnostic.label(format!("expected no more than {LONGEST_FILE} bytes")));
    }
    let nul = file.text.find('\0')?;
    let diagnostic = Diagnostic::new(Span::new(file, nul..nul + 1), "this file is binary: it holds a NUL character");
    Some(diagnostic.label("expected a text in UTF-8"))
}

/// The title of the finding about two stages of one name; a rule of `lint` knows it by this.
pub(crate) const SAME_NAME: &str = "two stages have the name";

fn repeated_names(stages: &[Stage], diagnostics: &mut Diagnostics) {
    let mut seen = std::collections::BTreeMap::new();
    for name in stages.iter().filter_map(|stage| stage.name.as_ref()) {
        match seen.get(&name.value) {
            Some(first) => {
                let title = format!("{SAME_NAME} {}", quoted(&name.value));
                let diagnostic = Diagnostic::new(name.span.clone(), title).label("the second one");
                diagnostics.push(diagnostic.related(Span::clone(first), "the first one"));
            }
            None => {
                seen.insert(name.value.clone(), name.span.clone());
            }
        }
    }
}

/// Reads instructions, and notes what is wrong with them.
struct Reader<'a> {
    escape: char,
    diagnostics: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Puts one line where it belongs.
    fn line(&mut self, line: &Line, dockerfile: &mut Dockerfile) {
        let (keyword, _) = words::keyword(&line.text);
        if keyword.eq_ignore_ascii_case("FROM") {
            dockerfile.stages.extend(self.stage(line));
            return;
        }
        let Some(instruction) = self.instruction(line) else { return };
        match (dockerfile.stages.last_mut(), instruction.kind) {
            (Some(stage), kind) => stage.instructions.push(Instruction { kind, ..instruction }),
            (None, Kind::Arg(arguments)) => dockerfile.arguments.extend(arguments),
            (None, _) => {
                let title = format!("{} stands before the first FROM", instruction.keyword.to_ascii_uppercase());
                self.report(Diagnostic::new(instruction.keyword.span, title).label("expected `FROM` or `ARG`"));
            }
        }
    }

    fn stage(&mut self, line: &Line) -> Option<Stage> {
        let (keyword, rest) = words::keyword(&line.text);
        let (flags, rest) = words::flags(&line.text, rest);
        let flags = Flags::read(line, &flags, &[("platform", Takes::Value)], self.diagnostics);
        let words = words::plain(&line.text, rest);
        let (name, as_keyword) = match words.as_slice() {
            [_] => (None, None),
            [_, word, name] if line.text[word.clone()].eq_ignore_ascii_case("AS") => {
                (self.stage_name(line.part(name.clone())), Some(line.part(word.clone())))
            }
            _ => {
                let title = if words.is_empty() { "FROM names no image" } else { "FROM has too many words" };
                let place = words.get(1).map_or(0..keyword.len(), |word| word.start..line.text.len());
                self.report(
                    Diagnostic::new(line.place(place), title).label("expected `FROM IMAGE` or `FROM IMAGE AS NAME`"),
                );
                return None;
            }
        };
        Some(Stage {
            keyword: line.part(0..keyword.len()),
            from: line.part(words[0].clone()),
            platform: flags.value("platform"),
            as_keyword,
            name,
            instructions: Vec::new(),
            span: line.span(),
            comments: line.comments.clone(),
        })
    }

    fn stage_name(&mut self, written: Located<String>) -> Option<Located<String>> {
        let name = written.value.to_ascii_lowercase();
        let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        if !is_name {
            let title = format!("{} cannot be the name of a stage", quoted(&written.value));
            self.report(
                Diagnostic::new(written.span, title).label("expected a letter, then letters, digits, `-`, `_` and `.`"),
            );
            return None;
        }
        Some(Located::new(name, written.span))
    }

    fn instruction(&mut self, line: &Line) -> Option<Instruction> {
        self.instruction_at(line, 0)
    }

    /// The instruction that begins at `start` of the line: later than at its beginning after an `ONBUILD`.
    fn instruction_at(&mut self, line: &Line, start: usize) -> Option<Instruction> {
        let (keyword, rest) = words::keyword(&line.text[start..]);
        let (keyword, rest) = (line.part(start..start + keyword.len()), start + rest.start..start + rest.end);
        let name = keyword.value.to_ascii_uppercase();
        let (flag_words, rest) = words::flags(&line.text, rest);
        let flags = Flags::read(line, &flag_words, known_flags(&name), self.diagnostics);
        let before = self.diagnostics.len();
        let parts = Parts { line, keyword: &keyword, flags: &flags, range: rest };
        let kind = match name.as_str() {
            "ADD" => self.add(&parts).map(Kind::Add),
            "ARG" => self.arguments(&parts).map(Kind::Arg),
            "CMD" => self.command(&parts).map(Kind::Cmd),
            "COPY" => self.copy(&parts).map(Kind::Copy),
            "ENTRYPOINT" => self.command(&parts).map(Kind::Entrypoint),
            "ENV" => self.pairs(&parts).map(Kind::Env),
            "EXPOSE" => self.words(&parts).map(Kind::Expose),
            "HEALTHCHECK" => self.healthcheck(&parts).map(Kind::Healthcheck),
            "LABEL" => self.pairs(&parts).map(Kind::Label),
            "MAINTAINER" => self.one(&parts, "a name").map(Kind::Maintainer),
            "ONBUILD" => self.onbuild(&parts).map(Kind::Onbuild),
            "RUN" => self.run(&parts).map(|run| Kind::Run(Box::new(run))),
            "SHELL" => self.shell(&parts).map(Kind::Shell),
            "STOPSIGNAL" => self.one(&parts, "a signal").map(Kind::StopSignal),
            "USER" => self.one(&parts, "a user").map(Kind::User),
            "VOLUME" => self.volumes(&parts).map(Kind::Volume),
            "WORKDIR" => self.one(&parts, "a directory").map(Kind::Workdir),
            _ => {
                let title = format!("unknown instruction {}", quoted(&keyword.value));
                let diagnostic = Diagnostic::new(keyword.span.clone(), title).label("expected an instruction");
                self.report(diagnostic.help_if(did_you_mean(&name, INSTRUCTIONS)));
                None
            }
        };
        debug_assert!(kind.is_some() || self.diagnostics.len() > before, "what is left out has a reason");
        Some(Instruction {
            kind: kind?,
            text: line.text[start..].to_owned(),
            span: Span::new(keyword.span.file(), keyword.span.range().start..line.whole.end),
            keyword,
            comments: line.comments.clone(),
        })
    }

    fn onbuild(&mut self, parts: &Parts<'_>) -> Option<Onbuild> {
        let start = parts.range.start;
        if parts.is_empty() {
            self.missing(parts, "an instruction");
            return None;
        }
        if !self.trigger_keyword(parts.line, start) {
            return None;
        }
        let instruction = self.instruction_at(parts.line, start)?;
        let mut text = parts.line.text[start..].to_owned();
        for heredoc in &parts.line.heredocs {
            text = format!("{text}\n{}{}", heredoc.content.value, heredoc.name);
        }
        Some(Onbuild { instruction: Box::new(instruction), text })
    }

    /// Whether an instruction may wait for a child; what may not is noted.
    fn trigger_keyword(&mut self, line: &Line, start: usize) -> bool {
        let (keyword, _) = words::keyword(&line.text[start..]);
        let is_allowed = !["ONBUILD", "FROM", "MAINTAINER"].iter().any(|name| keyword.eq_ignore_ascii_case(name));
        if !is_allowed {
            let title = format!("ONBUILD cannot hold {}", keyword.to_ascii_uppercase());
            let place = line.place(start..start + keyword.len());
            self.report(
                Diagnostic::new(place, title).label("expected any instruction but `FROM`, `MAINTAINER` and `ONBUILD`"),
            );
        }
        is_allowed
    }

    fn arguments(&mut self, parts: &Parts<'_>) -> Option<Vec<Argument>> {
        let words = words::quoted(&parts.line.text, parts.range.clone(), self.escape);
        if words.is_empty() {
            self.missing(parts, "`NAME` or `NAME=DEFAULT`");
            return None;
        }
        let comments = if words.len() == 1 { parts.line.comments.clone() } else { Vec::new() };
        let arguments: Vec<Argument> = words
            .into_iter()
            .map(|word| match parts.line.text[word.clone()].find('=') {
                Some(equals) => Argument {
                    name: parts.line.part(word.start..word.start + equals),
                    default: Some(parts.line.part(word.start + equals + 1..word.end)),
                    comments: comments.clone(),
                },
                None => Argument { name: parts.line.part(word), default: None, comments: comments.clone() },
            })
            .collect();
        let nameless = arguments.iter().find(|argument| argument.name.is_empty());
        if let Some(argument) = nameless {
            let diagnostic = Diagnostic::new(argument.name.span.clone(), "an argument without a name");
            self.report(diagnostic.label("expected `NAME=DEFAULT`"));
            return None;
        }
        Some(arguments)
    }

    fn pairs(&mut self, parts: &Parts<'_>) -> Option<Pairs> {
        let line = parts.line;
        let words = words::quoted(&line.text, parts.range.clone(), self.escape);
        let Some(first) = words.first() else {
            self.missing(parts, "`NAME=VALUE`");
            return None;
        };
        if !line.text[first.clone()].contains('=') {
            return self.legacy_pair(parts);
        }
        let mut list = Vec::with_capacity(words.len());
        for word in words {
            let Some(equals) = line.text[word.clone()].find('=') else {
                let written = line.part(word);
                let title = format!("{} has no value", quoted(&written.value));
                self.report(
                    Diagnostic::new(written.span, title)
                        .label("expected `NAME=VALUE`")
                        .help("a value with blanks is written between quotes"),
                );
                return None;
            };
            let key = line.part(word.start..word.start + equals);
            if key.is_empty() {
                self.report(Diagnostic::new(line.place(word), "a value without a name").label("expected `NAME=VALUE`"));
                return None;
            }
            list.push(Pair { key, value: line.part(word.start + equals + 1..word.end) });
        }
        Some(Pairs { list, is_legacy: false })
    }

    /// `ENV name the rest of the line`.
    fn legacy_pair(&mut self, parts: &Parts<'_>) -> Option<Pairs> {
        let line = parts.line;
        let text = &line.text[parts.range.clone()];
        let key_length = text.find(char::is_whitespace).unwrap_or(text.len());
        let value_length = text[key_length..].trim_start().len();
        let (start, end) = (parts.range.start, parts.range.end);
        if value_length == 0 {
            let key = line.part(start..end);
            let title = format!("{} has no value", quoted(&key.value));
            self.report(Diagnostic::new(key.span, title).label("expected `NAME=VALUE`"));
            return None;
        }
        let pair = Pair { key: line.part(start..start + key_length), value: line.part(end - value_length..end) };
        Some(Pairs { list: vec![pair], is_legacy: true })
    }

    fn words(&mut self, parts: &Parts<'_>) -> Option<Vec<Located<String>>> {
        let words = parts.line_words();
        if words.is_empty() {
            self.missing(parts, "a port");
            return None;
        }
        Some(words)
    }

    fn volumes(&mut self, parts: &Parts<'_>) -> Option<Vec<Located<String>>> {
        let volumes = self.list_or_words(parts)?;
        if volumes.is_empty() {
            self.missing(parts, "a directory");
            return None;
        }
        if let Some(empty) = volumes.iter().find(|volume| volume.is_empty()) {
            let diagnostic = Diagnostic::new(empty.span.clone(), "a volume without a name");
            self.report(diagnostic.label("expected a directory"));
            return None;
        }
        Some(volumes)
    }

    /// The rest of the line as one value.
    fn one(&mut self, parts: &Parts<'_>, expected: &str) -> Option<Located<String>> {
        if parts.is_empty() {
            self.missing(parts, expected);
            return None;
        }
        Some(parts.rest())
    }

    fn missing(&mut self, parts: &Parts<'_>, expected: &str) {
        let name = parts.keyword.to_ascii_uppercase();
        let diagnostic = Diagnostic::new(parts.keyword.span.clone(), format!("{name} has no argument"));
        self.report(diagnostic.label(format!("expected {expected} after it")));
    }
}

/// An instruction in its parts.
struct Parts<'a> {
    line: &'a Line,
    keyword: &'a Located<String>,
    flags: &'a Flags,
    /// What follows the flags.
    range: std::ops::Range<usize>,
}

impl Parts<'_> {
    fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    fn text(&self) -> &str {
        &self.line.text[self.range.clone()]
    }

    fn rest(&self) -> Located<String> {
        self.line.part(self.range.clone())
    }

    fn line_words(&self) -> Vec<Located<String>> {
        words::plain(&self.line.text, self.range.clone()).into_iter().map(|word| self.line.part(word)).collect()
    }
}

fn known_flags(name: &str) -> &'static [(&'static str, Takes)] {
    match name {
        "ADD" => &[
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("checksum", Takes::Value),
            ("exclude", Takes::Values),
            ("keep-git-dir", Takes::Truth),
            ("link", Takes::Truth),
            ("unpack", Takes::Truth),
        ],
        "COPY" => &[
            ("from", Takes::Value),
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("exclude", Takes::Values),
            ("link", Takes::Truth),
            ("parents", Takes::Truth),
        ],
        "HEALTHCHECK" => &[
            ("interval", Takes::Value),
            ("timeout", Takes::Value),
            ("start-period", Takes::Value),
            ("start-interval", Takes::Value),
            ("retries", Takes::Value),
        ],
        "RUN" => &[
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ],
        _ => &[],
    }
}
