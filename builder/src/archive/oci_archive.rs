//! An OCI image layout in a tar: `oci-layout` and `index.json` first, so that a reader of the stream knows what comes,
//! then each blob once, by digest.

use std::collections::BTreeMap;
use std::io::Write;

use oci::{Index, REF_NAME};
use store::Layout;

use super::{ArchiveError, Named, TarWriter, unreadable};

/// The annotation by which containerd, `docker load` and `podman load` know an image's full name.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Writes images, and everything that they need, as an archive.
pub fn oci_archive(layout: &Layout, images: &[Named], out: impl Write) -> Result<(), ArchiveError> {
    let mut tar = TarWriter::new(out);
    tar.bytes("oci-layout", store::LAYOUT_MARKER.as_bytes())?;
    tar.bytes("index.json", &index(images).to_bytes())?;
    blobs(&mut tar, layout, images)?;
    tar.finish().map(|_| ())
}

/// What the archive's `index.json` says.
pub(crate) fn index(images: &[Named]) -> Index {
    let mut named = images.to_vec();
    named.sort_by(|(left, _), (right, _)| left.cmp(right));
    named.dedup_by(|(later, _), (earlier, _)| later == earlier);
    let entry = |(reference, descriptor): &Named| {
        let name = reference.to_string();
        descriptor.clone().with_annotation(REF_NAME, &name).with_annotation(CONTAINERD_NAME, &name)
    };
    Index::new(named.iter().map(entry).collect())
}

fn blobs<W: Write>(tar: &mut TarWriter<W>, layout: &Layout, images: &[Named]) -> Result<(), ArchiveError> {
    let mut blobs = BTreeMap::new();
    for (reference, descriptor) in images {
        let reachable = layout.reachable(std::slice::from_ref(descriptor));
        blobs.extend(reachable.map_err(|source| unreadable(reference, source))?);
    }
    tar.directory("blobs")?;
    tar.directory("blobs/sha256")?;
    for blob in blobs.values() {
        tar.blob(&format!("blobs/sha256/{}", blob.digest.hex()), layout, blob)?;
    }
    Ok(())
}
