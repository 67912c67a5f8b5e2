//! The arguments of the commands that look at a registry, and of `drystone delete`.

use clap::Args;
use oci::{Reference, Registry};
use registry_client::Remote;

use super::{RegistryArgs, ReportFormat};

#[derive(Debug, Args)]
pub struct Tags {
    /// The repository, without a tag: `registry.example/team/app`
    #[arg(value_name = "REPOSITORY", value_parser = repository)]
    pub repository: Remote,
    /// How: `table`, a tag a line, or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Catalog {
    /// The registry: `registry.example`, `localhost:5100`
    #[arg(value_name = "REGISTRY")]
    pub name: Registry,
    /// How: `table`, a repository a line, or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Referrers {
    /// The image: `registry.example/team/app:v1`, or by its digest
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// Only those of this kind
    #[arg(long, value_name = "TYPE")]
    pub artifact_type: Option<String>,
    /// How: `table` or `json`
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// What: by tag (`registry.example/team/app:v1`), or a manifest with all its tags by digest
    #[arg(value_name = "REF", required = true, value_parser = exact)]
    pub references: Vec<Reference>,
    /// How: `table`, a line each, or `json`, which also lists what was deleted before something failed
    #[arg(long, value_enum, default_value_t = ReportFormat::Table, value_name = "FORMAT")]
    pub format: ReportFormat,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

fn repository(text: &str) -> Result<Remote, String> {
    let reference: Reference = text.parse().map_err(|error: oci::ReferenceError| error.to_string())?;
    match (reference.tag(), reference.digest()) {
        (None, None) => Ok(Remote::from(&reference)),
        _ => Err(format!("expected a repository without a tag or digest: `{}`", reference.name())),
    }
}

/// Nobody deletes `latest` by writing nothing.
fn exact(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: oci::ReferenceError| error.to_string())?;
    match (reference.tag(), reference.digest()) {
        (None, None) => Err("expected a tag or a digest: what is to be deleted has to be said".to_owned()),
        _ => Ok(reference),
    }
}
