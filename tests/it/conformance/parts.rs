//! Indexes in parts, as a cluster has them: that nobody notices.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{Delivery, SeriesName, TopicName};
use tidemill::storage::{Point, Selection, Storage, StorageError, StorageLimits};

use super::buckets::{bucket_of, make, put_for};
use super::schedules::{Never, later, schedule};
use crate::support::ground::{
    Ground, LIMITS, POLICY, append, append_all, append_numbers, json, message, topic,
};

const PARTS: usize = 16;
const MINUTE: Duration = Duration::from_mins(1);

/// Returns the keys of the parts of an index that name something, in the order of the parts.
async fn parts_of(ground: &Ground, index: &str) -> Vec<String> {
    let found = ground.server().command(&["KEYS", &format!("tidemill:{index}*")]).await;
    let keys: BTreeSet<String> = found.array().iter().map(crate::support::resp::Reply::text).collect();
    // The number of a part stands in front in its tag.
    let prefix = format!("tidemill:{index}:{{");
    assert!(keys.iter().all(|key| key.starts_with(&prefix)), "{keys:?}");
    keys.into_iter().collect()
}

async fn counts(ground: &Ground, keys: &[String]) -> Vec<i64> {
    let mut counts = Vec::new();
    for key in keys {
        counts.push(ground.server().command(&["ZCARD", key]).await.integer());
    }
    counts
}

/// Appends a message to each of so many topics, and returns their names in order.
async fn topics(storage: &Storage, count: usize) -> Vec<TopicName> {
    let mut topics: Vec<TopicName> = (0..count).map(|number| topic(&format!("n.{number}"))).collect();
    append_all(storage, topics.iter().map(|topic| message(topic, json("1"))).collect()).await;
    topics.sort_unstable();
    topics
}

