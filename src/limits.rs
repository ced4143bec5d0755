//! Limits: how much a principal, or an address, may do in a time, over all nodes together.
//!
//! What is counted together is a quota. A node draws allowances from it in advance, of which each is a part of
//! what there is, and spends them without asking anybody; what it has not spent within its hold (`limit`) goes back. So no
//! request waits for the storage more often than once in that time for each quota, and far fewer do where much
//! is asked. In no stretch of a rate's time more passes than the rate says, whatever the number of nodes: an
//! allowance counts from when it was drawn until the rate's time after it may last have been spent. The price is that a
//! node may refuse a little early: what others hold is not there for it.
//!
//! It must not know what a request asks for, nor how a refusal is told.
//!
//! | file | owns |
//! |---|---|
//! | `limit` | what is limited, and what it is called |
//! | `amounts` | how much each lets through now |
//! | `quota` | what this node holds of one quota |
//! | `table` | the quotas that this node knows |
//! | `meter` | what one caller is counted in |
//! | `entrance` | who comes in, counted |
//! | `kept` | how many bytes topics keep together, and how many they may |
//! | `places` | what callers have open at one time |
//! | `address` | from which address a client calls |
//!
//! **Invariant:** a relay without limits pays one branch for them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Caller, Who};
use crate::chance::random;
use crate::metrics::Metrics;
use crate::storage::{Draw, LimitStore, Places, QuotaId, Rate, StorageError};

mod address;
mod amounts;
mod entrance;
mod kept;
mod limit;
mod meter;
mod places;
mod quota;
mod table;

pub use address::{FORWARDED_HEADERS, Network, Peer, TrustedProxies, counted_as};
pub use entrance::{Entrance, Turned};
pub use kept::{KEPT_BOUNDS_MAX, Kept, KeptBound};
use limit::HOLD;
pub use limit::Limit;
pub use meter::{Asks, Meter};
pub use places::Place;

use amounts::Amounts;
use places::{Count, Given, LEASE};
use quota::Quota;
use table::{Table, digest};

/// How long the storage may take to grant an allowance; then it counts as away.
const DRAW_MAX: Duration = Duration::from_millis(500);
/// Asks whether the storage is there, and nothing else.
const NOTHING: Draw = Draw {
    quota: [0; 16],
    rate: Rate { amount: 1, within: Duration::from_mins(1) },
    slices: 1,
    hold: Duration::ZERO,
    most: 0,
    back: None,
};
/// How long a node counts by itself before it asks again.
const AWAY_FOR: Duration = Duration::from_secs(1);
/// How long a node that stops gives back what it holds, at most. What does not come back in that counts until its time
/// is over.
pub const LAST_MAX: Duration = Duration::from_millis(800);
/// How many quotas it gives back at one time.
const LAST_AT_ONCE: usize = 64;

/// What happens while the storage does not grant allowances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// Each node counts by itself, as if it were the only one.
    CountAlone,
    /// What is limited is refused.
    Refuse,
}

/// What an operator may set about limits.
#[derive(Clone, Copy, Debug)]
pub struct LimitOptions {
    /// How much of each may be done in its time, in the order of [`Limit::ALL`]; 0 is without limit.
    pub amounts: [u32; Limit::ALL.len()],
    /// What happens while the storage does not grant allowances.
    pub when_away: WhenAway,
    /// Quotas that a node knows at one time; those that come later share one.
    pub quotas_max: usize,
}

impl LimitOptions {
    /// Returns options that limit nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self { amounts: [0; Limit::ALL.len()], when_away: WhenAway::CountAlone, quotas_max: 100_000 }
    }

    /// Sets how much may be done; 0 is without limit.
    #[must_use]
    pub const fn with(mut self, limit: Limit, amount: u32) -> Self {
        self.amounts[limit as usize] = amount;
        self
    }

    /// Returns how much may be done, if there is a limit.
    #[must_use]
    pub const fn rate(&self, limit: Limit) -> Option<Rate> {
        match self.amounts[limit as usize] {
            0 => None,
            amount => Some(Rate { amount, within: limit.within() }),
        }
    }
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub limit: Limit,
    /// What it lets through.
    pub rate: Rate,
    /// How long it takes until there is something again.
    pub wait: Duration,
}

