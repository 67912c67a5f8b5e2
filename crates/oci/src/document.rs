//! Reading what stands behind a tag: a manifest or an index, told apart by what they say and by what they are.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Descriptor, ImageConfig, Index, Manifest, MediaType, MediaTypeExt, docker};

/// The largest manifest or index that is read; registries agree on this limit.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// The largest image configuration that is read.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process holds few documents, and patterns read better without boxes")]
pub enum Document {
    /// One image or artifact.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why bytes are not a document that we read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More bytes than any real document has.
    #[error("document of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// How many bytes there are.
        size: u64,
        /// How many are read at most.
        limit: u64,
    },
    /// Not JSON, or not of the right shape.
    #[error("not a valid {kind}")]
    Malformed {
        /// What was expected.
        kind: &'static str,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// The abandoned first format, or one from the future.
    #[error("manifest has schema version {found}, expected 2")]
    SchemaVersion {
        /// The version found.
        found: u64,
    },
    /// The document says of itself that it is something else than it was announced as.
    #[error("document says that it is `{inside}`, but it was announced as `{announced}`")]
    MediaTypeMismatch {
        /// The `mediaType` in the document.
        inside: String,
        /// The type from the header or descriptor.
        announced: String,
    },
    /// A kind that is neither a manifest nor an index.
    #[error("`{found}` is neither an image manifest nor an index")]
    Unsupported {
        /// The media type.
        found: String,
    },
    /// A document that different readers would read differently.
    #[error("document has both layers and manifests, so readers may disagree on what it is")]
    Ambiguous,
}

/// The keys that decide what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

impl Document {
    /// Reads a document. `announced` is the media type under which it came: a descriptor's, or a response's header.
    ///
    /// A document that contradicts its announcement, or has the keys of both kinds, is refused: readers that believe
    /// different keys would run different images
    /// (<https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m>).
    pub fn parse(bytes: &[u8], announced: Option<&MediaType>) -> Result<Self, DocumentError> {
        let size = bytes.len() as u64;
        if size > MAX_MANIFEST_SIZE {
            return Err(DocumentError::TooLarge { size, limit: MAX_MANIFEST_SIZE });
        }
        let shape: Shape = read_json(bytes, "manifest")?;
        if shape.schema_version != Some(2) {
            return Err(DocumentError::SchemaVersion { found: shape.schema_version.unwrap_or(0) });
        }
        if let (Some(inside), Some(announced)) = (&shape.media_type, announced)
            && inside != announced.as_ref()
        {
            let (inside, announced) = (inside.clone(), announced.to_string());
            return Err(DocumentError::MediaTypeMismatch { inside, announced });
        }
        let has_layers = shape.layers.is_some() || shape.config.is_some();
        if has_layers && shape.manifests.is_some() {
            return Err(DocumentError::Ambiguous);
        }
        let said = shape.media_type.as_deref().map(MediaType::from).or_else(|| announced.cloned());
        let kind = said.unwrap_or(if has_layers { MediaType::ImageManifest } else { MediaType::ImageIndex });
        if kind.is_manifest() {
            read_json(bytes, "image manifest").map(Self::Manifest)
        } else if kind.is_index() {
            read_json(bytes, "image index").map(Self::Index)
        } else {
            Err(DocumentError::Unsupported { found: kind.to_string() })
        }
    }

    /// The document's kind: what it says, or OCI's name for what it is.
    pub fn media_type(&self) -> MediaType {
        match self {
            Self::Manifest(manifest) => manifest.media_type.clone().unwrap_or(MediaType::ImageManifest),
            Self::Index(index) => index.media_type.clone().unwrap_or(MediaType::ImageIndex),
        }
    }

    /// The blobs that the document needs: a manifest's config and layers, config first; an index needs none.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(_) => Vec::new(),
        }
    }

    /// The manifests that an index lists.
    pub fn manifests(&self) -> &[Descriptor] {
        match self {
            Self::Manifest(_) => &[],
            Self::Index(index) => &index.manifests,
        }
    }

    /// The manifest that the document says something about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// What kind of artifact the document holds, as the referrers API reports it: a manifest that does not say is
    /// known by its config.
    pub fn artifact_type(&self) -> Option<String> {
        match self {
            Self::Manifest(manifest) => {
                Some(manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.to_string()))
            }
            Self::Index(index) => index.artifact_type.clone(),
        }
    }

    /// The document's annotations.
    pub fn annotations(&self) -> &std::collections::BTreeMap<String, String> {
        match self {
            Self::Manifest(manifest) => &manifest.annotations,
            Self::Index(index) => &index.annotations,
        }
    }

    /// The media types that a client asks a registry for, best first.
    pub fn accepted() -> [&'static str; 4] {
        [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json",
            docker::MANIFEST,
            docker::INDEX,
        ]
    }
}

