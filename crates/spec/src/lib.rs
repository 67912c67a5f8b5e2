//! The languages of specs: YAML and Dockerfiles in, checked declarations out.
//!
//! Three stages, three sets of types. [`written`] is a file as its author wrote it; [`Family::assemble`] checks all
//! files of a family together and yields [`Family`] and [`Image`], whose values are types that cannot be wrong and
//! which know the place they came from. This crate reads no files and opens no sockets: text arrives in a
//! [`SourceFile`], and what is wrong with it leaves as [`Diagnostics`].

mod assemble;
pub mod convert;
mod diagnostic;
pub mod dockerfile;
mod graph;
mod interpolate;
pub mod lint;
pub mod lock;
mod lower;
mod model;
pub mod schema;
mod source;
mod suggest;
mod value;
pub mod written;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, render};
pub use interpolate::Variables;
pub use model::{
    AptIndex, AptSource, Command, CommandLine, Config, Entry, Family, FileContent, FileEntry, Group, Healthcheck,
    Image, Mount, MountKind, Network, Parent, Step, Trust, User,
};
pub use source::{Located, SourceFile, Span};
pub use suggest::did_you_mean;
pub use value::{
    EnvName, ImageName, ImagePath, Invalid, LabelKey, Mode, Owner, PackageRequest, Platform, Port, Protocol, Registry,
    RelativePath, StopSignal, Tag,
};
pub use written::{parse_family, parse_image};
