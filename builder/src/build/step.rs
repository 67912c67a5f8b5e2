//! What all steps have in common: a key that names everything the result depends on, a record in the cache, a layer.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use content::{Digest, FramedHasher};
use layer::compress::Compression;
use layer::record::TreeDir;
use oci::MediaType;
use serde::{Deserialize, Serialize};
use spec::ImageName;
use store::{Area, CacheWriter, StoreError};

use super::inputs::Facts;
use super::{Builder, State, StepReport};
use crate::error::BuildError;
use crate::events::{Event, Observer};
use crate::image::Layer;
use crate::layers::LayerWriter;
use crate::steps::commands::{Leaving, lay_changes};

/// What the cache remembers of a step.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StepRecord {
    /// None if the step changed nothing; one for each group of packages.
    pub(super) layers: Vec<StoredLayer>,
    /// The image's date after the step.
    pub(super) epoch: i64,
}

/// A layer, and where the cache has it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredLayer {
    pub(super) key: Digest,
    pub(super) layer: Layer,
}

/// What a step is, for people and for the cache.
pub(super) struct StepName<'a> {
    pub(super) kind: &'static str,
    pub(super) described: &'a str,
    pub(super) key: Digest,
    /// What the key is made of.
    pub(super) facts: &'a dyn Fn() -> Facts,
}

