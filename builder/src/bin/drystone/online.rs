//! Work that talks to registries, from the command line's side.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::failure::Failure;
use crate::session;

/// How long a transfer that was given up may take to let go of its files.
const FAREWELL: Duration = Duration::from_secs(2);

/// Does it, until it is done or somebody asks to stop.
pub fn run<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let interrupt = session::stop_on_signals()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done.map_err(Failure::from),
            () = async {
                while !interrupt.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            } => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_timeout(FAREWELL);
    done
}
