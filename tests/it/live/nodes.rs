//! Several nodes and other producers on one server: doorbells, hints of the server, and the sweep
//! that needs neither.

use std::time::Duration;

use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::work::GroupName;
use tidemill::proto::{MessageId, TopicName};
use tidemill::relay::{Item, LiveReader};
use tidemill::storage::{Existing, Found, GroupStart, GroupsSwept, Hint, group_defaults};
use tokio::time::{Instant, timeout};

use super::{Got, LATEST, Live, STUCK, WIDE, read_from};
use crate::support::eventually;
use crate::support::ground::{
    Ground, Heard, LIMITS, SOON, append, append_all, append_numbers, followed, json, message,
};
use crate::support::resp::Reply;
use crate::support::server::Kind;

/// Messages whose way is timed.
const TIMED: usize = 41;

async fn next_id(reader: &mut LiveReader) -> MessageId {
    let items = timeout(STUCK, reader.next(WIDE)).await.expect("a message comes");
    match &items[..] {
        [Item::Message(message)] => message.id(),
        other => panic!("one message, not {other:?}"),
    }
}

/// Times the way of messages from `publish` to a reader and returns the median.
async fn median(reader: &mut LiveReader, mut publish: impl AsyncFnMut()) -> Duration {
    let mut times = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        let begin = Instant::now();
        publish().await;
        next_id(reader).await;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times[TIMED / 2]
}

/// Waits until doorbells of this node are heard, by publishing on the other one.
async fn line_stands(reader: &mut LiveReader, publish: &mut impl AsyncFnMut()) {
    let deadline = Instant::now() + SOON;
    loop {
        let begin = Instant::now();
        publish().await;
        next_id(reader).await;
        if begin.elapsed() < Duration::from_millis(20) {
            return;
        }
        assert!(Instant::now() < deadline, "no doorbell is heard");
    }
}

