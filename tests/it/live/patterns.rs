//! Readers of a pattern that come and go at any moment, while topics are made and deleted: each gets every
//! message once and in order while it stays, and what it resumes may come again, and never less.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill::proto::sessions::SessionKind;
use tidemill::proto::{GapReason, PatternCursor, TopicName, TopicPattern};
use tidemill::relay::{Item, StartAt, TakeLimit};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{EARLIEST, LATEST, Live, STUCK};
use crate::support::dice::Dice;
use crate::support::ground::{Ground, append, append_all, json, message, topic};
use crate::support::length;

/// Names that the topics have; each is deleted and made again, many times.
const NAMES: u64 = 30;

/// The payload of the message that is the last of all.
const END: (u64, u64) = (u64::MAX, u64::MAX);

/// What a reader knows of a topic: which of its name it is, and which message of it was the last.
type Seen = (u64, u64);

/// A reader, over all the times that it comes.
#[derive(Debug, Default)]
struct Reader {
    seen: HashMap<TopicName, Seen>,
    /// Topics that it has had a message of since it came last.
    stays: HashMap<TopicName, bool>,
    cursor: Option<PatternCursor>,
    has_ended: bool,
    got: usize,
    again: usize,
}

fn pattern() -> TopicPattern {
    TopicPattern::parse("p.*").expect("a pattern")
}

fn parse(payload: &[u8]) -> Seen {
    serde_json::from_slice(payload).expect("two numbers")
}

fn roll(dice: &mut Dice, sides: u64) -> usize {
    usize::try_from(dice.roll(sides)).expect("a small number")
}

impl Reader {
    fn take(&mut self, item: Item) {
        match item {
            Item::Bookmark(of, cursor) => {
                assert_eq!(of, pattern());
                assert!(cursor.as_str().len() <= PatternCursor::BYTES_MAX);
                self.cursor = Some(cursor);
            }
            Item::Closed(closed) => panic!("nothing has ended: {closed:?}"),
            Item::Gap(gap) => {
                assert_eq!(gap.reason, GapReason::Deleted, "nothing else happens: {gap:?}");
            }
            Item::Message(message) => {
                let next = parse(&message.stored().body.payload);
                self.got += 1;
                if next == END {
                    self.has_ended = true;
                    return;
                }
                let before = self.seen.insert(message.topic().clone(), next);
                let stays = self.stays.insert(message.topic().clone(), true).is_some();
                let Some(before) = before else { return };
                let is_next = if next.0 == before.0 { next.1 == before.1 + 1 } else { next.1 == 0 };
                let is_again = next.0 == before.0 && next.1 <= before.1;
                assert!(
                    (is_next && next > before) || (is_again && !stays),
                    "{}: {next:?} after {before:?}, stays: {stays}",
                    message.topic()
                );
                if is_again {
                    self.again += 1;
                }
            }
        }
    }
}

async fn read(live: Arc<Live>, ended: Arc<AtomicBool>, mut dice: Dice) -> Reader {
    let mut state = Reader::default();
    let mut is_first = true;
    while !state.has_ended {
        sleep(dice.up_to_ms(150)).await;
        let from = match state.cursor.clone() {
            Some(cursor) => StartAt::Cursor(cursor),
            None if is_first && dice.roll(2) == 0 => StartAt::Since(LATEST),
            None => StartAt::Since(EARLIEST),
        };
        // Who comes when all is over gets nothing by `latest`.
        let from = if ended.load(Ordering::SeqCst) && from == StartAt::Since(LATEST) {
            StartAt::Since(EARLIEST)
        } else {
            from
        };
        is_first = false;
        let mut reader = live.relay.live_reader::<tidemill::relay::NoOutlet>(SessionKind::Stream);
        let start = reader.add_pattern(&pattern(), &from).await.expect("it is followed");
        state.cursor.get_or_insert(start);
        state.stays.clear();
        let leaves_after = if dice.roll(3) == 0 { usize::MAX } else { state.got + 1 + roll(&mut dice, 60) };
        while !state.has_ended && state.got < leaves_after {
            let budget = TakeLimit { items: 1 + roll(&mut dice, 40), bytes: 1 << 16 };
            let items = timeout(STUCK, reader.next(budget)).await.unwrap_or_else(|_| {
                panic!("stuck after {} messages at {:?}: {:?}", state.got, state.cursor, state.seen)
            });
            for item in items {
                state.take(item);
            }
            if dice.roll(8) == 0 {
                sleep(dice.up_to_ms(5)).await;
            }
        }
    }
    state
}