impl Builder<'_> {
    /// Starts the key of a step: what it is, and all that was done before it.
    pub(super) fn key(&self, kind: &str, state: &State) -> FramedHasher {
        FramedHasher::new(kind)
            .field("below", state.key.as_bytes())
            .field("encoder", self.options.compression.encoder())
            .field("epoch", self.options.epoch.map(|epoch| epoch.to_string()).unwrap_or_default())
    }

    /// Does a step, or takes its result from the cache.
    pub(super) fn step(
        &self,
        image: &ImageName,
        name: &StepName<'_>,
        state: &mut State,
        reports: &mut Vec<StepReport>,
        work: impl FnOnce(&State) -> Result<StepRecord, BuildError>,
    ) -> Result<(), BuildError> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(BuildError::Interrupted);
        }
        let started = Instant::now();
        let mut cached = true;
        let record = match self.remembered(name.key)? {
            Some(record) => record,
            None => {
                let _doing = self.cache.lock(Area::Steps, name.key, &mut || {
                    self.observe(Event::Note("waiting for another build that does the same step"));
                })?;
                match self.remembered(name.key)? {
                    Some(record) => record,
                    None => {
                        cached = false;
                        let _working = self.pause.work();
                        self.observe(Event::StepStarted { image, step: name.described });
                        let record = work(state)?;
                        self.cache.put_json(Area::Steps, name.key, &record)?;
                        record
                    }
                }
            }
        };
        self.note_inputs(name, state.key)?;
        let elapsed = started.elapsed();
        self.report(image, name, cached, elapsed, reports);
        // The layer may have been made for another image that began in the same way.
        let layers = record.layers.into_iter().map(|stored| stored.layer);
        state.layers.extend(layers.map(|layer| Layer { from: image.to_string(), ..layer }));
        state.epoch = record.epoch;
        state.key = name.key;
        Ok(())
    }

    pub(super) fn report(
        &self,
        image: &ImageName,
        name: &StepName<'_>,
        cached: bool,
        elapsed: Duration,
        reports: &mut Vec<StepReport>,
    ) {
        self.observe(Event::StepFinished { image, step: name.described, cached, elapsed });
        let id = name.key.to_string();
        reports.push(StepReport { id, kind: name.kind, cached, seconds: elapsed.as_secs_f64() });
    }

    /// The result of a step, if it is known and its layers are in the layout or can be put there.
    pub(super) fn remembered(&self, key: Digest) -> Result<Option<StepRecord>, BuildError> {
        if self.options.no_cache {
            return Ok(None);
        }
        self.borrow_record(key);
        let Some(record) = self.cache.get_json::<StepRecord>(Area::Steps, key)? else { return Ok(None) };
        for stored in &record.layers {
            if !self.is_stored(stored)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// Whether a layer is in the layout, where it is put if the cache has it.
    pub(super) fn is_stored(&self, StoredLayer { key, layer }: &StoredLayer) -> Result<bool, BuildError> {
        if self.layout.has_blob(layer.digest, layer.size) {
            return Ok(true);
        }
        let Some(path) = self.cache.file(Area::Layers, *key) else { return Ok(self.elsewhere.layer(layer)) };
        match self.layout.put_file_link(&path, layer.digest, layer.size) {
            Ok(()) => Ok(true),
            Err(StoreError::Damaged { .. } | StoreError::WrongSize { .. }) => {
                self.cache.remove(Area::Layers, *key)?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one layer into the cache and the layout; none if `write` says that there is nothing in it.
    pub(super) fn layer(
        &self,
        key: Digest,
        image: &ImageName,
        made_by: &str,
        packages: Vec<String>,
        write: impl FnOnce(&mut LayerWriter<CacheWriter<'_>>) -> Result<bool, BuildError>,
    ) -> Result<Option<StoredLayer>, BuildError> {
        let stored = self.layer_in_cache(key, image, made_by, packages, write)?;
        if let Some(stored) = &stored {
            self.put_in_layout(stored)?;
        }
        Ok(stored)
    }

    /// Puts a layer that was written a moment ago into the layout, which waits for the disk and checks what it takes.
    pub(super) fn put_in_layout(&self, StoredLayer { key, layer }: &StoredLayer) -> Result<(), BuildError> {
        let missing = || StoreError::Missing { digest: layer.digest };
        let path = self.cache.file(Area::Layers, *key).ok_or_else(missing)?;
        Ok(self.layout.put_file_link(&path, layer.digest, layer.size)?)
    }

    /// The same, into the cache alone.
    pub(super) fn layer_in_cache(
        &self,
        key: Digest,
        image: &ImageName,
        made_by: &str,
        packages: Vec<String>,
        write: impl FnOnce(&mut LayerWriter<CacheWriter<'_>>) -> Result<bool, BuildError>,
    ) -> Result<Option<StoredLayer>, BuildError> {
        let mut writer = LayerWriter::new(self.cache.writer(Area::Layers, key)?, self.options.compression);
        if !write(&mut writer)? {
            return Ok(None);
        }
        let (stored, laid) = writer.finish()?;
        let (_, digest, size) = stored.commit_unsynced()?;
        let layer = Layer {
            digest,
            diff_id: laid.diff_id,
            size,
            uncompressed_size: laid.uncompressed_size,
            unpacked_size: laid.unpacked_size,
            media_type: match self.options.compression {
                Compression::Gzip => MediaType::ImageLayerGzip,
                Compression::Zstd => MediaType::ImageLayerZstd,
            },
            from: image.to_string(),
            made_by: made_by.to_owned(),
            packages,
            stands_alone: false,
            foreign: None,
        };
        Ok(Some(StoredLayer { key, layer }))
    }

    /// Writes one layer of the entries that `write` gives; it returns the bytes of content.
    pub(super) fn layer_of_entries(
        &self,
        key: Digest,
        image: &ImageName,
        made_by: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<u64, BuildError>,
    ) -> Result<Option<StoredLayer>, BuildError> {
        self.layer(key, image, made_by, Vec::new(), |layer| {
            let mut failed = None;
            let written = layer.counted_entries(|writer| {
                write(writer).map_err(|error| {
                    failed = Some(error);
                    io::Error::other("see the error kept beside")
                })
            });
            match failed {
                Some(error) => Err(error),
                None => Ok(written.map(|()| true)?),
            }
        })
    }

    /// Runs `change` over an empty upper tree, and makes a layer of what it changed.
    pub(super) fn changed(
        &self,
        image: &ImageName,
        made_by: &str,
        key: Digest,
        (below, epoch): (&[TreeDir], i64),
        leaving: Leaving,
        change: impl FnOnce(&TreeDir) -> Result<(), BuildError>,
    ) -> Result<Option<StoredLayer>, BuildError> {
        let scratch = self.cache.scratch_dir()?;
        let upper = TreeDir::create(scratch.path().join("upper"))?;
        change(&upper)?;
        self.layer(key, image, made_by, Vec::new(), |layer| {
            Ok(lay_changes(&upper, below, self.sandbox.owners(), (epoch, leaving), layer)?)
        })
    }
}
