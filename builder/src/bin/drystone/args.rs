//! What can be said on the command line.

mod amount;
mod convert;
mod copy;
mod lint;
mod pull;
mod remote;
mod serve;
mod upkeep;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use drystone::listing::LabelFilter;
use drystone::sbom;
use layer::compress::Compression;
use oci::{Platform, Reference, Registry};
use registry_client::LoginScope;
use sandbox::Choice;

pub use self::convert::Convert;
pub use self::copy::Copy;
pub use self::lint::{Lint, LintFormat};
pub use self::pull::{Pull, here};
pub use self::remote::{Catalog, Delete, Referrers, Tags};
pub use self::serve::{AccessLogKind, Serve};
pub use self::upkeep::{Gc, Verify};
use crate::destination::Destination;
use crate::registries::RegistryMirror;
use crate::remote::CacheReference;

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
    /// `drystone explain -f Dockerfile -t NAME CONTEXT` explains what `build` with the same arguments would do. What is
    /// not here is not pulled for that, and what is only done with a finished image, such as --push, is passed over.
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

/// What every build needs to know.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub mirror: MirrorArgs,
    /// Give a variable of the specs a value; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
    /// Give commands a secret that they ask for by its name; may be given several times
    ///
    /// The value is that of a file or of a variable of the environment. A command sees it as a file in memory if its
    /// spec has a mount of the type `secret`. It is kept nowhere, and replaced by *** in what commands print.
    #[arg(long, value_name = "id=NAME,src=FILE|env=VARIABLE", value_parser = secret)]
    pub secret: Vec<SecretArgument>,
    /// How commands run in images: auto, root, userns, userns-single, chroot (root in an ordinary container) or none
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
    /// Cut packages into layers anew; otherwise images that did not change keep the layers that the lock says
    #[arg(long, conflicts_with = "locked")]
    pub recut: bool,
    #[command(flatten)]
    pub lock: LockFileArgs,
    /// Fail if the lock would have to change, or is not there
    #[arg(long)]
    pub locked: bool,
    /// After a failure, build what does not depend on it
    #[arg(long)]
    pub keep_going: bool,
    /// Where a command fails, open a shell on this terminal, and go on when it ends
    ///
    /// The shell sees the image with what the command has changed so far, with the same user, directory, variables and
    /// mounts. What else runs is finished first. What is changed in the shell is thrown away.
    #[arg(long)]
    pub shell_fail: bool,
    /// Of a family: use this tag instead of the family's. With a Dockerfile: name the image so; may be given several times
    #[arg(short, long, value_name = "TAG|REFERENCE")]
    pub tag: Vec<String>,
    /// Build for these platforms [default: those of the specs, else linux/amd64]
    ///
    /// Several make an index of the images under each name. Commands and packages' scripts of another machine run where the
    /// kernel has an emulator for it (on Debian, the package qemu-user-static).
    #[arg(
        long,
        aliases = ["custom-platform", "customPlatform"],
        value_name = "OS/ARCH[,...]",
        value_delimiter = ','
    )]
    pub platform: Vec<Platform>,
    /// Use this registry instead of the family's
    #[arg(long, value_name = "REGISTRY")]
    pub registry: Option<spec::Registry>,
    /// Keep bills of materials beside the images, as artifacts that refer to them: spdx, cyclonedx, both, or none
    ///
    /// They are pushed with the images, and change no image. `drystone sbom` prints the same without keeping it.
    #[arg(long, default_value = "none", value_name = "spdx|cyclonedx|none", value_delimiter = ',', value_parser = bill)]
    pub sbom: Vec<Bill>,
    /// Keep an in-toto statement of what each image was built from (SLSA provenance), as an artifact that refers to it
    #[arg(long)]
    pub provenance: bool,
    /// Write what was built, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
}

/// A form of a bill of materials, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill(pub Option<sbom::Format>);

fn bill(text: &str) -> Result<Bill, String> {
    match text {
        "none" => Ok(Bill(None)),
        form => form.parse().map(|form| Bill(Some(form))),
    }
}

