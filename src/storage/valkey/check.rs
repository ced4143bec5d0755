//! Proof that a server can carry the relay: connects, probes, and says what to do about what it finds.
//!
//! It works on a connection of its own with keys of its own, and leaves nothing behind.

use std::time::Duration;

use glide::{GlideClient, Pipeline, PipelineOptions, ValkeyValue};
use serde::Serialize;
use tokio::time::Instant;

use super::ValkeyOptions;
use super::connect::connect;
use super::entry::bytes_of;
use super::health::{ServerInfo, harm_of};

/// What the probe's keys start with; the process id follows, so that two probes do not meet.
const PROBE_PREFIX: &str = "tidemill:check:";
/// Seconds after which a probe key ends by itself, should the check be killed half way.
const PROBE_SECONDS: &str = "60";
/// Pings whose median is reported.
const PINGS: usize = 21;
/// A median round trip above which publishing will feel slow.
const SLOW_PING: Duration = Duration::from_millis(5);

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Good.
    Pass,
    /// Works, but something should be changed.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct CheckLine {
    /// What was checked.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// Everything that was checked, in order.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The lines.
    pub lines: Vec<CheckLine>,
}

impl CheckReport {
    /// Returns whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|line| line.outcome != Outcome::Fail)
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, detail: impl Into<String>, advice: Option<&str>) {
        self.lines.push(CheckLine {
            name,
            outcome,
            detail: detail.into(),
            advice: advice.map(str::to_owned),
        });
    }

    fn add_result(&mut self, name: &'static str, result: Result<String, String>, advice: &str) -> bool {
        let (outcome, detail, advice) = match result {
            Ok(detail) => (Outcome::Pass, detail, None),
            Err(detail) => (Outcome::Fail, detail, Some(advice)),
        };
        self.add(name, outcome, detail, advice);
        outcome == Outcome::Pass
    }
}

/// Checks a server. Ends within a few of the options' timeouts.
pub async fn run(options: &ValkeyOptions) -> CheckReport {
    let mut report = CheckReport { lines: Vec::new() };
    let begin = Instant::now();
    let client = match connect(options, "check").await {
        Ok(client) => client,
        Err(error) => {
            let advice = advice_for_connecting(&error.to_string(), options);
            report.add("connect", Outcome::Fail, format!("{}: {error}", options.target), Some(advice));
            return report;
        }
    };
    let took = millis(begin.elapsed());
    report.add("connect", Outcome::Pass, format!("{} in {took} ms", options.target), None);
    let probe =
        Probe { client, timeout: options.timeout, key: format!("{PROBE_PREFIX}{}", std::process::id()) };

    let latency = probe.latency().await;
    let slow = latency.as_ref().is_ok_and(|median| *median > SLOW_PING);
    match latency {
        Ok(median) if slow => report.add(
            "latency",
            Outcome::Warn,
            format!("{} ms for a ping (median of {PINGS})", millis(median)),
            Some("every publish waits for at least one such round trip; put the relay nearer to the server"),
        ),
        Ok(median) => report.add(
            "latency",
            Outcome::Pass,
            format!("{} ms for a ping (median of {PINGS})", millis(median)),
            None,
        ),
        Err(error) => report.add("latency", Outcome::Fail, error, Some("the user needs the right +ping")),
    }
    report.add_result(
        "keys",
        probe.keys().await,
        "the user needs +set +get +del and the key pattern ~tidemill:*",
    );
    report.add_result(
        "streams",
        probe.streams().await,
        "the user needs +xadd +xrange +xtrim +del; the server must be Valkey, or Redis 6.2 and later",
    );
    report.add_result(
        "scripts",
        probe.scripts().await,
        "new topics and idempotent publishes need Lua: allow +eval +evalsha +script, or use a server built with it",
    );
    match probe
        .run_one("INFO", |pipeline| {
            pipeline.cmd("INFO");
        })
        .await
    {
        Ok(reply) => examine(&mut report, &ServerInfo::read(reply)),
        Err(error) => report.add("server", Outcome::Fail, error, Some("the user needs the right +info")),
    }
    report
}

fn advice_for_connecting(error: &str, options: &ValkeyOptions) -> &'static str {
    let has = |part: &str| error.contains(part);
    if has("WRONGPASS") || has("NOAUTH") || has("AuthenticationFailed") || has("authentication") {
        "the server refuses the login; look at VALKEY_USERNAME and VALKEY_PASSWORD, or at the URL"
    } else if has("certificate") || has("UnknownIssuer") || has("tls") || has("TLS") {
        "the certificates do not fit; look at VALKEY_CA_PATH, and at the host name in the server's certificate"
    } else if has("No primary node") {
        "the server is a replica; name its primary"
    } else if has("refused") || has("cannot reach") {
        "nothing listens there; is the server running, and are host and port right?"
    } else if options.target.tls && options.client_identity.is_none() {
        "does the server speak TLS on this port, and without a client certificate? If it asks for one, set TIDEMILL_VALKEY_CLIENT_CERT_PATH and TIDEMILL_VALKEY_CLIENT_KEY_PATH"
    } else if options.target.tls {
        "does the server speak TLS on this port, and does it trust the client certificate? Without TLS the scheme is valkey:// or redis://"
    } else {
        "does the server speak plain TCP on this port? With TLS the scheme is valkeys:// or rediss://"
    }
}

