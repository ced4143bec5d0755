//! A backend to test on, with what a test needs to make and read messages.
//!
//! It owns how backends are made for tests. It must not know what is tested.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidemill::clock::Clock;
use tidemill::proto::page::Order;
use tidemill::proto::topics::RunState;
use tidemill::proto::{MessageId, NodeId, Timestamp, TopicName};
use tidemill::storage::memory::{Memory, MemoryOptions, WhenFull};
use tidemill::storage::{
    Appended, Backend, Batch, Body, Epoch, Followed, GapCheck, Hint, HintListener, Idempotency, NewMessage,
    Opened, Range, Storage, StorageError, StorageLimits, StoredMessage, TopicPolicy,
};
use tokio::sync::mpsc;

use super::server::Server;

/// Limits that no test reaches by chance.
pub(crate) const LIMITS: StorageLimits = StorageLimits {
    retention: None,
    topics_max: 100_000,
    idempotency_window: Duration::from_mins(10),
    schedules_max: 100_000,
    topic_schedules_max: 100_000,
    buckets_max: 100_000,
};

/// A policy whose bounds no test reaches by chance.
pub(crate) const POLICY: TopicPolicy = TopicPolicy::newest(1_000_000);

/// How long something that must happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A backend to test on. Every test has its own.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The backend under [`LIMITS`].
    pub(crate) storage: Storage,
    /// The same, as the process around it sees it.
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) clock: Clock,
    server: Option<Server>,
    /// A server beside it, which has the topics of odd numbers.
    #[cfg(feature = "valkey")]
    beside: Option<Server>,
    /// A cluster, in place of a server.
    #[cfg(feature = "valkey")]
    cluster: Option<super::shared::SharedCluster>,
    /// Whether the names of topics stand in braces in the keys of the server.
    has_braces: bool,
    topics: AtomicU64,
}

impl Ground {
    /// Returns the memory backend.
    #[expect(clippy::unused_async, reason = "backends are made alike")]
    pub(crate) async fn memory() -> Option<Self> {
        Some(Self::memory_at(Clock::system()))
    }

    /// Returns the memory backend with a clock that tests can turn.
    pub(crate) fn memory_at(clock: Clock) -> Self {
        let Opened { storage, backend } = memory(LIMITS, clock.clone());
        let topics = AtomicU64::new(0);
        Self {
            storage,
            backend,
            clock,
            server: None,
            #[cfg(feature = "valkey")]
            beside: None,
            #[cfg(feature = "valkey")]
            cluster: None,
            has_braces: false,
            topics,
        }
    }

    /// Returns the Valkey backend on a server of its own, or `None` where that server is missing.
    #[cfg(feature = "valkey")]
    pub(crate) async fn on(kind: super::server::Kind) -> Option<Self> {
        let server = Server::start(kind, &[]).await?;
        let Opened { storage, backend } = valkey((server.port(), None), false, LIMITS).await;
        Some(Self { server: Some(server), storage, backend, ..Self::memory_at(Clock::system()) })
    }

    /// Returns the Valkey backend on two servers, each with about half of what has a name.
    #[cfg(feature = "valkey")]
    pub(crate) async fn placed() -> Option<Self> {
        let [server, beside] = [Self::server_of_its_own().await?, Self::server_of_its_own().await?];
        let ports = (server.port(), Some(beside.port()));
        let Opened { storage, backend } = valkey(ports, false, LIMITS).await;
        let (server, beside) = (Some(server), Some(beside));
        Some(Self { storage, backend, server, beside, ..Self::memory_at(Clock::system()) })
    }

    #[cfg(feature = "valkey")]
    async fn server_of_its_own() -> Option<Server> {
        Server::start(super::server::Kind::Valkey, &[]).await
    }

    /// Returns the Valkey backend on a cluster, which the test has for itself.
    #[cfg(feature = "valkey")]
    pub(crate) async fn in_cluster() -> Option<Self> {
        let cluster = super::shared::SharedCluster::start().await?;
        let Opened { storage, backend } = valkey((cluster.port(), None), false, LIMITS).await;
        Some(Self { cluster: Some(cluster), storage, backend, ..Self::memory_at(Clock::system()) })
    }

    /// Returns the Valkey backend, with keys for a cluster.
    #[cfg(feature = "valkey")]
    pub(crate) async fn with_braces() -> Option<Self> {
        let ground = Self::on(super::server::Kind::Valkey).await?;
        let Opened { storage, backend } = valkey((ground.server().port(), None), true, LIMITS).await;
        ground.backend.close().await;
        Some(Self { storage, backend, has_braces: true, ..ground })
    }

