//! Everybody else waits: so that a person can look around where a step failed, without the output of others.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who works, and whether somebody wants to be alone.
#[derive(Default)]
pub struct Pause {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    working: usize,
    /// Those who are alone, or wait until they are.
    alone: usize,
    /// Whether one of them is.
    taken: bool,
}

/// Held by whoever works.
pub struct Working<'a>(&'a Pause);

impl Pause {
    /// Begins to work, as soon as nobody wants to be alone.
    pub fn work(&self) -> Working<'_> {
        self.join();
        Working(self)
    }

    /// For whoever works: does something that may wait for others who work.
    pub fn aside<T>(&self, act: impl FnOnce() -> T) -> T {
        self.leave();
        let _back = Rejoin(self);
        act()
    }

    /// For whoever works: acts while nobody else works. Several do so one after the other.
    pub fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        self.lock().alone += 1;
        self.leave();
        let mut state = self.lock();
        while state.working > 0 || state.taken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken = true;
        drop(state);
        let _back = Rejoin(self);
        let _others = Release(self);
        act()
    }

    fn join(&self) {
        let mut state = self.lock();
        while state.alone > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.working += 1;
    }

    fn leave(&self) {
        self.lock().working -= 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Works again when dropped.
struct Rejoin<'a>(&'a Pause);

impl Drop for Rejoin<'_> {
    fn drop(&mut self) {
        self.0.join();
    }
}

/// Is alone no more when dropped.
struct Release<'a>(&'a Pause);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.alone -= 1;
        state.taken = false;
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_is_alone_is_alone_and_all_come_through() {
        let pause = Pause::default();
        let (inside, lonely) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let (pause, inside, lonely) = (&pause, &inside, &lonely);
                scope.spawn(move || {
                    for round in 0..20 {
                        let _working = pause.work();
                        inside.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(200));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if (worker + round) % 5 == 0 {
                            pause.alone(|| {
                                assert_eq!(inside.load(Ordering::SeqCst), 0);
                                assert_eq!(lonely.fetch_add(1, Ordering::SeqCst), 0);
                                std::thread::sleep(Duration::from_micros(200));
                                lonely.fetch_sub(1, Ordering::SeqCst);
                            });
                        }
                    }
                });
            }
        });
        assert_eq!(pause.lock().working, 0);
    }

    #[test]
    fn whoever_waits_aside_for_one_who_is_alone_does_not_hold_it_up() {
        let pause = Pause::default();
        let lock = Mutex::new(());
        std::thread::scope(|scope| {
            let held = lock.lock().unwrap();
            let working = pause.work();
            scope.spawn(|| {
                let _working = pause.work();
                drop(pause.aside(|| lock.lock().unwrap()));
            });
            pause.alone(|| std::thread::sleep(Duration::from_millis(20)));
            drop((held, working));
        });
    }
}
