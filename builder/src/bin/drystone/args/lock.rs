//! What can be said to `drystone lock`, and of locks to others.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use oci::Platform;

use super::places::{CacheArgs, LayoutArgs, MirrorArgs};
use super::registry::RegistryArgs;
use super::values::variable;

#[derive(Debug, Args)]
pub struct Lock {
    /// The family's directory [default: .]
    #[arg(value_name = "FAMILY")]
    pub family: Option<String>,
    /// Take what the archives have today: of everything, or of a package and what that strictly needs
    ///
    /// May be given several times, with a package each time.
    #[arg(long, value_name = "PACKAGE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub update: Vec<String>,
    /// How the changes are shown: `text` or `json`
    #[arg(long, value_enum, default_value_t = LockFormat::Text, value_name = "FORMAT")]
    pub format: LockFormat,
    /// Lock these platforms [default: those of the specs and of the lock]
    #[arg(long, value_name = "OS/ARCH[,...]", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// Cut packages into layers anew
    #[arg(long)]
    pub recut: bool,
    /// Change nothing, and fail if the lock would have to change
    #[arg(long)]
    pub locked: bool,
    #[command(flatten)]
    pub lock: LockFileArgs,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub mirror: MirrorArgs,
    /// Give a variable of the specs a value; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockFormat {
    Text,
    Json,
}

/// Where the lock is.
#[derive(Clone, Debug, Args)]
pub struct LockFileArgs {
    /// The lock, instead of drystone.lock in the family's directory
    #[arg(long, env = "DRYSTONE_LOCK_FILE", value_name = "FILE")]
    pub lock_file: Option<PathBuf>,
    /// Open no connection: everything has to be in the cache, or in archives and a registry on this machine
    #[arg(long)]
    pub offline: bool,
}
