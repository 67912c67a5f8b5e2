//! What can be said to `drystone bundle`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::build::BuildArgs;
use super::format::TextFormat;
use super::places::{CacheArgs, LayoutArgs};
use super::registry::RegistryArgs;

#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Write a family's images and specs, and what it is built from, into one file
    ///
    /// The images must have been built. The file is a tar, and an archive of images that other tools read as
    /// oci-archive:FILE. With sources, the family can be changed and built again where it is loaded.
    Save(Box<BundleSave>),
    /// Put the images of a bundle into the layout, and its family into a directory
    ///
    /// Every byte is checked. Afterwards `drystone up DIR`, `drystone push` and, if the sources came along, `drystone
    /// build DIR` work without a network.
    Load(BundleLoad),
    /// Say what is in a bundle, without loading it
    Inspect(BundleInspect),
}

#[derive(Debug, Args)]
pub struct BundleSave {
    /// The file to write
    pub file: PathBuf,
    /// The family's directory [default: .]
    pub family: Option<String>,
    /// With every package, index, signature, key and file by address that the family is built from
    #[arg(long)]
    pub with_sources: bool,
    /// Leave out what this earlier bundle has; it has to be loaded first
    #[arg(long, value_name = "OLD")]
    pub since: Option<PathBuf>,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct BundleLoad {
    /// The file
    pub file: PathBuf,
    /// Where the family goes [default: a directory of its name, here]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Debug, Args)]
pub struct BundleInspect {
    /// The file
    pub file: PathBuf,
    /// How
    #[arg(long, value_enum, default_value_t = TextFormat::Text, value_name = "FORMAT")]
    pub format: TextFormat,
}
