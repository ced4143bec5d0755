//! Measuring: what counts, how long it took, what failed.
//!
//! It must not know what is measured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// Longest time that a histogram can hold; longer ones count as this.
const TIME_MAX: Duration = Duration::from_mins(2);
/// Precision of a histogram: times are right to one in a thousand.
const DIGITS: u8 = 3;
/// Most kinds of errors that are told apart.
const KINDS_MAX: usize = 32;
/// How finely the rate over time is kept.
pub(crate) const SLOT: Duration = Duration::from_millis(100);
/// Most slots of the rate over time: those of the longest run.
const SLOTS_MAX: usize = 36_000;

/// Which part of a run is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The end of the warm-up.
    pub(crate) from: Instant,
    /// The end.
    pub(crate) until: Instant,
    /// Whether operations have intended times, and are counted by them. Those under way at the end then
    /// count too: leaving out the slow ones would make the run look better than it was.
    pub(crate) paced: bool,
}

/// Collects what the tasks of a run measure.
#[derive(Debug)]
pub(crate) struct Meter {
    /// What is measured.
    pub(crate) window: Window,
    /// Operations that may still start, where they are limited.
    budget: Option<AtomicI64>,
    state: Mutex<Measured>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Times in nanoseconds.
    pub(crate) times: Histogram<u64>,
    /// Things counted.
    pub(crate) count: u64,
    /// When the last one was done.
    pub(crate) last: Instant,
    /// What failed, during the warm-up too.
    pub(crate) errors: Errors,
    /// Things counted in each [`SLOT`].
    pub(crate) slots: Vec<u64>,
}

impl Meter {
    /// Returns a meter. With `messages`, that many start after the warm-up, and no more.
    pub(crate) fn new(window: Window, messages: Option<u64>) -> Self {
        Self {
            window,
            budget: messages.map(|count| AtomicI64::new(i64::try_from(count).unwrap_or(i64::MAX))),
            state: Mutex::new(Measured {
                times: histogram(),
                count: 0,
                last: window.from,
                errors: Errors::default(),
                slots: Vec::new(),
            }),
        }
    }

    /// Returns whether `count` more things may start at `now`.
    pub(crate) fn goes_on(&self, now: Instant, count: usize) -> bool {
        if now >= self.window.until {
            return false;
        }
        let Some(budget) = &self.budget else { return true };
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        now < self.window.from || budget.fetch_sub(count, Ordering::Relaxed) >= count
    }

    /// Counts an operation with `count` things in it.
    pub(crate) fn record(&self, started: Instant, done: Instant, count: usize) {
        self.record_all(done, count as u64, [started].into_iter());
    }

    /// Counts things that were done at one time; each start is one time measured. Starts outside the
    /// window, with their share of the things, do not count.
    pub(crate) fn record_all(&self, done: Instant, each: u64, starts: impl Iterator<Item = Instant>) {
        let Window { from, until, paced } = self.window;
        let counts = |started: Instant| {
            if paced { started >= from && started < until } else { started >= from && done <= until }
        };
        let mut state = self.state.lock();
        let mut counted = 0;
        for started in starts.filter(|started| counts(*started)) {
            state.times.saturating_record(nanos(done.saturating_duration_since(started)));
            counted += each;
        }
        if counted > 0 {
            state.count += counted;
            state.last = state.last.max(done);
            let slot = (done - from).as_millis() / SLOT.as_millis();
            let slot = usize::try_from(slot).unwrap_or(SLOTS_MAX).min(SLOTS_MAX - 1);
            if state.slots.len() <= slot {
                state.slots.resize(slot + 1, 0);
            }
            state.slots[slot] += counted;
        }
    }

    /// Counts things that were there at one time and due so much later than each start says; each is one time measured,
    /// from when it was due. What came early counts as a failure.
    pub(crate) fn record_late(&self, done: Instant, starts: impl Iterator<Item = Instant>, delay: Duration) {
        let Window { from, until, .. } = self.window;
        let mut early = false;
        let mut state = self.state.lock();
        for started in starts {
            // A relay counts whole milliseconds.
            early |= done + Duration::from_millis(1) < started + delay;
            if started >= from && started < until {
                state.times.saturating_record(nanos(done.saturating_duration_since(started + delay)));
                state.count += 1;
                state.last = state.last.max(done);
            }
        }
        drop(state);
        if early {
            self.failed("a message came before it was due");
        }
    }

    /// Counts what failed.
    pub(crate) fn failed(&self, what: &str) {
        self.state.lock().errors.add(what, 1);
    }

    /// Counts what failed several times.
    pub(crate) fn failed_times(&self, what: &str, times: u64) {
        self.state.lock().errors.add(what, times);
    }

    /// Returns what was measured.
    pub(crate) fn measured(&self) -> Measured {
        self.state.lock().clone()
    }

