//! drystone builds families of OCI images without a daemon, without root and without privileges.
//!
//! The stages, each with its own types, from what people write to what a registry has:
//!
//! 1. [`load`]: a directory of specs → a checked [`spec::Family`]
//! 2. [`plan`]: the family → every package by digest, as the [`mod@lock`] says or with the help of [`apt`]
//! 3. [`build`]: the plan → layers and images in a layout; the kinds of steps are in [`steps`]
//! 4. [`push`]: the layout → a registry; [`pull`]: the way back
//!
//! Beside them, [`doctor`] says what a machine allows, and [`lint`] what had better be written otherwise.
//!
//! This library does not print, exit, or read the environment or the clock. What happens is told to an
//! [`events::Observer`]; what went wrong is a [`error::BuildError`].

pub mod accounts;
pub mod apt;
pub mod archive;
pub mod base;
pub mod build;
pub mod bundle;
pub mod contents;
pub mod copy;
pub mod cut;
pub mod difference;
pub mod dockerfile;
pub mod doctor;
pub mod entrypoint;
pub mod error;
pub mod events;
pub mod fetch;
pub mod graph;
pub mod image;
pub mod inventory;
pub mod layering;
pub mod layers;
pub mod lint;
pub mod listing;
pub mod load;
pub mod lock;
pub mod logs;
pub mod missing;
pub mod output;
pub mod overview;
pub mod package;
pub mod parallel;
pub mod pause;
pub mod plan;
pub mod platform;
pub mod provenance;
pub mod pull;
pub mod push;
pub mod python;
pub mod rebuild;
pub mod referrers;
pub mod remote;
mod resolve;
pub mod rootfs;
pub mod sbom;
pub mod scrub;
pub mod secrets;
pub mod statements;
pub mod steps;