async fn add_by_hand(ground: &Ground, topic: &TopicName) {
    let stream = format!("stream:topic:{topic}");
    let reply = ground.server().command(&["XADD", &stream, "*", "payload", "{\"by\":\"hand\"}"]).await;
    assert!(matches!(reply, Reply::Bulk(_)), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_publishes_is_read_on_the_other_at_once() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let here = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1).await;
    let mut reader = read_from(&here, &topic, LATEST).await;
    let mut publish = async || {
        append(&other, message(&topic, json("1"))).await.expect("accepted");
    };
    line_stands(&mut reader, &mut publish).await;
    let median = median(&mut reader, publish).await;
    eprintln!("from node to node: {median:?} at the median");
    assert!(median < Duration::from_millis(20), "{median:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_show_the_order_of_the_stream() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let (here, there) = (Live::on(&ground.storage), Live::on(&other));
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1).await;
    let mut readers = [read_from(&here, &topic, LATEST).await, read_from(&there, &topic, LATEST).await];
    let publishers = [&ground.storage, &other].map(|storage| {
        let (storage, topic) = (storage.clone(), topic.clone());
        here.tracker.spawn(async move {
            for _ in 0..100 {
                append_numbers(&storage, &topic, 5).await;
            }
        })
    });
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let last = ground.storage.live.tail(&topic).await.unwrap().last.unwrap();
    let mut all = Vec::new();
    for reader in &mut readers {
        let mut got = Got::default();
        got.until(reader, last, WIDE).await;
        assert_eq!((got.ids.len(), &got.gaps[..]), (1_000, &[][..]));
        assert!(got.ids.is_sorted());
        all.push(got.ids);
    }
    assert_eq!(all[0], all[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_producers_are_noticed_at_once_where_the_server_tells_of_changes() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let set = ground.server().command(&["CONFIG", "SET", "notify-keyspace-events", "Kt"]).await;
    assert_eq!(set.text(), "OK");
    let here = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1).await;
    let mut reader = read_from(&here, &topic, LATEST).await;
    let mut publish = async || add_by_hand(&ground, &topic).await;
    line_stands(&mut reader, &mut publish).await;
    let median = median(&mut reader, publish).await;
    eprintln!("from another producer: {median:?} at the median");
    assert!(median < Duration::from_millis(50), "{median:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_producers_are_noticed_within_two_seconds_anyhow() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let here = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1).await;
    let mut reader = read_from(&here, &topic, LATEST).await;
    for _ in 0..3 {
        let begin = Instant::now();
        add_by_hand(&ground, &topic).await;
        next_id(&mut reader).await;
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doorbell_line_that_is_cut_costs_no_message_and_comes_back() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let here = Live::on(&ground.storage);
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1).await;
    let mut reader = read_from(&here, &topic, LATEST).await;
    let mut got = Got::default();
    let mut published = Vec::new();
    for _ in 0..6 {
        // Pub/Sub clients are the doorbell lines of both nodes.
        ground.server().command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        published.extend(append_numbers(&other, &topic, 20).await);
        got.until(&mut reader, *published.last().unwrap(), WIDE).await;
    }
    assert_eq!(got.ids, published);
    assert_eq!(got.gaps, []);
    let mut publish = async || {
        append(&other, message(&topic, json("1"))).await.expect("accepted");
    };
    line_stands(&mut reader, &mut publish).await;
}

/// Waits until so many nodes listen to the doorbell.
async fn listeners_are(ground: &Ground, count: i64) {
    eventually(SOON, || async {
        let Reply::Array(parts) = ground.server().command(&["PUBSUB", "NUMSUB", "tidemill:doorbell"]).await
        else {
            panic!("no list of channels");
        };
        matches!(parts.last(), Some(Reply::Integer(number)) if *number == count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_nobody_reads_from_gets_no_notice() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let topic = ground.topic();
    let live = &ground.storage.live;
    append_numbers(&ground.storage, &topic, 1).await;
    listeners_are(&ground, 0).await;
    for _ in 0..2 {
        live.watch(&topic, true);
        listeners_are(&ground, 1).await;
        live.watch(&topic, false);
        listeners_are(&ground, 0).await;
        live.watch_all(true);
        listeners_are(&ground, 1).await;
        live.watch(&topic, true);
        live.watch_all(false);
        live.watch(&topic, false);
        listeners_are(&ground, 0).await;
    }
}

/// Waits for the next topic that is told.
async fn next_topic(heard: &mut Heard) -> TopicName {
    loop {
        match heard.next().await {
            Hint::Topic(topic) => return topic,
            Hint::Watched(_) | Hint::WatchedAll | Hint::Lock(_) | Hint::WatchedLocks | Hint::Everything => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_attends_to_all_hears_of_every_topic_that_a_node_makes_or_changes() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let [created, published] = [(); 2].map(|()| ground.topic());
    let mut heard = Heard::of(&ground.storage);
    ground.storage.live.watch_all(true);
    while heard.next().await != Hint::WatchedAll {}
    other.topics.create(&created, TopicUpdate::default(), None).await.expect("it is created");
    assert_eq!(next_topic(&mut heard).await, created);
    let mut listed = ground.storage.topics.names("", None, 10).await.expect("names");
    assert_eq!(listed, std::slice::from_ref(&created), "what is told stands in the index");
    append_numbers(&other, &published, 1).await;
    other.topics.delete(&created).await.expect("it is deleted");
    // It gets notice of the topic that is new, and for its message.
    assert_eq!(next_topic(&mut heard).await, published);
    let told = loop {
        let told = next_topic(&mut heard).await;
        if told != published {
            break told;
        }
    };
    assert_eq!(told, created);
    append_numbers(&other, &published, 1).await;
    assert_eq!(next_topic(&mut heard).await, published);
    listed = ground.storage.topics.names("", None, 10).await.expect("names");
    assert_eq!(listed, [published]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_hears_of_a_topic_of_another_producer_when_one_sweeps() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let mut heard = [&ground.storage, &other].map(Heard::of);
    for (storage, heard) in [&ground.storage, &other].into_iter().zip(&mut heard) {
        storage.live.watch_all(true);
        while heard.next().await != Hint::WatchedAll {}
    }
    let sweep = async || {
        eventually(SOON, async || other.upkeep.sweep().await.expect("a sweep").topics > 0).await;
    };
    let (old, new) = (ground.topic(), ground.topic());
    add_by_hand(&ground, &old).await;
    sweep().await;
    for heard in &mut heard {
        assert_eq!(next_topic(heard).await, old);
    }
    add_by_hand(&ground, &new).await;
    sweep().await;
    let listed = ground.storage.topics.names("", None, 10).await.expect("names");
    assert_eq!(listed, [old.clone(), new.clone()]);
    for heard in &mut heard {
        assert_eq!(next_topic(heard).await, new, "{old} is known");
    }
    // Another stream in the place of one that is in the index.
    let stream = format!("stream:topic:{old}");
    ground.server().command(&["DEL", &stream]).await;
    add_by_hand(&ground, &old).await;
    sweep().await;
    // Nothing is new any more.
    sweep().await;
    let last = ground.topic();
    append_numbers(&ground.storage, &last, 1).await;
    for heard in &mut heard {
        assert_eq!(next_topic(heard).await, old);
        assert_eq!(next_topic(heard).await, last);
    }
}

/// Of several nodes one sweeps, and each tells what there is: `tidemill_work_*`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_knows_what_the_last_sweep_has_found() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let (topic, group) = (ground.topic(), GroupName::parse("workers").expect("a name"));
    let ids = append_numbers(&other, &topic, 3).await;
    let settings = group_defaults(&topic, &group);
    let made = other.work.put_group(&topic, &group, &settings, GroupStart::Earliest, Existing::Replace);
    assert!(made.await.expect("it is made"));
    // What is found is told for a few intervals, which are short here.
    let found = std::sync::OnceLock::new();
    eventually(SOON, async || {
        if other.upkeep.sweep().await.expect("a sweep").topics == 0 {
            return false;
        }
        ground.server().command(&["SET", "tidemill:sweep", "1", "PX", "200"]).await;
        let swept = ground.storage.upkeep.sweep().await.expect("it asks");
        swept.topics == 0 && swept.found.is_some_and(|of| found.set(of).is_ok())
    })
    .await;
    let groups = GroupsSwept { waiting: 3, oldest: Some(ids[0]), unattended: 1, ..GroupsSwept::default() };
    assert_eq!(found.get(), Some(&Found { topics: 1, groups }));
}

/// A sweep works through many topics in steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_rings_for_those_that_are_new_among_many() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let mut heard = Heard::of(&ground.storage);
    let topics: Vec<TopicName> = (0..300).map(|_| ground.topic()).collect();
    let (known, new) = topics.split_at(150);
    let one_each = |topics: &[TopicName]| topics.iter().map(|topic| message(topic, json("1"))).collect();
    append_all(&other, one_each(known)).await;
    for topic in new {
        add_by_hand(&ground, topic).await;
    }
    ground.storage.live.watch_all(true);
    while heard.next().await != Hint::WatchedAll {}
    eventually(SOON, async || other.upkeep.sweep().await.expect("a sweep").topics == 300).await;
    let mut told = Vec::new();
    for _ in new {
        told.push(next_topic(&mut heard).await);
    }
    told.sort_unstable();
    let mut expected = new.to_vec();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

/// What happened before is not hinted at: who watches is told from when on it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_attends_to_all_is_told_each_time_that_it_begins() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let topic = ground.topic();
    let mut heard = Heard::of(&ground.storage);
    let live = &ground.storage.live;
    // With the line already there, and without.
    live.watch(&topic, true);
    while heard.next().await != Hint::Watched(vec![topic.clone()]) {}
    for _ in 0..3 {
        live.watch_all(true);
        while heard.next().await != Hint::WatchedAll {}
        live.watch_all(false);
    }
    live.watch(&topic, false);
    live.watch_all(true);
    while heard.next().await != Hint::WatchedAll {}
    for _ in 0..3 {
        ground.server().command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        while heard.next().await != Hint::Everything {}
        while heard.next().await != Hint::WatchedAll {}
        let new = ground.topic();
        append_numbers(&other, &new, 1).await;
        assert_eq!(next_topic(&mut heard).await, new);
        append_numbers(&other, &topic, 1).await;
        while next_topic(&mut heard).await != topic {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_not_rung_for_what_it_has_published_itself() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let topics = [(); 2].map(|()| ground.topic());
    let mut heard = Heard::of(&ground.storage);
    for topic in &topics {
        append_numbers(&ground.storage, topic, 1).await;
        ground.storage.live.watch(topic, true);
        while heard.next().await != Hint::Watched(vec![topic.clone()]) {}
    }
    append_numbers(&ground.storage, &topics[0], 1).await;
    append_numbers(&other, &topics[1], 1).await;
    // Rings come in the order in which they were sent: of the first, only the storage itself has told.
    assert_eq!(heard.next().await, Hint::Topic(topics[0].clone()));
    assert_eq!(heard.next().await, Hint::Topic(topics[1].clone()));
    other.topics.delete(&topics[0]).await.expect("it is deleted");
    assert_eq!(heard.next().await, Hint::Topic(topics[0].clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_no_stream_hides_no_news_of_others() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let topics = [(); 3].map(|()| ground.topic());
    for topic in &topics {
        append_numbers(&ground.storage, topic, 1).await;
    }
    let broken = format!("stream:topic:{}", topics[1]);
    ground.server().command(&["SET", &broken, "no stream"]).await;
    let asked: Vec<_> = topics.iter().map(|topic| followed(topic, None)).collect();
    let changes = ground.storage.live.poll_changes(&asked).await.expect("changes are told");
    assert_eq!((changes.changed, changes.gone), (vec![0, 1, 2], vec![]));
    ground.server().command(&["DEL", &broken]).await;
    let changes = ground.storage.live.poll_changes(&asked).await.expect("changes are told");
    assert_eq!((changes.changed, changes.gone), (vec![0, 2], vec![1]));
}
