//! What can be said on the command line: the commands here, and the arguments of each in a file of its name. What several
//! commands understand is in `build`, `dockerfile`, `registry`, `places`, `format` and `values`.

mod amount;
mod build;
mod bundle;
mod convert;
mod copy;
mod dockerfile;
mod doctor;
mod executor;
mod format;
mod images;
mod lint;
mod lock;
mod login;
mod places;
mod plan;
mod pull;
mod push;
mod registry;
mod remote;
mod serve;
mod up;
mod upkeep;
mod values;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use self::build::{Build, BuildArgs, SharedCacheArgs};
pub use self::bundle::{BundleCommand, BundleInspect, BundleLoad, BundleSave};
pub use self::convert::Convert;
pub use self::copy::Copy;
pub use self::dockerfile::{DockerfileArgs, NetworkKind};
pub use self::doctor::Doctor;
pub use self::executor::Executor;
pub use self::format::{ListFormat, ReportFormat, TextFormat};
pub use self::images::{Diff, Images, Inspect, Sbom};
pub use self::lint::{Lint, LintFormat};
pub use self::lock::{Lock, LockFileArgs, LockFormat};
pub use self::login::{Login, Logout};
pub use self::places::{CacheArgs, LayoutArgs, MirrorArgs};
pub use self::plan::{Explain, Plan, PlanFormat};
pub use self::pull::{Pull, here};
pub use self::push::Push;
pub use self::registry::RegistryArgs;
pub use self::remote::{Catalog, Delete, Referrers, Tags};
pub use self::serve::{AccessLogKind, Serve};
pub use self::up::Up;
pub use self::upkeep::{Gc, Verify};
pub use self::values::{SecretArgument, SecretSource};

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

Environment: DRYSTONE_MIRROR, DRYSTONE_LAYOUT, DRYSTONE_CACHE_DIR, DRYSTONE_LOCK_FILE, SOURCE_DATE_EPOCH, NO_COLOR,
and as elsewhere DOCKER_CONFIG, REGISTRY_AUTH_FILE, HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

Exit codes: 0 done; 1 a build, push or check failed; 2 the command line or a spec is wrong; 130 interrupted.";

