//! Lowers `image.yaml`: the name, the parent, the steps in their order, and the configuration.

use std::collections::BTreeMap;

use super::Lowering;
use super::family::{Settings, check_source_name};
use crate::diagnostic::{Diagnostic, quoted};
use crate::model::{Config, Entry, Group, Image, Parent, Step, User};
use crate::source::{Located, Span};
use crate::suggest::did_you_mean;
use crate::value::{ImageName, Invalid, Tag, check_reference, is_account};
use crate::written::{FileItem, GroupItem, ImageFile, LayersFile, RunList, StepItem, UserItem, Written};

/// The most layers that container runtimes take.
const MOST_LAYERS: u32 = 127;

/// What stands before the directory of an image layout, and before the file of one in a tar.
const LAYOUT_PREFIXES: [&str; 2] = ["oci:", "oci-archive:"];

const EXPECTED_PARENT: &str = "expected an image of this family, `scratch`, or a reference such as `registry/name:tag`";

/// The names of a family's images, and where each is declared; `None` for one whose file could not be read.
pub(crate) type Names = BTreeMap<String, Option<Span>>;

/// Lowers one image. `None` if so much is wrong that nothing can be said about it; then there is a note of why.
pub(crate) fn lower_image(
    lowering: &mut Lowering<'_>,
    directory: &str,
    written: &ImageFile,
    settings: &Settings,
    names: &Names,
) -> Option<Image> {
    let name = lower_name(lowering, directory, written);
    let from = lower_parent(lowering, &written.from, names);
    let tag = match &written.tag {
        Some(tag) => lowering.checked::<Tag>(tag),
        None => settings.tag.clone(),
    };
    let starts_family = !matches!(from.as_deref(), Some(Parent::Sibling(_)));
    let steps = lower_steps(lowering, directory, written);
    let sources = lower_sources(lowering, written, settings, &steps);
    let on_build = lowering.commands(directory, written.on_build.as_ref());
    let config = lower_config(lowering, written, settings, starts_family);
    let defaults = &settings.defaults;
    let own_annotations = lowering.entries(&written.annotations);
    let own_platforms = lowering.checked_list(written.platforms.as_ref());
    let own_exclude = lowering.exclusions(written.exclude.as_ref());
    let own_budget = lowering.budget(&written.layers);
    Some(Image {
        name: name?,
        directory: directory.to_owned(),
        file: lowering.file.clone(),
        from: from?,
        dockerfile: None,
        needs: Vec::new(),
        // Without a good tag of its family an image has none either; the family's note is enough.
        tag: tag?,
        sources,
        recommends: written.recommends.unwrap_or(defaults.recommends),
        bytecode: written.bytecode.unwrap_or(defaults.bytecode),
        steps,
        on_build,
        config,
        annotations: merged(&defaults.annotations, own_annotations),
        platforms: if written.platforms.is_some() { own_platforms } else { defaults.platforms.clone() },
        exclude: defaults.exclude.iter().cloned().chain(own_exclude).collect(),
        build_only: written.build_only,
        layer_budget: own_budget.or_else(|| defaults.layer_budget.clone()),
    })
}

/// The declared name, or the directory's.
fn lower_name(lowering: &mut Lowering<'_>, directory: &str, written: &ImageFile) -> Option<Located<ImageName>> {
    if let Some(name) = &written.name {
        return lowering.checked(name);
    }
    match directory.parse::<ImageName>() {
        Ok(name) => Some(Located::new(name, lowering.span(&written.from))),
        Err(Invalid { title, expected, help }) => {
            lowering.report(
                Diagnostic::new(
                    Span::start_of(lowering.file),
                    format!("this image is called like its directory: {title}"),
                )
                .label(expected)
                .help("rename the directory, or add `name:` to the image")
                .help_if(help),
            );
            None
        }
    }
}

fn lower_parent(lowering: &mut Lowering<'_>, written: &Written<String>, names: &Names) -> Option<Located<Parent>> {
    let before = lowering.diagnostics.len();
    let from = lowering.text(written);
    if lowering.diagnostics.len() > before {
        return None;
    }
    if from.value == "scratch" {
        return Some(from.map(|_| Parent::Scratch));
    }
    if names.contains_key(&from.value)
        && let Ok(name) = from.parse::<ImageName>()
    {
        return Some(from.map(|_| Parent::Sibling(name)));
    }
    if LAYOUT_PREFIXES.iter().any(|prefix| from.strip_prefix(prefix).is_some_and(|place| !place.is_empty())) {
        return Some(from.map(Parent::External));
    }
    if from.starts_with('.') || from.starts_with('/') {
        let title = format!("{} is outside this family", quoted(&from));
        lowering.report(Diagnostic::new(from.span, title).label(EXPECTED_PARENT));
        return None;
    }
    if !from.contains(['/', ':', '.', '@']) {
        lowering.report(
            Diagnostic::new(from.span.clone(), format!("there is no image {} in this family", quoted(&from)))
                .label(EXPECTED_PARENT)
                .help_if(did_you_mean(&from, names.keys().map(String::as_str).chain(["scratch"]))),
        );
        return None;
    }
    match check_reference(&from) {
        Ok(()) => Some(from.map(Parent::External)),
        Err(invalid) => {
            lowering.invalid(from.span, invalid);
            None
        }
    }
}