    /// Returns the same backend under other limits; in memory that is an empty one.
    pub(crate) async fn under(&self, limits: StorageLimits) -> Storage {
        #[cfg(feature = "valkey")]
        if let Some(port) = self.port() {
            let beside = self.beside.as_ref().map(Server::port);
            return valkey((port, beside), self.has_braces, limits).await.storage;
        }
        memory(limits, self.clock.clone()).storage
    }

    /// Returns whether the backend has a server, or a cluster of them, to which other nodes can connect.
    pub(crate) fn has_server(&self) -> bool {
        #[cfg(feature = "valkey")]
        return self.port().is_some();
        #[cfg(not(feature = "valkey"))]
        false
    }

    /// Returns the port to which nodes connect.
    #[cfg(feature = "valkey")]
    fn port(&self) -> Option<u16> {
        let of_cluster = || self.cluster.as_ref().map(super::shared::SharedCluster::port);
        self.server.as_ref().map(Server::port).or_else(of_cluster)
    }

    /// Returns the server.
    ///
    /// # Panics
    /// The backend has none.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("the test is for backends with a server")
    }

    /// Returns the name of a topic that does not exist.
    pub(crate) fn topic(&self) -> TopicName {
        topic(&format!("topic-{}", self.topics.fetch_add(1, Ordering::Relaxed)))
    }
}

fn memory(limits: StorageLimits, clock: Clock) -> Opened {
    let bytes_max = 1024 * 1024 * 1024;
    let keys_bytes_max = 64 * 1024 * 1024;
    let options = MemoryOptions { limits, bytes_max, keys_bytes_max, when_full: WhenFull::Refuse, clock };
    Opened::new(Arc::new(Memory::new(options)))
}

#[cfg(feature = "valkey")]
async fn valkey((port, beside): (u16, Option<u16>), has_braces: bool, limits: StorageLimits) -> Opened {
    use tidemill::proto::TopicSelector;
    use tidemill::storage::valkey::{KeyForm, Placed, Target, Valkey, ValkeyOptions};

    let at = |port| Target::parse(&format!("redis://127.0.0.1:{port}")).expect("the URL is right");
    let (target, odd) = (at(port), ["*1", "*3", "*5", "*7", "*9"]);
    let placed = beside.map(|port| Placed {
        topics: odd.iter().map(|names| TopicSelector::parse(names).expect("a pattern")).collect(),
        target: at(port),
        password_file: None,
        sentinel_tls: false,
    });
    // Tests sweep when they like; the lock between nodes must not stand in their way for long.
    let options = ValkeyOptions {
        sweep_interval: Duration::from_millis(10),
        key_form: if has_braces { KeyForm::Braces } else { KeyForm::Plain },
        placed: placed.into_iter().collect(),
        ..ValkeyOptions::new(target)
    };
    let valkey = Valkey::connect(node(), options, limits, Clock::system());
    assert!(valkey.ready(SOON).await, "the backend does not connect");
    Opened::new(valkey)
}

