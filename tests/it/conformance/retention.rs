//! What a topic keeps: by its own words, by those of appends where it says nothing, and for groups beyond that.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::proto::topics::{TopicUpdate, WhenFull};
use tidemill::proto::work::{ConsumerName, GroupName};
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{
    Claim, Existing, GroupStart, HELD_TIMES, NewMessage, Part, Settlement, Storage, TopicChange, TopicPolicy,
    Verdict, group_defaults,
};

use tokio::time::{Instant, sleep};

use crate::support::ground::{
    Ground, LIMITS, POLICY, SOON, append, append_all, append_numbers, append_numbers_under, ids, json,
    length, message, read_all,
};

/// How many more messages there may be than a topic keeps: those between two trims, in one batch, and a node.
const LATE: u64 = 97 + 100 + 100;

fn keeps(max_messages: Option<u64>, max_bytes: Option<u64>) -> TopicChange {
    TopicUpdate { max_messages, max_bytes, ..TopicUpdate::default() }.into()
}

fn group() -> GroupName {
    GroupName::parse("workers").expect("a name")
}

/// Appends as many, a hundred at a time.
async fn append_under(policy: TopicPolicy, storage: &Storage, topic: &TopicName, hundreds: usize) {
    for _ in 0..hundreds {
        append_numbers_under(policy, storage, topic, 100).await;
    }
}

async fn make_group(storage: &Storage, topic: &TopicName) {
    let settings = group_defaults(topic, &group());
    storage
        .work
        .put_group(topic, &group(), &settings, GroupStart::Earliest, Existing::Replace)
        .await
        .expect("a group");
}

async fn first_of(storage: &Storage, topic: &TopicName) -> MessageId {
    storage.topics.describe(topic).await.unwrap().first_id.expect("it has messages")
}

pub(super) async fn what_a_topic_says_itself_wins_over_what_appends_say(ground: &Ground) {
    let storage = &ground.storage;
    let (short, long) = (ground.topic(), ground.topic());
    let about = TopicUpdate { max_messages: Some(200), ..TopicUpdate::default() };
    let made = storage.topics.create(&short, about, None).await.unwrap();
    assert_eq!(made.max_messages, Some(200));
    append_numbers(storage, &long, 1).await;
    let changed = storage.topics.update(&long, keeps(Some(5_000), None)).await.unwrap();
    assert_eq!((changed.max_messages, changed.max_bytes), (Some(5_000), None));
    append_under(POLICY, storage, &short, 20).await;
    append_under(TopicPolicy::newest(50), storage, &long, 20).await;
    let kept = length(storage, &short).await;
    assert!((200..=200 + LATE).contains(&kept), "{kept}");
    assert_eq!(length(storage, &long).await, 2_001);
    // Where it says nothing any more, what comes with appends holds.
    storage.topics.update(&long, keeps(None, None)).await.unwrap();
    append_under(TopicPolicy::newest(50), storage, &long, 3).await;
    let kept = length(storage, &long).await;
    assert!((50..=50 + LATE).contains(&kept), "{kept}");
}

pub(super) async fn a_part_of_a_description_is_changed_alone(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let about = TopicUpdate {
        description: Some("d".to_owned()),
        retention_seconds: Some(60),
        max_messages: Some(7),
        max_bytes: Some(8),
        when_full: Some(WhenFull::Refuse),
        keep_until_acked: Some(true),
        idle_seconds: Some(9),
        compact_by: Some("k".to_owned()),
    };
    storage.topics.create(&topic, about.clone(), None).await.unwrap();
    let told = async |change| {
        let topic = storage.topics.update(&topic, change).await.unwrap();
        let described = storage.topics.describe(&topic.topic_name).await.unwrap().topic;
        assert_eq!(described, topic);
        TopicUpdate {
            description: topic.description,
            retention_seconds: topic.retention_seconds,
            max_messages: topic.max_messages,
            max_bytes: topic.max_bytes,
            when_full: Some(topic.when_full),
            keep_until_acked: Some(topic.keep_until_acked),
            idle_seconds: topic.idle_seconds,
            compact_by: topic.compact_by,
        }
    };
    assert_eq!(told(TopicChange::default()).await, about);
    let change = TopicChange { max_bytes: Part::Set(Some(9)), ..TopicChange::default() };
    assert_eq!(told(change).await, TopicUpdate { max_bytes: Some(9), ..about.clone() });
    let change =
        TopicChange { description: Part::Set(None), max_messages: Part::Set(None), ..TopicChange::default() };
    let left = TopicUpdate { description: None, max_messages: None, max_bytes: Some(9), ..about };
    assert_eq!(told(change).await, left);
    let none = TopicUpdate {
        when_full: Some(WhenFull::DropOld),
        keep_until_acked: Some(false),
        ..TopicUpdate::default()
    };
    assert_eq!(told(TopicUpdate::default().into()).await, none);
}

