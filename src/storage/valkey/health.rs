//! What the server tells of itself, and what of it is a danger to messages.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{join, join_all};
use glide::ValkeyValue;
use tidemill_proto::Timestamp;
use tidemill_proto::health::{BackendHealth, HealthStatus, ServerHealth};
use tokio::time::{Instant, timeout};

use super::Shard;
use super::cluster::places::Places;
use super::control::bytes_of;
use super::failure::{Effect, causes_of, lacks_right};
use super::options::{KeyForm, ValkeyOptions};
use super::replica::Replica;
use super::resolver::Address;
use super::{rights, warned};
use crate::storage::{Condition, READ_ONLY, StorageError, Unfit};

/// How long a health page may wait for the server.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// How long an answer is good for, so that health checks cost the server one question a second.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The policy by which a server at its memory limit refuses what is new and keeps what it has.
pub(super) const KEEPS: &str = "noeviction";

/// Why topics cannot be placed on a server.
pub(super) const IN_CLUSTER: &str = "it is part of a cluster, which spreads topics by itself: VALKEY_PLACEMENT is for servers that stand alone; leave it out, and name the cluster in VALKEY_URL";

/// What is told of two names of one server, behind these.
pub(super) const ONE_SERVER: &str =
    "are one server and database under two names: VALKEY_PLACEMENT is for several";

/// What is told where pages are to be read from replicas and there is none, and what to do about it.
pub(super) const NO_REPLICA: &str = "no replica follows the server, so VALKEY_READ_FROM=replica has no effect: pages of history are read from the primary";
pub(super) const FOR_REPLICAS: &str = "give it a replica, or leave VALKEY_READ_FROM out";

/// The facts of `INFO` that matter here.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerInfo {
    fields: HashMap<String, String>,
}

impl ServerInfo {
    /// Reads the reply to `INFO`; what is not in it is unknown.
    pub(super) fn read(reply: ValkeyValue) -> Self {
        let text = bytes_of(reply).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let fields = text
            .lines()
            .filter_map(|line| line.trim().split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { fields }
    }

    /// Takes in what the server says of its settings, as `CONFIG GET` tells it; none of them is called as a fact of `INFO`.
    pub(super) fn tell(&mut self, reply: ValkeyValue) {
        let pairs = match reply {
            ValkeyValue::Map(pairs) => pairs,
            ValkeyValue::Array(parts) => {
                let mut parts = parts.into_iter();
                std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
            }
            _ => return,
        };
        let text = |value| Some(String::from_utf8_lossy(&bytes_of(value)?).into_owned());
        self.fields.extend(pairs.into_iter().filter_map(|(name, value)| text(name).zip(text(value))));
    }

    /// Returns whether the server writes neither file; `None` where that is not known.
    pub(super) fn keeps_nothing(&self) -> Option<bool> {
        match (self.append_only()?, self.get("save")) {
            (true, _) => Some(false),
            (false, save) => save.map(str::is_empty),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    pub(super) fn server(&self) -> Option<&str> {
        // Only Valkey says so; Redis and its likes have a `redis_version` alone.
        self.get("server_name").or_else(|| self.get("redis_version").map(|_| "redis"))
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.get("valkey_version").or_else(|| self.get("redis_version"))
    }

    pub(super) fn memory_used_bytes(&self) -> Option<u64> {
        self.number("used_memory")
    }

    pub(super) fn memory_limit_bytes(&self) -> Option<u64> {
        self.number("maxmemory").filter(|bytes| *bytes > 0)
    }

    pub(super) fn eviction_policy(&self) -> Option<&str> {
        self.get("maxmemory_policy")
    }

    pub(super) fn is_in_cluster(&self) -> bool {
        self.get("cluster_enabled") == Some("1")
    }

    /// Returns how many replicas follow it.
    pub(super) fn replicas(&self) -> usize {
        let is_replica =
            |name: &str| name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok());
        let follow = |(name, told): &(&String, &String)| is_replica(name) && told.contains("state=online");
        self.fields.iter().filter(follow).count()
    }

    /// Returns what tells it, with a database and a form of keys, from all others, where it says who it is.
    pub(super) fn identity(&self, database: u32, form: KeyForm) -> Option<String> {
        let form = match form {
            KeyForm::Plain => "plain",
            KeyForm::Braces => "braces",
        };
        self.get("run_id").map(|run| format!("{run}/{database}/{form}"))
    }

    pub(super) fn append_only(&self) -> Option<bool> {
        self.number("aof_enabled").map(|enabled| enabled == 1)
    }

    /// Returns what is, or will be, wrong for messages.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(policy) = self.eviction_policy().filter(|policy| *policy != KEEPS) {
            let harm = harm_of(policy);
            warnings.push(format!(
                "the server's maxmemory-policy is {policy}, which {harm} at the memory limit; set it to {KEEPS}"
            ));
        }
        if self.keeps_nothing() == Some(true) {
            warnings.push(
                "the server keeps nothing on its disk, neither an append-only file nor snapshots (`save \"\"`), so when it restarts everything is gone; set appendonly yes".to_owned(),
            );
        } else if self.append_only() == Some(false) {
            warnings.push(
                "the server writes no append-only file, so a crash loses what came after its last snapshot; set appendonly yes".to_owned(),
            );
        }
        if self.get("aof_last_write_status").is_some_and(|status| status != "ok") {
            warnings.push(
                "the server cannot write its append-only file; look at its disk and its log".to_owned(),
            );
        }
        if self.get("rdb_last_bgsave_status").is_some_and(|status| status != "ok") {
            warnings.push("the server's last snapshot has failed; look at its disk and its log".to_owned());
        }
        if let (Some(used), Some(limit)) = (self.memory_used_bytes(), self.memory_limit_bytes())
            && used >= limit
        {
            warnings.push("the server is at its memory limit; trim topics or raise maxmemory".to_owned());
        }
        if self.get("loading") == Some("1") {
            warnings.push("the server is loading its data".to_owned());
        }
        warnings
    }
}