pub(super) async fn topics_of_all_parts_are_listed_in_order_page_by_page(ground: &Ground) {
    let storage = &ground.storage;
    let sorted = topics(storage, 1_000).await;
    let parts = parts_of(ground, "topics").await;
    let had = counts(ground, &parts).await;
    assert_eq!((had.len(), had.iter().sum::<i64>()), (PARTS, 1_000));
    assert!(had.iter().all(|count| (30..=100).contains(count)), "{had:?}");
    // In one part there is much that is no name.
    for number in 0..600 {
        ground.server().command(&["ZADD", &parts[7], "0", &format!("n.5 {number:03}")]).await;
    }
    for limit in [1, 7, 100, 999, 1_000, 5_000] {
        // The smallest pages are many, so of these a few.
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < limit * 20 {
            let page = storage.topics.names("", after.as_ref(), limit).await.unwrap();
            let is_last = page.len() < limit;
            after = page.last().cloned();
            found.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(found, sorted[..(limit * 20).min(1_000)], "{limit}");
    }
    let of = |prefix: &str| -> Vec<TopicName> {
        sorted.iter().filter(|name| name.as_str().starts_with(prefix)).cloned().collect()
    };
    for prefix in ["n.", "n.5", "n.99", "n.999", "m", "o"] {
        assert_eq!(storage.topics.names(prefix, None, 1_000).await.unwrap(), of(prefix), "{prefix}");
    }
    let behind = storage.topics.names("n.5", Some(&topic("n.55")), 3).await.unwrap();
    assert_eq!(behind, ["n.550", "n.551", "n.552"].map(topic));
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = storage.topics.list(Selection::default(), after.as_ref(), 300).await.unwrap();
        listed.extend(page.topics.into_iter().map(|topic| topic.topic_name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, sorted);
    let stats = storage.topics.stats().await.unwrap();
    assert_eq!((stats.total_topics, stats.total_messages), (1_000, 1_000));
    // What is deleted is taken out of its part; what the limit counts is all parts together.
    for name in &sorted[..10] {
        storage.topics.delete(name).await.unwrap();
    }
    assert_eq!(storage.topics.names("", None, 3).await.unwrap(), sorted[10..13]);
    let full = ground.under(StorageLimits { topics_max: 1_591, ..LIMITS }).await;
    full.topics.create(&sorted[0], TopicUpdate::default(), None).await.unwrap();
    let refused = full.topics.create(&sorted[1], TopicUpdate::default(), None).await;
    assert!(matches!(refused, Err(StorageError::TopicsLimit)), "{refused:?}");
}

pub(super) async fn a_part_of_another_program_is_named_and_topics_go_on(ground: &Ground) {
    let storage = &ground.storage;
    let sorted = topics(storage, 100).await;
    let parts = parts_of(ground, "topics").await;
    assert_eq!(parts.len(), PARTS);
    let key = &parts[11];
    ground.server().command(&["DEL", key]).await;
    ground.server().command(&["SET", key, "theirs"]).await;
    let is_named = |error: Option<StorageError>| {
        assert!(matches!(&error, Some(StorageError::ForeignKey(named)) if **named == **key), "{error:?}");
    };
    is_named(storage.topics.list(Selection::default(), None, 10).await.err());
    is_named(storage.topics.names("", None, 10).await.err());
    is_named(storage.topics.stats().await.err());
    let new = topic("new");
    is_named(storage.topics.create(&new, TopicUpdate::default(), None).await.err());
    is_named(append(storage, message(&new, json("1"))).await.err());
    for topic in &sorted {
        append_numbers(storage, topic, 1).await;
        assert_eq!(storage.topics.describe(topic).await.unwrap().length, 2);
    }
    assert_eq!(ground.server().command(&["GET", key]).await.text(), "theirs");
    ground.server().command(&["DEL", key]).await;
    append_numbers(storage, &new, 1).await;
}

pub(super) async fn what_is_due_in_all_parts_is_told_by_when_it_is(ground: &Ground) {
    let storage = &ground.storage;
    let names: Vec<TopicName> = (0..100).map(|number| topic(&format!("later-{number}"))).collect();
    // The later in the name the sooner, and of each one that comes much later.
    for (name, minutes) in names.iter().rev().zip(1..) {
        for delay in [MINUTE * (1_000 + minutes), MINUTE * minutes] {
            schedule(storage, later(name, json("1"), Delivery::After(delay))).await.unwrap();
        }
    }
    assert_eq!(parts_of(ground, "schedules").await.len(), PARTS);
    let told = async |within, limit| -> Vec<TopicName> {
        let told = storage.schedules.due_within(within, limit).await.unwrap();
        told.into_iter().map(|(topic, _)| topic).collect()
    };
    let soonest: Vec<TopicName> = names.iter().rev().cloned().collect();
    assert_eq!(told(MINUTE * 500, 1_000).await, soonest);
    assert_eq!(told(MINUTE * 500, 7).await, soonest[..7]);
    assert_eq!(told(MINUTE * 50, 1_000).await, soonest[..50]);
    assert_eq!(told(Duration::from_secs(30), 1_000).await, []);
    assert_eq!(storage.schedules.count_waiting().await.unwrap(), 200);
    // Whoever looks in vain says what comes next, and whoever has nothing more is told of no more.
    for index in [0, 1] {
        let waits = super::schedules::waiting(storage, &soonest[index]).await;
        for one in &waits[..=index] {
            assert!(storage.schedules.cancel(&soonest[index], &one.id).await.unwrap());
        }
    }
    let looked = storage.schedules.promote(&soonest[..2], POLICY, &Never).await;
    assert!(looked.iter().all(Result::is_ok), "{looked:?}");
    assert_eq!(told(MINUTE * 500, 1_000).await, soonest[2..]);
    assert_eq!(told(MINUTE * 2_000, 1_000).await.len(), 99);
    let key = &parts_of(ground, "schedules").await[3];
    ground.server().command(&["DEL", key]).await;
    ground.server().command(&["SET", key, "theirs"]).await;
    for refused in [
        storage.schedules.due_within(MINUTE, 10).await.map(drop),
        storage.schedules.count_waiting().await.map(drop),
    ] {
        assert!(matches!(&refused, Err(StorageError::ForeignKey(of)) if **of == **key), "{refused:?}");
    }
}

pub(super) async fn buckets_and_series_of_all_parts_are_named_in_order(ground: &Ground) {
    let storage = &ground.storage;
    let mut names: Vec<String> = (0..100).map(|number| format!("b.{number}")).collect();
    for (name, minutes) in names.iter().zip(1..) {
        make(storage, &bucket_of(name), vec![put_for("a", "1", MINUTE * minutes)]).await;
        let series = SeriesName::parse(name).unwrap();
        storage.series.add_points(&series, &[Point::new(1.0, 1, None).unwrap()]).await.unwrap();
    }
    for index in ["buckets", "expiring"] {
        let parts = parts_of(ground, index).await;
        assert_eq!((parts.len(), counts(ground, &parts).await.iter().sum::<i64>()), (PARTS, 100), "{index}");
    }
    let expiring = storage.buckets.expiring_within(MINUTE * 20, 1_000).await.unwrap();
    let expiring: Vec<String> = expiring.iter().map(|(bucket, _)| bucket.to_string()).collect();
    assert_eq!(expiring, names[..20]);
    names.sort_unstable();
    for limit in [1, 9, 100, 1_000] {
        for (after, rest) in [(None, &names[..]), (Some(&names[40]), &names[41..])] {
            let rest = &rest[..limit.min(rest.len())];
            let after_bucket = after.map(|name| bucket_of(name));
            let found = storage.buckets.bucket_names(after_bucket.as_ref(), limit).await.unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), rest, "{limit}");
            let after_series = after.map(|name| SeriesName::parse(name).unwrap());
            let found = storage.series.series_names("b.", after_series.as_ref(), limit).await.unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), rest, "{limit}");
        }
    }
    for name in &names {
        storage.buckets.delete_bucket(&bucket_of(name)).await.unwrap();
        storage.series.delete_series(&SeriesName::parse(name).unwrap()).await.unwrap();
    }
    for index in ["buckets", "expiring"] {
        assert_eq!(parts_of(ground, index).await, [""; 0]);
    }
    assert_eq!(storage.series.series_names("", None, 10).await.unwrap(), []);
}