fn examine(report: &mut CheckReport, info: &ServerInfo) {
    let server = info.server().unwrap_or("unknown server");
    report.add(
        "version",
        Outcome::Pass,
        format!("{server} {}", info.version().unwrap_or("of unknown version")),
        None,
    );
    match info.append_only() {
        Some(true) => report.add("persistence", Outcome::Pass, "append-only file is on", None),
        Some(false) => report.add(
            "persistence",
            Outcome::Warn,
            "append-only file is off",
            Some("a crash loses what came after the last snapshot; set appendonly yes"),
        ),
        None => report.add("persistence", Outcome::Warn, "the server does not tell", None),
    }
    match info.eviction_policy() {
        Some("noeviction") => report.add("eviction", Outcome::Pass, "maxmemory-policy is noeviction", None),
        Some(policy) => report.add(
            "eviction",
            Outcome::Warn,
            format!("maxmemory-policy is {policy}, which {} at the memory limit", harm_of(policy)),
            Some("set maxmemory-policy noeviction, so that the server refuses new messages instead"),
        ),
        None => report.add("eviction", Outcome::Warn, "the server does not tell its maxmemory-policy", None),
    }
    let used = info.memory_used_bytes().unwrap_or(0) / (1024 * 1024);
    match info.memory_limit_bytes() {
        Some(limit) => {
            report.add(
                "memory",
                Outcome::Pass,
                format!("{used} MiB used of {} MiB", limit / (1024 * 1024)),
                None,
            );
        }
        None => report.add(
            "memory",
            Outcome::Warn,
            format!("{used} MiB used, no limit"),
            Some("without maxmemory the system kills the server when memory runs out; set a limit"),
        ),
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

struct Probe {
    client: GlideClient,
    timeout: Duration,
    key: String,
}

impl Probe {
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

    async fn run_one(&self, name: &str, build: impl FnOnce(&mut Pipeline)) -> Result<ValkeyValue, String> {
        let mut pipeline = glide::pipe();
        build(&mut pipeline);
        self.run(&pipeline).await?.into_iter().next().ok_or_else(|| format!("{name} had no reply"))
    }

    async fn latency(&self) -> Result<Duration, String> {
        let mut times = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let begin = Instant::now();
            self.run_one("PING", |pipeline| {
                pipeline.cmd("PING");
            })
            .await?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        Ok(times[PINGS / 2])
    }

    async fn keys(&self) -> Result<String, String> {
        let key = format!("{}:key", self.key);
        let mut pipeline = glide::pipe();
        pipeline.cmd("SET").arg(&key).arg("probe").arg("EX").arg(PROBE_SECONDS);
        pipeline.cmd("GET").arg(&key).cmd("DEL").arg(&key);
        let mut replies = self.run(&pipeline).await?.into_iter();
        let read = replies.nth(1).and_then(bytes_of);
        if read.as_deref() == Some(b"probe") {
            Ok("a key was set, read back and deleted".to_owned())
        } else {
            Err("a key was set, but something else was read back".to_owned())
        }
    }

    async fn streams(&self) -> Result<String, String> {
        let key = format!("{}:stream", self.key);
        let mut pipeline = glide::pipe();
        for _ in 0..2 {
            pipeline
                .cmd("XADD")
                .arg(&key)
                .arg("MAXLEN")
                .arg("~")
                .arg("1000")
                .arg("*")
                .arg("payload")
                .arg("{}");
        }
        pipeline.cmd("EXPIRE").arg(&key).arg(PROBE_SECONDS);
        pipeline.cmd("XTRIM").arg(&key).arg("MAXLEN").arg("=").arg("1");
        pipeline.cmd("DEL").arg(&key);
        let replies = self.run(&pipeline).await?;
        if replies.get(3) == Some(&ValkeyValue::Int(1)) {
            Ok("entries were appended, trimmed and deleted".to_owned())
        } else {
            Err("a stream of two entries was trimmed to one, but the server says otherwise".to_owned())
        }
    }

    async fn scripts(&self) -> Result<String, String> {
        let reply = self
            .run_one("EVAL", |pipeline| {
                pipeline.cmd("EVAL").arg("return 7").arg("0");
            })
            .await?;
        if reply == ValkeyValue::Int(7) {
            Ok("the server runs Lua".to_owned())
        } else {
            Err(format!("{reply:?}"))
        }
    }
}