/// Why something is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A limit is reached.
    Exceeded(Exceeded),
    /// It cannot be known now whether it is.
    Unknown(Limit),
}

/// The limits of a node. Cloning is cheap. `None` where nothing is limited, nor can be.
#[derive(Clone)]
pub struct Limits(Option<Arc<Inner>>);

struct Inner {
    amounts: Arc<Amounts>,
    store: Arc<dyn LimitStore>,
    metrics: Metrics,
    table: Table,
    given: Given,
    /// Tells this node from others.
    node: u64,
    started: Instant,
    /// Milliseconds after the start before which the storage is not asked again.
    ask_again_ms: AtomicU64,
    /// Whether the last draw failed.
    is_alone: AtomicBool,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("is_on", &self.on().is_some()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("amounts", &self.amounts).finish_non_exhaustive()
    }
}

impl Limits {
    /// Returns limits of nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Starts; what has to be done now and then is, on `tracker` until `stop` is cancelled. Then nothing may be counted
    /// any more, and what this node holds goes back.
    #[must_use]
    pub fn start(
        options: LimitOptions,
        store: Arc<dyn LimitStore>,
        metrics: Metrics,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let amounts = Arc::new(Amounts::new(&options));
        let inner = Arc::new(Inner {
            table: Table::new(amounts.clone()),
            given: Given::default(),
            node: random(),
            amounts,
            store,
            metrics,
            started: Instant::now(),
            ask_again_ms: AtomicU64::new(0),
            is_alone: AtomicBool::new(false),
        });
        let (keeping, stop) = (inner.clone(), stop.clone());
        tracker.spawn(async move {
            stop.run_until_cancelled(keeping.upkeep()).await;
            // The storage may be away.
            let _ = timeout(LAST_MAX, keeping.give_all_back()).await;
        });
        Self(Some(inner))
    }

    /// Limits from now on what these options say. Who was not counted in a limit when its connection began is counted
    /// in it over the next one.
    pub fn change(&self, options: &LimitOptions) {
        if let Some(inner) = &self.0 {
            inner.amounts.change(options);
        }
    }

    /// Returns how often the limits were changed: a meter of before may lack what is limited now.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.amounts.version())
    }

    /// Returns what is counted in, where something is limited.
    fn on(&self) -> Option<&Arc<Inner>> {
        self.0.as_ref().filter(|inner| inner.amounts.is_on())
    }

    /// Returns whether the storage grants no allowances now; `None` where nothing is limited.
    #[must_use]
    pub fn is_alone(&self) -> Option<bool> {
        self.on().map(|inner| inner.is_alone.load(Ordering::Relaxed))
    }

    /// Counts a log-in with a password from this address.
    ///
    /// # Errors
    /// There are too many.
    pub async fn log_in(&self, address: Option<IpAddr>) -> Result<(), Over> {
        let Some(inner) = self.on() else { return Ok(()) };
        match inner.of_address(Limit::LogIns, address) {
            Some(quota) => inner.take(&quota).await,
            None => Ok(()),
        }
    }

    /// Takes a place for something that this caller opens; `None` where that is not counted.
    ///
    /// # Errors
    /// It has as many open as it may.
    pub async fn place(&self, caller: &Caller) -> Result<Option<Place>, Over> {
        let Some(inner) = self.on() else { return Ok(None) };
        let rate = inner.amounts.rate(Limit::Connections);
        let Some((rate, quota)) = rate.zip(id_of(Limit::Connections, caller.counted_as())) else {
            return Ok(None);
        };
        let taken = Box::pin(inner.take_place(rate, quota)).await;
        if taken.is_err() {
            inner.metrics.limits().refused(Limit::Connections.as_str());
        }
        taken.map(Some)
    }

    /// Returns what this caller is counted in, who calls from this address; `asks` is all that it does from now on, or
    /// [`Asks::Other`] where that may be anything. One who could not be told counts as one who does not say who it is.
    #[must_use]
    pub fn meter(&self, caller: Option<&Caller>, address: Option<IpAddr>, asks: Asks) -> Meter {
        let Some(inner) = self.on() else { return Meter::none() };
        let who = caller.map_or(&Who::Anonymous, Caller::counted_as);
        let of_who = match who {
            Who::Anonymous => inner.of_address(Limit::AnonymousRequests, address),
            Who::Anyone | Who::User(_) | Who::Token { .. } | Who::Subject { .. } | Who::Ticket { .. } => None,
        };
        let topics = match who {
            Who::Anonymous => inner.of_address(Limit::Topics, address),
            who => inner.of_principal(Limit::Topics, who),
        };
        Meter::of(
            inner.clone(),
            [inner.of_address(Limit::AddressRequests, address), of_who],
            match asks {
                // A publish does not look for what it does not count in.
                Asks::Publish => None,
                Asks::Other => inner.of_principal(Limit::PrincipalRequests, who),
            },
            [
                inner.of_address(Limit::AddressMessages, address),
                inner.of_principal(Limit::PrincipalMessages, who),
            ],
            topics,
        )
    }
}

