//! A supervised connection to the server, for one kind of work.
//!
//! A connection serves one call after the other, so work that must not hold up other work has one of its
//! own. It is up or down. While it is down every call fails at once, certainly without effect; while it is
//! up a supervisor looks at it every second and replaces it when it no longer answers, also where the
//! network swallows everything without a word. It comes up after a first look: a server that is a replica
//! is of no use.
//!
//! The client library's own reconnecting is not relied on: a client that is reconnecting holds commands
//! back and sends them later, when nobody waits for them any more. A broken client is dropped, which
//! ends its reconnecting, and a new one is made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tidemill_proto::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connect::ConnectError;
use super::connection::{Connection, Driving, Work};
use super::failure::{Effect, Failure, is_loading, of_exchange};
use super::layout;
use super::options::ValkeyOptions;
use super::replication::Replication;
use super::resolver::Address;
use super::resp::{Replies, Request, RespConnection, RespError};
use crate::chance::jittered;
use crate::clock::Clock;
use crate::slow;
use crate::storage::StorageError;

/// How often the supervisor asks a connection whether it is alive.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the answer may take. With the interval and the time to connect, a connection that has
/// silently died is replaced within seven seconds.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// First and longest wait between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// A connection that is replaced when it is lost.
pub(super) struct Supervised<C> {
    name: &'static str,
    work: Work,
    current: ArcSwapOption<C>,
    up: watch::Sender<bool>,
    suspect: Notify,
    last_error: Mutex<String>,
    /// Why the server takes no writes although it answers; only where its look asks.
    refusal: Mutex<Option<String>>,
    /// By how many milliseconds the server's clock is ahead of this machine's.
    ahead_ms: AtomicI64,
    /// What the server told last of its replication.
    replication: Mutex<Option<Arc<Replication>>>,
    /// Where the connection goes that there is.
    at: Mutex<Option<Address>>,
    /// How often the connection was lost.
    losses: AtomicU64,
    options: ValkeyOptions,
}

impl<C> fmt::Debug for Supervised<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervised")
            .field("name", &self.name)
            .field("up", &*self.up.borrow())
            .finish_non_exhaustive()
    }
}

