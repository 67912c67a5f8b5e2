//! What is in a base: its configuration, the sizes of its layers, its Debian packages. Every layer is read once, which
//! verifies it packed and unpacked; the cache remembers what was found.

use std::io::{self, Read};

use content::{DiffId, Digest, FramedHasher};
use debian::deb822::stanzas;
use debian::package::Package;
use layer::entry::{Entry, ImagePath, Kind, Mark, mark};
use oci::{Descriptor, Manifest, MediaType, MediaTypeExt, Platform, docker};
use serde::{Deserialize, Serialize};
use store::Area;

use super::find::is_image;
use super::{Base, BaseError, Bases};
use crate::image::Layer;
use crate::layers::{StoredTar, read_layer};

/// Where dpkg keeps what is installed.
const STATUS: &str = "var/lib/dpkg/status";

/// No such list is larger than this.
const LARGEST_STATUS: u64 = 32 << 20;

/// What the cache remembers of a layer.
#[derive(Clone, Serialize, Deserialize)]
struct Surveyed {
    uncompressed_size: u64,
    unpacked_size: u64,
    status: Status,
}

/// What a layer does to dpkg's list of packages.
#[derive(Clone, Serialize, Deserialize)]
enum Status {
    Unchanged,
    Removed,
    Written(String),
}

impl Bases<'_> {
    /// Describes the image of a manifest, all of which is in the layout.
    pub(super) fn describe(
        &self,
        written: &str,
        digest: Digest,
        descriptor: Descriptor,
        manifest: &Manifest,
        platform: &Platform,
    ) -> Result<Base, BaseError> {
        let not_an_image = |why| BaseError::NotAnImage { name: written.to_owned(), why };
        if !is_image(manifest) {
            return Err(not_an_image(format!("its configuration is of the kind `{}`", manifest.config.media_type)));
        }
        let config = self.layout.read_config(&manifest.config)?;
        let found = config.platform();
        let says = !found.os.is_empty() && !found.architecture.is_empty();
        if says && !found.serves(platform) {
            let found = vec![found.to_string()];
            return Err(BaseError::Platform { name: written.to_owned(), wanted: platform.to_string(), found });
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, named) = (manifest.layers.len(), diff_ids.len());
            return Err(not_an_image(format!("it has {layers} layers, and its configuration names {named}")));
        }
        let mut layers = Vec::with_capacity(manifest.layers.len());
        let mut status = None;
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            if layer.media_type.layer_compression().is_none() {
                return Err(not_an_image(format!("it has a layer of the kind `{}`", layer.media_type)));
            }
            let failed = |source| BaseError::Layer { name: written.to_owned(), digest: layer.digest, source };
            let surveyed = self.survey(layer, *diff_id)?.map_err(failed)?;
            match surveyed.status {
                Status::Unchanged => {}
                Status::Removed => status = None,
                Status::Written(text) => status = Some(text),
            }
            layers.push(Layer {
                digest: layer.digest,
                diff_id: *diff_id,
                size: layer.size,
                uncompressed_size: surveyed.uncompressed_size,
                unpacked_size: surveyed.unpacked_size,
                media_type: in_words_of_oci(&layer.media_type),
                from: written.to_owned(),
                made_by: String::new(),
                packages: Vec::new(),
                stands_alone: false,
                foreign: Some(Descriptor { media_type: in_words_of_oci(&layer.media_type), ..layer.clone() }),
            });
        }
        let packages = status.map(|text| installed(&text)).transpose();
        let packages = packages.map_err(|source| BaseError::Packages { name: written.to_owned(), source })?;
        let config_digest = manifest.config.digest;
        Ok(Base {
            written: written.to_owned(),
            asked: platform.clone(),
            digest,
            manifest: descriptor,
            config,
            config_digest,
            layers,
            packages,
        })
    }

    /// What is in a layer. The inner error is about the layer itself.
    fn survey(&self, layer: &Descriptor, diff_id: DiffId) -> Result<io::Result<Surveyed>, BaseError> {
        let key = FramedHasher::new("base layer 1")
            .field("layer", layer.digest.as_bytes())
            .field("tar", diff_id.0.as_bytes())
            .finish();
        if let Some(known) = self.cache.get_json::<Surveyed>(Area::Steps, key)? {
            return Ok(Ok(known));
        }
        let (mut unpacked_size, mut status) = (0_u64, Status::Unchanged);
        let tar = StoredTar { digest: layer.digest, size: layer.size, diff_id };
        let read = read_layer(self.layout, &tar, |entry, content| {
            unpacked_size = unpacked_size.saturating_add(entry.kind.size());
            look_for_status(&entry, content, &mut status)
        });
        match read {
            Err(error) => Ok(Err(error)),
            Ok(uncompressed_size) => {
                let surveyed = Surveyed { uncompressed_size, unpacked_size, status };
                self.cache.put_json(Area::Steps, key, &surveyed)?;
                Ok(Ok(surveyed))
            }
        }
    }
}

