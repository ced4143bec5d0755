//! Which failures the log tells: during an outage every request fails in the same way.
//!
//! It must not know what was asked; those who log say that with [`Failing`].

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::Code;
use tokio::time::Instant;
use tracing::field::display;

use super::Failure;

/// Time in which failures of one kind are told once.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Kinds of failures that are told apart at one time, a code and a cause each; there are more only
/// where causes carry numbers of their own, and those then share one line.
const KINDS_MAX: usize = 16;

/// What has failed, for the log.
#[derive(Clone, Copy, Default)]
pub struct Failing<'a> {
    /// The id of the request, where there was one.
    pub request_id: Option<&'a str>,
    /// The session, where there was one.
    pub session: Option<u64>,
    /// The method of the request.
    pub method: Option<&'a (dyn fmt::Display + Sync)>,
    /// The path of the request.
    pub path: Option<&'a (dyn fmt::Display + Sync)>,
    /// How many failed in the same way at once, where there were several.
    pub count: Option<usize>,
}

impl fmt::Debug for Failing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failing").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// Thins out failures for the log: of each kind the first, then at most one a second. So the log is
/// bounded, by a line a second for each of 16 kinds and one for all others.
#[derive(Debug, Default)]
pub struct FailureLog(Mutex<Kinds>);

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

impl FailureLog {
    /// Tells the log of a failure: as a warning where it is the relay's or its storage's, and at most
    /// one of a kind a second, so that one stands for many during an outage; the others for those who
    /// ask for more.
    pub fn tell(&self, failure: &Failure, failing: Failing<'_>) {
        let Failing { request_id, session, method, path, count } = failing;
        let (method, path) = (method.map(display), path.map(display));
        let problem = failure.problem();
        let code = problem.code.as_str();
        if problem.status < 500 {
            let detail = problem.detail.as_str();
            tracing::debug!(request_id, session, method, path, code, count, detail, "request refused");
            return;
        }
        let cause = failure.chain();
        if let Some(left_out) = self.admit_at(failure, Instant::now()) {
            tracing::warn!(request_id, session, method, path, code, count, left_out, %cause, "request failed");
        } else {
            tracing::debug!(request_id, session, method, path, code, count, %cause, "request failed");
        }
    }

    /// Returns how many failures of this kind were left out before this one, or `None` if it is to be
    /// left out itself.
    fn admit_at(&self, failure: &Failure, now: Instant) -> Option<u64> {
        let kind = kind(failure.code(), &failure.chain());
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

/// Returns what stands for a code and the text of a cause: texts of any length take no memory.
fn kind(code: Code, cause: &impl fmt::Display) -> u64 {
    struct Hashed(DefaultHasher);

    impl fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }

    let mut hashed = Hashed(DefaultHasher::new());
    // Hashing a text cannot fail.
    let _ = write!(hashed, "{} {cause}", code.as_str());
    hashed.0.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageError;

    fn failure(cause: &str) -> Failure {
        Failure::read(StorageError::Unavailable(cause.to_owned().into()), None)
    }

    #[test]
    fn each_kind_is_told_at_once_and_then_once_a_second() {
        let (log, mut now) = (FailureLog::default(), Instant::now());
        assert_eq!(log.admit_at(&failure("refused"), now), Some(0));
        for _ in 0..1_000 {
            assert_eq!(log.admit_at(&failure("refused"), now), None);
        }
        assert_eq!(log.admit_at(&failure("loading"), now), Some(0), "another cause");
        let timeout = Failure::read(StorageError::Indeterminate("refused".into()), None);
        assert_eq!(log.admit_at(&timeout, now), Some(0), "another code");
        now += TOLD_EVERY;
        assert_eq!(log.admit_at(&failure("refused"), now), Some(1_000));
        assert_eq!(log.admit_at(&failure("refused"), now), None);
        now += TOLD_EVERY;
        assert_eq!(log.admit_at(&failure("refused"), now), Some(1), "counted from the last line on");
        assert_eq!(log.admit_at(&failure("loading"), now), Some(0));
    }

    #[test]
    fn causes_without_end_are_bounded_too() {
        let (log, mut now) = (FailureLog::default(), Instant::now());
        let told =
            (0..10_000).filter(|n| log.admit_at(&failure(&format!("cause {n}")), now).is_some()).count();
        assert_eq!(told, KINDS_MAX + 1);
        now += TOLD_EVERY;
        assert_eq!(log.admit_at(&failure("new"), now), Some(0), "in the place of a silent one");
        assert_eq!(log.0.lock().known.len(), KINDS_MAX);
    }
}
