//! Limits of applications: the rules, the way to storage, and what this node decides where that cannot be asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidemill_proto::duration::Seconds;
use tidemill_proto::takes::{LIMIT_MAX, POLICIES_MAX, TakeAnswer};
use tidemill_proto::{LimitName, Problem};
use tokio::time::{Instant, timeout};

use super::{Failure, Gate, Inner};
use crate::access::{Kind, Verb};
use crate::storage::takes::TakeTable;
use crate::storage::{BURST_TIME_MAX, LimitPolicy, StorageError, Take, TakeKind, Taken};

/// How long the storage may take; then it counts as away.
const ASKED_MAX: Duration = Duration::from_millis(500);
/// How long a node decides by itself before it asks again.
const AWAY_FOR_MS: u64 = 1_000;
/// Limits that a node counts by itself at one time; of more nothing passes.
const ALONE_MAX: usize = 100_000;
/// What is told to wait where a node cannot say how long.
const WAIT: Duration = Duration::from_secs(1);

/// The times that a policy may have.
pub const TAKE_PER: [Duration; 2] = [Duration::from_millis(1), BURST_TIME_MAX];

/// What becomes of limits of applications while the storage cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesAway {
    /// Each node counts by itself, as if it were the only one.
    CountAlone,
    /// Nothing passes.
    Refuse,
    /// Everything passes.
    Allow,
}

/// What is asked of a limit: its parts are well-formed, and how they fit together is not yet checked.
#[derive(Clone, Debug)]
pub struct TakeDraft {
    /// How much.
    pub cost: u32,
    /// The policies: how much, in which time, and how much at once.
    pub policies: Vec<(u32, Duration, Option<u32>)>,
}

/// Parses the name of a limit.
///
/// # Errors
/// The text has another form.
pub fn parse_limit(field: &str, text: &str) -> Result<LimitName, Failure> {
    LimitName::parse(text).map_err(|error| Problem::field(field, error).into())
}

impl TakeDraft {
    /// Returns the policies, if they and the cost fit together.
    fn checked(&self) -> Result<Vec<LimitPolicy>, Failure> {
        if self.policies.is_empty() || self.policies.len() > POLICIES_MAX {
            return Err(
                Problem::field("policies", format_args!("must be 1 to {POLICIES_MAX} policies")).into()
            );
        }
        let mut policies: Vec<LimitPolicy> = Vec::with_capacity(self.policies.len());
        for (at, (limit, per, burst)) in self.policies.iter().enumerate() {
            let burst = burst.unwrap_or(*limit);
            let policy = LimitPolicy::new(*limit, *per, burst).ok_or_else(|| {
                let days = BURST_TIME_MAX.as_secs() / 86_400;
                let rule = format!(
                    "of the policy at index {at} is too large: {burst} would not be there again within {days} days"
                );
                Problem::field("burst", rule)
            })?;
            if self.cost > burst {
                let rule = format!(
                    "is {}, and the policy at index {at} never lets more than {burst} pass at once (its `burst`, or its `limit`)",
                    self.cost
                );
                return Err(Problem::field("cost", rule).into());
            }
            if policies.contains(&policy) {
                let rule = format!("has the policy at index {at} twice");
                return Err(Problem::field("policies", rule).into());
            }
            policies.push(policy);
        }
        Ok(policies)
    }
}

impl Gate {
    /// Takes of a limit, looks at it, or gives back to it.
    ///
    /// # Errors
    /// The caller may not, or what is asked does not fit together: the problem names the field. Nothing was taken. That
    /// the storage does not answer is none: this node decides, and says so.
    pub async fn take(
        &self,
        name: &LimitName,
        draft: &TakeDraft,
        kind: TakeKind,
    ) -> Result<TakeAnswer, Failure> {
        self.check_limit(name, kind)?;
        let take = Take { name: name.clone(), policies: draft.checked()?, cost: draft.cost, kind };
        let relay = self.relay();
        match relay.takes.ask(relay, &take).await? {
            Some(taken) => Ok(answer(&take, &taken)),
            None => Ok(TakeAnswer { degraded: true, ..relay.takes.alone(relay.options.takes_away, &take) }),
        }
    }

