//! Limits: how much a principal, or an address, may do in a time, over all nodes together.
//!
//! What is counted together is a bucket. A node draws allowances from it in advance, of which each is a part of
//! what there is, and spends them without asking anybody; what it has not spent within [`HOLD`] goes back. So no
//! request waits for the storage more often than once in that time for each bucket, and far fewer do where much
//! is asked. In no stretch of a rate's time more passes than the rate says, whatever the number of nodes: an
//! allowance counts from when it was drawn until the rate's time after it may last have been spent. The price is that a
//! node may refuse a little early: what others hold is not there for it.
//!
//! It must not know what a request asks for, nor how a refusal is told.
//!
//! | file | owns |
//! |---|---|
//! | `bucket` | what this node holds of one bucket |
//! | `table` | the buckets that this node knows |
//! | `meter` | what one caller is counted in |
//! | `entrance` | who comes in, counted |
//! | `address` | from which address a client calls |
//!
//! **Invariant:** a relay without limits pays one branch for them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Caller, Who};
use crate::metrics::Metrics;
use crate::storage::{Draw, Drawn, LimitStore, Rate};

mod address;
mod bucket;
mod entrance;
mod meter;
mod table;

pub use address::{FORWARDED_HEADERS, Network, Peer, TrustedProxies, counted_as};
pub use entrance::{Entrance, Turned};
pub use meter::{Asks, Meter};

use bucket::Bucket;
use table::Table;

/// How long an allowance may be spent, and how often what is not spent is given back.
const HOLD: Duration = Duration::from_secs(5);
/// How long the storage may take to grant an allowance; then it counts as away.
const DRAW_MAX: Duration = Duration::from_millis(500);
/// How long a node counts by itself before it asks again.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Log-ins with a password, of an address.
    LogIns,
    /// Requests of who does not say who calls, of an address.
    AnonymousRequests,
    /// Requests of an address, whoever calls.
    AddressRequests,
    /// Requests of a principal, but for those that publish.
    PrincipalRequests,
    /// Messages that come from an address.
    AddressMessages,
    /// Messages that a principal publishes.
    PrincipalMessages,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 6] = [
        Self::LogIns,
        Self::AnonymousRequests,
        Self::AddressRequests,
        Self::PrincipalRequests,
        Self::AddressMessages,
        Self::PrincipalMessages,
    ];

    /// Returns what it is called on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogIns => "log-ins",
            Self::AnonymousRequests => "anonymous-requests",
            Self::AddressRequests => "address-requests",
            Self::PrincipalRequests => "principal-requests",
            Self::AddressMessages => "address-messages",
            Self::PrincipalMessages => "principal-messages",
        }
    }

    /// Returns the variable that sets it.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::LogIns => "TIDEMILL_LIMIT_LOG_INS",
            Self::AnonymousRequests => "TIDEMILL_LIMIT_ANONYMOUS_REQUESTS",
            Self::AddressRequests => "TIDEMILL_LIMIT_ADDRESS_REQUESTS",
            Self::PrincipalRequests => "TIDEMILL_LIMIT_PRINCIPAL_REQUESTS",
            Self::AddressMessages => "TIDEMILL_LIMIT_ADDRESS_MESSAGES",
            Self::PrincipalMessages => "TIDEMILL_LIMIT_PRINCIPAL_MESSAGES",
        }
    }

    /// Returns what is counted, as a sentence says it.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::LogIns => "log-ins with a password are taken from one address",
            Self::AnonymousRequests => {
                "requests of who does not say who calls, or says it wrongly, are taken from one address"
            }
            Self::AddressRequests => "requests are taken from one address",
            Self::PrincipalRequests => "requests are taken from one caller",
            Self::AddressMessages => "messages are taken from one address",
            Self::PrincipalMessages => "messages are taken from one caller",
        }
    }

    /// Returns the time in which it is counted.
    #[must_use]
    pub const fn within(self) -> Duration {
        match self {
            Self::LogIns
            | Self::AnonymousRequests
            | Self::AddressRequests
            | Self::PrincipalRequests
            | Self::AddressMessages
            | Self::PrincipalMessages => Duration::from_mins(1),
        }
    }

    /// Returns how long an allowance may be spent. A log-in takes long, so each asks.
    const fn hold(self) -> Duration {
        match self {
            Self::LogIns => Duration::ZERO,
            Self::AnonymousRequests
            | Self::AddressRequests
            | Self::PrincipalRequests
            | Self::AddressMessages
            | Self::PrincipalMessages => HOLD,
        }
    }
}

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
    /// Buckets that a node knows at one time; those that come later share one.
    pub buckets_max: usize,
}

