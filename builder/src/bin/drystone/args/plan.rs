//! What can be said to `drystone plan` and `drystone explain`.

use clap::{Args, ValueEnum};

use super::build::BuildArgs;
use super::dockerfile::DockerfileArgs;
use super::format::ListFormat;
use super::registry::RegistryArgs;

#[derive(Debug, Args)]
pub struct Plan {
    /// The family's directory [default: .], and then images or patterns if not all are wanted
    #[arg(value_name = "FAMILY|IMAGE")]
    pub names: Vec<String>,
    /// How: for people, for programs, or as a graph for graphviz
    #[arg(long, value_enum, default_value_t = PlanFormat::Text, value_name = "FORMAT")]
    pub format: PlanFormat,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    Text,
    Json,
    Dot,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// The family's directory [default: .], and then images or patterns if not all are wanted; or the context of a
    /// Dockerfile, as for `build`
    #[arg(value_name = "FAMILY|IMAGE|CONTEXT")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub dockerfile: DockerfileArgs,
    /// How: for people or for programs
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    pub format: ListFormat,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}
