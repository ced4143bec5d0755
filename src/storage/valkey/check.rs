//! Proof that a server can carry the relay: connects, probes, and says what to do about what it finds. Of several, each is
//! looked at.
//!
//! It works on connections of its own and does what the relay does, with the relay's own scripts, on a
//! topic that nobody else has: a server or a user that refuses any of it would refuse the relay. It
//! leaves nothing behind.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use glide::{GlideClient, Pipeline, PipelineOptions, ValkeyValue};
use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, Timestamp, TopicName};
use tokio::time::Instant;

use super::connect::connect;
use super::connection::{Connection as _, Work};
use super::control::{bytes_of, read_id};
use super::failure::lacks_right;
use super::health::{ServerInfo, asks_for_settings};
use super::index::key_of;
use super::keys::{IndexName, Keys};
use super::resp::{Replies, Reply, Request, RespConnection};
use super::{ValkeyOptions, entry, keys, layout, marker, rights, scripts};
use crate::storage::{Body, Idempotency, NewMessage, TopicPolicy};
use connecting::advice_for_connecting;
use report::advice_about_rights;
use servers::Server;

mod connecting;
mod copies;
mod doorbell;
mod durability;
mod groups;
mod hosts;
mod info;
mod report;
mod sentinels;
mod servers;
mod timing;

pub use info::EVICTION;
pub use report::{CheckLine, CheckReport, Outcome, RIGHTS};

/// Servers that are checked at one time.
const AT_ONCE: usize = 8;
/// Seconds after which what the probe wrote ends by itself, should the check be killed half way.
const PROBE_SECONDS: &str = "60";
/// The same in milliseconds.
const PROBE_MS: u64 = 60_000;
/// How many entries the probe's stream may keep.
const PROBE_ENTRIES: u64 = 1_000;
/// The idempotency key of the probe's message.
const PROBE_KEY: &str = "check";
/// Told where the user may not ask what the server has noted as slow.
const NO_SLOWLOG: &str = "the server's user may not ask what was slow (give it +slowlog|get): `tidemill slow` tells of the relay alone";
/// Checks the server of these options, or each of several, and says what is alike once. Ends within a few of the options'
/// timeouts.
///
/// # Panics
/// Never: the probe's name is one of a topic.
pub async fn run(options: &ValkeyOptions) -> CheckReport {
    let (mut report, servers) = servers::of(options).await;
    let checked = servers.iter().map(|server| Box::pin(check(server)));
    let checked: Vec<(CheckReport, Option<String>)> = stream::iter(checked).buffered(AT_ONCE).collect().await;
    let (reports, identities): (Vec<CheckReport>, Vec<Option<String>>) = checked.into_iter().unzip();
    servers::tell_apart(&mut report, &servers, &identities);
    report.add_all(servers.iter().map(|server| &server.name).zip(reports));
    report
}

/// Checks one server; returns what tells it from all others, too, if it says that.
async fn check(server: &Server) -> (CheckReport, Option<String>) {
    let mut report = CheckReport { lines: Vec::new() };
    let options = &server.options;
    if let Some((outcome, detail, advice)) = sentinels::told(options).await {
        report.add("sentinels", outcome, detail, advice);
    }
    if !server.is_of_a_cluster() {
        hosts::add(&mut report, options).await;
    }
    let begin = Instant::now();
    let connected = match connect(options, "check").await {
        // Second, because the library tells more of what is wrong.
        Ok((client, carrier, _)) => {
            let connected = RespConnection::connect(options, "check").await;
            connected.map(|(resp, driving, _)| (client, carrier, resp, driving))
        }
        Err(error) => Err(error),
    };
    let (client, _carrier, resp, mut driving) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let advice = advice_for_connecting(&error.to_string(), options);
            report.add("connect", Outcome::Fail, format!("{}: {error}", options.target), Some(advice));
            return (report, None);
        }
    };
    let took = millis(begin.elapsed());
    report.add("connect", Outcome::Pass, format!("{} in {took} ms", options.target), None);
    let found = tokio::select! {
        found = resp.layout(options, Work::Other, options.timeout) => found.ok().flatten(),
        _ = &mut driving => None,
    };
    if let Err(why) = layout::check(found.as_deref()) {
        report.add("layout", Outcome::Fail, why, None);
        return (report, None);
    }
    let probe = Probe::new(client, resp, server);
    let carried = async {
        // What asks is told when the connection breaks.
        driving.await;
        std::future::pending::<()>().await;
    };
    let identity = tokio::select! {
        identity = probe.examine(&mut report, server) => identity,
        () = carried => None,
    };
    (report, identity)
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

