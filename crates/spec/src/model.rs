//! A family that has been checked: what the rest of the program works with.
//!
//! Nothing here is text that still needs parsing, and everything that a later stage may want to complain about (a
//! package that no source has, a file that is missing) carries its place.

use std::sync::Arc;
use std::time::Duration;

use crate::dockerfile::Dockerfile;
use crate::source::{Located, SourceFile, Span};
use crate::value::{
    EnvName, ImageName, ImagePath, LabelKey, Mode, Owner, PackageRequest, Platform, Port, Registry, RelativePath,
    StopSignal, Tag,
};

/// A family of images, parents before their children.
#[derive(Clone, Debug)]
pub struct Family {
    /// `family.yaml`.
    pub file: Arc<SourceFile>,
    /// Where the images are pushed.
    pub registry: Located<Registry>,
    /// The tag of every image that has none of its own.
    pub tag: Located<Tag>,
    /// Where packages come from, in the order of the file.
    pub sources: Vec<AptSource>,
    /// Parents first; images with equally long lines of parents by name. The same files give the same order.
    pub images: Vec<Image>,
}

impl Family {
    /// The image of that name.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.name.as_str() == name)
    }

    /// The source of that name.
    pub fn source(&self, name: &str) -> Option<&AptSource> {
        self.sources.iter().find(|source| source.name.as_str() == name)
    }
}

/// A Debian archive.
#[derive(Clone, Debug)]
pub struct AptSource {
    /// Its name in the family.
    pub name: Located<String>,
    /// How its indexes are laid out.
    pub index: AptIndex,
    /// Where it is; `None` means the mirror that the caller knows.
    pub url: Option<Located<String>>,
    /// Who vouches for it.
    pub trust: Trust,
    /// Whether an index past its `Valid-Until` is taken.
    pub allow_expired: bool,
    /// As in apt; 500 unless the family says otherwise.
    pub priority: i32,
    /// The entry in `family.yaml`.
    pub span: Span,
}

/// How the indexes of an archive are laid out.
#[derive(Clone, Debug)]
pub enum AptIndex {
    /// `dists/<suite>/<component>`.
    Suites {
        /// At least one.
        suites: Vec<Located<String>>,
        /// At least one; `main` unless the family says otherwise.
        components: Vec<Located<String>>,
    },
    /// All in one directory below the address, which ends in a slash.
    Flat(Located<String>),
}

/// Who vouches for an archive.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The keys in this file, which is relative to the family's directory and may lie outside of it.
    Keyring(Located<RelativePath>),
    /// No one: the family says `trusted: true`, here.
    Unsigned(Span),
}

/// What an image is built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing.
    Scratch,
    /// An image of the same family.
    Sibling(ImageName),
    /// An image that others made, as written: in a registry or the layout, `oci:DIRECTORY[:NAME]`, or
    /// `oci-archive:FILE[:NAME]`; the lock pins it.
    External(String),
}

/// One image of a family.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name; unique in the family.
    pub name: Located<ImageName>,
    /// The directory of its `image.yaml`, relative to the family's.
    pub directory: String,
    /// Its `image.yaml`.
    pub file: Arc<SourceFile>,
    /// What it is built on.
    pub from: Located<Parent>,
    /// The Dockerfile that it is built from. Then it has no steps, and its configuration is the Dockerfile's.
    pub dockerfile: Option<Arc<Dockerfile>>,
    /// Further images of the family that a Dockerfile takes files from, or builds other stages on.
    pub needs: Vec<Located<ImageName>>,
    /// Its own tag, or the family's.
    pub tag: Located<Tag>,
    /// The names of the sources that its packages come from.
    pub sources: Vec<Located<String>>,
    /// Whether recommended packages come along.
    pub recommends: bool,
    /// Whether Python modules of packages are compiled.
    pub bytecode: bool,
    /// What is done to the parent's files, in this order.
    pub steps: Vec<Step>,
    /// Commands to run in each direct child, before the child's own steps.
    pub on_build: Vec<Command>,
    /// What it changes in the parent's configuration.
    pub config: Config,
    /// Annotations of its manifest; the family's defaults are among them.
    pub annotations: Vec<Entry<LabelKey>>,
    /// The platforms to build for; empty when nothing is said.
    pub platforms: Vec<Located<Platform>>,
    /// Paths of packages that are left out, with `*` and `?`.
    pub exclude: Vec<Located<String>>,
    /// Whether it is only a parent for others, and not pushed.
    pub build_only: bool,
    /// The most layers it may have.
    pub layer_budget: Option<Located<u32>>,
}

