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
//! Under `appendfsync everysec` `WAITAOF` answers at once, without waiting for the disk, at least up to Valkey 9.1. So
//! only `always` counts, which is asked for together with each wait.

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
use super::options::ValkeyOptions;
use super::resp::{Reply, Request, RespConnection};
use super::supervised::Supervised;
use crate::storage::{DURABILITY_WAIT, StorageError};

/// How long what the server says of its file counts. Each wait asks again.
const FACTS_KEPT: Duration = Duration::from_secs(1);
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
    facts: tokio::sync::Mutex<Option<(Instant, Facts)>>,
}

/// Why a server's file, or its replicas, cannot be waited for, if so.
#[derive(Clone, Debug, Default)]
struct Facts {
    unsynced: Option<Box<str>>,
    unreceived: Option<Box<str>>,
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
            facts: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the history in which a wait for what is written from now on has to end.
    pub(super) async fn pledge(&self, asked: Durability) -> Result<Arc<str>, StorageError> {
        // Nothing is known of a server that is away.
        self.publish.current()?;
        let (text, _) = self.publish.replication().ok_or_else(untold)?;
        let text = String::from_utf8_lossy(&text);
        let history = info::field(&text, "master_replid").ok_or_else(untold)?.into();
        let replicas = replicas_in(&text);
        if replicas < u32::from(asked.replicas) {
            return Err(StorageError::TooFewReplicas { asked: asked.replicas, connected: replicas });
        }
        let Facts { unsynced, unreceived } = self.facts().await?;
        let why = unsynced.filter(|_| asked.fsync).or(unreceived.filter(|_| asked.replicas > 0));
        if let Some(why) = why {
            return Err(StorageError::Undurable(why));
        }
        let Line { connection, .. } = self.line(asked);
        let mut up = connection.status();
        let is_up = timeout(DURABILITY_WAIT.min(self.options.timeout), up.wait_for(|up| *up)).await;
        if !matches!(is_up, Ok(Ok(_))) {
            return Err(StorageError::Unavailable(Failure::Down(connection.last_error()).into()));
        }
        Ok(history)
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
    async fn facts(&self) -> Result<Facts, StorageError> {
        let mut kept = self.facts.lock().await;
        if let Some((asked_at, facts)) = &*kept
            && asked_at.elapsed() < FACTS_KEPT
        {
            return Ok(facts.clone());
        }
        let mut request = Request::default();
        add_settings(&mut request);
        // These wait for nothing.
        request.add(&[b"WAITAOF", b"0", b"0", b"1"]).add(&[b"WAIT", b"0", b"1"]);
        let replies = self.publish.exchange(&request, Effect::Read).await?;
        let mut replies = replies.iter();
        let settings = replies.next().map_or_else(|| Ok(Settings::default()), settings_of);
        let mut refusal = || replies.next().and_then(|reply| reply.error());
        let (of_file, of_replicas) = (refusal(), refusal());
        let unsynced = match (settings, of_file) {
            (_, Some(refusal)) => Some(format!(
                "its server does not do `WAITAOF`, as Valkey does, and Redis from 7.2 on, unless the user may not: {refusal}"
            )),
            (Ok(settings), None) => settings.why_unsynced(),
            (Err(refusal), None) => Some(format!(
                "its server does not tell whether it keeps what is written on its disk; its user needs the command `CONFIG GET`: {refusal}"
            )),
        };
        let unreceived =
            of_replicas.map(|refusal| format!("its server does not wait for replicas (`WAIT`): {refusal}"));
        let facts = Facts { unsynced: unsynced.map(Into::into), unreceived: unreceived.map(Into::into) };
        *kept = Some((Instant::now(), facts.clone()));
        Ok(facts)
    }
}

/// Returns how many replicas a server has that follow it: one that is still given what there is does not yet.
fn replicas_in(info: &str) -> u32 {
    let is_one = |line: &&str| {
        let number = line.strip_prefix("slave").and_then(|rest| rest.split_once(':'));
        number.is_some_and(|(number, told)| {
            number.parse::<u32>().is_ok() && told.split(',').any(|part| part == "state=online")
        })
    };
    u32::try_from(info.lines().filter(is_one).count()).unwrap_or(u32::MAX)
}

/// The error where the server does not tell of its replication.
fn untold() -> StorageError {
    let why = "its server does not tell its `master_replid`; its user needs the command `INFO`";
    StorageError::Undurable(why.into())
}

/// How a server keeps its file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    appendonly: String,
    appendfsync: String,
}