    /// Returns for how long things were counted.
    pub(crate) fn seconds(&self, measured: &Measured) -> f64 {
        let whole = self.window.until - self.window.from;
        let to_last = measured.last - self.window.from;
        let is_short = self.budget.as_ref().is_some_and(|budget| budget.load(Ordering::Relaxed) <= 0);
        let span = if is_short { to_last } else { whole.max(to_last) };
        span.max(Duration::from_nanos(1)).as_secs_f64()
    }
}

/// Returns an empty histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanos(TIME_MAX), DIGITS).expect("the bounds are constants that are valid")
}

/// Returns a time in whole nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What failed, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Errors(pub(crate) BTreeMap<String, u64>);

impl Errors {
    /// Counts what failed.
    pub(crate) fn add(&mut self, what: &str, times: u64) {
        if let Some(count) = self.0.get_mut(what) {
            *count += times;
            return;
        }
        let what = if self.0.len() < KINDS_MAX { what } else { "other" };
        *self.0.entry(what.to_owned()).or_default() += times;
    }
}

/// Times in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// How many times were measured.
    pub(crate) count: u64,
    /// Half took no longer.
    pub(crate) p50_us: f64,
    /// Nine in ten took no longer.
    pub(crate) p90_us: f64,
    /// Ninety-nine in a hundred took no longer.
    pub(crate) p99_us: f64,
    /// All but one in a thousand took no longer.
    pub(crate) p999_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
    /// The mean.
    pub(crate) mean_us: f64,
    /// Pairs of a share and the time that it took no longer than, for a chart.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Latency {
    /// Returns the percentiles of a histogram, unless it is empty.
    pub(crate) fn of(times: &Histogram<u64>) -> Option<Self> {
        const CURVE: [f64; 12] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 0.99999];
        if times.is_empty() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "times are below 2^52 nanoseconds")]
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |quantile| micros(times.value_at_quantile(quantile));
        Some(Self {
            count: times.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(times.max()),
            mean_us: times.mean() / 1_000.0,
            curve: CURVE.map(|quantile| (quantile, at(quantile))).to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(paced: bool, messages: Option<u64>) -> Meter {
        let from = Instant::now() + Duration::from_secs(1);
        Meter::new(Window { from, until: from + Duration::from_secs(1), paced }, messages)
    }

    #[test]
    fn the_warm_up_does_not_count_but_its_errors_do() {
        let meter = meter(false, None);
        let Window { from, until, .. } = meter.window;
        let ms = Duration::from_millis;
        meter.record(from - ms(1), from + ms(1), 5);
        meter.record(from, from + ms(2), 5);
        meter.record(until - ms(1), until + ms(1), 5);
        meter.failed("refused");
        let measured = meter.measured();
        assert_eq!((measured.count, measured.times.len(), measured.errors.0.len()), (5, 1, 1));
        assert!((meter.seconds(&measured) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn with_a_pace_the_slow_ones_at_the_end_count() {
        let meter = meter(true, None);
        let Window { until, .. } = meter.window;
        meter.record(until - Duration::from_millis(1), until + Duration::from_secs(2), 1);
        let measured = meter.measured();
        assert_eq!(measured.count, 1);
        assert!(Latency::of(&measured.times).expect("one time").max_us >= 2_000_000.0);
        assert!(meter.seconds(&measured) > 2.9);
    }

    #[test]
    fn a_number_of_messages_is_kept() {
        let meter = meter(false, Some(10));
        let Window { from, until, .. } = meter.window;
        assert!(meter.goes_on(from - Duration::from_millis(1), 100), "the warm-up is not limited");
        assert!(meter.goes_on(from, 6));
        assert!(meter.goes_on(from, 4));
        assert!(!meter.goes_on(from, 1));
        assert!(!meter.goes_on(until, 0));
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut times = histogram();
        assert!(Latency::of(&times).is_none());
        for micros in 1..=1_000 {
            times.record(micros * 1_000).expect("within the bounds");
        }
        let latency = Latency::of(&times).expect("times");
        for (found, expected) in
            [(latency.p50_us, 500.0), (latency.p90_us, 900.0), (latency.p99_us, 990.0), (latency.max_us, 1e3)]
        {
            assert!((found - expected).abs() <= expected / 500.0, "{found} is not {expected}");
        }
        assert!(latency.curve.is_sorted_by(|a, b| a.1 <= b.1));
    }

    #[test]
    fn kinds_of_errors_have_a_bound() {
        let mut errors = Errors::default();
        for number in 0..100 {
            errors.add(&number.to_string(), 1);
        }
        assert_eq!((errors.0.len(), errors.0.values().sum::<u64>()), (KINDS_MAX + 1, 100));
    }
}
