//! Debian archives as a build sees them: where they are, what they offer, and which packages an image gets.

pub mod archive;
pub mod copy;
pub mod mirror;
