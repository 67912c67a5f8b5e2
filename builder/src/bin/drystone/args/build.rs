//! What can be said to `drystone build`, and what every command that builds or plans understands.

use std::path::PathBuf;

use clap::Args;
use drystone::sbom;
use layer::compress::Compression;
use oci::Platform;
use sandbox::Choice;

use super::dockerfile::DockerfileArgs;
use super::lock::LockFileArgs;
use super::places::{CacheArgs, LayoutArgs, MirrorArgs};
use super::registry::RegistryArgs;
use super::values::{SecretArgument, secret, variable};
use crate::destination::Destination;
use crate::remote::CacheReference;

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
