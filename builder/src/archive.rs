//! Images of a layout as one tar file, written as a stream: [`fn@oci_archive`] and [`fn@docker_archive`].
//!
//! The same images give the same bytes: entries are sorted, belong to root and are of 1970. Every blob is checked
//! while it is read. No blob is held in memory, and nothing is written twice.

mod docker_archive;
mod oci_archive;

use std::io::{self, Read, Write};

use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::write::{END_OF_ARCHIVE, EntryWriter};
use oci::{Descriptor, Platform, Reference};
use store::{Layout, StoreError};

pub use docker_archive::docker_archive;
pub(crate) use oci_archive::index;
pub use oci_archive::{CONTAINERD_NAME, oci_archive};

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI image layout in a tar, which `skopeo` and `podman` read as `oci-archive:`.
    Oci,
    /// What `docker load`, `podman load` and `skopeo`'s `docker-archive:` read.
    Docker,
}

/// An image and the name that it gets.
pub type Named = (Reference, Descriptor);

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// An image is not in the layout, or is damaged.
    #[error("{reference} cannot be read")]
    Image {
        /// The image.
        reference: Box<Reference>,
        /// Why.
        source: StoreError,
    },
    /// A blob is damaged, or the archive cannot be written.
    #[error("the archive cannot be written: `{entry}`")]
    Write {
        /// The file in the archive.
        entry: String,
        /// Why.
        source: io::Error,
    },
    /// The other layout cannot be written.
    #[error(transparent)]
    Layout(StoreError),
    /// An archive of Docker's holds one image for each name, and there is none for this platform.
    #[error("{reference} has no image for {platform}")]
    Platform {
        /// The name.
        reference: Box<Reference>,
        /// What was asked for.
        platform: Box<Platform>,
    },
}

/// Writes images as an archive of this format. What has images for several platforms is written whole as OCI; for
/// Docker, the image for `platform` is.
pub fn write(
    format: Format,
    layout: &Layout,
    images: &[Named],
    platform: &Platform,
    out: impl Write,
) -> Result<(), ArchiveError> {
    match format {
        Format::Oci => oci_archive(layout, images, out),
        Format::Docker => docker_archive(layout, images, platform, out),
    }
}

/// Puts images, and everything that they need, into another layout.
pub fn copy_into(layout: &Layout, other: &Layout, images: &[Named]) -> Result<(), ArchiveError> {
    let _leases = (layout.lease(), other.lease());
    for (reference, descriptor) in images {
        let unreadable = |source| unreadable(reference, source);
        for blob in layout.reachable(std::slice::from_ref(descriptor)).map_err(unreadable)?.values() {
            // What is no plain file here, a link out of the layout for example, is not passed on.
            layout.open_blob(blob.digest, blob.size).map_err(unreadable)?;
            other.put_file_link(&layout.blob_path(blob.digest), blob.digest, blob.size).map_err(unreadable)?;
        }
    }
    other.set_references(images).map_err(ArchiveError::Layout)
}

/// A tar whose entries are root's and of 1970.
pub(crate) struct TarWriter<W> {
    entries: EntryWriter<W>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { entries: EntryWriter::new(out) }
    }

    fn directory(&mut self, path: &str) -> Result<(), ArchiveError> {
        self.entry(path, Kind::Directory, 0o755, &mut io::empty())
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), ArchiveError> {
        self.file_of_mode(path, size, 0o644, content)
    }

    pub(crate) fn file_of_mode(
        &mut self,
        path: &str,
        size: u64,
        mode: u32,
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        self.entry(path, Kind::File { size }, mode, content)
    }

    pub(crate) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.file(path, bytes.len() as u64, &mut &bytes[..])
    }

    /// A blob of a layout, checked.
    fn blob(&mut self, path: &str, layout: &Layout, blob: &Descriptor) -> Result<(), ArchiveError> {
        let opened = layout.open_blob(blob.digest, blob.size).map_err(io::Error::other);
        let mut opened = opened.map_err(|source| ArchiveError::Write { entry: path.to_owned(), source })?;
        self.file(path, blob.size, &mut opened)
    }

    fn entry(&mut self, path: &str, kind: Kind, mode: u32, content: &mut dyn Read) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::Write { entry: path.to_owned(), source };
        let parsed = ImagePath::parse(path).map_err(|error| failed(io::Error::other(error)))?;
        let metadata = Metadata { mode, ..Metadata::default() };
        self.entries.write(&Entry { path: parsed, kind, metadata }, content).map_err(failed)
    }

    pub(crate) fn finish(self) -> Result<W, ArchiveError> {
        let failed = |source| ArchiveError::Write { entry: "its end".to_owned(), source };
        let mut out = self.entries.into_inner();
        out.write_all(&END_OF_ARCHIVE).and_then(|()| out.flush()).map_err(failed)?;
        Ok(out)
    }
}

/// Bytes of a small document of a layout, checked.
fn document(layout: &Layout, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
    layout.read_small(descriptor.digest, oci::MAX_CONFIG_SIZE).map_err(|source| unreadable(reference, source))
}

pub(crate) fn unreadable(reference: &Reference, source: StoreError) -> ArchiveError {
    ArchiveError::Image { reference: Box::new(reference.clone()), source }
}

#[cfg(test)]
mod tests;
