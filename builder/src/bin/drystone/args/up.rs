//! What can be said to `drystone up`.

use clap::Args;

use super::build::{BuildArgs, OutputArgs, SharedCacheArgs};
use super::registry::RegistryArgs;

#[derive(Debug, Args)]
pub struct Up {
    /// The family's directory, and then images or patterns if not all are wanted
    #[arg(value_name = "FAMILY|IMAGE")]
    pub names: Vec<String>,
    /// End after the list, instead of serving
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub caches: SharedCacheArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}
