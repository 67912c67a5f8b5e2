//! The client against registries: our own, Debian's, and bad ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod auth;
mod bench;
mod debian;
mod faults;
mod limits;
mod mirrors;
mod pulls;
mod pushes;
mod secrets;
mod suite;
mod tokens;
