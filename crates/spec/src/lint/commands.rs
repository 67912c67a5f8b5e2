//! Rules about what `RUN` runs.

use super::facts::{commands, instructions, place_of};
use super::shell::Simple;
use super::{Finder, rules};
use crate::dockerfile::{Dockerfile, Instruction, Kind, MountType, Run, RunNetwork, RunSecurity, Scope};
use crate::source::Span;

/// Options of apt that make it take what nobody signed.
const UNVERIFIED: [&str; 5] =
    ["--force-yes", "--allow-unauthenticated", "--no-gpg-check", "--nogpgcheck", "--allow-insecure-repositories"];
/// Programs that fetch something and print it.
const FETCHERS: [&str; 3] = ["curl", "wget", "fetch"];
/// Programs that run what they read.
const INTERPRETERS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "python3", "python"];

pub(super) fn look(dockerfile: &Dockerfile, finder: &mut Finder) {
    for instruction in instructions(dockerfile) {
        let Kind::Run(run) = &instruction.kind else { continue };
        rights(run, finder);
        let commands = commands(run);
        let place = |word: &str| place_of(instruction, word);
        apt(&commands, keeps_lists_elsewhere(run), &place, finder);
        packages_of_others(&commands, instruction, finder);
        pipes(&commands, &place, finder);
        whole_layer(&commands, &instruction.keyword.span, finder);
        if commands.iter().any(|command| command.program() == "sudo") {
            let label = "expected `USER root` before, if need be";
            finder.find(&rules::SUDO_IN_BUILD, &place("sudo"), "a build needs no sudo", label);
        }
    }
}

fn rights(run: &Run, finder: &mut Finder) {
    if let Some(network) = run.network.as_ref().filter(|network| network.value == RunNetwork::Host) {
        let title = "this command sees the machine's network, and what listens there";
        finder.find(&rules::INSECURE_RUN, &network.span, title, "expected `none` or `default`");
    }
    if let Some(security) = run.security.as_ref().filter(|security| security.value == RunSecurity::Insecure) {
        let title = "this command has all rights of the builder";
        finder.find(&rules::INSECURE_RUN, &security.span, title, "expected no `--security`");
    }
}

/// Whether a mount keeps apt's lists out of the layer.
fn keeps_lists_elsewhere(run: &Run) -> bool {
    run.mounts.iter().filter_map(|mount| mount.resolve(&Scope::default()).ok()).any(|mount| {
        matches!(mount.kind, MountType::Cache | MountType::Tmpfs)
            && mount.target.is_some_and(|target| "/var/lib/apt/lists".starts_with(target.trim_end_matches('/')))
    })
}

/// What is said of apt, wherever its commands stand.
pub(super) fn apt(commands: &[Simple], keeps_lists: bool, place: &dyn Fn(&str) -> Span, finder: &mut Finder) {
    let apt_with = |wanted: &[&str]| {
        commands.iter().find(|command| {
            matches!(command.program(), "apt-get" | "apt" | "aptitude")
                && command.operands().find(|word| !word.contains('=')).is_some_and(|word| wanted.contains(&word))
        })
    };
    let update = apt_with(&["update"]);
    let install = apt_with(&["install"]);
    if let Some(update) = update {
        let removes = |command: &Simple| {
            command.program() == "rm" && command.words.iter().any(|word| word.starts_with("/var/lib/apt"))
        };
        let name = update.words[0].as_str();
        if !commands.iter().any(removes) && !keeps_lists {
            let title = "the lists of packages stay in the layer";
            let label = "expected `rm -rf /var/lib/apt/lists/*` at the end of this step";
            finder.find(&rules::APT_LISTS_LEFT_BEHIND, &place(name), title, label);
        }
        if install.is_none() && apt_with(&["upgrade", "dist-upgrade", "full-upgrade", "build-dep"]).is_none() {
            let title = "the cache keeps these lists while what is installed by them grows old";
            finder.find(&rules::APT_UPDATE_ALONE, &place(name), title, "expected `install` in the same step");
        }
    }
    if let Some(install) = install {
        let is_lean = install.words.iter().any(|word| {
            matches!(word.as_str(), "--no-install-recommends" | "--without-recommends" | "-R")
                || word.contains("Install-Recommends=")
        });
        if !is_lean {
            let title = "recommended packages come along";
            finder.find(&rules::APT_RECOMMENDS, &place("install"), title, "expected `--no-install-recommends`");
        }
    }
    if let Some(upgrade) = apt_with(&["upgrade", "dist-upgrade", "full-upgrade", "safe-upgrade"]) {
        let word = upgrade.operands().find(|word| word.ends_with("upgrade")).unwrap_or("upgrade");
        let title = "an upgrade stores packages of the base a second time";
        finder.find(&rules::APT_UPGRADE, &place(word), title, "expected a newer base image");
    }
}