    /// Checks that the caller may do this with a limit: asked before a body is read.
    ///
    /// # Errors
    /// It may not.
    pub fn check_limit(&self, name: &LimitName, kind: TakeKind) -> Result<(), Failure> {
        let verb = match kind {
            TakeKind::Take | TakeKind::Refund => Verb::Work,
            TakeKind::Peek => Verb::Read,
        };
        Ok(self.caller().check_named(verb, Kind::Limit, &[name.as_str()])?)
    }

    /// Checks that there may be a limit of which the caller may take: asked before a body is read.
    ///
    /// # Errors
    /// There can be none.
    pub fn check_some_limit(&self) -> Result<(), Failure> {
        Ok(self.caller().check_some_named(Verb::Work, Kind::Limit)?)
    }
}

fn answer(take: &Take, taken: &Taken) -> TakeAnswer {
    TakeAnswer {
        allowed: taken.allowed,
        remaining: taken.remaining(take),
        retry_after: Seconds(taken.retry_after(take)),
        reset: Seconds(taken.reset(take)),
        degraded: false,
    }
}

/// What a node decides by itself, and since when it does.
#[derive(Debug)]
pub(super) struct Takes {
    table: TakeTable,
    started: Instant,
    /// Whether the storage did not answer last.
    is_away: AtomicBool,
    /// Milliseconds after the start before which it is not asked again.
    ask_again_ms: AtomicU64,
}

impl Takes {
    pub(super) fn new() -> Self {
        Self {
            table: TakeTable::new(ALONE_MAX),
            started: Instant::now(),
            is_away: AtomicBool::new(false),
            ask_again_ms: AtomicU64::new(0),
        }
    }

    /// Asks the storage; `None` where it cannot be asked.
    async fn ask(&self, relay: &Inner, take: &Take) -> Result<Option<Taken>, Failure> {
        if !self.is_to_be_asked() {
            return Ok(None);
        }
        let cause = match timeout(ASKED_MAX, relay.storage.takes.take(take)).await {
            Ok(Ok(taken)) => {
                self.note(true, &"");
                return Ok(Some(taken));
            }
            // It is there, and has no room for this one.
            Ok(Err(StorageError::Overloaded | StorageError::Full(_))) => return Ok(None),
            Ok(Err(error @ (StorageError::Unavailable(_) | StorageError::Indeterminate(_)))) => {
                error.to_string()
            }
            Ok(Err(error)) => return Err(Failure::changed(error)),
            Err(_) => format!("no answer within {} ms", ASKED_MAX.as_millis()),
        };
        self.note(false, &cause);
        Ok(None)
    }

    /// Returns whether the storage is there, as far as is known, or this one is to try for all.
    fn is_to_be_asked(&self) -> bool {
        if !self.is_away.load(Ordering::Relaxed) {
            return true;
        }
        let (now_ms, again_ms) = (self.elapsed_ms(), self.ask_again_ms.load(Ordering::Relaxed));
        let next = now_ms + AWAY_FOR_MS;
        let set = || self.ask_again_ms.compare_exchange(again_ms, next, Ordering::Relaxed, Ordering::Relaxed);
        now_ms >= again_ms && set().is_ok()
    }

    fn note(&self, is_there: bool, cause: &dyn std::fmt::Display) {
        match (self.is_away.swap(!is_there, Ordering::Relaxed), is_there) {
            (false, false) => {
                self.ask_again_ms.store(self.elapsed_ms() + AWAY_FOR_MS, Ordering::Relaxed);
                tracing::warn!(%cause, "the storage does not answer for limits of applications; this node decides by itself");
            }
            (true, true) => tracing::info!("the storage answers again for limits of applications"),
            (false, true) | (true, false) => {}
        }
    }

    /// Decides without the storage.
    fn alone(&self, away: TakesAway, take: &Take) -> TakeAnswer {
        let refused = TakeAnswer {
            allowed: false,
            retry_after: Seconds(WAIT),
            reset: Seconds(WAIT),
            ..TakeAnswer::default()
        };
        let whole = take.policies.iter().map(LimitPolicy::burst).min().unwrap_or(LIMIT_MAX);
        match away {
            TakesAway::Refuse => refused,
            TakesAway::Allow => TakeAnswer { allowed: true, remaining: whole, ..TakeAnswer::default() },
            TakesAway::CountAlone => {
                let now_micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
                let taken = self.table.take(take, now_micros);
                taken.map_or(refused, |taken| answer(take, &taken))
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
