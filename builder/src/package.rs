//! Debian packages on their way into layers: fetched once, turned into a segment once, whatever family needs them.

pub mod bytecode;
pub mod compiles;
pub mod database;
pub mod download;
pub mod segment;
