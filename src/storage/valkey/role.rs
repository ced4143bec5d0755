//! A role: one supervised connection to the server, for one kind of work.
//!
//! The client library multiplexes one connection, so work that must not hold up other work has a
//! role of its own. A role is up or down. While it is down every call fails at once, certainly
//! without effect; while it is up a supervisor looks after the connection every second and replaces
//! it when it no longer answers, also where the network swallows everything without a word.
//!
//! The library's own reconnecting is not relied on: a client that is reconnecting holds commands
//! back and sends them later, when nobody waits for them any more. A broken client is dropped, which
//! ends its reconnecting, and a new one is made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use glide::{GlideClient, Pipeline, PipelineOptions, ValkeyValue};
use parking_lot::Mutex;
use tidemill_proto::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{ConnectError, connect, dial};
use super::entry::bytes_of;
use super::failure::{Effect, Failure, breaks_connection, of_call, refuses_writes, reply_text};
use super::keys;
use super::options::ValkeyOptions;
use crate::clock::Clock;
use crate::storage::StorageError;

/// How often the supervisor asks a connection whether it is alive.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the answer may take. With the interval and the time to connect, a connection that has
/// silently died is replaced within seven seconds.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// After how long without an answer the port is tried, because a server that is gone refuses at once
/// while the library quietly tries to reconnect.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);
/// How long the key of a look is kept, should nobody look again.
const LOOK_KEPT_MS: &str = "60000";
/// First and longest wait between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// A supervised connection.
pub(super) struct Role {
    name: &'static str,
    client: ArcSwapOption<GlideClient>,
    up: watch::Sender<bool>,
    suspect: Notify,
    last_error: Mutex<String>,
    /// Why the server takes no writes although it answers; only where the role writes.
    refusal: Mutex<Option<String>>,
    writes: bool,
    /// By how many milliseconds the server's clock is ahead of this machine's.
    ahead_ms: AtomicI64,
    options: ValkeyOptions,
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("name", &self.name).field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Role {
    /// Returns a role that is down; `writes` tells whether it is for changes.
    pub(super) fn new(name: &'static str, writes: bool, options: &ValkeyOptions) -> Self {
        Self {
            name,
            client: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            suspect: Notify::new(),
            last_error: Mutex::new("not connected yet".to_owned()),
            refusal: Mutex::new(None),
            writes,
            ahead_ms: AtomicI64::new(0),
            options: options.clone(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Returns a view of up and down that can be waited on.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Returns why the role is down.
    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }

    /// Returns why the server takes no writes now, although it answers.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
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

    /// Runs commands as one pipeline and returns a reply for each; an error reply of the server is
    /// [`ValkeyValue::ServerError`] in its place.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the commands may have run.
    pub(super) async fn run(
        &self,
        pipeline: &Pipeline,
        effect: Effect,
    ) -> Result<Vec<ValkeyValue>, StorageError> {
        let Some(client) = self.client.load_full() else {
            return Err(StorageError::Unavailable(Failure::Down(self.last_error()).into()));
        };
        let options = PipelineOptions::new().with_timeout(self.options.timeout);
        match client.exec(pipeline, false, &options).await {
            Ok(replies) => {
                if replies
                    .iter()
                    .any(|reply| matches!(reply, ValkeyValue::ServerError(e) if refuses_writes(e)))
                {
                    self.suspect();
                }
                Ok(replies)
            }
            Err(error) => {
                if breaks_connection(&error) {
                    self.suspect();
                }
                Err(of_call(error, effect))
            }
        }
    }

    /// Runs one command and returns its reply.
    ///
    /// # Cancel safety
    /// Not cancel-safe, like [`run`](Self::run).
    pub(super) async fn run_one(
        &self,
        pipeline: &Pipeline,
        effect: Effect,
    ) -> Result<ValkeyValue, StorageError> {
        let mut replies = self.run(pipeline, effect).await?;
        let reply = replies.pop().ok_or_else(|| super::failure::unexpected("a command", effect))?;
        super::failure::checked(reply)
    }

    /// Keeps the role connected until the token is cancelled.
    pub(super) async fn supervise(self: Arc<Self>, token: CancellationToken) {
        // The library's connecting is a large future.
        token.run_until_cancelled(Box::pin(self.keep_connected())).await;
        self.set_down("the relay is stopping");
    }

    async fn keep_connected(&self) {
        let options = &self.options;
        let mut wait = RETRY_FIRST;
        loop {
            match connect(options, self.name).await {
                Ok(client) => {
                    wait = RETRY_FIRST;
                    let client = Arc::new(client);
                    self.client.store(Some(client.clone()));
                    self.up.send_replace(true);
                    tracing::info!(role = self.name, server = %options.target, "connected");
                    let reason = self.watch_over(&client).await;
                    self.set_down(&reason);
                    tracing::warn!(role = self.name, server = %options.target, reason, "connection lost");
                }
                Err(error) => self.note_failure(&error),
            }
            sleep(jittered(wait)).await;
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    fn set_down(&self, reason: &str) {
        reason.clone_into(&mut self.last_error.lock());
        self.client.store(None);
        self.up.send_replace(false);
        *self.refusal.lock() = None;
    }

    /// Logs a failed attempt, once until the reason changes: the next hundred attempts say the same.
    fn note_failure(&self, error: &ConnectError) {
        let options = &self.options;
        let text = error.to_string();
        let mut last_error = self.last_error.lock();
        if *last_error == text {
            tracing::debug!(role = self.name, server = %options.target, error = text, "still not connected");
        } else {
            tracing::warn!(role = self.name, server = %options.target, error = text, "cannot connect, trying on");
            *last_error = text;
        }
    }

    /// Looks at the connection, and beside it at the port where the answer is slow to come.
    async fn look_at(&self, client: &GlideClient) -> Result<(), String> {
        let mut look = std::pin::pin!(self.look(client));
        if let Ok(outcome) = timeout(LOOK_PATIENCE, &mut look).await {
            return outcome;
        }
        if let Err(error) = dial(&self.options).await {
            return Err(error.to_string());
        }
        look.await
    }

    /// Returns when the connection is no longer of use, with the reason.
    async fn watch_over(&self, client: &GlideClient) -> String {
        loop {
            if let Err(reason) = self.look_at(client).await {
                return reason;
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.suspect.notified() => {}
            }
        }
    }

    /// Asks the server whether it is there, is the primary, what time it has, and takes writes.
    async fn look(&self, client: &GlideClient) -> Result<(), String> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("INFO").arg("replication").cmd("TIME");
        if self.writes {
            pipeline.cmd("SET").arg(keys::LOOK).arg("1").arg("PX").arg(LOOK_KEPT_MS);
        }
        let options = PipelineOptions::new().with_timeout(LOOK_TIMEOUT);
        // The library's own timeout does not cover waiting for its reconnecting.
        let replies = match timeout(LOOK_TIMEOUT, client.exec(&pipeline, false, &options)).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
        };
        let mut replies = replies.into_iter();
        match replies.next() {
            Some(ValkeyValue::ServerError(error)) if error.err_code() == "LOADING" => {
                return Err("the server is loading its data".to_owned());
            }
            // Any other error reply, as for want of rights, shows that the server is there.
            Some(ValkeyValue::ServerError(_)) => {}
            Some(reply) => {
                if bytes_of(reply).is_some_and(|text| contains(&text, b"role:slave")) {
                    return Err("the server is a replica and takes no writes".to_owned());
                }
            }
            None => return Err("an empty answer".to_owned()),
        }
        if let Some(server_ms) = replies.next().and_then(read_time_ms) {
            let here = i64::try_from(Clock::system().now().as_millis()).unwrap_or(i64::MAX);
            let there = i64::try_from(server_ms).unwrap_or(i64::MAX);
            self.ahead_ms.store(there.saturating_sub(here), Ordering::Relaxed);
        }
        self.note_refusal(match replies.next() {
            Some(ValkeyValue::ServerError(error)) => Some(reply_text(&error)),
            _ => None,
        });
        Ok(())
    }

    fn note_refusal(&self, refusal: Option<String>) {
        let mut kept = self.refusal.lock();
        if *kept != refusal {
            if let Some(reason) = &refusal {
                tracing::warn!(role = self.name, reason, "the server refuses writes");
            } else {
                tracing::info!(role = self.name, "the server takes writes again");
            }
            *kept = refusal;
        }
    }
}

/// Reads the reply to `TIME` as milliseconds.
pub(super) fn read_time_ms(reply: ValkeyValue) -> Option<u64> {
    let ValkeyValue::Array(parts) = reply else { return None };
    let number = |part: ValkeyValue| std::str::from_utf8(&bytes_of(part)?).ok()?.parse::<u64>().ok();
    let mut parts = parts.into_iter().map(number);
    Some(parts.next()?? * 1_000 + parts.next()?? / 1_000)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Spreads the attempts of several roles and nodes: between a half and the whole of the wait.
fn jittered(wait: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(wait) % 512;
    wait.mul_f64(0.5 + f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0)
}
