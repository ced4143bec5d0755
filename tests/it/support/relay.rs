//! A relay in this process, on a free port, and clients that send exactly the bytes they are told.
//!
//! It must not know what is tested.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill::access::{AccessOptions, Sessions, TrustedHosts, WebRules};
use tidemill::clock::Clock;
use tidemill::features::{Feature, Features};
use tidemill::http::{HttpOptions, OwnUrl};
use tidemill::limits::{LimitOptions, TrustedProxies};
use tidemill::relay::{Durabilities, PresenceOptions, RelayOptions, TakesAway};
use tidemill::server::{Bound, Server, ServerOptions, TcpListen};
use tidemill::storage::memory::{Memory, MemoryOptions, WhenFull};
use tidemill::storage::{Storage, StorageLimits, TopicPolicy};
use tidemill::ws::WsOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ground::node;

/// Nothing in these tests takes as long; what does is stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(20);

/// A relay that serves.
#[derive(Debug)]
pub(crate) struct TestRelay {
    /// Where it listens with TCP.
    pub(crate) address: SocketAddr,
    /// What callers have open.
    pub(crate) sessions: Sessions,
    /// Where it listens in all.
    pub(crate) bound: Vec<Bound>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

/// An answer, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Returns an empty memory backend.
pub(crate) fn memory() -> Storage {
    memory_with(|_| {})
}

/// Returns an empty memory backend with other options.
pub(crate) fn memory_with(change: impl FnOnce(&mut MemoryOptions)) -> Storage {
    let mut options = MemoryOptions {
        limits: StorageLimits {
            retention: None,
            topics_max: 1_000,
            idempotency_window: Duration::from_mins(10),
            schedules_max: 100_000,
            topic_schedules_max: 100_000,
            buckets_max: 100_000,
        },
        bytes_max: 256 * 1024 * 1024,
        keys_bytes_max: 64 * 1024 * 1024,
        when_full: WhenFull::Refuse,
        clock: Clock::system(),
    };
    change(&mut options);
    Storage::new(Arc::new(Memory::new(options)))
}

/// Returns options with small limits and short times, so that tests reach them.
pub(crate) fn options() -> ServerOptions {
    ServerOptions {
        listen: vec![TcpListen::at(SocketAddr::from(([127, 0, 0, 1], 0)))],
        metrics_listen: None,
        fast_path: fast_path(),
        relay: RelayOptions {
            payload_bytes_max: 1024 * 1024,
            value_bytes_max: 1024 * 1024,
            pending_bytes_max: 32 * 1024 * 1024,
            live_bytes_max: 256 * 1024 * 1024,
            live_topics_max: 100_000,
            topic_auto_create: true,
            durability: Durabilities::default(),
            policy: TopicPolicy::newest(1_000_000),
            retention: None,
            features: Features::all(),
            presence: PresenceOptions::usual(node()),
            takes_away: TakesAway::CountAlone,
            slow_after: Duration::ZERO,
        },
        access: AccessOptions::open(),
        limits: LimitOptions::none(),
        kept: Vec::new(),
        proxies: TrustedProxies::default(),
        first_administrator: None,
        web: web(&["https://allowed.example"]),
        http: HttpOptions {
            body_bytes_max: 16 * 1024 * 1024,
            inflight_bytes_max: 64 * 1024 * 1024,
            headers_bytes_max: 8 * 1024,
            body_timeout: Duration::from_secs(10),
            subscriber_bytes_max: 256 * 1024,
            stream_topics_max: 50,
            ping_every: Duration::from_secs(15),
            serve_docs: true,
            serve_console: true,
            serve_metrics: true,
            features: Features::all(),
            own_url: OwnUrl::AsAsked { tls: false },
        },
        ws: WsOptions {
            topics_max: 100,
            publishes_max: 1_024,
            buffer_bytes_max: 256 * 1024,
            ping_every: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(10),
            drain: Duration::from_millis(100),
            bookmark_every: Duration::from_secs(15),
            groups: true,
            serve_docs: true,
        },
        connections_max: 1_000,
        connections_per_address_max: 1_000,
        header_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        drain_notice: Duration::ZERO,
        drain_spread: Duration::from_millis(50),
        sweep_interval: Duration::from_mins(1),
    }
}

/// Returns the rules of a relay that lets pages of `origins` in, and answers under every name.
pub(crate) fn web(origins: &[&str]) -> WebRules {
    WebRules::new(origins.iter().map(|&origin| origin.to_owned()), TrustedHosts::Any)
}

/// Returns whether relays of these tests take the fast path: with `TIDEMILL_TEST_FAST_PATH=off` none does,
/// and no test may see a difference.
pub(crate) fn fast_path() -> bool {
    std::env::var_os("TIDEMILL_TEST_FAST_PATH").is_none_or(|value| value != "off")
}

impl TestRelay {
    /// Starts a relay in front of `storage`.
    pub(crate) async fn start(storage: Storage) -> Self {
        Self::start_with(storage, |_| {}).await
    }

