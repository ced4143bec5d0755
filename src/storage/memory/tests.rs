//! What only the memory backend promises: its budget, its overhead, and ids under a clock that tests
//! can turn. What every backend promises is tested by the conformance suite.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::Timestamp;
use tidemill_proto::page::Order;
use tidemill_proto::work::GroupName;

use super::log::EXPIRED_PER_READ_MAX;
use super::*;
use crate::storage::{
    Body, Existing, GapCheck, GroupStart, Idempotency, Selection, TopicPolicy, WorkStore as _, group_defaults,
};

mod concurrent;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const MIB: u64 = 1024 * 1024;

struct Setup {
    memory: Memory,
    clock: Clock,
}

fn setup(bytes_max: u64, when_full: WhenFull) -> Setup {
    let clock = Clock::manual(START);
    let limits = StorageLimits {
        retention: None,
        topics_max: 1_000_000,
        idempotency_window: Duration::from_mins(10),
        schedules_max: 100_000,
        topic_schedules_max: 100_000,
        buckets_max: 100_000,
    };
    let memory = Memory::new(MemoryOptions {
        limits,
        bytes_max,
        keys_bytes_max: MIB,
        when_full,
        clock: clock.clone(),
    });
    Setup { memory, clock }
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn message(name: &str, payload: impl Into<Bytes>) -> NewMessage {
    NewMessage {
        topic: topic(name),
        body: Body { payload: payload.into(), content_type: None, metadata: None, order_key: None },
        timestamp: START,
        expires_at: None,
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: true,
        owner: None,
        policy: TopicPolicy::newest(100_000_000),
    }
}

impl Setup {
    async fn append(&self, message: NewMessage) -> Result<Appended, StorageError> {
        self.memory.append(vec![message]).await.pop().unwrap()
    }

    async fn read(&self, name: &str, order: Order, after: Option<MessageId>) -> Batch {
        let range = Range { order, after, gap_check: GapCheck::None, limit: 1_000, bytes_max: usize::MAX };
        self.memory.read(&topic(name), range).await.unwrap()
    }

    async fn length(&self, name: &str) -> u64 {
        self.memory.describe(&topic(name)).await.unwrap().length
    }
}

#[tokio::test]
async fn ids_follow_the_clock_and_never_go_back() {
    let setup = setup(MIB, WhenFull::Refuse);
    let ms = START.as_millis();
    for (clock_ms, expected) in [
        (ms, MessageId::new(ms, 0)),
        (ms, MessageId::new(ms, 1)),
        (ms + 5, MessageId::new(ms + 5, 0)),
        (ms - 60_000, MessageId::new(ms + 5, 1)),
        (ms + 6, MessageId::new(ms + 6, 0)),
    ] {
        setup.clock.set(Timestamp::from_millis(clock_ms));
        assert_eq!(setup.append(message("t", "1")).await.unwrap().id, expected);
    }
    setup.memory.trim(&topic("t"), Trim::Keep(0)).await.unwrap();
    assert_eq!(setup.append(message("t", "1")).await.unwrap().id, MessageId::new(ms + 6, 1));
}

#[tokio::test]
async fn a_topic_made_again_gives_no_id_of_its_predecessor() {
    let setup = setup(MIB, WhenFull::Refuse);
    let first = setup.append(message("t", "1")).await.unwrap().id;
    setup.memory.delete(&topic("t")).await.unwrap();
    assert!(setup.append(message("t", "1")).await.unwrap().id > first);
}

#[tokio::test]
async fn a_topic_gives_no_id_of_before_it_was_made_also_when_the_clock_goes_back() {
    let setup = setup(MIB, WhenFull::Refuse);
    let born = async || setup.memory.tail(&topic("t")).await.unwrap().born;
    for life in 0..3 {
        setup.clock.set(START);
        setup.memory.create(&topic("t"), TopicUpdate::default(), None).await.unwrap();
        let first = born().await.unwrap();
        assert!(first.ms >= START.as_millis(), "life {life}: {first}");
        setup.clock.set(Timestamp::from_millis(START.as_millis() - 60_000));
        assert_eq!(setup.append(message("t", "1")).await.unwrap().id, first, "life {life}");
        assert_eq!(born().await, Some(first));
        setup.memory.delete(&topic("t")).await.unwrap();
    }
}

#[tokio::test]
async fn at_the_budget_the_largest_topic_loses_its_oldest_messages() {
    let setup = setup(MIB, WhenFull::TrimLargest);
    for _ in 0..100 {
        setup.append(message("small", vec![b'1'; 100])).await.unwrap();
    }
    let mut appended = Vec::new();
    for _ in 0..20_000 {
        appended.push(setup.append(message("large", vec![b'1'; 100])).await.unwrap().id);
        assert!(setup.memory.bytes() <= MIB);
    }
    assert_eq!(setup.length("small").await, 100, "the smaller topic is untouched");
    let state = setup.memory.describe(&topic("large")).await.unwrap();
    let range = Range {
        order: Order::Asc,
        after: None,
        gap_check: GapCheck::None,
        limit: 100_000,
        bytes_max: usize::MAX,
    };
    let read = setup.memory.read(&topic("large"), range).await.unwrap().messages;
    let kept: Vec<MessageId> = read.iter().map(|message| message.id).collect();
    assert_eq!(kept.len() as u64, state.length);
    assert!(appended.ends_with(&kept), "what is kept is the newest, without a hole");
    assert!((5_000..8_000).contains(&state.length), "the budget is used: {}", state.length);
    let counted = TopicsStats { total_topics: 2, total_messages: 100 + state.length };
    assert_eq!(setup.memory.stats().await.unwrap(), counted);
}

#[tokio::test]
async fn at_the_budget_equal_topics_share_the_loss() {
    let setup = setup(4 * MIB, WhenFull::TrimLargest);
    for round in 0..40 {
        for number in 0..1_000 {
            setup.append(message(&format!("t{number}"), vec![b'1'; 200])).await.unwrap();
            assert!(setup.memory.bytes() <= 4 * MIB, "round {round}");
        }
    }
    for number in 0..1_000 {
        let length = setup.length(&format!("t{number}")).await;
        assert!((2..40).contains(&length), "{length} messages are left of topic {number}");
    }
}

#[tokio::test]
async fn at_the_budget_an_append_is_refused_without_effect() {
    let setup = setup(MIB, WhenFull::Refuse);
    let mut accepted = 0;
    let refusal = loop {
        match setup.append(message("t", vec![b'1'; 1_000])).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, StorageError::Full(_)), "{refusal:?}");
    assert!((800..1_050).contains(&accepted), "{accepted}");
    assert!(setup.memory.bytes() <= MIB);
    assert!(matches!(setup.append(message("new", vec![b'1'; 300_000])).await, Err(StorageError::Full(_))));
    assert!(matches!(setup.memory.describe(&topic("new")).await, Err(StorageError::NoTopic)));
    assert_eq!(setup.length("t").await, accepted);

    setup.memory.trim(&topic("t"), Trim::Keep(10)).await.unwrap();
    setup.append(message("t", vec![b'1'; 1_000])).await.unwrap();
}