/// Returns whether the server's settings are asked for: not of a user with a name, which has no right to it by the documents,
/// unless messages are to be more durable, for which it needs that. The server notes each refusal.
pub(super) fn asks_for_settings(options: &ValkeyOptions) -> bool {
    options.target.username.is_none() || !options.durabilities.is_empty()
}

/// Returns whether a server can be trusted with messages now.
fn status(backend: &BackendHealth) -> HealthStatus {
    let deletes_topics = backend.eviction_policy.as_deref().is_some_and(deletes_topics);
    if backend.connected && backend.accepts_writes && !deletes_topics {
        HealthStatus::Healthy
    } else {
        HealthStatus::Degraded
    }
}

/// Whether a server with this policy deletes whole topics at its memory limit. The `volatile` policies
/// remove only keys that expire, which streams do not.
fn deletes_topics(policy: &str) -> bool {
    policy != KEEPS && !policy.starts_with("volatile-")
}

/// Returns what a server with this policy does to what the relay keeps.
pub(super) fn harm_of(policy: &str) -> &'static str {
    if deletes_topics(policy) { "deletes whole topics" } else { "forgets idempotency keys" }
}

/// Tells how the servers are. Several are connected, or take messages, where all do; what they have is told of each.
pub(super) async fn of_all(places: &Places) -> Condition {
    let placement = places.current();
    let all = join_all(placement.shards.iter().map(|shard| shard.health())).await;
    let Some(mut condition) = all.first().cloned() else {
        let warnings = vec![format!("no connection to the server: {}", places.last_error())];
        let backend = BackendHealth { kind: "valkey".to_owned(), warnings, ..BackendHealth::default() };
        return Condition { status: HealthStatus::Degraded, backend };
    };
    if let Some(shard) = placement.shards.first() {
        condition.backend.taken_over = shard.count_unfinished().await;
    }
    let each = placement.shards.iter().zip(&all);
    let servers: Vec<ServerHealth> = each.filter_map(|(shard, one)| of_server(shard, &one.backend)).collect();
    if servers.is_empty() {
        return condition;
    }
    let backend = &mut condition.backend;
    // Each has its own, which `servers` tells.
    (backend.host, backend.port) = (None, None);
    (backend.memory_used_bytes, backend.memory_limit_bytes) = (Some(0), Some(0));
    backend.warnings.clear();
    let (mut away, mut warnings) = (Vec::new(), Vec::new());
    backend.replicas = all.iter().flat_map(|one| one.backend.replicas.iter().cloned()).collect();
    backend.replica_pages = all.iter().map(|one| one.backend.replica_pages).sum();
    for ((one, server), at) in all.iter().zip(&servers).zip(0_u64..) {
        let told = &one.backend;
        backend.server = backend.server.take().or_else(|| told.server.clone());
        backend.server_version = backend.server_version.take().or_else(|| told.server_version.clone());
        backend.eviction_policy = backend.eviction_policy.take().or_else(|| told.eviction_policy.clone());
        backend.append_only = backend.append_only.or(told.append_only);
        if one.status != HealthStatus::Healthy {
            condition.status = one.status;
        }
        backend.connected &= one.backend.connected;
        backend.accepts_writes &= one.backend.accepts_writes;
        backend.read_only |= one.backend.read_only;
        backend.reconnects = if at == 0 { 0 } else { backend.reconnects } + one.backend.reconnects;
        let sum = |all: Option<u64>, one: Option<u64>| Some(all?.saturating_add(one?));
        backend.memory_used_bytes = sum(backend.memory_used_bytes, one.backend.memory_used_bytes);
        backend.memory_limit_bytes = sum(backend.memory_limit_bytes, one.backend.memory_limit_bytes);
        let slowest = backend.ping_ms.into_iter().chain(one.backend.ping_ms).max_by(f64::total_cmp);
        backend.ping_ms = slowest;
        let address = Some(server.address.clone());
        let told = one.backend.warnings.iter().map(|warning| (address.clone(), warning.clone()));
        // What cannot be reached is said first: it keeps the others from being used, too.
        (if one.backend.connected { &mut warnings } else { &mut away }).extend(told);
    }
    let warnings = away.into_iter().chain(warnings);
    backend.warnings = warned::by_server(servers.len(), warnings);
    backend.servers = servers;
    condition
}

