//! Live reading at its core: feeds, rings and readers, without any transport.

use std::sync::Arc;
use std::time::Duration;

use tidemill::access::{Caller, Sessions};
use tidemill::clock::Clock;
use tidemill::features::Features;
use tidemill::limits::Kept;
use tidemill::proto::sessions::SessionKind;
use tidemill::proto::{Cursor, GapReason, MessageId, Since, TopicName};
use tidemill::relay::{
    Absent, Durabilities, Gate, Item, LiveReader, PresenceOptions, Relay, RelayOptions, TakeLimit, TakesAway,
};
use tidemill::storage::{Storage, TopicPolicy, Trim};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::eventually;
use crate::support::ground::{Ground, Heard, POLICY, append_all, append_numbers, json, message, node};

#[cfg(feature = "valkey")]
mod nodes;
mod patterns;

const STUCK: Duration = Duration::from_secs(20);
const WIDE: TakeLimit = TakeLimit { items: 1_000, bytes: 1024 * 1024 };
const LATEST: Since = Since::Cursor(Cursor::Latest);
const EARLIEST: Since = Since::Cursor(Cursor::Earliest);

/// A relay on a ground, whose feeds end with it.
pub(crate) struct Live {
    pub(crate) relay: Gate,
    token: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Live {
    pub(crate) fn on(storage: &Storage) -> Self {
        Self::under(POLICY, storage)
    }

    /// The same, under another policy.
    pub(crate) fn under(policy: TopicPolicy, storage: &Storage) -> Self {
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let options = RelayOptions {
            payload_bytes_max: 1024 * 1024,
            value_bytes_max: 1024 * 1024,
            pending_bytes_max: 1 << 25,
            live_bytes_max: 1 << 28,
            live_topics_max: 100_000,
            topic_auto_create: true,
            durability: Durabilities::default(),
            policy,
            retention: None,
            features: Features::all(),
            presence: PresenceOptions::usual(node()),
            takes_away: TakesAway::CountAlone,
            slow_after: Duration::ZERO,
        };
        let sessions = Sessions::new(token.clone());
        let relay = Relay::start(
            storage.clone(),
            Clock::system(),
            options,
            Kept::unbounded(),
            sessions,
            &tracker,
            &token,
        );
        let relay = relay.as_caller(Caller::anyone());
        Self { relay, token, tracker }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// What a reader got: messages by id, and gaps.
#[derive(Debug, Default)]
struct Got {
    ids: Vec<MessageId>,
    gaps: Vec<(GapReason, Option<u64>)>,
}

impl Got {
    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Message(message) => self.ids.push(message.id()),
                Item::Closed(_) => panic!("nothing has ended"),
                Item::Bookmark(..) => panic!("no pattern is read"),
                Item::Gap(gap) => self.gaps.push((gap.reason, gap.missed)),
            }
        }
    }

    async fn until(&mut self, reader: &mut LiveReader, last: MessageId, budget: TakeLimit) {
        while self.ids.last().is_none_or(|id| *id < last) {
            let items = timeout(STUCK, reader.next(budget)).await;
            self.take(items.unwrap_or_else(|_| panic!("stuck behind {:?}", self.ids.last())));
        }
    }
}

async fn read_from(live: &Live, topic: &TopicName, since: Since) -> LiveReader {
    let mut reader = live.relay.live_reader(SessionKind::Stream);
    reader.add(topic, since, Absent::Refuse).await.expect("the topic exists");
    reader
}

async fn a_reader_gets_history_and_then_what_comes(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    let mut all = append_numbers(&ground.storage, &topic, 2_500).await;
    for (words, from) in [("earliest", 0), ("1000", 1_001), ("last", 2_500), ("latest", usize::MAX)] {
        let since = match words {
            "earliest" => EARLIEST,
            "latest" => LATEST,
            "last" => Since::Cursor(Cursor::After(all[2_499])),
            _ => Since::Cursor(Cursor::After(all[1_000])),
        };
        let from = from.min(all.len());
        let mut reader = read_from(&live, &topic, since).await;
        let news = append_numbers(&ground.storage, &topic, 300).await;
        all.extend(&news);
        let mut got = Got::default();
        got.until(&mut reader, news[299], WIDE).await;
        assert_eq!(got.ids, all[from..], "{words}");
        assert_eq!(got.gaps, [], "{words}");
    }
}