const COPY_EXAMPLES: &str = "\
Examples:
  drystone copy registry.example/app:v1 localhost:5100/app:v1
  drystone copy registry.example/app:v1 oci-archive:app.tar
  drystone copy -r oci:oci:localhost:5100/redis:v1 registry.example/team/redis:v1
  drystone copy docker-archive:saved.tar oci:oci:localhost:5100/saved:v1";

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
    /// Build all or some images of a family into the layout, or one from a Dockerfile
    ///
    /// `drystone build -f Dockerfile -t NAME CONTEXT` builds from a Dockerfile; -f may be left out if the context has one.
    /// A name without a registry is this machine's: `localhost/NAME`. Commands in a Dockerfile reach the network, as
    /// users of Dockerfiles expect it; --network none forbids that.
    Build(Box<Build>),
    /// Build from a Dockerfile with the flags of kaniko's executor
    Executor(Box<Executor>),
    /// Write down every input of a family by digest, in drystone.lock
    ///
    /// Builds do the same where something is missing. What is locked stays as it is, also when the archives have newer
    /// versions; what no longer fits the specs is resolved again. After a merge with conflicts, what both sides agree on
    /// is kept, and the rest is resolved again.
    Lock(Lock),
    /// Say what would be built: the layers of every image, who shares them, and how large they are
    Plan(Plan),
    /// Say of each step of an image whether its result is kept, and why it would run again
    ///
    /// What has changed is told by comparing with the last build that had the same name, cache and kind of step: which
    /// package has another version, which file another content, which variable another value. Nothing is built.
    ///
    /// `drystone explain -f Dockerfile -t NAME CONTEXT` explains what `build` with the same arguments would do. Images that
    /// are not here are not pulled for that; files that ADD names by address are fetched, since their content decides.
    /// What is only done with a finished image, such as --push, is passed over.
    Explain(Box<Explain>),
    /// Push what the layout holds
    Push(Push),
    /// Pull images of a registry into the layout, under their own names
    ///
    /// What the layout has is not fetched again, so a pull that was interrupted goes on. Every byte is verified, and the
    /// documents stay as the registry has them. Layers that are not in the registry because they may not be passed on
    /// are fetched from where the image says.
    Pull(Pull),
    /// Copy an image between registries, layouts and archives, byte for byte
    ///
    /// From registry to registry nothing is written to disk, and within one registry nothing is sent. Layers of
    /// docker-archive are compressed, if they are not; everything else keeps its digest.
    #[command(after_help = COPY_EXAMPLES)]
    Copy(Copy),
    /// List the tags of a repository
    #[command(visible_alias = "ls")]
    Tags(Tags),
    /// List the repositories of a registry, if it tells
    Catalog(Catalog),
    /// List what is said about an image in its registry: signatures, bills of materials
    Referrers(Referrers),
    /// Delete tags and images from a registry
    ///
    /// A tag is taken away and nothing else. Named by digest, an image is deleted with all of its tags. Space is freed
    /// when the registry collects its garbage.
    Delete(Delete),
    /// List the images of the layout
    Images(Images),
    /// Look inside an image of the layout
    Inspect(Inspect),
    /// Say what differs between two images: packages, files, configuration, layers
    ///
    /// Files are compared by type, mode, owner, link, content and extended attributes. The exit code is that of diff: 0
    /// if a container of one is as one of the other, 1 if something differs, 2 if that cannot be told.
    Diff(Diff),
    /// Save a family in one file for machines without a network, and load it there
    Bundle {
        #[command(subcommand)]
        command: BundleCommand,
    },
    /// Print the bill of materials of an image: every package with its version, source, licences and layer
    ///
    /// It is made from the image's own package database, or is the one that `build --sbom` has kept. The same image gives
    /// the same bytes.
    Sbom(Sbom),
    /// Serve the layout as a registry
    ///
    /// This is the OCI distribution API 1.1, over the same directory that builds write, also while they do. At `/` is a
    /// page with the images, at `/metrics` are figures for Prometheus, and `/healthz` says that the server lives.
    Serve(Serve),
    /// Look at Dockerfiles and families for what is allowed and better not done
    ///
    /// The exit code is 1 if a file cannot be read as what it is, or with --error-on-warning (or `# check=error=true` in
    /// a Dockerfile) if anything is found. Nothing is fetched, so what only a base image can tell is not said.
    Lint(Lint),
    /// Write the image.yaml that builds the image of a Dockerfile
    ///
    /// Packages that apt-get installs become `packages`, copied files `files`, and the rest of the configuration what it
    /// is called in a spec. Standard error says which lines stay commands, and which could not be converted and why; then
    /// the exit code is 1.
    Convert(Convert),
    /// Remove what no image needs from the layout, and bound the cache
    ///
    /// Blobs of the layout go that no image, index or referrer names. What builds and pushes in progress need stays, and
    /// what came over HTTP stays for an hour without a manifest. Names are not removed, unless --untagged says so.
    Gc(Gc),
    /// Check every blob against its digest, and that everything named is there
    ///
    /// Of the cache, packages, indexes and records are checked; builds check its segments and layers whenever they use
    /// them. With --rebuild, images are built again instead, without what is kept of earlier builds, and compared with the
    /// layout's, byte by byte. The exit code is 1 if anything is damaged or differs.
    Verify(Box<Verify>),
    /// Keep a registry's name and password, once the registry has accepted them
    ///
    /// They are kept where docker, podman, skopeo and oras find them too: in Docker's config.json, or with the
    /// credential helper that it names.
    Login(Login),
    /// Forget a registry's name and password
    Logout(Logout),
    /// Say what this machine allows: sandboxes, directories, mirror, registry
    ///
    /// Nothing is changed and no directory is made. The exit code is 0 if commands can be run in images, in whichever
    /// sandbox, and 1 if not; what else was found does not change it.
    Doctor(Doctor),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
