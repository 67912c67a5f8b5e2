//! `drystone executor`: a build as kaniko's users write it, so that a CI job changes one word.

use std::path::{Path, PathBuf};

use drystone::build::Finished;
use drystone::dockerfile::git::GitAddress;
use drystone::events::Event;
use drystone::load::DOCKERFILE;
use oci::Registry;

use crate::args::{Executor, Output, RegistryArgs, SharedCacheArgs};
use crate::commands::dockerfile::{self, Request, reference, write_file};
use crate::destination::Destination;
use crate::failure::Failure;
use crate::progress;
use crate::remote::CacheReference;

/// The tag of a cache that has none.
const CACHE_TAG: &str = "cache";

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
        caches: &shared_cache(arguments),
        registry: &registry,
        destinations: &destinations,
    };
    let built = dockerfile::run(&request, output)?;
    write_results(arguments, &built)
}

/// The repository of `--cache-repo` as a cache that is shared. kaniko makes a tag of it for each step; here one tag names
/// the results of all.
fn shared_cache(arguments: &Executor) -> SharedCacheArgs {
    let Some(named) = arguments.cache_repo.clone().filter(|_| arguments.cache) else {
        return SharedCacheArgs::default();
    };
    let reference = match named.tag() {
        Some(_) => named,
        None => named.with_tag(Some(CACHE_TAG.parse().expect("a constant tag is valid"))),
    };
    let cache = CacheReference { reference, ignore_error: true };
    let cache_to = if arguments.no_push_cache { Vec::new() } else { vec![cache.clone()] };
    SharedCacheArgs { cache_from: vec![cache], cache_to }
}

/// What flags mean here that mean something else there.
fn notes(arguments: &Executor) -> [(bool, &'static str); 4] {
    [
        (
            arguments.cache_repo.is_some() && !arguments.cache,
            "--cache-repo: nothing is taken from there or stored without --cache=true",
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
    if let Some(repository) = repository(given, arguments.context_sub_path.as_deref()) {
        return Ok(repository);
    }
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

/// A context in a repository, as `build` understands it. kaniko writes `git://` and means HTTPS, and puts a commit behind
/// a second `#`.
fn repository(given: &str, below: Option<&Path>) -> Option<String> {
    let (remote, fragment) = given.split_once('#').unwrap_or((given, ""));
    let remote = match remote.strip_prefix("git://") {
        Some(rest) => format!("https://{}.git", rest.trim_end_matches(".git")),
        None => remote.to_owned(),
    };
    GitAddress::parse(&remote)?.ok()?;
    let reference = fragment.rsplit('#').next().unwrap_or_default();
    let below = below.map(|path| format!(":{}", path.display())).unwrap_or_default();
    Some(format!("{remote}#{reference}{below}"))
}

/// kaniko looks for a Dockerfile in the context first.
fn dockerfile_of(arguments: &Executor, context: &str) -> PathBuf {
    let name = arguments.dockerfile.file.clone().unwrap_or_else(|| DOCKERFILE.into());
    let inside = PathBuf::from(context).join(&name);
    // Of a repository nothing is there yet; its Dockerfile is looked for in it anyway.
    if inside.is_file() { inside } else { name }
}

/// Plain HTTP for the destinations' registries, if that was asked for.
fn registries(arguments: &Executor) -> Result<RegistryArgs, Failure> {
    let mut registry = arguments.registry.clone();
    if arguments.plain_push || arguments.insecure_pull {
        let names = arguments.destination.iter().map(|name| reference(name));
        let hosts: Vec<Registry> = names.map(|name| Ok(name?.registry().clone())).collect::<Result<_, Failure>>()?;
        registry.insecure.extend(hosts);
        registry.insecure.extend(arguments.cache_repo.iter().map(|cache| cache.registry().clone()));
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

fn write_results(arguments: &Executor, built: &Finished) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_written_as_kanikos_users_write_them() {
        let cases = [
            ("git://git.example/team/app", None, Some("https://git.example/team/app.git#")),
            ("git://git.example/app.git#refs/heads/main", None, Some("https://git.example/app.git#refs/heads/main")),
            ("git://git.example/app.git#refs/heads/main#0123456", None, Some("https://git.example/app.git#0123456")),
            ("https://git.example/app.git#v1", Some("sub"), Some("https://git.example/app.git#v1:sub")),
            ("dir://here", None, None),
            ("tar://here.tar", None, None),
        ];
        for (given, below, expected) in cases {
            assert_eq!(repository(given, below.map(Path::new)).as_deref(), expected, "{given}");
        }
    }
}
