//! Rules about `FROM`: names, platforms, and what a stage is built on.

use super::facts::{Base, base};
use super::{Finder, rules};
use crate::diagnostic::{Diagnostic, quoted};
use crate::dockerfile::{Arguments, Dockerfile, PLATFORM_ARGUMENTS, Stage};
use crate::source::{Located, Span};
use crate::suggest::did_you_mean;

pub(super) fn look(dockerfile: &Dockerfile, siblings: &[String], finder: &mut Finder) {
    let globals = Arguments::read(dockerfile, Default::default(), platform());
    for (number, stage) in dockerfile.stages.iter().enumerate() {
        name(stage, finder);
        as_casing(stage, finder);
        platform_flag(stage, finder);
        if let (Base::Image(from), Ok(globals)) = (base(dockerfile, number), &globals) {
            image(dockerfile, globals, from, siblings, finder);
        }
        description(stage.name.as_ref(), &stage.comments, &stage.span, finder);
    }
    for argument in dockerfile.declared_arguments() {
        description(Some(&argument.name), &argument.comments, &argument.name.span, finder);
    }
}

/// Something for the arguments that every build has.
pub(super) fn platform() -> impl Iterator<Item = (String, String)> {
    PLATFORM_ARGUMENTS.iter().map(|name| ((*name).to_owned(), "x".to_owned()))
}

fn name(stage: &Stage, finder: &mut Finder) {
    let Some(name) = &stage.name else { return };
    let written = name.span.text();
    if written != name.value {
        let title = format!("the name of the stage {} is not in lower case", quoted(written));
        finder.find(&rules::STAGE_NAME_CASING, &name.span, title, format!("expected {}", quoted(&name.value)));
    }
    if matches!(name.value.as_str(), "scratch" | "context") {
        let title = format!("{} means something else than this stage", quoted(&name.value));
        finder.find(&rules::RESERVED_STAGE_NAME, &name.span, title, "expected another name");
    }
}

fn as_casing(stage: &Stage, finder: &mut Finder) {
    let Some(word) = &stage.as_keyword else { return };
    let is_upper = |text: &str| text.chars().all(|letter| letter.is_ascii_uppercase());
    let is_lower = |text: &str| text.chars().all(|letter| letter.is_ascii_lowercase());
    let (from, word_text) = (stage.keyword.as_str(), word.as_str());
    let fits = (is_upper(from) && is_upper(word_text)) || (is_lower(from) && is_lower(word_text));
    if !fits && (is_upper(from) || is_lower(from)) {
        let title = format!("{} and {} are in different letters", quoted(from), quoted(word_text));
        let expected = if is_upper(from) { "AS" } else { "as" };
        finder.find(&rules::FROM_AS_CASING, &word.span, title, format!("expected `{expected}`"));
    }
}

fn platform_flag(stage: &Stage, finder: &mut Finder) {
    let Some(platform) = &stage.platform else { return };
    if matches!(platform.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
        let title = "the platform of the target is used anyway";
        finder.find(&rules::REDUNDANT_TARGET_PLATFORM, &platform.span, title, "expected no `--platform`");
    } else if !platform.contains('$') {
        // A stage that is for one platform, and says so in its name, may name it.
        let name = stage.name.as_ref().map_or("", |name| name.value.as_str());
        let is_named = platform.split('/').filter(|part| *part != "linux").any(|part| name.contains(part));
        if !is_named {
            let title = format!("the stage is always built for {}", quoted(platform));
            let label = "expected `$BUILDPLATFORM`, or no `--platform`";
            finder.find(&rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, &platform.span, title, label);
        }
    }
}

fn image(
    dockerfile: &Dockerfile,
    globals: &Arguments,
    from: &Located<String>,
    siblings: &[String],
    finder: &mut Finder,
) {
    let Ok(expanded) = globals.global().expand(from) else { return };
    let declared = |name: &String| dockerfile.arguments.iter().any(|argument| argument.name.value == **name);
    for name in expanded.unset.iter().filter(|name| !declared(name)) {
        let names = dockerfile.arguments.iter().map(|argument| argument.name.as_str()).chain(PLATFORM_ARGUMENTS);
        let title = format!("{} is declared nowhere before the first FROM", quoted(name));
        finder.report(
            &rules::UNDEFINED_ARG_IN_FROM,
            Diagnostic::new(from.span.clone(), title)
                .label(format!("expected an `ARG {name}` before it"))
                .help_if(did_you_mean(name, names)),
        );
    }
    let image = expanded.value.text.as_str();
    if !names_an_image(image) {
        if from.contains('$') && expanded.unset.iter().all(declared) {
            let title = format!("without arguments from the caller this is {}, which is no image", quoted(image));
            let label = "expected arguments with defaults that name one";
            finder.find(&rules::INVALID_DEFAULT_ARG_IN_FROM, &from.span, title, label);
        }
        return;
    }
    let is_elsewhere = ["oci:", "oci-archive:", "docker-archive:"].iter().any(|prefix| image.starts_with(prefix));
    if !siblings.iter().any(|sibling| sibling == image) && !is_elsewhere {
        unpinned(image, &from.span, finder);
    }
}

/// The base by something that can become another image.
pub(super) fn unpinned(image: &str, place: &Span, finder: &mut Finder) {
    if image.contains('@') {
        return;
    }
    let title = match tag(image) {
        None => format!("{} has no tag: it is whatever is the latest", quoted(image)),
        Some("latest") => format!("{} is another image with every release", quoted(image)),
        Some(_) => format!("{} may become another image", quoted(image)),
    };
    finder.find(&rules::UNPINNED_BASE, place, title, "expected a digest, `NAME:TAG@sha256:…`");
}

fn tag(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map(|(_, tag)| tag)
}

/// Whether a text can be the name of an image at all.
fn names_an_image(text: &str) -> bool {
    let name = text.split('@').next().unwrap_or(text);
    let is_whole = |part: &str| !part.is_empty() && !part.starts_with(':') && !part.ends_with([':', '-', '.']);
    !text.is_empty()
        && !text.ends_with('@')
        && !text.contains(char::is_whitespace)
        && name.split('/').all(is_whole)
        && name.matches(':').count() <= 2
}

/// `# name what it is`, right above what has the name.
pub(super) fn description(
    name: Option<&Located<String>>,
    comments: &[Located<String>],
    place: &Span,
    finder: &mut Finder,
) {
    let (Some(name), Some(comment)) = (name, comments.last()) else { return };
    let first = comment.split_whitespace().next().unwrap_or_default();
    if first.eq_ignore_ascii_case(name) || comment.contains('=') || comment.is_empty() {
        return;
    }
    let title = format!("the comment above {} does not begin with this name", quoted(name));
    finder.report(
        &rules::INVALID_DEFINITION_DESCRIPTION,
        Diagnostic::new(comment.span.clone(), title)
            .label(format!("expected `# {} …`, or an empty line below the comment", name.value))
            .related(place.clone(), "described here"),
    );
}