impl Image {
    /// The names of the images of the family that have to be there first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let from = match &self.from.value {
            Parent::Sibling(name) => Some(name.as_str()),
            Parent::Scratch | Parent::External(_) => None,
        };
        from.into_iter().chain(self.needs.iter().map(|name| name.as_str()))
    }

    /// Every package that the image asks for itself, in the order of its steps.
    pub fn packages(&self) -> impl Iterator<Item = &Located<PackageRequest>> {
        self.steps.iter().flat_map(|step| match step {
            Step::Packages(packages) => packages.as_slice(),
            Step::Groups(_) | Step::Users(_) | Step::Files(_) | Step::Run(_) => &[],
        })
    }

    /// Every file that the image puts in, in the order of its steps.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.steps.iter().flat_map(|step| match step {
            Step::Files(files) => files.as_slice(),
            Step::Packages(_) | Step::Groups(_) | Step::Users(_) | Step::Run(_) => &[],
        })
    }

    /// Whether the image adds configuration only, and so has exactly its parent's layers (unless the parent's
    /// `on_build` commands add one).
    pub fn is_config_only(&self) -> bool {
        self.steps.is_empty() && self.dockerfile.is_none()
    }
}

/// One thing that is done to an image's files. No step is empty.
#[derive(Clone, Debug)]
pub enum Step {
    /// Install packages.
    Packages(Vec<Located<PackageRequest>>),
    /// Create groups.
    Groups(Vec<Group>),
    /// Create users.
    Users(Vec<User>),
    /// Put files in.
    Files(Vec<FileEntry>),
    /// Run a command.
    Run(Box<Command>),
}

/// A group to create.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: Located<String>,
    /// Its number; `None` for the next free one.
    pub gid: Option<Located<u32>>,
    /// Whether the next free number is one below 1000.
    pub system: bool,
}

/// A user to create.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name.
    pub name: Located<String>,
    /// Its number; `None` for the next free one.
    pub uid: Option<Located<u32>>,
    /// Its first group, by name or number; `None` for one with its own name.
    pub group: Option<Located<String>>,
    /// Further groups.
    pub groups: Vec<Located<String>>,
    /// Its home directory, which is not created; `None` for `/nonexistent`.
    pub home: Option<Located<ImagePath>>,
    /// Its shell; `None` for `/usr/sbin/nologin`.
    pub shell: Option<Located<ImagePath>>,
    /// Whether the next free number is one below 1000.
    pub system: bool,
}

/// A file, a directory or a link to put in.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// What it is.
    pub content: FileContent,
    /// Where it goes. For a [`FileContent::Source`] that is a directory, its children go here; for one that is a file
    /// and a target with a slash at its end, use [`FileEntry::destination`].
    pub target: Located<ImagePath>,
    /// Permissions; `None` for those of the source, or 0644 for a text and 0755 for a directory.
    pub mode: Option<Located<Mode>>,
    /// The owner; `None` for root.
    pub owner: Option<Located<Owner>>,
    /// The whole entry.
    pub span: Span,
}

impl FileEntry {
    /// The path of a single file called `name`: below the target if that ends in a slash, else the target itself.
    pub fn destination(&self, name: &str) -> ImagePath {
        if self.target.ends_in_slash() { self.target.join(name) } else { self.target.value.clone() }
    }
}

