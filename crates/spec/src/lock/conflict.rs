//! Locks in which a merge has left its marks: found, and put together again from what both sides said.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Lock, LockedDeb};
use crate::diagnostic::Diagnostic;
use crate::source::{SourceFile, Span};

/// What git puts before each part of a conflict; the second one only with `merge.conflictStyle` set to `diff3`.
const MARKS: [&str; 4] = ["<<<<<<<", "|||||||", "=======", ">>>>>>>"];

/// The first mark of a conflict.
pub(super) fn first_mark(file: &Arc<SourceFile>) -> Option<Span> {
    let mut offset = 0;
    for line in file.text.split_inclusive('\n') {
        if let Some(mark) = mark(line) {
            return Some(Span::new(file, offset..offset + mark.len()));
        }
        offset += line.len();
    }
    None
}

fn mark(line: &str) -> Option<&'static str> {
    let is_mark = |mark: &&str| {
        line.strip_prefix(*mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\r', '\n']))
    };
    MARKS.into_iter().find(is_mark)
}

impl Lock {
    /// Whether a merge has left its marks in the text of a lock.
    pub fn has_conflicts(text: &str) -> bool {
        text.lines().any(|line| mark(line).is_some())
    }

    /// What both sides of a merge with conflicts agree on. Images of which they say different things are left out, to
    /// be resolved again; their packages are in the second part, so that they can be preferred. A side that cannot be
    /// read is nothing; it is an error if neither can.
    pub fn repair(file: &Arc<SourceFile>) -> Result<(Self, Vec<LockedDeb>), Box<Diagnostic>> {
        let side = |side| Self::parse(&Arc::new(SourceFile::new(&file.name, one_side(&file.text, side))));
        let (ours, theirs) = match (side(Side::Ours), side(Side::Theirs)) {
            (Err(error), Err(_)) => return Err(error),
            (ours, theirs) => (ours.unwrap_or_default(), theirs.unwrap_or_default()),
        };
        let known = ours.packages().into_iter().chain(theirs.packages()).cloned().collect();
        Ok((agreed(ours, theirs), known))
    }
}

fn agreed(ours: Lock, theirs: Lock) -> Lock {
    let mut images: BTreeMap<(String, String), Vec<_>> = BTreeMap::new();
    for image in ours.images.into_iter().chain(theirs.images) {
        images.entry((image.name.clone(), image.platform.clone())).or_default().push(image);
    }
    let one = |mut said: Vec<_>| {
        let last = said.pop()?;
        said.iter().all(|first| *first == last).then_some(last)
    };
    let mut sources = ours.sources;
    sources.extend(theirs.sources);
    sources.sort_by(|left, right| left.name.cmp(&right.name));
    sources.dedup_by(|later, earlier| later.name == earlier.name);
    let mut parents = [ours.parents, theirs.parents].concat();
    parents.dedup_by(|later, earlier| (&later.reference, &later.platform) == (&earlier.reference, &earlier.platform));
    let mut files = [ours.files, theirs.files].concat();
    files.sort();
    files.dedup_by(|later, earlier| later.url == earlier.url);
    let mut lock = Lock { sources, parents, files, images: images.into_values().filter_map(one).collect() };
    lock.sort();
    lock
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

/// The text as one side has it.
fn one_side(text: &str, wanted: Side) -> String {
    // Outside of conflicts, both sides say the same.
    let mut within = None;
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match mark(line) {
            Some("<<<<<<<") => within = Some(Some(Side::Ours)),
            Some("|||||||") => within = Some(None),
            Some("=======") => within = Some(Some(Side::Theirs)),
            Some(_) => within = None,
            None if within.is_none_or(|side| side == Some(wanted)) => kept.push_str(line),
            None => {}
        }
    }
    kept
}
