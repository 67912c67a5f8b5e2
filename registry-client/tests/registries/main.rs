//! The client against registries: our own, Debian's, and bad ones.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail and skip as tests do")]

mod auth;
mod bench;
mod debian;
mod faults;
mod limits;
mod suite;
