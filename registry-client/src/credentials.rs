//! Who someone is to a registry. Where that is written down is the caller's business.

use std::fmt;

use oci::{Registry, Repository};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What proves who someone is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user's name and password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
        /// Where it was found, for messages.
        origin: String,
    },
    /// A token that buys other tokens (`identitytoken` in Docker's configuration).
    IdentityToken {
        /// The token.
        token: Secret,
        /// Where it was found, for messages.
        origin: String,
    },
}

impl Credential {
    /// Who, and from where; never the secret.
    pub fn describe(&self) -> String {
        match self {
            Self::Password { username, origin, .. } => format!("user `{username}` from {origin}"),
            Self::IdentityToken { origin, .. } => format!("identity token from {origin}"),
        }
    }
}

/// Credentials exist, but cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CredentialsError {
    /// What went wrong, where.
    pub message: String,
    /// Why.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Finds credentials.
pub trait Credentials: Send + Sync {
    /// What to show a registry, for a repository of it if the request is about one. `None` means to come anonymously.
    ///
    /// Called on a thread that may wait (helpers are programs), perhaps often: the answer for one repository should
    /// not change from call to call. Entries for a path must not serve its siblings: `registry/a` is not for
    /// `registry/ab`.
    fn lookup(
        &self,
        registry: &Registry,
        repository: Option<&Repository>,
    ) -> Result<Option<Credential>, CredentialsError>;
}

/// Knows nobody.
pub struct Anonymous;

impl Credentials for Anonymous {
    fn lookup(&self, _: &Registry, _: Option<&Repository>) -> Result<Option<Credential>, CredentialsError> {
        Ok(None)
    }
}
