//! What tests share: the binary, directories, other people's tools.

pub mod docker;
pub mod family;
pub mod program;
pub mod users;
