//! `drystone executor`: a build as kaniko's users write it, so that a CI job changes one word.

use std::path::PathBuf;

use drystone::build::BuiltImage;
use drystone::events::Event;
use drystone::load::DOCKERFILE;
use oci::Registry;

use crate::args::{Executor, Output, RegistryArgs, SharedCacheArgs};
use crate::commands::dockerfile::{self, Request, reference, write_file};
use crate::destination::Destination;
use crate::failure::Failure;
use crate::progress;

/// Runs the command.
pub fn run(arguments: &Executor, output: Output) -> Result<(), Failure> {
    let pushes = !arguments.no_push;
    if pushes && arguments.destination.is_empty() {
        let text = "name where the image is pushed to with --destination, or say --no-push";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (observer, _) = progress::observer_on_screen(output);
    for (is_given, text) in notes(arguments) {
        if is_given {
            observer.observe(Event::Note(text));
        }
    }
    let context = context(arguments)?;
    let mut settings = arguments.dockerfile.clone();
    settings.push = pushes;
    settings.file = Some(dockerfile_of(arguments, &context));
    let mut build = arguments.build.clone();
    // kaniko takes nothing from a cache unless it is told to.
    build.no_cache |= !arguments.cache;
    let registry = registries(arguments)?;
    let destinations = destinations(arguments)?;
    let request = Request {
        context,
        tags: arguments.destination.clone(),
        dockerfile: &settings,
        build: &build,
        caches: &SharedCacheArgs::default(),
        registry: &registry,
        destinations: &destinations,
    };
    let built = dockerfile::run(&request, output)?;
    write_results(arguments, &built)
}

/// What flags mean here that mean something else there.
fn notes(arguments: &Executor) -> [(bool, &'static str); 4] {
    [
        (
            arguments.cache_repo.is_some(),
            "--cache-repo: steps are kept in the directory of --cache-dir, not in a registry",
        ),
        (
            arguments.single_snapshot,
            "--single-snapshot: each instruction that changes files is a layer, here as without it",
        ),
        (
            arguments.skip_tls_verify || arguments.skip_tls_verify_pull,
            "--skip-tls-verify: certificates are verified all the same; --registry-ca trusts an authority of one's own",
        ),
        (arguments.snapshot_mode.is_some(), "--snapshot-mode: changes are always found by content"),
    ]
}

/// `dir://PATH`, `tar://PATH`, `tar://stdin`, or a path; perhaps a directory in it.
fn context(arguments: &Executor) -> Result<String, Failure> {
    let given = arguments.context.as_str();
    let path = match given.split_once("://") {
        None => given,
        Some(("dir", path)) => path,
        Some(("tar", "stdin")) => "-",
        Some(("tar", path)) => path,
        Some((scheme, _)) => {
            let text = format!("a context from `{scheme}://` cannot be fetched: give a directory or a tar");
            return Err(Failure::Usage(text));
        }
    };
    Ok(match &arguments.context_sub_path {
        Some(below) if path != "-" => PathBuf::from(path).join(below).display().to_string(),
        _ => path.to_owned(),
    })
}

/// kaniko looks for a Dockerfile in the context first.
fn dockerfile_of(arguments: &Executor, context: &str) -> PathBuf {
    let name = arguments.dockerfile.file.clone().unwrap_or_else(|| DOCKERFILE.into());
    let inside = PathBuf::from(context).join(&name);
    if inside.is_file() { inside } else { name }
}

/// Plain HTTP for the destinations' registries, if that was asked for.
fn registries(arguments: &Executor) -> Result<RegistryArgs, Failure> {
    let mut registry = arguments.registry.clone();
    if arguments.plain_push || arguments.insecure_pull {
        let names = arguments.destination.iter().map(|name| reference(name));
        let hosts: Vec<Registry> = names.map(|name| Ok(name?.registry().clone())).collect::<Result<_, Failure>>()?;
        registry.insecure.extend(hosts);
    }
    Ok(registry)
}

/// Files to write the image to.
fn destinations(arguments: &Executor) -> Result<Vec<Destination>, Failure> {
    let mut destinations = Vec::new();
    let parsed = |text: String| text.parse::<Destination>().map_err(|error| Failure::Usage(error.to_string()));
    if let Some(path) = &arguments.tar_path {
        destinations.push(parsed(format!("type=docker-archive,dest={}", path.display()))?);
    }
    if let Some(path) = &arguments.oci_layout_path {
        destinations.push(parsed(format!("type=oci,dest={}", path.display()))?);
    }
    Ok(destinations)
}

fn write_results(arguments: &Executor, built: &BuiltImage) -> Result<(), Failure> {
    let digest = built.manifest.digest.to_string();
    if let Some(path) = &arguments.digest_file {
        write_file(path, &digest)?;
    }
    let names = arguments.destination.iter().map(|name| reference(name)).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &arguments.image_name_with_digest_file {
        let lines: String = names.iter().map(|name| format!("{}@{digest}\n", name.name())).collect();
        write_file(path, &lines)?;
    }
    if let Some(path) = &arguments.image_name_tag_with_digest_file {
        let lines: String = names.iter().map(|name| format!("{name}@{digest}\n")).collect();
        write_file(path, &lines)?;
    }
    Ok(())
}
