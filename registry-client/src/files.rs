//! Credentials as other tools keep them: Docker's `config.json`, `auth.json` of podman, skopeo and buildah
//! (containers-auth.json(5)), and the programs that such a file names
//! (<https://github.com/docker/docker-credential-helpers>).

mod document;
mod helper;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use oci::{Registry, Repository};

use self::document::{Document, Entry};
use self::helper::Helper;
use crate::{Credential, Credentials, CredentialsError, Secret};

/// What one logs in to: a registry, or a part of its repositories.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoginScope {
    /// The registry.
    pub registry: Registry,
    /// The repository, or the path that repositories lie under; none for all of them.
    pub path: Option<Repository>,
}

impl FromStr for LoginScope {
    type Err = oci::ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches('/');
        match text.split_once('/') {
            None => Ok(Self { registry: text.parse()?, path: None }),
            Some((registry, path)) => Ok(Self { registry: registry.parse()?, path: Some(path.parse()?) }),
        }
    }
}

impl fmt::Display for LoginScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            None => self.registry.fmt(f),
            Some(path) => write!(f, "{}/{path}", self.registry),
        }
    }
}

/// Where a login is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In a file, readable for whoever may read the file.
    Plain(PathBuf),
    /// By a program, which the file names.
    Helper(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(path) => write!(f, "`{}`", path.display()),
            Self::Helper(program) => write!(f, "`{program}`"),
        }
    }
}

/// Looks credentials up in files, and asks the programs that they name.
///
/// In each file the longest name counts that is the registry and a part of the repository's path, whole components of
/// it: `registry.example/team` serves `registry.example/team/app` and never `registry.example/teams`. The first file
/// that knows anything decides. Files are read when they are first needed, and each program is asked once.
pub struct CredentialFiles {
    paths: Vec<PathBuf>,
    found: Mutex<HashMap<LoginScope, Option<Credential>>>,
}

impl CredentialFiles {
    /// Uses these files, the most important first. Those that do not exist are passed over.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect(), found: Mutex::default() }
    }

    fn search(&self, wanted: &LoginScope) -> Result<Option<Credential>, CredentialsError> {
        for path in &self.paths {
            if let Some(document) = Document::read(path)?
                && let Some(credential) = search_in(&document, path, wanted)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }
}

impl Credentials for CredentialFiles {
    fn lookup(
        &self,
        registry: &Registry,
        repository: Option<&Repository>,
    ) -> Result<Option<Credential>, CredentialsError> {
        let wanted = LoginScope { registry: registry.clone(), path: repository.cloned() };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = found.get(&wanted) {
            return Ok(known.clone());
        }
        let credential = self.search(&wanted)?;
        found.insert(wanted, credential.clone());
        Ok(credential)
    }
}

fn search_in(document: &Document, path: &Path, wanted: &LoginScope) -> Result<Option<Credential>, CredentialsError> {
    for scope in widening(wanted) {
        if scope.path.is_none()
            && let Some(name) = document.helper_of(&scope.registry)
        {
            return Helper::new(name, path)?.get(&scope.registry);
        }
        let login = document.entry(&scope).map(Entry::decode).transpose();
        // An empty entry says that the default helper has it.
        if let Some(login) = login.map_err(|reason| unusable(path, &scope, reason))?.flatten() {
            return Ok(Some(login.into_credential(format!("`{}`", path.display()))));
        }
    }
    match document.default_helper() {
        Some(name) => Helper::new(name, path)?.get(&wanted.registry),
        None => Ok(None),
    }
}

fn unusable(path: &Path, scope: &LoginScope, reason: &'static str) -> CredentialsError {
    let message = format!("`{}`: the entry for {scope} cannot be used: {reason}", path.display());
    CredentialsError { message, source: None }
}

/// A scope, and all that it lies in: the longest first.
fn widening(scope: &LoginScope) -> impl Iterator<Item = LoginScope> + '_ {
    let path = scope.path.as_ref().map_or("", |path| path.as_str());
    let ends = path.match_indices('/').map(|(end, _)| end).chain((!path.is_empty()).then_some(path.len()));
    let mut ends: Vec<usize> = ends.collect();
    ends.reverse();
    let narrow = ends.into_iter().filter_map(|end| {
        let path = Some(path[..end].parse().ok()?);
        Some(LoginScope { registry: scope.registry.clone(), path })
    });
    narrow.chain([LoginScope { registry: scope.registry.clone(), path: None }])
}

/// Keeps a login where `path` says: with the program that it names, else in it. Everything else in the file stays.
pub fn keep_login(
    path: &Path,
    scope: &LoginScope,
    username: &str,
    password: &Secret,
) -> Result<Kept, CredentialsError> {
    let _alone = document::lock(path)?;
    let mut document = Document::read(path)?.unwrap_or_default();
    let helper = document.helper_of(&scope.registry).or(document.default_helper());
    if let (Some(name), None) = (helper, &scope.path) {
        let helper = Helper::new(name, path)?;
        helper.store(&scope.registry, username, password)?;
        return Ok(Kept::Helper(helper.program().to_owned()));
    }
    document.set(scope, username, password);
    document.write(path)?;
    Ok(Kept::Plain(path.to_path_buf()))
}

/// Forgets a login. Returns where it was; none if it was not there.
pub fn forget_login(path: &Path, scope: &LoginScope) -> Result<Option<Kept>, CredentialsError> {
    let Some(mut document) = Document::read(path)? else { return Ok(None) };
    let helper = document.helper_of(&scope.registry).or(document.default_helper());
    let mut forgotten = None;
    if let (Some(name), None) = (helper, &scope.path) {
        let helper = Helper::new(name, path)?;
        if helper.get(&scope.registry)?.is_some() {
            helper.erase(&scope.registry)?;
            forgotten = Some(Kept::Helper(helper.program().to_owned()));
        }
    }
    let _alone = document::lock(path)?;
    if let Some(fresh) = Document::read(path)? {
        document = fresh;
    }
    if document.remove(scope) {
        document.write(path)?;
        forgotten.get_or_insert_with(|| Kept::Plain(path.to_path_buf()));
    }
    Ok(forgotten)
}

/// The names under which other tools keep a registry's credentials.
fn server_names(registry: &Registry) -> Vec<String> {
    let name = registry.to_string();
    let mut names = vec![name.clone(), format!("https://{name}")];
    names.extend(registry.old_names().iter().map(|name| (*name).to_owned()));
    names
}

fn io_error(path: &Path, what: &str, source: io::Error) -> CredentialsError {
    CredentialsError { message: format!("`{}` cannot be {what}", path.display()), source: Some(source.into()) }
}

#[cfg(test)]
mod tests;
