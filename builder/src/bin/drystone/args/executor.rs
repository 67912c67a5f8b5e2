//! What can be said to `drystone executor`.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use oci::Reference;

use super::build::BuildArgs;
use super::dockerfile::DockerfileArgs;
use super::registry::RegistryArgs;

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
