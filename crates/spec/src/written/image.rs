//! `image.yaml` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{CommandForm, HealthcheckForm, ModeForm, RunForm, RunList, Scalar};
use super::{Entries, Written};

/// One image. It has its parent's layers and configuration, and adds what is written here: packages, then users and
/// files, then commands; `steps` gives another order.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "drystone image")]
pub struct ImageFile {
    /// The parent: an image of this family, `scratch`, or a reference to a registry.
    pub from: Written<String>,
    /// The image's name. Without it, the name of its directory.
    pub name: Option<Written<String>>,
    /// The image's tag. Without it, the family's.
    #[schemars(with = "Option<Scalar>")]
    pub tag: Option<Written<String>>,
    /// Packages to install, beyond the parent's: `name`, `name:architecture` or `name=version`.
    pub packages: Option<Vec<Written<String>>>,
    /// The sources that this image takes packages from, by the names they have in the family.
    pub sources: Option<Vec<Written<String>>>,
    /// Whether recommended packages come along. Without it, no.
    pub recommends: Option<bool>,
    /// Whether Python modules of packages are compiled when the image is built. Without it, yes.
    pub bytecode: Option<bool>,
    /// Groups to create.
    pub groups: Option<Vec<GroupItem>>,
    /// Users to create.
    pub users: Option<Vec<UserItem>>,
    /// Files to put into the image.
    pub files: Option<Vec<Written<FileItem>>>,
    /// Commands to run in the image while it is built: each a string for `/bin/sh -c`, a list of arguments, or a
    /// mapping with `command` and options.
    pub run: Option<RunList>,
    /// The steps in an order of their own, instead of `packages`, `groups`, `users`, `files` and `run`.
    pub steps: Option<Vec<StepItem>>,
    /// Environment variables of the image, also set for its commands.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub env: Entries<Written<String>>,
    /// The user that the image runs as: `name`, `name:group`, or numbers.
    #[schemars(with = "Option<Scalar>")]
    pub user: Option<Written<String>>,
    /// The directory that the process starts in.
    pub workdir: Option<Written<String>>,
    /// Ports that the process listens on: `80`, `80/udp` or `8000-8010`.
    #[schemars(with = "Option<Vec<Scalar>>")]
    pub expose: Option<Vec<Written<String>>>,
    /// Directories that live outside the image.
    pub volumes: Option<Vec<Written<String>>>,
    /// The signal that asks the process to end.
    #[schemars(with = "Option<Scalar>")]
    pub stop_signal: Option<Written<String>>,
    /// How to see that the process is well; `none` switches the parent's check off.
    pub healthcheck: Option<Written<HealthcheckForm>>,
    /// Commands that run in each image built directly from this one, before its own steps.
    pub on_build: Option<RunList>,
    /// What is started: a list of arguments, or a string for `/bin/sh -c`. It discards the parent's `cmd`.
    pub entrypoint: Option<Written<CommandForm>>,
    /// The arguments of the entry point, or what is started if there is none.
    pub cmd: Option<Written<CommandForm>>,
    /// Labels.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub labels: Entries<Written<String>>,
    /// Annotations of the manifest.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub annotations: Entries<Written<String>>,
    /// The platforms that this image is built for.
    pub platforms: Option<Vec<Written<String>>>,
    /// Paths of packages that are left out: `/usr/share/doc/*`.
    pub exclude: Option<Vec<Written<String>>>,
    /// `true` for an image that only serves others of the family as a parent and is not pushed.
    #[serde(default)]
    pub build_only: bool,
    /// How layers are cut.
    #[serde(default)]
    pub layers: LayersFile,
}

/// How layers are cut.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayersFile {
    /// The most layers an image may have, from 1 to 127.
    pub budget: Option<Written<u32>>,
}

/// A group to create.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupItem {
    /// Its name.
    pub name: Written<String>,
    /// Its number. Without it, the next free one.
    pub gid: Option<Written<u32>>,
    /// Whether it is a system group, with a number below 1000.
    #[serde(default)]
    pub system: bool,
}

/// A user to create.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserItem {
    /// Its name.
    pub name: Written<String>,
    /// Its number. Without it, the next free one.
    pub uid: Option<Written<u32>>,
    /// Its first group. Without it, one with its own name.
    #[schemars(with = "Option<Scalar>")]
    pub group: Option<Written<String>>,
    /// Further groups.
    pub groups: Option<Vec<Written<String>>>,
    /// Its home directory, which is not created.
    pub home: Option<Written<String>>,
    /// Its shell. Without it, `/usr/sbin/nologin`.
    pub shell: Option<Written<String>>,
    /// Whether it is a system user, with a number below 1000.
    #[serde(default)]
    pub system: bool,
}

