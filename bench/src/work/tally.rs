//! Which messages were acknowledged, and how long each took.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::mark::Mark;
use crate::measure::{Meter, Window};
use crate::sender::unstamp;

/// The count of a run.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) meter: Meter,
    /// Until when messages are waited for.
    until: Instant,
    publishers: u64,
    /// How much later than its mark says each message is due; where that is measured.
    delay: Option<Duration>,
    /// What a worker had that was lost, and since when; and for how long it had it.
    lost: Option<(Mutex<HashMap<u64, Instant>>, Duration)>,
    /// How many messages there are; all that can be counted, while that is not known.
    expected: AtomicU64,
    done: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    bits: Vec<u64>,
    repeated: u64,
}

impl Tally {
    /// Counts messages that are there already.
    /// With `lost_for`, what is measured is how late after that time comes back what was [lost](Self::lost).
    pub(super) fn of_drain(window: Window, messages: u64, lost_for: Option<Duration>) -> Self {
        Self {
            meter: Meter::new(window, None),
            until: window.until,
            publishers: 1,
            delay: None,
            lost: lost_for.map(|time| (Mutex::default(), time)),
            expected: AtomicU64::new(messages),
            done: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// Counts messages that are being published; they are waited for `grace` longer.
    pub(super) fn of_rate(window: Window, publishers: u32, delay: Duration, grace: Duration) -> Self {
        Self {
            meter: Meter::new(window, None),
            until: window.until + grace,
            publishers: u64::from(publishers),
            delay: Some(delay),
            lost: None,
            expected: AtomicU64::new(u64::MAX),
            done: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// Says how many messages there are.
    pub(super) fn expect(&self, messages: u64) {
        self.expected.store(messages, Ordering::Relaxed);
    }

    /// Whether there is something left to be done.
    pub(super) fn goes_on(&self) -> bool {
        self.done.load(Ordering::Relaxed) < self.expected.load(Ordering::Relaxed)
            && Instant::now() < self.until
    }

    /// Notes messages that a worker was given just now: where that is measured, how long they took.
    pub(super) fn given(&self, marks: &[Mark]) {
        let now = Instant::now();
        if let Some((lost, time)) = &self.lost {
            let mut lost = lost.lock();
            let back: Vec<Instant> =
                marks.iter().filter_map(|mark| lost.remove(&self.number(mark))).collect();
            drop(lost);
            self.meter.record_late(now, back.into_iter(), *time);
        }
        let Some(delay) = self.delay else { return };
        let starts = marks.iter().filter_map(|mark| unstamp(mark.at_nanos, self.meter.window.from));
        self.meter.record_late(now, starts, delay);
    }

    /// Notes messages that a worker was given just now that is lost with them.
    pub(super) fn lost(&self, marks: &[Mark]) {
        let now = Instant::now();
        if let Some((lost, _)) = &self.lost {
            lost.lock().extend(marks.iter().map(|mark| (self.number(mark), now)));
        }
    }

    fn number(&self, mark: &Mark) -> u64 {
        mark.sequence * self.publishers + u64::from(mark.publisher)
    }

    /// Notes messages that were acknowledged, and were being worked on since `started`.
    pub(super) fn acked(&self, started: Instant, marks: &[Mark]) {
        let mut fresh = 0;
        {
            let mut seen = self.seen.lock();
            for mark in marks {
                let number = self.number(mark);
                let (place, bit) =
                    (usize::try_from(number / 64).unwrap_or(usize::MAX), 1_u64 << (number % 64));
                if place >= seen.bits.len() && place < (1 << 32) {
                    seen.bits.resize(place + 1024, 0);
                }
                match seen.bits.get_mut(place) {
                    Some(bits) if *bits & bit == 0 => {
                        *bits |= bit;
                        fresh += 1;
                    }
                    _ => seen.repeated += 1,
                }
            }
        }
        if self.delay.is_none() && self.lost.is_none() {
            self.meter.record(started, Instant::now(), marks.len());
        }
        self.done.fetch_add(fresh, Ordering::Relaxed);
    }

    /// Returns how many messages nobody has acknowledged, and how many were more than once.
    pub(super) fn told(&self) -> (u64, u64) {
        let expected = self.expected.load(Ordering::Relaxed);
        if let Some((lost, _)) = &self.lost {
            let left = lost.lock().len();
            if left > 0 {
                self.meter.failed_times("what a lost worker had did not come back", left as u64);
            }
        }
        (expected.saturating_sub(self.done.load(Ordering::Relaxed)), self.seen.lock().repeated)
    }
}