#[tokio::test]
async fn a_message_larger_than_the_budget_costs_no_other_message() {
    let setup = setup(MIB, WhenFull::TrimLargest);
    setup.append(message("t", "1")).await.unwrap();
    assert!(matches!(setup.append(message("t", vec![b'1'; 1024 * 1024])).await, Err(StorageError::Full(_))));
    assert_eq!(setup.length("t").await, 1);
    // One that just fits in the place of the other displaces it.
    let largest = usize::try_from(MIB - setup.memory.bytes()).unwrap() + 1;
    setup.append(message("t", vec![b'1'; largest])).await.unwrap();
    assert_eq!((setup.length("t").await, setup.memory.bytes()), (1, MIB));
}

#[tokio::test]
async fn what_a_group_has_not_acknowledged_and_what_is_not_to_be_dropped_give_way_last() {
    let setup = setup(2 * MIB, WhenFull::TrimLargest);
    let refuses = TopicUpdate {
        when_full: Some(tidemill_proto::topics::WhenFull::Refuse),
        max_messages: Some(1_000),
        ..TopicUpdate::default()
    };
    setup.memory.create(&topic("refuses"), refuses, None).await.unwrap();
    let fill = async |name: &str, count: usize| {
        for _ in 0..count {
            setup.append(message(name, vec![b'1'; 1_000])).await.unwrap();
        }
    };
    fill("held", 600).await;
    fill("refuses", 600).await;
    let group = GroupName::parse("workers").unwrap();
    let settings = group_defaults(&topic("held"), &group);
    setup
        .memory
        .put_group(&topic("held"), &group, &settings, GroupStart::Earliest, Existing::Replace)
        .await
        .unwrap();
    fill("free", 3_000).await;
    assert_eq!((setup.length("held").await, setup.length("refuses").await), (600, 600));
    assert!(setup.length("free").await < 900);
    // Where nothing else is left, the budget wins, and the group is told.
    fill("held", 3_000).await;
    let kept = setup.length("held").await;
    assert!(kept < 2_000 && setup.memory.bytes() <= 2 * MIB, "{kept}");
    let told = setup.memory.group(&topic("held"), &group).await.unwrap();
    assert_eq!((told.gone, told.waiting), (3_600 - kept, Some(kept)));
}

