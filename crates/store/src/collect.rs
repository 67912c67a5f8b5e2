//! Garbage collection of a layout: blobs that nothing names and nobody needs are removed.
//!
//! Names are never removed here, but for those of manifests without a tag, if that is asked for. Most of the work, which
//! is reading all manifests, is done while others go on; only the removal itself keeps them waiting.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use content::Digest;
use oci::{Descriptor, Document, REF_NAME, Reference};

use crate::lease::Sweep;
use crate::scratch::ScratchFile;
use crate::{Layout, StoreError};

/// How garbage is collected.
#[derive(Clone, Copy, Debug)]
pub struct Collect {
    /// The time; uploads and what clients rely on are as old as this says.
    pub now: SystemTime,
    /// Whether nothing is to be removed.
    pub dry_run: bool,
    /// Whether manifests go that no tag and no index names, and that refer to nothing.
    pub untagged: bool,
    /// For how long an upload may rest before it goes.
    pub upload_rest: Duration,
}

/// A blob that was removed, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether the disk has them under another name too, in the cache; then no room was gained.
    pub shared: bool,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Blobs that nothing names.
    pub removed: Vec<RemovedBlob>,
    /// Names of manifests without a tag.
    pub untagged: Vec<String>,
    /// Blobs that nothing names and a build or a push in progress needs: how many.
    pub leased: usize,
    /// Blobs that nothing names and that came over HTTP a short while ago: how many.
    pub pending: usize,
    /// Uploads that rested too long, and their bytes.
    pub uploads: (usize, u64),
    /// Blobs that stay.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Layout {
    /// Removes what nothing names and nobody needs.
    pub fn collect(&self, how: Collect) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        if how.untagged {
            collected.untagged = self.remove_untagged(how.dry_run)?;
        }
        let gone: BTreeSet<&String> = collected.untagged.iter().collect();
        let is_named = |entry: &Descriptor| entry.annotations.get(REF_NAME).is_none_or(|name| !gone.contains(name));
        let before = self.read_index()?.0.manifests;
        let named: Vec<Descriptor> = before.iter().filter(|entry| is_named(entry)).cloned().collect();
        let mut needed = self.needed_by(&named)?;

        let trash = if how.dry_run { None } else { Some(self.scratch()?) };
        let mut removed_files: Vec<ScratchFile> = Vec::new();
        {
            let company = if how.dry_run { Sweep::Together } else { Sweep::Alone };
            let _sweep = match self.sweep_lock(company) {
                // To say what would be removed one need not be able to write here.
                Err(_) if how.dry_run => None,
                other => Some(other?),
            };
            // In this order: who has named what they needed ends their lease afterwards, so that it is seen in one of the
            // two places at least.
            let kept = self.kept(how.now, company)?;
            let new: Vec<Descriptor> =
                self.read_index()?.0.manifests.into_iter().filter(|entry| !before.contains(entry)).collect();
            needed.extend(self.needed_by(&new)?);
            for (digest, size) in self.stored_blobs()? {
                let is_needed = needed.contains(&digest);
                let (leased, pending) = (kept.leased.contains(&digest), kept.pending.contains(&digest));
                if is_needed || leased || pending {
                    collected.blobs += 1;
                    collected.bytes += size;
                    collected.leased += usize::from(leased && !is_needed);
                    collected.pending += usize::from(pending && !leased && !is_needed);
                    continue;
                }
                let path = self.blob_path(digest);
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if let Some(trash) = &trash {
                    // Moving is quick; the disk gets its room back when the lock has ended.
                    removed_files.push(ScratchFile::take(trash, &path).map_err(StoreError::io("remove", &path))?);
                }
                collected.removed.push(RemovedBlob { digest, size, shared: metadata.nlink() > 1 });
            }
        }
        drop(removed_files);
        if !how.dry_run {
            collected.uploads = self.remove_resting_uploads(how.now, how.upload_rest)?;
        }
        Ok(collected)
    }

    /// Removes one blob if nothing names it and nobody needs it.
    pub fn remove_blob(&self, digest: Digest, now: SystemTime) -> Result<Removal, StoreError> {
        if self.blob_size(digest).is_none() {
            return Ok(Removal::Absent);
        }
        let before = self.read_index()?.0.manifests;
        if let Some(name) = self.who_names(&before, digest)? {
            return Ok(Removal::Named(name));
        }
        let _sweep = self.sweep_lock(Sweep::Alone)?;
        // A client that deletes a blob does not need it for a manifest of its own; builds may. Leases are read before
        // names, as in `collect`.
        let is_leased = self.kept(now, Sweep::Alone)?.leased.contains(&digest);
        let new: Vec<Descriptor> =
            self.read_index()?.0.manifests.into_iter().filter(|entry| !before.contains(entry)).collect();
        if let Some(name) = self.who_names(&new, digest)? {
            return Ok(Removal::Named(name));
        }
        if is_leased {
            return Ok(Removal::Leased);
        }
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Removal::Absent),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
            Ok(()) => {
                self.named(&[digest]);
                Ok(Removal::Done)
            }
        }
    }

    fn who_names(&self, entries: &[Descriptor], digest: Digest) -> Result<Option<String>, StoreError> {
        for entry in entries {
            if self.needed_by(std::slice::from_ref(entry))?.contains(&digest) {
                return Ok(Some(crate::walk::name_of(entry)));
            }
        }
        Ok(None)
    }

    /// Takes away the names of manifests that are stored by digest alone, are in no index, and refer to nothing.
    fn remove_untagged(&self, dry_run: bool) -> Result<Vec<String>, StoreError> {
        let references = self.references()?;
        let by_digest = |reference: &Reference| reference.tag().is_none();
        let mut listed = BTreeSet::new();
        for (reference, descriptor) in &references {
            match self.read_document(descriptor) {
                Ok(Document::Index(index)) if !by_digest(reference) => {
                    listed.extend(self.needed_by(&index.manifests)?);
                }
                _ => {}
            }
        }
        let untagged: BTreeSet<Reference> = references
            .into_iter()
            .filter(|(reference, descriptor)| {
                let refers = self.read_document(descriptor).is_ok_and(|document| document.subject().is_some());
                by_digest(reference) && !listed.contains(&descriptor.digest) && !refers
            })
            .map(|(reference, _)| reference)
            .collect();
        if !dry_run {
            self.remove_references(|reference, _| untagged.contains(reference))?;
        }
        Ok(untagged.iter().map(ToString::to_string).collect())
    }

    /// The bytes of everything in the layout: blobs, and what is on its way.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let mut total = self.stored_blobs()?.values().sum();
        let mut directories: Vec<PathBuf> = ["uploads", "partial", "incoming"].map(|name| self.own(name)).into();
        while let Some(directory) = directories.pop() {
            for path in crate::tree::entries(&directory)? {
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if metadata.is_dir() {
                    directories.push(path);
                } else {
                    total += metadata.len();
                }
            }
        }
        Ok(total)
    }
}

