//! Publishing: at most one copy under a key, an honest word without one.

use std::cell::Cell;
use std::time::Duration;

use serde_json::value::RawValue;
use tidemill::proto::page::Order;
use tidemill::proto::work::{GroupName, GroupUpdate};
use tidemill::proto::{Code, IDEMPOTENCY_KEY_FIELD, OrderKey};
use tidemill::storage::Storage;
use tidemill_client::{ClientError, Encoding, LinkState, NewMessage, PublisherOptions};
use tokio_util::task::TaskTracker;

use super::{ENCODINGS, client, numbered, on_both_backends, publish_numbers};
use crate::support::eventually;
use crate::support::ground::{read_all, texts, topic};
use crate::support::proxy::{Flow, Proxy};
use crate::support::relay::{STUCK, TestRelay, memory_with};

on_both_backends!(
    lost_answers_and_cuts_make_no_copy_and_keep_the_order,
    without_a_key_a_lost_answer_is_told,
    refusals_are_told_by_message,
    every_kind_of_message_arrives_as_it_was,
    a_message_has_its_order_key_and_may_be_unique,
);

async fn stored(storage: &Storage, name: &str) -> Vec<String> {
    texts(&read_all(storage, &topic(name), Order::Asc, 1_000).await)
}

/// I5: the link swallows answers and is cut, again and again.
async fn lost_answers_and_cuts_make_no_copy_and_keep_the_order(storage: Storage) {
    const COUNT: usize = 3_000;
    let relay = TestRelay::start(storage.clone()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    for (name, encoding) in [("json", ENCODINGS[0]), ("binary", ENCODINGS[1])] {
        let publisher = client(proxy.port(), encoding).publisher(PublisherOptions::default()).await.unwrap();
        let tasks = TaskTracker::new();
        let publishing = tasks.spawn(publish_numbers(publisher, name, 0..COUNT));
        for share in 1..10 {
            eventually(STUCK, async || stored_count(&storage, name).await >= (COUNT / 10 * share) as u64)
                .await;
            proxy.swallow_replies_after(1_000);
            // The window fills with messages that are kept and not answered.
            let still = Cell::new((0, 0));
            eventually(STUCK, async || {
                let (count, looks) = (stored_count(&storage, name).await, still.get());
                still.set(if count == looks.0 { (count, looks.1 + 1) } else { (count, 0) });
                still.get().1 >= 5
            })
            .await;
            proxy.cut();
            proxy.heal();
        }
        publishing.await.expect("every publish is answered");
        let expected: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
        assert_eq!(stored(&storage, name).await, expected);
    }
    relay.stop().await;
}

async fn stored_count(storage: &Storage, name: &str) -> u64 {
    storage.topics.describe(&topic(name)).await.map_or(0, |topic| topic.length)
}

async fn without_a_key_a_lost_answer_is_told(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let options = PublisherOptions { make_keys: false, ..PublisherOptions::default() };
    let publisher = client(proxy.port(), Encoding::Json).publisher(options).await.unwrap();
    publisher.publish(numbered("t", 0)).await.unwrap().await.unwrap();
    proxy.swallow_replies_after(0);
    let lost = publisher.publish(numbered("t", 1)).await.unwrap();
    let keyed = publisher.publish(numbered("t", 2).with_key("k")).await.unwrap();
    eventually(STUCK, async || stored_count(&storage, "t").await == 3).await;
    proxy.cut();
    proxy.heal();
    assert_eq!(lost.await, Err(ClientError::Unknown));
    assert!(keyed.await.expect("it is sent again").replayed);
    // The publisher goes on.
    publisher.publish(numbered("t", 3)).await.unwrap().await.unwrap();
    assert_eq!(stored(&storage, "t").await, ["0", "1", "2", "3"]);
    publisher.close().await;
    relay.stop().await;
}

async fn refusals_are_told_by_message(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let publisher =
        client(relay.address.port(), Encoding::Binary).publisher(PublisherOptions::default()).await.unwrap();
    // Larger than a payload may be, and larger than a frame may be.
    for bytes in [1_100_000, 3_000_000] {
        let large = NewMessage::json(&topic("t"), &"x".repeat(bytes)).unwrap();
        let before = publisher.publish(numbered("t", 0)).await.unwrap();
        let large = publisher.publish(large).await.unwrap();
        let after = publisher.publish(numbered("t", 1)).await.unwrap();
        let Err(ClientError::Refused(refusal)) = large.await else { panic!("{bytes} are too many") };
        assert_eq!(refusal.code.as_str(), "too_large");
        before.await.expect("what came before is kept");
        after.await.expect("what comes after is kept");
    }
    assert_eq!(stored(&storage, "t").await, ["0", "1", "0", "1"]);
    let first = publisher.publish(numbered("t", 5).with_key("k")).await.unwrap().await.unwrap();
    let reused = publisher.publish(numbered("t", 6).with_key("k")).await.unwrap().await;
    let Err(ClientError::Refused(refusal)) = reused else { panic!("the key belongs to another message") };
    assert_eq!(refusal.code.as_str(), "key_reused");
    let again = publisher.publish(numbered("t", 5).with_key("k")).await.unwrap().await.unwrap();
    assert_eq!((again.message_id, again.replayed), (first.message_id, true));
    publisher.close().await;
    relay.stop().await;
}

async fn every_kind_of_message_arrives_as_it_was(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    for (name, encoding) in [("json", ENCODINGS[0]), ("binary", ENCODINGS[1])] {
        let client = client(relay.address.port(), encoding);
        let publisher = client.publisher(PublisherOptions::default()).await.unwrap();
        let payload = "{ \"b\":1.10,\"a\":\"\\u00e9é\",\n\"n\":123456789012345678901234567890 }";
        let message = NewMessage::raw_json(&topic(name), raw(payload))
            .with_metadata(raw(r#"{"k":"v"}"#))
            .with_ttl_seconds(1_000);
        publisher.publish(message).await.unwrap().await.unwrap();
        let bytes = NewMessage::bytes(&topic(name), &b"\0\xff"[..], "image/png");
        publisher.publish(bytes).await.unwrap().await.unwrap();
        let spaced = NewMessage::bytes(&topic(name), " [\r\n1]\n", "application/json");
        publisher.publish(spaced).await.unwrap().await.unwrap();
        publisher.close().await;
        let mut subscription = client.subscribe([(topic(name), super::EARLIEST)]).await.unwrap();
        let tidemill_client::Event::Message(message) = super::next(&mut subscription).await else {
            panic!("a message")
        };
        assert_eq!((&message.payload[..], message.content_type), (payload.as_bytes(), None));
        assert_eq!(message.metadata.as_deref(), Some(&br#"{"k":"v"}"#[..]));
        let from = tidemill::proto::Since::Cursor(tidemill::proto::Cursor::After(message.message_id));
        for encoding in ENCODINGS {
            let reader = super::client(relay.address.port(), encoding);
            let mut subscription = reader.subscribe([(topic(name), from)]).await.unwrap();
            for (payload, content_type) in [(&b"\0\xff"[..], Some("image/png")), (b" [\r\n1]\n", None)] {
                let tidemill_client::Event::Message(message) = super::next(&mut subscription).await else {
                    panic!("a message")
                };
                assert_eq!((&message.payload[..], message.content_type.as_deref()), (payload, content_type));
            }
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn the_window_bounds_what_is_under_way() {
    let relay = TestRelay::start(crate::support::relay::memory()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    for options in [
        PublisherOptions { window: 4, ..PublisherOptions::default() },
        PublisherOptions { window_bytes: 4, ..PublisherOptions::default() },
    ] {
        let publisher = client(proxy.port(), Encoding::Json).publisher(options).await.unwrap();
        proxy.flow(Flow::Stall);
        let mut receipts = Vec::new();
        for number in 0..4 {
            receipts.push(publisher.publish(numbered("t", number)).await.unwrap());
        }
        let fifth =
            tokio::time::timeout(Duration::from_millis(50), publisher.publish(numbered("t", 5))).await;
        assert!(fifth.is_err(), "there is no room");
        proxy.heal();
        for receipt in receipts {
            receipt.await.unwrap();
        }
        publisher.publish(numbered("t", 5)).await.unwrap().await.unwrap();
        publisher.close().await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_message_that_is_refused_for_the_moment_is_given_up_in_time() {
    let relay = TestRelay::start(crate::support::relay::memory()).await;
    let full = serde_json::json!({ "topic_name": "t", "max_messages": 1, "when_full": "refuse" });
    relay.post("/api/v1/topics", full.to_string()).await;
    relay.publish("t", "0").await;
    // The relay says to wait for ten seconds.
    for (give_up_after, refused_after) in [(5, 0..5), (12, 10..12)] {
        let options = PublisherOptions {
            give_up_after: Duration::from_secs(give_up_after),
            ..PublisherOptions::default()
        };
        let publisher = client(relay.address.port(), Encoding::Json).publisher(options).await.unwrap();
        let since = tokio::time::Instant::now();
        let refused = publisher.publish(numbered("t", 1)).await.unwrap().await;
        let Err(ClientError::Refused(refusal)) = refused else { panic!("it is full: {refused:?}") };
        assert_eq!((refusal.code, refusal.retry_after_seconds), (Code::TopicFull, Some(10)));
        assert!(refused_after.contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        publisher.close().await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_stays_away_is_given_up_in_time() {
    let relay = TestRelay::start(crate::support::relay::memory()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let options =
        PublisherOptions { give_up_after: Duration::from_millis(300), ..PublisherOptions::default() };
    let publisher = client(proxy.port(), Encoding::Json).publisher(options).await.unwrap();
    let mut state = publisher.state();
    proxy.swallow_replies_after(0);
    let sent = publisher.publish(numbered("t", 0)).await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    state.wait_for(|state| matches!(state, LinkState::Away(_))).await.unwrap();
    let unsent = publisher.publish(numbered("t", 1)).await.unwrap();
    assert_eq!(sent.await, Err(ClientError::Unknown));
    let unsent = unsent.await;
    assert!(matches!(unsent, Err(ClientError::Away { .. })), "{unsent:?}");
    state.wait_for(|state| matches!(state, LinkState::Ended(_))).await.unwrap();
    let late = publisher.publish(numbered("t", 2)).await.map(drop);
    assert!(matches!(late, Err(ClientError::Away { .. })), "{late:?}");
    publisher.close().await;
    relay.stop().await;
}

/// Keys that were made up are left out where the relay can remember no more; those of the caller are not.
#[tokio::test]
async fn keys_that_find_no_room_are_left_out() {
    const COUNT: usize = 2_000;
    let storage = memory_with(|options| options.keys_bytes_max = 16 * 1024);
    let relay = TestRelay::start(storage.clone()).await;
    let publisher =
        client(relay.address.port(), Encoding::Binary).publisher(PublisherOptions::default()).await.unwrap();
    assert!(!*publisher.goes_without_keys().borrow());
    let mut receipts = Vec::new();
    for number in 0..COUNT {
        receipts.push(publisher.publish(numbered("t", number)).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.expect("it is kept");
    }
    assert!(*publisher.goes_without_keys().borrow());
    let expected: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(stored_all(&storage, "t").await, expected);
    // Longer than those that were made up, so that no rest of the room is enough.
    let key = "k".repeat(200);
    let keyed = publisher.publish(numbered("t", 0).with_key(&key)).await.unwrap().await;
    let Err(ClientError::Refused(refusal)) = keyed else { panic!("there is no room for the key: {keyed:?}") };
    assert_eq!((refusal.code, refusal.field.as_deref()), (Code::StorageFull, Some(IDEMPOTENCY_KEY_FIELD)));
    publisher.publish(numbered("t", 0).with_optional_key(&key)).await.unwrap().await.expect("it is kept");
    publisher.close().await;
    relay.stop().await;
}

async fn stored_all(storage: &Storage, name: &str) -> Vec<String> {
    texts(&read_all(storage, &topic(name), Order::Asc, 5_000).await)
}

/// What is sent again without a key is there at least once.
#[tokio::test]
async fn without_a_key_a_lost_answer_is_sent_again_where_that_was_asked_for() {
    let storage = memory_with(|_| {});
    let relay = TestRelay::start(storage.clone()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let options = PublisherOptions { make_keys: false, repeat_unkeyed: true, ..PublisherOptions::default() };
    let publisher = client(proxy.port(), Encoding::Json).publisher(options).await.unwrap();
    proxy.swallow_replies_after(0);
    let lost = publisher.publish(numbered("t", 1)).await.unwrap();
    eventually(STUCK, async || stored_count(&storage, "t").await == 1).await;
    proxy.cut();
    proxy.heal();
    lost.await.expect("it is kept again");
    assert_eq!(stored(&storage, "t").await, ["1", "1"]);
    publisher.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn what_ends_in_good_order_is_not_counted_as_lost() {
    let relay = TestRelay::start(memory_with(|_| {})).await;
    let client = client(relay.address.port(), Encoding::Binary);
    let publisher = client.publisher(PublisherOptions::default()).await.unwrap();
    let mut subscription = client.subscribe([(topic("t"), super::EARLIEST)]).await.unwrap();
    for number in 0..100 {
        publisher.publish(numbered("t", number)).await.unwrap();
    }
    publisher.close().await;
    super::next(&mut subscription).await;
    // With messages that nobody has read.
    subscription.close().await;
    eventually(STUCK, async || {
        relay.get("/metrics").await.text().contains("\ntidemill_ws_ended_total{how=\"client\"} 2\n")
    })
    .await;
    relay.stop().await;
}

async fn a_message_has_its_order_key_and_may_be_unique(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let (topic, group) = (topic("t"), GroupName::parse("g").expect("a name"));
    let work = client(relay.address.port(), ENCODINGS[0]).work().unwrap();
    work.put_group(&topic, &group, &GroupUpdate::default()).await.unwrap();
    let key = OrderKey::parse("a \u{e9}").expect("a key");
    let mut first = None;
    for encoding in ENCODINGS {
        let publisher =
            client(relay.address.port(), encoding).publisher(PublisherOptions::default()).await.unwrap();
        let message =
            NewMessage::json(&topic, &1).unwrap().with_order_key(key.clone()).with_unique(&group, "k");
        let answer = publisher.publish(message).await.unwrap().await.unwrap();
        assert_eq!(answer.replayed, first.is_some());
        assert_eq!(*first.get_or_insert(answer.message_id), answer.message_id);
        publisher.close().await;
    }
    let stored = read_all(&storage, &topic, Order::Asc, 10).await;
    assert_eq!((stored.len(), stored[0].body.order_key.as_ref()), (1, Some(&key)));
    relay.stop().await;
}
