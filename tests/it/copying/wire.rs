//! What goes over the wire comes back as it was, and what is wrong with it is named.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidemill::copying::{Told, told_from, told_to, write_from};
use tidemill::proto::copy::CopyWrite;
use tidemill::proto::{BucketName, KeyName, MessageId, OrderKey, ScheduleId, Timestamp};
use tidemill::storage::{
    AdaptiveTtl, Body, BucketSettings, BucketState, CopiedBucket, CopiedDead, CopiedHole, CopiedKey,
    CopiedKeys, CopiedPending, CopiedPlace, DuePlace, Epoch, Freeze, KeyDigest, KeyEntry, KeyValue,
    StoredMessage, UniquePage, WaitingMessage, WaitingPage,
};

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn body(payload: &'static [u8], content_type: Option<&str>) -> Body {
    Body {
        payload: Bytes::from_static(payload),
        content_type: content_type.map(Into::into),
        metadata: None,
        order_key: None,
    }
}

fn stored(ms: u64, body: Body) -> StoredMessage {
    StoredMessage { id: MessageId::new(ms, 1), timestamp: at(ms), expires_at: None, body }
}

/// Sends what was told over the wire.
fn over(told: &Told) -> Told {
    let text = serde_json::to_vec(&told_to(told.clone())).expect("it is written");
    told_from(serde_json::from_slice(&text).expect("it is read")).expect("it is right")
}

#[test]
fn what_is_told_comes_as_it_was() {
    let whole = Body {
        metadata: Some(Bytes::from_static(b"{\"k\": [1]}")),
        order_key: Some(OrderKey::parse("a \u{e9}").expect("a key")),
        ..body(b" {\"a\":\r\n1.10}\n", None)
    };
    let messages = vec![
        stored(1, whole.clone()),
        stored(2, body(b"null", None)),
        stored(3, body(b"1e400", Some("text/plain"))),
        StoredMessage { expires_at: Some(at(9)), ..stored(4, body(b"\0\xff", Some("image/png"))) },
        stored(5, body(b"", Some("text/plain"))),
    ];
    let waiting = WaitingMessage {
        id: ScheduleId::parse("7-0-a").expect("an id"),
        due: at(32_503_680_000_000),
        body: whole,
        ttl: Some(Duration::from_millis(1_001)),
    };
    let entry = KeyEntry {
        key: KeyName::parse("k").expect("a name"),
        revision: MessageId::new(7, 0),
        created_at: at(1),
        expires_at: Some(at(2)),
        owner: Some(KeyName::parse("ann").expect("a name")),
        value: Some(KeyValue { bytes: Bytes::from_static(b"\xff"), content_type: Some("a/b".into()) }),
        digest: Some(KeyDigest { own: [7; 32], parent: Some([8; 32]) }),
        fresh_until: Some(at(3)),
        is_counted: true,
    };
    let settings = BucketSettings {
        history: 3,
        ttl: Some(Duration::from_millis(1_500)),
        absolute_age: Some(Duration::from_hours(24)),
        max_keys: Some(1),
        max_bytes: None,
        adaptive_ttl: Some(AdaptiveTtl { min: Duration::from_millis(1), max: Duration::from_secs(2) }),
    };
    let bucket = BucketName::parse("b").expect("a name");
    let bucket = CopiedBucket {
        state: BucketState { bucket, settings, created_at: at(4), keys: 5, bytes: 6 },
        epoch: Epoch::Marked(u64::MAX),
        born: Some(MessageId::new(1, 0)),
        first: None,
        last: MessageId::new(u64::MAX, u64::MAX),
        length: 0,
        given: Some(9),
        holes: vec![CopiedHole { from: MessageId::MIN, to: MessageId::new(1, 0) }],
        freeze: Some(Freeze::Importing),
        has_keys: true,
    };
    let next = Some(DuePlace { due: waiting.due, id: waiting.id.clone() });
    let past =
        KeyEntry { expires_at: None, fresh_until: None, is_counted: false, digest: None, ..entry.clone() };
    let places = [CopiedPlace::Waits(at(8)), CopiedPlace::Behind, CopiedPlace::Dying("worse".into())];
    let pending = (1..).zip(places).map(|(ms, place)| CopiedPending {
        id: MessageId::new(ms, 0),
        deliveries: 2,
        failures: 1,
        crashes: 0,
        error: Some("late".into()),
        place,
    });
    let pending: Vec<CopiedPending> = pending.collect();
    let copied = CopiedKey { past: vec![past], entry: entry.clone() };
    for told in [
        Told::Messages(messages),
        Told::Waiting(WaitingPage { messages: vec![waiting], next }),
        Told::Bucket(Box::new(bucket)),
        Told::Keys(CopiedKeys { keys: vec![copied.clone()], next: Some(entry.key.clone()) }),
        Told::SomeKeys(vec![None, Some(copied)]),
        Told::Ends(vec![(entry.key, None)]),
        Told::Identity(vec!["a/0/plain".to_owned()]),
        Told::Pending(pending),
        Told::Dead(vec![CopiedDead {
            id: MessageId::new(1, 0),
            letter: None,
            deliveries: 3,
            reason: "\"no\"".into(),
        }]),
        Told::Unique(UniquePage {
            unique: vec![("a \u{e9}".into(), MessageId::new(1, 0), at(5))],
            next: Some("7".to_owned()),
        }),
    ] {
        assert_eq!(over(&told), told);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let message = |body: serde_json::Value| {
        json!({"messages": {"topic": "t", "epoch": "00000000000000ff", "after": "0-0", "messages": [
            {"message_id": "1-0", "timestamp": "2026-01-01T00:00:00Z", "body": {"payload": 1}},
            {"message_id": "2-0", "timestamp": "2026-01-01T00:00:00Z", "body": body},
        ]}})
    };
    let pending = |count: usize, deliveries: u64| {
        let one = json!({
            "id": "1-0", "deliveries": deliveries, "failures": 0, "crashes": 0, "error": null, "place": "behind",
        });
        json!({"pending": {"topic": "t", "group": "g", "pending": vec![one; count]}})
    };
    let second = "write.messages.messages[1].body";
    for (write, field) in [
        (message(json!({})), second.to_owned()),
        (message(json!({"payload": 1, "payload_base64": ""})), second.to_owned()),
        (message(json!({"payload_base64": "?"})), second.to_owned()),
        (message(json!({"payload_base64": "/w=="})), format!("{second}.payload_base64")),
        (message(json!({"payload": 1, "content_type": "a\u{e9}"})), format!("{second}.content_type")),
        (message(json!({"payload": 1, "metadata": 1})), format!("{second}.metadata")),
        (
            json!({"forget": {"topic": "t", "epoch": null, "ids": vec!["1-0"; 1_001]}}),
            "write.forget.ids".to_owned(),
        ),
        (pending(1_001, 1), "write.pending.pending".to_owned()),
        (pending(1, 1 << 54), "write.pending.pending".to_owned()),
        (
            json!({"unique": {"topic": "t", "group": "g", "unique": vec![json!(["k", "1-0", "2026-01-01T00:00:00Z"]); 1_001]}}),
            "write.unique.unique".to_owned(),
        ),
    ] {
        let write: CopyWrite = serde_json::from_str(&write.to_string()).expect("it has the form of one");
        let problem = write_from(write).expect_err(&field);
        assert_eq!(problem.field.as_deref(), Some(&*field), "{}", problem.detail);
        assert!(problem.detail.contains(&*field), "{}", problem.detail);
    }
}
