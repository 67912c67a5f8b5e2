//! How registries are reached: what every command understands that speaks to one.

use std::path::PathBuf;

use clap::Args;
use oci::Registry;

use crate::registries::RegistryMirror;

/// How registries are reached.
#[derive(Clone, Debug, Args)]
pub struct RegistryArgs {
    /// Speak plain HTTP to this registry; loopback addresses need not be named
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]", help_heading = "Registries")]
    pub insecure: Vec<Registry>,
    /// Speak TLS to this registry, although it is at a loopback address
    #[arg(long = "secure-registry", value_name = "HOST[:PORT]", help_heading = "Registries")]
    pub secure: Vec<Registry>,
    /// Ask this mirror of a registry first, when images are read; may be given several times
    ///
    /// Without REGISTRY= it is one of docker.io, where `FROM debian` comes from. What a mirror lacks, or when it fails, is
    /// read from the registry itself. Images are verified by digest in any case, a tag means what the mirror says, and
    /// credentials are those for the mirror's own name. Nothing is pushed to it.
    #[arg(
        long = "registry-mirror",
        visible_alias = "registry-map",
        env = "DRYSTONE_REGISTRY_MIRROR",
        value_delimiter = ';',
        value_name = "[REGISTRY=]HOST[:PORT]",
        help_heading = "Registries"
    )]
    pub mirrors: Vec<RegistryMirror>,
    /// Trust the certificates in this PEM file too; may be given several times
    #[arg(long = "registry-ca", value_name = "FILE", help_heading = "Registries")]
    pub ca: Vec<PathBuf>,
    /// Show registries this certificate (PEM), which may have its key with it
    #[arg(long = "registry-cert", value_name = "FILE", help_heading = "Registries")]
    pub certificate: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long = "registry-key", value_name = "FILE", requires = "certificate", help_heading = "Registries")]
    pub key: Option<PathBuf>,
    /// Read credentials from this file only [default: those of docker and podman]
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE", help_heading = "Registries")]
    pub authfile: Option<PathBuf>,
}
