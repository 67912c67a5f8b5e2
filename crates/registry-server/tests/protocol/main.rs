//! The distribution API as clients see it: requests over a loopback connection, and skopeo.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bench;
mod blobs;
mod discovery;
mod doors;
mod garbage;
mod manifests;
mod skopeo;
mod specification;
mod uploads;