/// Where results of steps are shared.
#[derive(Clone, Debug, Default, Args)]
pub struct SharedCacheArgs {
    /// Take results of steps from a registry, where --cache-to stored them; may be given several times
    ///
    /// A cache that is not there or refuses is a warning.
    #[arg(long, value_name = "REF|type=registry,ref=REF", help_heading = "Registries")]
    pub cache_from: Vec<CacheReference>,
    /// Store the results of all steps in a registry, for --cache-from; may be given several times
    ///
    /// Layers that the registry has already are not sent again. Whoever may write there decides what those build who read
    /// from it.
    #[arg(long, value_name = "REF|type=registry,ref=REF", help_heading = "Registries")]
    pub cache_to: Vec<CacheReference>,
}

/// How registries are reached.
#[derive(Clone, Debug, Args)]
pub struct RegistryArgs {
    /// Speak plain HTTP to this registry; loopback addresses need not be named
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]", help_heading = "Registries")]
    pub insecure: Vec<Registry>,
    /// Speak TLS to this registry, although it is at a loopback address
    #[arg(long = "secure-registry", value_name = "HOST[:PORT]", help_heading = "Registries")]
    pub secure: Vec<Registry>,
    /// Ask this mirror of a registry first, when images are read; may be given several times
    ///
    /// Without REGISTRY= it is one of docker.io, where `FROM debian` comes from. What a mirror lacks, or when it fails, is
    /// read from the registry itself. Images are verified by digest in any case, a tag means what the mirror says, and
    /// credentials are those for the mirror's own name. Nothing is pushed to it.
    #[arg(
        long = "registry-mirror",
        visible_alias = "registry-map",
        env = "DRYSTONE_REGISTRY_MIRROR",
        value_delimiter = ';',
        value_name = "[REGISTRY=]HOST[:PORT]",
        help_heading = "Registries"
    )]
    pub mirrors: Vec<RegistryMirror>,
    /// Trust the certificates in this PEM file too; may be given several times
    #[arg(long = "registry-ca", value_name = "FILE", help_heading = "Registries")]
    pub ca: Vec<PathBuf>,
    /// Show registries this certificate (PEM), which may have its key with it
    #[arg(long = "registry-cert", value_name = "FILE", help_heading = "Registries")]
    pub certificate: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long = "registry-key", value_name = "FILE", requires = "certificate", help_heading = "Registries")]
    pub key: Option<PathBuf>,
    /// Read credentials from this file only [default: those of docker and podman]
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE", help_heading = "Registries")]
    pub authfile: Option<PathBuf>,
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
    pub output: OutputArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub caches: SharedCacheArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

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

#[derive(Debug, Args)]
pub struct Build {
    /// The family's directory [default: .], and then images or patterns if not all are wanted; or the context of a
    /// Dockerfile: a directory, a tar file, or `-` for a tar on standard input
    #[arg(value_name = "FAMILY|IMAGE|CONTEXT")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub dockerfile: DockerfileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub caches: SharedCacheArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Where images go besides the layout.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Write the images that were asked for there too; may be given several times
    ///
    /// `oci` is a layout in a directory; `oci-archive` and `docker-archive` are one file, or with dest=- standard output.
    /// What the images stand on is written in its own right only if it was asked for too. `docker load` and `podman
    /// load` read a docker-archive.
    ///
    /// `local` puts the files of one image into a directory, among what is there, and `tar` into a tar; `-o DIR` and
    /// `-o -` mean the same. Of several platforms each has a directory, such as linux_amd64. In a directory, only root
    /// gives files to their owners; those of others belong to who builds, without setuid and setgid.
    #[arg(short = 'o', long = "output", value_name = "type=local|tar|oci|oci-archive|docker-archive,dest=PATH")]
    pub destinations: Vec<Destination>,
}

