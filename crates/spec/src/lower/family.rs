//! Lowers `family.yaml`: registry, tag, sources and defaults.

use super::Lowering;
use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::interpolate::{Variables, is_name};
use crate::model::{AptIndex, AptSource, Entry, Trust};
use crate::source::{Located, Span};
use crate::suggest::did_you_mean;
use crate::value::{EnvName, LabelKey, Platform, Registry, RelativePath, Tag};
use crate::written::{DefaultsFile, Entries, FamilyFile, SourceEntry, Written};

/// Priorities beyond these mean nothing in apt either.
const PRIORITIES: std::ops::RangeInclusive<i32> = -32_768..=32_767;

/// What a family says about all of its images.
pub(crate) struct Settings {
    pub(crate) registry: Option<Located<Registry>>,
    pub(crate) tag: Option<Located<Tag>>,
    pub(crate) sources: Vec<AptSource>,
    /// Every name under `sources:`, also of those that are wrong.
    pub(crate) source_names: Vec<String>,
    pub(crate) defaults: Defaults,
    /// The patterns of `images:`, if there are any.
    pub(crate) patterns: Option<Vec<Located<String>>>,
    /// The caller's variables, and the family's own below them.
    pub(crate) variables: Variables,
}

/// What every image starts with.
pub(crate) struct Defaults {
    pub(crate) sources: Option<Vec<Located<String>>>,
    pub(crate) recommends: bool,
    pub(crate) bytecode: bool,
    pub(crate) labels: Vec<Entry<LabelKey>>,
    pub(crate) annotations: Vec<Entry<LabelKey>>,
    pub(crate) env: Vec<Entry<EnvName>>,
    pub(crate) platforms: Vec<Located<Platform>>,
    pub(crate) exclude: Vec<Located<String>>,
    pub(crate) layer_budget: Option<Located<u32>>,
}

/// Lowers a family's own file. The context's variables are the caller's.
pub(crate) fn lower_family(outer: &mut Lowering<'_>, written: &FamilyFile) -> Settings {
    check_version(outer, &written.drystone);
    let variables = completed(outer, &written.vars);
    let mut lowering = Lowering { file: outer.file, variables: &variables, diagnostics: &mut *outer.diagnostics };
    let tag = match &written.tag {
        Some(tag) => lowering.checked(tag),
        None => "latest".parse::<Tag>().ok().map(|tag| Located::new(tag, Span::start_of(lowering.file))),
    };
    let registry = lowering.checked(&written.registry);
    let entries = &written.sources.list;
    let sources = entries.iter().filter_map(|(name, source)| lower_source(&mut lowering, name, source)).collect();
    let source_names: Vec<String> = entries.iter().map(|(name, _)| name.value.clone()).collect();
    let defaults = lower_defaults(&mut lowering, &written.defaults);
    for name in defaults.sources.iter().flatten() {
        check_source_name(lowering.diagnostics, name, &source_names);
    }
    let patterns = written.images.as_ref().map(|patterns| lowering.texts(Some(patterns)));
    Settings { registry, tag, sources, source_names, defaults, patterns, variables }
}

/// Notes a name that is not under `sources:`.
pub(super) fn check_source_name(diagnostics: &mut Diagnostics, name: &Located<String>, known: &[String]) {
    if known.contains(&name.value) {
        return;
    }
    let names = known.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let expected = match known {
        [] => String::from("the family names no sources"),
        _ => format!("expected one of {names}"),
    };
    diagnostics.push(
        Diagnostic::new(name.span.clone(), format!("{} is not a source of this family", quoted(name)))
            .label(expected)
            .help_if(did_you_mean(name, known.iter().map(String::as_str))),
    );
}

fn check_version(lowering: &mut Lowering<'_>, version: &Written<String>) {
    if version.value.trim() == "1" {
        return;
    }
    let span = lowering.span(version);
    let title = format!("version {} of the language is not supported", quoted(&version.value));
    lowering.report(Diagnostic::new(span, title).label("expected `1`"));
}

/// The caller's variables, completed by `vars:`. Each value may use those above it.
fn completed(outer: &mut Lowering<'_>, vars: &Entries<Written<String>>) -> Variables {
    let mut variables = outer.variables.clone();
    for (name, value) in &vars.list {
        if !is_name(&name.value) {
            let span = outer.span(name);
            let title = format!("{} is not a name for a variable", quoted(&name.value));
            outer.report(Diagnostic::new(span, title).label("expected letters, digits and `_`, no digit first"));
            continue;
        }
        if variables.get(&name.value).is_some() {
            continue;
        }
        let mut lowering = Lowering { file: outer.file, variables: &variables, diagnostics: &mut *outer.diagnostics };
        let value = lowering.text(value).value;
        variables.set(name.value.clone(), value);
    }
    variables
}

fn lower_source(
    lowering: &mut Lowering<'_>,
    name: &Written<String>,
    written: &Written<SourceEntry>,
) -> Option<AptSource> {
    let span = lowering.span(name);
    let entry = &written.value;
    let index = lower_index(lowering, entry, &span);
    let trust = lower_trust(lowering, entry, &span);
    let url = lower_url(lowering, entry.url.as_ref());
    let priority = lower_priority(lowering, entry.priority.as_ref());
    Some(AptSource {
        name: lowering.raw(name),
        index: index?,
        url,
        trust: trust?,
        allow_expired: entry.allow_expired,
        priority,
        span,
    })
}

