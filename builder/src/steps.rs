//! What can be done to an image's files, one module a kind of step. Each step makes at most one layer.

pub mod accounts;
pub mod bytecode;
pub mod commands;
pub mod configure;
pub mod files;
mod keystore;
pub mod mounts;
pub mod packages;