struct Probe {
    client: GlideClient,
    resp: RespConnection,
    keys: Keys,
    timeout: Duration,
    topic: TopicName,
    /// Of a stream that is made without the scripts, so that neither hides what is wrong with the other.
    plain_topic: TopicName,
    /// The key of the index that is tried: of topics, where that part of it is at the server.
    index: String,
}

impl Probe {
    fn new(client: GlideClient, resp: RespConnection, server: &Server) -> Self {
        let options = &server.options;
        let (keys, timeout) = (Keys::new(options.key_form), options.timeout);
        let index_of = |topic: &TopicName| key_of(keys, IndexName::Topics, topic);
        let has_index = |topic: &TopicName| server.has(index_of(topic).as_str());
        let topic = server.topic(has_index).unwrap_or_else(|| server.any_topic());
        let index = if has_index(&topic) { index_of(&topic) } else { format!("{}:names", own_key(&topic)) };
        let plain_topic = server.any_topic();
        Self { client, resp, keys, timeout, topic, plain_topic, index }
    }

    async fn examine(&self, report: &mut CheckReport, server: &Server) -> Option<String> {
        self.latency(report).await;
        self.clock(report).await;
        let advice = "the server must be Valkey, or Redis 7.0 and later";
        report.add_result("keys", self.keys().await, advice);
        self.copies(report, server).await;
        report.add_result("streams", self.streams().await, advice);
        report.add_result(
            "scripts",
            self.scripts().await,
            "new topics and idempotent publishes need Lua; use a server that is built with it",
        );
        report.add_result("groups", self.groups(server).await, advice);
        self.clear().await;
        report.add_result("doorbell", self.doorbell(server).await, &advice_about_rights());
        let info = self
            .run_one("INFO", |pipeline| {
                pipeline.cmd("INFO");
            })
            .await;
        let mut identity = None;
        match info.map(ServerInfo::read) {
            Ok(mut info) => {
                for setting in info::SETTINGS.into_iter().filter(|_| asks_for_settings(&server.options)) {
                    let asked = self.run_one("CONFIG", |pipeline| {
                        pipeline.cmd("CONFIG").arg("GET").arg(setting);
                    });
                    // What is not told is told to be looked at.
                    if let Ok(told) = asked.await {
                        info.tell(told);
                    }
                }
                identity = info.identity(server.options.target.database, server.options.key_form);
                info::examine(report, &info, server.is_placed());
                if server.is_of_a_cluster() {
                    info::examine_failover(report, &info);
                }
                if server.options.reads_replicas || !server.is_of_a_cluster() {
                    info::examine_replicas(report, &info, server.options.reads_replicas);
                }
            }
            Err(error) => report.add_result("server", Err(error), "the server must answer INFO"),
        }
        self.durability(report, server).await;
        self.rights(report, server).await;
        identity
    }

    /// Looks what the user may not do although the relay can do without it. What it cannot do without was tried before.
    async fn rights(&self, report: &mut CheckReport, server: &Server) {
        // What cannot be asked was told before.
        let Ok(mut lacking) = rights::lacking(&server.options, self.keys).await else { return };
        let asked = self.run_one("SLOWLOG", |pipeline| {
            pipeline.cmd("SLOWLOG").arg("GET").arg("1");
        });
        if asked.await.is_err_and(|error| lacks_right(&error)) {
            lacking.push(NO_SLOWLOG);
        }
        if lacking.is_empty() {
            report.add("rights", Outcome::Pass, "the user may do all that a relay does", None);
        }
        for lack in lacking {
            report.add("rights", Outcome::Warn, lack, Some(&advice_about_rights()));
        }
    }

