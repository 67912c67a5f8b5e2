//! One piece of work for each of several things, on some threads; and places, of which a build has so many whatever the
//! number of its threads, so that memory does not grow with it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};

use crate::error::BuildError;

/// A number of places, each taken by one thread at a time.
pub struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A taken place, free again when dropped.
pub struct Place<'a>(&'a Places);

impl Places {
    /// So many places, at least one.
    pub fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub fn take(&self) -> Place<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// Calls `work` for each item on at most so many threads, in this order; the first error stops the rest.
pub fn each<T: Sync>(
    items: &[T],
    threads: usize,
    interrupt: &AtomicBool,
    work: impl Fn(&T) -> Result<(), BuildError> + Sync,
) -> Result<(), BuildError> {
    let next = AtomicUsize::new(0);
    let (errors, first) = mpsc::channel();
    let failed = AtomicBool::new(false);
    let worker = |errors: mpsc::Sender<BuildError>| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) || interrupt.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = work(item) {
                failed.store(true, Ordering::Relaxed);
                // The receiver lives until all threads are done.
                let _ = errors.send(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, items.len().max(1)) {
            let errors = errors.clone();
            scope.spawn(|| worker(errors));
        }
        worker(errors);
    });
    if interrupt.load(Ordering::Relaxed) {
        return Err(BuildError::Interrupted);
    }
    first.try_iter().next().map_or(Ok(()), Err)
}

/// The same where `work` makes something; what it made is in the order of the items, whatever the order of the work.
pub fn map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    interrupt: &AtomicBool,
    work: impl Fn(&T) -> Result<R, BuildError> + Sync,
) -> Result<Vec<R>, BuildError> {
    let made: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let places: Vec<usize> = (0..items.len()).collect();
    each(&places, threads, interrupt, |place| {
        let value = work(&items[*place])?;
        *made[*place].lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    })?;
    let value = |made: Mutex<Option<R>>| made.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(made.into_iter().map(|made| value(made).expect("work without an error made it")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_in_the_order_of_the_items() {
        let running = AtomicBool::new(false);
        let items: Vec<u64> = (0..40).rev().collect();
        let doubled = map(&items, 4, &running, |item| {
            std::thread::sleep(std::time::Duration::from_micros(50 * (item % 3)));
            Ok(item * 2)
        });
        assert_eq!(doubled.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_stops_the_rest_and_an_interrupt_is_one() {
        let interrupt = AtomicBool::new(false);
        let done = AtomicUsize::new(0);
        let failed = each(&[0; 100], 1, &interrupt, |_| match done.fetch_add(1, Ordering::Relaxed) {
            2 => Err(std::io::Error::other("no").into()),
            _ => Ok(()),
        });
        assert_eq!((failed.unwrap_err().to_string(), done.into_inner()), ("no".to_owned(), 3));
        interrupt.store(true, Ordering::Relaxed);
        assert!(matches!(each(&[0], 1, &interrupt, |_| Ok(())), Err(BuildError::Interrupted)));
    }
}
