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
use std::time::Duration;

use arc_swap::ArcSwapOption;
use glide::{GlideClient, Pipeline, PipelineOptions, ValkeyValue};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{ConnectError, connect, dial};
use super::entry::bytes_of;
use super::failure::{Effect, Failure, breaks_connection, of_call, refuses_writes};
use super::options::ValkeyOptions;
use crate::storage::StorageError;

/// How often the supervisor asks a connection whether it is alive.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the answer may take. With the interval and the time to connect, a connection that has
/// silently died is replaced within seven seconds.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// After how long without an answer the port is tried, because a server that is gone refuses at once
/// while the library quietly tries to reconnect.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);
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
    options: ValkeyOptions,
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("name", &self.name).field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Role {
    pub(super) fn new(name: &'static str, options: &ValkeyOptions) -> Self {
        Self {
            name,
            client: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            suspect: Notify::new(),
            last_error: Mutex::new("not connected yet".to_owned()),
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
        let mut look = std::pin::pin!(look(client));
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
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.suspect.notified() => {}
            }
            if let Err(reason) = self.look_at(client).await {
                return reason;
            }
        }
    }
}

/// Asks the server whether it is there and takes writes.
async fn look(client: &GlideClient) -> Result<(), String> {
    let mut pipeline = glide::pipe();
    pipeline.cmd("INFO").arg("replication");
    let options = PipelineOptions::new().with_timeout(LOOK_TIMEOUT);
    // The library's own timeout does not cover waiting for its reconnecting.
    let replies = match timeout(LOOK_TIMEOUT, client.exec(&pipeline, false, &options)).await {
        Ok(Ok(replies)) => replies,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
    };
    match replies.into_iter().next() {
        Some(ValkeyValue::ServerError(error)) if error.err_code() == "LOADING" => {
            Err("the server is loading its data".to_owned())
        }
        // Any other error reply, as for want of rights, shows that the server is there.
        Some(ValkeyValue::ServerError(_)) => Ok(()),
        Some(reply) => match bytes_of(reply) {
            Some(text) if contains(&text, b"role:slave") => {
                Err("the server is a replica and takes no writes".to_owned())
            }
            _ => Ok(()),
        },
        None => Err("an empty answer".to_owned()),
    }
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
