//! Makes the segments of packages before the images that have them can be begun: while the scripts of a parent run, one
//! after the other, the packages of all that is built on it are fetched and compressed.
//!
//! An image begins this when its packages turn out not to be in the cache; then those of its descendants are not there
//! either, since their keys begin with its own. Nothing depends on it: what was not made ahead is made when it is needed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use content::Digest;

use crate::plan::{LockedPackage, Plan};
use crate::steps::packages::Workshop;

/// Packages that will be needed.
pub(super) struct Ahead<'p> {
    plan: &'p Plan<'p>,
    /// Images of the plan that are built, the most urgent first.
    order: Vec<usize>,
    state: Mutex<State<'p>>,
    changed: Condvar,
    /// Set when nothing is to be begun any more.
    over: AtomicBool,
}

#[derive(Default)]
struct State<'p> {
    waiting: Vec<&'p LockedPackage>,
    seen: HashSet<Digest>,
}

impl<'p> Ahead<'p> {
    /// For a plan of which the images in `order` are built, the most urgent first.
    pub(super) fn new(plan: &'p Plan<'p>, order: Vec<usize>) -> Self {
        Self { plan, order, state: Mutex::default(), changed: Condvar::new(), over: AtomicBool::new(false) }
    }

    /// The packages of an image are laid, so those of all that is built on it will be.
    pub(super) fn begin(&self, image: usize) {
        let mut state = self.lock();
        for above in self.order.iter().copied().filter(|place| self.is_on(*place, image)) {
            for package in self.plan.images[above].packages.values().flatten() {
                if state.seen.insert(package.sha256) {
                    state.waiting.push(package);
                }
            }
        }
        self.changed.notify_all();
    }

    fn is_on(&self, image: usize, parent: usize) -> bool {
        std::iter::successors(self.plan.images[image].parent, |place| self.plan.images[*place].parent)
            .any(|place| place == parent)
    }

    /// Works until [`Ahead::end`] is called, or something fails, of which whoever needs it will tell.
    pub(super) fn work(&self, workshop: &Workshop<'_>) {
        let mut state = self.lock();
        while !self.over.load(Ordering::Relaxed) {
            let batch = std::mem::take(&mut state.waiting);
            if batch.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            workshop.make_ahead(&batch, &self.over);
            state = self.lock();
        }
    }

    /// Nothing is needed any more.
    pub(super) fn end(&self) {
        // Held, so that nobody misses it between looking and waiting.
        let _state = self.lock();
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<'p>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls [`Ahead::end`] when dropped, also if a panic goes by.
pub(super) struct Over<'a, 'p>(pub(super) &'a Ahead<'p>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
