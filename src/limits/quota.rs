//! What this node holds of one quota: an allowance, or that there is none.
//!
//! It must not know where allowances come from.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::amounts::Amounts;
use super::{Exceeded, Limit, Over};
use crate::storage::limits::{Draw, Drawn, Grants, Unspent};
use crate::storage::{QuotaId, Rate};

/// The part of a rate that is of use to a node at one time.
const SHARE: u32 = 10;
/// Parts of a rate's time in which is counted.
const SLICES: u32 = 60;
/// The same where a node counts by itself, for many quotas at one time.
const SLICES_ALONE: u32 = 6;
/// How long it is remembered that there is nothing, at most: others may give something back.
const NOTHING_FOR: Duration = Duration::from_secs(1);

/// One quota, as this node knows it.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) limit: Limit,
    amounts: Arc<Amounts>,
    id: QuotaId,
    state: Mutex<State>,
    /// Held by who asks the storage for it.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// What may be spent until `until`.
    left: u32,
    until: Instant,
    /// When it was granted, as the grant said.
    slice: u64,
    /// There is nothing to be had before the first, as far as is known, and it is not asked before the second.
    nothing: Option<(Instant, Instant)>,
    /// Of which amounts all of that is ([`Amounts::version`]): by others it is asked anew.
    version: u64,
    used_at: Instant,
    /// What was granted while this node counted by itself.
    alone: Grants,
}

impl Quota {
    pub(super) fn new(limit: Limit, amounts: Arc<Amounts>, id: QuotaId, now: Instant) -> Self {
        let alone = Grants::default();
        let state = State { left: 0, until: now, slice: 0, nothing: None, version: 0, used_at: now, alone };
        Self { limit, amounts, id, state: Mutex::new(state), asking: tokio::sync::Mutex::default() }
    }

    /// Takes one of what is held; `None` where the storage has to be asked.
    pub(super) fn take_held(&self, now: Instant) -> Option<Result<(), Over>> {
        if self.amounts.rate(self.limit).is_none() {
            // Nothing is limited here any more.
            return Some(Ok(()));
        }
        let mut state = self.state.lock();
        state.used_at = now;
        if state.version != self.amounts.version() {
            return None;
        }
        if state.left > 0 && now < state.until {
            state.left -= 1;
            return Some(Ok(()));
        }
        match state.nothing {
            Some((there_at, ask_at)) if now < ask_at => Some(Err(self.exceeded(there_at - now))),
            Some(_) | None => None,
        }
    }

    /// Returns what to ask the storage for; what is left of before goes back with it.
    pub(super) fn draw(&self, now: Instant) -> Draw {
        // Before they are read: what changes meanwhile makes what is granted old.
        let version = self.amounts.version();
        let most = if self.limit.hold().is_zero() { 1 } else { (self.rate().amount / SHARE).max(1) };
        let mut state = self.state.lock();
        (state.until, state.nothing, state.version) = (now, None, version);
        let back = state.unspent();
        self.asks(most, back)
    }

    /// Takes one of what was granted, and keeps the rest.
    pub(super) fn take_drawn(&self, drawn: Drawn, now: Instant) -> Result<(), Over> {
        let mut state = self.state.lock();
        let Some(rest) = drawn.granted.checked_sub(1) else {
            state.nothing = Some((now + drawn.wait, now + drawn.wait.min(NOTHING_FOR)));
            return Err(self.exceeded(drawn.wait));
        };
        (state.left, state.slice, state.until) = (rest, drawn.slice, now + self.limit.hold());
        state.nothing = None;
        Ok(())
    }

    /// Takes one where this node counts by itself, at a time in milliseconds.
    pub(super) fn take_alone(&self, now_ms: u64) -> Result<(), Over> {
        let draw = Draw { slices: SLICES_ALONE, hold: Duration::ZERO, ..self.asks(1, None) };
        let drawn = self.state.lock().alone.draw(&draw, now_ms);
        if drawn.granted > 0 { Ok(()) } else { Err(self.exceeded(drawn.wait)) }
    }

    /// Returns what gives back what was not spent of what may be spent until then, if there is something.
    pub(super) fn give_back(&self, until: Instant) -> Option<Draw> {
        let mut state = self.state.lock();
        let unspent = if state.until <= until { state.unspent() } else { None };
        unspent.map(|unspent| self.asks(0, Some(unspent)))
    }

    /// Returns whether something is held that may be spent until then.
    pub(super) fn has_unspent(&self, until: Instant) -> bool {
        let state = self.state.lock();
        state.left > 0 && state.until <= until
    }

    /// Returns whether nothing that was taken from it counts any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let draw = self.asks(0, None);
        let counts_for = draw.counts_for() + Duration::from_millis(draw.width_ms());
        now.duration_since(self.state.lock().used_at) > counts_for
    }

    /// Returns how much it lets through now; the least there is, where it is no limit any more: what is asked then only
    /// gives back.
    fn rate(&self) -> Rate {
        self.amounts.rate(self.limit).unwrap_or(Rate { amount: 1, within: self.limit.within() })
    }

    fn asks(&self, most: u32, back: Option<Unspent>) -> Draw {
        let (quota, rate, hold) = (self.id, self.rate(), self.limit.hold());
        Draw { quota, rate, slices: SLICES, hold, most, back }
    }

    fn exceeded(&self, wait: Duration) -> Over {
        Over::Exceeded(Exceeded { limit: self.limit, rate: self.rate(), wait })
    }
}

impl State {
    /// Takes out what is left.
    fn unspent(&mut self) -> Option<Unspent> {
        let amount = std::mem::take(&mut self.left);
        (amount > 0).then_some(Unspent { slice: self.slice, amount })
    }
}