/// What a file is made of.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// A file or directory of the family.
    Source {
        /// Relative to the family's directory, and inside it.
        path: Located<RelativePath>,
        /// Whether it is an archive to unpack at the target.
        unpack: bool,
    },
    /// Something to fetch.
    Url {
        /// Where it is.
        url: Located<String>,
        /// What it must hash to: 64 hexadecimal digits in lower case. `None` leaves it to the lock.
        sha256: Option<Located<String>>,
        /// Whether it is an archive to unpack at the target.
        unpack: bool,
    },
    /// A text of its own.
    Text(Located<String>),
    /// A symbolic link, pointing here.
    Link(Located<String>),
    /// An empty directory.
    Directory,
}

/// A command to run while building.
#[derive(Clone, Debug)]
pub struct Command {
    /// What is run.
    pub line: Located<CommandLine>,
    /// As whom; `None` for root.
    pub user: Option<Located<Owner>>,
    /// Where; `None` for the image's own directory.
    pub workdir: Option<Located<ImagePath>>,
    /// Variables that only this command sees.
    pub env: Vec<Entry<EnvName>>,
    /// Whether it may reach the network.
    pub network: Network,
    /// What is mounted meanwhile.
    pub mounts: Vec<Mount>,
}

/// A command as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// The program and its arguments.
    Exec(Vec<String>),
}

impl CommandLine {
    /// The argument vector that the kernel gets.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            Self::Exec(arguments) => arguments.clone(),
        }
    }
}

/// The network of a command.
#[derive(Clone, Debug)]
pub enum Network {
    /// None at all, which is the default.
    None,
    /// The host's, asked for here.
    Host(Span),
}

/// Something mounted while a command runs.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Where it appears.
    pub target: Located<ImagePath>,
    /// The whole entry.
    pub span: Span,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountKind {
    /// A directory kept between builds, by name; the target's path if it has none.
    Cache(Option<Located<String>>),
    /// A secret of the build, by name.
    Secret(Located<String>),
    /// A directory that is gone afterwards.
    Tmpfs,
    /// A file or directory of the family, relative to the family's directory and inside it.
    Bind(Located<RelativePath>),
}

/// What an image changes in the configuration that it inherits.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Environment, in the order of the file; for an image without a parent in the family, after its defaults.
    pub env: Vec<Entry<EnvName>>,
    /// Labels, like the environment.
    pub labels: Vec<Entry<LabelKey>>,
    /// As whom the process runs.
    pub user: Option<Located<Owner>>,
    /// Where the process starts.
    pub workdir: Option<Located<ImagePath>>,
    /// Ports it listens on, in addition to the parent's.
    pub expose: Vec<Located<Port>>,
    /// Directories outside the image, in addition to the parent's.
    pub volumes: Vec<Located<ImagePath>>,
    /// The signal that asks the process to end.
    pub stop_signal: Option<Located<StopSignal>>,
    /// How to see that the process is well.
    pub healthcheck: Option<Located<Healthcheck>>,
    /// What is started. An image that sets it and no [`Config::cmd`] has no command: the parent's is discarded.
    pub entrypoint: Option<Located<CommandLine>>,
    /// The arguments of the entry point.
    pub cmd: Option<Located<CommandLine>>,
}

/// How to see that the process is well.
#[derive(Clone, Debug)]
pub enum Healthcheck {
    /// Not at all: the parent's check is switched off.
    Off,
    /// By a command that succeeds.
    Check {
        /// The command.
        command: Located<CommandLine>,
        /// The time between checks.
        interval: Option<Duration>,
        /// The longest a check may take.
        timeout: Option<Duration>,
        /// The time after the start in which failures do not count.
        start_period: Option<Duration>,
        /// How many failures in a row are too many.
        retries: Option<u32>,
    },
}

/// A name and a value.
#[derive(Clone, Debug)]
pub struct Entry<K> {
    /// The name.
    pub key: Located<K>,
    /// The value.
    pub value: Located<String>,
}
