//! What other programs do in the same server: their entries are served, their keys left alone.

use serde_json::json;
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{GapReason, MessageId, Timestamp, TopicName};
use tidemill::storage::{Body, Epoch, GapCheck, Range, Selection, StorageError, StoredMessage, Trim};

use super::gaps::{read_on, told};
use crate::support::eventually;
use crate::support::ground::{
    Ground, SOON, append, append_all, append_numbers, ids, is_strictly_increasing, keyed, message, read_all,
    texts,
};
use crate::support::resp::Reply;

/// A field of an entry: name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

/// Adds an entry as another program would.
async fn xadd(ground: &Ground, topic: &TopicName, id: &str, fields: &[Field<'_>]) {
    let key = format!("stream:topic:{topic}");
    let mut command: Vec<&[u8]> = vec![b"XADD", key.as_bytes(), id.as_bytes()];
    for (name, value) in fields {
        command.extend([*name, *value]);
    }
    assert_eq!(ground.server().command(&command).await.text().split('-').count(), 2);
}

/// Adds an entry and returns how it is served.
async fn served(ground: &Ground, fields: &[Field<'_>]) -> StoredMessage {
    let topic = ground.topic();
    xadd(ground, &topic, "1517363399650-7", fields).await;
    let mut read = read_all(&ground.storage, &topic, Order::Asc, 10).await;
    assert_eq!(read.len(), 1);
    let message = read.remove(0);
    assert_eq!(message.id, MessageId::new(1_517_363_399_650, 7));
    let found = ground.storage.messages.get(&topic, message.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&message));
    message
}

fn payload(message: &StoredMessage) -> String {
    texts(std::slice::from_ref(message)).remove(0)
}

pub(super) async fn a_key_of_another_type_is_not_a_topic(ground: &Ground) {
    let topic = ground.topic();
    let good = ground.topic();
    ground.server().command(&["SET", &format!("stream:topic:{topic}"), "mine"]).await;
    let storage = &ground.storage;
    let body = crate::support::ground::json("1");
    let batch =
        vec![message(&topic, body.clone()), message(&good, body.clone()), keyed(&topic, body, "key", 1)];
    let results = storage.messages.append(batch).await;
    assert!(matches!(results[0], Err(StorageError::NotATopic)), "{results:?}");
    assert!(results[1].is_ok(), "{results:?}");
    assert!(matches!(results[2], Err(StorageError::NotATopic)), "{results:?}");
    let range = Range { order: Order::Asc, after: None, gap_check: GapCheck::None, limit: 1, bytes_max: 1 };
    let seen = |after| Range { after: Some(after), gap_check: GapCheck::Seen, ..range };
    for refused in [
        storage.messages.read(&topic, range).await.map(drop),
        storage.messages.read(&topic, seen(MessageId::MIN)).await.map(drop),
        storage.messages.read(&topic, seen(MessageId::new(1, 0))).await.map(drop),
        storage.messages.get(&topic, MessageId::new(1, 0)).await.map(drop),
        storage.messages.trim(&topic, Trim::Keep(0)).await.map(drop),
        storage.topics.create(&topic, TopicUpdate::default(), None).await.map(drop),
        storage.topics.describe(&topic).await.map(drop),
        storage.topics.update(&topic, TopicUpdate::default().into()).await.map(drop),
        storage.topics.delete(&topic).await,
    ] {
        assert!(matches!(refused, Err(StorageError::NotATopic)), "{refused:?}");
    }
    let kept = ground.server().command(&["GET", &format!("stream:topic:{topic}")]).await;
    assert_eq!(kept.text(), "mine", "nothing of it was touched");
}

pub(super) async fn a_topic_of_another_producer_is_a_topic(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    xadd(ground, &topic, "5-1", &[(b"a", b"1")]).await;
    let state = storage.topics.describe(&topic).await.unwrap();
    assert_eq!((state.length, state.last_id), (1, Some(MessageId::new(5, 1))));
    assert_eq!(state.topic.created_at, None);
    let created = storage.topics.create(&topic, TopicUpdate::default(), None).await;
    assert!(matches!(created, Err(StorageError::TopicExists)), "{created:?}");
    append_numbers(storage, &topic, 1).await;
    let tail = storage.live.tail(&topic).await.unwrap();
    assert_eq!((tail.epoch, tail.born), (Epoch::Unmarked, None));
    eventually(SOON, async || {
        storage.upkeep.sweep().await.unwrap();
        storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.len() == 1
    })
    .await;
    assert_eq!(storage.topics.stats().await.unwrap().total_messages, 2);
    let tail = storage.live.tail(&topic).await.unwrap();
    assert_eq!(tail.born, None, "a sweep marks it, and does not know what it has given before");
    assert_ne!(tail.epoch, Epoch::Unmarked);
    storage.topics.delete(&topic).await.unwrap();
    assert!(matches!(storage.topics.describe(&topic).await, Err(StorageError::NoTopic)));
}

pub(super) async fn ids_that_do_not_follow_the_clock_are_noticed(ground: &Ground) {
    let storage = &ground.storage;
    let [chosen, mixed, ours] = [(); 3].map(|()| ground.topic());
    let payload: &[Field<'_>] = &[(b"payload", b"1")];
    let sweep = async || {
        eventually(SOON, async || storage.upkeep.sweep().await.unwrap().topics > 0).await;
    };
    let late = async |topic: &TopicName| storage.live.tail(topic).await.unwrap().late;
    let seen = async |topic: &TopicName| {
        let described = ground.server().command(&["HGETALL", &format!("meta:topic:{topic}")]).await;
        described.array().iter().map(Reply::text).collect::<Vec<_>>()
    };
    xadd(ground, &chosen, "5-1", payload).await;
    xadd(ground, &mixed, "5-1", payload).await;
    append_numbers(storage, &ours, 1).await;
    sweep().await;
    // Nobody knows what another producer had given before it was seen first.
    let first = [late(&chosen).await, late(&mixed).await];
    assert!(first.iter().all(Option::is_some), "{first:?}");
    assert_eq!(late(&ours).await, None);
    // Where nothing comes, nothing is written.
    let before = [seen(&chosen).await, seen(&ours).await];
    sweep().await;
    assert_eq!([seen(&chosen).await, seen(&ours).await], before);
    let began = ground.clock.now();
    xadd(ground, &chosen, "5-2", payload).await;
    // What comes behind it hides nothing.
    xadd(ground, &mixed, "6-0", payload).await;
    append_numbers(storage, &mixed, 2).await;
    append_numbers(storage, &ours, 2).await;
    sweep().await;
    let noticed = [late(&chosen).await, late(&mixed).await];
    for (at, first) in noticed.into_iter().zip(first) {
        assert!(at.is_some_and(|at| began <= at && at <= ground.clock.now()), "{at:?} since {began}");
        assert!(at > first);
    }
    assert_eq!(late(&ours).await, None);
    // It stays known, also when it is long ago, for as long as the topic is this one.
    append_numbers(storage, &mixed, 1).await;
    sweep().await;
    assert_eq!(late(&mixed).await, noticed[1]);
    // Nothing tells where that which was given has gone, but the last id.
    storage.messages.trim(&chosen, Trim::Keep(0)).await.unwrap();
    xadd(ground, &chosen, "5-3", payload).await;
    storage.messages.trim(&chosen, Trim::Keep(0)).await.unwrap();
    sweep().await;
    assert!(late(&chosen).await > noticed[0]);
    // Nor does the server count what it was given, once that was trimmed from behind which one was taken out.
    for (at, taken, kept) in [("6-", 3, 4), ("7-", 2, 5)] {
        let before = late(&chosen).await;
        for number in 1..=6 {
            xadd(ground, &chosen, &format!("{at}{number}"), payload).await;
        }
        let key = format!("stream:topic:{chosen}");
        ground.server().command(&["XDEL", &key, &format!("{at}{taken}")]).await;
        storage.messages.trim(&chosen, Trim::Before(format!("{at}{kept}").parse().unwrap())).await.unwrap();
        sweep().await;
        assert!(late(&chosen).await > before, "{at}");
    }
    // One that has taken its place is as unknown as the first.
    let before = late(&chosen).await;
    ground.server().command(&["DEL", &format!("stream:topic:{chosen}")]).await;
    xadd(ground, &chosen, "5-1", payload).await;
    xadd(ground, &chosen, "5-2", payload).await;
    xadd(ground, &chosen, "5-3", payload).await;
    sweep().await;
    assert!(late(&chosen).await > before);
    storage.topics.delete(&mixed).await.unwrap();
    append_numbers(storage, &mixed, 1).await;
    sweep().await;
    assert_eq!(late(&mixed).await, None);
    // Nothing stays behind of what is gone.
    ground.server().command(&["DEL", &format!("stream:topic:{chosen}")]).await;
    sweep().await;
    assert_eq!(seen(&chosen).await, [""; 0]);
}

/// What was deleted by request from a stream is missed by nobody there, and proves nothing of the next of its name.
pub(super) async fn what_was_deleted_by_request_is_of_one_stream(ground: &Ground) {
    let storage = &ground.storage;
    let stream = async |topic: &TopicName, payload: &[u8]| {
        for seq in 1..=4 {
            xadd(ground, topic, &format!("0-{seq}"), &[(b"payload", payload)]).await;
        }
    };
    let id = |seq| MessageId::new(0, seq);
    let behind_the_first = async |topic: &TopicName| {
        let read = read_on(storage, topic, id(1), 10).await;
        (told(&read, topic, id(1)), ids(&read.messages))
    };
    let sweep = async || {
        eventually(SOON, async || storage.upkeep.sweep().await.unwrap().topics > 0).await;
    };
    let (topic, other) = (ground.topic(), ground.topic());
    let key = format!("stream:topic:{topic}");
    let (nothing, trimmed) =
        ((None, vec![id(3), id(4)]), (Some((GapReason::Trimmed, id(3))), vec![id(3), id(4)]));
    // Before a sweep has seen the stream, and behind it.
    stream(&topic, b"1").await;
    assert!(storage.messages.remove(&topic, id(2)).await.unwrap());
    assert_eq!(behind_the_first(&topic).await, nothing);
    sweep().await;
    assert_eq!(behind_the_first(&topic).await, nothing);
    let late = storage.live.tail(&topic).await.unwrap().late;
    assert!(late.is_some(), "nobody knows what it had been given, whoever has marked it");
    // Others make it anew, and take out what had been deleted before.
    ground.server().command(&["DEL", &key]).await;
    stream(&topic, b"2").await;
    ground.server().command(&["XDEL", &key, "0-2"]).await;
    assert_eq!(behind_the_first(&topic).await, trimmed);
    sweep().await;
    assert_eq!(behind_the_first(&topic).await, trimmed);
    // One that has a marker takes its place.
    storage.messages.remove(&topic, id(4)).await.unwrap();
    stream(&other, b"3").await;
    sweep().await;
    ground.server().command(&["XDEL", &format!("stream:topic:{other}"), "0-4"]).await;
    ground.server().command(&["RENAME", &format!("stream:topic:{other}"), &key]).await;
    let read = read_on(storage, &topic, id(3), 10).await;
    assert_eq!(told(&read, &topic, id(3)), Some((GapReason::Trimmed, MessageId::new(0, 5))));
    storage.messages.remove(&topic, id(2)).await.unwrap();
    let taken_out = async || {
        let range = Range {
            order: Order::Asc,
            after: Some(id(3)),
            gap_check: GapCheck::Epoch,
            limit: 1,
            bytes_max: usize::MAX,
        };
        storage.messages.read(&topic, range).await.unwrap().taken_out.by_request
    };
    assert_eq!(taken_out().await, 1, "of this one");
    sweep().await;
    assert_eq!(taken_out().await, 1, "of this one");
}

pub(super) async fn fields_of_another_producer_become_the_payload(ground: &Ground) {
    let message = served(ground, &[(b"z", b"1"), (b"a", "\"é\"\n".as_bytes()), (b"", b"")]).await;
    assert_eq!(payload(&message), r#"{"z":"1","a":"\"é\"\n","":""}"#, "in the order of the entry");
    assert_eq!(message.timestamp, Timestamp::from_millis(1_517_363_399_650));
    assert_eq!((message.body.content_type, message.body.metadata), (None, None));

    let repeated = served(ground, &[(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4")]).await;
    assert_eq!(payload(&repeated), r#"{"a":["1","3","4"],"b":"2"}"#);
}

pub(super) async fn values_that_are_not_text_become_base64(ground: &Ground) {
    let message = served(ground, &[(b"raw", b"\xff\x00"), (b"raw", b"text"), (b"t", b"\0")]).await;
    let expected = json!({ "raw": [{ "base64": "/wA=" }, "text"], "t": "\0" });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&message.body.payload).unwrap(), expected);
}

pub(super) async fn names_that_are_not_text_stay_apart(ground: &Ground) {
    let fields: &[Field<'_>] = &[
        (b"\xff", b"1"),
        (b"\xfe", b"2"),
        ("\u{fffd}".as_bytes(), b"3"),
        (b"base64:/w==", b"4"),
        (b"\xff", b"5"),
    ];
    let message = served(ground, fields).await;
    assert_eq!(
        payload(&message),
        "{\"base64:/w==\":[\"1\",\"5\"],\"base64:/g==\":\"2\",\"\u{fffd}\":\"3\",\"base64:YmFzZTY0Oi93PT0=\":\"4\"}"
    );
}

pub(super) async fn entries_of_pulsar_relay_are_served_as_ours(ground: &Ground) {
    let message = served(
        ground,
        &[
            (b"message_id", b"msg_1a2b"),
            (b"payload", br#"{ "job": 1 }"#),
            (b"timestamp", b"2018-01-31T01:49:58.000001"),
            (b"metadata", br#"{"k": "v"}"#),
        ],
    )
    .await;
    let metadata = Some(r#"{"k": "v"}"#.into());
    assert_eq!(message.body, Body { metadata, ..crate::support::ground::json(r#"{ "job": 1 }"#) });
    assert_eq!(message.timestamp.to_string(), "2018-01-31T01:49:58.000Z");

    let bare = served(ground, &[(b"payload", b"[1]")]).await;
    assert_eq!(payload(&bare), "[1]");
    assert_eq!(bare.timestamp, Timestamp::from_millis(1_517_363_399_650), "the time of the id");

    let binary = served(ground, &[(b"payload", b"\xff"), (b"content_type", b"x/y")]).await;
    assert_eq!(
        binary.body,
        Body {
            payload: (&b"\xff"[..]).into(),
            content_type: Some("x/y".into()),
            metadata: None,
            order_key: None
        }
    );

    // What says that it is JSON is JSON, with the white space around it.
    for (kind, kept) in [
        ("application/json", None),
        ("application/json; charset=utf-8", None),
        ("application/cloudevents+json", Some("application/cloudevents+json")),
    ] {
        let json = served(ground, &[(b"payload", b" [1]\n"), (b"content_type", kind.as_bytes())]).await;
        let content_type = kept.map(Into::into);
        assert_eq!(
            json.body,
            Body { payload: " [1]\n".into(), content_type, metadata: None, order_key: None }
        );
    }
}

pub(super) async fn entries_that_are_almost_ours_are_foreign(ground: &Ground) {
    let deep = [b'['; 121].iter().chain(&[b']'; 121]).copied().collect::<Vec<u8>>();
    let cases: [(&[Field<'_>], &str); 11] = [
        (&[(b"payload", b"hello")], r#"{"payload":"hello"}"#),
        (&[(b"payload", b"")], r#"{"payload":""}"#),
        (&[(b"payload", b"1"), (b"extra", b"2")], r#"{"payload":"1","extra":"2"}"#),
        // It says that it is JSON, and is none.
        (
            &[(b"payload", b"{"), (b"content_type", b"a/b+json")],
            r#"{"payload":"{","content_type":"a/b+json"}"#,
        ),
        (&[(b"payload", b"1"), (b"payload", b"2")], r#"{"payload":["1","2"]}"#),
        (&[(b"payload", b"1"), (b"metadata", b"[]")], r#"{"payload":"1","metadata":"[]"}"#),
        (&[(b"payload", b"1"), (b"metadata", b"{")], r#"{"payload":"1","metadata":"{"}"#),
        (&[(b"payload", br#""\ud800""#)], r#"{"payload":"\"\\ud800\""}"#),
        (
            &[(b"payload", b"1"), (b"metadata", br#"{"a":"\udc00"}"#)],
            r#"{"payload":"1","metadata":"{\"a\":\"\\udc00\"}"}"#,
        ),
        (&[(b"timestamp", b"2018-01-31T01:49:58Z")], r#"{"timestamp":"2018-01-31T01:49:58Z"}"#),
        (&[(b"payload", b"1"), (b"Payload", b"2")], r#"{"payload":"1","Payload":"2"}"#),
    ];
    for (fields, expected) in cases {
        let message = served(ground, fields).await;
        assert_eq!(payload(&message), expected);
        assert_eq!((message.body.content_type, message.body.metadata), (None, None));
    }
    let message = served(ground, &[(b"payload", &deep)]).await;
    assert!(payload(&message).starts_with(r#"{"payload":"[[["#), "too deep for readers of JSON");
}

pub(super) async fn ids_increase_after_an_entry_from_the_future(ground: &Ground) {
    let topic = ground.topic();
    xadd(ground, &topic, "9517363399650-3", &[(b"payload", b"0")]).await;
    let mut appended = vec![MessageId::new(9_517_363_399_650, 3)];
    for _ in 0..3 {
        appended.extend(append_numbers(&ground.storage, &topic, 2).await);
    }
    assert!(is_strictly_increasing(&appended));
    assert_eq!(ids(&read_all(&ground.storage, &topic, Order::Asc, 2).await), appended);
}

/// A server that was restarted has no scripts. Loading them again must not let the messages that
/// need none overtake.
pub(super) async fn a_forgotten_script_changes_no_order(ground: &Ground) {
    let topic = ground.topic();
    let body = |number: u8| crate::support::ground::json(number.to_string());
    append_all(&ground.storage, vec![keyed(&topic, body(0), "key", 1)]).await;
    assert_eq!(ground.server().command(&["SCRIPT", "FLUSH"]).await.text(), "OK");
    let batch = (1..=30).map(|number: u8| {
        let body = body(number);
        if number.is_multiple_of(2) {
            message(&topic, body)
        } else {
            keyed(&topic, body, &format!("key {number}"), 1)
        }
    });
    let appended = append_all(&ground.storage, batch.collect()).await;
    assert!(is_strictly_increasing(&appended), "{appended:?}");
    let repeat = append(&ground.storage, keyed(&topic, body(1), "key 1", 1)).await.unwrap();
    assert_eq!((repeat.id, repeat.replayed), (appended[0], true));
}
