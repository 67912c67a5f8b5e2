//! Where the layout, the cache and Debian are.

use std::path::PathBuf;

use clap::Args;

/// Where the layout is.
#[derive(Clone, Debug, Args)]
pub struct LayoutArgs {
    /// The OCI image layout that holds the images
    #[arg(long, env = "DRYSTONE_LAYOUT", default_value = "oci", value_name = "DIR")]
    pub layout: PathBuf,
}

/// Where the cache is.
#[derive(Clone, Debug, Args)]
pub struct CacheArgs {
    /// Where downloads and results are kept between builds [default: the user's cache directory]
    #[arg(long, env = "DRYSTONE_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// Where Debian is.
#[derive(Clone, Debug, Args)]
pub struct MirrorArgs {
    /// A Debian mirror: for all suites, or for one; may be given several times [default: what the host's apt uses]
    #[arg(long, env = "DRYSTONE_MIRROR", value_name = "[SUITE=]URL", value_delimiter = ' ')]
    pub mirror: Vec<String>,
}