fn lower_index(lowering: &mut Lowering<'_>, entry: &SourceEntry, span: &Span) -> Option<AptIndex> {
    match (&entry.suites, &entry.flat) {
        (Some(suites), Some(flat)) => {
            let diagnostic = Diagnostic::new(lowering.span(flat), "an archive has either `suites` or `flat`")
                .label("expected only one of them");
            let first = suites.first().map(|suite| lowering.span(suite));
            lowering.report(match first {
                Some(first) => diagnostic.related(first, "the suites are here"),
                None => diagnostic,
            });
            None
        }
        (None, Some(flat)) => lower_flat(lowering, entry, flat),
        (suites, None) => lower_suites(lowering, entry, suites.as_ref(), span),
    }
}

fn lower_suites(
    lowering: &mut Lowering<'_>,
    entry: &SourceEntry,
    suites: Option<&Vec<Written<String>>>,
    span: &Span,
) -> Option<AptIndex> {
    let suites = lowering.texts(suites);
    if suites.is_empty() {
        lowering.report(
            Diagnostic::new(span.clone(), "this source has no suites")
                .label("expected `suites: [...]`, or `flat:` for an archive without suites"),
        );
        return None;
    }
    let mut components = lowering.texts(entry.components.as_ref());
    if components.is_empty() {
        components.push(Located::new(String::from("main"), span.clone()));
    }
    for part in suites.iter().chain(&components) {
        check_archive_path(lowering, part);
    }
    Some(AptIndex::Suites { suites, components })
}

fn lower_flat(lowering: &mut Lowering<'_>, entry: &SourceEntry, flat: &Written<String>) -> Option<AptIndex> {
    let flat = lowering.text(flat);
    check_archive_path(lowering, &flat);
    if !flat.ends_with('/') {
        lowering.report(
            Diagnostic::new(flat.span.clone(), "the directory of a flat archive ends in a slash")
                .label(format!("expected {}", quoted(&format!("{}/", flat.value)))),
        );
        return None;
    }
    if entry.url.is_none() {
        lowering.report(
            Diagnostic::new(flat.span.clone(), "a flat archive needs a `url`")
                .label("a mirror of Debian has no such directory"),
        );
        return None;
    }
    Some(AptIndex::Flat(flat))
}

/// Suites, components and flat directories become parts of addresses.
fn check_archive_path(lowering: &mut Lowering<'_>, part: &Located<String>) {
    let good = !part.is_empty()
        && part.len() <= 255
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/+~-".contains(&byte))
        && !part.starts_with('/')
        && part.split('/').all(|piece| piece != "..");
    if !good {
        let title = format!("{} is not a part of an archive", quoted(part));
        let diagnostic = Diagnostic::new(part.span.clone(), title);
        lowering.report(diagnostic.label("expected letters, digits, `.`, `-`, `_`, `+`, `~` and `/`"));
    }
}

fn lower_trust(lowering: &mut Lowering<'_>, entry: &SourceEntry, span: &Span) -> Option<Trust> {
    let unsigned = entry.trusted.as_ref().filter(|trusted| trusted.value);
    match (&entry.keyring, unsigned) {
        (Some(keyring), Some(trusted)) => {
            let place = lowering.span(trusted);
            let keyring = lowering.span(keyring);
            lowering.report(
                Diagnostic::new(place, "a source is either signed or `trusted`")
                    .label("expected no `trusted: true` beside a keyring")
                    .related(keyring, "the keyring is here"),
            );
            None
        }
        (Some(keyring), None) => lowering.checked::<RelativePath>(keyring).map(Trust::Keyring),
        (None, Some(trusted)) => Some(Trust::Unsigned(lowering.span(trusted))),
        (None, None) => {
            lowering.report(
                Diagnostic::new(span.clone(), "nobody vouches for this source")
                    .label("expected `keyring:` with the keys that sign it")
                    .help("write `trusted: true` to use it without a signature"),
            );
            None
        }
    }
}

fn lower_url(lowering: &mut Lowering<'_>, written: Option<&Written<String>>) -> Option<Located<String>> {
    let before = lowering.diagnostics.len();
    let url = lowering.text(written?);
    if lowering.diagnostics.len() == before {
        check_url(lowering, &url);
    }
    Some(url)
}

/// Whether an address looks like something that can be fetched; the fetcher parses it for good.
pub(super) fn check_url(lowering: &mut Lowering<'_>, url: &Located<String>) {
    let rest = ["http://", "https://", "file:///", "stand-in://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let good = rest.is_some_and(|rest| !rest.is_empty())
        && !url.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    if !good {
        let diagnostic = Diagnostic::new(url.span.clone(), format!("{} is not an address", quoted(url)));
        lowering.report(diagnostic.label("expected one that begins with `http://`, `https://` or `file:///`"));
    }
}

fn lower_priority(lowering: &mut Lowering<'_>, written: Option<&Written<i32>>) -> i32 {
    const USUAL: i32 = 500;
    match written {
        Some(priority) if !PRIORITIES.contains(&priority.value) => {
            let span = lowering.span(priority);
            let title = format!("a priority of {} is out of range", priority.value);
            lowering.report(Diagnostic::new(span, title).label("expected -32768 to 32767"));
            USUAL
        }
        Some(priority) => priority.value,
        None => USUAL,
    }
}

fn lower_defaults(lowering: &mut Lowering<'_>, written: &DefaultsFile) -> Defaults {
    Defaults {
        sources: written.sources.as_ref().map(|sources| lowering.texts(Some(sources))),
        recommends: written.recommends.unwrap_or(false),
        bytecode: written.bytecode.unwrap_or(true),
        labels: lowering.entries(&written.labels),
        annotations: lowering.entries(&written.annotations),
        env: lowering.entries(&written.env),
        platforms: lowering.checked_list(written.platforms.as_ref()),
        exclude: lowering.exclusions(written.exclude.as_ref()),
        layer_budget: lowering.budget(&written.layers),
    }
}