#[tokio::test]
async fn topics_count_against_the_budget() {
    let setup = setup(MIB, WhenFull::TrimLargest);
    let described = TopicUpdate {
        description: Some("x".repeat(4_096)),
        retention_seconds: None,
        ..TopicUpdate::default()
    };
    let mut topics = 0;
    while setup.memory.create(&topic(&format!("t{topics}")), described.clone(), None).await.is_ok() {
        topics += 1;
    }
    assert!((200..256).contains(&topics), "{topics}");
    for number in 0..topics {
        setup.memory.delete(&topic(&format!("t{number}"))).await.unwrap();
    }
    assert_eq!(setup.memory.bytes(), 0, "everything is given back");
}

fn keyed(name: &str, key: usize) -> NewMessage {
    let key = format!("key {key}").into();
    NewMessage { idempotency: Some(Idempotency { key, fingerprint: [0; 16] }), ..message(name, "1") }
}

#[tokio::test]
async fn no_number_of_keys_takes_the_place_of_a_message() {
    let setup = setup(MIB, WhenFull::TrimLargest);
    for _ in 0..3_000 {
        setup.append(message("victim", vec![b'1'; 100])).await.unwrap();
    }
    // One message is kept, so that keys alone take room.
    let short = |key| NewMessage { policy: TopicPolicy::newest(1), ..keyed("attacker", key) };
    let mut keys = 0;
    let refusal = loop {
        match setup.append(short(keys)).await {
            Ok(_) => keys += 1,
            Err(error) => break error,
        }
        assert!(setup.memory.keys_bytes() <= MIB);
    };
    assert!(matches!(refusal, StorageError::KeysFull(_)), "{refusal:?}");
    assert!((2_000..10_000).contains(&keys), "{keys}");
    assert_eq!(setup.length("victim").await, 3_000);
    let refused_first = setup.append(keyed("new", 0)).await;
    assert!(matches!(refused_first, Err(StorageError::KeysFull(_))), "{refused_first:?}");
    assert!(matches!(setup.memory.describe(&topic("new")).await, Err(StorageError::NoTopic)));

    assert!(setup.append(short(0)).await.unwrap().replayed, "what is remembered is answered");
    setup.append(message("new", "1")).await.expect("without a key there is room");
    setup.append(keyed("victim", 0)).await.expect_err("the bound is that of all topics");

    setup.memory.delete(&topic("attacker")).await.unwrap();
    assert_eq!(setup.memory.keys_bytes(), 0, "keys go with their topic");
    setup.append(keyed("victim", 0)).await.expect("there is room again");
}

#[tokio::test]
async fn keys_that_have_ended_make_room_wherever_they_lie() {
    let setup = setup(64 * MIB, WhenFull::Refuse);
    let mut keys = 0;
    while setup.append(keyed(&format!("t{}", keys % 100), keys)).await.is_ok() {
        keys += 1;
    }
    assert!(keys > 1_000, "{keys}");
    setup.clock.set(START.saturating_add(Duration::from_mins(10)));
    for key in 0..keys {
        setup.append(keyed("late", key)).await.expect("the others have ended");
    }
    setup.clock.set(START.saturating_add(Duration::from_mins(20)));
    assert_eq!(setup.memory.sweep().await.unwrap().topics, 101);
    assert_eq!(setup.memory.keys_bytes(), 0, "a sweep forgets all that have ended");
}