fn of_server(shard: &Shard, backend: &BackendHealth) -> Option<ServerHealth> {
    let others = shard.others.as_ref()?;
    Some(ServerHealth {
        address: shard.name()?,
        connected: backend.connected,
        accepts_writes: backend.accepts_writes,
        slots: others.seat().map(|seat| seat.count()),
        topics: others.placed().to_vec(),
        memory_used_bytes: backend.memory_used_bytes,
        memory_limit_bytes: backend.memory_limit_bytes,
        ping_ms: backend.ping_ms,
    })
}

impl Shard {
    /// Tells how the server is.
    pub(super) async fn health(&self) -> Condition {
        let mut kept = self.kept_health.lock().await;
        if let Some((at, condition)) = &*kept
            && at.elapsed() < FRESH_FOR
            // A connection that was lost since is told at once; one that has come a moment later.
            && (!condition.backend.connected || self.is_up())
        {
            return condition.clone();
        }
        let condition = self.ask_health().await;
        *kept = Some((Instant::now(), condition.clone()));
        condition
    }

    /// Returns what the server's clock shows.
    pub(super) fn now(&self) -> Timestamp {
        self.read.connection().server_time(&self.clock)
    }

    async fn ask_health(&self) -> Condition {
        let target = &self.target;
        // Of several, none is the server before one is found.
        let is_alone = target.watched.is_none() && target.others.is_empty();
        let named = || is_alone.then(|| Address { host: target.host.clone(), port: target.port });
        let address = self.options.resolver.found().or_else(named);
        let mut health = BackendHealth {
            kind: "valkey".to_owned(),
            port: address.as_ref().map(|address| address.port),
            host: address.map(|address| address.host),
            reconnects: self.losses(),
            replicas: self.replica.iter().filter_map(Replica::address).collect(),
            replica_pages: self.replica.as_ref().map_or(0, Replica::pages),
            ..BackendHealth::default()
        };
        if let Some(reason) = self.why_down() {
            health.warnings.push(format!("no connection to the server: {reason}"));
            return Condition { status: HealthStatus::Degraded, backend: health };
        }
        let mut undurable = Vec::new();
        let begin = Instant::now();
        let ask_info = async { (self.server_info().await, begin.elapsed()) };
        match timeout(ANSWER_WITHIN, join(ask_info, self.undurable())).await {
            Ok(((Ok(info), took), refused)) => {
                health.connected = true;
                health.ping_ms = Some((took.as_secs_f64() * 1e6).round() / 1e3);
                health.server = info.server().map(str::to_owned);
                health.server_version = info.version().map(str::to_owned);
                health.memory_used_bytes = info.memory_used_bytes();
                health.memory_limit_bytes = info.memory_limit_bytes();
                health.eviction_policy = info.eviction_policy().map(str::to_owned);
                health.append_only = info.append_only();
                health.warnings = info.warnings();
                let refusal = self.publish.refusal();
                let left = ANSWER_WITHIN.saturating_sub(begin.elapsed());
                let is_closed = timeout(left, self.indexes.topics.is_closed()).await;
                health.read_only = matches!(is_closed, Ok(Ok(true)));
                health.accepts_writes = refusal.is_none() && !health.read_only;
                if let Some(refusal) = refusal {
                    health.warnings.insert(0, format!("the server refuses writes: {refusal}"));
                }
                if health.read_only {
                    health.warnings.insert(0, READ_ONLY.to_owned());
                }
                // One that says nothing of it is away by now, which is told with the next question.
                undurable = refused.unwrap_or_default();
            }
            Ok(((Err(error), _), _)) => health.warnings.push(causes_of(&error)),
            Err(_) => {
                health
                    .warnings
                    .push(format!("the server did not answer within {} ms", ANSWER_WITHIN.as_millis()));
            }
        }
        let status = if undurable.is_empty() { status(&health) } else { HealthStatus::Degraded };
        health.warnings.extend(undurable);
        Condition { status, backend: health }
    }