async fn many_readers_attach_at_any_moment_and_miss_nothing(ground: &Ground) {
    let live = Arc::new(Live::on(&ground.storage));
    let topic = ground.topic();
    let first = append_numbers(&ground.storage, &topic, 1).await[0];
    let total = 3_000_usize;
    let publisher = {
        let (storage, topic) = (ground.storage.clone(), topic.clone());
        live.tracker.spawn(async move {
            let mut ids = vec![first];
            while ids.len() < total {
                let batch = (0..7).map(|n| message(&topic, json(n.to_string()))).collect();
                ids.extend(append_all(&storage, batch).await);
                tokio::task::yield_now().await;
            }
            ids
        })
    };
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..60_usize {
        let (live, topic, storage) = (live.clone(), topic.clone(), ground.storage.clone());
        readers.spawn(async move {
            for _ in 0..number * 3 {
                tokio::task::yield_now().await;
            }
            let since = if number % 3 == 0 { EARLIEST } else { Since::Cursor(Cursor::After(first)) };
            let budget = TakeLimit { items: 1 + number * 7 % 200, bytes: 1 + number * 1_000 };
            let mut reader = read_from(&live, &topic, since).await;
            let mut got = Got::default();
            let end = loop {
                let tail = storage.live.tail(&topic).await.unwrap();
                got.until(&mut reader, tail.last.expect("there are messages"), budget).await;
                if got.ids.len() + 1 >= total {
                    break got;
                }
                tokio::task::yield_now().await;
            };
            (number % 3 == 0, end)
        });
    }
    let ids = timeout(STUCK, publisher).await.expect("publishing ends").unwrap();
    while let Some(done) = timeout(STUCK, readers.join_next()).await.expect("readers come to the end") {
        let (from_start, got) = done.unwrap();
        let expected = if from_start { &ids[..] } else { &ids[1..] };
        assert_eq!(got.ids, expected[..got.ids.len()]);
        assert_eq!(got.gaps, []);
    }
}

async fn a_trim_that_overtakes_a_reader_is_told_exactly(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    let ids = append_numbers(&ground.storage, &topic, 2_000).await;
    let mut reader = read_from(&live, &topic, EARLIEST).await;
    let mut got = Got::default();
    got.take(timeout(STUCK, reader.next(TakeLimit { items: 10, bytes: 1 << 20 })).await.unwrap());
    assert_eq!(got.ids, ids[..10]);
    ground.storage.messages.trim(&topic, Trim::Keep(100)).await.unwrap();
    got.until(&mut reader, ids[1_999], WIDE).await;
    assert_eq!(got.ids[10..], ids[1_900..]);
    assert_eq!(got.gaps.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), [GapReason::Trimmed]);
}

async fn a_topic_that_is_emptied_while_all_are_up_to_date_has_no_gap(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 50).await;
    let mut reader = read_from(&live, &topic, LATEST).await;
    let news = append_numbers(&ground.storage, &topic, 5).await;
    let mut got = Got::default();
    got.until(&mut reader, news[4], WIDE).await;
    ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    let after = append_numbers(&ground.storage, &topic, 3).await;
    got.until(&mut reader, after[2], WIDE).await;
    assert_eq!(got.ids, [news, after].concat());
    assert_eq!(got.gaps, [], "nothing was missed");
}

async fn a_deleted_topic_is_told_and_its_successor_followed(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 5).await;
    let mut reader = read_from(&live, &topic, LATEST).await;
    let news = append_numbers(&ground.storage, &topic, 2).await;
    let mut got = Got::default();
    got.until(&mut reader, news[1], WIDE).await;
    live.relay.delete_topic(&topic).await.expect("the topic exists");
    let after = append_numbers(&ground.storage, &topic, 3).await;
    got.until(&mut reader, after[2], WIDE).await;
    assert_eq!(got.ids, [news, after].concat());
    assert_eq!(
        got.gaps.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(),
        [GapReason::Deleted],
        "{got:?}"
    );
}

