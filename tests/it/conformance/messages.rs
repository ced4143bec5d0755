//! Appending: ids, order, bodies, batches, and how much a topic keeps.

use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::proto::{MessageId, OrderKey, Timestamp, TopicName};
use tidemill::storage::{Body, NewMessage, Selection, StorageError, TopicPolicy, Trim};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::ground::{
    Ground, POLICY, SOON, append, append_all, append_numbers, append_numbers_under, ids,
    is_strictly_increasing, json, keyed, length, message, read_all, texts,
};

pub(super) async fn ids_increase_in_the_order_of_appends(ground: &Ground) {
    let topic = ground.topic();
    let mut appended = append_numbers(&ground.storage, &topic, 100).await;
    for _ in 0..20 {
        appended.extend(append_numbers(&ground.storage, &topic, 1).await);
    }
    assert!(is_strictly_increasing(&appended));
    assert_eq!(ids(&read_all(&ground.storage, &topic, Order::Asc, 50).await), appended);
}

pub(super) async fn ids_increase_after_a_trim_to_nothing(ground: &Ground) {
    let topic = ground.topic();
    let mut appended = Vec::new();
    for _ in 0..5 {
        appended.extend(append_numbers(&ground.storage, &topic, 3).await);
        ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    }
    assert!(is_strictly_increasing(&appended));
}

/// Bodies with everything that an encoding on the way could spoil.
fn awkward_bodies() -> Vec<Body> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let jsons = [
        "null",
        "0",
        "\"\"",
        "{}",
        " [ 1 ,\n\t2 ] ",
        r#"{"b":1,"a":2,"b":3}"#,
        "1.00000000000000000000000000000000001e-400",
        "-12345678901234567890123456789",
        r#""\u00e9\ud83d\ude00\u0000\/\\""#,
        "\"é \u{1f600} \u{2028} \u{7f}\"",
        r#"{"$":"*3\r\n","x":"\r\n"}"#,
    ];
    let mut bodies: Vec<Body> = jsons.iter().map(|&text| json(text)).collect();
    for (content_type, payload) in [
        ("application/octet-stream", every_byte.clone()),
        ("text/plain; charset=utf-8", "zażółć".into()),
        ("image/png", Vec::new()),
        ("x/y", b"\0".to_vec()),
        ("text/plain", b"null".to_vec()),
        ("application/cloudevents+json", b"\r\n {} \n".to_vec()),
        ("application/json; profile=\"p\"", b"[\n1]".to_vec()),
    ] {
        bodies.push(Body {
            payload: payload.into(),
            content_type: Some(content_type.into()),
            metadata: None,
            order_key: None,
        });
    }
    for metadata in ["{}", r#"{ "a" : [1, "é"], "a": null }"#] {
        bodies.push(Body { metadata: Some(metadata.into()), ..json("true") });
    }
    bodies.push(Body {
        payload: every_byte.into(),
        content_type: Some("c".repeat(255).into()),
        metadata: Some(r#"{"k":"v"}"#.into()),
        order_key: OrderKey::parse(&"\u{e9}".repeat(128)).ok(),
    });
    bodies.push(Body { order_key: OrderKey::parse("a b").ok(), ..json("1") });
    bodies
}

async fn come_back(ground: &Ground, bodies: Vec<Body>) {
    let topic = ground.topic();
    let timestamp = Timestamp::from_millis(1_517_363_399_650);
    let new = |body: &Body| NewMessage { timestamp, ..message(&topic, body.clone()) };
    let appended = append_all(&ground.storage, bodies.iter().map(new).collect()).await;
    let read = read_all(&ground.storage, &topic, Order::Asc, 100).await;
    assert_eq!(read.len(), bodies.len());
    for ((id, body), read) in appended.into_iter().zip(&bodies).zip(&read) {
        assert_eq!((read.id, read.timestamp), (id, timestamp));
        assert_eq!(&read.body, body);
        let found = ground.storage.messages.get(&topic, id).await.unwrap();
        assert_eq!(found.as_ref(), Some(read));
    }
    let mut backwards = read_all(&ground.storage, &topic, Order::Desc, 100).await;
    backwards.reverse();
    assert_eq!(backwards, read);
}

pub(super) async fn bodies_come_back_byte_for_byte(ground: &Ground) {
    come_back(ground, awkward_bodies()).await;
}

