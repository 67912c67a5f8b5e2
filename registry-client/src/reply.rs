//! An answer, and reading no more of it than is sensible.

use std::time::Duration;

use bytes::Bytes;
use content::Digest;
use oci::Registry;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::tamed;
use crate::{Error, RegistryError, RequestName};

/// How much of a refusal is read.
const MAX_REFUSAL: u64 = 64 << 10;

/// An answer whose body is not read yet. It counts as an open connection until it is dropped.
pub(crate) struct Reply {
    pub(crate) response: reqwest::Response,
    pub(crate) request: RequestName,
    /// Who was asked: the registry, or a mirror of it.
    pub(crate) asked: Registry,
    /// What the registry was shown.
    pub(crate) shown: Option<HeaderValue>,
    pub(crate) stall: Duration,
    pub(crate) _permit: OwnedSemaphorePermit,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<RegistryError>,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The `Docker-Content-Digest`, if it is one.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.header(HeaderName::from_static("docker-content-digest"))?.parse().ok()
    }

    /// Passes on answers with one of these statuses; others become errors.
    pub(crate) async fn expect(self, statuses: &[u16]) -> Result<Self, Error> {
        if statuses.contains(&self.status()) { Ok(self) } else { Err(self.refused().await) }
    }

    /// The registry's refusal as an error.
    pub(crate) async fn refused(self) -> Error {
        let (status, request) = (self.status(), self.request.clone());
        let errors = self.errors().await;
        Error::Refused { request, status, errors }
    }

    /// What the registry says in a refusal. A refusal that is no JSON says something all the same.
    pub(crate) async fn errors(self) -> Vec<RegistryError> {
        let bytes = self.bytes(MAX_REFUSAL).await.unwrap_or_default();
        let errors = match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => refusal.errors,
            Err(_) => {
                let message = String::from_utf8_lossy(&bytes).trim().to_owned();
                vec![RegistryError { code: String::new(), message }]
            }
        };
        let tame = |error: RegistryError| RegistryError { code: tamed(&error.code), message: tamed(&error.message) };
        errors.into_iter().take(5).map(tame).filter(|error| *error != RegistryError::default()).collect()
    }

    /// The whole body, of at most `limit` bytes.
    pub(crate) async fn bytes(mut self, limit: u64) -> Result<Bytes, Error> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > limit {
                return Err(self.protocol(format!("it is larger than {limit} bytes")));
            }
        }
        Ok(bytes.into())
    }

    /// The next piece of the body.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let request = || self.request.clone();
        match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Err(_) => Err(Error::Stalled { request: request(), waited: self.stall }),
            Ok(Err(source)) => Err(Error::Connection { request: request(), source: source.without_url() }),
            Ok(Ok(piece)) => Ok(piece),
        }
    }

    pub(crate) fn protocol(&self, reason: impl Into<String>) -> Error {
        Error::Protocol { request: self.request.clone(), reason: reason.into() }
    }
}