pub(super) async fn bytes_bound_a_topic_about(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let about = TopicUpdate { max_bytes: Some(200_000), ..TopicUpdate::default() };
    storage.topics.create(&topic, about, None).await.unwrap();
    let body = json(format!("\"{}\"", "x".repeat(1_000)));
    for _ in 0..20 {
        append_all(storage, vec![message(&topic, body.clone()); 100]).await;
    }
    let kept = length(storage, &topic).await;
    assert!((100..=200 + LATE).contains(&kept), "some 200 messages of a thousand bytes: {kept}");
}

pub(super) async fn what_a_group_has_not_acknowledged_is_held_back_up_to_a_bound(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let first = append_numbers(storage, &topic, 10).await;
    make_group(storage, &topic).await;
    let policy = TopicPolicy::newest(200);
    append_under(policy, storage, &topic, 15).await;
    assert_eq!(length(storage, &topic).await, 1_510, "nobody has got any");
    // What is with a consumer is held, and what it has acknowledged is not.
    let claim = |max| Claim {
        topic: topic.clone(),
        group: group(),
        consumer: ConsumerName::parse("c").expect("a name"),
        max,
        bytes_max: usize::MAX >> 1,
        claim_id: None,
    };
    let mut held = Vec::new();
    let mut epoch = 0;
    while held.len() < 1_000 {
        let claimed = storage.work.claim(vec![claim(100)]).await.pop().unwrap().unwrap();
        epoch = claimed.epoch;
        held.extend(claimed.deliveries);
    }
    append_under(policy, storage, &topic, 2).await;
    assert_eq!(first_of(storage, &topic).await, first[0]);
    let settle = async |deliveries: &[tidemill::storage::Delivery]| {
        for deliveries in deliveries.chunks(100) {
            let settlement = |of: &tidemill::storage::Delivery| Settlement {
                epoch,
                id: of.message.id,
                delivery: of.delivery,
                verdict: Verdict::Ack(None),
            };
            storage.work.settle(&topic, &group(), deliveries.iter().map(settlement).collect()).await.unwrap();
        }
    };
    settle(&held[..500]).await;
    append_under(policy, storage, &topic, 3).await;
    let oldest = first_of(storage, &topic).await;
    assert!(oldest > first[0] && oldest <= held[500].message.id, "{oldest}");
    settle(&held[500..]).await;
    append_under(policy, storage, &topic, 1).await;
    let oldest = first_of(storage, &topic).await;
    assert!(oldest > held[500].message.id && oldest <= held[999].message.id.next().unwrap(), "{oldest}");
    // One that is left alone does not fill the storage.
    append_under(policy, storage, &topic, 30).await;
    let kept = length(storage, &topic).await;
    let most = 200 * HELD_TIMES[0];
    assert!((most..=most + LATE).contains(&kept), "{kept}");
    let kept = ids(&read_all(storage, &topic, Order::Asc, 1_000).await);
    assert!(kept.is_sorted());
}

pub(super) async fn a_sweep_removes_what_a_topic_does_not_keep_any_more(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 1_000).await;
    storage.topics.update(&topic, keeps(Some(100), None)).await.unwrap();
    storage.upkeep.sweep().await.unwrap();
    let kept = length(storage, &topic).await;
    assert!((100..=200).contains(&kept), "{kept}");
}

pub(super) async fn age_takes_what_a_group_has_not_acknowledged_later(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 10).await;
    make_group(storage, &topic).await;
    let about = TopicUpdate { retention_seconds: Some(2), ..TopicUpdate::default() };
    storage.topics.update(&topic, about.into()).await.unwrap();
    let since = Instant::now();
    let mut seen = BTreeSet::new();
    while length(storage, &topic).await > 0 {
        assert!(since.elapsed() < SOON, "it is never removed");
        storage.upkeep.sweep().await.unwrap();
        seen.insert((since.elapsed().as_millis() / 500, length(storage, &topic).await));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(since.elapsed() >= Duration::from_millis(3_500), "{seen:?}");
    assert_eq!(storage.work.group(&topic, &group()).await.unwrap().gone, 10);
}