pub(super) async fn bodies_of_a_mebibyte_come_back_byte_for_byte(ground: &Ground) {
    let text = format!("\"{}\"", "é".repeat(512 * 1024));
    let bytes: Vec<u8> = (0..=250).cycle().take(1024 * 1024).collect();
    let binary =
        Body { payload: bytes.into(), content_type: Some("x/y".into()), metadata: None, order_key: None };
    let metadata = format!(r#"{{"k":"{}"}}"#, "v".repeat(64 * 1024 - 10));
    let described = Body { metadata: Some(metadata.into()), ..json("1") };
    come_back(ground, vec![json("1"), json(text), binary, described, json("2")]).await;
}

pub(super) async fn each_message_of_a_batch_succeeds_or_fails_alone(ground: &Ground) {
    let (first, second, missing) = (ground.topic(), ground.topic(), ground.topic());
    let refused = NewMessage { create_topic: false, ..message(&missing, json("0")) };
    let batch = vec![
        message(&first, json("1")),
        refused.clone(),
        message(&first, json("2")),
        message(&second, json("3")),
        refused,
        message(&first, json("4")),
    ];
    let results = ground.storage.messages.append(batch).await;
    assert_eq!(results.len(), 6);
    for (at, result) in results.iter().enumerate() {
        match at {
            1 | 4 => assert!(matches!(result, Err(StorageError::NoTopic)), "{at}: {result:?}"),
            _ => assert!(result.is_ok(), "{at}: {result:?}"),
        }
    }
    assert_eq!(texts(&read_all(&ground.storage, &first, Order::Asc, 10).await), ["1", "2", "4"]);
    assert_eq!(texts(&read_all(&ground.storage, &second, Order::Asc, 10).await), ["3"]);
    let described = ground.storage.topics.describe(&missing).await;
    assert!(matches!(described, Err(StorageError::NoTopic)), "{described:?}");
}

pub(super) async fn a_batch_keeps_the_order_of_each_topic(ground: &Ground) {
    let topics: Vec<_> = (0..7).map(|_| ground.topic()).collect();
    let of = |number: usize| &topics[number * number % topics.len()];
    let batch = (0..700).map(|number| message(of(number), json(number.to_string()))).collect();
    append_all(&ground.storage, batch).await;
    for topic in &topics {
        let expected: Vec<String> =
            (0..700).filter(|&number| of(number) == topic).map(|number| number.to_string()).collect();
        if !expected.is_empty() {
            assert_eq!(texts(&read_all(&ground.storage, topic, Order::Asc, 1_000).await), expected);
        }
    }
}

pub(super) async fn appends_that_begin_in_order_are_kept_in_order(ground: &Ground) {
    // The topic does not exist when they begin, and does when the second round does.
    let topic = ground.topic();
    for round in 0..2 {
        let appends = (0..12).map(|call| {
            let batch = (0..100).map(|number| message(&topic, json((call * 100 + number).to_string())));
            let mut batch: Vec<_> = batch.collect();
            // The first message with a key may take the backend a step more, and is still the first.
            if (round, call) == (1, 0) {
                batch[50] = keyed(&topic, json("50"), "key", 0);
            }
            append_all(&ground.storage, batch)
        });
        // They are polled for the first time in their order, and none waits for another.
        let ids: Vec<_> = futures_util::future::join_all(appends).await.concat();
        assert!(is_strictly_increasing(&ids), "round {round}");
    }
    let expected: Vec<String> = (0..1_200).chain(0..1_200).map(|number| number.to_string()).collect();
    assert_eq!(texts(&read_all(&ground.storage, &topic, Order::Asc, 1_000).await), expected);
}

pub(super) async fn an_empty_batch_has_no_results(ground: &Ground) {
    assert!(ground.storage.messages.append(Vec::new()).await.is_empty());
}

pub(super) async fn an_append_creates_its_topic_only_if_asked(ground: &Ground) {
    let topic = ground.topic();
    let careful = NewMessage { create_topic: false, ..message(&topic, json("1")) };
    let refused = append(&ground.storage, careful.clone()).await;
    assert!(matches!(refused, Err(StorageError::NoTopic)), "{refused:?}");
    assert!(ground.storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.is_empty());

    append(&ground.storage, message(&topic, json("2"))).await.unwrap();
    append(&ground.storage, careful).await.unwrap();
    assert_eq!(texts(&read_all(&ground.storage, &topic, Order::Asc, 10).await), ["2", "1"]);
    let created_at = ground.storage.topics.describe(&topic).await.unwrap().topic.created_at;
    assert!(created_at.is_some(), "a topic that the relay made has a time");
}

pub(super) async fn concurrent_first_appends_share_one_topic(ground: &Ground) {
    let topic = ground.topic();
    let mut tasks = JoinSet::new();
    for number in 0..32 {
        let (storage, topic) = (ground.storage.clone(), topic.clone());
        tasks.spawn(async move { append(&storage, message(&topic, json(number.to_string()))).await });
    }
    for result in tasks.join_all().await {
        result.unwrap();
    }
    assert_eq!(length(&ground.storage, &topic).await, 32);
    assert_eq!(ground.storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.len(), 1);
}

pub(super) async fn concurrent_appends_lose_nothing_and_all_readers_agree(ground: &Ground) {
    let topic = ground.topic();
    let mut tasks = JoinSet::new();
    for writer in 0..16 {
        let (storage, topic) = (ground.storage.clone(), topic.clone());
        tasks.spawn(async move {
            let mut written: Vec<(MessageId, String)> = Vec::new();
            for round in 0..20 {
                let texts: Vec<String> =
                    (0..5).map(|at| (writer * 1_000 + round * 10 + at).to_string()).collect();
                let batch = texts.iter().map(|text| message(&topic, json(text.clone()))).collect();
                written.extend(append_all(&storage, batch).await.into_iter().zip(texts));
            }
            assert!(written.windows(2).all(|pair| pair[0].0 < pair[1].0), "a writer's order holds");
            written
        });
    }
    let mut written: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    written.sort();
    let read = read_all(&ground.storage, &topic, Order::Asc, 77).await;
    let seen: Vec<_> = ids(&read).into_iter().zip(texts(&read)).collect();
    assert_eq!(seen, written);
    let mut backwards = read_all(&ground.storage, &topic, Order::Desc, 1_000).await;
    backwards.reverse();
    assert_eq!(backwards, read);
}

pub(super) async fn a_topic_keeps_at_least_its_newest_messages(ground: &Ground) {
    let storage = &ground.storage;
    let policy = TopicPolicy::newest(100);
    let topic = ground.topic();
    let mut appended = Vec::new();
    for _ in 0..10 {
        appended.extend(append_numbers_under(policy, storage, &topic, 137).await);
        let kept = ids(&read_all(storage, &topic, Order::Asc, 1_000).await);
        assert!(kept.len() >= 100, "{}", kept.len());
        assert!(appended.ends_with(&kept), "what is kept is the newest, without a hole");
    }
    let kept = length(storage, &topic).await;
    assert!(kept <= 300, "trimming may be late by a node of entries, not more: {kept}");
}

pub(super) async fn a_policy_holds_for_the_topics_that_it_travels_with(ground: &Ground) {
    let storage = &ground.storage;
    let [short, long] = [ground.topic(), ground.topic()];
    let new = |topic: &TopicName, policy| NewMessage { policy, ..message(topic, json("1")) };
    for _ in 0..10 {
        let batch = (0..200).map(|at| {
            let (topic, number) = if at % 2 == 0 { (&short, 50) } else { (&long, 5_000) };
            new(topic, TopicPolicy::newest(number))
        });
        append_all(storage, batch.collect()).await;
    }
    assert!((50..=250).contains(&length(storage, &short).await));
    assert_eq!(length(storage, &long).await, 1_000);
    // What comes later under another policy decides.
    append_numbers_under(TopicPolicy::newest(100), storage, &long, 97).await;
    assert!((100..=300).contains(&length(storage, &long).await));
}

pub(super) async fn a_policy_by_age_leaves_none_that_is_older(ground: &Ground) {
    let storage = &ground.storage;
    let (topic, keyless) = (ground.topic(), ground.topic());
    let policy = TopicPolicy { age: Some(Duration::from_millis(300)), ..POLICY };
    append_numbers_under(policy, storage, &topic, 150).await;
    let newest = append_numbers_under(policy, storage, &keyless, 3).await[2];
    // Each connection knows the server's clock as well as its round trips let it.
    eventually(SOON, async || storage.upkeep.now().as_millis() > newest.ms + 800).await;
    let own = NewMessage { policy, ..keyed(&topic, json("2"), "key", 1) };
    let last = append(storage, own).await.unwrap();
    let kept = read_all(storage, &topic, Order::Asc, 1_000).await;
    assert_eq!(ids(&kept), [last.id], "also where the append has a key");
    assert_eq!(length(storage, &keyless).await, 3, "a topic without appends is left alone");
    let last = append_numbers_under(policy, storage, &keyless, 1).await;
    assert_eq!(ids(&read_all(storage, &keyless, Order::Asc, 10).await), last);
}

pub(super) async fn a_policy_by_bytes_keeps_at_least_the_newest(ground: &Ground) {
    let topic = ground.topic();
    let policy = TopicPolicy { bytes: Some(64 * 1024), ..POLICY };
    let mut appended = Vec::new();
    for _ in 0..20 {
        let body = json(format!("\"{}\"", "x".repeat(10_000)));
        let new = NewMessage { policy, ..message(&topic, body) };
        appended.push(append(&ground.storage, new).await.unwrap().id);
        let kept = ids(&read_all(&ground.storage, &topic, Order::Asc, 100).await);
        assert!(kept.len() >= appended.len().min(6), "{}", kept.len());
        assert!(appended.ends_with(&kept), "what is kept is the newest, without a hole");
    }
}
