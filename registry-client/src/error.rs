//! Why something did not work, in the registry's own words where it has any.

use std::fmt;
use std::io;
use std::time::Duration;

use content::Digest;
use oci::{Platform, Reference, Registry};
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::{CredentialsError, PlatformList};

/// A request as people name it: method and address, without the query, in which secrets travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestName {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The address without its query.
    pub url: String,
}

impl RequestName {
    pub(crate) fn new(method: &Method, url: &Url) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self { method: method.to_string(), url: url.to_string() }
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

/// One entry of a registry's refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegistryError {
    /// The code: `MANIFEST_UNKNOWN`, `DENIED`, …
    pub code: String,
    /// What the registry says to people.
    pub message: String,
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            (code, "") => f.write_str(code),
            ("", message) => f.write_str(message),
            (code, message) => write!(f, "{code}: {message}"),
        }
    }
}

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be made.
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
    /// The certificate that registries get to see cannot be used, or has no key with it.
    #[error("the client's certificate and its key cannot be used")]
    Identity(#[source] reqwest::Error),
    /// A proxy cannot be used. Its address is not told: it may have a password in it.
    #[error("the proxy for {scheme} cannot be used: expected an address such as `http://host:port`")]
    Proxy {
        /// What it is the proxy for: `http` or `https`.
        scheme: &'static str,
    },
    /// A registry's name makes no address, or the registry sends us to one.
    #[error("`{text}` is not an address that can be used: {reason}")]
    Address {
        /// The address.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection did not come about, or broke.
    #[error("`{request}` got no answer")]
    Connection {
        /// The request.
        request: RequestName,
        /// What broke.
        source: reqwest::Error,
    },
    /// Nothing moved for too long.
    #[error("`{request}` stalled: nothing moved for {} seconds", waited.as_secs())]
    Stalled {
        /// The request.
        request: RequestName,
        /// How long.
        waited: Duration,
    },
    /// The registry refused.
    #[error("`{request}` was refused with status {status}{}", list(errors))]
    Refused {
        /// The request.
        request: RequestName,
        /// The HTTP status.
        status: u16,
        /// What the registry says.
        errors: Vec<RegistryError>,
    },
    /// The registry wants to know who we are, or does not like who we are.
    #[error("`{request}` was not authorized, with {credential}{}", list(errors))]
    Unauthorized {
        /// The request.
        request: RequestName,
        /// Who we said we are, and where that was written; or that there was no credential.
        credential: String,
        /// Whether there was none.
        anonymous: bool,
        /// What the registry says.
        errors: Vec<RegistryError>,
    },
    /// The registry asks for a pause that nobody waits.
    #[error("`{request}` may be tried again in {} seconds, which is too long to wait", wait.as_secs())]
    TryLater {
        /// The request.
        request: RequestName,
        /// The pause.
        wait: Duration,
    },
    /// The registry answers something that the protocol does not have.
    #[error("`{request}` has an answer that cannot be used: {reason}")]
    Protocol {
        /// The request.
        request: RequestName,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob or manifest is not there.
    #[error("{what} is not in {place}{}", list(said))]
    Missing {
        /// What was looked for.
        what: String,
        /// The registry and repository.
        place: String,
        /// What the registry says.
        said: Vec<RegistryError>,
    },
    /// A layer that need not be in registries is not there, and was not to be had elsewhere.
    #[error("layer {digest} may not be passed on, is not in {remote}, and did not come from {}", urls.join(" or "))]
    Foreign {
        /// The layer.
        digest: Digest,
        /// The registry and repository.
        remote: String,
        /// Where else it should be.
        urls: Vec<String>,
    },
    /// There is no image for a platform.
    #[error("{reference} has no image for {wanted}; it has images for: {there}")]
    Platform {
        /// The image.
        reference: Box<Reference>,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        there: PlatformList,
    },
    /// An index leads to more manifests than anyone should have to fetch.
    #[error("an index in {remote} leads to more than {limit} manifests, or through more than {depth} indexes")]
    TooManyManifests {
        /// The registry and repository.
        remote: String,
        /// How many are fetched at most.
        limit: usize,
        /// How deep indexes may lie in one another.
        depth: usize,
    },
    /// The bytes are not those that were named.
    #[error("{registry} sent wrong bytes for {expected}: they hash to {found}")]
    Damaged {
        /// Who sent them.
        registry: Registry,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// There are more or fewer bytes than announced.
    #[error("{registry} sent {found} bytes for {digest}, expected {expected}")]
    WrongSize {
        /// Who sent them.
        registry: Registry,
        /// What was asked for.
        digest: Digest,
        /// The announced number.
        expected: u64,
        /// How many came before we stopped reading.
        found: u64,
    },
    /// What is to be sent cannot be read.
    #[error("cannot read {digest} to send it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// What comes cannot be written.
    #[error("cannot write {digest} as it comes")]
    Sink {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Credentials exist but cannot be had.
    #[error("no credentials for {registry}")]
    Credentials {
        /// The registry.
        registry: Registry,
        /// Why.
        source: CredentialsError,
    },
    /// A manifest is not a manifest.
    #[error("{what} is not a valid manifest")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: oci::DocumentError,
    },
}

impl Error {
    /// Whether the same may work in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { source, .. } => !is_certain(source),
            Self::Stalled { .. } => true,
            Self::Refused { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }

    /// It and its causes in one line: the first alone says that there was no answer, the last why.
    pub(crate) fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unauthorized { .. } => Some(401),
            _ => None,
        }
    }
}

/// Statuses after which trying again makes sense. 501 and 505 say that it never will.
pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=504 | 506..=599)
}

/// A certificate that is wrong now is wrong in a second too.
fn is_certain(error: &reqwest::Error) -> bool {
    if error.is_builder() {
        return true;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        // An alert of TLS: the registry does not take our certificate, or wants one.
        let text = error.to_string();
        if text.contains("certificate") || text.contains("fatal alert") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn list(errors: &[RegistryError]) -> String {
    errors.iter().map(|error| format!(": {error}")).collect()
}

/// What a stranger wrote, made fit for a terminal: of bounded length, and without control characters.
pub(crate) fn tamed(text: &str) -> String {
    text.chars().take(300).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_without_its_secrets() {
        let url = Url::parse("https://user:password@registry.example/v2/a?token=secret#x").unwrap();
        let name = RequestName::new(&Method::GET, &url);
        assert_eq!(name.to_string(), "GET https://registry.example/v2/a");
    }

    #[test]
    fn only_statuses_that_may_pass_are_tried_again() {
        for status in [408, 429, 500, 502, 503, 504, 507] {
            assert!(is_transient_status(status), "{status}");
        }
        for status in [200, 400, 401, 403, 404, 416, 501, 505] {
            assert!(!is_transient_status(status), "{status}");
        }
    }

    #[test]
    fn a_registrys_words_cannot_move_the_cursor() {
        assert_eq!(tamed("a\u{1b}[2Jb\n"), "a [2Jb ");
        assert_eq!(tamed(&"x".repeat(1000)).len(), 300);
    }
}
