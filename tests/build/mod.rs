//! `drystone build`, and what it does when its input is bad or the world is.

mod accidents;
mod accounts;
mod archives;
mod bases;
mod damage;
mod explain;
pub mod layers;
mod outcome;
mod outputs;
mod packages;
mod registries;
mod remote_cache;
mod runs;
pub mod same_bytes;
mod specs;
mod without_sandbox;
