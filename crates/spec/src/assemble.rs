//! From the texts of a family to a checked [`Family`]. Everything that is wrong is told in one go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::dockerfile::{self, Dockerfile};
use crate::graph;
use crate::interpolate::Variables;
use crate::lower::{Lowering, Names, Settings, lower_dockerfile, lower_family, lower_image};
use crate::model::{Family, Image};
use crate::source::{Located, SourceFile, Span};
use crate::suggest::did_you_mean;
use crate::written::{ImageFile, parse_family, parse_image};

/// A family larger than this was made by a program that has gone astray.
const MOST_IMAGES: usize = 10_000;

/// One image's file that could be read.
struct Candidate {
    directory: String,
    file: Arc<SourceFile>,
    written: ImageFile,
}

impl Family {
    /// Checks a family: `family.yaml`, and every image's directory (relative to the family's) with its `image.yaml`,
    /// in any order. `variables` are the caller's; the family's own `vars:` fill in what is missing.
    pub fn assemble(
        family: SourceFile,
        images: Vec<(String, SourceFile)>,
        variables: &Variables,
    ) -> Result<Self, Diagnostics> {
        Self::assemble_with_dockerfiles(family, images, Vec::new(), variables)
    }

    /// The same where some directories have a `Dockerfile` instead.
    pub fn assemble_with_dockerfiles(
        family: SourceFile,
        images: Vec<(String, SourceFile)>,
        dockerfiles: Vec<(String, SourceFile)>,
        variables: &Variables,
    ) -> Result<Self, Diagnostics> {
        let file = Arc::new(family);
        let mut diagnostics = Diagnostics::new();
        let settings = read_settings(&file, variables, &mut diagnostics);
        let is_dockerfile: BTreeSet<String> = dockerfiles.iter().map(|(directory, _)| directory.clone()).collect();
        let all = images.into_iter().chain(dockerfiles).collect();
        let chosen = chosen(all, &file, settings.as_ref(), &mut diagnostics);
        let (dockerfiles, images) = chosen.into_iter().partition(|(directory, _)| is_dockerfile.contains(directory));
        let (candidates, unreadable) = read_images(images, &mut diagnostics);
        let dockerfiles = read_dockerfiles(dockerfiles, &mut diagnostics);
        let images = settings.as_ref().map(|settings| {
            let mut names = names_of(&candidates, &unreadable, settings, &mut diagnostics);
            name_dockerfiles(&dockerfiles, &mut names, &mut diagnostics);
            let mut images = lower_images(&candidates, settings, &names, &mut diagnostics);
            for (directory, dockerfile) in &dockerfiles {
                let mut lowering =
                    Lowering { file: &dockerfile.file, variables: &settings.variables, diagnostics: &mut diagnostics };
                images.extend(lower_dockerfile(&mut lowering, directory, dockerfile, settings, &names));
            }
            images
        });
        let images = images.map(|images| graph::order(images, &mut diagnostics));
        diagnostics.sort();
        match (diagnostics.is_empty(), settings, images) {
            (true, Some(Settings { registry: Some(registry), tag: Some(tag), sources, .. }), Some(images)) => {
                Ok(Self { file, registry, tag, sources, images })
            }
            _ => Err(diagnostics),
        }
    }

    /// The images of the family that `image` is built on, or takes files from; the nearest first.
    pub fn ancestors<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = &'a Image> {
        let index: BTreeMap<&str, &Image> = self.images.iter().map(|image| (image.name.as_str(), image)).collect();
        let mut found: Vec<&Image> = Vec::new();
        let mut waiting: VecDeque<&Image> = VecDeque::from([image]);
        while let Some(image) = waiting.pop_front() {
            for parent in image.parents().filter_map(|name| index.get(name).copied()) {
                if !found.iter().any(|known| known.name.value == parent.name.value) {
                    found.push(parent);
                    waiting.push_back(parent);
                }
            }
        }
        found.into_iter()
    }
}

fn read_settings(file: &Arc<SourceFile>, variables: &Variables, diagnostics: &mut Diagnostics) -> Option<Settings> {
    match parse_family(file) {
        Ok(written) => Some(lower_family(&mut Lowering { file, variables, diagnostics }, &written)),
        Err(found) => {
            diagnostics.extend(found);
            None
        }
    }
}

/// The directories that belong to the family, in order.
fn chosen(
    mut images: Vec<(String, SourceFile)>,
    family: &Arc<SourceFile>,
    settings: Option<&Settings>,
    diagnostics: &mut Diagnostics,
) -> Vec<(String, SourceFile)> {
    images.sort_by(|left, right| left.0.cmp(&right.0));
    if images.len() > MOST_IMAGES {
        let title = format!("this family has {} images", images.len());
        diagnostics
            .push(Diagnostic::new(Span::start_of(family), title).label(format!("expected no more than {MOST_IMAGES}")));
        images.truncate(MOST_IMAGES);
    }
    let Some(patterns) = settings.and_then(|settings| settings.patterns.as_ref()) else { return images };
    for pattern in patterns {
        if !images.iter().any(|(directory, _)| matches(pattern, directory)) {
            diagnostics.push(unmatched(pattern, &images));
        }
    }
    images.retain(|(directory, _)| patterns.iter().any(|pattern| matches(pattern, directory)));
    images
}