/// A node that has never heard of a topic's own words, or of a group, trims by them all the same.
#[cfg(feature = "valkey")]
pub(super) async fn a_node_with_a_stale_policy_takes_nothing_from_what_others_hold(ground: &Ground) {
    let (here, there) = (&ground.storage, ground.under(LIMITS).await);
    let stale = TopicPolicy::newest(10);
    let (own, held) = (ground.topic(), ground.topic());
    for topic in [&own, &held] {
        append_numbers_under(stale, &there, topic, 10).await;
    }
    here.topics.update(&own, keeps(Some(5_000), None)).await.unwrap();
    here.topics.update(&held, keeps(Some(100), None)).await.unwrap();
    make_group(here, &held).await;
    let first = first_of(here, &held).await;
    append_under(stale, &there, &own, 20).await;
    append_under(stale, &there, &held, 9).await;
    assert_eq!(length(here, &own).await, 2_010);
    assert_eq!((length(here, &held).await, first_of(here, &held).await), (910, first));
}

#[cfg(feature = "valkey")]
pub(super) async fn a_topic_that_many_nodes_append_to_is_trimmed(ground: &Ground) {
    let topic = ground.topic();
    let mut nodes = Vec::new();
    for _ in 0..16 {
        nodes.push(ground.under(LIMITS).await);
    }
    // No node appends as many as there are between two trims of one.
    for _ in 0..60 {
        for node in &nodes {
            let new = NewMessage { policy: TopicPolicy::newest(100), ..message(&topic, json("1")) };
            append(node, new).await.unwrap();
        }
    }
    let kept = length(&ground.storage, &topic).await;
    assert!((100..900).contains(&kept), "of 960 messages: {kept}");
}

#[cfg(feature = "valkey")]
pub(super) async fn a_group_of_another_producer_holds_back_too(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let first = append_numbers(storage, &topic, 10).await;
    let key = format!("stream:topic:{topic}");
    ground.server().command(&["XGROUP", "CREATE", &key, "others", "0"]).await;
    ground
        .server()
        .command(&["XREADGROUP", "GROUP", "others", "c", "COUNT", "300", "STREAMS", &key, ">"])
        .await;
    append_under(TopicPolicy::newest(100), storage, &topic, 5).await;
    assert_eq!(first_of(storage, &topic).await, first[0], "all ten are with its consumer");
    let acknowledged: Vec<String> = first.iter().map(ToString::to_string).collect();
    let words: Vec<&str> =
        ["XACK", &key, "others"].into_iter().chain(acknowledged.iter().map(String::as_str)).collect();
    ground.server().command(&words).await;
    append_under(TopicPolicy::newest(100), storage, &topic, 3).await;
    // A node of the stream has a hundred entries: these ten do not go alone.
    let read = ["XREADGROUP", "GROUP", "others", "c", "NOACK", "COUNT", "300", "STREAMS", &key, ">"];
    ground.server().command(&read).await;
    append_under(TopicPolicy::newest(100), storage, &topic, 1).await;
    assert!(first_of(storage, &topic).await > first[9]);
}

/// What was kept for later is appended by a script of its own, by whichever node.
#[cfg(feature = "valkey")]
pub(super) async fn what_is_published_when_it_is_due_takes_nothing_from_what_is_held(ground: &Ground) {
    let (here, there) = (&ground.storage, ground.under(LIMITS).await);
    let stale = TopicPolicy::newest(10);
    let topic = ground.topic();
    append_numbers(here, &topic, 500).await;
    here.topics.update(&topic, keeps(Some(1_000), None)).await.unwrap();
    let later = |_| tidemill::storage::NewSchedule {
        message: message(&topic, json("1")),
        delivery: tidemill::proto::Delivery::After(Duration::ZERO),
        ttl: None,
    };
    for scheduled in here.schedules.schedule((0..100).map(later).collect()).await {
        scheduled.unwrap();
    }
    let promoted =
        there.schedules.promote(std::slice::from_ref(&topic), stale, &super::schedules::Never).await;
    assert_eq!(promoted[0].as_ref().unwrap().late.len(), 100);
    assert_eq!(length(here, &topic).await, 600);
}
