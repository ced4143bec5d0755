//! Where readers start whose words are no message id: the cursor that they are handed proves what they miss when
//! they come back before their first message.

use tidemill::proto::{MessageId, Timestamp};
use tidemill::storage::Trim;

use super::on_both_backends;
use crate::support::doors::{LIVE, bare, start};
use crate::support::eventually;
use crate::support::ground::{Ground, SOON, topic};
use crate::support::relay::TestRelay;

const TOPIC: &str = "starts";

/// A cursor that was handed out.
struct Started {
    door: &'static str,
    words: String,
    cursor: String,
    /// What there was behind it.
    behind: &'static [&'static str],
}

/// Compares what every door tells who comes back, up to the last message.
async fn come_back(
    ground: &Ground,
    started: &[Started],
    last: &'static str,
    told: impl Fn(&Started) -> Vec<&'static str>,
) {
    // A node that has nothing at hand.
    let relay = TestRelay::start(ground.storage.clone()).await;
    for it in started {
        let Started { door, words, cursor, .. } = it;
        let expected = [told(it), vec![last]].concat();
        assert_eq!(
            bare(&relay, door, (TOPIC, cursor), last).await,
            expected,
            "{words} on {door}, from {cursor}"
        );
    }
    relay.stop().await;
}

async fn what_is_missed_before_the_first_message_is_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let one: MessageId = relay.publish(TOPIC, "1").await.parse().expect("an id");
    eventually(SOON, async || ground.clock.now().as_millis() > one.ms).await;
    let two: MessageId = relay.publish(TOPIC, "2").await.parse().expect("an id");
    relay.publish(TOPIC, "3").await;
    let mut started = Vec::new();
    for (words, behind) in [
        ("earliest".to_owned(), &["1", "2", "3"][..]),
        ("1970-01-01T00:00:00Z".to_owned(), &["1", "2", "3"]),
        ("-1h".to_owned(), &["1", "2", "3"]),
        (Timestamp::from_millis(two.ms).to_string(), &["2", "3"]),
        ("2040-01-01T00:00:00Z".to_owned(), &[]),
        ("latest".to_owned(), &[]),
    ] {
        let answered_once = if behind.is_empty() { &["wait", "poll"][..] } else { &[] };
        for door in [&LIVE[..], answered_once].concat() {
            let cursor = start(&relay, door, (TOPIC, &words)).await;
            started.push(Started { door, words: words.clone(), cursor, behind });
        }
    }
    relay.stop().await;
    let (storage, topic) = (&ground.storage, topic(TOPIC));
    let publish = async |payload: &'static str| {
        let batch = vec![crate::support::ground::message(&topic, crate::support::ground::json(payload))];
        storage.messages.append(batch).await.remove(0).expect("it is appended");
    };
    publish("4").await;
    come_back(ground, &started, "4", |it| it.behind.to_vec()).await;
    publish("5").await;
    storage.messages.trim(&topic, Trim::Keep(1)).await.expect("it is trimmed");
    come_back(ground, &started, "5", |_| vec!["gap trimmed"]).await;
    storage.topics.delete(&topic).await.expect("it is deleted");
    publish("6").await;
    come_back(ground, &started, "6", |_| vec!["gap deleted"]).await;
}

/// What a reader has missed is told at once, also where nothing is left and nothing comes.
async fn what_was_emptied_is_told_before_anything_comes(ground: &Ground) {
    let (storage, topic) = (&ground.storage, topic(TOPIC));
    let relay = TestRelay::start(storage.clone()).await;
    let mut started = Vec::new();
    for payload in ["1", "2"] {
        relay.publish(TOPIC, payload).await;
        for words in ["earliest", "-1h"] {
            for door in LIVE {
                started.push((words, door, start(&relay, door, (TOPIC, words)).await));
            }
        }
    }
    storage.messages.trim(&topic, Trim::Keep(0)).await.expect("it is trimmed");
    let other = TestRelay::start(storage.clone()).await;
    for (words, door, cursor) in &started {
        let told = bare(&other, door, (TOPIC, cursor), "gap trimmed").await;
        assert_eq!(told, ["gap trimmed"], "{words} on {door}, from {cursor}");
    }
    other.stop().await;
    relay.stop().await;
}

