//! Runs one command in a root filesystem made of layers, as true root of it, whoever starts the builder.
//!
//! A builder calls [`enter()`] once, at the start of `main`, while it has one thread. That takes the best [`Rung`] that
//! the machine allows and returns the [`Sandbox`]. From then on [`Sandbox::run`] runs commands, from as many threads as
//! one likes. What a command changes ends up in the upper tree of its [`Job`], with the owners it should have: in the
//! file system on the rungs `root` and `userns`, in records (`layer::record`) on `userns-single`. On the rung `none`
//! nothing can be run, and [`Sandbox::may_run`] says why.
//!
//! How a run is built, from the outside in:
//!
//! - `run` (the builder): prepares the trees (`stage`), starts the first process, streams output, waits, cleans up;
//! - `child` (process 1 of new namespaces): mounts (`mounts`), starts the command, reaps orphans, ends everything;
//! - `child` again (the command): drops capabilities, loads the system call filter (`filter`), executes the program;
//! - `supervisor` (a thread of the builder, not on `root`): answers the calls that a plain user may not make: on
//!   `userns` those that make device nodes and look at them, on `userns-single` all that concern owners.
//!
//! On the rung `chroot` nothing can be mounted and there are no namespaces; `chroot` says what stands in for them.
//!
//! Between `clone` and `execve` a child of a process with threads may not allocate memory or take locks. So everything
//! that `child` and `mounts` need is made before, in a `Plan`, and they only make system calls.

mod acl;
mod child;
mod chroot;
mod enter;
mod filter;
mod helpers;
mod job;
mod machine;
mod memory;
mod mounts;
mod notify;
mod obstacle;
mod plan;
mod probe;
mod ranges;
mod run;
mod rung;
mod stage;
mod supervisor;
mod sys;
mod terminal;
mod wire;

pub use enter::{CannotRun, EnterError, Sandbox, enter};
pub use job::{Hidden, Job, Mount, MountSource, Network, Outcome, Stdin, User};
pub use memory::share_arenas;
pub use obstacle::Obstacle;
pub use probe::{RungReport, probe};
pub use run::RunError;
pub use rung::{Choice, ChoiceError, Rung};
pub use terminal::lend_terminal;
