//! How a client behaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use oci::Registry;

use crate::{Anonymous, Credentials, Events, Proxies, RetryPolicy, Secret, Silent, UploadNotes};

/// How a client behaves.
#[derive(Clone)]
pub struct Options {
    /// What the client calls itself.
    pub user_agent: String,
    /// Registries that are spoken to over plain HTTP. Loopback addresses are, without being named.
    pub insecure: BTreeSet<Registry>,
    /// Loopback registries that speak TLS nevertheless.
    pub secure: BTreeSet<Registry>,
    /// Where a registry is reached, if not under its own name. Credentials are those of the place that is reached.
    pub endpoints: BTreeMap<Registry, Registry>,
    /// Who is asked before a registry for what is read of it, in this order. What a mirror lacks or cannot give is read
    /// from the registry itself.
    pub mirrors: BTreeMap<Registry, Vec<Registry>>,
    /// Certificates to trust besides the system's, each a PEM file's content.
    pub certificates: Vec<Vec<u8>>,
    /// The certificate and the key, as PEM, that registries get to see which ask for one.
    pub identity: Option<Secret>,
    /// Who stands between us and the registries.
    pub proxies: Proxies,
    /// Who knows the passwords.
    pub credentials: Arc<dyn Credentials>,
    /// How often, and after which pauses, something is tried again.
    pub retry: RetryPolicy,
    /// How many requests to one registry may be open at once.
    pub connections_per_host: usize,
    /// Larger blobs are sent in pieces of this size, so that a break costs no more than a piece.
    pub chunk_size: u64,
    /// Who remembers uploads of larger blobs, so that the next process goes on with them.
    pub notes: Option<Arc<dyn UploadNotes>>,
    /// How long nothing may move before a connection counts as broken.
    pub stall: Duration,
    /// Who wants to know how it goes.
    pub events: Arc<dyn Events>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user_agent: concat!("drystone/", env!("CARGO_PKG_VERSION")).to_owned(),
            insecure: BTreeSet::new(),
            secure: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            certificates: Vec::new(),
            identity: None,
            proxies: Proxies::default(),
            credentials: Arc::new(Anonymous),
            retry: RetryPolicy::default(),
            connections_per_host: 8,
            chunk_size: 64 << 20,
            notes: None,
            stall: Duration::from_secs(60),
            events: Arc::new(Silent),
        }
    }
}