impl Settings {
    fn why_unsynced(&self) -> Option<String> {
        if self.appendonly != "yes" {
            return Some(
                "its server keeps no append-only file; set `appendonly yes` and `appendfsync always` there"
                    .to_owned(),
            );
        }
        (self.appendfsync != "always").then(|| {
            format!(
                "its server is set to `appendfsync {}`, and confirms there what is not on its disk yet; set `appendfsync always` there",
                self.appendfsync
            )
        })
    }
}

fn add_settings(request: &mut Request) {
    request.add(&[b"CONFIG", b"GET", b"append*"]);
}

/// Reads what the server says of how it keeps its file.
fn settings_of(reply: Reply<'_>) -> Result<Settings, String> {
    if let Some(refusal) = reply.error() {
        return Err(refusal);
    }
    let mut read = Settings::default();
    let Reply::Array(mut parts) = reply else { return Ok(read) };
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let value = || String::from_utf8_lossy(value.bytes().unwrap_or_default()).into_owned();
        match name.bytes() {
            Some(b"appendonly") => read.appendonly = value(),
            Some(b"appendfsync") => read.appendfsync = value(),
            _ => {}
        }
    }
    Ok(read)
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
    /// not say.
    async fn wait_once(&self) -> Result<Option<(String, Durability)>, StorageError> {
        let key = keys::of_server(keys::WAIT, self.options.resolver.own_slot());
        let (fsync, replicas) = (self.asked.fsync, self.asked.replicas.to_string());
        // One wait comes behind the other, and mostly finds it done.
        let waits = u32::from(fsync) + u32::from(self.asked.replicas > 0);
        let within = WAIT.min(self.options.timeout * 3 / 4) / waits.max(1);
        let within = within.as_millis().to_string();
        let mut request = Request::default();
        if fsync {
            add_settings(&mut request);
        }
        request.add(&[b"SET", key.as_bytes(), b"1", b"PX", WAIT_KEPT_MS.as_bytes()]);
        if fsync {
            request.add(&[b"WAITAOF", b"1", b"0", within.as_bytes()]);
        }
        if self.asked.replicas > 0 {
            request.add(&[b"WAIT", replicas.as_bytes(), within.as_bytes()]);
        }
        request.add(&[b"INFO", b"replication"]);
        let replies = self.connection.exchange(&request, Effect::Write).await?;
        let mut refusals = replies.iter().filter_map(|reply| reply.error());
        if let Some(refusal) = refusals.next() {
            return Err(StorageError::Unavailable(Failure::Server(refusal).into()));
        }
        let mut replies = replies.iter();
        let mut reached = Durability::ACCEPTED;
        let is_synced_first = fsync
            && replies
                .next()
                .is_some_and(|settings| settings_of(settings).is_ok_and(|it| it.why_unsynced().is_none()));
        let _written = replies.next();
        if fsync {
            let synced = match replies.next() {
                Some(Reply::Array(mut parts)) => parts.next().and_then(|local| local.integer()),
                _ => None,
            };
            reached.fsync = is_synced_first && synced == Some(1);
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

#[cfg(test)]
mod tests {
    use super::replicas_in;

    #[test]
    fn only_replicas_that_follow_count() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
            slave0:ip=127.0.0.1,port=1,state=online,offset=14,lag=0\r\n\
            slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
            slave2:ip=127.0.0.1,port=3,state=online,offset=14,lag=1,type=replica\r\n\
            slave_read_only:1\r\nmaster_replid:0af1\r\n";
        assert_eq!(replicas_in(info), 2);
        assert_eq!(replicas_in("role:master\r\nconnected_slaves:0\r\n"), 0);
    }
}
