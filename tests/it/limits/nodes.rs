//! Several nodes on one storage, and a storage that does not tell.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidemill::limits::{Limit, LimitOptions, WhenAway};
use tidemill::proto::Code;
use tidemill::storage::{Draw, Drawn, LimitStore, Places, Storage, StorageError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{is_refused_at, limit, message, send_from};
use crate::access::closed::{ROOT, token};
use crate::support::eventually;
use crate::support::ground::Ground;
use crate::support::raw::Stream;
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::WsClient;

const PUBLISH: (&str, &str) = ("POST", "/api/v1/messages");

async fn pass_together_what_one_would(ground: Ground) {
    const AMOUNT: u32 = 60;

    let limits = LimitOptions::none().with(Limit::PrincipalMessages, AMOUNT);
    let one = TestRelay::start_with(ground.storage.clone(), |options| limit(options, limits)).await;
    let two = TestRelay::start_with(ground.storage.clone(), |options| limit(options, limits)).await;
    let (_, who) = token(&one, ROOT, &["allow publish,read *"]).await;
    let list = ("GET", "/api/v1/topics");
    eventually(Duration::from_secs(5), async || {
        send_from(&two, "192.0.2.1", Some(&who), list, &Value::Null).await.status == 200
    })
    .await;
    let (one, two) = (Arc::new(one), Arc::new(two));
    let mut publishing = JoinSet::new();
    for at in 0..8 {
        let (relay, who) = (if at % 2 == 0 { one.clone() } else { two.clone() }, who.clone());
        publishing.spawn(async move {
            let mut taken = 0;
            while send_from(&relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await.status == 201 {
                taken += 1;
            }
            taken
        });
    }
    // Each went on until its node had nothing, and the storage neither.
    assert_eq!(publishing.join_all().await.iter().sum::<u32>(), AMOUNT);
    for relay in [&one, &two] {
        let answer = send_from(relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await;
        is_refused_at(&answer, "principal-messages", AMOUNT);
    }
    for relay in [one, two] {
        Arc::into_inner(relay).expect("nobody else has it").stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_memory_pass_together_what_one_would() {
    pass_together_what_one_would(Ground::memory().await.expect("memory is always there")).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_valkey_pass_together_what_one_would() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        pass_together_what_one_would(ground).await;
    }
}

/// What becomes of draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Fate {
    Well,
    Fails,
    Hangs,
}

/// Allowances that may be out of reach.
#[derive(Debug)]
struct Away {
    inner: Arc<dyn LimitStore>,
    fate: AtomicUsize,
    draws: AtomicUsize,
}

impl Away {
    fn of(storage: &Storage) -> Arc<Self> {
        let (fate, draws) = (AtomicUsize::new(Fate::Well as usize), AtomicUsize::new(0));
        Arc::new(Self { inner: storage.limits.clone(), fate, draws })
    }

    fn becomes(&self, fate: Fate) {
        self.fate.store(fate as usize, Ordering::SeqCst);
    }
}

#[async_trait]
impl LimitStore for Away {
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError> {
        self.draws.fetch_add(1, Ordering::SeqCst);
        let fate = self.fate.load(Ordering::SeqCst);
        if fate == Fate::Fails as usize {
            return Err(StorageError::Unavailable("it is away".into()));
        }
        if fate == Fate::Hangs as usize {
            pending::<()>().await;
        }
        self.inner.draw(draw).await
    }

    async fn hold(&self, places: &Places) -> Result<bool, StorageError> {
        if self.fate.load(Ordering::SeqCst) != Fate::Well as usize {
            return Err(StorageError::Unavailable("it is away".into()));
        }
        self.inner.hold(places).await
    }
}

async fn start(limits: LimitOptions) -> (TestRelay, Arc<Away>) {
    let storage = memory();
    let away = Away::of(&storage);
    let storage = Storage { limits: away.clone(), ..storage };
    (TestRelay::start_with(storage, |options| limit(options, limits)).await, away)
}

async fn told_limits(relay: &TestRelay, who: &str) -> Value {
    send_from(relay, "192.0.2.9", Some(who), ("GET", "/health"), &Value::Null).await.json()["limits"].clone()
}

#[tokio::test]
async fn publishing_goes_on_while_limits_cannot_be_asked_and_each_node_counts_by_itself() {
    for fate in [Fate::Fails, Fate::Hangs] {
        let (relay, away) = start(LimitOptions::none().with(Limit::PrincipalMessages, 10)).await;
        let (_, who) = token(&relay, ROOT, &["allow publish *", "allow admin *"]).await;
        let publish = async || send_from(&relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await;
        assert_eq!(publish().await.status, 201);
        assert_eq!(told_limits(&relay, &who).await, "shared");

        away.becomes(fate);
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(publish().await.status, 201, "{fate:?}");
        }
        is_refused_at(&publish().await, "principal-messages", 10);
        // One waits for the storage, and another a second later at the earliest.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(told_limits(&relay, &who).await, "alone");
        let metrics = send_from(&relay, "192.0.2.9", Some(&who), ("GET", "/metrics"), &Value::Null).await;
        for line in
            ["tidemill_limits_alone 1", "tidemill_limits_refused_total{limit=\"principal-messages\"} 1"]
        {
            assert!(metrics.text().lines().any(|told| told == line), "{line} in {}", metrics.text());
        }

        away.becomes(Fate::Well);
        // By itself, also where nobody publishes.
        eventually(Duration::from_secs(10), async || told_limits(&relay, &who).await == "shared").await;
        relay.stop().await;
    }
}

#[tokio::test]
async fn where_it_is_set_so_nothing_that_is_limited_passes_while_limits_cannot_be_asked() {
    let limits = LimitOptions { when_away: WhenAway::Refuse, ..LimitOptions::none() };
    let (relay, away) = start(limits.with(Limit::PrincipalMessages, 10)).await;
    let (_, who) = token(&relay, ROOT, &["allow publish,read *"]).await;
    away.becomes(Fate::Fails);
    let refused = send_from(&relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await;
    assert_eq!((refused.status, refused.problem().code), (503, Code::StorageUnavailable));
    let list = ("GET", "/api/v1/topics");
    assert_eq!(send_from(&relay, "192.0.2.1", Some(&who), list, &Value::Null).await.status, 200);
    away.becomes(Fate::Well);
    eventually(Duration::from_secs(5), async || {
        send_from(&relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await.status == 201
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn the_storage_is_asked_for_many_messages_at_once_and_rarely_for_those_that_are_refused() {
    let (relay, away) = start(LimitOptions::none().with(Limit::PrincipalMessages, 10_000)).await;
    let (_, who) = token(&relay, ROOT, &["allow publish *"]).await;
    for _ in 0..900 {
        assert_eq!(send_from(&relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await.status, 201);
    }
    // A thousand at one time, for five seconds.
    let draws = away.draws.load(Ordering::SeqCst);
    assert!(draws <= 5, "{draws} draws for 900 messages");
    relay.stop().await;

    let (relay, away) = start(LimitOptions::none().with(Limit::PrincipalMessages, 1)).await;
    let (_, who) = token(&relay, ROOT, &["allow publish *"]).await;
    let began = Instant::now();
    for _ in 0..500 {
        send_from(&relay, "192.0.2.1", Some(&who), PUBLISH, &message()).await;
    }
    let (draws, seconds) = (away.draws.load(Ordering::SeqCst), began.elapsed().as_secs());
    assert!(draws as u64 <= 3 + seconds, "{draws} draws for 500 messages that are refused, in {seconds} s");
    relay.stop().await;
}

async fn gives_back_what_it_holds(ground: Ground) {
    const AMOUNT: u32 = 60;

    let limits = LimitOptions::none().with(Limit::PrincipalMessages, AMOUNT).with(Limit::Connections, 1);
    let stopping = TestRelay::start_with(ground.storage.clone(), |options| limit(options, limits)).await;
    let staying = TestRelay::start_with(ground.storage.clone(), |options| limit(options, limits)).await;
    let (_, who) = token(&stopping, ROOT, &["allow publish,read *"]).await;
    let list = ("GET", "/api/v1/topics");
    eventually(Duration::from_secs(5), async || {
        send_from(&staying, "192.0.2.1", Some(&who), list, &Value::Null).await.status == 200
    })
    .await;
    let open = socket(&stopping, &who).await.expect("there is a place");
    // One of the tenth that is drawn.
    assert_eq!(send_from(&stopping, "192.0.2.1", Some(&who), PUBLISH, &message()).await.status, 201);
    assert!(socket(&staying, &who).await.is_none());
    let began = Instant::now();
    stopping.stop().await;
    drop(open);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(socket(&staying, &who).await.is_some(), "its place is free at once");
    let mut taken = 1;
    while send_from(&staying, "192.0.2.1", Some(&who), PUBLISH, &message()).await.status == 201 {
        taken += 1;
    }
    assert_eq!(taken, AMOUNT, "what it did not spend is there for the other");
    staying.stop().await;
}

#[tokio::test]
async fn a_node_on_memory_that_stops_gives_back_what_it_holds() {
    gives_back_what_it_holds(Ground::memory().await.expect("memory is always there")).await;
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn a_node_on_valkey_that_stops_gives_back_what_it_holds() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        gives_back_what_it_holds(ground).await;
    }
}

/// Opens a socket as somebody, or returns nothing where there is no place.
async fn socket(relay: &TestRelay, who: &str) -> Option<WsClient> {
    WsClient::connect_with(relay.address, &[("authorization", who)]).await.ok()
}

async fn hold_together_what_one_would(ground: Ground) {
    let limits = LimitOptions::none().with(Limit::Connections, 3);
    let one = TestRelay::start_with(ground.storage.clone(), |options| limit(options, limits)).await;
    let two = TestRelay::start_with(ground.storage.clone(), |options| limit(options, limits)).await;
    let (_, who) = token(&one, ROOT, &["allow read *"]).await;
    let list = ("GET", "/api/v1/topics");
    eventually(Duration::from_secs(5), async || {
        send_from(&two, "192.0.2.1", Some(&who), list, &Value::Null).await.status == 200
    })
    .await;
    let first = socket(&one, &who).await.expect("there is a place");
    let _second = socket(&two, &who).await.expect("there is another");
    let headers = format!("authorization: {who}\r\n");
    let stream = Stream::open(one.address, "/api/v1/stream?topics=t", "text/event-stream", &headers).await;
    let _third = stream.expect("and one for a stream");
    for relay in [&one, &two] {
        assert!(socket(relay, &who).await.is_none());
        let headers = [("authorization", &*who), ("accept", "text/event-stream")];
        let refused = relay.send("GET", "/api/v1/topics/t/messages", &headers, b"").await;
        assert_eq!((refused.status, refused.problem().code), (429, Code::RateLimited));
        assert_eq!(refused.header("ratelimit-policy"), Some("\"connections\";q=3"));
        assert_eq!(send_from(relay, "192.0.2.1", Some(&who), list, &Value::Null).await.status, 200);
    }
    let (_, other) = token(&one, ROOT, &["allow read *"]).await;
    assert!(socket(&one, &other).await.is_some(), "another caller has its own");
    first.close().await;
    eventually(Duration::from_secs(5), async || socket(&one, &who).await.is_some()).await;
    eventually(Duration::from_secs(15), async || socket(&two, &who).await.is_some()).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn nodes_on_one_memory_hold_together_what_one_would() {
    hold_together_what_one_would(Ground::memory().await.expect("memory is always there")).await;
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn nodes_on_one_valkey_hold_together_what_one_would() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        hold_together_what_one_would(ground).await;
    }
}
