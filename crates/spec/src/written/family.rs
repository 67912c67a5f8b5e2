//! `family.yaml` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::Scalar;
use super::image::LayersFile;
use super::{Entries, Written};

/// A family of images: what its images share. One directory holds it; each image has a directory below.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "drystone family")]
pub struct FamilyFile {
    /// The version of the language. Write `1`.
    #[schemars(with = "u32")]
    pub drystone: Written<String>,
    /// Where the images are pushed: `host:port`, and a path if they share one.
    pub registry: Written<String>,
    /// The tag of every image that does not name its own. Without it, `latest`.
    #[schemars(with = "Option<Scalar>")]
    pub tag: Option<Written<String>>,
    /// Where packages come from, by name.
    #[serde(default)]
    pub sources: Entries<Written<SourceEntry>>,
    /// What every image starts with. Labels and environment go to the images without a parent in the family;
    /// the others inherit them.
    #[serde(default)]
    pub defaults: DefaultsFile,
    /// Variables for `${NAME}`, with the values they have unless the command line or the environment says otherwise.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub vars: Entries<Written<String>>,
    /// The directories that belong to the family; `*` and `?` stand for any text and any letter. Without it, every
    /// directory with an `image.yaml`.
    pub images: Option<Vec<Written<String>>>,
}

/// One place that packages come from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// What kind of archive it is.
    #[serde(rename = "type")]
    pub kind: SourceType,
    /// The suites of the archive, such as `bookworm`.
    pub suites: Option<Vec<Written<String>>>,
    /// The components of each suite. Without them, `main`.
    pub components: Option<Vec<Written<String>>>,
    /// The file with the keys that may sign the archive, relative to this file.
    pub keyring: Option<Written<String>>,
    /// Where the archive is. Without it, the mirror that the command line, the environment or the host names.
    pub url: Option<Written<String>>,
    /// The directory of an archive without suites, ending in a slash, such as `amd64/`.
    pub flat: Option<Written<String>>,
    /// `true` uses the archive without a signature; every build says so.
    pub trusted: Option<Written<bool>>,
    /// `true` accepts an index whose `Valid-Until` has passed.
    #[serde(default)]
    pub allow_expired: bool,
    /// Which source wins when several offer a package, as in apt: 500 is usual, more wins over newer versions.
    pub priority: Option<Written<i32>>,
}

/// The kinds of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// A Debian archive, or one in its form.
    Apt,
}

/// What every image of the family starts with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultsFile {
    /// The sources that images take packages from. Without them, all.
    pub sources: Option<Vec<Written<String>>>,
    /// Whether recommended packages come along.
    pub recommends: Option<bool>,
    /// Whether Python modules of packages are compiled when an image is built. Without it, `true`.
    pub bytecode: Option<bool>,
    /// Labels.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub labels: Entries<Written<String>>,
    /// Annotations of the manifests.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub annotations: Entries<Written<String>>,
    /// Environment variables.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub env: Entries<Written<String>>,
    /// The platforms that images are built for.
    pub platforms: Option<Vec<Written<String>>>,
    /// Paths of packages that are left out of every image.
    pub exclude: Option<Vec<Written<String>>>,
    /// How layers are cut.
    #[serde(default)]
    pub layers: LayersFile,
}