impl Inner {
    fn of_address(&self, limit: Limit, address: Option<IpAddr>) -> Option<Arc<Quota>> {
        self.amounts.rate(limit)?;
        let text = counted_as(address?).to_string();
        Some(self.table.quota(limit, &[&text]))
    }

    fn of_principal(&self, limit: Limit, who: &Who) -> Option<Arc<Quota>> {
        self.amounts.rate(limit)?;
        Some(self.table.quota(limit, &named(who)?))
    }

    /// Takes one place.
    async fn take_place(&self, rate: Rate, quota: QuotaId) -> Result<Place, Over> {
        let count = self.given.of(quota);
        let _asking = count.asking.lock().await;
        let wanted = count.open() + 1;
        let exceeded = Exceeded { limit: Limit::Connections, rate, wait: HOLD };
        let may = match self.ask(self.store.hold(&self.places(quota, wanted, rate.amount))).await {
            Some(may) => may,
            None if self.amounts.when_away() == WhenAway::Refuse => {
                return Err(Over::Unknown(Limit::Connections));
            }
            None => wanted <= rate.amount,
        };
        if may { Ok(count.give()) } else { Err(Over::Exceeded(exceeded)) }
    }

    const fn places(&self, quota: QuotaId, count: u32, most: u32) -> Places {
        Places { quota, node: self.node, count, most, lease: LEASE }
    }

    /// Tells the storage how many places of a caller are given away here.
    async fn tell_places(&self, quota: QuotaId, count: &Count, most: u32) {
        let _asking = count.asking.lock().await;
        let open = count.open();
        // What is not told now is told soon, or is over.
        let told = self.ask(self.store.hold(&self.places(quota, open, most))).await;
        if open == 0 && told.is_some() {
            self.given.forget(quota);
        }
    }

    /// Takes one from a quota.
    async fn take(&self, quota: &Quota) -> Result<(), Over> {
        let outcome = match quota.take_held(Instant::now()) {
            Some(outcome) => outcome,
            // In a box: it is large, few need it, and connections are many.
            None => Box::pin(self.draw_for(quota)).await,
        };
        if outcome.is_err() {
            self.metrics.limits().refused(quota.limit.as_str());
        }
        outcome
    }

    /// Draws for one who found nothing, and for those that come after it.
    async fn draw_for(&self, quota: &Quota) -> Result<(), Over> {
        // One asks for all that wait.
        let _asking = quota.asking.lock().await;
        if let Some(outcome) = quota.take_held(Instant::now()) {
            return outcome;
        }
        let draw = quota.draw(Instant::now());
        match self.ask(self.store.draw(&draw)).await {
            Some(drawn) => quota.take_drawn(drawn, Instant::now()),
            None => match self.amounts.when_away() {
                WhenAway::Refuse => Err(Over::Unknown(quota.limit)),
                WhenAway::CountAlone => quota.take_alone(self.elapsed_ms()),
            },
        }
    }

