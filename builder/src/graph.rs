//! Does things that depend on each other, several at once: parents before their children, independent ones together,
//! and of those that could be started first the one that most remains to be done behind.

use std::sync::{Condvar, Mutex};

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T, E> {
    /// It was done.
    Done(T),
    /// It failed itself.
    Failed(E),
    /// A node it depends on was not done.
    Skipped,
}

struct State<T, E> {
    outcomes: Vec<Option<Outcome<T, E>>>,
    started: Vec<bool>,
    /// Nothing new is started any more.
    stopped: bool,
}

/// For each node, its own work and that of the longest chain of nodes that wait for it. `parents` is as for [`run`].
pub fn remaining(parents: &[Vec<usize>], own: &[u64]) -> Vec<u64> {
    let mut remaining = own.to_vec();
    let mut behind = vec![0; own.len()];
    for node in (0..own.len()).rev() {
        remaining[node] = own[node].saturating_add(behind[node]);
        for parent in &parents[node] {
            behind[*parent] = behind[*parent].max(remaining[node]);
        }
    }
    remaining
}

/// Calls `work` for every node, on at most `jobs` threads; `parents[n]` are the nodes that must be done before `n`, and
/// have smaller numbers. Of the nodes that can be started, the one whose `urgency` is greatest is. `work` gets the node
/// and what its parents gave, in their order. After the first failure nothing new is started unless `keep_going`; what
/// runs is finished.
pub fn run<T: Clone + Send, E: Send>(
    parents: &[Vec<usize>],
    urgency: &[u64],
    jobs: usize,
    keep_going: bool,
    work: impl Fn(usize, &[T]) -> Result<T, E> + Sync,
) -> Vec<Outcome<T, E>> {
    debug_assert!(parents.iter().enumerate().all(|(node, parents)| parents.iter().all(|parent| *parent < node)));
    debug_assert_eq!(parents.len(), urgency.len());
    let count = parents.len();
    let empty = State { outcomes: (0..count).map(|_| None).collect(), started: vec![false; count], stopped: false };
    let state = Mutex::new(empty);
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            scope.spawn(|| worker((parents, urgency), keep_going, &state, &changed, &work));
        }
    });
    let state = state.into_inner().expect("a worker that panics takes the whole scope with it");
    state.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Skipped)).collect()
}

fn worker<T: Clone, E>(
    (parents, urgency): (&[Vec<usize>], &[u64]),
    keep_going: bool,
    state: &Mutex<State<T, E>>,
    changed: &Condvar,
    work: &impl Fn(usize, &[T]) -> Result<T, E>,
) {
    let mut held = state.lock().expect("no worker panics while it holds the state");
    loop {
        skip_children(parents, &mut held);
        let Some(node) = next(parents, urgency, &held) else {
            if held.stopped || held.started.iter().all(|started| *started) {
                changed.notify_all();
                return;
            }
            held = changed.wait(held).expect("no worker panics while it holds the state");
            continue;
        };
        held.started[node] = true;
        let given = parents[node].iter().filter_map(|parent| match &held.outcomes[*parent] {
            Some(Outcome::Done(value)) => Some(value.clone()),
            _ => None,
        });
        let given: Vec<T> = given.collect();
        drop(held);
        let panicking = StopOnPanic { state, changed };
        let outcome = work(node, &given);
        std::mem::forget(panicking);
        held = state.lock().expect("no worker panics while it holds the state");
        held.stopped |= outcome.is_err() && !keep_going;
        held.outcomes[node] = Some(match outcome {
            Ok(value) => Outcome::Done(value),
            Err(error) => Outcome::Failed(error),
        });
        changed.notify_all();
    }
}

/// Wakes the other workers and lets them end if `work` panics; the scope then passes the panic on.
struct StopOnPanic<'a, T, E> {
    state: &'a Mutex<State<T, E>>,
    changed: &'a Condvar,
}

impl<T, E> Drop for StopOnPanic<'_, T, E> {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }
}

/// The most urgent node that can be started; the first of several.
fn next<T, E>(parents: &[Vec<usize>], urgency: &[u64], state: &State<T, E>) -> Option<usize> {
    let is_done = |parent: &usize| matches!(state.outcomes[*parent], Some(Outcome::Done(_)));
    let is_ready = |node: &usize| parents[*node].iter().all(is_done);
    if state.stopped {
        return None;
    }
    let ready = (0..parents.len()).filter(|node| !state.started[*node]).filter(is_ready);
    ready.max_by_key(|node| (urgency[*node], std::cmp::Reverse(*node)))
}

/// Parents have smaller numbers, so one pass reaches grandchildren too.
fn skip_children<T, E>(parents: &[Vec<usize>], state: &mut State<T, E>) {
    for (node, parents) in parents.iter().enumerate() {
        let is_lost = |parent: &usize| matches!(state.outcomes[*parent], Some(Outcome::Failed(_) | Outcome::Skipped));
        if !state.started[node] && parents.iter().any(is_lost) {
            state.started[node] = true;
            state.outcomes[node] = Some(Outcome::Skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn children_get_what_their_parent_gave() {
        let parents = [vec![], vec![0], vec![1], vec![], vec![3], vec![0, 3]];
        let sum = |node: usize, parents: &[usize]| {
            Ok(node + if parents.is_empty() { 100 } else { parents.iter().sum::<usize>() })
        };
        let outcomes = run::<usize, ()>(&parents, &[0; 6], 3, false, sum);
        let expected = [100, 101, 103, 103, 107, 208].map(Outcome::Done);
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn a_failure_stops_its_children_and_with_keep_going_no_one_else() {
        let parents = [vec![], vec![0], vec![1], vec![], vec![3]];
        let outcomes =
            run::<(), usize>(&parents, &[0; 5], 2, true, |node, _| if node == 1 { Err(node) } else { Ok(()) });
        let expected = [Outcome::Done(()), Outcome::Failed(1), Outcome::Skipped, Outcome::Done(()), Outcome::Done(())];
        assert_eq!(outcomes, expected);
        let outcomes = run::<(), ()>(&parents, &[0; 5], 1, false, |_, _| Err(()));
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Failed(())).count(), 1);
    }

    #[test]
    fn independent_nodes_run_at_the_same_time() {
        let barrier = std::sync::Barrier::new(4);
        let most = AtomicUsize::new(0);
        run::<(), ()>(&[const { Vec::new() }; 4], &[0; 4], 4, false, |_, _| {
            most.fetch_add(1, Ordering::SeqCst);
            barrier.wait();
            Ok(())
        });
        assert_eq!(most.into_inner(), 4);
    }

    #[test]
    fn nothing_to_do_is_no_error() {
        assert_eq!(run::<(), ()>(&[], &[], 4, false, |_, _| Ok(())), []);
    }

    #[test]
    fn what_most_waits_for_comes_first() {
        let parents = [vec![], vec![], vec![1], vec![2], vec![]];
        let urgency = remaining(&parents, &[5, 1, 1, 4, 5]);
        assert_eq!(urgency, [5, 6, 5, 4, 5]);
        let order = Mutex::new(Vec::new());
        run::<(), ()>(&parents, &urgency, 1, false, |node, _| {
            order.lock().unwrap().push(node);
            Ok(())
        });
        assert_eq!(order.into_inner().unwrap(), [1, 0, 2, 4, 3]);
    }
}
