//! Results of steps in a registry, so that a machine that has built nothing yet need not do what another has done.
//!
//! ```text
//! REF                 a manifest, its type `application/vnd.drystone.cache.v1`
//!   config            empty
//!   layers[0]         the records: JSON, compressed with gzip
//!   layers[1..]       layers of images, as the images themselves have them
//! ```
//!
//! The records are those of the cache on disk, by area and key. Segments are not stored again: they lie, as they are, in
//! the layers of the groups that they were laid in, and a record says where ([`Piece`]).
//!
//! **Trust.** Who may write to a cache decides what those build who read from it, as everywhere: a key names the inputs
//! of a step, and nobody can tell from a layer whether a command made it of these. What is checked: that the manifest and
//! every blob have the bytes that their digests name, that a layer's tar has the digest that its record says, and that
//! pieces are what their records say. What fails is not used, and done here instead.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use content::{Digest, HashingReader};
use layer::compress::{BlockWriter, Compression, decompress};
use oci::{Descriptor, Document, Manifest, MediaType, Reference, Repository};
use registry_client::{BlobSource, BytesSource, Client, FileSource, ManifestName, Remote};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Area, Cache, Layout};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{BuildError, chain};
use crate::events::{Event, Observer};
use crate::image::Layer;

/// What the manifest says it is.
pub const ARTIFACT: &str = "application/vnd.drystone.cache.v1";
/// What its first blob is.
pub const RECORDS: &str = "application/vnd.drystone.cache.records.v1+gzip";
/// A configuration that says nothing, as OCI has it for artifacts.
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

/// The form of the records; others are not read.
const VERSION: u32 = 1;
/// No records are larger than this, as stored and once unpacked.
const LARGEST_RECORDS: u64 = 128 << 20;
/// How many blobs are sent at the same time.
const TRANSFERS: usize = 4;

/// Results of steps that are kept elsewhere than on this machine. Nothing here fails: what cannot be had is not there.
pub trait Elsewhere: Sync {
    /// Whether there is a record.
    fn has(&self, area: Area, key: Digest) -> bool;
    /// Brings a record into the cache. Returns whether it is there.
    fn record(&self, area: Area, key: Digest) -> bool;
    /// Whether there is a layer.
    fn has_layer(&self, digest: Digest) -> bool;
    /// Brings a layer into the layout. Returns whether it is there.
    fn layer(&self, layer: &Layer) -> bool;
    /// Brings a segment into the cache. Returns whether it is there.
    fn piece(&self, key: Digest) -> bool;
}

/// Nothing is kept elsewhere.
impl Elsewhere for () {
    fn has(&self, _: Area, _: Digest) -> bool {
        false
    }

    fn record(&self, _: Area, _: Digest) -> bool {
        false
    }

    fn has_layer(&self, _: Digest) -> bool {
        false
    }

    fn layer(&self, _: &Layer) -> bool {
        false
    }

    fn piece(&self, _: Digest) -> bool {
        false
    }
}

/// A segment as a part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The layer.
    pub layer: Digest,
    /// Where in its stored bytes the segment begins.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Names them.
    pub digest: Digest,
}

/// Records of the cache, by key. They are texts, since few of them are ever looked into.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    version: u32,
    /// Of the area `steps`.
    pub steps: BTreeMap<Digest, String>,
    /// Of the area `segments`.
    pub segments: BTreeMap<Digest, String>,
    /// Where segments are.
    pub pieces: BTreeMap<Digest, Piece>,
}

impl Records {
    fn of(&self, area: Area) -> Option<&BTreeMap<Digest, String>> {
        match area {
            Area::Steps => Some(&self.steps),
            Area::Segments => Some(&self.segments),
            _ => None,
        }
    }

    fn to_blob(&self) -> io::Result<Vec<u8>> {
        let mut writer = BlockWriter::new(Vec::new(), Compression::Gzip);
        let records = Self { version: VERSION, ..self.clone() };
        let bytes = oci::canonical_bytes(&records).map_err(io::Error::other)?;
        io::Write::write_all(&mut writer, &bytes)?;
        Ok(writer.finish()?.0)
    }

    fn from_blob(blob: &[u8]) -> io::Result<Self> {
        let mut bytes = Vec::new();
        decompress(blob)?.take(LARGEST_RECORDS + 1).read_to_end(&mut bytes)?;
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        if bytes.len() as u64 > LARGEST_RECORDS {
            return Err(invalid(format!("its records are larger than {LARGEST_RECORDS} bytes")));
        }
        let records: Self = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        match records.version {
            VERSION => Ok(records),
            other => Err(invalid(format!("its records have version {other}, expected {VERSION}"))),
        }
    }
}

