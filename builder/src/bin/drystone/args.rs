//! What can be said on the command line.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use drystone::listing::LabelFilter;
use layer::compress::Compression;
use oci::Registry;
use sandbox::Choice;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Examples:
  drystone up specs/opencontrail --once      build the family, push it to its registry, list it
  drystone build specs/opencontrail 'web*'   build some images, and what they are built on
  drystone images --filter label=net.juniper.contrail=webui
  drystone push --to registry.example/team

Environment: DRYSTONE_MIRROR, DRYSTONE_LAYOUT, DRYSTONE_CACHE_DIR, SOURCE_DATE_EPOCH, NO_COLOR,
and HTTP_PROXY, HTTPS_PROXY and NO_PROXY as elsewhere.

Exit codes: 0 done; 1 a build, push or check failed; 2 the command line or a spec is wrong; 130 interrupted.";

/// Builds families of OCI images without a daemon, without root and without privileges.
#[derive(Debug, Parser)]
#[command(name = "drystone", version, styles = STYLES, after_help = AFTER_HELP, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub output: Output,
}

/// How much is said, and how.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// How progress is shown
    #[arg(long, global = true, value_enum, default_value_t = ProgressKind::Auto, value_name = "KIND", help_heading = "Output")]
    pub progress: ProgressKind,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more: the output of every command that runs
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Whether to use colours
    #[arg(long, global = true, value_enum, default_value_t = ColorKind::Auto, value_name = "WHEN", help_heading = "Output")]
    pub color: ColorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// A line for each thing done
    Plain,
    /// Lines that change
    Tty,
    /// A JSON object for each event, on standard error
    Rawjson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorKind {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a family, push it to its registry, and list it
    ///
    /// If nothing listens at the family's registry and that is on this machine, the embedded registry is started
    /// there, over the layout; it serves until Ctrl-C, or with --once ends after the list.
    Up(Up),
    /// Build all or some images of a family into the layout
    Build(Build),
    /// Say what would be built: the layers of every image, who shares them, and how large they are
    Plan(Plan),
    /// Push what the layout holds
    Push(Push),
    /// List the images of the layout
    Images(Images),
    /// Look inside an image of the layout
    Inspect(Inspect),
    /// Serve the layout as a registry
    Serve(Serve),
    /// Print the JSON Schema of a spec, for editors
    Schema {
        /// Which file's
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Where to write the pages
        #[arg(value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaOf {
    /// `family.yaml`
    Family,
    /// `image.yaml`
    Image,
}

/// Where the layout is.
#[derive(Clone, Debug, Args)]
pub struct LayoutArgs {
    /// The OCI image layout that holds the images
    #[arg(long, env = "DRYSTONE_LAYOUT", default_value = "oci", value_name = "DIR")]
    pub layout: PathBuf,
}

/// What every build needs to know.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Where downloads and results are kept between builds [default: the user's cache directory]
    #[arg(long, env = "DRYSTONE_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// A Debian mirror: for all suites, or for one; may be given several times [default: what the host's apt uses]
    #[arg(long, env = "DRYSTONE_MIRROR", value_name = "[SUITE=]URL", value_delimiter = ' ')]
    pub mirror: Vec<String>,
    /// Give a variable of the specs a value; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
    /// How commands run in images: auto, root, userns, userns-single, chroot or none
    #[arg(long, default_value = "auto", value_name = "KIND")]
    pub sandbox: Choice,
    /// How much is done at the same time [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// How layers are compressed: gzip or zstd
    #[arg(long, default_value = "gzip", value_name = "KIND")]
    pub compression: Compression,
    /// Do every step again, whatever is kept of earlier builds
    #[arg(long)]
    pub no_cache: bool,
    /// How many layers an image may have, its parent's included [default: what the spec says, or 40]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=127))]
    pub layer_budget: Option<u16>,
    /// Cut packages into layers anew; otherwise images that did not change keep the layers that the layout has of them
    #[arg(long)]
    pub recut: bool,
    /// After a failure, build what does not depend on it
    #[arg(long)]
    pub keep_going: bool,
    /// Use this tag instead of the family's
    #[arg(long, value_name = "TAG")]
    pub tag: Option<spec::Tag>,
    /// Use this registry instead of the family's
    #[arg(long, value_name = "REGISTRY")]
    pub registry: Option<spec::Registry>,
    /// Write what was built, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
}

/// How registries are reached.
#[derive(Clone, Debug, Args)]
pub struct RegistryArgs {
    /// Speak plain HTTP to this registry; loopback addresses need not be named
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure: Vec<Registry>,
}

#[derive(Debug, Args)]
pub struct Up {
    /// The family's directory, and then images or patterns if not all are wanted
    #[arg(value_name = "FAMILY|IMAGE")]
    pub names: Vec<String>,
    /// End after the list, instead of serving
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Build {
    /// The family's directory [default: .], and then images or patterns if not all are wanted
    #[arg(value_name = "FAMILY|IMAGE")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub build: BuildArgs,
}

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    Text,
    Json,
    Dot,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// The image: its whole name, or the part that only one image of the layout has
    pub image: String,
    /// Show what is in which layer, instead of the image's documents
    #[arg(long)]
    pub layers: bool,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

#[derive(Debug, Args)]
pub struct Push {
    /// Images or patterns, such as `redis` or `web*` [default: all]
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Where to, instead of the registry in the images' names
    #[arg(long, value_name = "REGISTRY[/PREFIX]")]
    pub to: Option<String>,
    /// Write what was pushed, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

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
pub struct Serve {
    /// The address and port
    #[arg(long, default_value = "127.0.0.1:5100", value_name = "ADDRESS:PORT")]
    pub listen: std::net::SocketAddr,
    /// The registry's public name, under which pushed images are kept [default: localhost and the port]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub name: Option<Registry>,
    /// Refuse to store and delete
    #[arg(long)]
    pub read_only: bool,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