    async fn run(&self, pipeline: &Pipeline) -> Result<Vec<ValkeyValue>, String> {
        let options = PipelineOptions::new().with_timeout(self.timeout);
        let replies = self.client.exec(pipeline, false, &options).await.map_err(|error| error.to_string())?;
        for reply in &replies {
            if let ValkeyValue::ServerError(error) = reply {
                return Err(format!("{} {}", error.err_code(), error.details().unwrap_or_default()));
            }
        }
        Ok(replies)
    }

    /// Runs commands as appends are run.
    async fn append(&self, request: &Request) -> Result<Replies, String> {
        let replies = self.resp.exchange(request, self.timeout).await.map_err(|error| error.to_string())?;
        match replies.iter().find_map(|reply| reply.error()) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    async fn run_one(&self, name: &str, build: impl FnOnce(&mut Pipeline)) -> Result<ValkeyValue, String> {
        let mut pipeline = glide::pipe();
        build(&mut pipeline);
        self.run(&pipeline).await?.into_iter().next().ok_or_else(|| format!("{name} had no reply"))
    }

    /// Tries what holds the relay together: the list of topics, and keys of its own.
    async fn keys(&self) -> Result<String, String> {
        let key = own_key(&self.topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("SET").arg(&key).arg("probe").arg("NX").arg("PX").arg(PROBE_MS.to_string());
        pipeline.cmd("GET").arg(&key).cmd("DEL").arg(&key);
        let (name, index) = (self.topic.as_str(), &self.index);
        pipeline.cmd("ZADD").arg(index).arg("NX").arg("0").arg(name);
        pipeline.cmd("ZRANGE").arg(index).arg(format!("[{name}")).arg("+").arg("BYLEX");
        pipeline.arg("LIMIT").arg("0").arg("1");
        pipeline.cmd("ZREM").arg(index).arg(name);
        pipeline.cmd("ZCARD").arg(index);
        pipeline.cmd("SCAN").arg("0").arg("MATCH").arg(self.keys.stream(&self.topic)).arg("COUNT").arg("1");
        pipeline.arg("TYPE").arg("stream");
        pipeline.cmd("TIME");
        let mut replies = self.run(&pipeline).await?.into_iter();
        let read = replies.nth(1).and_then(bytes_of);
        if read.as_deref() == Some(b"probe") {
            Ok("a key was set, read back and deleted, and a topic listed and struck off".to_owned())
        } else {
            Err("a key was set, but something else was read back".to_owned())
        }
    }

    fn message(&self) -> NewMessage {
        let body =
            Body { payload: Bytes::from_static(b"{}"), content_type: None, metadata: None, order_key: None };
        NewMessage {
            topic: self.topic.clone(),
            body,
            timestamp: Timestamp::from_millis(0),
            expires_at: None,
            idempotency: None,
            expected_last: None,
            unique: None,
            fence: None,
            create_topic: false,
            owner: None,
            policy: TopicPolicy::newest(PROBE_ENTRIES),
        }
    }

    /// Tries what the relay does with a topic's stream.
    async fn streams(&self) -> Result<String, String> {
        let key = self.keys.stream(&self.plain_topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("XADD").arg(&key).arg("*").arg("payload").arg("{}");
        pipeline.cmd("EXPIRE").arg(&key).arg(PROBE_SECONDS);
        self.run(&pipeline).await?;
        let mut request = Request::default();
        let message = NewMessage { topic: self.plain_topic.clone(), ..self.message() };
        request.add(&[b"MULTI"]);
        entry::append(&mut request, self.keys, &message);
        request.add(&[b"EXEC"]);
        self.append(&request).await?;
        let mut pipeline = glide::pipe();
        pipeline.cmd("XTRIM").arg(&key).arg("MAXLEN").arg("=").arg("1");
        pipeline.cmd("EXISTS").arg(&key).cmd("TYPE").arg(&key).cmd("XLEN").arg(&key);
        pipeline.cmd("XINFO").arg("STREAM").arg(&key).cmd("XINFO").arg("GROUPS").arg(&key);
        pipeline.cmd("XRANGE").arg(&key).arg("-").arg("+").arg("COUNT").arg("1");
        pipeline.cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg("1");
        pipeline.cmd("XREAD").arg("COUNT").arg("1").arg("STREAMS").arg(&key).arg("0-0");
        pipeline.cmd("DEL").arg(&key);
        let replies = self.run(&pipeline).await?;
        if replies.first() == Some(&ValkeyValue::Int(1)) {
            Ok("entries were appended, read, trimmed and deleted".to_owned())
        } else {
            Err("a stream of two entries was trimmed to one, but the server says otherwise".to_owned())
        }
    }

    /// Runs the relay's scripts: makes the topic, publishes to it twice under one key, clears its
    /// description, and deletes it.
    async fn scripts(&self) -> Result<String, String> {
        let (stream, description) = (self.keys.stream(&self.topic), self.keys.description(&self.topic));
        let (last, deleted) = (self.keys.last_id(&self.topic), self.keys.deleted(&self.topic));
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::CREATE_TOPIC).arg("7").arg(&stream).arg(&description).arg(&last);
        pipeline.arg(&deleted).arg(&self.keys.schedules(&self.topic)[..]).arg(marker::new_epoch());
        pipeline.arg("created_at").arg("0");
        pipeline.cmd("EXPIRE").arg(&stream).arg(PROBE_SECONDS);
        pipeline.cmd("EXPIRE").arg(&description).arg(PROBE_SECONDS);
        let replies = self.run(&pipeline).await?;
        expect_number("the topic was not created", number_of(replies.first()), 0)?;

        let mut request = Request::default();
        request.add(&[b"SCRIPT", b"LOAD", scripts::APPEND_ONCE.as_bytes()]);
        let loaded = self.append(&request).await?;
        let digest =
            loaded.iter().next().and_then(|reply| reply.bytes()).ok_or("SCRIPT LOAD had no digest")?;
        let mut request = Request::default();
        let once = Idempotency { key: PROBE_KEY.into(), fingerprint: [0; 16] };
        for _ in 0..2 {
            entry::append_once(&mut request, self.keys, &self.message(), &once, (digest, PROBE_MS));
        }
        let appended = self.append(&request).await?;
        let mut answers = appended.iter().map(|reply| match reply {
            Reply::Array(mut parts) => parts.next().and_then(|part| part.integer()),
            reply => reply.integer(),
        });
        expect_number("a message was not appended", answers.next().flatten(), 0)?;
        expect_number("a message was not known again by its key", answers.next().flatten(), 1)?;

        let mut pipeline = glide::pipe();
        pipeline.cmd("XADD").arg(&stream).arg("*").arg("payload").arg("{}");
        let ids = self.run(&pipeline).await?;
        let id = ids.first().and_then(read_id).ok_or("XADD had no id")?;
        let mut pipeline = glide::pipe();
        pipeline.cmd("HGETALL").arg(&description);
        pipeline.cmd("EVAL").arg(scripts::UPDATE_TOPIC).arg("2").arg(&stream).arg(&description);
        pipeline.arg("description").arg("").arg("retention").arg("");
        pipeline.cmd("EVAL").arg(scripts::DELETE_MESSAGE).arg("2").arg(&stream).arg(&deleted);
        pipeline.arg(id.to_string()).arg(keys::sortable(id)).arg("1").arg(marker::new_epoch());
        pipeline.cmd("EVAL").arg(scripts::SWEEP_TOPIC).arg("3").arg(&stream).arg(&deleted).arg(&description);
        pipeline.arg(marker::new_epoch()).arg("0");
        let (id, next) = (keys::sortable(id), keys::sortable(MessageId::MAX));
        pipeline
            .cmd("EVAL")
            .arg(scripts::STREAM_FACTS)
            .arg("2")
            .arg(&stream)
            .arg(&deleted)
            .arg(&id)
            .arg(&next);
        pipeline.cmd("ZRANGEBYLEX").arg(&deleted).arg("-").arg("+");
        // What scripts do only where much was deleted.
        pipeline.cmd("ZREMRANGEBYLEX").arg(&deleted).arg("-").arg("+");
        pipeline.cmd("ZREMRANGEBYRANK").arg(&deleted).arg("0").arg("0");
        for state in [RunState::Cancelled, RunState::Closed] {
            pipeline.cmd("EVAL").arg(scripts::END_RUN).arg("5").arg(&stream).arg(&description);
            pipeline.arg(&self.keys.schedules(&self.topic)[..]).arg(state.as_str()).arg("");
        }
        // And where something waits for later.
        pipeline.cmd("ZCOUNT").arg(&deleted).arg("-inf").arg("+inf").cmd("HLEN").arg(&description);
        pipeline.cmd("EVAL").arg(scripts::DELETE_TOPIC).arg("8").arg(&stream).arg(&description).arg(&last);
        let (groups, parts) = self.keys.of_groups(&self.topic);
        pipeline.arg(&deleted).arg(&self.keys.schedules(&self.topic)[..]).arg(self.keys.groups(&self.topic));
        pipeline.arg(PROBE_MS.to_string()).arg(groups).arg(&parts[..]);
        let replies = self.run(&pipeline).await?;
        expect_number("the topic was not described", number_of(replies.get(1)), 0)?;
        expect_number("a message was not deleted", number_of(replies.get(2)), 0)?;
        expect_number("the topic was not marked", number_of(replies.get(3)), 0)?;
        expect_number("the topic was not ended", number_of(replies.get(9)), 0)?;
        expect_number("the topic was not deleted", number_of(replies.get(12)), 0)?;
        Ok("a topic was created, published to under a key, and deleted".to_owned())
    }

    /// Tries what the relay does with groups of consumers.
    async fn groups(&self, server: &Server) -> Result<String, String> {
        let key = self.keys.stream(&self.plain_topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("XADD").arg(&key).arg("*").arg("payload").arg("{}");
        pipeline.cmd("EXPIRE").arg(&key).arg(PROBE_SECONDS);
        groups::add(&mut pipeline, self.keys, &self.plain_topic, &server.any_bucket());
        self.run(&pipeline).await?;
        Ok("a group was made, given a message, and deleted".to_owned())
    }

    /// Removes whatever is left. What the user may not remove ends by itself.
    async fn clear(&self) {
        let mut pipeline = glide::pipe();
        let own = [
            self.keys.stream(&self.plain_topic),
            self.keys.stream(&self.topic),
            self.keys.description(&self.topic),
            self.keys.last_id(&self.topic),
            self.keys.deleted(&self.topic),
            self.keys.idempotency(&self.topic, PROBE_KEY),
            own_key(&self.topic),
        ];
        for key in own.into_iter().chain(groups::keys(self.keys, &self.plain_topic)) {
            // One by one: the server refuses a command as a whole for one key.
            pipeline.cmd("DEL").arg(key);
        }
        pipeline.cmd("ZREM").arg(&self.index).arg(self.topic.as_str());
        if let Err(error) = self.run(&pipeline).await {
            tracing::debug!(error, "something of the check stays for {PROBE_SECONDS} seconds");
        }
    }
}

/// Returns a key of our own that no topic has; it lives with the topic.
fn own_key(topic: &TopicName) -> String {
    format!("tidemill:check:{{{topic}}}")
}

fn number_of(reply: Option<&ValkeyValue>) -> Option<i64> {
    match reply {
        Some(ValkeyValue::Int(number)) => Some(*number),
        _ => None,
    }
}

fn expect_number(failure: &str, answer: Option<i64>, expected: i64) -> Result<(), String> {
    match answer {
        Some(answer) if answer == expected => Ok(()),
        Some(answer) => Err(format!("{failure}: the script answered {answer}")),
        None => Err(format!("{failure}: the script answered no number")),
    }
}