/// The sources that an image takes packages from: its own list, the family's default, or all there are.
fn lower_sources(
    lowering: &mut Lowering<'_>,
    written: &ImageFile,
    settings: &Settings,
    steps: &[Step],
) -> Vec<Located<String>> {
    let own = written.sources.as_ref().map(|sources| lowering.texts(Some(sources)));
    for name in own.iter().flatten() {
        check_source_name(lowering.diagnostics, name, &settings.source_names);
    }
    let sources = own.or_else(|| settings.defaults.sources.clone());
    let sources = sources.unwrap_or_else(|| settings.sources.iter().map(|source| source.name.clone()).collect());
    let first_package = steps.iter().find_map(|step| match step {
        Step::Packages(packages) => packages.first(),
        Step::Groups(_) | Step::Users(_) | Step::Files(_) | Step::Run(_) => None,
    });
    // Where the family has sources that are wrong, their own notes are enough.
    if let Some(package) = first_package
        && sources.is_empty()
        && (settings.source_names.is_empty() || written.sources.is_some())
    {
        lowering.report(
            Diagnostic::new(package.span.clone(), "there is no source to take packages from")
                .label(format!("{} comes from nowhere", quoted(package.span.text())))
                .help("name one under `sources:` in the family"),
        );
    }
    sources
}

fn lower_steps(lowering: &mut Lowering<'_>, directory: &str, written: &ImageFile) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(items) = &written.steps {
        refuse_fixed_order(lowering, written);
        for item in items {
            push_step(lowering, directory, item, &mut steps);
        }
        return steps;
    }
    push_packages(lowering, written.packages.as_ref(), &mut steps);
    push_groups(lowering, written.groups.as_ref(), &mut steps);
    push_users(lowering, written.users.as_ref(), &mut steps);
    push_files(lowering, directory, written.files.as_ref(), &mut steps);
    push_commands(lowering, directory, written.run.as_ref(), &mut steps);
    steps
}

/// `steps` is the whole order; a second one beside it would be a guess.
fn refuse_fixed_order(lowering: &mut Lowering<'_>, written: &ImageFile) {
    let packages = written.packages.as_ref().and_then(|list| list.first()).map(|first| lowering.span(first));
    let groups = written.groups.as_ref().and_then(|list| list.first()).map(|first| lowering.span(&first.name));
    let users = written.users.as_ref().and_then(|list| list.first()).map(|first| lowering.span(&first.name));
    let files = written.files.as_ref().and_then(|list| list.first()).map(|first| lowering.span(first));
    let run = written.run.as_ref().and_then(|list| list.0.first()).map(|first| lowering.span(first));
    let places = [("packages", packages), ("groups", groups), ("users", users), ("files", files), ("run", run)];
    for (key, place) in places {
        if let Some(place) = place {
            lowering.report(
                Diagnostic::new(place, format!("`{key}` stands beside `steps`"))
                    .label("expected inside `steps`, which is the whole order"),
            );
        }
    }
}

fn push_step(lowering: &mut Lowering<'_>, directory: &str, item: &StepItem, steps: &mut Vec<Step>) {
    match item {
        StepItem::Packages(packages) => push_packages(lowering, Some(packages), steps),
        StepItem::Groups(groups) => push_groups(lowering, Some(groups), steps),
        StepItem::Users(users) => push_users(lowering, Some(users), steps),
        StepItem::Files(files) => push_files(lowering, directory, Some(files), steps),
        StepItem::Run(commands) => push_commands(lowering, directory, Some(commands), steps),
    }
}

fn push_packages(lowering: &mut Lowering<'_>, written: Option<&Vec<Written<String>>>, steps: &mut Vec<Step>) {
    let packages = lowering.checked_list(written);
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
}

fn push_groups(lowering: &mut Lowering<'_>, written: Option<&Vec<GroupItem>>, steps: &mut Vec<Step>) {
    let groups: Vec<Group> = written.into_iter().flatten().map(|group| lower_group(lowering, group)).collect();
    if !groups.is_empty() {
        steps.push(Step::Groups(groups));
    }
}

fn lower_group(lowering: &mut Lowering<'_>, written: &GroupItem) -> Group {
    Group {
        name: lower_account(lowering, &written.name),
        gid: written.gid.as_ref().map(|gid| Located::new(gid.value, lowering.span(gid))),
        system: written.system,
    }
}

