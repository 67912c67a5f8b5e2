//! HTTP clients: one for requests without TLS, and one for the others.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Proxy, Url};

use crate::{Error, Options};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The two clients, each made when it is needed: to read the certificates of a system takes longer than to ask a registry
/// on this machine what it has.
pub(crate) struct Clients {
    certificates: Vec<Certificate>,
    identity: Option<Identity>,
    proxies: Vec<Proxy>,
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

impl Clients {
    /// Checks what the clients will be made of.
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let mut certificates = Vec::new();
        for pem in &options.certificates {
            certificates.extend(Certificate::from_pem_bundle(pem).map_err(Error::Setup)?);
        }
        let identity = options.identity.as_ref().map(|pem| Identity::from_pem(pem.reveal().as_bytes()));
        let identity = identity.transpose().map_err(Error::Identity)?;
        let proxies = options.proxies.list()?;
        Ok(Self { certificates, identity, proxies, plain: OnceLock::new(), tls: OnceLock::new() })
    }

    /// The client for an address.
    pub(crate) fn of(&self, url: &Url, options: &Options) -> Result<&Client, Error> {
        // A proxy may be reached by TLS, whatever is asked of it.
        let is_plain = url.scheme() == "http" && self.proxies.is_empty();
        let place = if is_plain { &self.plain } else { &self.tls };
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let new =
            if is_plain { self.builder(options).tls_certs_only([]).build() } else { self.with_certificates(options) };
        let new = new.map_err(Error::Setup)?;
        Ok(place.get_or_init(|| new))
    }

    fn with_certificates(&self, options: &Options) -> reqwest::Result<Client> {
        let builder = || match &self.identity {
            Some(identity) => self.builder(options).identity(identity.clone()),
            None => self.builder(options),
        };
        let with_system = builder().tls_certs_merge(self.certificates.clone()).build();
        // A small container has no certificates of its own.
        with_system.or_else(|_| builder().tls_certs_only(self.certificates.clone()).build())
    }

    fn builder(&self, options: &Options) -> ClientBuilder {
        let builder = Client::builder()
            .user_agent(&options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .pool_max_idle_per_host(options.connections_per_host)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        self.proxies.iter().cloned().fold(builder, ClientBuilder::proxy)
    }
}
