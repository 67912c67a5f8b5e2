//! The arguments of `drystone copy`.

use std::path::PathBuf;

use clap::Args;
use drystone::copy::Place;
use oci::Platform;

use super::{RegistryArgs, ReportFormat};

#[derive(Debug, Args)]
pub struct Copy {
    /// Where the image is: HOST/NAME[:TAG|@DIGEST], oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]
    #[arg(value_name = "FROM")]
    pub from: Place,
    /// Where it goes, spelled alike
    #[arg(value_name = "TO")]
    pub to: Place,
    /// Copy only the image for this machine, if there are several [default: all of them]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Copy what is said about the image too: signatures, bills of materials
    #[arg(short, long)]
    pub referrers: bool,
    /// How what was copied is told: `table`, a line, or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    /// Write what was copied, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryArgs,
}