async fn what_was_deleted_is_not_given_to_who_comes_behind(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    let ids = append_numbers(&ground.storage, &topic, 1).await;
    let mut reader = read_from(&live, &topic, LATEST).await;
    let news = append_numbers(&ground.storage, &topic, 5).await;
    let mut got = Got::default();
    got.until(&mut reader, news[4], WIDE).await;
    live.relay.delete_message(&topic, news[2]).await.expect("it is there");
    // All of these are at hand, because somebody reads live.
    eventually(STUCK, async || {
        let mut late = read_from(&live, &topic, Since::Cursor(Cursor::After(ids[0]))).await;
        let mut got = Got::default();
        got.until(&mut late, news[4], WIDE).await;
        assert_eq!(got.gaps, [], "it was taken out on purpose");
        got.ids == [news[0], news[1], news[3], news[4]]
    })
    .await;
    let next = append_numbers(&ground.storage, &topic, 1).await;
    got.until(&mut reader, next[0], WIDE).await;
    assert_eq!((got.ids.last(), &got.gaps[..]), (Some(&next[0]), &[][..]));
}

async fn what_was_trimmed_is_not_given_to_a_new_reader_of_an_emptied_topic(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1).await;
    let mut reader = read_from(&live, &topic, LATEST).await;
    let old = append_numbers(&ground.storage, &topic, 5).await;
    let mut got = Got::default();
    got.until(&mut reader, old[4], WIDE).await;
    ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    let mut late = read_from(&live, &topic, EARLIEST).await;
    let nothing = timeout(Duration::from_millis(500), late.next(WIDE)).await;
    assert!(nothing.is_err(), "trimmed, and given all the same: {nothing:?}");
}

async fn who_is_ahead_of_the_feed_is_not_told_what_only_the_feed_has_missed(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let topic = ground.topic();
    let mut ids = append_numbers(&ground.storage, &topic, 5).await;
    // Begins the feed, at the fifth message.
    let _first = read_from(&live, &topic, LATEST).await;
    // Nobody tells the feed any more: it looks once a second.
    drop(Heard::of(&ground.storage));
    ids.extend(append_numbers(&ground.storage, &topic, 5).await);
    let mut reader = read_from(&live, &topic, Since::Cursor(Cursor::After(ids[0]))).await;
    let mut got = Got::default();
    got.until(&mut reader, ids[9], WIDE).await;
    ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    let news = append_numbers(&ground.storage, &topic, 2).await;
    got.until(&mut reader, news[1], WIDE).await;
    assert_eq!(got.ids[..9], ids[1..]);
    assert!(got.gaps.iter().all(|(_, missed)| missed.is_none()), "nothing was missed: {:?}", got.gaps);
}

macro_rules! on_every_ground {
    ($($name:ident),+ $(,)?) => {
        mod memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            if let Some(ground) = super::Ground::memory().await { super::$name(&ground).await; }
        })+ }
        #[cfg(feature = "valkey")]
        mod valkey { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            if let Some(ground) = super::Ground::on(crate::support::server::Kind::Valkey).await { super::$name(&ground).await; }
        })+ }
        #[cfg(feature = "valkey")]
        mod redis { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            if let Some(ground) = super::Ground::on(crate::support::server::Kind::Redis).await { super::$name(&ground).await; }
        })+ }
    };
}

on_every_ground! {
    a_reader_gets_history_and_then_what_comes,
    many_readers_attach_at_any_moment_and_miss_nothing,
    a_trim_that_overtakes_a_reader_is_told_exactly,
    a_topic_that_is_emptied_while_all_are_up_to_date_has_no_gap,
    a_deleted_topic_is_told_and_its_successor_followed,
    what_was_deleted_is_not_given_to_who_comes_behind,
    what_was_trimmed_is_not_given_to_a_new_reader_of_an_emptied_topic,
    who_is_ahead_of_the_feed_is_not_told_what_only_the_feed_has_missed,
}
