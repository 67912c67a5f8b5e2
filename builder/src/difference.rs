//! What differs between two images: packages, files, configuration, layers.
//!
//! Files are compared by type, mode, owner, link, content and extended attributes, not by time: a time alone is no
//! difference that a program in a container is likely to see.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use layer::entry::{ImagePath, Kind};
use layer::files::{Files, Found};
use serde::Serialize;
use serde_json::Value;
use store::StoredImage;

use crate::inventory::{InstalledPackage, Inventory};

/// What differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Packages, by name.
    pub packages: Vec<PackageChange>,
    /// Files, by path.
    pub files: Vec<FileChange>,
    /// Values of the configuration, by key.
    pub config: Vec<ConfigChange>,
    /// Layers.
    pub layers: LayerChanges,
}

impl Difference {
    /// Whether a container of one is as one of the other: layers may be cut in other ways.
    pub fn is_none(&self) -> bool {
        self.packages.is_empty() && self.files.is_empty() && self.config.is_empty()
    }
}

/// A package that one image has and the other has not, or has in another version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// The version in the first image.
    pub before: Option<String>,
    /// The version in the second image.
    pub after: Option<String>,
}

/// A path that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileChange {
    /// The path, from the root.
    pub path: String,
    /// In what it differs, if both have it.
    pub differs: Vec<&'static str>,
    /// What is there in the first image.
    pub before: Option<FileFacts>,
    /// What is there in the second image.
    pub after: Option<FileFacts>,
}

/// What is compared of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileFacts {
    /// `file`, `directory`, `symlink`, `character device`, `block device` or `fifo`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Permissions in octal digits.
    pub mode: String,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The digest of a file's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What a link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Numbers of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Extended attributes, their values in hexadecimal digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

/// A value of the configuration that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfigChange {
    /// Where it is, such as `config.Env`.
    pub key: String,
    /// The value in the first image.
    pub before: Option<Value>,
    /// The value in the second image.
    pub after: Option<Value>,
}

/// Which layers the images have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerChanges {
    /// In both.
    pub shared: Vec<Digest>,
    /// In the first image only.
    pub before: Vec<Digest>,
    /// In the second image only.
    pub after: Vec<Digest>,
}

/// Compares two images.
pub fn difference(before: (&StoredImage, &Inventory), after: (&StoredImage, &Inventory)) -> Difference {
    Difference {
        packages: packages(&before.1.packages, &after.1.packages),
        files: files(&before.1.files, &after.1.files),
        config: configurations(before.0, after.0),
        layers: layers(before.0, after.0),
    }
}

fn packages(before: &[InstalledPackage], after: &[InstalledPackage]) -> Vec<PackageChange> {
    let versions = |packages: &[InstalledPackage]| -> BTreeMap<(String, String), String> {
        let there = packages.iter().filter(|package| package.is_there());
        there.map(|package| ((package.name.clone(), package.architecture.clone()), package.version.clone())).collect()
    };
    let (before, after) = (versions(before), versions(after));
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changed = all.into_iter().filter(|key| before.get(key) != after.get(key));
    let change = |key: &(String, String)| PackageChange {
        name: key.0.clone(),
        architecture: key.1.clone(),
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
    };
    changed.map(change).collect()
}

/// Both are sorted by path, so that they can be read side by side.
fn files(before: &Files, after: &Files) -> Vec<FileChange> {
    let mut changes = Vec::new();
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return changes,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.as_bytes().cmp(right.as_bytes()),
        };
        let left = order.is_le().then(|| before.next()).flatten();
        let right = order.is_ge().then(|| after.next()).flatten();
        changes.extend(file(left, right));
    }
}

fn file(before: Option<(ImagePath, &Found)>, after: Option<(ImagePath, &Found)>) -> Option<FileChange> {
    let path = before.as_ref().or(after.as_ref())?.0.to_string();
    let (before, after) = (before.map(|(_, found)| facts(found)), after.map(|(_, found)| facts(found)));
    let differs = match (&before, &after) {
        (Some(before), Some(after)) if before == after => return None,
        (Some(before), Some(after)) => differing(before, after),
        _ => Vec::new(),
    };
    Some(FileChange { path, differs, before, after })
}

fn differing(before: &FileFacts, after: &FileFacts) -> Vec<&'static str> {
    let checks = [
        ("type", before.kind != after.kind),
        ("mode", before.mode != after.mode),
        ("owner", (before.uid, before.gid) != (after.uid, after.gid)),
        ("link", before.target != after.target),
        ("device", before.device != after.device),
        ("content", (before.size, before.digest) != (after.size, after.digest)),
        ("attributes", before.xattrs != after.xattrs),
    ];
    checks.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

fn facts(found: &Found) -> FileFacts {
    let (mut size, mut target, mut device) = (None, None, None);
    let kind = match &found.kind {
        Kind::Directory => "directory",
        Kind::File { size: bytes } => {
            size = Some(*bytes);
            "file"
        }
        Kind::Symlink { target: text } => {
            target = Some(String::from_utf8_lossy(text).into_owned());
            "symlink"
        }
        Kind::CharDevice { major, minor } => {
            device = Some(format!("{major}:{minor}"));
            "character device"
        }
        Kind::BlockDevice { major, minor } => {
            device = Some(format!("{major}:{minor}"));
            "block device"
        }
        Kind::Fifo => "fifo",
        Kind::HardLink { .. } => unreachable!("hard links are the files that they lead to"),
    };
    // The permissions of a link mean nothing, and tools write different ones.
    let mode = if kind == "symlink" { 0o777 } else { found.metadata.mode };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let xattrs = found.metadata.xattrs.iter();
    FileFacts {
        kind,
        mode: format!("{mode:04o}"),
        uid: found.metadata.uid,
        gid: found.metadata.gid,
        size,
        digest: found.digest,
        target,
        device,
        xattrs: xattrs.map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), hex(value))).collect(),
    }
}

fn configurations(before: &StoredImage, after: &StoredImage) -> Vec<ConfigChange> {
    let flat = |image: &StoredImage| {
        let mut values = BTreeMap::new();
        let mut whole = serde_json::from_slice(&image.config.to_bytes()).unwrap_or(Value::Null);
        if let Value::Object(object) = &mut whole {
            // Layers are compared themselves, and the history tells of them.
            object.remove("history");
            object.remove("rootfs");
        }
        flatten("", &whole, &mut values);
        values
    };
    let (before, after) = (flat(before), flat(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let change = |key: &String| ConfigChange {
        key: key.clone(),
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
    };
    changed.map(change).collect()
}

fn flatten(key: &str, value: &Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, values);
            }
        }
        other => {
            values.insert(key.to_owned(), other.clone());
        }
    }
}

fn layers(before: &StoredImage, after: &StoredImage) -> LayerChanges {
    let digests = |image: &StoredImage| -> Vec<Digest> { image.manifest.layers.iter().map(|l| l.digest).collect() };
    let (left, right) = (digests(before), digests(after));
    let (shared, only_left) = left.into_iter().partition(|digest| right.contains(digest));
    let shared: Vec<Digest> = shared;
    let only_right = right.into_iter().filter(|digest| !shared.contains(digest)).collect();
    LayerChanges { shared, before: only_left, after: only_right }
}
