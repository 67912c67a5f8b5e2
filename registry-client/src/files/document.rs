//! The file itself. What is not understood in it stays as it is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci::Registry;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LoginScope, io_error, server_names};
use crate::{Credential, CredentialsError, Secret};

/// Larger files are none that a tool wrote.
const LARGEST: u64 = 4 << 20;

/// A file of credentials.
#[derive(Default)]
pub(super) struct Document {
    root: Map<String, Value>,
}

/// What a file says of one registry.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(alias = "identity_token")]
    identitytoken: Option<String>,
}

/// A login as it was written down.
pub(super) enum Login {
    Password { username: String, password: Secret },
    IdentityToken(Secret),
}

impl Login {
    pub(super) fn into_credential(self, origin: String) -> Credential {
        match self {
            Self::Password { username, password } => Credential::Password { username, password, origin },
            Self::IdentityToken(token) => Credential::IdentityToken { token, origin },
        }
    }
}

impl Entry {
    /// The login; none if the entry is empty, which means that a program has it.
    pub(super) fn decode(self) -> Result<Option<Login>, &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Login::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = given(self.auth) {
            let bytes = BASE64.decode(auth.trim()).map_err(|_| "`auth` is not valid base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "`auth` is not text")?;
            let (username, password) = text.split_once(':').ok_or("`auth` is not `user:password`")?;
            // Old versions of Docker filled the password up.
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Login::Password { username: username.to_owned(), password }));
        }
        Ok(given(self.username).zip(given(self.password)).map(|(username, password)| {
            let password = Secret::new(password);
            Login::Password { username, password }
        }))
    }
}

impl Document {
    /// Reads a file; none if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CredentialsError> {
        let metadata = match fs::metadata(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            found => found.map_err(|error| io_error(path, "read", error))?,
        };
        let wrong = |reason: String| CredentialsError {
            message: format!("`{}` is no file of credentials: {reason}", path.display()),
            source: None,
        };
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(wrong(format!("expected a file of at most {LARGEST} bytes")));
        }
        let bytes = fs::read(path).map_err(|error| io_error(path, "read", error))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(Self::default()));
        }
        // The error's own text may quote the file.
        let place = |error: serde_json::Error| wrong(format!("line {} column {}", error.line(), error.column()));
        Ok(Some(Self { root: serde_json::from_slice(&bytes).map_err(place)? }))
    }

    /// What the file says of exactly this scope.
    pub(super) fn entry(&self, scope: &LoginScope) -> Option<Entry> {
        let (_, value) = self.find(scope)?;
        serde_json::from_value(value.clone()).ok()
    }

    fn find(&self, scope: &LoginScope) -> Option<(&String, &Value)> {
        let entries = self.root.get("auths")?.as_object()?;
        if scope.path.is_some() {
            let name = scope.to_string();
            return entries.iter().find(|(key, _)| **key == name);
        }
        let exact = server_names(&scope.registry);
        let exact = exact.iter().find_map(|name| entries.get_key_value(name));
        // Docker once kept addresses with a path that says nothing.
        exact.or_else(|| entries.iter().find(|(key, _)| host_of_address(key) == Some(scope.registry.as_str())))
    }

    /// The program that has the credentials of this registry.
    pub(super) fn helper_of(&self, registry: &Registry) -> Option<&str> {
        let helpers = self.root.get("credHelpers")?.as_object()?;
        server_names(registry).iter().find_map(|name| helpers.get(name)?.as_str()).filter(|name| !name.is_empty())
    }

    /// The program that has all other credentials.
    pub(super) fn default_helper(&self) -> Option<&str> {
        self.root.get("credsStore")?.as_str().filter(|name| !name.is_empty())
    }

    pub(super) fn set(&mut self, scope: &LoginScope, username: &str, password: &Secret) {
        self.remove(scope);
        let auth = BASE64.encode(format!("{username}:{}", password.reveal()));
        let entries = self.root.entry("auths").or_insert_with(|| json!({}));
        if !entries.is_object() {
            *entries = json!({});
        }
        entries[scope.to_string()] = json!({ "auth": auth });
    }

    /// Whether there was something to remove.
    pub(super) fn remove(&mut self, scope: &LoginScope) -> bool {
        let mut removed = false;
        while let Some(key) = self.find(scope).map(|(key, _)| key.clone()) {
            let entries = self.root.get_mut("auths").and_then(Value::as_object_mut);
            removed |= entries.is_some_and(|entries| entries.remove(&key).is_some());
        }
        removed
    }

    /// Writes the file, for its owner only. Whoever reads it meanwhile sees the old one or the new one, whole.
    pub(super) fn write(&self, path: &Path) -> Result<(), CredentialsError> {
        let failed = |error| io_error(path, "written", error);
        let path = &resolved(path);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error)))?;
        let beside = directory.join(format!(".drystone-{:x}", u64::from_ne_bytes(random)));
        let written = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            let mut text = serde_json::to_vec_pretty(&self.root)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        written().map_err(|error: io::Error| {
            let _ = fs::remove_file(&beside);
            failed(error)
        })
    }
}

/// Held while a file is changed, so that two logins at once are both kept. Makes the directory if there is none.
pub(super) fn lock(path: &Path) -> Result<File, CredentialsError> {
    let failed = |error| io_error(path, "written", error);
    let path = &resolved(path);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let directory = File::open(directory).map_err(failed)?;
    directory.lock().map_err(failed)?;
    Ok(directory)
}

/// The file that is meant: a link stays one.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The host and port of a key that is an address.
fn host_of_address(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"))?;
    rest.split('/').next()
}
