//! An image's configuration: how to run it, and which layers it is made of.

use std::collections::{BTreeMap, BTreeSet};

use content::DiffId;
use serde::{Deserialize, Serialize};

use crate::lenient::{is_default, null_is_default, set_as_map};
use crate::{Platform, canonical_bytes};

/// What stands behind a manifest's `config`. Its digest is the image id that people see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How a container is started.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Config,
    /// The layers, by what they unpack to.
    pub rootfs: RootFs,
    /// How each layer came about.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub history: Vec<History>,
}

/// The defaults of a container that runs the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `user[:group]`, names or numbers.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub user: String,
    /// Ports that the service listens on, as `80/tcp`.
    #[serde(with = "set_as_map", skip_serializing_if = "is_default")]
    pub exposed_ports: BTreeSet<String>,
    /// The environment, as `NAME=value`, in order.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// The command's fixed beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command, or what follows the entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that hold data.
    #[serde(with = "set_as_map", skip_serializing_if = "is_default")]
    pub volumes: BTreeSet<String>,
    /// Where the command starts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub working_dir: String,
    /// Free key-value pairs, by which images are found.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the command to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to ask whether the container is well. Docker's extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images built upon this one. Docker's extension.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub on_build: Vec<String>,
    /// The shell for commands written as text. Docker's extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// How to ask whether a container is well. Times are nanoseconds; 0 means the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", argument…]` or `["CMD-SHELL", text]`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// The time between two questions.
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    /// How long an answer may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    /// How long the container may take to start.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    /// The time between two questions while it starts.
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    /// How many failures in a row make it unwell.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// The layers of an image, by the digests of their uncompressed tars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The layers, the lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

/// How one layer, or one change of the configuration alone, came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command or step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether no layer belongs to this entry.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub empty_layer: bool,
}

impl RootFs {
    /// These layers, the lowest first.
    pub fn new(diff_ids: Vec<DiffId>) -> Self {
        Self { kind: "layers".to_owned(), diff_ids }
    }
}

impl ImageConfig {
    /// The configuration of an image for a platform, with nothing else said.
    pub fn new(platform: &Platform, diff_ids: Vec<DiffId>) -> Self {
        Self {
            created: None,
            author: None,
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            variant: platform.variant.clone(),
            config: Config::default(),
            rootfs: RootFs::new(diff_ids),
            history: Vec::new(),
        }
    }

    /// The machine that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: Vec::new(),
            variant: self.variant.clone(),
        }
    }

    /// The document's bytes; equal configurations have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical_bytes(self).expect("a configuration has only strings, whole numbers and maps with string keys")
    }
}

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;

    fn full() -> ImageConfig {
        let mut image = ImageConfig::new(&Platform::linux("amd64"), vec![DiffId(Digest::of(b"tar"))]);
        image.created = Some("2026-11-06T00:00:00Z".to_owned());
        image.config = Config {
            user: "redis:redis".to_owned(),
            exposed_ports: ["6379/tcp".to_owned(), "80/udp".to_owned()].into(),
            env: vec!["PATH=/usr/bin".to_owned()],
            entrypoint: Some(vec!["/entrypoint.sh".to_owned()]),
            cmd: Some(vec!["redis-server".to_owned()]),
            volumes: ["/data".to_owned()].into(),
            working_dir: "/data".to_owned(),
            labels: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
            stop_signal: Some("SIGTERM".to_owned()),
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".to_owned(), "redis-cli".to_owned(), "ping".to_owned()],
                interval: 30_000_000_000,
                ..Healthcheck::default()
            }),
            on_build: vec!["RUN true".to_owned()],
            shell: Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
        };
        image.history = vec![History { created_by: Some("packages".to_owned()), ..History::default() }];
        image
    }

    #[test]
    fn a_configuration_reads_what_it_writes_and_oci_spec_reads_it_too() {
        let bytes = full().to_bytes();
        assert_eq!(ImageConfig::parse(&bytes).unwrap(), full());
        let theirs = oci_spec::image::ImageConfiguration::from_reader(&bytes[..]).unwrap();
        let config = theirs.config().as_ref().unwrap();
        assert_eq!(config.labels().as_ref().unwrap()["a"], "1");
        assert_eq!(config.exposed_ports().as_ref().unwrap().len(), 2);
        assert_eq!(theirs.rootfs().diff_ids().len(), 1);
    }

    #[test]
    fn the_bytes_of_a_configuration_never_change() {
        let image = ImageConfig::new(&Platform::linux("amd64"), vec![DiffId(Digest::of(b""))]);
        let expected = concat!(
            r#"{"architecture":"amd64","config":{},"os":"linux","rootfs":{"diff_ids":["#,
            r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],"type":"layers"}}"#
        );
        assert_eq!(String::from_utf8(image.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","docker_version":"20.10","container":"x",
            "config":{"Hostname":"","Env":null,"Cmd":null,"Image":"","Volumes":null,"Labels":null,"OnBuild":null,
                      "ExposedPorts":{"80/tcp":{}},"ArgsEscaped":true,"User":""},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let image = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(image.config.exposed_ports.len(), 1);
        assert_eq!(image.config.cmd, None);
        let text = r#"{"config":null,"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap().config, Config::default());
    }
}
