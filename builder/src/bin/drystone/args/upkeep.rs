//! What can be said to `drystone gc` and `drystone verify`.

use clap::Args;

use super::amount::size;
use super::{BuildArgs, CacheArgs, LayoutArgs, RegistryArgs, ReportFormat};

#[derive(Debug, Args)]
pub struct Gc {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove from the cache what was used least recently, until it has this size: 10GB, 500MiB, 0
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache_max_size: Option<u64>,
    /// Also remove manifests that no tag and no index names any more, and that refer to no other
    #[arg(long)]
    pub untagged: bool,
    /// How: `table` (with -v every blob), or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// With --rebuild, the family's directory [default: .], and then images or patterns if not all are meant
    #[arg(value_name = "FAMILY|IMAGE", requires = "rebuild")]
    pub names: Vec<String>,
    /// Build again, in a layout and a cache of its own that are removed afterwards; only downloads are shared
    #[arg(long)]
    pub rebuild: bool,
    /// How: `table` or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}
