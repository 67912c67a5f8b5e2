//! Lays packages before the images that have them can be begun: while the scripts of a parent run, one after the other,
//! the packages of all that is built on it are fetched, compressed, compiled, laid and unpacked.
//!
//! An image begins this when its packages turn out not to be in the cache; then those of its descendants are not there
//! either, since their keys begin with its own. Nothing depends on it: what was not made ahead, or was made for another
//! ground than there is in the end, is made when it is needed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Builder;
use super::packages::{PackagesStep, packages_span};
use crate::cut::Cut;
use crate::error::BuildError;
use crate::layering;
use crate::plan::{LockedPackage, Plan};
use crate::steps::commands::Runner;
use crate::steps::packages::Workshop;

/// How much these threads, and what they start, leave to the others: see nice(2).
const NICENESS: i32 = 5;

/// A step that lays packages: the places of its image in the plan, and of itself in the image.
type StepPlace = (usize, usize);

/// Packages that will be needed.
pub(super) struct Ahead<'p> {
    plan: &'p Plan<'p>,
    cut: &'p Cut,
    /// Images of the plan that are built, the most urgent first.
    order: Vec<usize>,
    state: Mutex<State>,
    changed: Condvar,
    /// Set when nothing is to be begun any more.
    over: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    waiting: Vec<StepPlace>,
    seen: HashSet<StepPlace>,
}

impl<'p> Ahead<'p> {
    /// For a plan of which the images in `order` are built, the most urgent first, and how their packages are cut.
    pub(super) fn new(plan: &'p Plan<'p>, cut: &'p Cut, order: Vec<usize>) -> Self {
        let (state, changed, over) = (Mutex::default(), Condvar::new(), Arc::default());
        Self { plan, cut, order, state, changed, over }
    }

    /// The packages of an image are laid, so those of all that is built on it will be.
    pub(super) fn begin(&self, image: usize) {
        let mut state = self.lock();
        for above in self.order.iter().copied().filter(|place| self.is_on(*place, image)) {
            for step in self.plan.images[above].packages.keys() {
                if state.seen.insert((above, *step)) {
                    state.waiting.push((above, *step));
                }
            }
        }
        self.changed.notify_all();
    }

    fn is_on(&self, image: usize, parent: usize) -> bool {
        std::iter::successors(self.plan.images[image].parent, |place| self.plan.images[*place].parent)
            .any(|place| place == parent)
    }

    /// Ends it when `interrupt` is set: whoever would end it may wait for what is done here. Returns when it has ended.
    pub(super) fn watch(&self, interrupt: &AtomicBool) {
        const PERIOD: Duration = Duration::from_millis(100);
        let mut state = self.lock();
        while !self.over.load(Ordering::Relaxed) {
            if interrupt.load(Ordering::Relaxed) {
                self.over.store(true, Ordering::Relaxed);
                self.changed.notify_all();
            }
            state = self.changed.wait_timeout(state, PERIOD).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Works until [`Ahead::end`] is called, or something fails, of which whoever needs it will tell.
    ///
    /// It is nice to the threads of images. Where one of them waits for something that is made here, it gets it at the pace
    /// of this one, which has a processor then unless others of the machine want all of them.
    pub(super) fn work(&self, builder: &Builder<'_>) {
        // So that none of this is in the way of scripts. Where it is refused, they share the processors.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let mut state = self.lock();
        while !self.over.load(Ordering::Relaxed) {
            let batch = std::mem::take(&mut state.waiting);
            if batch.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            self.lay(builder, &batch);
            state = self.lock();
        }
    }

    /// Lays the packages of steps, one step after the other. Meanwhile those of all of them are fetched.
    fn lay(&self, builder: &Builder<'_>, batch: &[StepPlace]) {
        let mut seen = HashSet::new();
        let packages = batch.iter().flat_map(|(image, step)| &self.plan.images[*image].packages[step]);
        let packages: Vec<&LockedPackage> = packages.filter(|package| seen.insert(package.sha256)).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| self.stop_on(self.workshop(builder).fetch_ahead(&packages)));
            for place in batch {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                self.stop_on(self.lay_step(builder, *place));
            }
        });
    }

    fn lay_step(&self, builder: &Builder<'_>, (image, place): StepPlace) -> Result<(), BuildError> {
        let planned = &self.plan.images[image];
        builder.lay_ahead(&PackagesStep {
            image: &planned.image.name,
            platform: &self.plan.platform,
            packages: &planned.packages[&place],
            groups: layering::of_step(self.cut, self.plan, image, place),
            compiling: &planned.compiling[&place],
            span: packages_span(planned.image, &planned.image.steps[place]),
            workshop: self.workshop(builder),
            runner: Runner { observer: &(), look_around: None, interrupt: &self.over, ..builder.runner() },
            begun: &|| {},
        })
    }

    /// It says nothing, and stops when this is over.
    fn workshop<'b>(&'b self, builder: &'b Builder<'_>) -> Workshop<'b> {
        Workshop { observer: &(), interrupt: &self.over, ..builder.workshop() }
    }

    fn stop_on(&self, done: Result<(), BuildError>) {
        if done.is_err() {
            self.over.store(true, Ordering::Relaxed);
        }
    }

    /// Nothing is needed any more.
    pub(super) fn end(&self) {
        // Held, so that nobody misses it between looking and waiting.
        let _state = self.lock();
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
