//! Whole builds through the real binary, judged by other people's tools.
//!
//! `tests/run` installs the tools and starts this. What a test needs and does not find makes it fail and say so.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail, and look around, as tests do"
)]

mod architecture;
mod build;
mod bundles;
mod bytecode;
mod copies;
mod dockerfiles;
mod doctor;
mod family;
mod images;
mod inside;
mod lint;
mod lock;
mod logins;
mod parity;
mod plan;
mod platforms;
mod sandboxes;
mod sealed;
mod serve;
mod support;
mod whole_family;