    /// Asks the storage, unless it was away a moment ago.
    async fn ask<T>(&self, asked: impl Future<Output = Result<T, StorageError>>) -> Option<T> {
        let now_ms = self.elapsed_ms();
        let ask_again_ms = self.ask_again_ms.load(Ordering::Relaxed);
        if self.is_alone.load(Ordering::Relaxed) {
            // One tries for all.
            let next = now_ms + u64::try_from(AWAY_FOR.as_millis()).unwrap_or(u64::MAX);
            let tries = now_ms >= ask_again_ms
                && self
                    .ask_again_ms
                    .compare_exchange(ask_again_ms, next, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if !tries {
                return None;
            }
        }
        let cause = match timeout(DRAW_MAX, asked).await {
            Ok(Ok(told)) => {
                self.note(true, &"");
                return Some(told);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", DRAW_MAX.as_millis()),
        };
        self.note(false, &cause);
        None
    }

    fn note(&self, is_there: bool, cause: &dyn fmt::Display) {
        let was_alone = self.is_alone.swap(!is_there, Ordering::Relaxed);
        self.metrics.limits().drawn(is_there);
        match (was_alone, is_there) {
            (false, false) => {
                let now_ms = self.elapsed_ms();
                let next = now_ms + u64::try_from(AWAY_FOR.as_millis()).unwrap_or(u64::MAX);
                self.ask_again_ms.store(next, Ordering::Relaxed);
                let when_away = match self.amounts.when_away() {
                    WhenAway::CountAlone => "this node counts by itself",
                    WhenAway::Refuse => "what is limited is refused",
                };
                tracing::warn!(%cause, "the storage does not tell what limits have left; {when_away}");
            }
            (true, true) => tracing::info!("the storage tells again what limits have left"),
            (false, true) | (true, false) => {}
        }
    }

    /// Gives back what was not spent, and forgets quotas from which nothing counts any more, for ever.
    async fn upkeep(&self) {
        loop {
            tokio::time::sleep(HOLD).await;
            if self.is_alone.load(Ordering::Relaxed) {
                // That it is back is found out, also where nobody asks for anything.
                let _ = self.ask(self.store.draw(&NOTHING)).await;
            }
            let (unspent, known) = self.table.look(Instant::now());
            self.metrics.limits().quotas(known);
            for quota in unspent {
                self.give_back(&quota, Instant::now()).await;
            }
            for (quota, count) in self.given.now() {
                self.tell_places(quota, &count, self.places_max()).await;
            }
        }
    }

    /// Gives back what was not spent of what may be spent until then.
    async fn give_back(&self, quota: &Quota, until: Instant) {
        let _asking = quota.asking.lock().await;
        if let Some(draw) = quota.give_back(until) {
            // What does not come back counts until its time is over.
            let _ = self.ask(self.store.draw(&draw)).await;
        }
    }

    /// Gives back all that is held, of a node that serves nobody any more: allowances, and places.
    async fn give_all_back(&self) {
        // Whatever was drawn may be spent no longer than that.
        let until = Instant::now() + HOLD;
        let allowances = stream::iter(self.table.all_unspent(until));
        allowances.for_each_concurrent(LAST_AT_ONCE, async |quota| self.give_back(&quota, until).await).await;
        let places = stream::iter(self.given.now());
        places
            .for_each_concurrent(LAST_AT_ONCE, async |(quota, count)| {
                self.tell_places(quota, &count, self.places_max()).await;
            })
            .await;
    }

    /// Returns how many places a caller may have.
    fn places_max(&self) -> u32 {
        self.amounts.rate(Limit::Connections).map_or(0, |rate| rate.amount)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns the name of a principal, in parts; `None` for who is none.
fn named(who: &Who) -> Option<Vec<&str>> {
    match who {
        Who::Anyone | Who::Anonymous => None,
        Who::User(name) => Some(vec!["user", name]),
        Who::Token { id, .. } => Some(vec!["token", id]),
        Who::Subject { issuer, subject } => Some(vec!["subject", issuer, subject]),
        // Whoever makes tickets has no more by that.
        Who::Ticket { maker, .. } => named(maker),
    }
}

fn id_of(limit: Limit, who: &Who) -> Option<QuotaId> {
    Some(digest(limit, &named(who)?))
}

#[cfg(test)]
mod tests;
