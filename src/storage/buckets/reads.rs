//! How often keys are read, where what fills them lives by that: a number that goes down by half in every
//! [`READS_HALF_LIFE`].
//!
//! It is kept as a **heat**: its logarithm to the base 2, and the half-lives until it was noted, since 1970. So it need not
//! be written anew as time goes by, and of two keys the one that is read more often by now has the greater heat.

use std::time::Duration;

use tidemill_proto::Timestamp;

/// In which time how often a key was read counts half.
pub const READS_HALF_LIFE: Duration = Duration::from_mins(10);
/// Keys of a bucket of which it is known how often they are read: those that are read most.
pub const READ_KEYS_MAX: usize = 10_000;

/// How long a key lives that is filled without a time of its own, by how often it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveTtl {
    /// How long where it was not read lately, and how much longer by each read: at least a millisecond.
    pub min: Duration,
    /// How long at most: not less than `min`.
    pub max: Duration,
}

impl AdaptiveTtl {
    /// Returns how long a key lives that was read so often.
    pub(crate) fn of(self, reads: f64) -> Duration {
        Duration::try_from_secs_f64(self.min.as_secs_f64() * (1.0 + reads))
            .map_or(self.max, |time| time.min(self.max))
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have less than 53 bits")]
fn half_lives(now: Timestamp) -> f64 {
    now.as_millis() as f64 / (READS_HALF_LIFE.as_secs_f64() * 1_000.0)
}

/// Returns how often a key was read that has this heat.
pub(crate) fn reads_of(heat: f64, now: Timestamp) -> f64 {
    (heat - half_lives(now)).exp2()
}

/// Returns the heat of a key that had one, if any, and was read so often since.
pub(crate) fn heat_of(before: Option<f64>, reads: u32, now: Timestamp) -> f64 {
    let before = before.map_or(0.0, |heat| reads_of(heat, now));
    (before + f64::from(reads)).log2() + half_lives(now)
}

/// Returns the heat below which a key counts as one that was not read: half a time.
pub(crate) fn cold(now: Timestamp) -> f64 {
    half_lives(now) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_a_key_was_read_goes_down_by_half_and_a_fill_lives_by_it() {
        let now = Timestamp::from_millis(1_770_000_000_123);
        let heat = heat_of(None, 8, now);
        for (half_lives, reads) in [(0, 8.0), (1, 4.0), (2, 2.0), (5, 0.25)] {
            let later = now.saturating_add(READS_HALF_LIFE * half_lives);
            assert!((reads_of(heat, later) - reads).abs() < 1e-6, "{half_lives}");
            assert_eq!(heat < cold(later), reads < 0.5, "{half_lives}");
        }
        let later = now.saturating_add(READS_HALF_LIFE);
        assert!((reads_of(heat_of(Some(heat), 3, later), later) - 7.0).abs() < 1e-6);
        let ttl = AdaptiveTtl { min: Duration::from_secs(30), max: Duration::from_mins(10) };
        for (reads, seconds) in
            [(0.0, 30), (1.0, 60), (9.0, 300), (19.0, 600), (1e9, 600), (f64::INFINITY, 600)]
        {
            assert_eq!(ttl.of(reads), Duration::from_secs(seconds), "{reads}");
        }
    }
}
