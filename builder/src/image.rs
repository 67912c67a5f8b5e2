//! From a spec and its layers to an image: the configuration, the manifest, and their bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use content::{DiffId, Digest};
use oci::{Config, Descriptor, Healthcheck, History, ImageConfig, Manifest, MediaType, Platform};
use serde::{Deserialize, Serialize};
use spec::{CommandLine, Image};

/// The `PATH` of an image that is built on nothing, as container engines assume it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The annotation of a layer's descriptor that says how many bytes its files have once unpacked: what container
/// engines add up to an image's size.
pub const UNPACKED_SIZE: &str = "dev.drystone.layer.unpacked-size";

/// The annotation of a layer's descriptor that says which packages are in it, as `name=version`, separated by spaces.
pub const PACKAGES: &str = "dev.drystone.layer.packages";

/// The annotation of a manifest that says how many layers the image was allowed.
pub const LAYER_BUDGET: &str = "dev.drystone.layer-budget";

/// The annotation of a manifest that says that the layers of the image's own steps are squashed, so that it keeps within
/// its budget.
pub const SQUASHED: &str = "dev.drystone.layers-squashed";

/// A layer that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Names the bytes as they are stored.
    pub digest: Digest,
    /// Names the bytes before compression.
    pub diff_id: DiffId,
    /// Stored bytes.
    pub size: u64,
    /// Bytes before compression, headers and padding included.
    pub uncompressed_size: u64,
    /// Bytes of the files in it.
    pub unpacked_size: u64,
    /// How it is stored.
    pub media_type: MediaType,
    /// The image whose step made it.
    pub from: String,
    /// What made it, for people; becomes the history.
    pub made_by: String,
    /// The packages in it, as `name=version`.
    pub packages: Vec<String>,
    /// Whether its files are the same whatever lies below it: it names every directory that it uses, and none of them is
    /// reached through a link.
    pub stands_alone: bool,
    /// How the manifest names it that it came with, if others made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Descriptor>,
}

impl Layer {
    /// How a manifest names it.
    pub fn descriptor(&self) -> Descriptor {
        if let Some(foreign) = &self.foreign {
            return foreign.clone();
        }
        let descriptor = Descriptor::new(self.media_type.clone(), self.digest, self.size)
            .with_annotation(UNPACKED_SIZE, &self.unpacked_size.to_string());
        match self.packages.is_empty() {
            true => descriptor,
            false => descriptor.with_annotation(PACKAGES, &self.packages.join(" ")),
        }
    }
}

/// The packages that a layer's descriptor names, as `name=version`.
pub fn packages_of(descriptor: &Descriptor) -> Vec<&str> {
    descriptor.annotations.get(PACKAGES).map(|text| text.split_whitespace().collect()).unwrap_or_default()
}

/// The two documents of an image.
pub struct Documents {
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// How an index names the manifest.
    pub descriptor: Descriptor,
}

/// Makes the documents of an image from its configuration and all its layers, the lowest first.
pub fn documents(config: &ImageConfig, layers: &[Layer], annotations: BTreeMap<String, String>) -> Documents {
    let config_bytes = config.to_bytes();
    let descriptors = layers.iter().map(Layer::descriptor).collect();
    let mut manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config_bytes), descriptors);
    manifest.annotations = annotations;
    let manifest_bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(MediaType::ImageManifest, &manifest_bytes).with_platform(config.platform());
    Documents { config: config_bytes, manifest: manifest_bytes, descriptor }
}