/// What became of a wish to remove one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// It was not there.
    Absent,
    /// This image needs it.
    Named(String),
    /// A build or a push in progress needs it.
    Leased,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use oci::{Index, Manifest, MediaType};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn bench() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path().join("oci")).unwrap();
        (directory, layout)
    }

    #[expect(clippy::disallowed_methods, reason = "a test may read the clock")]
    fn collect(layout: &Layout) -> Collected {
        let now = SystemTime::now();
        layout.collect(Collect { now, dry_run: false, untagged: false, upload_rest: DAY }).unwrap()
    }

    fn put_image(layout: &Layout, layer: &[u8]) -> Descriptor {
        layout.put_bytes(b"{}").unwrap();
        layout.put_bytes(layer).unwrap();
        let layers = vec![Descriptor::of(MediaType::ImageLayer, layer)];
        let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, b"{}"), layers).to_bytes();
        layout.put_bytes(&manifest).unwrap();
        Descriptor::of(MediaType::ImageManifest, &manifest)
    }

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn what_an_image_or_an_index_names_stays_and_the_rest_goes() {
        let (_directory, layout) = bench();
        let (one, two) = (put_image(&layout, b"one"), put_image(&layout, b"two"));
        let index = Index::new(vec![two]).to_bytes();
        layout.put_bytes(&index).unwrap();
        let names = [
            (name("registry.example/a:1"), one),
            (name("registry.example/a:i"), Descriptor::of(MediaType::ImageIndex, &index)),
        ];
        layout.set_references(&names).unwrap();
        layout.put_bytes(b"nobody's").unwrap();
        let collected = collect(&layout);
        assert_eq!(collected.removed.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [Digest::of(b"nobody's")]);
        assert_eq!(collected.blobs, 6);
        layout.remove_reference(&name("registry.example/a:i")).unwrap();
        assert_eq!(collect(&layout).removed.len(), 3, "the index, its image and that image's layer; not the config");
        assert!(layout.has_blob(Digest::of(b"one"), 3));
        assert!(!layout.has_blob(Digest::of(b"two"), 3));
        assert!(collect(&layout).removed.is_empty());
    }

    #[test]
    fn a_dry_run_says_the_same_and_does_nothing() {
        let (_directory, layout) = bench();
        let (digest, size) = layout.put_bytes(b"nobody's").unwrap();
        let how = Collect { now: SystemTime::UNIX_EPOCH, dry_run: true, untagged: true, upload_rest: DAY };
        let removed = layout.collect(how).unwrap().removed;
        assert_eq!(removed, [RemovedBlob { digest, size, shared: false }]);
        assert!(layout.has_blob(digest, size));
    }

    #[test]
    fn what_a_living_process_relies_on_stays_until_it_ends() {
        let (_directory, layout) = bench();
        let other = Layout::open(layout.root()).unwrap();
        let (found, size) = other.put_bytes(b"found").unwrap();
        let lease = layout.lease();
        assert!(layout.has_blob(found, size));
        let (made, _) = layout.put_bytes(b"made").unwrap();
        let mut writer = layout.blob_writer().unwrap();
        std::io::Write::write_all(&mut writer, b"written").unwrap();
        let (written, _) = writer.commit().unwrap();
        assert_eq!((collect(&other).removed.len(), collect(&other).leased), (0, 3));
        drop(lease);
        let removed: BTreeSet<Digest> = collect(&other).removed.iter().map(|blob| blob.digest).collect();
        assert_eq!(removed, [found, made, written].into());
    }

    #[test]
    fn what_a_dead_process_relied_on_goes() {
        let (_directory, layout) = bench();
        let (digest, _) = layout.put_bytes(b"blob").unwrap();
        fs::create_dir_all(layout.own("leases")).unwrap();
        fs::write(layout.own("leases/dead"), format!("{digest}\n")).unwrap();
        assert_eq!(collect(&layout).removed.len(), 1);
        assert_eq!(fs::read_dir(layout.own("leases")).unwrap().count(), 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test may read the clock")]
    fn what_came_over_http_waits_an_hour_for_its_manifest() {
        let (_directory, layout) = bench();
        let (digest, _) = layout.put_bytes(b"pushed").unwrap();
        layout.expect_name(&[digest]).unwrap();
        assert_eq!((collect(&layout).removed.len(), collect(&layout).pending), (0, 1));
        let now = SystemTime::now() + crate::PENDING + Duration::from_secs(60);
        let how = Collect { now, dry_run: false, untagged: false, upload_rest: DAY };
        assert_eq!(layout.collect(how).unwrap().removed.len(), 1);
        layout.put_bytes(b"pushed").unwrap();
        layout.expect_name(&[digest]).unwrap();
        layout.named(&[digest]);
        assert_eq!(collect(&layout).removed.len(), 1);
    }

    #[test]
    fn a_damaged_manifest_stops_the_collection_since_nobody_knows_what_it_needs() {
        let (_directory, layout) = bench();
        let image = put_image(&layout, b"layer");
        layout.set_references(&[(name("registry.example/a:1"), image.clone())]).unwrap();
        fs::remove_file(layout.blob_path(image.digest)).unwrap();
        fs::write(layout.blob_path(image.digest), "{").unwrap();
        let how = Collect { now: SystemTime::UNIX_EPOCH, dry_run: false, untagged: false, upload_rest: DAY };
        let error = layout.collect(how).unwrap_err().to_string();
        assert!(error.contains("registry.example/a:1"), "{error}");
        assert!(layout.has_blob(Digest::of(b"layer"), 5));
    }

    #[test]
    fn manifests_without_a_tag_go_when_that_is_asked_for_and_those_of_an_index_or_a_signature_do_not() {
        let (_directory, layout) = bench();
        let (old, listed) = (put_image(&layout, b"old"), put_image(&layout, b"listed"));
        let index = Index::new(vec![listed.clone()]).to_bytes();
        layout.put_bytes(&index).unwrap();
        let mut signature = Manifest::new(Descriptor::of(MediaType::ImageConfig, b"{}"), Vec::new());
        signature.subject = Some(listed.clone());
        let signature = signature.to_bytes();
        layout.put_bytes(&signature).unwrap();
        let by_digest = |descriptor: &Descriptor| name(&format!("registry.example/a@{}", descriptor.digest));
        let signature = Descriptor::of(MediaType::ImageManifest, &signature);
        let names = [
            (by_digest(&old), old.clone()),
            (by_digest(&listed), listed),
            (by_digest(&signature), signature),
            (name("registry.example/a:i"), Descriptor::of(MediaType::ImageIndex, &index)),
        ];
        layout.set_references(&names).unwrap();
        let how = Collect { now: SystemTime::UNIX_EPOCH, dry_run: false, untagged: true, upload_rest: DAY };
        let collected = layout.collect(how).unwrap();
        assert_eq!(collected.untagged, [by_digest(&old).to_string()]);
        assert_eq!(collected.removed.len(), 2, "the manifest and its layer");
    }

    #[test]
    fn one_blob_is_removed_only_if_nothing_needs_it() {
        let (_directory, layout) = bench();
        let now = SystemTime::UNIX_EPOCH;
        let image = put_image(&layout, b"layer");
        layout.set_references(&[(name("registry.example/a:1"), image)]).unwrap();
        let (loose, _) = layout.put_bytes(b"loose").unwrap();
        let layer = Digest::of(b"layer");
        assert_eq!(layout.remove_blob(layer, now).unwrap(), Removal::Named("registry.example/a:1".to_owned()));
        let other = Layout::open(layout.root()).unwrap();
        let lease = other.lease();
        other.blob_size(loose);
        assert_eq!(layout.remove_blob(loose, now).unwrap(), Removal::Leased);
        drop(lease);
        assert_eq!(layout.remove_blob(loose, now).unwrap(), Removal::Done);
        assert_eq!(layout.remove_blob(loose, now).unwrap(), Removal::Absent);
    }

    /// A build stores blobs, looks for others that it takes to be there, and names all at the end; meanwhile garbage is
    /// collected without a pause.
    #[test]
    fn collecting_without_a_pause_takes_nothing_from_builds() {
        let (_directory, layout) = bench();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let builders: Vec<_> = (0..3)
                .map(|builder| {
                    let other = Layout::open(layout.root()).unwrap();
                    scope.spawn(move || {
                        for round in 0..20 {
                            let _lease = other.lease();
                            let image = put_image(&other, format!("{builder} {}", round / 2).as_bytes());
                            std::thread::sleep(Duration::from_millis(2));
                            other
                                .set_references(&[(name(&format!("registry.example/a{builder}:t")), image.clone())])
                                .unwrap();
                            let all = other.needed_by(&[image]).unwrap();
                            assert!(all.iter().all(|digest| other.blob_size(*digest).is_some()));
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    collect(&layout);
                }
            });
            let ended: Vec<_> = builders.into_iter().map(|builder| builder.join()).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(ended.into_iter().all(|builder| builder.is_ok()));
        });
        assert_eq!(collect(&layout).blobs, 3 + 3 + 1, "manifests, layers, and one configuration");
    }
}
