//! What differs between two locks, as people read it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spec::lock::{Lock, LockedDeb};

/// What another lock has that this one has not, and the reverse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Packages that were not there, as `name=version`.
    pub added: Vec<String>,
    /// Packages that are no longer there, as `name=version`.
    pub removed: Vec<String>,
    /// Packages that have another version.
    pub changed: Vec<Changed>,
    /// Images, files, indexes and layers that are not as they were, a line each.
    pub other: Vec<String>,
}

/// A package that has another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// The versions it had.
    pub from: String,
    /// The versions it has.
    pub to: String,
}

impl Changes {
    /// Compares two locks.
    pub fn between(old: &Lock, new: &Lock) -> Self {
        let mut changes = Self::default();
        let (before, after) = (versions(old), versions(new));
        for (name, versions) in &after {
            match before.get(name) {
                None => changes.added.extend(versions.iter().map(|version| format!("{name}={version}"))),
                Some(known) if known != versions => changes.changed.push(Changed {
                    name: (*name).to_owned(),
                    from: joined(known),
                    to: joined(versions),
                }),
                Some(_) => {}
            }
        }
        let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
        changes.removed =
            gone.flat_map(|(name, versions)| versions.iter().map(move |version| format!("{name}={version}"))).collect();
        changes.other = other(old, new);
        changes
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One line for each.
    pub fn lines(&self) -> Vec<String> {
        let changed = self.changed.iter().map(|Changed { name, from, to }| format!("changed {name} {from} -> {to}"));
        let added = self.added.iter().map(|label| format!("added {label}"));
        let removed = self.removed.iter().map(|label| format!("removed {label}"));
        changed.chain(added).chain(removed).chain(self.other.iter().cloned()).collect()
    }
}

fn joined(versions: &BTreeSet<&str>) -> String {
    versions.iter().copied().collect::<Vec<_>>().join(", ")
}

fn versions(lock: &Lock) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for LockedDeb { name, version, .. } in lock.packages() {
        versions.entry(name).or_default().insert(version);
    }
    versions
}

/// What a kind of thing is called, and what each of them is in a lock.
type Kind<'a> = (&'static str, BTreeMap<String, String>, BTreeMap<String, String>);

fn other(old: &Lock, new: &Lock) -> Vec<String> {
    let images = |lock: &Lock| lock.images.iter().map(|image| (image.name.clone(), outline(image))).collect();
    let layers = |lock: &Lock| lock.images.iter().map(|image| (image.name.clone(), layers(image))).collect();
    let files = |lock: &Lock| lock.files.iter().map(|file| (file.url.clone(), file.sha256.to_string())).collect();
    let parents = |lock: &Lock| {
        let parents = lock.parents.iter();
        parents.map(|parent| (format!("{} {}", parent.reference, parent.platform), parent.digest.clone())).collect()
    };
    let sources =
        |lock: &Lock| lock.sources.iter().map(|source| (source.name.clone(), format!("{source:?}"))).collect();
    let debs = |lock: &Lock| {
        let packages = lock.packages().into_iter();
        packages.map(|deb| (format!("{}={}", deb.name, deb.version), format!("{deb:?}"))).collect()
    };
    let kinds: [Kind<'_>; 6] = [
        ("image", images(old), images(new)),
        ("layers of", layers(old), layers(new)),
        ("file", files(old), files(new)),
        ("parent", parents(old), parents(new)),
        ("source", sources(old), sources(new)),
        ("package", debs(old), debs(new)),
    ];
    let mut lines = Vec::new();
    for (kind, before, after) in &kinds {
        // What comes or goes with its image or under its version needs no line of its own.
        let alone = !matches!(*kind, "layers of" | "package");
        for (name, what) in after {
            match before.get(name) {
                None if alone => lines.push(format!("added {kind} {name}")),
                Some(known) if known != what => lines.push(format!("changed {kind} {name}")),
                _ => {}
            }
        }
        let gone = before.keys().filter(|name| alone && !after.contains_key(*name));
        lines.extend(gone.map(|name| format!("removed {kind} {name}")));
    }
    lines
}

/// An image but for the versions of its packages and its layers.
fn outline(image: &spec::lock::LockedImage) -> String {
    let steps = image.steps.iter().map(|step| {
        let names: Vec<&str> = step.packages.iter().map(|package| package.name.as_str()).collect();
        format!("{:?} {:?} {names:?}", step.asks, step.python)
    });
    let steps: Vec<String> = steps.collect();
    format!("{} {} {:?} {} {steps:?}", image.from, image.budget, image.sources, image.recommends)
}

fn layers(image: &spec::lock::LockedImage) -> String {
    let names = |step: &spec::lock::LockedStep| {
        let name = |place: &usize| step.packages[*place].name.clone();
        step.layers.iter().map(|layer| layer.iter().map(name).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    format!("{} {:?}", image.squashed, image.steps.iter().map(names).collect::<Vec<_>>())
}
