//! Dockerfiles: text in, instructions with their places out; then words with their variables in place.
//!
//! Two stages, two sets of types. [`Dockerfile`] is the file as its author wrote it, split into stages and instructions,
//! every one of them checked as far as that goes without knowing a variable; [`Scope`] knows the variables, and turns
//! the words of an instruction into what they mean. The language is the one that BuildKit's reference defines; what is
//! different on purpose is said where it is.
//!
//! As everywhere in this crate no file is read: [`SourceFile::from_bytes`](crate::SourceFile::from_bytes) takes what
//! the caller read.

mod ast;
mod directive;
mod duration;
mod expand;
mod flags;
mod heredoc;
mod ignore;
mod line;
mod mount;
mod pattern;
mod read;
mod scope;
mod words;

pub use ast::{
    Add, Argument, CommandForm, Copy, Dockerfile, Healthcheck, Instruction, Kind, Onbuild, Pair, Pairs, Run,
    RunNetwork, RunSecurity, Script, Source, Stage, Transfer,
};
pub use directive::{Check, Directives, RuleNames};
pub use expand::{ExpandError, Expanded};
pub use heredoc::Heredoc;
pub use ignore::IgnoreRules;
pub use mount::{CacheSharing, MountFlag, MountType, RunMount};
pub use pattern::{BadPattern, Pattern};
pub use read::{parse, parse_trigger};
pub use scope::{Arguments, PLATFORM_ARGUMENTS, PROXY_ARGUMENTS, Scope};

/// The names of all instructions, as they are written by convention.
pub const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

pub(crate) use read::{Reading, SAME_NAME, read};
