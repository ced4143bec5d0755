//! Waiting until what was written is safe: on the disk of the server, and with replicas.
//!
//! `WAIT` and `WAITAOF` speak of what their own connection has written. What a server writes has one order, for its
//! disk and for its replicas alike: when they have what a connection has written, they have all that was written before, by
//! whomever. So messages take their way through lanes, in their order, whatever is asked of them, and who has asked for
//! more waits here once they are confirmed. One wait, behind one write of its own, serves all who came while the one before
//! was under way (group commit).
//!
//! `WAIT` holds up everything behind it on its connection, so each durability has a connection of its own, from when it is
//! first asked for.
//!
//! A server that has taken over may lack what the one before has confirmed, and does not know that. Each history of writes
//! has an id (`master_replid` of `INFO`), and another one from when a replica is promoted. So that id is noted before a
//! message is sent, and a wait says something of the message only where it ends in the same history.
//!
//! What the server can be waited for is asked together with each wait, as it may change (see `abilities`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::Durability;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Work;
use super::failure::{Effect, Failure, causes_of};
use super::info;
use super::keys;
use super::options::{DurabilityRule, ValkeyOptions};
use super::resp::{Reply, Request, RespConnection};
use super::supervised::Supervised;
use crate::storage::{DURABILITY_WAIT, StorageError};
use abilities::{add_settings, settings_of};

mod abilities;

pub(super) use abilities::Abilities;

/// How long what the server says of what can be waited for counts. Each wait asks again.
const ABILITIES_KEPT: Duration = Duration::from_secs(1);
/// How long the server is asked to wait: who waits gets to know what was reached by then.
const WAIT: Duration = DURABILITY_WAIT.saturating_sub(Duration::from_millis(100));
/// Who waits in a line for one durability, before others wait for a place in it.
const LINE_MAX: usize = 4 * 1024;
/// How long the key of a wait is kept, should nobody wait again.
const WAIT_KEPT_MS: &str = "60000";

/// Waits for one server.
#[derive(Debug)]
pub(super) struct Waits {
    /// The connection whose looks tell of the server's history and replicas.
    publish: Arc<Supervised<RespConnection>>,
    options: ValkeyOptions,
    tracker: TaskTracker,
    token: CancellationToken,
    /// The line of each durability that was asked for. There are few that can be.
    lines: Mutex<HashMap<Durability, Line>>,
    /// What the server said last of what can be waited for, and when that was asked.
    abilities: tokio::sync::Mutex<Option<(Instant, Abilities)>>,
}

/// The way to who waits for one durability.
#[derive(Clone, Debug)]
struct Line {
    connection: Arc<Supervised<RespConnection>>,
    tx: mpsc::Sender<Waiter>,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    history: Arc<str>,
    reply: oneshot::Sender<Durability>,
}

/// Waits for all who ask for one durability.
struct Waiting {
    asked: Durability,
    connection: Arc<Supervised<RespConnection>>,
    options: ValkeyOptions,
}

impl Waits {
    pub(super) fn new(
        publish: Arc<Supervised<RespConnection>>,
        options: &ValkeyOptions,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        Self {
            publish,
            options: options.clone(),
            tracker: tracker.clone(),
            token: token.clone(),
            lines: Mutex::default(),
            abilities: tokio::sync::Mutex::default(),
        }
    }

    /// Returns whether what is asked for can be had of the server.
    ///
    /// # Errors
    /// It cannot be, now or as the server is set; or the server is away.
    pub(super) async fn check(&self, asked: Durability) -> Result<(), StorageError> {
        // Nothing is known of a server that is away.
        self.publish.current()?;
        let abilities = self.abilities().await?;
        abilities.refusal(asked, self.publish.replication().as_deref()).map_or(Ok(()), Err)
    }

    /// Returns the history in which a wait for what is written from now on has to end, once that can be waited for. Where
    /// it is not known it has no name, and nothing is reached.
    ///
    /// # Errors
    /// The server is away.
    pub(super) async fn history(&self, asked: Durability) -> Result<Arc<str>, StorageError> {
        let Line { connection, .. } = self.line(asked);
        let mut up = connection.status();
        let is_up = timeout(DURABILITY_WAIT.min(self.options.timeout), up.wait_for(|up| *up)).await;
        if !matches!(is_up, Ok(Ok(_))) {
            return Err(StorageError::Unavailable(connection.down().into()));
        }
        Ok(self.publish.replication().and_then(|told| told.history.clone()).unwrap_or_default())
    }

    /// Waits for what was written since it was in a history. Returns how durable it is.
    pub(super) async fn reach(&self, asked: Durability, history: Arc<str>) -> Durability {
        let (reply, reached) = oneshot::channel();
        let tx = self.line(asked).tx;
        let wait = async {
            // A line that has ended, with the relay, reaches nothing.
            let _ = tx.send(Waiter { history, reply }).await;
            reached.await.unwrap_or_default()
        };
        timeout(DURABILITY_WAIT, wait).await.unwrap_or_default()
    }

