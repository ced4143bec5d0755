//! R18: a crowd of long-polls on one topic is woken by one read of the storage.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tidemill::access::{Access, Audit, Sessions};
use tidemill::clock::Clock;
use tidemill::http::Http;
use tidemill::limits::{Entrance, Kept, Limits, TrustedProxies};
use tidemill::metrics::Metrics;
use tidemill::proto::{MessageId, TopicName};
use tidemill::relay::Relay;
use tidemill::storage::{
    Appended, Batch, Changes, Followed, HintListener, LatestRange, LiveStore, MessageStore, NewMessage,
    Range, Storage, StorageError, StoredMessage, Tail, Trim,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::eventually;
use crate::support::ground::{append_numbers, node, topic};
use crate::support::relay::{STUCK, memory, options};

const CROWD: usize = 10_000;

/// A storage that counts what it is asked.
#[derive(Debug)]
struct Counting {
    inner: Storage,
    reads: AtomicUsize,
    others: AtomicUsize,
}

impl Counting {
    fn counts(&self) -> (usize, usize) {
        (self.reads.load(Ordering::SeqCst), self.others.load(Ordering::SeqCst))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MessageStore for Counting {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>> {
        self.inner.messages.append(batch).await
    }

    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.messages.read(topic, range).await
    }

    async fn latest(&self, topic: &TopicName, range: LatestRange) -> Result<Batch, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.messages.latest(topic, range).await
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.inner.messages.get(topic, id).await
    }

    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.inner.messages.trim(topic, trim).await
    }

    async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.inner.messages.remove(topic, id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LiveStore for Counting {
    async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError> {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.inner.live.tail(topic).await
    }

    async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError> {
        self.inner.live.poll_changes(topics).await
    }

    fn watch(&self, topic: &TopicName, watch: bool) {
        self.inner.live.watch(topic, watch);
    }

    fn watch_all(&self, watch: bool) {
        self.inner.live.watch_all(watch);
    }

    fn listen(&self, listener: Weak<dyn HintListener>) {
        self.inner.live.listen(listener);
    }
}

/// In process, because so many sockets at both ends are more than a process may open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_long_polls_are_woken_by_one_read() {
    let inner = memory();
    let counting =
        Arc::new(Counting { inner: inner.clone(), reads: AtomicUsize::new(0), others: AtomicUsize::new(0) });
    let storage = Storage { messages: counting.clone(), live: counting.clone(), ..inner };
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    let options = options();
    let sessions = Sessions::new(token.clone());
    let access = Access::start(options.access, &storage, Clock::system(), sessions.clone(), &tracker, &token);
    let access = access.expect("there are no issuers");
    let relay = Relay::start(
        storage.clone(),
        Clock::system(),
        options.relay,
        Kept::unbounded(),
        sessions,
        &tracker,
        &token,
    );
    let http = Http::new(
        relay,
        Entrance::new(access, Limits::none(), TrustedProxies::default(), Audit::new(Metrics::new())),
        options.http,
        options.web,
        Metrics::new(),
        node(),
        CancellationToken::new(),
    );
    let service = TowerToHyperService::new(http.router(axum::Router::new()));
    let ids = append_numbers(&storage, &topic("crowd"), 3).await;
    let send = {
        let service = service.clone();
        move |request: axum::http::request::Builder, body: String| {
            let request = request.header("host", "relay").header("content-type", "application/json");
            let request = request.body(Body::from(body)).expect("a request");
            let answer = service.call(request);
            async move {
                let answer = answer.await.expect("an answer");
                let body = answer.into_body().collect().await.expect("a body").to_bytes();
                serde_json::from_slice::<Value>(&body).expect("JSON")
            }
        }
    };
    let waiting = async |count: usize| {
        eventually(STUCK, || async {
            let stats = send(Request::get("/messages/poll/stats"), String::new()).await;
            stats["active_waiters"] == count
        })
        .await;
    };
    let mut polls = JoinSet::new();
    let ask = |number: usize| {
        if number.is_multiple_of(2) {
            let path = format!("/api/v1/topics/crowd/messages?wait=60&after={}", ids[2]);
            send(Request::get(path), String::new())
        } else {
            let body = format!(r#"{{"topics":["crowd"],"since":{{"crowd":"{}"}},"timeout":60}}"#, ids[2]);
            send(Request::post("/messages/poll"), body)
        }
    };
    // The first one begins the feed.
    polls.spawn(ask(0));
    waiting(1).await;
    // It looks once.
    eventually(STUCK, || async { counting.counts().0 > 0 }).await;
    let begun = counting.counts();
    for number in 1..CROWD {
        polls.spawn(ask(number));
    }
    waiting(CROWD).await;
    assert_eq!(counting.counts(), begun, "who comes, and waits, asks the storage for nothing");
    let body = r#"{"topic":"crowd","payload":"now"}"#.to_owned();
    let published = send(Request::post("/api/v1/messages"), body).await;
    while let Some(answer) = polls.join_next().await {
        let answer = answer.expect("no panic");
        assert_eq!(answer["messages"][0]["message_id"], published["message_id"], "{answer}");
        assert_eq!(answer["messages"].as_array().map(Vec::len), Some(1));
    }
    let (reads, others) = counting.counts();
    assert_eq!(others, begun.1);
    // The feed reads until it has nothing more: at most once for each hint.
    assert!(reads - begun.0 <= 2, "{} reads for {CROWD} readers", reads - begun.0);
    waiting(0).await;
    token.cancel();
    tracker.close();
    tracker.wait().await;
}
