//! What can be said to `drystone images`, `inspect`, `diff` and `sbom`.

use clap::Args;
use drystone::listing::LabelFilter;
use drystone::sbom;
use oci::Platform;

use super::format::TextFormat;
use super::places::LayoutArgs;

#[derive(Debug, Args)]
pub struct Images {
    /// Only images with this label; several filters must all be met
    #[arg(short, long, value_name = "label=KEY[=VALUE]")]
    pub filter: Vec<LabelFilter>,
    /// How: `table`, `json` (an array), or a template such as '{{.Repository}}:{{.Tag}} {{.ID}}'
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub format: String,
    /// Show whole digests
    #[arg(long)]
    pub no_trunc: bool,
    /// Show how much of each image other images of the layout have too, and the sums
    #[arg(long)]
    pub sharing: bool,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// The image: its whole name, or the part that only one image of the layout has
    pub image: String,
    /// Show what is in which layer, instead of the image's documents
    #[arg(long, conflicts_with = "packages")]
    pub layers: bool,
    /// Show the packages by the image's own dpkg database, instead of the image's documents
    #[arg(long)]
    pub packages: bool,
    /// How packages are shown
    #[arg(long, value_enum, default_value_t = TextFormat::Text, value_name = "FORMAT", requires = "packages")]
    pub format: TextFormat,
    #[command(flatten)]
    pub platform: ImagePlatformArgs,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// The first image: as for `inspect`, or oci:DIR:IMAGE for one of another layout
    #[arg(value_name = "A")]
    pub before: String,
    /// The second image
    #[arg(value_name = "B")]
    pub after: String,
    /// How
    #[arg(long, value_enum, default_value_t = TextFormat::Text, value_name = "FORMAT")]
    pub format: TextFormat,
    #[command(flatten)]
    pub platform: ImagePlatformArgs,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

#[derive(Debug, Args)]
pub struct Sbom {
    /// The image: its whole name, or the part that only one image of the layout has
    pub image: String,
    /// The form: spdx (SPDX 2.3) or cyclonedx (CycloneDX 1.6), both as JSON
    #[arg(long, default_value = "spdx", value_name = "FORMAT")]
    pub format: sbom::Format,
    #[command(flatten)]
    pub platform: ImagePlatformArgs,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

/// Which image of an index is meant.
#[derive(Clone, Debug, Args)]
pub struct ImagePlatformArgs {
    /// Of an image for several platforms, take the one for this [default: linux/amd64]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

impl ImagePlatformArgs {
    /// The platform that is meant.
    pub fn chosen(&self) -> Platform {
        self.platform.clone().unwrap_or_else(drystone::platform::usual)
    }
}