    /// Returns what the log should say about the server, or why it must not be used.
    pub(super) async fn examine(&self, strict: bool) -> Result<Vec<String>, Unfit> {
        let info = match self.server_info().await {
            Ok(info) => info,
            Err(error) => {
                let text = format!("the server could not be examined: {}", causes_of(&error));
                return if strict { Err(Unfit::new(format!("strict: {text}"))) } else { Ok(vec![text]) };
            }
        };
        if info.is_in_cluster() && self.others.as_ref().is_some_and(|others| others.seat().is_none()) {
            return Err(Unfit::new(IN_CLUSTER));
        }
        match info.eviction_policy() {
            Some(KEEPS) => {}
            Some(policy) if strict => {
                return Err(Unfit::new(format!(
                    "strict: the server's maxmemory-policy is {policy}, which {}; set it to {KEEPS}",
                    harm_of(policy)
                )));
            }
            None if strict => {
                return Err(Unfit::new("strict: the server does not tell its maxmemory-policy"));
            }
            _ => {}
        }
        let mut warnings = info.warnings();
        match self.hidden_topic().await {
            Ok(None) => {}
            Ok(Some(topic)) => warnings.push(format!(
                "the server has topics that this node does not see, as their keys have the other form: `{}` and not `{}`; give all nodes the same TIDEMILL_VALKEY_KEY_FORM",
                self.keys.other().stream(&topic),
                self.keys.stream(&topic),
            )),
            Err(error) => {
                warnings.push(format!("the server's keys could not be looked at: {}", causes_of(&error)));
            }
        }
        match self.misplaced().await {
            Ok(misplaced) => warnings.extend(misplaced),
            Err(error) => {
                warnings.push(format!("the server's topics could not be looked at: {}", causes_of(&error)));
            }
        }
        if self.options.reads_replicas && info.replicas() == 0 {
            warnings.push(format!("{NO_REPLICA}; {FOR_REPLICAS}"));
        }
        match self.undurable().await {
            Ok(undurable) => warnings.extend(undurable),
            Err(error) => warnings.push(format!(
                "whether messages can be as durable as is set is not known: {}",
                causes_of(&error)
            )),
        }
        match rights::lacking(&self.options, self.keys).await {
            Ok(lacking) => warnings.extend(lacking.into_iter().map(str::to_owned)),
            Err(reason) => warnings.push(format!("what the server's user lacks is not known: {reason}")),
        }
        Ok(warnings)
    }

    /// Returns what tells its server, its database and the form of its keys from all others, where the server says who it is.
    pub(super) async fn identity(&self) -> Result<Option<String>, StorageError> {
        let info = match self.server_info().await {
            Ok(info) => info,
            Err(error) if lacks_right(&causes_of(&error)) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(info.identity(self.target.database, self.options.key_form))
    }

    /// Asks the server for its facts.
    pub(super) async fn server_info(&self) -> Result<ServerInfo, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("INFO");
        let mut info = ServerInfo::read(self.change.run_one(&pipeline, Effect::Read).await?);
        let may_ask = asks_for_settings(&self.options) && !self.settings_refused.load(Ordering::Relaxed);
        if info.append_only() == Some(false) && may_ask {
            let mut pipeline = glide::pipe();
            pipeline.cmd("CONFIG").arg("GET").arg("save");
            match self.change.run_one(&pipeline, Effect::Read).await {
                Ok(told) => info.tell(told),
                // Asked once: the server notes each refusal. What else may be wrong is told by what comes next.
                Err(error) if lacks_right(&causes_of(&error)) => {
                    self.settings_refused.store(true, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_be_trusted_is_degraded() {
        let health = |policy: Option<&str>| BackendHealth {
            connected: true,
            accepts_writes: true,
            eviction_policy: policy.map(str::to_owned),
            ..BackendHealth::default()
        };
        for policy in [None, Some("noeviction"), Some("volatile-lru"), Some("volatile-ttl")] {
            assert_eq!(status(&health(policy)), HealthStatus::Healthy, "{policy:?}");
        }
        for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
            assert_eq!(status(&health(Some(policy))), HealthStatus::Degraded, "{policy}");
        }
        assert_eq!(status(&BackendHealth { connected: false, ..health(None) }), HealthStatus::Degraded);
        assert_eq!(status(&BackendHealth { accepts_writes: false, ..health(None) }), HealthStatus::Degraded);
    }
}
