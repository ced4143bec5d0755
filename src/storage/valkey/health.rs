//! What the server tells of itself, and what of it is a danger to messages.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use glide::ValkeyValue;
use tidemill_proto::Timestamp;
use tidemill_proto::health::BackendHealth;
use tokio::time::{Instant, timeout};

use super::Valkey;
use super::control::bytes_of;
use super::failure::{Effect, causes_of};
use crate::storage::{StorageError, Swept, Upkeep};

/// How long a health page may wait for the server.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// How long an answer is good for, so that health checks cost the server one question a second.
const FRESH_FOR: Duration = Duration::from_secs(1);

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

    pub(super) fn append_only(&self) -> Option<bool> {
        self.number("aof_enabled").map(|enabled| enabled == 1)
    }

    /// Returns what is, or will be, wrong for messages.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(policy) = self.eviction_policy().filter(|policy| *policy != "noeviction") {
            let harm = harm_of(policy);
            warnings.push(format!(
                "the server's maxmemory-policy is {policy}, which {harm} at the memory limit; set it to noeviction"
            ));
        }
        if self.append_only() == Some(false) {
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

/// Returns what a server with this policy does to what the relay keeps.
///
/// The `volatile` policies remove only keys that expire, which streams do not.
pub(super) fn harm_of(policy: &str) -> &'static str {
    if policy.starts_with("volatile-") { "forgets idempotency keys" } else { "deletes whole topics" }
}

#[async_trait]
impl Upkeep for Valkey {
    async fn health(&self) -> BackendHealth {
        let mut kept = self.kept_health.lock().await;
        if let Some((at, health)) = &*kept
            && at.elapsed() < FRESH_FOR
            // A connection that was lost since is told at once; one that has come a moment later.
            && (!health.connected || self.is_up())
        {
            return health.clone();
        }
        let health = self.ask_health().await;
        *kept = Some((Instant::now(), health.clone()));
        health
    }

    fn is_ready(&self) -> bool {
        self.is_up()
    }

    fn now(&self) -> Timestamp {
        self.read.role().server_time(&self.clock)
    }

    async fn sweep(&self) -> Result<Swept, StorageError> {
        self.sweep_all().await
    }
}

impl Valkey {
    fn is_up(&self) -> bool {
        self.why_down().is_none()
    }

    async fn ask_health(&self) -> BackendHealth {
        let mut health = BackendHealth {
            kind: "valkey".to_owned(),
            host: Some(self.target.host.clone()),
            port: Some(self.target.port),
            ..BackendHealth::default()
        };
        if let Some(reason) = self.why_down() {
            health.warnings.push(format!("no connection to the server: {reason}"));
            return health;
        }
        let begin = Instant::now();
        match timeout(ANSWER_WITHIN, self.server_info()).await {
            Ok(Ok(info)) => {
                health.connected = true;
                health.ping_ms = Some((begin.elapsed().as_secs_f64() * 1e6).round() / 1e3);
                health.server = info.server().map(str::to_owned);
                health.server_version = info.version().map(str::to_owned);
                health.memory_used_bytes = info.memory_used_bytes();
                health.memory_limit_bytes = info.memory_limit_bytes();
                health.eviction_policy = info.eviction_policy().map(str::to_owned);
                health.append_only = info.append_only();
                health.warnings = info.warnings();
                let refusal = self.publish.refusal();
                health.accepts_writes = refusal.is_none();
                if let Some(refusal) = refusal {
                    health.warnings.insert(0, format!("the server refuses writes: {refusal}"));
                }
            }
            Ok(Err(error)) => health.warnings.push(causes_of(&error)),
            Err(_) => {
                health
                    .warnings
                    .push(format!("the server did not answer within {} ms", ANSWER_WITHIN.as_millis()));
            }
        }
        health
    }

    /// Asks the server for its facts.
    pub(super) async fn server_info(&self) -> Result<ServerInfo, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("INFO");
        Ok(ServerInfo::read(self.change.run_one(&pipeline, Effect::Read).await?))
    }
}
