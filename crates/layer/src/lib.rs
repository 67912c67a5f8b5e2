//! Layers: what is in them, how they are written so that the same input gives the same bytes, how they are read from
//! hostile hands, and how a tree on disk becomes one or is made from one.
//!
//! - [`entry`]: paths and entries, the words of everything else
//! - [`mod@write`], [`read`]: tar out and in
//! - [`compress`]: gzip members and zstd frames that can be concatenated
//! - [`record`]: trees on disk, with true owners even where the builder may not chown
//! - [`files`]: what a container sees, from tars alone
//! - [`view`]: several trees seen as one, as overlayfs shows them
//! - [`unpack`], [`diff`]: from a layer to a tree, and from a tree to a layer
//! - [`mod@squash`]: several layers as one

pub mod compress;
pub mod diff;
pub mod entry;
pub mod files;
pub mod read;
pub mod record;
pub mod squash;
pub mod unpack;
pub mod view;
pub mod write;