fn push_users(lowering: &mut Lowering<'_>, written: Option<&Vec<UserItem>>, steps: &mut Vec<Step>) {
    let users: Vec<User> = written.into_iter().flatten().map(|user| lower_user(lowering, user)).collect();
    if !users.is_empty() {
        steps.push(Step::Users(users));
    }
}

fn lower_user(lowering: &mut Lowering<'_>, written: &UserItem) -> User {
    User {
        name: lower_account(lowering, &written.name),
        uid: written.uid.as_ref().map(|uid| Located::new(uid.value, lowering.span(uid))),
        group: written.group.as_ref().map(|group| lower_account(lowering, group)),
        groups: written.groups.iter().flatten().map(|group| lower_account(lowering, group)).collect(),
        home: lowering.checked_option(&written.home),
        shell: lowering.checked_option(&written.shell),
        system: written.system,
    }
}

fn lower_account(lowering: &mut Lowering<'_>, written: &Written<String>) -> Located<String> {
    let before = lowering.diagnostics.len();
    let name = lowering.text(written);
    if lowering.diagnostics.len() == before && !is_account(&name) {
        let diagnostic = Diagnostic::new(name.span.clone(), format!("{} is not a name for an account", quoted(&name)));
        lowering.report(diagnostic.label("expected up to 32 letters, digits, `_`, `-` and `.`, a letter or `_` first"));
    }
    name
}

fn push_files(
    lowering: &mut Lowering<'_>,
    directory: &str,
    written: Option<&Vec<Written<FileItem>>>,
    steps: &mut Vec<Step>,
) {
    let files: Vec<_> = written.into_iter().flatten().filter_map(|file| lowering.file_entry(directory, file)).collect();
    if !files.is_empty() {
        steps.push(Step::Files(files));
    }
}

fn push_commands(lowering: &mut Lowering<'_>, directory: &str, written: Option<&RunList>, steps: &mut Vec<Step>) {
    steps.extend(lowering.commands(directory, written).into_iter().map(Box::new).map(Step::Run));
}

/// Labels and environment of the family go to the images that start it; their children inherit them, and a default
/// that were set again in a child would undo what the parent says.
fn lower_config(lowering: &mut Lowering<'_>, written: &ImageFile, settings: &Settings, starts_family: bool) -> Config {
    let labels = lowering.entries(&written.labels);
    let env = lowering.entries(&written.env);
    Config {
        env: if starts_family { merged(&settings.defaults.env, env) } else { env },
        labels: if starts_family { merged(&settings.defaults.labels, labels) } else { labels },
        user: lowering.checked_option(&written.user),
        workdir: lowering.checked_option(&written.workdir),
        expose: lowering.checked_list(written.expose.as_ref()),
        volumes: lowering.checked_list(written.volumes.as_ref()),
        stop_signal: lowering.checked_option(&written.stop_signal),
        healthcheck: written.healthcheck.as_ref().map(|check| lowering.healthcheck(check)),
        entrypoint: written.entrypoint.as_ref().map(|command| lowering.command_line(command)),
        cmd: written.cmd.as_ref().map(|command| lowering.command_line(command)),
    }
}

/// The family's entries, with the image's own in their places or behind them.
fn merged<K: Clone + PartialEq>(defaults: &[Entry<K>], own: Vec<Entry<K>>) -> Vec<Entry<K>> {
    let mut result = defaults.to_vec();
    for entry in own {
        match result.iter_mut().find(|earlier| earlier.key.value == entry.key.value) {
            Some(earlier) => *earlier = entry,
            None => result.push(entry),
        }
    }
    result
}

impl Lowering<'_> {
    /// Patterns of paths to leave out.
    pub(super) fn exclusions(&mut self, written: Option<&Vec<Written<String>>>) -> Vec<Located<String>> {
        let patterns = self.texts(written);
        for pattern in patterns.iter().filter(|pattern| !pattern.starts_with('/')) {
            let title = format!("{} is not an absolute path", quoted(pattern));
            let diagnostic = Diagnostic::new(pattern.span.clone(), title);
            self.report(diagnostic.label("expected a pattern such as `/usr/share/doc/*`"));
        }
        patterns
    }

    pub(super) fn budget(&mut self, written: &LayersFile) -> Option<Located<u32>> {
        let budget = written.budget.as_ref()?;
        let span = self.span(budget);
        if !(1..=MOST_LAYERS).contains(&budget.value) {
            let title = format!("an image cannot have {} layers", budget.value);
            self.report(Diagnostic::new(span, title).label(format!("expected 1 to {MOST_LAYERS}")));
            return None;
        }
        Some(Located::new(budget.value, span))
    }
}
