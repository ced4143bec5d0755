//! What was published to a topic, kept as the truth that readers are held against; and the publisher
//! that goes on as fast as the relay takes it, trimming now and then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem;
use parking_lot::RwLock;
use tidemill::proto::MessageId;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::dice::Dice;
use crate::support::raw::RawConnection;
use crate::support::relay::STUCK;

/// The payload of message `number` of topic `place` is `place * TOPIC + number`: no two are the same.
pub(super) const TOPIC: u64 = 1_000_000_000;

/// How many messages a topic has at most before it is trimmed.
const LENGTH_MAX: u64 = 1_200;

/// A topic, and all that was ever published to it. Messages are numbered from 0.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) name: String,
    pub(super) place: u64,
    ids: RwLock<Vec<MessageId>>,
    /// How many are confirmed.
    confirmed: watch::Sender<u64>,
    /// No message of this number or a greater one has been sent.
    sent: AtomicU64,
    /// Messages below are gone.
    trimmed: AtomicU64,
    /// Messages below may be gone.
    trimming: AtomicU64,
}

impl Track {
    pub(super) fn new(place: u64) -> Arc<Self> {
        Arc::new(Self {
            name: format!("attach-{place}"),
            place,
            ids: RwLock::default(),
            confirmed: watch::Sender::new(0),
            sent: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            trimming: AtomicU64::new(0),
        })
    }

    pub(super) fn confirmed(&self) -> u64 {
        *self.confirmed.borrow()
    }

    /// Waits until so many are confirmed.
    pub(super) async fn until(&self, count: u64) {
        let mut confirmed = self.confirmed.subscribe();
        let wait = confirmed.wait_for(|confirmed| *confirmed >= count);
        timeout(STUCK, wait).await.expect("publishing goes on").expect("the track is here");
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub(super) fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::SeqCst)
    }

    pub(super) fn trimming(&self) -> u64 {
        self.trimming.load(Ordering::SeqCst)
    }

    /// Waits until the message behind this one has been trimmed, too.
    pub(super) async fn until_trimmed_behind(&self, number: u64) {
        while self.trimmed() <= number + 1 {
            self.until(self.confirmed() + 1).await;
        }
    }

    /// Returns the id of a confirmed message.
    pub(super) fn id(&self, number: u64) -> MessageId {
        self.ids.read()[usize::try_from(number).expect("a number")]
    }

    /// Returns the number of the first confirmed message whose id is not before `id`.
    pub(super) fn first_from(&self, id: MessageId) -> u64 {
        self.ids.read().partition_point(|other| *other < id) as u64
    }

    /// Returns the ids of all messages that were not trimmed.
    pub(super) fn kept(&self) -> Vec<MessageId> {
        self.ids.read()[usize::try_from(self.trimmed()).expect("a number")..].to_vec()
    }

    /// Publishes until it is told to stop.
    pub(super) async fn publish(self: Arc<Self>, relay: SocketAddr, mut dice: Dice, stop: CancellationToken) {
        let mut connection = RawConnection::connect(relay).await.expect("the relay listens");
        let messages = format!("/api/v1/topics/{}/messages", self.name);
        let mut length_max = 1;
        while !stop.is_cancelled() {
            let from = self.sent();
            let to = from + 1 + dice.roll(60);
            self.sent.store(to, Ordering::SeqCst);
            let mut lines = String::new();
            for number in from..to {
                lines.extend([&(self.place * TOPIC + number).to_string(), "\n"]);
            }
            let answer = connection.exchange("POST", &messages, "application/x-ndjson", &lines).await;
            let (status, body) = answer.expect("an answer");
            assert_eq!(status, 207);
            let mark = br#""message_id":""#;
            let mut ids = Vec::new();
            for at in memmem::find_iter(&body, mark) {
                let id = body[at + mark.len()..].split(|byte| *byte == b'"').next().expect("a part");
                let id = std::str::from_utf8(id).expect("ASCII");
                ids.push(MessageId::parse(id).expect("an id"));
            }
            assert_eq!(ids.len() as u64, to - from, "all are accepted");
            {
                let mut all = self.ids.write();
                all.extend(ids);
                let tail = &all[all.len().saturating_sub(30)..];
                assert!(tail.is_sorted_by(|one, next| one < next), "ids grow: {tail:?}");
            }
            self.confirmed.send_replace(to);
            if to - self.trimmed() > length_max {
                self.trim(&mut connection, to, dice.pick(&[0, 2, 30, 300, 1_000])).await;
                length_max = 100 + dice.roll(LENGTH_MAX);
            }
        }
    }

    async fn trim(&self, connection: &mut RawConnection, length: u64, keep: u64) {
        let floor = length.saturating_sub(keep).max(self.trimmed());
        self.trimming.store(floor, Ordering::SeqCst);
        let path = format!("/api/v1/topics/{}/trim", self.name);
        let body = format!(r#"{{"keep":{keep}}}"#);
        let answer = connection.exchange("POST", &path, "application/json", &body).await;
        let (status, body) = answer.expect("an answer");
        let removed = format!(r#"{{"removed":{}}}"#, floor - self.trimmed());
        assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (200, removed.as_str()));
        self.trimmed.store(floor, Ordering::SeqCst);
    }
}