/// kaniko's flags.
#[derive(Debug, Args)]
pub struct Executor {
    /// Where files are taken from: a directory or a tar, also as dir://PATH, tar://PATH or tar://stdin
    #[arg(short, long, default_value = ".", value_name = "CONTEXT")]
    pub context: String,
    /// A directory of the context to use instead of all of it
    #[arg(long, value_name = "PATH")]
    pub context_sub_path: Option<PathBuf>,
    /// A name to push the image under; may be given several times
    #[arg(short, long, value_name = "REFERENCE")]
    pub destination: Vec<String>,
    /// Do not push
    #[arg(long)]
    pub no_push: bool,
    /// Write the image as an archive that `docker load` reads
    #[arg(long, alias = "tarPath", value_name = "FILE")]
    pub tar_path: Option<PathBuf>,
    /// Write the image as a layout
    #[arg(long, value_name = "DIR")]
    pub oci_layout_path: Option<PathBuf>,
    /// Write the manifest's digest to this file
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,
    /// Write each name with the digest to this file
    #[arg(long, value_name = "FILE")]
    pub image_name_with_digest_file: Option<PathBuf>,
    /// Write each name with its tag and the digest to this file
    #[arg(long, value_name = "FILE")]
    pub image_name_tag_with_digest_file: Option<PathBuf>,
    /// Take the results of steps from the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    pub cache: bool,
    /// With --cache, take the results of steps from this repository too, and store them there
    ///
    /// As `--cache-from` and `--cache-to` of `build`. Without a tag, its tag is `cache`.
    #[arg(long, value_name = "REFERENCE")]
    pub cache_repo: Option<Reference>,
    /// With --cache-repo, store nothing there
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    pub no_push_cache: bool,
    /// Understood: what is kept does not get old
    #[arg(long, value_name = "DURATION", hide = true)]
    pub cache_ttl: Option<String>,
    /// Push over plain HTTP
    #[arg(id = "plain_push", long = "insecure")]
    pub plain_push: bool,
    /// Pull over plain HTTP
    #[arg(long)]
    pub insecure_pull: bool,
    /// Understood and noted: certificates are verified
    #[arg(long)]
    pub skip_tls_verify: bool,
    /// Understood and noted: certificates are verified
    #[arg(long)]
    pub skip_tls_verify_pull: bool,
    /// Understood and noted: each instruction that changes files is a layer
    #[arg(long)]
    pub single_snapshot: bool,
    /// Understood: results repeat anyway
    #[arg(long)]
    pub reproducible: bool,
    /// Understood and noted: changes are found by content
    #[arg(long, alias = "snapshotMode", value_name = "MODE")]
    pub snapshot_mode: Option<String>,
    #[command(flatten)]
    pub understood: Understood,
    #[command(flatten)]
    pub dockerfile: DockerfileArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Flags of kaniko that ask for nothing here: it is so anyway, or has no meaning. That they are understood is all.
#[derive(Debug, Args)]
pub struct Understood {
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    cleanup: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    force: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    use_new_run: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    skip_unused_stages: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    compressed_caching: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    cache_copy_layers: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    cache_run_layers: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    log_timestamp: Option<bool>,
    #[arg(long, value_name = "FORMAT", hide = true)]
    log_format: Option<String>,
    #[arg(long, value_name = "LEVEL", hide = true)]
    verbosity: Option<String>,
    #[arg(long, value_name = "N", hide = true)]
    push_retry: Option<String>,
    #[arg(long, value_name = "N", hide = true)]
    image_fs_extract_retry: Option<String>,
    #[arg(long, value_name = "N", hide = true)]
    image_download_retry: Option<String>,
    #[arg(long, value_name = "PATH", hide = true)]
    ignore_path: Vec<String>,
    #[arg(long, value_name = "DIR", hide = true)]
    kaniko_dir: Option<String>,
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
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// The family's directory [default: .], and then images or patterns if not all are wanted; or the context of a
    /// Dockerfile, as for `build`
    #[arg(value_name = "FAMILY|IMAGE|CONTEXT")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub dockerfile: DockerfileArgs,
    /// How: for people or for programs
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT")]
    pub format: ListFormat,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    Text,
    Json,
    Dot,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// For people
    Text,
    /// For programs
    Json,
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

#[derive(Debug, Args)]
pub struct Push {
    /// Images or patterns, such as `redis` or `web*` [default: all]
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Where to, instead of the registry in the images' names
    #[arg(long, value_name = "REGISTRY[/PREFIX]")]
    pub to: Option<String>,
    /// Refuse to speak to a registry that is not on this machine
    #[arg(long)]
    pub offline: bool,
    /// Write what was pushed, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Login {
    /// The registry, or a path of repositories in it
    #[arg(value_name = "REGISTRY[/PATH]")]
    pub scope: LoginScope,
    /// The user's name [default: it is asked for]
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Logout {
    /// The registry, or a path of repositories in it
    #[arg(value_name = "REGISTRY[/PATH]")]
    pub scope: LoginScope,
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
pub struct Doctor {
    /// A family whose suites and registry are asked for [default: the one in this directory, if there is one]
    #[arg(value_name = "FAMILY")]
    pub family: Option<PathBuf>,
    /// How: `table` or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub layout: LayoutArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub mirror: MirrorArgs,
    /// Ask this registry instead of the family's
    #[arg(long, value_name = "REGISTRY")]
    pub registry: Option<Registry>,
    /// Give a variable of the specs a value; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    pub registries: RegistryArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// A secret, and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretArgument {
    /// Its name.
    pub id: String,
    /// Where the value is.
    pub from: SecretSource,
}

/// Where the value of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
    /// In the variable of the secret's name, or if there is none, in the file of that name.
    SameName(String),
}

/// As BuildKit spells it: `id=NAME` with `src=FILE`, or `env=VARIABLE`, or `type=env,src=VARIABLE`.
fn secret(text: &str) -> Result<SecretArgument, String> {
    let expected = "expected id=NAME,src=FILE or id=NAME,env=VARIABLE";
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or(expected)?;
        let place = match key {
            "id" => &mut id,
            "src" | "source" => &mut source,
            "env" => &mut variable,
            "type" => &mut kind,
            _ => return Err(format!("`{key}` is not known: {expected}")),
        };
        if value.is_empty() || place.replace(value).is_some() {
            return Err(format!("`{key}` needs one value: {expected}"));
        }
    }
    let from = match (kind, source, variable) {
        (None | Some("file"), Some(path), None) => SecretSource::File(path.into()),
        (None | Some("env"), None, Some(name)) | (Some("env"), Some(name), None) => SecretSource::Variable(name.into()),
        (None, None, None) => SecretSource::SameName(id.ok_or(expected)?.to_owned()),
        _ => return Err(expected.to_owned()),
    };
    Ok(SecretArgument { id: id.ok_or(expected)?.to_owned(), from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_spelled_as_for_buildkit() {
        let file = |path: &str| SecretSource::File(path.into());
        let variable = |name: &str| SecretSource::Variable(name.into());
        let cases = [
            ("id=token,src=a/b=c", Some(file("a/b=c"))),
            ("id=token,source=x", Some(file("x"))),
            ("type=file,id=token,src=x", Some(file("x"))),
            ("id=token,env=TOKEN", Some(variable("TOKEN"))),
            ("type=env,id=token,src=TOKEN", Some(variable("TOKEN"))),
            ("token", None),
            ("id=token", Some(SecretSource::SameName("token".to_owned()))),
            ("src=x", None),
            ("id=,src=x", None),
            ("id=token,src=x,env=X", None),
            ("id=token,src=x,src=y", None),
            ("id=token,file=x", None),
            ("type=file,id=token,env=X", None),
        ];
        for (text, expected) in cases {
            let found = secret(text).ok();
            assert_eq!(found, expected.map(|from| SecretArgument { id: "token".to_owned(), from }), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
