//! What is under way on one connection: requests, and answers that their client does not take.
//!
//! The library waits for ever for a client that gives a stream no room, and asks the answer for nothing
//! meanwhile. So who looks at the connection now and then takes such an answer away, with all that it holds.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::admission::ConnectionPermit;

/// An answer that is looked after.
pub(super) trait Watched: Send + Sync {
    /// Lets go of everything, if the client took nothing within `write_timeout`. Returns whether it did.
    fn let_go(&self, now: Instant, write_timeout: Duration) -> bool;
}

/// The streams of one connection. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Streams(Arc<Inner>);

struct Inner {
    write_timeout: Duration,
    state: Mutex<State>,
    /// Frames of answers that were given to the library, and not yet set against those of the client.
    answered: AtomicU32,
}

struct State {
    open: usize,
    /// Since when none is open, where none is.
    idle_since: Instant,
    answers: Vec<Weak<dyn Watched>>,
}

/// A request under way, until it is dropped.
pub(super) struct Open {
    streams: Streams,
    _permit: ConnectionPermit,
}

impl Streams {
    pub(super) fn new(write_timeout: Duration) -> Self {
        let state = State { open: 0, idle_since: Instant::now(), answers: Vec::new() };
        Self(Arc::new(Inner { write_timeout, state: Mutex::new(state), answered: AtomicU32::new(0) }))
    }

    pub(super) fn enter(&self, permit: ConnectionPermit) -> Open {
        self.0.state.lock().open += 1;
        Open { streams: self.clone(), _permit: permit }
    }

    /// Looks after an answer from now on.
    pub(super) fn watch(&self, answer: Weak<dyn Watched>) {
        let mut state = self.0.state.lock();
        state.answers.retain(|other| other.strong_count() > 0);
        state.answers.push(answer);
    }

    /// Takes away the answers that nobody takes, and returns since when nothing is under way, if nothing is.
    pub(super) fn look(&self, now: Instant) -> Option<Instant> {
        let mut answers = std::mem::take(&mut self.0.state.lock().answers);
        // Outside the lock, which what is let go takes.
        answers.retain(|answer| {
            answer.upgrade().is_some_and(|answer| !answer.let_go(now, self.0.write_timeout))
        });
        let mut state = self.0.state.lock();
        state.answers.append(&mut answers);
        (state.open == 0).then_some(state.idle_since)
    }

    pub(super) fn note_answered(&self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many frames of answers were given to the library since the last time.
    pub(super) fn take_answered(&self) -> u32 {
        self.0.answered.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.streams.0.state.lock();
        state.open -= 1;
        if state.open == 0 {
            state.idle_since = Instant::now();
        }
    }
}