    /// Starts a relay with other options.
    pub(crate) async fn start_with(storage: Storage, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = options();
        change(&mut options);
        let server =
            Server::with_storage(node(), options, storage, Clock::system()).await.expect("a free port");
        let bound: Vec<_> = server.local_addrs().cloned().collect();
        let sessions = server.sessions().clone();
        let address = bound.iter().find_map(|bound| bound.address).expect("one has an address");
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone().cancelled_owned();
        tracker.spawn(async move { server.run(stopped).await.expect("a server that ends well") });
        Self { address, sessions, bound, stop, tracker }
    }

    /// Starts a relay in which something is switched off.
    pub(crate) async fn without(storage: Storage, feature: Feature) -> Self {
        Self::start_with(storage, |options| {
            let features = Features::all().without(feature);
            (options.relay.features, options.http.features) = (features, features);
        })
        .await
    }

    /// Tells the relay to stop, as SIGTERM does.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops the relay and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(STUCK, self.tracker.wait()).await.expect("the relay has stopped");
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        Answer::parse(&self.raw(&request(method, path, headers, body)).await)
    }

    /// Gets a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, json: impl AsRef<[u8]>) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], json.as_ref()).await
    }

    /// Publishes `payload` (JSON text) and returns the message's id.
    pub(crate) async fn publish(&self, topic: &str, payload: &str) -> String {
        let answer =
            self.post("/api/v1/messages", format!(r#"{{"topic":"{topic}","payload":{payload}}}"#)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["message_id"].as_str().expect("an id").to_owned()
    }

    /// Sends these bytes and returns everything that comes back until the relay hangs up.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        // The relay may answer and hang up before it has read everything.
        let _ = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the relay listens")
    }
}

/// Returns the bytes of a request that is alone on its connection.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends one request to a relay that need not be there, and returns its answer if there is one.
pub(crate) async fn try_send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let mut all = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(&request(method, path, headers, body)).await.ok()?;
        stream.read_to_end(&mut all).await.ok()
    };
    tokio::time::timeout(STUCK, exchange).await.expect("the relay answers or hangs up")?;
    all.windows(4).any(|four| four == b"\r\n\r\n").then(|| Answer::parse(&all))
}

/// Reads until the relay hangs up.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    tokio::time::timeout(STUCK, read).await.expect("the relay hangs up").expect("without a reset");
    all
}

/// Reads one answer from a connection that stays.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    tokio::time::timeout(STUCK, async {
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.expect("a length").parse() == Ok(body.len()) {
                    return Answer::parse(&bytes);
                }
            }
            assert_ne!(stream.read_buf(&mut bytes).await.expect("an open connection"), 0, "{bytes:?}");
        }
    })
    .await
    .expect("an answer in time")
}

impl Answer {
    /// Parses the first answer in `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let mut answer = Self {
            status: status.parse().expect("a status"),
            headers: lines.map(header).collect(),
            body: Vec::new(),
        };
        let length = answer.header("content-length").map_or(0, |text| text.parse().expect("a length"));
        let body = &bytes[end + 4..];
        answer.body = body[..length.min(body.len())].to_vec();
        answer
    }

    /// Returns a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// Returns the address of the next page, where there is one: a link of the form of RFC 8288.
    pub(crate) fn next_page(&self) -> Option<&str> {
        let next =
            self.header("link")?.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        Some(next.expect("the form of RFC 8288"))
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks that this is a problem document, and returns it.
    pub(crate) fn problem(&self) -> tidemill::proto::Problem {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: tidemill::proto::Problem =
            serde_json::from_slice(&self.body).expect("a problem document");
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.request_id.as_deref(), self.header("x-request-id"), "{self:?}");
        assert_eq!(self.header("retry-after").is_some(), problem.retry_after_seconds.is_some());
        problem
    }
}

/// Checks that a request was refused because of a field, by a rule that has this text.
#[track_caller]
pub(crate) fn is_wrong(answer: &Answer, field: &str, rule: &str) {
    let problem = answer.problem();
    let why = (problem.status, problem.code.as_str(), problem.field.as_deref());
    assert_eq!(why, (400, "invalid_field", Some(field)), "{answer:?}");
    assert!(problem.detail.contains(rule), "{}", problem.detail);
}
