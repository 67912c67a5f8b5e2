//! Which variables have which value at one place of a Dockerfile.
//!
//! The global scope holds the arguments before the first `FROM`, and those that every build has. Each stage begins with
//! a scope of its own: the environment of what it is built on, and no arguments until it declares them. The environment
//! wins over arguments of the same name.

use std::collections::BTreeMap;

use super::ast::{Argument, Dockerfile};
use super::expand::{ExpandError, Expanded, Lexer, QuoteStyle};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::source::{Located, Span};

/// Arguments that commands see without being declared. They change no key of the cache and stand in no history.
pub const PROXY_ARGUMENTS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Arguments that the global scope has without being declared. A stage declares those that it uses.
pub const PLATFORM_ARGUMENTS: [&str; 9] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// What a build as a whole knows: the arguments that its caller gave, and the global scope.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    given: BTreeMap<String, String>,
    global: Scope,
}

impl Arguments {
    /// Reads the arguments before the first `FROM`. `given` are the caller's (`--build-arg`); `platform` has values for
    /// [`PLATFORM_ARGUMENTS`].
    pub fn read(
        dockerfile: &Dockerfile,
        given: BTreeMap<String, String>,
        platform: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Diagnostics> {
        let mut global = Scope::new(dockerfile.directives.escape);
        for (name, value) in platform {
            let value = given.get(&name).cloned().unwrap_or(value);
            global.arguments.insert(name, Some(value));
        }
        for argument in &dockerfile.arguments {
            let value = match given.get(&argument.name.value) {
                Some(value) => Some(value.clone()),
                None => argument.default.as_ref().map(|default| global.expand(default)).transpose()?.map(text_of),
            };
            global.declare(&argument.name, value);
        }
        Ok(Self { given, global })
    }

    /// The scope in which `FROM` is read.
    pub fn global(&self) -> &Scope {
        &self.global
    }

    /// What the caller gave.
    pub fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    /// An `ARG` of a stage: the caller's value, else the default, else that of the global scope.
    pub fn declare(&self, argument: &Argument, scope: &mut Scope) -> Result<(), Diagnostics> {
        let value = match (self.given.get(&argument.name.value), &argument.default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(text_of(scope.expand(default)?)),
            (None, None) => self.global.arguments.get(&argument.name.value).cloned().flatten(),
        };
        scope.declare(&argument.name, value);
        Ok(())
    }

    /// The names that the caller gave and that neither the file declares nor the build has anyway.
    pub fn unused<'a>(&'a self, dockerfile: &'a Dockerfile) -> impl Iterator<Item = &'a str> {
        let is_known = |name: &str| {
            PROXY_ARGUMENTS.contains(&name)
                || PLATFORM_ARGUMENTS.contains(&name)
                // Settings of another builder, which nobody declares.
                || name.starts_with("BUILDKIT_")
                || name == "SOURCE_DATE_EPOCH"
                || dockerfile.declared_arguments().any(|argument| argument.name.value == name)
        };
        self.given.keys().map(String::as_str).filter(move |name| !is_known(name))
    }
}

/// Variables and their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    environment: Vec<(String, String)>,
    arguments: BTreeMap<String, Option<String>>,
    escape: char,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new('\\')
    }
}

impl Scope {
    /// Nothing has a value. `escape` is the file's escape character.
    pub fn new(escape: char) -> Self {
        Self { environment: Vec::new(), arguments: BTreeMap::new(), escape }
    }

    /// The same with the environment of a base image. To build on another stage, clone that stage's scope instead: its
    /// arguments come along.
    #[must_use]
    pub fn with_environment(mut self, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in environment {
            self.set(&name, value);
        }
        self
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let in_environment = self.environment.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        in_environment.or_else(|| self.arguments.get(name)?.as_deref())
    }

    /// `ENV`: a name keeps the place it has in the environment.
    pub fn set(&mut self, name: &str, value: String) {
        match self.environment.iter_mut().find(|(own, _)| own == name) {
            Some((_, old)) => *old = value,
            None => self.environment.push((name.to_owned(), value)),
        }
    }

    /// `ARG`: without a value, an earlier one stays.
    pub fn declare(&mut self, name: &str, value: Option<String>) {
        let old = self.arguments.entry(name.to_owned()).or_default();
        *old = value.or(old.take());
    }

    /// Whether there is an argument of this name, with a value or without.
    pub fn declares(&self, name: &str) -> bool {
        self.arguments.contains_key(name)
    }

    /// All names that are known, with a value or without.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.environment.iter().map(|(name, _)| name.as_str()).chain(self.arguments.keys().map(String::as_str))
    }

    /// The environment, in its order.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The arguments that have a value and that the environment does not hide, by name.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arguments
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
            .filter(|(name, _)| !self.environment.iter().any(|(own, _)| own == name))
    }

    /// One word: quotes and escapes read, variables in place, blanks of their values kept.
    pub fn expand(&self, written: &Located<String>) -> Result<Located<Expanded>, Diagnostics> {
        let result = Lexer::new(self.escape).word(&written.value, self);
        located(result, &written.span)
    }

    /// Words: as [`Scope::expand`], cut at the blanks that are not quoted.
    pub fn expand_words(&self, written: &Located<String>) -> Result<Located<Vec<String>>, Diagnostics> {
        let result = Lexer::new(self.escape).words(&written.value, self);
        located(result, &written.span)
    }

    /// The text of a heredoc that becomes a file: variables in place, quotes left alone.
    pub fn expand_text(&self, text: &str, place: &Span) -> Result<Located<Expanded>, Diagnostics> {
        // Always the backslash: the text is the heredoc's own, and its author does not think of the file's directive.
        let result = Lexer::new('\\').quotes(QuoteStyle::Letters).word(text, self);
        located(result, place)
    }

    /// A bare text; for what has no place in a file.
    pub fn expand_str(&self, text: &str) -> Result<Expanded, ExpandError> {
        Lexer::new(self.escape).word(text, self)
    }
}

fn located<T>(result: Result<T, ExpandError>, place: &Span) -> Result<Located<T>, Diagnostics> {
    match result {
        Ok(value) => Ok(Located::new(value, place.clone())),
        Err(error) => {
            let label = match error {
                ExpandError::Required { .. } => "expected a value, by `--build-arg` or `ENV`",
                _ => "in this text",
            };
            Err(Diagnostic::new(place.clone(), error.to_string()).label(label).into())
        }
    }
}

fn text_of(expanded: Located<Expanded>) -> String {
    expanded.value.text
}