fn unmatched(pattern: &Located<String>, images: &[(String, SourceFile)]) -> Diagnostic {
    Diagnostic::new(pattern.span.clone(), format!("no directory is called {}", quoted(pattern)))
        .label("expected a directory with an `image.yaml`, or a pattern that fits one")
        .help_if(did_you_mean(pattern, images.iter().map(|(directory, _)| directory.as_str())))
}

/// Whether `pattern`, with `*` for any text and `?` for any letter, is all of `text`. The time it takes is bounded by
/// the product of the lengths: it goes back to the last star only.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(&letter) if letter == '?' || letter == text[position] => {
                at += 1;
                position += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    position = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&letter| letter == '*')
}

/// Reads every image's file; also returns the directories of those that cannot be read.
fn read_images(images: Vec<(String, SourceFile)>, diagnostics: &mut Diagnostics) -> (Vec<Candidate>, Vec<String>) {
    let mut candidates = Vec::with_capacity(images.len());
    let mut unreadable = Vec::new();
    for (directory, file) in images {
        let file = Arc::new(file);
        match parse_image(&file) {
            Ok(written) => candidates.push(Candidate { directory, file, written }),
            Err(found) => {
                diagnostics.extend(found);
                unreadable.push(directory);
            }
        }
    }
    (candidates, unreadable)
}

/// Reads every Dockerfile.
fn read_dockerfiles(files: Vec<(String, SourceFile)>, diagnostics: &mut Diagnostics) -> Vec<(String, Arc<Dockerfile>)> {
    let mut read = Vec::with_capacity(files.len());
    for (directory, file) in files {
        match dockerfile::parse(&Arc::new(file)) {
            Ok(dockerfile) => read.push((directory, Arc::new(dockerfile))),
            Err(found) => diagnostics.extend(found),
        }
    }
    read
}

/// Adds the images of Dockerfiles, which are called like their directories.
fn name_dockerfiles(dockerfiles: &[(String, Arc<Dockerfile>)], names: &mut Names, diagnostics: &mut Diagnostics) {
    for (directory, dockerfile) in dockerfiles {
        let span = Span::start_of(&dockerfile.file);
        if let Some(Some(earlier)) = names.insert(directory.clone(), Some(span.clone())) {
            diagnostics.push(
                Diagnostic::new(span, format!("two images are called {}", quoted(directory)))
                    .label("the second one")
                    .related(earlier, "the first one"),
            );
        }
    }
}

/// The names of all images. An image whose file cannot be read counts by its directory: its children are not to blame.
fn names_of(
    candidates: &[Candidate],
    unreadable: &[String],
    settings: &Settings,
    diagnostics: &mut Diagnostics,
) -> Names {
    let mut names: Names = unreadable.iter().map(|directory| (directory.clone(), None)).collect();
    for candidate in candidates {
        let (name, span) = declared_name(candidate, settings);
        match names.get(&name) {
            Some(Some(earlier)) => diagnostics.push(
                Diagnostic::new(span, format!("two images are called {}", quoted(&name)))
                    .label("the second one")
                    .related(earlier.clone(), "the first one"),
            ),
            Some(None) | None => {
                names.insert(name, Some(span));
            }
        }
    }
    names
}

fn declared_name(candidate: &Candidate, settings: &Settings) -> (String, Span) {
    let directory = || (candidate.directory.clone(), candidate.written.from.span(&candidate.file));
    let Some(name) = &candidate.written.name else { return directory() };
    // What is wrong with the name is told when the image is lowered.
    match crate::interpolate::interpolate(&name.value, &settings.variables) {
        Ok(value) => (value, name.span(&candidate.file)),
        Err(_) => directory(),
    }
}

fn lower_images(
    candidates: &[Candidate],
    settings: &Settings,
    names: &Names,
    diagnostics: &mut Diagnostics,
) -> Vec<Image> {
    let lower = |candidate: &Candidate| {
        let mut lowering =
            Lowering { file: &candidate.file, variables: &settings.variables, diagnostics: &mut *diagnostics };
        lower_image(&mut lowering, &candidate.directory, &candidate.written, settings, names)
    };
    candidates.iter().filter_map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_fit_whole_names() {
        let cases = [
            ("redis", "redis", true),
            ("redis", "redis2", false),
            ("web*", "webui-job", true),
            ("*-job", "webui-job", true),
            ("w?bui", "webui", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        assert!(!matches(&"*a".repeat(200), &"b".repeat(2000)));
    }
}
