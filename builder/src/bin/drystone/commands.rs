//! One module a command: its arguments come in, one call into the library is made, and words go out.

pub mod build;
pub mod bundle;
pub mod convert;
pub mod copy;
pub mod diff;
pub mod dockerfile;
pub mod doctor;
pub mod executor;
pub mod explain;
pub mod gc;
pub mod images;
pub mod inspect;
pub mod lint;
pub mod lock;
pub mod login;
pub mod meta;
pub mod plan;
pub mod pull;
pub mod push;
pub mod rebuild;
pub mod remote;
pub mod sbom;
pub mod serve;
pub mod up;
pub mod verify;
