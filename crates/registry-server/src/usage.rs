//! How much the layout holds, and whether more may come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use store::{Layout, StoreError};
use tokio::time::Instant;

/// For how long a figure is used: builds write to the layout too, and are not counted otherwise.
const FRESH: Duration = Duration::from_secs(10);

/// The bytes of a layout, measured now and then, and counted in between.
pub(crate) struct Usage {
    limit: Option<u64>,
    bytes: AtomicU64,
    measured: Mutex<Option<Instant>>,
}

impl Usage {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, bytes: AtomicU64::new(0), measured: Mutex::new(None) }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Looks at the disk if the last time was too long ago. Waits for it.
    pub(crate) fn measure(&self, layout: &Layout) -> Result<u64, StoreError> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.is_none_or(|time| time.elapsed() > FRESH) {
            self.bytes.store(layout.bytes()?, Ordering::Relaxed);
            *measured = Some(Instant::now());
        }
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    /// Counts bytes that are about to be written. Whether there is room for them.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let Some(limit) = self.limit else { return true };
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if taken > limit {
            self.give_back(bytes);
            return false;
        }
        true
    }

    /// Takes back [`Usage::take`].
    pub(crate) fn give_back(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}
