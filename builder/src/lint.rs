//! From paths to findings: reads the Dockerfiles and families that lie there, and hands the texts to the rules.

mod json;
mod sarif;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::dockerfile::IgnoreRules;
use spec::lint::{Finding, Report, Selection, Severity};
use spec::{Diagnostics, SourceFile, Variables};

use crate::load::{self, FAMILY_FILE, IMAGE_FILE, LoadError};

pub use json::json;
pub use sarif::sarif;

/// No Dockerfile is larger than this, heredocs and all.
const LARGEST_FILE: u64 = 16 << 20;

/// Names that a directory's Dockerfile has, beside `Dockerfile.…` and `….Dockerfile`.
const NAMES: [&str; 2] = ["Dockerfile", "Containerfile"];

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// A directory holds nothing that could be looked at.
    #[error("`{}` holds neither a {FAMILY_FILE} nor a Dockerfile", .0.display())]
    Nothing(PathBuf),
    /// A file or directory could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Looked {
    /// Everything that the rules say.
    pub report: Report,
    /// How many Dockerfiles and families there were.
    pub files: usize,
}

impl Looked {
    /// Adds a report without what has been said already: a Dockerfile that cannot be read makes its family one that
    /// cannot be read either.
    fn add(&mut self, mut report: Report) {
        let said = |finding: &Finding| {
            let span = &finding.diagnostic.span;
            (span.file().name.trim_start_matches("./").to_owned(), span.range().start, finding.diagnostic.title.clone())
        };
        let known: Vec<_> = self.report.findings.iter().map(said).collect();
        report.findings.retain(|finding| finding.severity == Severity::Warning || !known.contains(&said(finding)));
        self.report.extend(report);
    }
}

/// Looks at each of `paths`: a Dockerfile, a family (its directory or `family.yaml`), or a directory with Dockerfiles.
/// Dockerfiles in the directories of a family are part of it.
pub fn lint(paths: &[PathBuf], variables: &Variables, selection: &Selection) -> Result<Looked, LintError> {
    let mut looked = Looked::default();
    for path in paths {
        look(path, variables, selection, &mut looked)?;
    }
    Ok(looked)
}

fn look(path: &Path, variables: &Variables, selection: &Selection, looked: &mut Looked) -> Result<(), LintError> {
    let is_family = path.file_name().is_some_and(|name| name == FAMILY_FILE) || path.join(FAMILY_FILE).is_file();
    if is_family {
        return family(path, variables, selection, looked);
    }
    if !path.is_dir() {
        return dockerfile(path, &[], selection, looked);
    }
    let found = dockerfiles(path)?;
    if found.is_empty() {
        return Err(LintError::Nothing(path.to_path_buf()));
    }
    found.iter().try_for_each(|file| dockerfile(file, &[], selection, looked))
}

fn family(path: &Path, variables: &Variables, selection: &Selection, looked: &mut Looked) -> Result<(), LintError> {
    let directory = match path.is_dir() {
        true => path,
        false => path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")),
    };
    looked.files += 1;
    match load::load(directory, variables) {
        Ok(loaded) => looked.report.extend(spec::lint::family(&loaded.family, selection)),
        Err(LoadError::Wrong(diagnostics)) => looked.add(Report::of_errors(diagnostics)),
        Err(error) => return Err(error.into()),
    }
    let mut siblings = Vec::new();
    let mut files = Vec::new();
    for child in children(directory)?.into_iter().filter(|child| child.is_dir()) {
        let own: Vec<PathBuf> = NAMES.iter().map(|name| child.join(name)).filter(|file| file.is_file()).collect();
        if child.join(IMAGE_FILE).is_file() || !own.is_empty() {
            siblings.extend(child.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        files.extend(own);
    }
    files.iter().try_for_each(|file| dockerfile(file, &siblings, selection, looked))
}

fn dockerfile(path: &Path, siblings: &[String], selection: &Selection, looked: &mut Looked) -> Result<(), LintError> {
    looked.files += 1;
    let file = match read(path)? {
        Ok(file) => Arc::new(file),
        Err(diagnostics) => {
            looked.report.extend(Report::of_errors(diagnostics));
            return Ok(());
        }
    };
    let ignore = match ignore_rules(path)? {
        Some(Ok(rules)) => Some(rules),
        Some(Err(diagnostics)) => {
            looked.report.extend(Report::of_errors(diagnostics));
            None
        }
        None => None,
    };
    looked.add(spec::lint::dockerfile(&file, ignore.as_ref(), siblings, selection));
    Ok(())
}

/// The rules that belong to a Dockerfile, if the context is its directory.
fn ignore_rules(dockerfile: &Path) -> Result<Option<Result<IgnoreRules, Diagnostics>>, LoadError> {
    let name = dockerfile.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = dockerfile.parent().unwrap_or(Path::new(""));
    for name in IgnoreRules::names(&name) {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(Some(read(&path)?.and_then(|file| IgnoreRules::parse(&Arc::new(file)))));
        }
    }
    Ok(None)
}

/// The Dockerfiles that lie in a directory, by name.
fn dockerfiles(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let is_dockerfile = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_named =
            NAMES.contains(&name.as_str()) || name.starts_with("Dockerfile.") || name.ends_with(".Dockerfile");
        is_named && !name.ends_with(".dockerignore") && path.is_file()
    };
    Ok(children(directory)?.into_iter().filter(is_dockerfile).collect())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: directory.to_path_buf(), source };
    let mut children = Vec::new();
    for child in fs::read_dir(directory).map_err(failed)? {
        children.push(child.map_err(failed)?.path());
    }
    children.sort();
    Ok(children)
}

/// Reads a text; what is none is a finding, not a failure.
pub fn read(path: &Path) -> Result<Result<SourceFile, Diagnostics>, LoadError> {
    let bytes = load::read_bounded(path, LARGEST_FILE)?;
    let name = path.strip_prefix(".").unwrap_or(path).display().to_string();
    Ok(SourceFile::from_bytes(name, bytes))
}
