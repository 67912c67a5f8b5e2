//! Rules about families and their images.

use super::commands::{apt, whole_layer};
use super::shell::{self, Simple};
use super::{Finder, Report, Selection, rules, secrets, sort, stages};
use crate::dockerfile::Check;
use crate::model::{
    AptSource, Command, CommandLine, Family, FileContent, FileEntry, Image, Network, Parent, Step, Trust,
};
use crate::source::Span;

/// Tags that move on.
const MOVING: [&str; 5] = ["latest", "stable", "main", "master", "edge"];

/// Looks at a family that was read.
pub fn family(family: &Family, selection: &Selection) -> Report {
    let mut finder = Finder::default();
    family.sources.iter().for_each(|found| source(found, &mut finder));
    if MOVING.contains(&family.tag.as_str()) {
        let title = format!("the tag `{}` says nothing of the version", family.tag.value);
        finder.find(&rules::MOVING_TAG, &family.tag.span, title, "expected a version or a date");
    }
    // What is built from a Dockerfile is looked at as one.
    let specs = family.images.iter().filter(|image| image.dockerfile.is_none());
    specs.for_each(|found| image(found, &mut finder));
    let mut report = Report { findings: finder.findings, is_strict: false };
    report.findings.retain(|finding| selection.includes(finding.rule, &Check::default()));
    sort(&mut report.findings);
    report
}

fn source(source: &AptSource, finder: &mut Finder) {
    if let Trust::Unsigned(place) = &source.trust {
        let title = format!("nobody vouches for what comes from `{}`", source.name.value);
        finder.find(&rules::UNSIGNED_SOURCE, place, title, "expected `keyring:` with the archive's key");
    }
    if source.allow_expired {
        let title = format!("old indexes of `{}` are taken, with old packages", source.name.value);
        finder.find(&rules::EXPIRED_INDEX_ALLOWED, &source.span, title, "expected no `allow_expired: true`");
    }
}

fn image(image: &Image, finder: &mut Finder) {
    if let Parent::External(reference) = &image.from.value {
        stages::unpinned(reference, &image.from.span, finder);
    }
    for step in &image.steps {
        match step {
            Step::Files(files) => files.iter().for_each(|entry| file(entry, finder)),
            Step::Run(found) => command(found, finder),
            Step::Packages(_) | Step::Groups(_) | Step::Users(_) => {}
        }
    }
    for entry in &image.config.env {
        secrets::variable("env", entry.key.as_str(), &entry.key.span, finder);
    }
    if let Some(entrypoint) = &image.config.entrypoint
        && matches!(entrypoint.value, CommandLine::Shell(_))
    {
        let title = "an entry point in a shell ignores `cmd` and the arguments of `run`";
        finder.find(&rules::SHELL_FORM_ENTRYPOINT, &entrypoint.span, title, "expected a list");
    }
}

fn file(entry: &FileEntry, finder: &mut Finder) {
    match &entry.content {
        FileContent::Source { path, .. } => secrets::file(path.as_str(), &path.span, finder),
        FileContent::Url { url, sha256: None, .. } => {
            let title = "this file is taken as it comes";
            finder.find(&rules::UNCHECKED_DOWNLOAD, &url.span, title, "expected `sha256:` beside it");
        }
        FileContent::Url { .. } | FileContent::Text(_) | FileContent::Link(_) | FileContent::Directory => {}
    }
}

fn command(command: &Command, finder: &mut Finder) {
    if let Network::Host(place) = &command.network {
        let title = "this command sees the machine's network, and what listens there";
        finder.find(&rules::INSECURE_RUN, place, title, "expected files by address and digest under `files`");
    }
    let place = &command.line.span;
    let commands = match &command.line.value {
        CommandLine::Shell(text) => shell::commands(text),
        CommandLine::Exec(words) if words.is_empty() => Vec::new(),
        CommandLine::Exec(words) => vec![Simple { words: words.clone(), is_piped: false }],
    };
    let inside = |word: &str| match place.text().find(word) {
        Some(at) => {
            let start = place.range().start + at;
            Span::new(place.file(), start..start + word.len())
        }
        None => place.clone(),
    };
    apt(&commands, false, &inside, finder);
    whole_layer(&commands, place, finder);
    let installs = |command: &&Simple| {
        matches!(command.program(), "apt-get" | "apt" | "aptitude") && command.has("install")
            || command.program() == "dpkg" && (command.has("-i") || command.has("--install"))
    };
    if let Some(found) = commands.iter().find(installs) {
        let title = "packages that a command installs are neither locked nor shared";
        let label = "expected them under `packages:`";
        finder.find(&rules::PACKAGES_BY_COMMAND, &inside(&found.words[0]), title, label);
    }
}
