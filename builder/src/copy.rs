//! Carries images between registries, layouts and archives, byte for byte.
//!
//! From registry to registry blobs flow through without touching a disk, and within one registry they are mounted. An
//! archive is read into a layout for the time of the copy, or written from one.

mod import;
mod place;
mod tar_index;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::{Descriptor, Document, MediaTypeExt as _, Platform, Reference};
use registry_client::{
    BlobSource, Client, FetchedManifest, ImagePush, Options, Platforms, Pushed, Pusher, Remote, RemoteSource, Resolved,
    Sink,
};
use store::{Layout, StoreError};
use tempfile::TempDir;

use crate::archive::{self, ArchiveError, Format};
use crate::events::Observer;
use crate::pull::LayoutSink;
use crate::push::{self, Outgoing, PushError};

pub use self::import::ImportError;
pub use self::place::{Place, PlaceError};

/// What is copied, and with what.
pub struct Copy {
    /// Which images of an index.
    pub platforms: Platforms,
    /// Whether what is said about the images comes along.
    pub referrers: bool,
    /// The image that an archive of Docker's gets, which holds one for each name.
    pub machine: Platform,
    /// Where an archive may be unpacked for a while.
    pub scratch: PathBuf,
}

/// What a copy came to.
#[derive(Clone, Debug)]
pub struct Copied {
    /// What the new name names.
    pub descriptor: Descriptor,
    /// Bytes of blobs that were sent, fetched or written.
    pub copied_bytes: u64,
    /// Bytes of blobs that the registry took from another of its repositories.
    pub mounted_bytes: u64,
    /// How many manifests that say something about the image came along.
    pub referrers: usize,
}

