//! Builds images from Dockerfiles, with the same steps, sandbox, cache and layers as those from specs.
//!
//! - [`context`], [`image_shelf`]: where files are taken from, both of them a [`shelf`]
//! - [`git`]: repositories to add, or to be a context
//! - [`needs`]: which stages have to be built, and in which order
//! - [`settings`]: instructions that change the configuration
//! - [`mod@pick`], [`place`]: what `COPY` and `ADD` mean
//! - [`mounts`]: what commands see
//! - `build/dockerfile.rs` does it, step by step

pub mod bases;
pub mod context;
pub mod git;
pub mod image_shelf;
pub mod mounts;
pub mod needs;
pub mod pick;
pub mod place;
pub mod settings;
pub mod shelf;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use oci::{Platform, Reference};
use sandbox::Network;
use spec::ImageName;
use spec::dockerfile::Dockerfile;

use self::context::Context;
use crate::build::BuiltImage;

/// An image to build from a Dockerfile.
pub struct Recipe<'a> {
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// Where `COPY` and `ADD` take files from; none if there is no context.
    pub context: Option<&'a Context>,
    /// What the image is called in what is told of the build.
    pub name: ImageName,
    /// The name it gets in the layout.
    pub reference: Reference,
    /// The stage to build; the last if none is named.
    pub target: Option<String>,
    /// Values for `ARG`.
    pub arguments: BTreeMap<String, String>,
    /// Labels besides those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The machine that the image is for.
    pub platform: Platform,
    /// What commands reach that do not say it.
    pub network: Network,
    /// Sockets of SSH agents, by the names under which commands ask for them.
    pub agents: BTreeMap<String, PathBuf>,
    /// Images of the same family, by name.
    pub siblings: BTreeMap<String, Arc<BuiltImage>>,
}

impl Recipe<'_> {
    /// The arguments that every build has.
    pub fn platform_arguments(&self) -> Vec<(String, String)> {
        platform_arguments(&self.platform, self.target.as_deref())
    }
}

/// The arguments that every build of a stage for a platform has.
fn platform_arguments(platform: &Platform, target: Option<&str>) -> Vec<(String, String)> {
    let Platform { os, architecture, variant, .. } = platform;
    let variant = variant.clone().unwrap_or_default();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("BUILDPLATFORM", "linux/amd64"),
        pair("BUILDOS", "linux"),
        pair("BUILDARCH", "amd64"),
        pair("BUILDVARIANT", ""),
        pair("TARGETPLATFORM", &platform.to_string()),
        pair("TARGETOS", os),
        pair("TARGETARCH", architecture),
        pair("TARGETVARIANT", &variant),
        pair("TARGETSTAGE", target.unwrap_or("default")),
    ]
}