/// Publishes to topics, makes and deletes them.
async fn write(live: Arc<Live>, storage: tidemill::storage::Storage, rounds: u64, mut dice: Dice) {
    // Of each name: which topic of it this is, and how many messages that has.
    let mut made: HashMap<u64, Seen> = HashMap::new();
    for _ in 0..rounds {
        let number = dice.roll(NAMES);
        let name = topic(&format!("p.{number}"));
        let next = match made.get(&number).copied() {
            None => (0, 0),
            Some((which, count)) if dice.roll(25) == 0 && count > 0 => {
                live.relay.delete_topic(&name).await.expect("it is there");
                made.insert(number, (which + 1, 0));
                continue;
            }
            Some(next) => next,
        };
        let payload = format!("[{},{}]", next.0, next.1);
        append(&storage, message(&name, json(payload))).await.expect("it is kept");
        made.insert(number, (next.0, next.1 + 1));
        if dice.roll(4) == 0 {
            sleep(dice.up_to_ms(4)).await;
        }
    }
    let end = format!("[{},{}]", END.0, END.1);
    append(&storage, message(&topic("p.end"), json(end))).await.expect("it is kept");
}

async fn readers_attach_at_any_moment_while_topics_come_and_go(ground: &Ground) {
    let dice = Dice::cast();
    let live = Arc::new(Live::on(&ground.storage));
    let ended = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for number in 0..length::pick(24, 200) {
        readers.spawn(read(live.clone(), ended.clone(), dice.of(number)));
    }
    write(live.clone(), ground.storage.clone(), length::pick(1_500, 40_000), dice.of(u64::MAX)).await;
    ended.store(true, Ordering::SeqCst);
    let (mut got, mut again) = (0, 0);
    while let Some(reader) = timeout(STUCK * 4, readers.join_next()).await.expect("all come to the end") {
        let reader = reader.expect("a reader");
        got += reader.got;
        again += reader.again;
    }
    length::tell(format_args!("readers of a pattern got {got} messages, {again} of them again"));
}

