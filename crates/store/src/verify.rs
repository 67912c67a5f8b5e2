//! Whether a layout and a cache hold what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use content::Digest;

use crate::blob_writer::hash_file;
use crate::tree::entries;
use crate::walk::{Part, name_of};
use crate::{Area, Cache, Layout, StoreError};

/// What is wrong with one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Its bytes are not those that its name says.
    Damaged {
        /// The digest of the bytes.
        found: Digest,
    },
    /// Something names it, and it is not there.
    Missing,
    /// It has another size than what names it says.
    WrongSize {
        /// The size that was announced.
        expected: u64,
        /// The size that it has.
        found: u64,
    },
    /// It is no document of the kind that its name announces, or cannot be read at all.
    Unreadable(String),
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The blob, if it is one of the layout.
    pub digest: Option<Digest>,
    /// What is wrong.
    pub problem: Problem,
    /// The names of the images that need it.
    pub images: Vec<String>,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many names.
    pub names: usize,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
}

impl Layout {
    /// Reads every blob, and follows every name. `progress` is called with the bytes of each file that was read, from
    /// several threads.
    pub fn verify(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Checked, StoreError> {
        let blobs: Vec<(Digest, u64)> = self.stored_blobs()?.into_iter().collect();
        let work = |&(digest, size): &(Digest, u64)| {
            let problem = self.check_blob(digest);
            progress(size);
            problem.map(|problem| (digest, problem))
        };
        let mut problems: BTreeMap<Digest, Problem> = in_threads(threads, &blobs, work).into_iter().collect();
        let entries = self.read_index()?.0.manifests;
        let mut needed_by: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for entry in &entries {
            self.check_entry(entry, &mut problems, &mut needed_by);
        }
        let damage = problems.into_iter().map(|(digest, problem)| Damage {
            path: self.blob_path(digest),
            digest: Some(digest),
            problem,
            images: needed_by.get(&digest).into_iter().flatten().cloned().collect(),
        });
        let bytes = blobs.iter().map(|(_, size)| size).sum();
        Ok(Checked { files: blobs.len(), bytes, names: entries.len(), damage: damage.collect() })
    }

    fn check_blob(&self, digest: Digest) -> Option<Problem> {
        let hashed = match self.open_blob_file(digest) {
            Ok((file, _)) => hash_file(&file, digest.algorithm()),
            // Removed since it was listed; if something names it, that is said there.
            Err(error) if error.is_missing() => return None,
            Err(error) => return Some(Problem::Unreadable(error.to_string())),
        };
        match hashed {
            Ok((found, _)) if found == digest => None,
            Ok((found, _)) => Some(Problem::Damaged { found }),
            Err(error) => Some(Problem::Unreadable(error.to_string())),
        }
    }

    fn check_entry(
        &self,
        entry: &oci::Descriptor,
        problems: &mut BTreeMap<Digest, Problem>,
        needed_by: &mut BTreeMap<Digest, BTreeSet<String>>,
    ) {
        let (name, mut found, mut broken) = (name_of(entry), Vec::new(), Vec::new());
        let mut visited = BTreeSet::new();
        let mut seen = |part: &Part<'_>| {
            let (digest, expected) = (part.descriptor.digest, part.descriptor.size);
            needed_by.entry(digest).or_default().insert(name.clone());
            match self.blob_size(digest) {
                None if part.optional => {}
                None => found.push((digest, Problem::Missing)),
                Some(size) if size != expected => {
                    found.push((digest, Problem::WrongSize { expected, found: size }));
                }
                Some(_) => {}
            }
            visited.insert(digest)
        };
        self.walk(entry, &mut seen, &mut |digest, error| broken.push((digest, describe(&error))));
        for (digest, problem) in found.into_iter().chain(broken) {
            // That the bytes are wrong says more than that the size is.
            problems.entry(digest).or_insert(problem);
        }
    }
}

fn describe(error: &StoreError) -> Problem {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Problem::Unreadable(format!("{error}{source}"))
}