/// Why an image could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A registry, or the way to it.
    #[error("cannot copy {reference}")]
    Registry {
        /// The image.
        reference: Box<Reference>,
        /// Why.
        source: Box<registry_client::Error>,
    },
    /// The client cannot be made.
    #[error(transparent)]
    Client(#[from] registry_client::Error),
    /// A push from a layout.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A layout.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A place does not have what it should, or cannot take it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// An archive cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An archive cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file of this machine.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An image at hand: in a layout, which may be there for the time of the copy only.
struct Staged {
    layout: Arc<Layout>,
    /// What the image is called where it comes from, if it has a whole name there.
    name: Option<Reference>,
    descriptor: Descriptor,
    _directory: Option<TempDir>,
}

/// The clients at both ends. They are two, because an upload that waits for its source would hold the connection that
/// the source needs.
struct Clients {
    source: Client,
    target: Client,
}

impl Clients {
    fn new(options: Options, from: &Place, to: &Place, observer: Arc<dyn Observer>) -> Result<Self, CopyError> {
        let same = matches!((from, to), (Place::Registry(a), Place::Registry(b)) if a.registry() == b.registry());
        // Together no more than one may have.
        let share = if same { options.connections_per_host.div_ceil(2) } else { options.connections_per_host };
        let options = Options { connections_per_host: share, ..options };
        // What flows through is counted once.
        let silent: Arc<dyn Observer> = Arc::new(());
        let quiet = matches!((from, to), (Place::Registry(_), Place::Registry(_)));
        let source = push::client(options.clone(), if quiet { silent } else { Arc::clone(&observer) })?;
        Ok(Self { source, target: push::client(options, observer)? })
    }
}

impl Copy {
    /// Copies an image.
    pub async fn run(
        &self,
        from: &Place,
        to: &Place,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Copied, CopyError> {
        let clients = Clients::new(options, from, to, Arc::clone(&observer))?;
        match (from, to) {
            (Place::Registry(source), Place::Registry(target)) => self.stream(&clients, source, target).await,
            (Place::Registry(source), Place::Layout { directory, name }) => {
                let layout = Arc::new(Layout::open_or_create(directory)?);
                let copied = self.fetch(&clients.source, source, &layout).await?;
                name_in(&layout, name.as_deref(), Some(source), &copied.descriptor)?;
                Ok(copied)
            }
            (Place::Registry(source), Place::Archive { file, name, format }) => {
                let directory = scratch(&self.scratch)?;
                let layout = Arc::new(Layout::open_or_create(directory.path().join("oci"))?);
                let copied = self.fetch(&clients.source, source, &layout).await?;
                let (name_there, descriptor) = (Some(source.clone()), copied.descriptor.clone());
                let staged = Staged { layout, name: name_there, descriptor, _directory: Some(directory) };
                self.write_archive(staged, file.clone(), name.as_deref(), *format).await?;
                Ok(copied)
            }
            (from, Place::Registry(target)) => {
                let staged = self.stage(from).await?;
                self.push(&clients.target, &staged, target, observer.as_ref()).await
            }
            (from, Place::Layout { directory, name }) => {
                let staged = self.stage(from).await?;
                let layout = Layout::open_or_create(directory)?;
                self.to_layout(&staged, &layout, name.as_deref())
            }
            (from, Place::Archive { file, name, format }) => {
                let staged = self.stage(from).await?;
                let mut copied = Copied::of(staged.descriptor.clone(), size(&staged.layout, &staged.descriptor)?);
                if self.referrers {
                    copied.referrers = push::said_about(&staged.layout, &staged.descriptor)?.len();
                }
                self.write_archive(staged, file.clone(), name.as_deref(), *format).await?;
                Ok(copied)
            }
        }
    }

    /// From registry to registry.
    async fn stream(&self, clients: &Clients, source: &Reference, target: &Reference) -> Result<Copied, CopyError> {
        let resolved = clients.source.resolve(source, &self.platforms).await.map_err(failed(source))?;
        let remote = Remote::from(source);
        let pusher = Pusher::new(clients.target.clone());
        let mountable = |documents: &[FetchedManifest]| {
            if source.registry() == target.registry() {
                let blobs = documents.iter().flat_map(|fetched| fetched.document.blobs());
                blobs.for_each(|blob| pusher.known(&remote, blob.digest));
            }
        };
        mountable(&resolved.documents);
        let outgoing = |fetched: &FetchedManifest, reference: Reference, lists: Vec<ImagePush>| ImagePush {
            reference,
            media_type: fetched.descriptor.media_type.clone(),
            manifest: fetched.bytes.clone(),
            blobs: streamed(&clients.source, &remote, &fetched.document),
            lists,
        };
        let by_digest = |fetched: &FetchedManifest| {
            let name = target.clone().with_tag(None).with_digest(Some(fetched.descriptor.digest));
            outgoing(fetched, name, Vec::new())
        };
        let taken = resolved.taken().clone();
        let listed = &resolved.documents[..resolved.documents.len().saturating_sub(1)];
        let image = outgoing(&taken, target.clone(), listed.iter().map(by_digest).collect());
        let report = pusher.push(image).await.map_err(failed(target))?;
        let mut copied = Copied::of(taken.descriptor, report.bytes(Pushed::Uploaded));
        copied.mounted_bytes = report.bytes(Pushed::Mounted);
        if self.referrers {
            let said = clients.source.statements_about(&remote, &resolved.documents).await.map_err(failed(source))?;
            copied.referrers = said.len();
            mountable(&said);
            for statement in &said {
                let report = pusher.push(by_digest(statement)).await.map_err(failed(target))?;
                copied.copied_bytes += report.bytes(Pushed::Uploaded);
                copied.mounted_bytes += report.bytes(Pushed::Mounted);
            }
        }
        Ok(copied)
    }

    /// From a registry into a layout, where what is said about the image is named by its digest.
    async fn fetch(&self, client: &Client, source: &Reference, layout: &Arc<Layout>) -> Result<Copied, CopyError> {
        let sink: Arc<dyn Sink> = Arc::new(LayoutSink(Arc::clone(layout)));
        let report = client.pull(source, &self.platforms, Arc::clone(&sink)).await.map_err(failed(source))?;
        let descriptor = report.resolved.taken().descriptor.clone();
        let mut copied = Copied::of(descriptor, report.fetched_bytes());
        if self.referrers {
            let remote = Remote::from(source);
            let documents = &report.resolved.documents;
            let said = client.statements_about(&remote, documents).await.map_err(failed(source))?;
            let Some(named) = said.first().cloned() else { return Ok(copied) };
            let name = |descriptor: &Descriptor| source.clone().with_tag(None).with_digest(Some(descriptor.digest));
            let names: Vec<_> = said.iter().map(|said| (name(&said.descriptor), said.descriptor.clone())).collect();
            let resolved = Resolved { named, documents: said, config: None };
            let report = client.pull_resolved(&remote, resolved, sink).await.map_err(failed(source))?;
            layout.set_references(&names)?;
            copied.copied_bytes += report.fetched_bytes();
            copied.referrers = names.len();
        }
        Ok(copied)
    }

    /// What is at hand, or can be unpacked.
    async fn stage(&self, from: &Place) -> Result<Staged, CopyError> {
        match from {
            Place::Registry(_) => unreachable!("registries are read as streams"),
            Place::Layout { directory, name } => {
                let layout = Arc::new(Layout::open(directory)?);
                let (name, entry) = place::choose(&layout.entries()?, name.as_deref(), directory)?;
                let descriptor = self.of_platform(&layout, entry, &from.to_string())?;
                Ok(Staged { layout, name, descriptor, _directory: None })
            }
            Place::Archive { file, name, format } => {
                let directory = scratch(&self.scratch)?;
                let layout = Arc::new(Layout::open_or_create(directory.path().join("oci"))?);
                let (file, name, format) = (file.clone(), name.clone(), *format);
                let said = self.referrers;
                let (into, room) = (Arc::clone(&layout), directory.path().to_owned());
                let read = move || import::import(format, &file, name.as_deref(), said, &into, &room);
                let read = tokio::task::spawn_blocking(read).await;
                let (name, entry) = read.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))?;
                let descriptor = self.of_platform(&layout, entry, &from.to_string())?;
                Ok(Staged { layout, name, descriptor, _directory: Some(directory) })
            }
        }
    }

    /// The image of a platform, if one was asked for and this is an index.
    fn of_platform(&self, layout: &Layout, entry: Descriptor, place: &str) -> Result<Descriptor, CopyError> {
        let Platforms::One(platform) = &self.platforms else { return Ok(entry) };
        let Document::Index(index) = layout.read_document(&entry)? else { return Ok(entry) };
        let chosen = index.select(platform).cloned();
        let missing = || PlaceError::Platform { place: place.to_owned(), platform: platform.to_string() };
        Ok(chosen.ok_or_else(missing)?)
    }

    async fn push(
        &self,
        client: &Client,
        staged: &Staged,
        target: &Reference,
        observer: &dyn Observer,
    ) -> Result<Copied, CopyError> {
        let image = Outgoing { target: target.clone(), manifest: staged.descriptor.clone() };
        let image = [image];
        let totals = match self.referrers {
            true => push::push(client, &staged.layout, &image, observer).await?,
            false => push::push_alone(client, &staged.layout, &image, observer).await?,
        };
        let mut copied = Copied::of(staged.descriptor.clone(), totals.pushed_bytes);
        copied.mounted_bytes = totals.mounted_bytes;
        copied.referrers = totals.statements;
        Ok(copied)
    }

    fn to_layout(&self, staged: &Staged, layout: &Layout, name: Option<&str>) -> Result<Copied, CopyError> {
        let mut wanted = vec![staged.descriptor.clone()];
        let said = match self.referrers {
            true => push::said_about(&staged.layout, &staged.descriptor)?,
            false => Vec::new(),
        };
        wanted.extend(said.iter().map(|referrer| referrer.descriptor.clone()));
        let mut copied = Copied::of(staged.descriptor.clone(), 0);
        for blob in staged.layout.reachable(&wanted)?.values() {
            if !layout.has_blob(blob.digest, blob.size) {
                staged.layout.open_blob(blob.digest, blob.size)?;
                layout.put_file_link(&staged.layout.blob_path(blob.digest), blob.digest, blob.size)?;
                copied.copied_bytes += blob.size;
            }
        }
        name_in(layout, name, staged.name.as_ref(), &staged.descriptor)?;
        let names: Vec<_> = said.into_iter().map(|referrer| (referrer.reference, referrer.descriptor)).collect();
        layout.set_references(&names)?;
        copied.referrers = names.len();
        Ok(copied)
    }

    async fn write_archive(
        &self,
        staged: Staged,
        file: PathBuf,
        name: Option<&str>,
        format: Format,
    ) -> Result<(), CopyError> {
        let name = place::archive_name(name, staged.name.as_ref(), &file)?;
        let mut images = vec![(name, staged.descriptor.clone())];
        if self.referrers {
            if format == Format::Docker {
                return Err(PlaceError::Statements { place: file }.into());
            }
            let said = push::said_about(&staged.layout, &staged.descriptor)?;
            images.extend(said.into_iter().map(|referrer| (referrer.reference, referrer.descriptor)));
        }
        let machine = self.machine.clone();
        let write = move || replace(&file, |out| archive::write(format, &staged.layout, &images, &machine, out));
        let written = tokio::task::spawn_blocking(write).await;
        written.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))
    }
}

