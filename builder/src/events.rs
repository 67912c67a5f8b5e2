//! What happens during a build, as it happens. The library tells; whoever called it decides what to show.

use std::path::Path;
use std::time::Duration;

use spec::ImageName;

/// Something worth telling.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A fact about how this build is done, such as the sandbox chosen.
    Note(&'a str),
    /// Something that works but that the user should know.
    Warning(&'a str),
    /// So many files, of so many bytes together, will be fetched.
    FetchStarted {
        /// Number of files.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// Bytes of those files arrived.
    FetchProgress {
        /// How many since the last time.
        bytes: u64,
    },
    /// All are there and verified.
    FetchFinished,
    /// A step of an image begins.
    StepStarted {
        /// The image.
        image: &'a ImageName,
        /// What is done.
        step: &'a str,
    },
    /// A line that a command printed in a step.
    StepOutput {
        /// The image.
        image: &'a ImageName,
        /// The line, without its end.
        line: &'a str,
    },
    /// A step of an image is done.
    StepFinished {
        /// The image.
        image: &'a ImageName,
        /// What was done.
        step: &'a str,
        /// Whether an earlier build had done it.
        cached: bool,
        /// How long it took.
        elapsed: Duration,
    },
    /// An image is in the layout.
    ImageFinished {
        /// The image.
        image: &'a ImageName,
        /// Whether nothing had to be done.
        cached: bool,
        /// Where what was done is written down, if something was.
        log: Option<&'a Path>,
    },
    /// An image failed; its children will not be built.
    ImageFailed {
        /// The image.
        image: &'a ImageName,
        /// Why, in one line.
        error: &'a str,
        /// What the command that failed printed last, if one did.
        last_lines: &'a [String],
        /// Where all of it is written down.
        log: Option<&'a Path>,
    },
    /// Bytes of blobs were sent to a registry.
    PushProgress {
        /// How many since the last time.
        bytes: u64,
    },
    /// Bytes of blobs came from a registry.
    PullProgress {
        /// How many since the last time.
        bytes: u64,
    },
    /// An image and its name are in the layout.
    ImagePulled {
        /// The reference it has there.
        reference: &'a str,
        /// Whether the layout had all of its blobs.
        already_there: bool,
    },
    /// An image and its tag are in the registry.
    ImagePushed {
        /// The reference it has there.
        reference: &'a str,
        /// Whether the registry had it already.
        already_there: bool,
    },
}

/// Learns of events, from several threads at once. Must return quickly.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn observe(&self, event: Event<'_>);
}

/// Nobody listens.
impl Observer for () {
    fn observe(&self, _: Event<'_>) {}
}