/// Packages and sources that no signature vouches for.
fn packages_of_others(commands: &[Simple], instruction: &Instruction, finder: &mut Finder) {
    let option = commands.iter().flat_map(|command| &command.words).find(|word| UNVERIFIED.contains(&word.as_str()));
    let trusted = ["trusted=yes", "trusted: yes"].into_iter().find(|mark| instruction.text.contains(mark));
    for word in option.map(String::as_str).into_iter().chain(trusted) {
        let title = "nobody vouches for what is installed";
        let label = "expected a signed source, and its key";
        finder.find(&rules::UNVERIFIED_PACKAGES, &place_of(instruction, word), title, label);
    }
}

fn pipes(commands: &[Simple], place: &dyn Fn(&str) -> Span, finder: &mut Finder) {
    for pair in commands.windows(2) {
        let [first, second] = pair else { continue };
        let program = match second.program() {
            "sudo" => second.operands().next().unwrap_or_default(),
            program => program,
        };
        if first.is_piped && FETCHERS.contains(&first.program()) && INTERPRETERS.contains(&program) {
            let title = "what is downloaded is run without a look at it";
            let label = "expected a file whose digest is checked before it is run";
            finder.find(&rules::PIPE_TO_SHELL, &place(&first.words[0]), title, label);
        }
    }
}

/// Rules about layers that do nothing but one thing.
pub(super) fn whole_layer(commands: &[Simple], place: &Span, finder: &mut Finder) {
    let all = |programs: &[&str]| {
        let mut counted = commands.iter().filter(|command| command.program() != "set").peekable();
        counted.peek().is_some() && counted.all(|command| programs.contains(&command.program()))
    };
    if all(&["rm", "rmdir", "unlink"]) || is_cleaning(commands) {
        let title = "this step only deletes: the files stay in the layers below";
        let label = "expected the deletion in the step that makes the files";
        finder.find(&rules::LAYER_ONLY_DELETES, place, title, label);
    }
    if all(&["chown", "chmod", "chgrp"]) {
        let title = "this step stores each file that it touches a second time";
        let label = "expected `--chown` and `--chmod` where the files are copied";
        finder.find(&rules::LAYER_ONLY_CHANGES_OWNERS, place, title, label);
    }
    if all(&["cd", "export", "source", ".", "alias", "umask", "ulimit"]) {
        let title = "this step changes nothing but its own shell";
        finder.find(&rules::LOST_SHELL_STATE, place, title, "expected `WORKDIR`, `ENV`, or more commands here");
    }
}

/// `apt-get clean` and the like, and nothing that makes something.
fn is_cleaning(commands: &[Simple]) -> bool {
    let cleans = |command: &Simple| {
        matches!(command.program(), "apt-get" | "apt" | "yum" | "dnf")
            && command.operands().next().is_some_and(|word| matches!(word, "clean" | "autoclean"))
    };
    commands.iter().any(cleans) && commands.iter().all(|command| cleans(command) || command.program() == "rm")
}