/// Returns the id of a node that no other of this process has.
pub(crate) fn node() -> NodeId {
    static NODES: AtomicU64 = AtomicU64::new(1);
    NodeId::new(NODES.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("the name is right")
}

pub(crate) fn json(payload: impl Into<Bytes>) -> Body {
    Body { payload: payload.into(), content_type: None, metadata: None, order_key: None }
}

/// Returns a message of now that creates its topic.
pub(crate) fn message(topic: &TopicName, body: Body) -> NewMessage {
    NewMessage {
        topic: topic.clone(),
        body,
        timestamp: Clock::system().now(),
        expires_at: None,
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: true,
        owner: None,
        policy: POLICY,
    }
}

/// Returns such a message that has expired long ago.
pub(crate) fn expired(topic: &TopicName, body: Body) -> NewMessage {
    NewMessage { expires_at: Some(Timestamp::from_millis(1)), ..message(topic, body) }
}

/// Returns what is known of a topic that exists and was read up to a cursor.
pub(crate) fn followed(topic: &TopicName, seen: Option<MessageId>) -> Followed {
    Followed {
        topic: topic.clone(),
        seen,
        exists: true,
        epoch: Epoch::Unmarked,
        given: None,
        state: RunState::Open,
    }
}

/// Hints that a test may leave unread.
const HEARD_MAX: usize = 4_096;

/// What a storage tells its listener.
#[derive(Debug)]
pub(crate) struct Heard {
    hints: mpsc::Receiver<Hint>,
    /// Is told as long as it is there.
    _listener: Arc<dyn HintListener>,
}

#[derive(Debug)]
struct Hears(mpsc::Sender<Hint>);

impl HintListener for Hears {
    fn hear(&self, hint: Hint) {
        // A test that has ended hears nothing.
        let _ = self.0.try_send(hint);
    }
}

impl Heard {
    /// Listens to a storage, in place of whoever did.
    pub(crate) fn of(storage: &Storage) -> Self {
        let (tell, hints) = mpsc::channel(HEARD_MAX);
        let listener: Arc<dyn HintListener> = Arc::new(Hears(tell));
        storage.live.listen(Arc::downgrade(&listener));
        Self { hints, _listener: listener }
    }

    /// Waits for the next hint.
    pub(crate) async fn next(&mut self) -> Hint {
        let hint = tokio::time::timeout(SOON, self.hints.recv()).await.expect("a hint comes");
        hint.expect("the listener is there")
    }

    /// Returns the next topic that was told, if there is one already.
    pub(crate) fn told(&mut self) -> Option<TopicName> {
        loop {
            if let Hint::Topic(topic) = self.hints.try_recv().ok()? {
                return Some(topic);
            }
        }
    }
}

/// Returns such a message under an idempotency key.
pub(crate) fn keyed(topic: &TopicName, body: Body, key: &str, fingerprint: u8) -> NewMessage {
    let idempotency = Some(Idempotency { key: key.into(), fingerprint: [fingerprint; 16] });
    NewMessage { idempotency, ..message(topic, body) }
}

pub(crate) async fn append(storage: &Storage, message: NewMessage) -> Result<Appended, StorageError> {
    storage.messages.append(vec![message]).await.pop().expect("one message, one result")
}

/// Appends messages that must all be accepted, and returns their ids.
pub(crate) async fn append_all(storage: &Storage, messages: Vec<NewMessage>) -> Vec<MessageId> {
    let results = storage.messages.append(messages).await;
    results.into_iter().map(|result| result.expect("every message is accepted").id).collect()
}

/// Appends the numbers from 0 as messages of one batch, and returns their ids.
pub(crate) async fn append_numbers(storage: &Storage, topic: &TopicName, count: usize) -> Vec<MessageId> {
    append_numbers_under(POLICY, storage, topic, count).await
}

/// The same, under another policy.
pub(crate) async fn append_numbers_under(
    policy: TopicPolicy,
    storage: &Storage,
    topic: &TopicName,
    count: usize,
) -> Vec<MessageId> {
    let messages = (0..count).map(|number| message(topic, json(number.to_string())));
    append_all(storage, messages.map(|message| NewMessage { policy, ..message }).collect()).await
}

/// Reads one page without a bound on bytes.
pub(crate) async fn page(
    storage: &Storage,
    topic: &TopicName,
    order: Order,
    after: Option<MessageId>,
    limit: usize,
) -> Batch {
    try_page(storage, topic, order, after, limit).await.expect("the topic can be read")
}

/// The same where the topic may not be there to be read.
pub(crate) async fn try_page(
    storage: &Storage,
    topic: &TopicName,
    order: Order,
    after: Option<MessageId>,
    limit: usize,
) -> Result<Batch, StorageError> {
    let range = Range { order, after, gap_check: GapCheck::None, limit, bytes_max: usize::MAX };
    storage.messages.read(topic, range).await
}

/// Reads a topic page by page to its end.
pub(crate) async fn read_all(
    storage: &Storage,
    topic: &TopicName,
    order: Order,
    limit: usize,
) -> Vec<StoredMessage> {
    let mut messages = Vec::new();
    let mut after = None;
    loop {
        let batch = page(storage, topic, order, after, limit).await;
        assert!(batch.messages.len() <= limit);
        messages.extend(batch.messages);
        if batch.next.is_none() {
            return messages;
        }
        after = batch.next;
    }
}

pub(crate) async fn length(storage: &Storage, topic: &TopicName) -> u64 {
    storage.topics.describe(topic).await.expect("the topic exists").length
}

pub(crate) fn ids(messages: &[StoredMessage]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

/// Returns the payloads as text.
pub(crate) fn texts(messages: &[StoredMessage]) -> Vec<String> {
    let text = |message: &StoredMessage| String::from_utf8_lossy(&message.body.payload).into_owned();
    messages.iter().map(text).collect()
}

pub(crate) fn is_strictly_increasing(ids: &[MessageId]) -> bool {
    ids.windows(2).all(|pair| pair[0] < pair[1])
}