#[tokio::test]
async fn trims_that_empty_and_deletes_give_every_byte_back() {
    let setup = setup(64 * MIB, WhenFull::Refuse);
    setup.memory.create(&topic("t"), TopicUpdate::default(), None).await.unwrap();
    let empty = setup.memory.bytes();
    for number in 0..5_000_u32 {
        setup.append(message("t", vec![b'1'; number as usize % 700])).await.unwrap();
    }
    assert_eq!(setup.memory.trim(&topic("t"), Trim::Keep(1_234)).await.unwrap(), 5_000 - 1_234);
    assert_eq!(setup.read("t", Order::Asc, None).await.messages.len(), 1_000);
    assert_eq!(setup.memory.trim(&topic("t"), Trim::Keep(0)).await.unwrap(), 1_234);
    assert_eq!(setup.memory.bytes(), empty);
}

#[tokio::test]
async fn a_short_topic_keeps_exactly_its_newest_messages_and_little_memory() {
    let setup = setup(64 * MIB, WhenFull::Refuse);
    let mut ids = Vec::new();
    for _ in 0..10_000 {
        let short = NewMessage { policy: TopicPolicy::newest(10), ..message("t", vec![b'1'; 1_000]) };
        ids.push(setup.append(short).await.unwrap().id);
    }
    let read = setup.read("t", Order::Asc, None).await;
    assert_eq!(read.messages.iter().map(|message| message.id).collect::<Vec<_>>(), ids[9_990..]);
    assert!(setup.memory.bytes() < 50_000, "{}", setup.memory.bytes());
}

#[tokio::test]
async fn a_topic_bounded_in_bytes_keeps_its_newest_messages_and_little_more() {
    let setup = setup(64 * MIB, WhenFull::Refuse);
    let mut ids = Vec::new();
    let policy = TopicPolicy { bytes: Some(MIB), ..TopicPolicy::newest(100_000_000) };
    for _ in 0..10_000 {
        let bounded = NewMessage { policy, ..message("t", vec![b'1'; 1_000]) };
        ids.push(setup.append(bounded).await.unwrap().id);
    }
    let kept = usize::try_from(setup.length("t").await).unwrap();
    // A message weighs 1,048 bytes, and goes with its segment of up to 64 KiB.
    assert!((1_000..1_200).contains(&kept), "{kept}");
    let read = setup.read("t", Order::Asc, None).await;
    assert_eq!(read.messages[0].id, ids[10_000 - kept]);
    assert!(setup.memory.bytes() < MIB + 200_000, "{}", setup.memory.bytes());

    let tiny = TopicPolicy { bytes: Some(1), ..policy };
    let last = setup.append(NewMessage { policy: tiny, ..message("t", "1") }).await.unwrap().id;
    let read = setup.read("t", Order::Desc, None).await;
    assert_eq!(read.messages[0].id, last, "the newest stays");
    assert!(read.messages.len() < 100, "{}", read.messages.len());
}

#[tokio::test]
async fn a_topic_bounded_in_age_keeps_none_that_is_older() {
    let setup = setup(MIB, WhenFull::Refuse);
    let minute = TopicPolicy { age: Some(Duration::from_mins(1)), ..TopicPolicy::newest(100) };
    for seconds in [0, 30, 60, 61, 90, 200] {
        setup.clock.set(START.saturating_add(Duration::from_secs(seconds)));
        setup.append(NewMessage { policy: minute, ..message("t", "1") }).await.unwrap();
        let read = setup.read("t", Order::Asc, None).await;
        let ages: Vec<u64> =
            read.messages.iter().map(|kept| (setup.clock.now().as_millis() - kept.id.ms) / 1_000).collect();
        let expected: &[u64] = match seconds {
            30 => &[30, 0],
            60 => &[60, 30, 0],
            61 => &[31, 1, 0],
            90 => &[60, 30, 29, 0],
            _ => &[0],
        };
        assert_eq!(ages, expected, "{seconds}");
    }
}

