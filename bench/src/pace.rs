//! Pace: when each operation is to be sent, and waking whoever sends it then.
//!
//! The runtime's timers are as coarse as a millisecond, which would be the whole latency of a relay. So
//! a ticker wakes the connections in turn: on a thread of its own, which sleeps with the operating
//! system's precision, or from a thread of the load that stays awake. What is measured starts at the
//! intended time: an operation that waits behind a stalled one has waited too, and leaving that out
//! (coordinated omission) would hide every stall.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Rate from which the thread no longer waits out the last microseconds awake: it would do nothing else.
const SPIN_RATE_MAX: f64 = 1_000.0;
/// How much earlier than asked the thread wakes, to make up for late wakes of the operating system.
const SPIN: Duration = Duration::from_micros(70);

/// When one connection sends: every `count`th of the operations of all.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    until: Instant,
    rate: f64,
    count: u64,
    next: u64,
    wake: Arc<Notify>,
}

/// Whether an operation is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It was intended for this time.
    Now(Instant),
    /// Not yet.
    Later,
    /// There is none any more.
    Never,
}

impl Schedule {
    /// Returns when the operation with this number, counted over all connections, is to be sent.
    fn time_of(&self, number: u64) -> Instant {
        self.start + offset(number, self.rate)
    }

    /// Returns the time at which the next operation was intended, if that has come.
    pub(crate) fn try_due(&mut self, now: Instant) -> Due {
        let intended = self.time_of(self.next);
        if intended >= self.until {
            return Due::Never;
        }
        if intended > now {
            return Due::Later;
        }
        self.next += self.count;
        Due::Now(intended)
    }

    /// Returns how many operations are still to be sent.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a run has far fewer than 2^52 operations"
    )]
    pub(crate) fn left(&self) -> u64 {
        let mut end = ((self.until - self.start).as_secs_f64() * self.rate).ceil() as u64;
        // As times round.
        while end > self.next && self.time_of(end - 1) >= self.until {
            end -= 1;
        }
        end.saturating_sub(self.next).div_ceil(self.count)
    }

    /// Waits until the next operation may be due. It may return early.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Waits until the next operation is due, and returns the time at which it was intended; `None`
    /// after the last. It returns at once for operations that are late.
    pub(crate) async fn due(&mut self) -> Option<Instant> {
        loop {
            match self.try_due(Instant::now()) {
                Due::Now(intended) => return Some(intended),
                Due::Later => self.wait().await,
                Due::Never => return None,
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 operations")]
fn offset(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// Returns a schedule for each of `count` connections, which together send `rate` operations a second
/// from `start` to `until`, and the ticker that wakes them.
pub(crate) fn schedules(start: Instant, until: Instant, rate: f64, count: usize) -> (Vec<Schedule>, Ticker) {
    let wakes: Vec<_> = (0..count).map(|_| Arc::new(Notify::new())).collect();
    let ticker = Ticker { start, until, rate, wakes: wakes.iter().map(Arc::downgrade).collect(), next: 0 };
    let count = wakes.len() as u64;
    let schedule = |(next, wake)| Schedule { start, until, rate, count, next, wake };
    ((0..).zip(wakes).map(schedule).collect(), ticker)
}

/// Wakes connections when their operations are due.
#[derive(Debug)]
pub(crate) struct Ticker {
    start: Instant,
    until: Instant,
    rate: f64,
    wakes: Vec<Weak<Notify>>,
    next: u64,
}

impl Ticker {
    /// Starts a thread that wakes each in time, and ends with the last schedule.
    pub(crate) fn start(mut self) {
        let spin = if self.rate <= SPIN_RATE_MAX { SPIN } else { Duration::ZERO };
        std::thread::spawn(move || {
            while let Some(at) = self.next_at() {
                std::thread::sleep(at.saturating_duration_since(Instant::now()).saturating_sub(spin));
                while Instant::now() < at {
                    std::hint::spin_loop();
                }
                self.tick();
            }
        });
    }

    /// Wakes those whose operations are due by now.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        while self.next_at().is_some_and(|at| at <= now) {
            let turn = usize::try_from(self.next).unwrap_or_default() % self.wakes.len();
            if let Some(wake) = self.wakes[turn].upgrade() {
                wake.notify_one();
            }
            self.next += 1;
        }
    }

    /// Returns when the next operation is due; `None` if there is none, or nobody to send it.
    fn next_at(&self) -> Option<Instant> {
        let at = self.start + offset(self.next, self.rate);
        let is_wanted = self.wakes.iter().any(|wake| wake.strong_count() > 0);
        (at < self.until && is_wanted).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_behind_a_stall_is_measured_from_when_it_was_due() {
        let start = Instant::now();
        let until = start + Duration::from_millis(200);
        let (mut schedules, ticker) = schedules(start, until, 100.0, 1);
        ticker.start();
        let mut schedule = schedules.pop().expect("one was asked for");
        assert_eq!(schedule.left(), 20);
        let mut latencies = Vec::new();
        while let Some(intended) = schedule.due().await {
            // The third operation stalls; every one takes no time but that.
            if latencies.len() == 2 {
                std::thread::sleep(Duration::from_millis(100));
            }
            latencies.push(Instant::now() - intended);
        }
        assert_eq!((latencies.len(), schedule.left()), (20, 0), "none was left out because of the stall");
        let late = latencies.iter().filter(|latency| **latency > Duration::from_millis(20)).count();
        assert!(late >= 8, "those due during the stall waited for it: {latencies:?}");
        assert!(latencies[2] >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_tick_wakes_all_that_are_due_and_no_other() {
        let start = Instant::now();
        let (mut schedules, mut ticker) = schedules(start, start + Duration::from_mins(1), 100.0, 3);
        ticker.tick();
        let due: Vec<_> = schedules.iter_mut().map(|schedule| schedule.try_due(start)).collect();
        assert_eq!(due, [Due::Now(start), Due::Later, Due::Later]);
        std::thread::sleep(Duration::from_millis(45));
        // The second to the fifth are due: two of them are the second connection's.
        ticker.tick();
        for (schedule, count) in schedules.iter_mut().zip([1, 2, 1]) {
            let waited = tokio::time::timeout(Duration::from_secs(5), schedule.wait()).await;
            assert!(waited.is_ok(), "everyone was woken");
            let now = start + Duration::from_millis(45);
            let due = std::iter::from_fn(|| Some(schedule.try_due(now))).take_while(|due| *due != Due::Later);
            assert_eq!(due.count(), count);
        }
        drop(schedules);
        assert_eq!(ticker.next_at(), None, "nobody is left to be woken");
    }

    #[tokio::test]
    async fn connections_take_turns() {
        let start = Instant::now();
        let (schedules, ticker) = schedules(start, start + Duration::from_millis(50), 1_000.0, 3);
        ticker.start();
        let mut counts = Vec::new();
        for mut schedule in schedules {
            let mut count = 0;
            while let Some(intended) = schedule.due().await {
                assert!(Instant::now() >= intended);
                count += 1;
            }
            counts.push(count);
        }
        assert_eq!(counts, [17, 17, 16]);
    }
}