/// Why a cache in a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] registry_client::Error),
    /// There is no such manifest.
    #[error("there is none")]
    Missing,
    /// It is something else.
    #[error("it is no cache of drystone")]
    Foreign,
    /// Its records cannot be read.
    #[error("its records cannot be read")]
    Records(#[from] io::Error),
    /// The layout or the cache failed.
    #[error(transparent)]
    Build(#[from] Box<BuildError>),
}

/// A cache in a registry whose records were read.
pub struct Source {
    remote: Remote,
    records: Records,
    /// Layers, and their sizes.
    layers: HashMap<Digest, u64>,
}

/// Reads the records of a cache.
pub async fn open(client: &Client, reference: &Reference) -> Result<Source, RemoteError> {
    let remote = Remote::from(reference);
    let found = client.get_manifest(&remote, &ManifestName::from(reference)).await?.ok_or(RemoteError::Missing)?;
    let Document::Manifest(manifest) = found.document else { return Err(RemoteError::Foreign) };
    let records = manifest.layers.first().filter(|first| first.media_type.as_ref() == RECORDS);
    let records = records.ok_or(RemoteError::Foreign)?;
    if records.size > LARGEST_RECORDS {
        return Err(RemoteError::Foreign);
    }
    let blob = client.pull_blob(&remote, records, Vec::new()).await?;
    let records = Records::from_blob(&blob)?;
    let layers = manifest.layers[1..].iter().map(|layer| (layer.digest, layer.size)).collect();
    Ok(Source { remote, records, layers })
}

/// Takes what is missing here from caches in registries, the first that has it.
pub struct Borrowing<'a> {
    /// The caches.
    pub sources: Vec<Source>,
    /// How they are reached.
    pub client: Client,
    /// Where requests run.
    pub runtime: Handle,
    /// Where records and segments go.
    pub cache: &'a Cache,
    /// Where layers go.
    pub layout: &'a Layout,
    /// Learns of what did not work.
    pub observer: &'a dyn Observer,
}

impl Borrowing<'_> {
    fn tried(&self, what: &str, done: Result<bool, RemoteError>) -> bool {
        done.unwrap_or_else(|error| {
            let text = format!("{what} of the remote cache cannot be used: {}", chain(&error));
            self.observer.observe(Event::Warning(&text));
            false
        })
    }

    fn take_record(&self, area: Area, key: Digest) -> Result<bool, RemoteError> {
        let records = self.sources.iter().filter_map(|source| source.records.of(area));
        let Some(record) = records.into_iter().find_map(|records| records.get(&key)) else { return Ok(false) };
        let record: Value = serde_json::from_str(record).map_err(io::Error::from)?;
        self.cache.put_json(area, key, &record).map_err(boxed)?;
        Ok(true)
    }

    fn take_layer(&self, digest: Digest, diff: Option<Digest>) -> Result<bool, RemoteError> {
        let Some((source, size)) = self.sources.iter().find_map(|source| Some((source, *source.layers.get(&digest)?)))
        else {
            return Ok(false);
        };
        if self.layout.has_blob(digest, size) {
            return Ok(true);
        }
        let _fetching = self.cache.lock(Area::Layers, digest, &mut || {}).map_err(boxed)?;
        if self.layout.has_blob(digest, size) {
            return Ok(true);
        }
        let scratch = self.cache.scratch_dir().map_err(boxed)?;
        let path = scratch.path().join("layer");
        let descriptor = Descriptor::new(MediaType::ImageLayerGzip, digest, size);
        let pulled = self.client.pull_blob(&source.remote, &descriptor, File::create_new(&path)?);
        drop(self.runtime.block_on(pulled)?);
        if let Some(expected) = diff {
            let mut tar = HashingReader::new(decompress(File::open(&path)?)?);
            io::copy(&mut tar, &mut io::sink())?;
            let found = tar.finish().1;
            if found != expected {
                let text = format!("the tar in {digest} is {found}, and its record says {expected}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
            }
        }
        self.layout.put_file_link(&path, digest, size).map_err(boxed)?;
        Ok(true)
    }

    fn take_piece(&self, key: Digest) -> Result<bool, RemoteError> {
        let Some(piece) = self.sources.iter().find_map(|source| source.records.pieces.get(&key)) else {
            return Ok(false);
        };
        if self.layout.blob_size(piece.layer).is_none() && !self.take_layer(piece.layer, None)? {
            return Ok(false);
        }
        let (mut layer, _) = self.layout.open_blob_file(piece.layer).map_err(boxed)?;
        layer.seek(SeekFrom::Start(piece.offset))?;
        let mut writer = self.cache.writer(Area::Segments, key).map_err(boxed)?;
        let mut part = HashingReader::new(layer.take(piece.size));
        io::copy(&mut part, &mut writer)?;
        let (_, found, _) = part.finish();
        if found != piece.digest {
            let text = format!("a segment in {} is {found}, and its record says {}", piece.layer, piece.digest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
        }
        writer.commit_unsynced().map_err(boxed)?;
        Ok(true)
    }
}

impl Elsewhere for Borrowing<'_> {
    fn has(&self, area: Area, key: Digest) -> bool {
        let records = self.sources.iter().filter_map(|source| source.records.of(area));
        records.into_iter().any(|records| records.contains_key(&key))
    }

    fn record(&self, area: Area, key: Digest) -> bool {
        self.tried("a record", self.take_record(area, key))
    }

    fn has_layer(&self, digest: Digest) -> bool {
        self.sources.iter().any(|source| source.layers.contains_key(&digest))
    }

    fn layer(&self, layer: &Layer) -> bool {
        self.tried("a layer", self.take_layer(layer.digest, Some(layer.diff_id.0)))
    }

    fn piece(&self, key: Digest) -> bool {
        self.tried("a segment", self.take_piece(key))
    }
}