impl ImageConfig {
    /// Reads an image's configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let size = bytes.len() as u64;
        if size > MAX_CONFIG_SIZE {
            return Err(DocumentError::TooLarge { size, limit: MAX_CONFIG_SIZE });
        }
        read_json(bytes, "image configuration")
    }
}

fn read_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], kind: &'static str) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Malformed { kind, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    fn manifest() -> Manifest {
        let config = Descriptor::of(MediaType::ImageConfig, b"{}");
        let layer =
            Descriptor::of(MediaType::ImageLayerGzip, b"layer").with_annotation("b", "2").with_annotation("a", "1");
        Manifest::new(config, vec![layer])
    }

    #[test]
    fn a_manifest_reads_what_it_writes_and_oci_spec_reads_it_too() {
        let bytes = manifest().to_bytes();
        assert_eq!(Document::parse(&bytes, None).unwrap(), Document::Manifest(manifest()));
        let theirs = oci_spec::image::ImageManifest::from_reader(&bytes[..]).unwrap();
        assert_eq!(theirs.layers()[0].size(), 5);
        assert_eq!(theirs.layers()[0].annotations().as_ref().unwrap()["a"], "1");
    }

    #[test]
    fn an_index_chooses_by_platform() {
        let entry = |platform: &str, bytes: &[u8]| {
            Descriptor::of(MediaType::ImageManifest, bytes).with_platform(platform.parse().unwrap())
        };
        let index = Index::new(vec![entry("linux/arm64/v8", b"a"), entry("linux/amd64", b"b")]);
        let bytes = index.to_bytes();
        let Document::Index(read) = Document::parse(&bytes, Some(&MediaType::ImageIndex)).unwrap() else {
            panic!("an index was read as a manifest");
        };
        assert_eq!(read, index);
        assert_eq!(read.select(&Platform::linux("amd64")), Some(&index.manifests[1]));
        assert_eq!(read.select(&Platform::linux("arm64")), Some(&index.manifests[0]));
        assert_eq!(read.select(&Platform::linux("riscv64")), None);
        let index = Index::new(vec![entry("linux/amd64/v3", b"c"), entry("linux/amd64", b"d")]);
        assert_eq!(index.select(&Platform::linux("amd64")), Some(&index.manifests[1]), "v3 runs on few machines");
        assert!(oci_spec::image::ImageIndex::from_reader(&bytes[..]).is_ok());
    }

    #[test]
    fn dockers_documents_with_nulls_and_unknown_keys_are_read() {
        let digest = content::Digest::of(b"");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","size":0,"digest":"{digest}"}},
               "layers":null,"annotations":null,"somethingNew":[1.5]}}"#,
            docker::MANIFEST,
            docker::CONFIG
        );
        let document = Document::parse(text.as_bytes(), Some(&docker::MANIFEST.into())).unwrap();
        assert!(document.media_type().is_manifest());
        assert_eq!(document.blobs().len(), 1);
    }

    #[test]
    fn documents_that_readers_could_take_for_two_things_are_refused() {
        let digest = content::Digest::of(b"");
        let descriptor = format!(r#"{{"mediaType":"x/y","size":0,"digest":"{digest}"}}"#);
        let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
        assert!(matches!(Document::parse(both.as_bytes(), None), Err(DocumentError::Ambiguous)));
        let bytes = manifest().to_bytes();
        let announced = Some(&MediaType::ImageIndex);
        assert!(matches!(Document::parse(&bytes, announced), Err(DocumentError::MediaTypeMismatch { .. })));
    }

    #[test]
    fn what_is_no_document_is_an_error_that_says_so() {
        let digest = content::Digest::of(b"");
        let cases = [
            ("".to_owned(), "not a valid manifest"),
            ("[]".to_owned(), "not a valid manifest"),
            (r#"{"schemaVersion":1}"#.to_owned(), "schema version 1"),
            (r#"{"schemaVersion":2,"mediaType":"text/plain"}"#.to_owned(), "neither"),
            (r#"{"schemaVersion":2,"config":{}}"#.to_owned(), "not a valid image manifest"),
            (
                format!(
                    r#"{{"schemaVersion":2,"layers":[],"config":{{"mediaType":"x","size":-1,"digest":"{digest}"}}}}"#
                ),
                "not a valid image manifest",
            ),
            ("[".repeat(100_000), "not a valid manifest"),
            (" ".repeat(MAX_MANIFEST_SIZE as usize + 1), "larger than the limit"),
        ];
        for (text, expected) in cases {
            let error = Document::parse(text.as_bytes(), None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