/// One that does not read while more comes than the ring of the pattern keeps: it goes back to its last cursor.
async fn a_reader_that_falls_behind_loses_nothing(ground: &Ground) {
    const TOPICS: u64 = 20;
    const EACH: u64 = 600;
    let live = Live::on(&ground.storage);
    let mut readers = Vec::new();
    for from in [LATEST, EARLIEST] {
        let mut reader = live.relay.live_reader::<tidemill::relay::NoOutlet>(SessionKind::Stream);
        reader.add_pattern(&pattern(), &StartAt::Since(from)).await.expect("it is followed");
        readers.push(reader);
    }
    for number in 0..EACH {
        let batch = (0..TOPICS).map(|of| message(&topic(&format!("p.{of}")), json(format!("[0,{number}]"))));
        append_all(&ground.storage, batch.collect()).await;
    }
    for mut reader in readers {
        let mut seen: HashMap<TopicName, u64> = HashMap::new();
        while seen.len() < TOPICS.try_into().expect("a few") || seen.values().any(|last| last + 1 < EACH) {
            let budget = TakeLimit { items: 200, bytes: 1 << 20 };
            let items =
                timeout(STUCK, reader.next(budget)).await.unwrap_or_else(|_| panic!("stuck at {seen:?}"));
            for item in items {
                match item {
                    Item::Message(message) => {
                        let (_, number) = parse(&message.stored().body.payload);
                        let next = seen.get(message.topic()).map_or(0, |last| last + 1);
                        assert!(number <= next, "{}: {number}, and {next} was to come", message.topic());
                        seen.insert(message.topic().clone(), number.max(next.saturating_sub(1)));
                    }
                    Item::Gap(gap) => panic!("nothing is gone: {gap:?}"),
                    Item::Closed(closed) => panic!("nothing has ended: {closed:?}"),
                    Item::Bookmark(..) => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_falls_behind_in_memory() {
    a_reader_that_falls_behind_loses_nothing(&Ground::memory().await.expect("there is memory")).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_falls_behind_on_valkey() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        a_reader_that_falls_behind_loses_nothing(&ground).await;
    }
}

/// While a pattern takes up topics, what others read of the storage goes on.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_come_in_a_burst_hold_up_nobody() {
    use tokio::time::Instant;

    const TOPICS: u64 = 80;
    // Less than a request to the server may take.
    const HELD_UP: Duration = Duration::from_secs(3);

    let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await else { return };
    let live = Arc::new(Live::on(&ground.storage));
    let mut reader = live.relay.live_reader::<tidemill::relay::NoOutlet>(SessionKind::Stream);
    reader.add_pattern(&pattern(), &StartAt::Since(LATEST)).await.expect("it is followed");
    for round in 0..length::pick(4_u64, 40) {
        let writing = live.tracker.spawn({
            let storage = ground.storage.clone();
            async move {
                for burst in 0..2 * TOPICS {
                    let name = |of: u64| topic(&format!("p.{round}.{}", (burst * 4 + of) % TOPICS));
                    append_all(&storage, (0..4).map(|of| message(&name(of), json("[0,0]"))).collect()).await;
                    sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let (mut got, mut last) = (0, Instant::now());
        while got < 8 * TOPICS {
            let items = timeout(STUCK, reader.next(TakeLimit { items: 100, bytes: 1 << 16 }))
                .await
                .expect("it comes");
            let messages = items.iter().filter(|item| matches!(item, Item::Message(_))).count() as u64;
            if messages > 0 {
                assert!(
                    last.elapsed() < HELD_UP,
                    "round {round}, behind {got} messages: {:?}",
                    last.elapsed()
                );
                last = Instant::now();
            }
            got += messages;
        }
        writing.await.expect("all are published");
    }
}

/// A producer with ids of its own: the base of a cursor cannot speak for its topic.
#[cfg(feature = "valkey")]
async fn ids_that_do_not_follow_the_clock_are_not_lost(ground: &Ground) {
    let live = Live::on(&ground.storage);
    let server = ground.server();
    let add = async |id: &str, payload: &str| {
        server.command(&["XADD", "stream:topic:p.own", id, "payload", payload]).await;
    };
    append(&ground.storage, message(&topic("p.clock"), json("[0,0]"))).await.expect("it is kept");
    add("1000-1", "[0,0]").await;
    let sweep = async || {
        server.command(&["DEL", "tidemill:sweep"]).await;
        ground.storage.upkeep.sweep().await.expect("it sweeps");
    };
    sweep().await;
    let mut reader = live.relay.live_reader::<tidemill::relay::NoOutlet>(SessionKind::Stream);
    let mut cursor = reader.add_pattern(&pattern(), &StartAt::Since(LATEST)).await.expect("it is followed");
    let budget = TakeLimit { items: 100, bytes: 1 << 16 };
    // While it is there, and while it is not.
    add("1000-2", "[0,1]").await;
    let mut got = Vec::new();
    for expected in [vec![(0, 1)], vec![(0, 2), (0, 3)]] {
        let deadline = tokio::time::Instant::now() + STUCK;
        let mut has_cursor = false;
        while !(expected.iter().all(|seen| got.contains(seen)) && has_cursor) {
            assert!(tokio::time::Instant::now() < deadline, "{expected:?} are lost: {got:?}");
            let items = timeout(STUCK, reader.next(budget)).await.expect("something comes");
            for item in items {
                match item {
                    Item::Message(message) if message.topic().as_str() == "p.own" => {
                        got.push(parse(&message.stored().body.payload));
                        has_cursor = false;
                    }
                    Item::Bookmark(_, newest) => {
                        cursor = newest;
                        has_cursor = true;
                    }
                    _ => {}
                }
            }
        }
        drop(reader);
        add(&format!("1000-{}", got.len() + 10), "[0,2]").await;
        sleep(Duration::from_millis(5)).await;
        add(&format!("1000-{}", got.len() + 20), "[0,3]").await;
        sweep().await;
        reader = live.relay.live_reader(SessionKind::Stream);
        reader.add_pattern(&pattern(), &StartAt::Cursor(cursor.clone())).await.expect("it is followed");
    }
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_do_not_follow_the_clock() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        ids_that_do_not_follow_the_clock_are_not_lost(&ground).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_attach_in_memory() {
    let ground = Ground::memory().await.expect("there is memory");
    readers_attach_at_any_moment_while_topics_come_and_go(&ground).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_attach_on_valkey() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        readers_attach_at_any_moment_while_topics_come_and_go(&ground).await;
    }
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_new_is_there_within_a_second_on_every_node() {
    use tokio::time::Instant;

    let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await else { return };
    let other = ground.under(crate::support::ground::LIMITS).await;
    let here = Live::on(&ground.storage);
    let mut reader = here.relay.live_reader::<tidemill::relay::NoOutlet>(SessionKind::Stream);
    reader.add_pattern(&pattern(), &StartAt::Since(LATEST)).await.expect("it is followed");
    let budget = TakeLimit { items: 100, bytes: 1 << 16 };
    let mut comes = async |name: &str| {
        let begin = Instant::now();
        loop {
            let items = timeout(STUCK, reader.next(budget)).await.expect("it comes");
            if items.iter().any(|item| matches!(item, Item::Message(it) if it.topic().as_str() == name)) {
                return begin.elapsed();
            }
        }
    };
    for number in 0..5 {
        let name = format!("p.{number}");
        append(&other, message(&topic(&name), json("[0,0]"))).await.expect("it is kept");
        let took = comes(&name).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // One that the relay does not know of, until a sweep has come by, on the other node.
    ground.server().command(&["XADD", "stream:topic:p.foreign", "*", "payload", "[0,0]"]).await;
    ground.server().command(&["DEL", "tidemill:sweep"]).await;
    other.upkeep.sweep().await.expect("it sweeps");
    let took = comes("p.foreign").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}
