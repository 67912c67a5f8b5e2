//! Why a build failed, with the facts that the person who must act needs.

use std::io;
use std::path::PathBuf;

use debian::package::IndexError;
use sandbox::{CannotRun, Outcome, RunError};
use spec::{Diagnostic, Diagnostics, ImageName, Span};
use store::StoreError;
use url::Url;

use crate::apt::archive::ArchiveError;
use crate::base::BaseError;
use crate::fetch::{FetchError, shown};
use crate::load::LoadError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A spec asks for something that cannot be.
    #[error(transparent)]
    Spec(#[from] Diagnostics),
    /// A family could not be read.
    #[error(transparent)]
    Load(LoadError),
    /// An archive cannot be used.
    #[error(transparent)]
    Archive(#[from] Box<ArchiveError>),
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An index says something that is not valid.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// An image to build on cannot be had.
    #[error(transparent)]
    Base(#[from] Box<BaseError>),
    /// A package that the lock, or an index, names is nowhere.
    #[error("{name} {version} is no longer there{}", asked(places))]
    Gone {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// Where it was looked for.
        places: Vec<Url>,
    },
    /// Nothing may be fetched, and the cache does not have all that is needed.
    #[error("--offline: the cache lacks {}", lacking(missing))]
    NotCached {
        /// What it lacks, by name.
        missing: Vec<MissingInput>,
    },
    /// The lock cannot be read or written.
    #[error("cannot {what} the lock `{}`", path.display())]
    LockFile {
        /// What was done.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A package is not what a package should be.
    #[error("the package {package} cannot be unpacked")]
    Package {
        /// Its name and version.
        package: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two packages ship the same file, and neither replaces the other's.
    #[error("the packages {first} and {second} both ship {path}")]
    Overlap {
        /// The package that is unpacked first.
        first: String,
        /// The other.
        second: String,
        /// The path.
        path: String,
    },
    /// A command in an image failed.
    #[error("{image}: {what} failed: {outcome}")]
    Command {
        /// The image.
        image: ImageName,
        /// What was run.
        what: String,
        /// How it ended.
        outcome: Outcome,
        /// What it printed last.
        last_lines: Vec<String>,
        /// Where all of its output is.
        log: Option<PathBuf>,
    },
    /// The sandbox could not run a command.
    #[error("{image}: {what} could not be run")]
    Sandbox {
        /// The image.
        image: ImageName,
        /// What was to be run.
        what: String,
        /// Why not.
        source: RunError,
    },
    /// Something failed that a place of a spec asks for.
    #[error("{source}")]
    Located {
        /// The place.
        span: Span,
        /// What failed.
        source: Box<BuildError>,
    },
    /// Steps have to be run, and nothing can be.
    #[error("{steps}; {why}")]
    CannotRun {
        /// Which, and where the specs ask for them.
        steps: Diagnostics,
        /// Why not.
        why: CannotRun,
    },
    /// The layout or the cache failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of this machine failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Some images failed, and others may not have been tried because of that.
    #[error("{} could not be built: {}{}", images(failed.len()), names(failed), skipped_text(skipped))]
    Images {
        /// Those that failed themselves.
        failed: Vec<ImageName>,
        /// Those that were not tried.
        skipped: Vec<ImageName>,
        /// Why those that failed did, in the same order.
        errors: Vec<BuildError>,
    },
}

/// Something that has to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingInput {
    /// A package as `name=version`, or an address.
    pub what: String,
    /// How many bytes it has, if that is known.
    pub size: Option<u64>,
}

impl BuildError {
    /// Something wrong at a place of a spec. An empty `help` is none.
    pub fn at(span: &Span, title: impl Into<String>, help: impl Into<String>) -> Self {
        let help = help.into();
        let diagnostic = Diagnostic::new(span.clone(), title);
        Self::Spec(if help.is_empty() { diagnostic } else { diagnostic.help(help) }.into())
    }

    /// What the command printed last that failed, if one did.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Command { last_lines, .. } => last_lines,
            Self::Located { source, .. } => source.last_lines(),
            _ => &[],
        }
    }

    /// The image to build on that is not on this machine, if that is all.
    pub fn absent_base(&self) -> Option<&str> {
        match self {
            Self::Base(error) => match error.as_ref() {
                BaseError::NotHere { name } => Some(name),
                _ => None,
            },
            Self::Located { source, .. } => source.absent_base(),
            _ => None,
        }
    }

    /// The same error, with the place in the spec that asked for what failed. The spec is not wrong for that.
    #[must_use]
    pub fn located(self, span: &Span) -> Self {
        match self {
            Self::Spec(_) | Self::Located { .. } | Self::Interrupted | Self::Fetch(FetchError::Interrupted) => self,
            other => Self::Located { span: span.clone(), source: Box::new(other) },
        }
    }
}

impl From<LoadError> for BuildError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Wrong(diagnostics) => Self::Spec(diagnostics),
            other => Self::Load(other),
        }
    }
}

impl From<BaseError> for BuildError {
    fn from(error: BaseError) -> Self {
        match error {
            BaseError::Store(error) => Self::Store(*error),
            other => Self::Base(Box::new(other)),
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

fn lacking(missing: &[MissingInput]) -> String {
    let files = if missing.len() == 1 { "1 file".to_owned() } else { format!("{} files", missing.len()) };
    let sizes: Vec<u64> = missing.iter().filter_map(|input| input.size).collect();
    let bytes = match (sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size)), sizes.len() == missing.len()) {
        (bytes, true) => format!(", {bytes} bytes"),
        (0, false) => String::new(),
        (bytes, false) => format!(", {bytes} bytes and what is not known"),
    };
    let line = |input: &MissingInput| match input.size {
        Some(size) => format!("\n  {} ({size} bytes)", input.what),
        None => format!("\n  {}", input.what),
    };
    format!("{files}{bytes}:{}", missing.iter().map(line).collect::<String>())
}

fn asked(places: &[Url]) -> String {
    if places.is_empty() {
        return ": no mirror is known".to_owned();
    }
    let places: Vec<String> = places.iter().map(|place| shown(place).to_string()).collect();
    format!(": {} does not exist", places.join(", or "))
}

fn images(count: usize) -> String {
    if count == 1 { "1 image".to_owned() } else { format!("{count} images") }
}

fn names(images: &[ImageName]) -> String {
    images.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn skipped_text(skipped: &[ImageName]) -> String {
    if skipped.is_empty() { String::new() } else { format!(" (not tried: {})", names(skipped)) }
}
