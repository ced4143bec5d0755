//! Publishers that go on while things break, and what they were told, held against what was kept.
//!
//! It must not know what breaks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::storage::Storage;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ground::{ids, is_strictly_increasing, read_all, topic};
use super::relay::{Answer, try_send};

/// How long a publisher rests after a refusal.
const REST: Duration = Duration::from_millis(10);

/// What one attempt came to.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) topic: String,
    pub(crate) payload: String,
    /// Whether it went under a key, and so may be one of several attempts for the same message.
    pub(crate) keyed: bool,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// `None` where the relay hung up without an answer.
    pub(crate) answer: Option<Answer>,
}

impl Told {
    pub(crate) fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    /// Returns the id of the message, if the attempt was accepted.
    pub(crate) fn id(&self) -> Option<String> {
        let answer = self.answer.as_ref().filter(|answer| matches!(answer.status, 200 | 201))?;
        Some(answer.json()["message_id"].as_str().expect("an id").to_owned())
    }
}

/// Publishers at work. Every other one uses idempotency keys, and repeats until its message is accepted.
#[derive(Debug)]
pub(crate) struct Load {
    accepted: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    stop: CancellationToken,
    publishers: JoinSet<Vec<Told>>,
}

impl Load {
    /// Starts publishers to a relay, spread over topics whose names begin with `prefix`.
    pub(crate) fn start(address: SocketAddr, prefix: &str, publishers: usize) -> Self {
        let mut load = Self {
            accepted: Arc::default(),
            refused: Arc::default(),
            stop: CancellationToken::new(),
            publishers: JoinSet::new(),
        };
        for number in 0..publishers {
            let publisher = Publisher {
                address,
                topic: format!("{prefix}-{}", number / 2 % 3),
                number,
                accepted: load.accepted.clone(),
                refused: load.refused.clone(),
                stop: load.stop.clone(),
            };
            load.publishers.spawn(publisher.run());
        }
        load
    }

    /// Returns how many messages were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Returns how many attempts were refused with 503 so far.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Lets every publisher finish its attempt, and returns what they were told.
    pub(crate) async fn stop(self) -> Vec<Told> {
        self.stop.cancel();
        self.publishers.join_all().await.into_iter().flatten().collect()
    }
}

struct Publisher {
    address: SocketAddr,
    topic: String,
    number: usize,
    accepted: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Publisher {
    async fn run(self) -> Vec<Told> {
        let keyed = self.number % 2 == 1;
        let mut all = Vec::new();
        let mut count = 0_usize;
        while !self.stop.is_cancelled() {
            let told = self.attempt(format!("\"{}/{count}\"", self.number), keyed).await;
            let accepted = told.id().is_some();
            if accepted {
                self.accepted.fetch_add(1, Ordering::SeqCst);
            } else {
                self.refused.fetch_add(usize::from(told.status() == 503), Ordering::SeqCst);
                tokio::time::sleep(REST).await;
            }
            if accepted || !keyed {
                count += 1;
            }
            all.push(told);
        }
        all
    }

    async fn attempt(&self, payload: String, keyed: bool) -> Told {
        let path = format!("/api/v1/topics/{}/messages", self.topic);
        let mut headers = vec![("content-type", "application/json")];
        if keyed {
            headers.push(("idempotency-key", payload.trim_matches('"')));
        }
        let began = Instant::now();
        let answer = try_send(self.address, "POST", &path, &headers, payload.as_bytes()).await;
        let took = began.elapsed();
        Told { topic: self.topic.clone(), payload, keyed, began, took, answer }
    }
}

/// Holds what publishers were told against what the storage has: every accepted message is there once
/// under its id (I1, I5), one that was certainly refused is not, and nothing is there that nobody sent
/// (I4); the order is that of the ids. Every attempt ended within `deadline` (I7), and with an answer
/// that says what happened.
///
/// # Panics
/// It is not so.
pub(crate) async fn assert_kept(storage: &Storage, told: &[Told], deadline: Duration) {
    let mut kept: HashMap<(&str, String), Vec<String>> = HashMap::new();
    let mut topics: Vec<&str> = told.iter().map(|told| told.topic.as_str()).collect();
    topics.sort_unstable();
    topics.dedup();
    for name in topics {
        let messages = read_all(storage, &topic(name), Order::Asc, 1_000).await;
        assert!(is_strictly_increasing(&ids(&messages)));
        for message in messages {
            let payload = String::from_utf8(message.body.payload.to_vec()).expect("UTF-8 was sent");
            kept.entry((name, payload)).or_default().push(message.id.to_string());
        }
    }
    // What became of each message, over all its attempts.
    let mut sent: HashMap<(&str, String), (Option<String>, bool)> = HashMap::new();
    for told in told {
        assert!(told.took <= deadline, "{:?} is past {deadline:?}: {told:?}", told.took);
        assert!(matches!(told.status(), 0 | 200 | 201 | 503 | 504 | 507), "{told:?}");
        if let Some(answer) = told.answer.as_ref().filter(|answer| answer.status == 504) {
            assert_eq!(answer.problem().retryable, told.keyed, "{answer:?}");
        }
        let may_be_kept = !matches!(told.status(), 503 | 507);
        let entry = sent.entry((&told.topic, told.payload.clone())).or_default();
        entry.1 |= may_be_kept;
        if let Some(id) = told.id() {
            assert_eq!(*entry.0.get_or_insert(id.clone()), id, "one key, two ids");
        }
    }
    for (message, (accepted, may_be_kept)) in &sent {
        let found = kept.remove(message).unwrap_or_default();
        match accepted {
            Some(id) => assert_eq!(found, std::slice::from_ref(id), "{message:?} was accepted once"),
            None if *may_be_kept => assert!(found.len() <= 1, "{message:?} is there as {found:?}"),
            None => assert!(found.is_empty(), "{message:?} was refused, and is there as {found:?}"),
        }
    }
    assert!(kept.is_empty(), "nobody sent {kept:?}");
}