fn boxed(error: store::StoreError) -> RemoteError {
    RemoteError::Build(Box::new(error.into()))
}

/// What a build has to give to others.
#[derive(Debug, Default)]
pub struct Lent {
    /// Its records.
    pub records: Records,
    /// The layers that they name, and a repository of the same registry that may have each.
    pub layers: BTreeMap<Digest, (u64, Option<Repository>)>,
}

/// Stores what a build has to give in a registry. Blobs that are there are not sent, and those that another repository
/// of the registry has are mounted from there.
pub async fn store(client: &Client, reference: &Reference, layout: &Layout, lent: &Lent) -> Result<(), RemoteError> {
    let remote = Remote::from(reference);
    let records = lent.records.to_blob()?;
    let mut layers = vec![Descriptor::of(MediaType::Other(RECORDS.to_owned()), &records)];
    let config = Descriptor::of(MediaType::Other(EMPTY.0.to_owned()), EMPTY.1);
    let mut blobs: Vec<(Descriptor, Arc<dyn BlobSource>, Option<Repository>)> = vec![
        (config.clone(), Arc::new(BytesSource(EMPTY.1.into())), None),
        (layers[0].clone(), Arc::new(BytesSource(records.into())), None),
    ];
    for (digest, (size, from)) in &lent.layers {
        let descriptor = Descriptor::new(MediaType::ImageLayerGzip, *digest, *size);
        layers.push(descriptor.clone());
        blobs.push((descriptor, Arc::new(FileSource(layout.blob_path(*digest))), from.clone()));
    }
    let places = Arc::new(Semaphore::new(TRANSFERS));
    // Dropped on the first error, which ends the other transfers.
    let mut sending = JoinSet::new();
    for (descriptor, source, from) in blobs {
        let (client, remote, places) = (client.clone(), remote.clone(), Arc::clone(&places));
        sending.spawn(async move {
            let _place = places.acquire_owned().await.expect("the semaphore is never closed");
            if client.head_blob(&remote, &descriptor).await? {
                return Ok(());
            }
            client.push_blob(&remote, &descriptor, &source, from.as_ref()).await.map(drop)
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent.expect("a transfer does not panic, and is not cancelled before the set is dropped")?;
    }
    let mut manifest = Manifest::new(config, layers);
    manifest.artifact_type = Some(ARTIFACT.to_owned());
    let name = ManifestName::from(reference);
    client.put_manifest(&remote, &name, &MediaType::ImageManifest, manifest.to_bytes().into()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_others_are_refused() {
        let mut records = Records { version: VERSION, ..Records::default() };
        records.steps.insert(Digest::of(b"step"), r#"{"epoch":1,"layers":[]}"#.to_owned());
        let piece = Piece { layer: Digest::of(b"layer"), offset: 7, size: 9, digest: Digest::of(b"piece") };
        records.pieces.insert(Digest::of(b"segment"), piece);
        let blob = records.to_blob().unwrap();
        assert_eq!(Records::from_blob(&blob).unwrap(), records);
        assert!(Records::from_blob(&blob[..blob.len() / 2]).is_err());
        assert!(Records::from_blob(b"{}").is_err());
        let other = br#"{"version":2,"steps":{},"segments":{},"pieces":{}}"#;
        assert!(Records::from_blob(other).unwrap_err().to_string().contains("version 2, expected 1"));
    }
}
