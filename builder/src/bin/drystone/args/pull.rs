//! The arguments of `drystone pull`.

use std::path::PathBuf;

use clap::Args;
use oci::{Platform, Reference};
use registry_client::Platforms;

use super::{LayoutArgs, RegistryArgs, ReportFormat};

#[derive(Debug, Args)]
pub struct Pull {
    /// Images, by tag or digest: `registry.example/team/app:v1`, `localhost:5100/redis@sha256:…`
    #[arg(value_name = "REF", required = true)]
    pub references: Vec<Reference>,
    #[command(flatten)]
    pub platforms: PlatformArgs,
    /// How what was pulled is told: `table`, a line for each image, or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    /// Write what was pulled, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Which images of an index.
#[derive(Clone, Debug, Args)]
pub struct PlatformArgs {
    /// Which image of a multi-platform index [default: the one for this machine]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// All images of a multi-platform index, and the index itself
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
}

impl PlatformArgs {
    /// What was asked for, or what this machine runs.
    pub fn chosen(&self) -> Platforms {
        if self.all_platforms { Platforms::All } else { Platforms::One(self.platform.clone().unwrap_or_else(here)) }
    }
}

/// The platform of this machine.
pub fn here() -> Platform {
    let platform = format!("linux/{}", std::env::consts::ARCH);
    platform.parse().unwrap_or_else(|_| Platform::linux(std::env::consts::ARCH))
}
