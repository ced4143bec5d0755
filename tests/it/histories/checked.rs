//! The record of what was asked and told, in the order of time, and its check.
//!
//! It must not know what was asked. What certainly was not done is no part of it; what nobody knows stays open: it may
//! have been done at any time since, or never.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

use super::asking::Told;

#[derive(Debug)]
enum Event<O, R> {
    Asked(u64, O),
    Told(u64, R),
    Nothing(u64),
}

/// What a thread of this number has asked (`Ok`), or was told (`Err`).
type Noted<S> = (u64, Result<<S as SequentialSpec>::Op, <S as SequentialSpec>::Ret>);

/// A record of what was asked of one thing.
#[derive(Debug)]
pub(super) struct History<S: SequentialSpec> {
    events: Mutex<Vec<Event<S::Op, S::Ret>>>,
    threads: AtomicU64,
}

impl<S: SequentialSpec> Default for History<S> {
    fn default() -> Self {
        Self { events: Mutex::default(), threads: AtomicU64::new(0) }
    }
}

/// A client as the record has it: it does one thing after the other.
#[derive(Debug)]
pub(super) struct Thread(u64);

impl<S> History<S>
where
    S: SequentialSpec + Clone,
    S::Op: Clone + Debug,
    S::Ret: Clone + Debug + PartialEq,
{
    pub(super) fn thread(&self) -> Thread {
        Thread(self.threads.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes what is asked for; before it is sent.
    pub(super) fn asked(&self, thread: &Thread, op: S::Op) {
        self.events.lock().push(Event::Asked(thread.0, op));
    }

    /// Notes what was told; once it has come.
    pub(super) fn told(
        &self,
        thread: &mut Thread,
        told: &Told,
        read: impl FnOnce(&crate::support::relay::Answer) -> S::Ret,
    ) {
        match told {
            Told::Answer(answer) => {
                let told = read(answer);
                self.events.lock().push(Event::Told(thread.0, told));
            }
            Told::Nothing => self.events.lock().push(Event::Nothing(thread.0)),
            // It stays open, and what the client does next is done by somebody else.
            Told::Unknown => *thread = self.thread(),
        }
    }

    /// Checks that there is an order.
    ///
    /// # Panics
    /// There is none.
    pub(super) fn check(&self, from: S, of: &str) {
        let events = self.events.lock();
        assert!(Self::is_linearizable(from, &events), "{of} is not linearizable: {events:#?}");
    }

    fn is_linearizable(from: S, events: &[Event<S::Op, S::Ret>]) -> bool {
        let mut tester = LinearizabilityTester::new(from);
        for (at, event) in events.iter().enumerate() {
            let noted = match event {
                Event::Asked(thread, op) => {
                    let next = events[at + 1..].iter().find_map(|event| match event {
                        Event::Told(of, _) if of == thread => Some(true),
                        Event::Nothing(of) if of == thread => Some(false),
                        _ => None,
                    });
                    if next == Some(false) {
                        continue;
                    }
                    tester.on_invoke(*thread, op.clone())
                }
                Event::Told(thread, told) => tester.on_return(*thread, told.clone()),
                Event::Nothing(_) => continue,
            };
            noted.expect("a client does one thing after the other");
        }
        tester.is_consistent()
    }

    /// Returns whether there is an order of what was asked (`Ok`) and told (`Err`) by threads of these numbers.
    pub(super) fn has_order(from: S, events: Vec<Noted<S>>) -> bool {
        let event = |(thread, event)| match event {
            Ok(op) => Event::Asked(thread, op),
            Err(told) => Event::Told(thread, told),
        };
        let events: Vec<_> = events.into_iter().map(event).collect();
        Self::is_linearizable(from, &events)
    }
}