impl LimitOptions {
    /// Returns options that limit nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self { amounts: [0; Limit::ALL.len()], when_away: WhenAway::CountAlone, buckets_max: 100_000 }
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

/// The limits of a node. Cloning is cheap. `None` where nothing is limited.
#[derive(Clone)]
pub struct Limits(Option<Arc<Inner>>);

struct Inner {
    options: LimitOptions,
    store: Arc<dyn LimitStore>,
    metrics: Metrics,
    table: Table,
    started: Instant,
    /// Milliseconds after the start before which the storage is not asked again.
    ask_again_ms: AtomicU64,
    /// Whether the last draw failed.
    is_alone: AtomicBool,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("is_on", &self.0.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Limits {
    /// Returns limits of nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Starts; what has to be done now and then is, on `tracker` until `stop` is cancelled.
    #[must_use]
    pub fn start(
        options: LimitOptions,
        store: Arc<dyn LimitStore>,
        metrics: Metrics,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        if options.amounts.iter().all(|amount| *amount == 0) {
            return Self::none();
        }
        let inner = Arc::new(Inner {
            table: Table::new(options.buckets_max),
            options,
            store,
            metrics,
            started: Instant::now(),
            ask_again_ms: AtomicU64::new(0),
            is_alone: AtomicBool::new(false),
        });
        tracker.spawn(stop.clone().run_until_cancelled_owned(inner.clone().upkeep()));
        Self(Some(inner))
    }

    /// Returns whether the storage grants no allowances now; `None` where nothing is limited.
    #[must_use]
    pub fn is_alone(&self) -> Option<bool> {
        self.0.as_ref().map(|inner| inner.is_alone.load(Ordering::Relaxed))
    }

    /// Counts a log-in with a password from this address.
    ///
    /// # Errors
    /// There are too many.
    pub async fn log_in(&self, address: Option<IpAddr>) -> Result<(), Over> {
        let Some(inner) = &self.0 else { return Ok(()) };
        match inner.of_address(Limit::LogIns, address) {
            Some(bucket) => inner.take(&bucket).await,
            None => Ok(()),
        }
    }

    /// Returns what this caller is counted in, who calls from this address. One who could not be told counts as one
    /// who does not say who it is.
    #[must_use]
    pub fn meter(&self, caller: Option<&Caller>, address: Option<IpAddr>) -> Meter {
        let Some(inner) = &self.0 else { return Meter::none() };
        let who = caller.map_or(&Who::Anonymous, Caller::who);
        let of_who = match who {
            Who::Anonymous => inner.of_address(Limit::AnonymousRequests, address),
            Who::Anyone | Who::User(_) | Who::Token { .. } | Who::Subject { .. } | Who::Ticket { .. } => None,
        };
        Meter::of(
            inner.clone(),
            [inner.of_address(Limit::AddressRequests, address), of_who],
            inner.of_principal(Limit::PrincipalRequests, who),
            [
                inner.of_address(Limit::AddressMessages, address),
                inner.of_principal(Limit::PrincipalMessages, who),
            ],
        )
    }
}

impl Inner {
    fn of_address(&self, limit: Limit, address: Option<IpAddr>) -> Option<Arc<Bucket>> {
        let rate = self.options.rate(limit)?;
        let text = counted_as(address?).to_string();
        Some(self.table.bucket(limit, rate, &[&text]))
    }

    fn of_principal(&self, limit: Limit, who: &Who) -> Option<Arc<Bucket>> {
        let rate = self.options.rate(limit)?;
        let parts: &[&str] = match who {
            Who::Anyone | Who::Anonymous => return None,
            Who::User(name) => &["user", name],
            Who::Token { id, .. } => &["token", id],
            Who::Subject { issuer, subject } => &["subject", issuer, subject],
            // Whoever makes tickets has no more by that.
            Who::Ticket { maker, .. } => return self.of_principal(limit, maker),
        };
        Some(self.table.bucket(limit, rate, parts))
    }

    /// Takes one from a bucket.
    async fn take(&self, bucket: &Bucket) -> Result<(), Over> {
        let outcome = match bucket.take_held(Instant::now()) {
            Some(outcome) => outcome,
            // In a box: it is large, few need it, and connections are many.
            None => Box::pin(self.draw_for(bucket)).await,
        };
        if outcome.is_err() {
            self.metrics.limits().refused(bucket.limit.as_str());
        }
        outcome
    }

    /// Draws for one who found nothing, and for those that come after it.
    async fn draw_for(&self, bucket: &Bucket) -> Result<(), Over> {
        // One asks for all that wait.
        let _asking = bucket.asking.lock().await;
        if let Some(outcome) = bucket.take_held(Instant::now()) {
            return outcome;
        }
        match self.draw(&bucket.draw(Instant::now())).await {
            Some(drawn) => bucket.take_drawn(drawn, Instant::now()),
            None => match self.options.when_away {
                WhenAway::Refuse => Err(Over::Unknown(bucket.limit)),
                WhenAway::CountAlone => bucket.take_alone(self.elapsed_ms()),
            },
        }
    }

    /// Asks the storage, unless it was away a moment ago.
    async fn draw(&self, draw: &Draw) -> Option<Drawn> {
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
        let cause = match timeout(DRAW_MAX, self.store.draw(draw)).await {
            Ok(Ok(drawn)) => {
                self.note(true, &"");
                return Some(drawn);
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
                let when_away = match self.options.when_away {
                    WhenAway::CountAlone => "this node counts by itself",
                    WhenAway::Refuse => "what is limited is refused",
                };
                tracing::warn!(%cause, "the storage does not tell what limits have left; {when_away}");
            }
            (true, true) => tracing::info!("the storage tells again what limits have left"),
            (false, true) | (true, false) => {}
        }
    }

    /// Gives back what was not spent, and forgets buckets from which nothing counts any more, for ever.
    async fn upkeep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(HOLD).await;
            let (unspent, known) = self.table.look(Instant::now());
            self.metrics.limits().buckets(known);
            for bucket in unspent {
                let _asking = bucket.asking.lock().await;
                if let Some(draw) = bucket.give_back(Instant::now()) {
                    // What does not come back counts until its time is over.
                    let _ = self.draw(&draw).await;
                }
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