fn look_for_status(entry: &Entry, content: &mut dyn Read, status: &mut Status) -> io::Result<()> {
    let list = ImagePath::parse(STATUS).expect("a constant path is valid");
    // A layer's own file counts, whatever the layer hides.
    let hides = match mark(&entry.path) {
        Mark::Whiteout(hidden) => list.is_within(&hidden),
        Mark::Opaque(directory) => list.is_within(&directory),
        Mark::None | Mark::Leftover => false,
    };
    if hides && !matches!(status, Status::Written(_)) {
        *status = Status::Removed;
    }
    if entry.path == list && matches!(entry.kind, Kind::File { .. }) {
        if entry.kind.size() > LARGEST_STATUS {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("/{STATUS} is too large")));
        }
        let mut text = Vec::new();
        content.read_to_end(&mut text)?;
        *status = Status::Written(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(())
}

/// The packages of a list that are installed, or at least unpacked.
fn installed(status: &str) -> Result<Vec<Package>, Box<dyn std::error::Error + Send + Sync>> {
    let mut packages = Vec::new();
    for stanza in stanzas(status) {
        let stanza = stanza?;
        let state = stanza.get("Status").and_then(|words| words.rsplit(' ').next()).unwrap_or_default();
        if !matches!(state, "not-installed" | "config-files" | "") {
            packages.push(Package::from_stanza(&stanza)?);
        }
    }
    Ok(packages)
}

/// OCI's name for a kind of layer, where Docker has another.
fn in_words_of_oci(kind: &MediaType) -> MediaType {
    match kind.as_ref() {
        docker::LAYER => MediaType::ImageLayer,
        docker::LAYER_GZIP => MediaType::ImageLayerGzip,
        docker::LAYER_ZSTD => MediaType::ImageLayerZstd,
        docker::LAYER_FOREIGN => MediaType::ImageLayerNonDistributableGzip,
        _ => kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_counts_as_installed() {
        let stanza = |name: &str, state: &str| {
            format!("Package: {name}\nStatus: install ok {state}\nArchitecture: amd64\nVersion: 1\n\n")
        };
        let text = [stanza("a", "installed"), stanza("b", "config-files"), stanza("c", "unpacked")].concat();
        let names: Vec<String> = installed(&text).unwrap().iter().map(|package| package.name().to_owned()).collect();
        assert_eq!(names, ["a", "c"]);
        assert!(installed("Package: a\nno field\n").is_err());
    }

    #[test]
    fn dockers_kinds_of_layers_become_ocis() {
        for (theirs, ours) in [
            (docker::LAYER_GZIP, MediaType::ImageLayerGzip),
            (docker::LAYER, MediaType::ImageLayer),
            (docker::LAYER_ZSTD, MediaType::ImageLayerZstd),
            ("application/vnd.oci.image.layer.v1.tar+zstd", MediaType::ImageLayerZstd),
        ] {
            assert_eq!(in_words_of_oci(&MediaType::from(theirs)), ours, "{theirs}");
        }
    }
}
