//! When a node is to look at something again: at what is due, a little late and never early.
//!
//! A node knows when something is due where it has changed something itself, and asks about once a second where something
//! is due soon, whoever has changed it. It sleeps until the first of these times. All nodes do so, and storage sees to it
//! that each thing is done once; whoever looks in vain has lost a look. It must not know what is due.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::chance::jittered;

/// How far ahead is looked: a little more than twice the longest time between two questions.
pub(super) const HORIZON: Duration = Duration::from_millis(2_500);
/// Longest time between two questions of where something is due.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Things told in one answer; where there are more, the others come with the next.
pub(super) const ANSWER_MAX: usize = 10_000;
/// Things that are looked at in one step.
const STEP_MAX: usize = 64;
/// Time between two looks at a thing: what is due within is done together.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(2);
/// Time until a thing is looked at again where that has failed.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// When things are to be looked at.
#[derive(Debug)]
pub(super) struct Timers<T> {
    open: Mutex<Open<T>>,
    earlier: Notify,
}

#[derive(Debug)]
struct Open<T> {
    by_thing: HashMap<T, Instant>,
    by_time: BTreeSet<(Instant, T)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        let open = Open { by_thing: HashMap::new(), by_time: BTreeSet::new() };
        Self { open: Mutex::new(open), earlier: Notify::new() }
    }
}

impl<T: Clone + Ord + Hash> Timers<T> {
    /// Notes that something is due; what is far off is asked for in time.
    pub(super) fn note(&self, thing: &T, due_in: Duration) {
        if due_in > HORIZON {
            return;
        }
        let at = Instant::now() + due_in;
        let is_first = {
            let mut open = self.open.lock();
            let known = open.by_thing.get(thing).copied();
            if known.is_some_and(|known| known <= at) {
                return;
            }
            if let Some(known) = known {
                open.by_time.remove(&(known, thing.clone()));
            }
            open.by_thing.insert(thing.clone(), at);
            open.by_time.insert((at, thing.clone()));
            open.by_time.first().is_some_and(|(first, of)| *first == at && of == thing)
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Waits until something is due, or is to be asked for; returns whether that is so, and not only something earlier
    /// known than before.
    pub(super) async fn wait(&self, question: &Question) -> bool {
        let first = self.open.lock().by_time.first().map(|(at, _)| *at);
        let until = first.unwrap_or(question.next).min(question.next);
        tokio::select! {
            () = sleep_until(until) => true,
            () = self.earlier.notified() => false,
        }
    }

    /// Takes things whose time has come.
    pub(super) fn take(&self) -> Vec<T> {
        let now = Instant::now();
        let mut open = self.open.lock();
        let mut things = Vec::new();
        while things.len() < STEP_MAX
            && open.by_time.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, thing)) = open.by_time.pop_first()
        {
            open.by_thing.remove(&thing);
            things.push(thing);
        }
        things
    }
}

/// When it is asked where something is due soon.
#[derive(Debug)]
pub(super) struct Question {
    next: Instant,
}

impl Question {
    /// Returns one that is to be asked at once.
    pub(super) fn now() -> Self {
        Self { next: Instant::now() }
    }

    /// Returns whether it is to be asked.
    pub(super) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Notes that it was asked.
    pub(super) fn asked(&mut self) {
        self.next = Instant::now() + jittered(ASKED_EVERY);
    }
}