pub(super) async fn a_sweep_mends_each_part(ground: &Ground) {
    let storage = &ground.storage;
    let sorted = topics(storage, 200).await;
    for (name, minutes) in sorted.iter().zip(1..) {
        schedule(storage, later(name, json("1"), Delivery::After(MINUTE * minutes))).await.unwrap();
        make(storage, &bucket_of(name.as_str()), vec![put_for("a", "1", MINUTE * minutes)]).await;
    }
    let gone = &sorted[..100];
    let mut parts = Vec::new();
    for index in ["topics", "schedules", "buckets", "expiring"] {
        parts.push(parts_of(ground, index).await);
        assert_eq!(parts.last().map(Vec::len), Some(PARTS), "{index}");
    }
    // The streams of half of the topics go, and the odd parts of all indexes.
    for name in gone {
        ground.server().command(&["DEL", &format!("stream:topic:{{{name}}}")]).await;
    }
    for key in parts.iter().flat_map(|parts| parts.iter().skip(1).step_by(2)) {
        ground.server().command(&["DEL", key]).await;
    }
    crate::support::eventually(crate::support::ground::SOON, async || {
        storage.upkeep.sweep().await.unwrap();
        let names = storage.topics.names("", None, 1_000).await.unwrap();
        let buckets = storage.buckets.bucket_names(None, 1_000).await.unwrap();
        let expiring = storage.buckets.expiring_within(MINUTE * 1_000, 1_000).await.unwrap();
        names == sorted[100..] && (buckets.len(), expiring.len()) == (200, 200)
    })
    .await;
    let topics = &parts[0];
    assert_eq!(counts(ground, topics).await.iter().sum::<i64>(), 100, "no name is left of what is gone");
    let due = storage.schedules.due_within(MINUTE * 1_000, 1_000).await.unwrap();
    let due: BTreeSet<TopicName> = due.into_iter().map(|(topic, _)| topic).collect();
    assert!(sorted[100..].iter().all(|topic| due.contains(topic)), "{due:?}");
}
