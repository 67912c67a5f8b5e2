//! What can be said to `drystone serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use oci::Registry;

use super::LayoutArgs;
use super::amount::{duration, size};

#[derive(Debug, Args)]
pub struct Serve {
    /// The address and port
    #[arg(long, default_value = "127.0.0.1:5100", value_name = "ADDRESS:PORT")]
    pub listen: std::net::SocketAddr,
    /// The registry's public name, under which pushed images are kept [default: localhost and the port]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub name: Option<Registry>,
    /// Refuse to store and delete
    #[arg(long)]
    pub read_only: bool,
    /// Write a line for each request on standard error: as text, as a JSON object, or not at all
    #[arg(long, value_enum, default_value_t = AccessLogKind::Plain, value_name = "FORMAT")]
    pub access_log: AccessLogKind,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub doors: Doors,
    #[command(flatten)]
    pub limits: Limits,
}

/// Who may come in, and how.
#[derive(Debug, Args)]
pub struct Doors {
    /// Ask for a name and a password of this file, which `htpasswd -B` makes; it is read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub htpasswd: Option<PathBuf>,
    /// Speak TLS, and show this certificate (PEM), followed by those that lead to its authority
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Access")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Access")]
    pub tls_key: Option<PathBuf>,
}

/// How much is taken. Sizes are bytes, or have a unit: kB, MB, GB (powers of 1000), KiB, MiB, GiB or K, M, G (of 1024).
#[derive(Debug, Args)]
pub struct Limits {
    /// The largest manifest; at most 4MiB
    #[arg(long, default_value = "4MiB", value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub max_manifest_size: u64,
    /// The largest blob
    #[arg(long, default_value = "1TiB", value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub max_blob_size: u64,
    /// How much the layout may hold in all; a push that needs more is refused [default: what the disk has]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub max_total_size: Option<u64>,
    /// How many uploads may be open at once
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Limits")]
    pub max_uploads: u32,
    /// How long an upload may rest before it is removed: 90s, 30m, 1h, 7d
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration, help_heading = "Limits")]
    pub upload_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogKind {
    Plain,
    Json,
    Off,
}
