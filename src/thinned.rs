//! How often the log is told of the same thing: of each kind the first, then at most one a second. So what is told is
//! bounded, by a line a second for each of 16 kinds and one for all others, whatever anybody does.
//!
//! It must not know what is told.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time in which things of one kind are told once.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Kinds that are told apart at one time; where there are more, those that come later share one line.
const KINDS_MAX: usize = 16;

/// Thins out what the log is told.
#[derive(Debug, Default)]
pub struct Thinned(Mutex<Kinds>);

#[derive(Debug, Default)]
struct Kinds {
    known: Vec<(u64, Told)>,
    others: Option<Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    left_out: u64,
}

impl Thinned {
    /// Returns how many things of this kind were left out before this one, or `None` if it is to be left out itself.
    pub fn admit(&self, kind: fmt::Arguments<'_>) -> Option<u64> {
        self.admit_at(kind, Instant::now())
    }

    fn admit_at(&self, kind: fmt::Arguments<'_>, now: Instant) -> Option<u64> {
        let kind = digest(kind);
        let mut kinds = self.0.lock();
        if let Some((_, told)) = kinds.known.iter_mut().find(|(known, _)| *known == kind) {
            return told.again(now);
        }
        let first = Told { at: now, left_out: 0 };
        if kinds.known.len() < KINDS_MAX {
            kinds.known.push((kind, first));
            return Some(0);
        }
        // The kind that was silent for longest makes room, once its second is over.
        match kinds.known.iter_mut().min_by_key(|(_, told)| told.at) {
            Some(oldest) if oldest.1.is_over(now) => {
                *oldest = (kind, first);
                Some(0)
            }
            _ => match &mut kinds.others {
                Some(told) => told.again(now),
                others => {
                    *others = Some(first);
                    Some(0)
                }
            },
        }
    }
}

impl Told {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= TOLD_EVERY
    }

    fn again(&mut self, now: Instant) -> Option<u64> {
        if !self.is_over(now) {
            self.left_out += 1;
            return None;
        }
        self.at = now;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Returns what stands for a kind: texts of any length take no memory.
fn digest(kind: fmt::Arguments<'_>) -> u64 {
    struct Hashed(DefaultHasher);

    impl fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }

    let mut hashed = Hashed(DefaultHasher::new());
    // Hashing a text cannot fail.
    let _ = hashed.write_fmt(kind);
    hashed.0.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_at_once_and_then_once_a_second() {
        let (thinned, mut now) = (Thinned::default(), Instant::now());
        let admit = |kind: &str, now| thinned.admit_at(format_args!("{kind}"), now);
        assert_eq!(admit("refused", now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(admit("refused", now), None);
        }
        assert_eq!(admit("loading", now), Some(0), "another kind");
        now += TOLD_EVERY;
        assert_eq!(admit("refused", now), Some(1_000));
        assert_eq!(admit("refused", now), None);
        now += TOLD_EVERY;
        assert_eq!(admit("refused", now), Some(1), "counted from the last line on");
        assert_eq!(admit("loading", now), Some(0));
    }

    #[test]
    fn kinds_without_end_are_bounded_too() {
        let (thinned, mut now) = (Thinned::default(), Instant::now());
        let told = (0..10_000).filter(|n| thinned.admit_at(format_args!("cause {n}"), now).is_some()).count();
        assert_eq!(told, KINDS_MAX + 1);
        now += TOLD_EVERY;
        assert_eq!(thinned.admit_at(format_args!("new"), now), Some(0), "in the place of a silent one");
        assert_eq!(thinned.0.lock().known.len(), KINDS_MAX);
    }
}
