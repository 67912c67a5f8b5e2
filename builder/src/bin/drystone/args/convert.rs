//! What `convert` is told.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct Convert {
    /// The Dockerfile, or a directory that holds one
    #[arg(value_name = "DOCKERFILE", default_value = "Dockerfile")]
    pub dockerfile: PathBuf,
    /// Write the spec to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The stage that is wanted, by name or number [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Give an argument of the Dockerfile a value; may be given several times
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = super::values::variable)]
    pub build_arg: Vec<(String, String)>,
}
