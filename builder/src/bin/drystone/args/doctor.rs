//! What can be said to `drystone doctor`.

use std::path::PathBuf;

use clap::Args;
use oci::Registry;

use super::format::ReportFormat;
use super::places::{CacheArgs, LayoutArgs, MirrorArgs};
use super::registry::RegistryArgs;
use super::values::variable;

#[derive(Debug, Args)]
pub struct Doctor {
    /// A family whose suites and registry are asked for [default: the one in this directory, if there is one]
    #[arg(value_name = "FAMILY")]
    pub family: Option<PathBuf>,
    /// How: `table` or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub mirror: MirrorArgs,
    /// Ask this registry instead of the family's
    #[arg(long, value_name = "REGISTRY")]
    pub registry: Option<Registry>,
    /// Give a variable of the specs a value; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    pub registries: RegistryArgs,
}
