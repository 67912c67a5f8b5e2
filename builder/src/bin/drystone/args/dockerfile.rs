//! What is said of Dockerfiles, to `build`, `explain` and `executor`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What is known of builds from Dockerfiles only.
#[derive(Clone, Debug, Default, Args)]
pub struct DockerfileArgs {
    /// Build from this Dockerfile, or with `-` from standard input [default: the context's Dockerfile]
    #[arg(short, long, alias = "dockerfile", value_name = "FILE", help_heading = "Dockerfiles")]
    pub file: Option<PathBuf>,
    /// Give an ARG a value; without one, that of the environment; may be given several times
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = "Dockerfiles")]
    pub build_arg: Vec<String>,
    /// Build this stage, by its name or number, instead of the last
    #[arg(long, value_name = "STAGE", help_heading = "Dockerfiles")]
    pub target: Option<String>,
    /// Add a label to the image; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Dockerfiles")]
    pub label: Vec<String>,
    /// Add an annotation to the manifest; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Dockerfiles")]
    pub annotation: Vec<String>,
    /// Let commands that ask for it talk to an SSH agent [socket: SSH_AUTH_SOCK]
    #[arg(long, value_name = "default|NAME[=SOCKET]", help_heading = "Dockerfiles")]
    pub ssh: Vec<String>,
    /// Ask registries for newer images to build on, also where there is one
    #[arg(long, help_heading = "Dockerfiles")]
    pub pull: bool,
    /// What commands reach that do not say it: `default` and `host` are what this machine does, `none` nothing
    #[arg(long, value_enum, default_value_t, value_name = "KIND", help_heading = "Dockerfiles")]
    pub network: NetworkKind,
    /// Push the image under all of its names
    #[arg(long, help_heading = "Dockerfiles")]
    pub push: bool,
    /// Write the image's id, the digest of its configuration, to this file
    #[arg(long, value_name = "FILE", help_heading = "Dockerfiles")]
    pub iidfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NetworkKind {
    #[default]
    Default,
    Host,
    None,
}
