//! Pulls what images are built on, from the registries that the command line and the environment tell of.

use std::error::Error;
use std::sync::Arc;

use drystone::base::{Fetched, Puller};
use drystone::events::Observer;
use drystone::pull::LayoutSink;
use drystone::push;
use oci::{Platform, Reference};
use registry_client::{Client, Options, Platforms, RetryPolicy, Sink};
use store::Layout;
use tokio::runtime::Runtime;

use crate::args::RegistryArgs;
use crate::failure::Failure;
use crate::registries;

/// Pulls into a layout.
pub struct RegistryPuller {
    client: Client,
    /// One that tries nothing again.
    hasty: Client,
    layout: Arc<Layout>,
    runtime: Runtime,
}

impl RegistryPuller {
    /// One that tells `observer` what it does.
    pub fn new(arguments: &RegistryArgs, layout: Arc<Layout>, observer: Arc<dyn Observer>) -> Result<Self, Failure> {
        let options = registries::options_with_kept_credentials(arguments)?;
        let once = RetryPolicy { attempts: 1, ..options.retry.clone() };
        let hasty = push::client(Options { retry: once, ..options.clone() }, Arc::clone(&observer))?;
        let client = push::client(options, observer)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Self { client, hasty, layout, runtime: runtime.map_err(Failure::of)? })
    }
}

impl Puller for RegistryPuller {
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Fetched, Box<dyn Error + Send + Sync>> {
        let sink: Arc<dyn Sink> = Arc::new(LayoutSink(Arc::clone(&self.layout)));
        let platforms = Platforms::One(platform.clone());
        let report = self.runtime.block_on(self.client.pull(reference, &platforms, sink))?;
        let manifest = report.resolved.taken().descriptor.clone();
        Ok(Fetched { named: report.resolved.named.descriptor.digest, manifest })
    }

    fn reach(&self, reference: &Reference, platform: &Platform) -> Result<(), Box<dyn Error + Send + Sync>> {
        let platforms = Platforms::One(platform.clone());
        match self.runtime.block_on(self.hasty.resolve(reference, &platforms)) {
            Err(error @ (registry_client::Error::Connection { .. } | registry_client::Error::Stalled { .. })) => {
                Err(error.into())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