/// A file, a directory or a link to put into the image. Exactly one of `source`, `content`, `link`, `directory` and
/// `url` says what it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileItem {
    /// A file or directory of the family, relative to the image's directory.
    pub source: Option<Written<String>>,
    /// The text of the file, as it stands: variables are not put in place.
    pub content: Option<Written<String>>,
    /// Where a symbolic link points to.
    pub link: Option<Written<String>>,
    /// `true` for an empty directory.
    pub directory: Option<Written<bool>>,
    /// Where to fetch the file.
    pub url: Option<Written<String>>,
    /// The digest of what `url` gives, 64 hexadecimal digits. Without it, the lock's.
    pub sha256: Option<Written<String>>,
    /// Whether `source` or `url` is a tar archive to unpack at the target.
    #[serde(default)]
    pub unpack: bool,
    /// The absolute path in the image. One that ends in a slash is a directory that the file is put into.
    pub target: Written<String>,
    /// Permissions, in octal between quotes: `"0755"`. Without them, those of the source.
    pub mode: Option<Written<ModeForm>>,
    /// The owner: `name`, `name:group`, or numbers. Without it, root.
    #[schemars(with = "Option<Scalar>")]
    pub owner: Option<Written<String>>,
}

/// One step of an explicit order.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepItem {
    /// Install packages.
    Packages(Vec<Written<String>>),
    /// Create groups.
    Groups(Vec<GroupItem>),
    /// Create users.
    Users(Vec<UserItem>),
    /// Put files in.
    Files(Vec<Written<FileItem>>),
    /// Run commands.
    Run(RunList),
}

/// A command with options.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedCommand {
    /// The command: a string for `/bin/sh -c`, or a list of arguments.
    pub command: Written<CommandForm>,
    /// The user it runs as. Without it, root.
    #[schemars(with = "Option<Scalar>")]
    pub user: Option<Written<String>>,
    /// The directory it runs in. Without it, the image's `workdir`.
    pub workdir: Option<Written<String>>,
    /// Variables that only this command sees.
    #[serde(default)]
    #[schemars(with = "Entries<Scalar>")]
    pub env: Entries<Written<String>>,
    /// Whether it may reach the network. Without it, no.
    pub network: Option<Written<NetworkName>>,
    /// What is mounted while it runs.
    pub mounts: Option<Vec<Written<MountItem>>>,
}

impl DetailedCommand {
    pub(super) fn plain(command: Written<CommandForm>) -> Self {
        Self { command, user: None, workdir: None, env: Entries::default(), network: None, mounts: None }
    }
}

/// The network of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkName {
    /// No network.
    None,
    /// The host's network.
    Host,
}

/// The kinds of mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A directory that is kept between builds.
    Cache,
    /// A secret given to the build by name.
    Secret,
    /// A directory that is gone afterwards.
    Tmpfs,
    /// A file or directory of the family.
    Bind,
}

/// Something mounted while a command runs.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountItem {
    /// What kind of mount it is.
    #[serde(rename = "type")]
    pub kind: MountType,
    /// Where it appears in the image. A secret without one is below `/run/secrets`, by its name.
    pub target: Option<Written<String>>,
    /// The name of a cache or a secret. A cache without one is known by its target.
    pub id: Option<Written<String>>,
    /// What a `bind` shows, relative to the image's directory.
    pub source: Option<Written<String>>,
}

/// How to see that the process is well.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthcheckFile {
    /// The command: a string for `/bin/sh -c`, or a list of arguments. It succeeds when all is well.
    pub command: Written<CommandForm>,
    /// The time between checks, such as `30s`.
    pub interval: Option<Written<String>>,
    /// The longest a check may take.
    pub timeout: Option<Written<String>>,
    /// The time after the start in which failures do not count.
    pub start_period: Option<Written<String>>,
    /// How many failures in a row make the container unhealthy.
    pub retries: Option<Written<u32>>,
}

impl From<Written<CommandForm>> for RunForm {
    fn from(command: Written<CommandForm>) -> Self {
        Self(DetailedCommand::plain(command))
    }
}