#[tokio::test]
async fn a_read_stops_inside_a_long_run_of_expired_messages() {
    let setup = setup(64 * MIB, WhenFull::Refuse);
    let mut expiring = message("t", "1");
    expiring.expires_at = Some(START.saturating_add(Duration::from_secs(1)));
    let run = EXPIRED_PER_READ_MAX + 10;
    for _ in 0..run {
        setup.append(expiring.clone()).await.unwrap();
    }
    let last = setup.append(message("t", "2")).await.unwrap().id;
    assert_eq!(setup.read("t", Order::Asc, None).await.messages.len(), 1_000);

    setup.clock.set(START.saturating_add(Duration::from_secs(1)));
    let first = setup.read("t", Order::Asc, None).await;
    assert!(first.messages.is_empty());
    let second = setup.read("t", Order::Asc, first.next).await;
    assert_eq!(second.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [last]);
    assert_eq!(setup.length("t").await, run as u64 + 1, "expired messages count until they are removed");
}

#[tokio::test]
async fn stored_bodies_do_not_keep_the_request_alive() {
    let setup = setup(MIB, WhenFull::Refuse);
    let request = Bytes::from(vec![b'1'; 100_000]);
    setup.append(message("t", request.slice(..10))).await.unwrap();
    assert!(request.is_unique());
}

#[tokio::test]
async fn a_sweep_removes_by_age_and_a_topics_own_retention_wins() {
    let clock = Clock::manual(START);
    let limits = StorageLimits {
        retention: Some(Duration::from_mins(1)),
        topics_max: 1_000,
        idempotency_window: Duration::from_mins(10),
        schedules_max: 100_000,
        topic_schedules_max: 100_000,
        buckets_max: 100_000,
    };
    let options = MemoryOptions {
        limits,
        bytes_max: MIB,
        keys_bytes_max: MIB,
        when_full: WhenFull::Refuse,
        clock: clock.clone(),
    };
    let setup = Setup { memory: Memory::new(options), clock };
    let hour = TopicUpdate { description: None, retention_seconds: Some(3_600), ..TopicUpdate::default() };
    setup.memory.create(&topic("hour"), hour, None).await.unwrap();
    for _ in 0..3 {
        setup.append(message("minute", "1")).await.unwrap();
        setup.append(message("hour", "1")).await.unwrap();
    }
    for (seconds, minute, hour) in [(60, 3, 3), (61, 0, 3), (3_600, 0, 3), (3_601, 0, 0)] {
        setup.clock.set(START.saturating_add(Duration::from_secs(seconds)));
        assert_eq!(setup.memory.sweep().await.unwrap().topics, 2);
        assert_eq!((setup.length("minute").await, setup.length("hour").await), (minute, hour), "{seconds}");
    }
}

/// The resident memory of this process.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_message_costs_at_most_120_bytes_beyond_its_body() {
    const MESSAGES: u64 = 1_000_000;
    const BODY_BYTES: u64 = 100;
    let setup = setup(1_024 * MIB, WhenFull::Refuse);
    let resident_before = resident_bytes();
    for _ in 0..MESSAGES / 1_000 {
        let batch = (0..1_000).map(|_| message("t", vec![b'1'; 100])).collect();
        assert!(setup.memory.append(batch).await.iter().all(Result::is_ok));
    }
    let resident = (resident_bytes() - resident_before) / MESSAGES;
    let accounted = setup.memory.bytes() / MESSAGES;
    eprintln!("a message of {BODY_BYTES} bytes: {accounted} accounted, {resident} resident");
    assert!(accounted <= BODY_BYTES + 60, "{accounted}");
    assert!(resident <= BODY_BYTES + 120, "{resident}");
}

#[tokio::test]
async fn many_small_topics_stay_small() {
    let setup = setup(256 * MIB, WhenFull::Refuse);
    for number in 0..10_000 {
        setup.append(message(&format!("topic-{number}"), vec![b'1'; 100])).await.unwrap();
    }
    let each = setup.memory.bytes() / 10_000;
    assert!(each < 1_000, "a topic with a message of 100 bytes holds {each}");
}
