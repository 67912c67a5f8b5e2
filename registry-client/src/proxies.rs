//! Proxies between the client and the registries.

use reqwest::{NoProxy, Proxy};

use crate::{Error, Secret};

/// What never goes through a proxy: a proxy's own machine is another one than ours.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Proxies, as the customary variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them. Loopback addresses are
/// reached without one.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For plain HTTP. The address may have a name and a password in it.
    pub http: Option<Secret>,
    /// For HTTPS.
    pub https: Option<Secret>,
    /// Hosts, domains and networks that are reached without them, separated by commas; `*` for all.
    pub except: String,
}

impl Proxies {
    pub(crate) fn list(&self) -> Result<Vec<Proxy>, Error> {
        if self.except.trim() == "*" {
            return Ok(Vec::new());
        }
        let except = NoProxy::from_string(&format!("{LOOPBACK},{}", self.except));
        let mut proxies = Vec::new();
        for (scheme, address) in [("http", &self.http), ("https", &self.https)] {
            let Some(address) = address else { continue };
            let proxy = if scheme == "http" { Proxy::http(address.reveal()) } else { Proxy::https(address.reveal()) };
            proxies.push(proxy.map_err(|_| Error::Proxy { scheme })?.no_proxy(except.clone()));
        }
        Ok(proxies)
    }
}
