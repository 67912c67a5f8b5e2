//! What can be said to `drystone push`.

use std::path::PathBuf;

use clap::Args;

use super::places::LayoutArgs;
use super::registry::RegistryArgs;

#[derive(Debug, Args)]
pub struct Push {
    /// Images or patterns, such as `redis` or `web*` [default: all]
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Where to, instead of the registry in the images' names
    #[arg(long, value_name = "REGISTRY[/PREFIX]")]
    pub to: Option<String>,
    /// Refuse to speak to a registry that is not on this machine
    #[arg(long)]
    pub offline: bool,
    /// Write what was pushed, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}
