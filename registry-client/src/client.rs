//! The client, and the address of a repository.

use std::fmt;
use std::sync::Arc;

use oci::{Reference, Registry, Repository};
use reqwest::Method;

use crate::auth::Scope;
use crate::reply::Reply;
use crate::transport::{Call, Transport};
use crate::{Error, Options};

/// A client for any number of registries. Cloning it is cheap, and clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
}

/// A repository in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Remote {
    /// The registry.
    pub registry: Registry,
    /// The repository in it.
    pub repository: Repository,
}

impl From<&Reference> for Remote {
    fn from(reference: &Reference) -> Self {
        Self { registry: reference.registry().clone(), repository: reference.repository().clone() }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// What a request on a repository wants to do there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
    Delete,
}

impl Client {
    /// A client that behaves like this.
    pub fn new(options: Options) -> Result<Self, Error> {
        Ok(Self { transport: Arc::new(Transport::new(options)?) })
    }

    /// Asks whether a registry is there, speaks the API, and lets us in.
    pub async fn ping(&self, registry: &Registry) -> Result<(), Error> {
        let url = self.transport.url(registry, "/v2/")?;
        let reply = self.transport.send(Call::new(Method::GET, url, registry, Scope::none())).await?;
        reply.expect(&[200]).await.map(drop)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.transport.options
    }

    /// A request about something in a repository: `/v2/<repository>/<path>`.
    pub(crate) fn call(&self, method: Method, remote: &Remote, path: &str, access: Access) -> Result<Call, Error> {
        let url = self.transport.url(&remote.registry, &format!("/v2/{}/{path}", remote.repository))?;
        Ok(Call::new(method, url, &remote.registry, Scope::of(&remote.repository, access)))
    }

    pub(crate) async fn send(&self, call: Call) -> Result<Reply, Error> {
        self.transport.send(call).await
    }
}