impl<C: Connection> Supervised<C> {
    /// Returns one that is down.
    pub(super) fn new(name: &'static str, work: Work, options: &ValkeyOptions) -> Self {
        Self {
            name,
            work,
            current: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            suspect: Notify::new(),
            last_error: Mutex::new("not connected yet".to_owned()),
            refusal: Mutex::new(None),
            ahead_ms: AtomicI64::new(0),
            replication: Mutex::new(None),
            at: Mutex::new(None),
            losses: AtomicU64::new(0),
            options: options.clone(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Returns a view of up and down that can be waited on.
    pub(super) fn status(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Returns how often its connection was lost.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Returns why it is down.
    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }

    /// Returns why the server takes no writes now, although it answers.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }

    /// Returns what the server told last of its replication.
    pub(super) fn replication(&self) -> Option<Arc<Replication>> {
        self.replication.lock().clone()
    }

    /// Returns what the server's clock shows, as far as the last look told.
    pub(super) fn server_time(&self, clock: &Clock) -> Timestamp {
        let here = clock.now().as_millis();
        Timestamp::from_millis(here.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)))
    }

    /// Asks the supervisor to look at the connection now.
    pub(super) fn suspect(&self) {
        self.suspect.notify_one();
    }

    /// Returns how long a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Returns the connection that there is now.
    pub(super) fn current(&self) -> Result<Arc<C>, StorageError> {
        self.current.load_full().ok_or_else(|| StorageError::Unavailable(self.down().into()))
    }

    /// Returns the failure of what needs it while it is down.
    pub(super) fn down(&self) -> Failure {
        Failure::Down { server: self.server(), why: self.last_error() }
    }

    /// Returns where it goes, or would.
    fn server(&self) -> String {
        let at = self.at.lock().as_ref().map(ToString::to_string);
        at.unwrap_or_else(|| self.options.place())
    }

    /// Keeps it connected until the token is cancelled.
    pub(super) async fn supervise(self: Arc<Self>, token: CancellationToken) {
        // The library's connecting is a large future.
        token.run_until_cancelled(Box::pin(self.keep_connected())).await;
        self.set_down("the relay is stopping");
    }

    async fn keep_connected(&self) {
        let options = &self.options;
        let mut wait = RETRY_FIRST;
        loop {
            let moves = options.resolver.moves();
            match self.attempt().await {
                Ok((connection, mut driving, address)) => {
                    wait = RETRY_FIRST;
                    // What the resolver finds may be another one by the time that this is lost.
                    let server = address.to_string();
                    *self.at.lock() = Some(address);
                    self.current.store(Some(connection.clone()));
                    self.up.send_replace(true);
                    tracing::info!(connection = self.name, server, "connected");
                    let reason = tokio::select! {
                        biased;
                        reason = &mut driving => reason,
                        reason = self.look_after(&connection) => reason,
                    };
                    self.losses.fetch_add(1, Ordering::Relaxed);
                    self.set_down(&reason);
                    tracing::warn!(connection = self.name, server, reason, "connection lost");
                }
                Err(error) => self.note_failure(&error),
            }
            // Connections and nodes that have lost the server together do not come back together.
            if options.resolver.moves() != moves {
                wait = RETRY_FIRST;
            }
            tokio::select! {
                () = sleep(jittered(wait)) => wait = (wait * 2).min(RETRY_LAST),
                () = options.resolver.news() => wait = RETRY_FIRST,
            }
        }
    }

    /// Connects, and looks whether the server is of use.
    async fn attempt(&self) -> Result<(Arc<C>, Driving, Address), ConnectError> {
        let (connection, mut driving, address) = C::connect(&self.options, self.name).await?;
        let reason = tokio::select! {
            biased;
            reason = &mut driving => reason,
            looked = self.look_first(&connection) => match looked {
                Ok(()) => return Ok((Arc::new(connection), driving, address)),
                Err(reason) => reason,
            },
        };
        Err(ConnectError::Refused(reason))
    }

    /// Looks at a server before anything is asked of it: also whether what it has can be read.
    async fn look_first(&self, connection: &C) -> Result<(), String> {
        self.look(connection).await?;
        let found = connection.layout(&self.options, self.work, LOOK_TIMEOUT).await?;
        layout::check(found.as_deref())
    }

    fn set_down(&self, reason: &str) {
        reason.clone_into(&mut self.last_error.lock());
        // Down before what waits is told, so that nobody finds it up and the connection gone.
        self.up.send_replace(false);
        if let Some(connection) = self.current.swap(None) {
            connection.close(reason);
        }
        *self.at.lock() = None;
        *self.refusal.lock() = None;
    }

    /// Logs a failed attempt, once until the reason changes: the next hundred attempts say the same.
    fn note_failure(&self, error: &ConnectError) {
        let options = &self.options;
        let text = error.to_string();
        let mut last_error = self.last_error.lock();
        if *last_error == text {
            tracing::debug!(
                connection = self.name,
                server = options.server(),
                error = text,
                "still not connected"
            );
        } else {
            tracing::warn!(
                connection = self.name,
                server = options.server(),
                error = text,
                "cannot connect, trying on"
            );
            *last_error = text;
        }
    }

    /// Returns when the connection is no longer of use, with the reason.
    async fn look_after(&self, connection: &C) -> String {
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.suspect.notified() => {}
            }
            if let Err(reason) = self.look(connection).await {
                return reason;
            }
        }
    }

    /// Asks the server whether it is there, is the primary, what time it has, and takes writes.
    async fn look(&self, connection: &C) -> Result<(), String> {
        let look = connection.look(&self.options, self.work, LOOK_TIMEOUT).await?;
        match look.replication {
            Some(Err(error)) if is_loading(&error) => {
                return Err("the server is loading its data".to_owned());
            }
            Some(Ok(told)) if told.is_replica != (self.work == Work::Replica) => {
                return Err(match self.work {
                    Work::Replica => "the server is no replica any more".to_owned(),
                    Work::Writes | Work::Other => "the server is a replica and takes no writes".to_owned(),
                });
            }
            Some(Ok(told)) => *self.replication.lock() = Some(Arc::new(told)),
            // Any other error reply, as for want of rights, shows that the server is there; what it told before may be no
            // longer so.
            Some(_) => *self.replication.lock() = None,
            None => return Err("an empty answer".to_owned()),
        }
        if let Some(server_ms) = look.time_ms {
            let here = i64::try_from(Clock::system().now().as_millis()).unwrap_or(i64::MAX);
            let there = i64::try_from(server_ms).unwrap_or(i64::MAX);
            self.ahead_ms.store(there.saturating_sub(here), Ordering::Relaxed);
        }
        self.note_refusal(look.refusal);
        Ok(())
    }

    fn note_refusal(&self, refusal: Option<String>) {
        let mut kept = self.refusal.lock();
        if *kept != refusal {
            if let Some(reason) = &refusal {
                tracing::warn!(connection = self.name, reason, "the server refuses writes");
            } else {
                tracing::info!(connection = self.name, "the server takes writes again");
            }
            *kept = refusal;
        }
    }
}

impl Supervised<RespConnection> {
    /// Sends a request and returns a reply for each of its commands.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the commands may run.
    pub(super) async fn exchange(&self, request: &Request, effect: Effect) -> Result<Replies, StorageError> {
        self.try_exchange(request).await?.map_err(|error| self.failed(error, effect))
    }

    /// Returns the contract's error for a request that has no replies.
    pub(super) fn failed(&self, error: RespError, effect: Effect) -> StorageError {
        of_exchange(self.server(), error, effect)
    }

    /// As [`exchange`](Self::exchange), with the connection's own error, for who can ask for less.
    pub(super) async fn try_exchange(
        &self,
        request: &Request,
    ) -> Result<Result<Replies, RespError>, StorageError> {
        let answer = slow::served(self.current()?.exchange(request, self.options.timeout)).await;
        if let Err(RespError::Unsent(_) | RespError::Unanswered(_)) = answer {
            self.suspect();
        }
        Ok(answer)
    }
}

/// Waits until a connection goes from up to down.
pub(super) async fn goes_down(mut up: watch::Receiver<bool>) {
    let _ = up.wait_for(|up| *up).await;
    if up.wait_for(|up| !*up).await.is_err() {
        // The connection is gone with the backend, which ends the lanes.
        std::future::pending::<()>().await;
    }
}