impl Copied {
    fn of(descriptor: Descriptor, copied_bytes: u64) -> Self {
        Self { descriptor, copied_bytes, mounted_bytes: 0, referrers: 0 }
    }
}

/// The blobs of a document, as they come from a registry. A layer that may not be passed on is not.
fn streamed(client: &Client, remote: &Remote, document: &Document) -> Vec<(Descriptor, Arc<dyn BlobSource>)> {
    let passed_on = |blob: &&Descriptor| !blob.media_type.is_foreign_layer() || blob.urls.is_empty();
    let source = |blob: &Descriptor| -> (Descriptor, Arc<dyn BlobSource>) {
        let (client, remote, descriptor) = (client.clone(), remote.clone(), blob.clone());
        (blob.clone(), Arc::new(RemoteSource { client, remote, descriptor }))
    };
    document.blobs().into_iter().filter(passed_on).map(source).collect()
}

/// Names what was copied in a layout: as was said, else as it was called before.
fn name_in(
    layout: &Layout,
    name: Option<&str>,
    before: Option<&Reference>,
    descriptor: &Descriptor,
) -> Result<(), CopyError> {
    let reference = match name {
        Some(text) => match text.parse() {
            Ok(reference) => reference,
            Err(_) => return Ok(layout.set_name(text, descriptor)?),
        },
        None => {
            let unnamed = || PlaceError::Unnamed { place: format!("oci:{}", layout.root().display()) };
            let before = before.cloned().ok_or_else(unnamed)?;
            crate::pull::name_in_layout(&before, descriptor)
        }
    };
    Ok(layout.set_references(&[(reference, descriptor.clone())])?)
}

fn size(layout: &Layout, descriptor: &Descriptor) -> Result<u64, StoreError> {
    let blobs = layout.reachable(std::slice::from_ref(descriptor))?;
    Ok(blobs.values().fold(0, |sum, blob| sum.saturating_add(blob.size)))
}

fn scratch(parent: &Path) -> Result<TempDir, CopyError> {
    let made = tempfile::Builder::new().prefix("drystone-copy-").tempdir_in(parent);
    made.map_err(|source| CopyError::Write { path: parent.to_owned(), source })
}

/// Writes a file beside its place, and then puts it there.
fn replace<E>(path: &Path, fill: impl FnOnce(&mut dyn io::Write) -> Result<(), E>) -> Result<(), CopyError>
where
    CopyError: From<E>,
{
    let failed = |source: io::Error| CopyError::Write { path: path.to_owned(), source };
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 17, file);
    fill(&mut out)?;
    out.flush().map_err(failed)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn failed(reference: &Reference) -> impl FnOnce(registry_client::Error) -> CopyError + use<> {
    let reference = Box::new(reference.clone());
    |source| CopyError::Registry { reference, source: Box::new(source) }
}