impl Cache {
    /// Reads every entry that is named by its own digest, and every record. What steps made can only be checked by who
    /// knows their records.
    pub fn verify(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Checked, StoreError> {
        let mut files: Vec<(Area, PathBuf)> = Vec::new();
        for area in [Area::Debs, Area::Indexes, Area::Steps] {
            for prefix in entries(&self.root().join(area.directory()))? {
                files.extend(entries(&prefix)?.into_iter().map(|path| (area, path)));
            }
        }
        let bytes = Mutex::new(0);
        let work = |(area, path): &(Area, PathBuf)| {
            let checked = check_cache_file(*area, path);
            let size = fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
            *bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += size;
            progress(size);
            let problem = checked.unwrap_or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => None,
                _ => Some(Problem::Unreadable(error.to_string())),
            })?;
            Some(Damage { path: path.clone(), digest: None, problem, images: Vec::new() })
        };
        let damage = in_threads(threads, &files, work);
        let bytes = bytes.into_inner().unwrap_or_default();
        Ok(Checked { files: files.len(), bytes, names: 0, damage })
    }
}

fn check_cache_file(area: Area, path: &std::path::Path) -> io::Result<Option<Problem>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(expected) = Digest::from_hex(name) else { return Ok(None) };
    let mut first = [0];
    let is_record = area != Area::Debs && File::open(path)?.read(&mut first)? == 1 && first == *b"{";
    if is_record || area == Area::Steps {
        let read = serde_json::from_slice::<serde::de::IgnoredAny>(&fs::read(path)?);
        return Ok(read.err().map(|error| Problem::Unreadable(error.to_string())));
    }
    let (found, _) = hash_file(&File::open(path)?, expected.algorithm())?;
    Ok((found != expected).then_some(Problem::Damaged { found }))
}

/// Does `work` for each item on some threads; what it gives, in the order of the items.
fn in_threads<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> Option<R> + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    if let Some(result) = work(item) {
                        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(index, result);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default().into_values().collect()
}

#[cfg(test)]
mod tests {
    use oci::{Descriptor, Manifest, MediaType, Reference};

    use super::*;

    fn bench() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path().join("oci")).unwrap();
        layout.put_bytes(b"{}").unwrap();
        layout.put_bytes(b"layer").unwrap();
        let layers = vec![Descriptor::of(MediaType::ImageLayer, b"layer")];
        let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, b"{}"), layers).to_bytes();
        layout.put_bytes(&manifest).unwrap();
        let name: Reference = "registry.example/a:1".parse().unwrap();
        layout.set_references(&[(name, Descriptor::of(MediaType::ImageManifest, &manifest))]).unwrap();
        (directory, layout)
    }

    fn replace(layout: &Layout, digest: Digest, bytes: &[u8]) {
        fs::remove_file(layout.blob_path(digest)).unwrap();
        fs::write(layout.blob_path(digest), bytes).unwrap();
    }

    #[test]
    fn a_layout_that_is_whole_has_no_damage() {
        let (_directory, layout) = bench();
        let checked = layout.verify(2, &|_| {}).unwrap();
        assert_eq!((checked.files, checked.names, checked.damage), (3, 1, vec![]));
    }

    #[test]
    fn what_is_damaged_missing_or_cut_is_found_with_the_images_that_need_it() {
        let (_directory, layout) = bench();
        let (layer, config) = (Digest::of(b"layer"), Digest::of(b"{}"));
        replace(&layout, layer, b"lay3r");
        fs::remove_file(layout.blob_path(config)).unwrap();
        let (loose, _) = layout.put_bytes(b"loose").unwrap();
        replace(&layout, loose, b"l");
        let damage = layout.verify(2, &|_| {}).unwrap().damage;
        let found = |digest| damage.iter().find(|damage| damage.digest == Some(digest)).unwrap();
        assert_eq!(found(layer).problem, Problem::Damaged { found: Digest::of(b"lay3r") });
        assert_eq!(found(config).problem, Problem::Missing);
        assert_eq!((&found(layer).images, &found(loose).images), (&vec!["registry.example/a:1".to_owned()], &vec![]));
        assert_eq!(damage.len(), 3);
    }

    #[test]
    fn damaged_packages_and_records_of_a_cache_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let key = |bytes: &[u8]| Digest::of(bytes);
        cache.put_bytes(Area::Debs, key(b"deb"), b"deb").unwrap();
        cache.put_bytes(Area::Debs, key(b"other"), b"changed").unwrap();
        cache.put_bytes(Area::Indexes, key(b"by its address"), b"{}").unwrap();
        cache.put_bytes(Area::Steps, key(b"step"), b"{\"cut").unwrap();
        let checked = cache.verify(2, &|_| {}).unwrap();
        let paths: Vec<&PathBuf> = checked.damage.iter().map(|damage| &damage.path).collect();
        assert_eq!(checked.files, 4);
        assert_eq!(paths, [&cache.path(Area::Debs, key(b"other")), &cache.path(Area::Steps, key(b"step"))]);
    }
}