/// What was trimmed before a reader has asked is not missing, also where nothing is left.
async fn what_was_gone_before_is_not_missed(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for payload in ["1", "2", "3"] {
        relay.publish(TOPIC, payload).await;
    }
    let (storage, topic) = (&ground.storage, topic(TOPIC));
    let mut started = Vec::new();
    for (keep, behind) in [(2, &["2", "3", "4"][..]), (0, &["4"])] {
        storage.messages.trim(&topic, Trim::Keep(keep)).await.expect("it is trimmed");
        for words in ["earliest", "-1h"] {
            for door in LIVE {
                let cursor = start(&relay, door, (TOPIC, words)).await;
                let told = bare(&TestRelay::start(storage.clone()).await, "page", (TOPIC, words), "").await;
                assert_eq!(told.len(), behind.len() - 1, "{words}: {told:?}");
                started.push((door, words, cursor, keep));
            }
        }
    }
    relay.publish(TOPIC, "4").await;
    for (door, words, cursor, keep) in started {
        let told = bare(&relay, door, (TOPIC, &cursor), "4").await;
        let expected = if keep == 0 { &["4"][..] } else { &["gap trimmed", "4"] };
        assert_eq!(told, expected, "{words} on {door}, from {cursor}");
    }
    relay.stop().await;
}

on_both_backends! {
    what_is_missed_before_the_first_message_is_told,
    what_was_gone_before_is_not_missed,
    what_was_emptied_is_told_before_anything_comes,
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_ids_there_are_are_not_hidden() {
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let key = format!("stream:topic:{TOPIC}");
    for (id, payload) in [("0-1", "1"), ("0-2", "2"), ("0-3", "3")] {
        ground.server().command(&["XADD", &key, id, "payload", payload]).await;
    }
    let relay = TestRelay::start(ground.storage.clone()).await;
    let mut started = Vec::new();
    for door in LIVE {
        let cursor = start(&relay, door, (TOPIC, "earliest")).await;
        started.push(Started { door, words: "earliest".to_owned(), cursor, behind: &["1", "2"] });
    }
    relay.stop().await;
    come_back(&ground, &started, "3", |it| it.behind.to_vec()).await;
    ground.server().command(&["XTRIM", &key, "MINID", "0-3"]).await;
    come_back(&ground, &started, "3", |_| vec!["gap trimmed"]).await;
}

/// Who stood in front of the oldest message is told that others have put a stream in the place of its own, whatever
/// ids that one has.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_the_place_of_another_is_told_to_who_stood_in_front() {
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let key = format!("stream:topic:{TOPIC}");
    for new_ids in [&["*"][..], &["0-1", "0-2"], &["1-0", "*"]] {
        let relay = TestRelay::start(ground.storage.clone()).await;
        for payload in ["1", "2", "3"] {
            relay.publish(TOPIC, payload).await;
        }
        let mut started = Vec::new();
        for words in ["earliest", "-1h"] {
            for door in LIVE {
                let cursor = start(&relay, door, (TOPIC, words)).await;
                started.push(Started { door, words: words.to_owned(), cursor, behind: &[] });
            }
        }
        relay.stop().await;
        ground.server().command(&["DEL", &key]).await;
        for id in new_ids {
            ground.server().command(&["XADD", &key, id, "payload", "4"]).await;
        }
        let storage = &ground.storage;
        let message = crate::support::ground::message(&topic(TOPIC), crate::support::ground::json("5"));
        storage.messages.append(vec![message]).await.remove(0).expect("it is appended");
        let told = [&["gap reset"], &["4", "4"][..new_ids.len()]].concat();
        come_back(&ground, &started, "5", |_| told.clone()).await;
        storage.topics.delete(&topic(TOPIC)).await.expect("it is deleted");
    }
}
