//! What a registry has: `drystone tags`, `catalog` and `referrers`; and `delete`, which takes it away.

use drystone::push;
use oci::{Descriptor, Reference};
use registry_client::{Client, Error, ManifestName, Remote};
use serde::Serialize;
use serde_json::json;

use crate::args::{Catalog, Delete, Output, Referrers, RegistryArgs, ReportFormat, Tags};
use crate::failure::Failure;
use crate::{online, progress, registries, session, table};

fn client(arguments: &RegistryArgs, output: Output) -> Result<Client, Failure> {
    Ok(push::client(registries::options_with_kept_credentials(arguments)?, progress::observer(output))?)
}

/// Runs `tags`.
pub fn tags(arguments: &Tags, output: Output) -> Result<(), Failure> {
    let client = client(&arguments.registry, output)?;
    let remote = &arguments.repository;
    let tags: Option<Vec<String>> = online::run(client.tags(remote))?;
    let Some(mut tags) = tags else {
        let text = format!("{} has no repository `{}`", remote.registry, remote.repository);
        return Err(Failure::with_hint(text, format!("`drystone catalog {}` lists what it has", remote.registry)));
    };
    tags.sort();
    match arguments.format {
        ReportFormat::Json => print_json(&json!({"repository": remote.to_string(), "tags": tags})),
        ReportFormat::Table => session::print(&lines(&tags)),
    }
}

/// Runs `catalog`.
pub fn catalog(arguments: &Catalog, output: Output) -> Result<(), Failure> {
    let client = client(&arguments.registry, output)?;
    let mut repositories: Vec<String> = online::run(client.catalog(&arguments.name))?;
    repositories.sort();
    match arguments.format {
        ReportFormat::Json => {
            print_json(&json!({"registry": arguments.name.to_string(), "repositories": repositories}))
        }
        ReportFormat::Table => session::print(&lines(&repositories)),
    }
}

/// Runs `referrers`.
pub fn referrers(arguments: &Referrers, output: Output) -> Result<(), Failure> {
    let client = client(&arguments.registry, output)?;
    let reference = &arguments.reference;
    let remote = Remote::from(reference);
    let (subject, mut found) = online::run(async {
        let subject = match reference.digest() {
            Some(digest) => digest,
            None => client.manifest_of(&remote, &ManifestName::from(reference)).await?.descriptor.digest,
        };
        client.referrers(&remote, subject).await.map(|referrers| (subject, referrers))
    })?;
    found.retain(|entry| arguments.artifact_type.is_none() || entry.artifact_type == arguments.artifact_type);
    match arguments.format {
        ReportFormat::Json => {
            print_json(&json!({"reference": reference.to_string(), "digest": subject, "referrers": found}))
        }
        ReportFormat::Table => session::print(&referrers_table(&found)),
    }
}

fn referrers_table(found: &[Descriptor]) -> String {
    let header = ["DIGEST", "TYPE", "SIZE"].map(str::to_owned).to_vec();
    let row = |entry: &Descriptor| {
        let kind = entry.artifact_type.clone().unwrap_or_default();
        vec![entry.digest.to_string(), drystone::output::printable(&kind).to_string(), table::size(entry.size)]
    };
    table::columns(&std::iter::once(header).chain(found.iter().map(row)).collect::<Vec<_>>())
}

/// Runs `delete`.
pub fn delete(arguments: &Delete, output: Output) -> Result<(), Failure> {
    let client = client(&arguments.registry, output)?;
    let mut deleted = Vec::new();
    let result = online::run(async {
        for reference in &arguments.references {
            delete_one(&client, reference).await?;
            deleted.push(reference.to_string());
            if arguments.format == ReportFormat::Table {
                session::print(&format!("deleted {reference}\n"))?;
            }
        }
        Ok::<_, Failure>(())
    });
    if arguments.format == ReportFormat::Json {
        print_json(&json!({"deleted": deleted}))?;
    }
    result
}

async fn delete_one(client: &Client, reference: &Reference) -> Result<(), Failure> {
    let (remote, name) = (Remote::from(reference), ManifestName::from(reference));
    match client.delete_manifest(&remote, &name).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::with_hint(
            format!("{reference} is not there, so it was not deleted"),
            format!("`drystone tags {remote}` lists what is there"),
        )),
        Err(error) => {
            let refused = matches!(&error, Error::Refused { status: 400 | 405, .. });
            match (&name, refused, client.head_manifest(&remote, &name).await) {
                // An older registry, which knows manifests only: all their tags would go.
                (ManifestName::Tag(_), true, Ok(Some(there))) => {
                    let hint = format!(
                        "it may delete by digest only: `drystone delete {remote}@{}` deletes the image with all of its tags",
                        there.digest
                    );
                    Err(Failure::with_hint(drystone::error::chain(&error), hint))
                }
                _ => Err(error.into()),
            }
        }
    }
}

fn lines(names: &[String]) -> String {
    names.iter().map(|name| format!("{}\n", drystone::output::printable(name))).collect()
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    session::print(&(serde_json::to_string_pretty(value).map_err(Failure::of)? + "\n"))
}
