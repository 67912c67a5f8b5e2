//! The kinds of content, and Docker's older names for the same kinds.

pub use oci_spec::image::MediaType;

/// Docker's names, which are still what many registries hold.
pub mod docker {
    /// One image.
    pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// One image for each of several platforms.
    pub const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// An image's configuration.
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A layer, not compressed.
    pub const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// A layer, compressed with gzip.
    pub const LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A layer, compressed with zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// A layer that may not be passed on.
    pub const LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// The abandoned first manifest format, known only to be refused by name.
    pub const MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// The same, signed.
    pub const MANIFEST_V1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

/// How a layer's tar is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// RFC 1952, in one or more members.
    Gzip,
    /// RFC 8878, in one or more frames.
    Zstd,
}

/// Questions to a media type that have the same answer for OCI's and Docker's names.
pub trait MediaTypeExt {
    /// Whether this is a manifest of one image or artifact.
    fn is_manifest(&self) -> bool;
    /// Whether this is an index, also called manifest list.
    fn is_index(&self) -> bool;
    /// Whether this is an image's configuration.
    fn is_image_config(&self) -> bool;
    /// How the layer is compressed, or `None` if this is not a layer.
    fn layer_compression(&self) -> Option<Compression>;
    /// Whether this is a layer that may live outside registries.
    fn is_foreign_layer(&self) -> bool;
}

impl MediaTypeExt for MediaType {
    fn is_manifest(&self) -> bool {
        matches!(self, Self::ImageManifest) || self.as_ref() == docker::MANIFEST
    }

    fn is_index(&self) -> bool {
        matches!(self, Self::ImageIndex) || self.as_ref() == docker::INDEX
    }

    fn is_image_config(&self) -> bool {
        matches!(self, Self::ImageConfig) || self.as_ref() == docker::CONFIG
    }

    fn layer_compression(&self) -> Option<Compression> {
        match self {
            Self::ImageLayer | Self::ImageLayerNonDistributable => Some(Compression::None),
            Self::ImageLayerGzip | Self::ImageLayerNonDistributableGzip => Some(Compression::Gzip),
            Self::ImageLayerZstd | Self::ImageLayerNonDistributableZstd => Some(Compression::Zstd),
            Self::Other(name) => match name.as_str() {
                docker::LAYER => Some(Compression::None),
                docker::LAYER_GZIP | docker::LAYER_FOREIGN => Some(Compression::Gzip),
                docker::LAYER_ZSTD => Some(Compression::Zstd),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_foreign_layer(&self) -> bool {
        matches!(
            self,
            Self::ImageLayerNonDistributable
                | Self::ImageLayerNonDistributableGzip
                | Self::ImageLayerNonDistributableZstd
        ) || self.as_ref() == docker::LAYER_FOREIGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_both_families_say_how_they_are_compressed() {
        let cases = [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Compression::Gzip)),
            (docker::LAYER_GZIP, Some(Compression::Gzip)),
            (docker::LAYER_ZSTD, Some(Compression::Zstd)),
            (docker::LAYER, Some(Compression::None)),
            ("application/vnd.oci.image.config.v1+json", None),
            ("text/plain", None),
        ];
        for (name, expected) in cases {
            assert_eq!(MediaType::from(name).layer_compression(), expected, "{name}");
        }
    }
}