/// The configuration of `image`: its parent's, changed as its spec says. `epoch` is the image's date in seconds since
/// 1970, and `layers` all its layers, those of the parent included.
pub fn configuration(
    image: &Image,
    parent: Option<&ImageConfig>,
    platform: &Platform,
    layers: &[Layer],
    epoch: i64,
) -> ImageConfig {
    let created = rfc3339(epoch);
    let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let inherited = parent.map(ImageConfig::platform).filter(|inherited| !inherited.architecture.is_empty());
    let mut config = ImageConfig::new(inherited.as_ref().unwrap_or(platform), diff_ids);
    config.created = Some(created.clone());
    config.config = parent.map_or_else(of_nothing, |parent| Config { on_build: Vec::new(), ..parent.config.clone() });
    config.history = parent.map(|parent| parent.history.clone()).unwrap_or_default();
    let laid_before = parent.map_or(0, |parent| parent.rootfs.diff_ids.len());
    // Before anything is built, the layers are not known.
    let own = layers.get(laid_before..).unwrap_or_default();
    config.history.extend(own.iter().map(|layer| History {
        created: Some(created.clone()),
        created_by: Some(layer.made_by.clone()),
        ..History::default()
    }));
    config.history.push(History {
        created: Some(created),
        created_by: Some(format!("drystone: configuration of {}", image.name)),
        empty_layer: true,
        ..History::default()
    });
    apply(image, &mut config.config);
    config
}

fn of_nothing() -> Config {
    Config { env: vec![format!("PATH={DEFAULT_PATH}")], ..Config::default() }
}

fn apply(image: &Image, config: &mut Config) {
    let changes = &image.config;
    for entry in &changes.env {
        set_variable(&mut config.env, entry.key.as_str(), &entry.value);
    }
    for entry in &changes.labels {
        config.labels.insert(entry.key.as_str().to_owned(), entry.value.value.clone());
    }
    if let Some(user) = &changes.user {
        config.user = user.to_string();
    }
    if let Some(directory) = &changes.workdir {
        config.working_dir = directory.as_str().to_owned();
    }
    config.exposed_ports.extend(changes.expose.iter().flat_map(|port| port.each()));
    config.volumes.extend(changes.volumes.iter().map(|path| path.as_str().to_owned()));
    if let Some(signal) = &changes.stop_signal {
        config.stop_signal = Some(signal.as_str().to_owned());
    }
    if let Some(check) = &changes.healthcheck {
        config.healthcheck = Some(healthcheck(check));
    }
    if let Some(entrypoint) = &changes.entrypoint {
        config.entrypoint = Some(entrypoint.arguments());
        // As in a Dockerfile: a command belongs to the entrypoint it was written for.
        config.cmd = None;
    }
    if let Some(cmd) = &changes.cmd {
        config.cmd = Some(cmd.arguments());
    }
    config.on_build = image.on_build.iter().map(|command| instruction(&command.line)).collect();
}

/// Replaces a variable where it stands, or adds it at the end.
pub fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match env.iter_mut().find(|line| line.split_once('=').is_some_and(|(key, _)| key == name)) {
        Some(existing) => *existing = line,
        None => env.push(line),
    }
}

fn healthcheck(check: &spec::Healthcheck) -> Healthcheck {
    let nanoseconds =
        |time: &Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    match check {
        spec::Healthcheck::Off => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
        spec::Healthcheck::Check { command, interval, timeout, start_period, retries } => Healthcheck {
            test: match &command.value {
                CommandLine::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
                CommandLine::Exec(arguments) => [vec!["CMD".to_owned()], arguments.clone()].concat(),
            },
            interval: nanoseconds(interval),
            timeout: nanoseconds(timeout),
            start_period: nanoseconds(start_period),
            retries: retries.unwrap_or_default().into(),
            ..Healthcheck::default()
        },
    }
}

/// A trigger as a Dockerfile would say it, which is how configurations hold them.
fn instruction(line: &CommandLine) -> String {
    match line {
        CommandLine::Shell(line) => format!("RUN {line}"),
        CommandLine::Exec(arguments) => {
            format!("RUN {}", serde_json::to_string(arguments).expect("a list of strings is JSON"))
        }
    }
}

/// A moment in the form in which configurations hold it, `2026-11-14T09:12:33Z`.
pub fn rfc3339(epoch: i64) -> String {
    jiff::Timestamp::from_second(epoch).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