    /// Returns a sentence for each of these rules by which messages are refused now.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn warnings(&self, rules: &[&DurabilityRule]) -> Result<Vec<String>, StorageError> {
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let (abilities, told) = (self.abilities().await?, self.publish.replication());
        Ok(rules.iter().filter_map(|rule| abilities.warning(rule, told.as_deref())).collect())
    }

    /// Returns the line of a durability, which begins with who asks first.
    fn line(&self, asked: Durability) -> Line {
        let mut lines = self.lines.lock();
        let line = lines.entry(asked).or_insert_with(|| {
            let connection = Arc::new(Supervised::new("durable", Work::Other, &self.options));
            self.tracker.spawn(connection.clone().supervise(self.token.clone()));
            let (tx, rx) = mpsc::channel(LINE_MAX);
            let options = self.options.clone();
            let waiting = Waiting { asked, connection: connection.clone(), options };
            self.tracker.spawn(self.token.clone().run_until_cancelled_owned(waiting.run(rx)));
            Line { connection, tx }
        });
        line.clone()
    }

    /// Asks the server what can be waited for.
    async fn abilities(&self) -> Result<Abilities, StorageError> {
        let mut kept = self.abilities.lock().await;
        if let Some((asked_at, abilities)) = &*kept
            && asked_at.elapsed() < ABILITIES_KEPT
        {
            return Ok(abilities.clone());
        }
        let mut request = Request::default();
        Abilities::ask(&mut request);
        let abilities = Abilities::read(self.publish.exchange(&request, Effect::Read).await?.iter());
        *kept = Some((Instant::now(), abilities.clone()));
        Ok(abilities)
    }
}

impl Waiting {
    async fn run(self, mut rx: mpsc::Receiver<Waiter>) {
        let mut line = Vec::new();
        while rx.recv_many(&mut line, LINE_MAX).await > 0 {
            let reached = self.wait_once().await.unwrap_or_else(|error| {
                let (asked, cause) = (self.asked, causes_of(&error));
                tracing::warn!(%asked, %error, cause, "cannot wait until messages are as durable as was asked");
                None
            });
            for Waiter { history, reply } in line.drain(..) {
                let reached = reached.as_ref().filter(|(now, _)| *now == *history);
                // Who no longer waits needs no answer.
                let _ = reply.send(reached.map_or(Durability::ACCEPTED, |(_, reached)| *reached));
            }
        }
    }

    /// Waits for all that is written by now. Returns how durable it is, and in which history; nothing where the server does
    /// not say. What it refuses to wait for is not reached.
    async fn wait_once(&self) -> Result<Option<(String, Durability)>, StorageError> {
        let key = keys::of_server(keys::WAIT, self.options.resolver.own_slot());
        let (fsync, replicas) = (self.asked.fsync, self.asked.replicas.to_string());
        // One wait comes behind the other, and mostly finds it done.
        let waits = u32::from(fsync) + u32::from(self.asked.replicas > 0);
        let within = WAIT.min(self.options.timeout * 3 / 4) / waits.max(1);
        let within = within.as_millis().to_string();
        let mut request = Request::default();
        request.add(&[b"SET", key.as_bytes(), b"1", b"PX", WAIT_KEPT_MS.as_bytes()]);
        if fsync {
            add_settings(&mut request);
            request.add(&[b"WAITAOF", b"1", b"0", within.as_bytes()]);
        }
        if self.asked.replicas > 0 {
            request.add(&[b"WAIT", replicas.as_bytes(), within.as_bytes()]);
        }
        request.add(&[b"INFO", b"replication"]);
        let replies = self.connection.exchange(&request, Effect::Write).await?;
        let mut replies = replies.iter();
        if let Some(refusal) = replies.next().and_then(|written| written.error()) {
            return Err(StorageError::Unavailable(Failure::Server(refusal).into()));
        }
        let mut reached = Durability::ACCEPTED;
        if fsync {
            let settings = replies.next().and_then(|settings| settings_of(settings).ok());
            let synced = match replies.next() {
                Some(Reply::Array(mut parts)) => parts.next().and_then(|local| local.integer()),
                _ => None,
            };
            let waits = settings.is_some_and(|settings| settings.why_unsynced().is_none());
            reached.fsync = waits && synced == Some(1);
        }
        if self.asked.replicas > 0 {
            let received = replies.next().and_then(|reply| reply.integer()).unwrap_or_default();
            reached.replicas = u8::try_from(received).unwrap_or(0).min(self.asked.replicas);
        }
        let told =
            replies.next().and_then(|reply| Some(String::from_utf8_lossy(reply.bytes()?).into_owned()));
        let history = told.as_deref().and_then(|text| info::field(text, "master_replid"));
        Ok(history.map(|history| (history.to_owned(), reached)))
    }
}
