//! How a client tells what it does.

use std::time::Duration;

use content::Digest;
use oci::Descriptor;

use crate::{Pushed, RequestName};

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Some more bytes of a blob were handed to the network.
    Sent {
        /// The blob.
        digest: Digest,
        /// How many more.
        bytes: u64,
    },
    /// Some more bytes of a blob came.
    Received {
        /// The blob.
        digest: Digest,
        /// How many more.
        bytes: u64,
    },
    /// An upload goes on from here: what was counted beyond is sent again.
    Rewound {
        /// The blob.
        digest: Digest,
        /// How many bytes the registry has.
        offset: u64,
    },
    /// A request will be tried again.
    Retrying {
        /// The request.
        request: &'a RequestName,
        /// How often it was tried.
        attempt: u32,
        /// The pause before it is tried again.
        wait: Duration,
        /// Why, with the request that it was.
        cause: &'a str,
    },
    /// A blob is where it should be.
    Finished {
        /// The blob.
        descriptor: &'a Descriptor,
        /// How it got there.
        pushed: Pushed,
    },
}

/// Someone who wants to know. Called from the middle of transfers: must be quick.
pub trait Events: Send + Sync {
    /// Takes note of an event.
    fn event(&self, event: Event<'_>);
}

/// Wants to know nothing.
pub struct Silent;

impl Events for Silent {
    fn event(&self, _: Event<'_>) {}
}
