//! Groups that are consumed: what a connection is given, what it says of it, and what becomes of what it has.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::proto::frame::{ClientFrame, Consume, Said, ServerFrame, Settle, binary};
use tidemill::proto::work::SettledStatus;
use tidemill::storage::Storage;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::on_both_backends;
use crate::support::relay::{STUCK, TestRelay, memory};
use crate::support::ws::WsClient;

const JSON: (&str, &str) = ("content-type", "application/json");
const GROUP: &str = "/api/v1/topics/jobs/groups/workers";

/// Makes the group; a consumer's time is far longer than a test.
async fn put(relay: &TestRelay, mut settings: Value) {
    settings["ack_wait"] = json!("5m");
    let answer = relay.send("PUT", GROUP, &[JSON], settings.to_string().as_bytes()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn publish(relay: &TestRelay, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(relay.publish("jobs", &n.to_string()).await);
    }
    ids
}

async fn group(relay: &TestRelay) -> Value {
    relay.get(GROUP).await.json()
}

async fn state(relay: &TestRelay, id: &str) -> Value {
    relay.get(&format!("{GROUP}/messages/{id}")).await.json()
}

async fn consume(client: &mut WsClient, credit: u32) -> Value {
    let frame = json!({"type": "consume", "ref": "c", "topic": "jobs", "group": "workers", "credit": credit});
    let consuming = client.ask(frame.to_string(), "consuming").await;
    assert_eq!((&consuming["ref"], &consuming["credit"]), (&json!("c"), &json!(credit)));
    assert_eq!((&consuming["topic"], &consuming["group"]), (&json!("jobs"), &json!("workers")));
    consuming
}

/// Returns so many messages, in however many frames they come.
async fn work(client: &mut WsClient, count: usize) -> Vec<Value> {
    let mut got = Vec::new();
    while got.len() < count {
        let work = client.expect("work").await;
        assert_eq!((&work["topic"], &work["group"]), (&json!("jobs"), &json!("workers")));
        got.extend(work["messages"].as_array().expect("messages").iter().cloned());
    }
    assert_eq!(got.len(), count, "{got:?}");
    got
}

async fn settle(client: &mut WsClient, mut frame: Value) -> Vec<Value> {
    frame["ref"] = json!("s");
    client.send(frame.to_string()).await;
    // Work may come between.
    let settled = client.expect("settled").await;
    assert_eq!(settled["ref"], "s");
    settled["results"].as_array().expect("results").clone()
}

/// Checks that nothing comes for a while.
async fn nothing(client: &mut WsClient) {
    let next = tokio::time::timeout(Duration::from_millis(300), client.next()).await;
    assert!(next.is_err(), "{next:?}");
}

async fn a_connection_is_given_work_and_settles_it(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({"backoff": ["1h"]})).await;
    let ids = publish(&relay, 6).await;
    let mut client = WsClient::connect(relay.address).await;
    let consuming = consume(&mut client, 100).await;
    let consumer = consuming["consumer"].as_str().expect("a name").to_owned();
    assert!(consumer.starts_with("ws/"), "{consumer}");
    let got = work(&mut client, 6).await;
    for (n, (message, id)) in got.iter().zip(&ids).enumerate() {
        assert_eq!((&message["message_id"], &message["payload"]), (&json!(id), &json!(n)));
        assert_eq!((&message["topic"], &message["delivery"]), (&json!("jobs"), &json!(1)));
        assert!(message["deadline"].is_string() && message["timestamp"].is_string(), "{message}");
    }
    let told = state(&relay, &ids[0]).await;
    assert_eq!((&told["state"], &told["consumer"]), (&json!("in_flight"), &json!(consumer)));
    let receipts: Vec<_> = got.iter().map(|message| message["receipt"].clone()).collect();
    let acked =
        settle(&mut client, json!({"type": "ack", "receipts": receipts[..2], "result": {"a": 1}})).await;
    assert_eq!(acked, [0, 1].map(|at| json!({"receipt": receipts[at], "status": "acked"})));
    let told = state(&relay, &ids[1]).await;
    assert_eq!((&told["state"], &told["result"]), (&json!("done"), &json!({"a": 1})));
    let nacked = settle(&mut client, json!({"type": "nack", "receipts": [receipts[2]], "error": "e"})).await;
    assert_eq!(nacked[0]["status"], "nacked");
    assert_eq!(state(&relay, &ids[2]).await["error"], "e");
    let extended =
        settle(&mut client, json!({"type": "extend", "receipts": [receipts[3]], "ack_wait": "1h"})).await;
    assert_eq!(extended[0]["status"], "extended");
    assert!(extended[0]["until"].as_str() > got[3]["deadline"].as_str(), "{extended:?}");
    let rejected =
        settle(&mut client, json!({"type": "reject", "receipts": [receipts[4]], "reason": "r"})).await;
    assert_eq!((&rejected[0]["status"], &rejected[0]["dead"]), (&json!("rejected"), &json!(true)));
    // What is given back comes to whoever has room, which is this one.
    client.send(json!({"type": "release", "receipts": [receipts[5]]}).to_string()).await;
    assert_eq!(client.expect("settled").await["results"][0]["status"], "released");
    assert_eq!(work(&mut client, 1).await[0]["delivery"], 2);
    let refused = settle(&mut client, json!({"type": "ack", "receipts": [receipts[0], "no"]})).await;
    assert_eq!(
        (&refused[0]["code"], &refused[1]["code"]),
        (&json!("already_settled"), &json!("invalid_field"))
    );
    let new = relay.publish("jobs", "7").await;
    assert_eq!(work(&mut client, 1).await[0]["message_id"], new);
    client.close().await;
    relay.stop().await;
}

async fn a_connection_has_no_more_than_its_credit(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    publish(&relay, 20).await;
    let mut client = WsClient::connect(relay.address).await;
    consume(&mut client, 3).await;
    let got = work(&mut client, 3).await;
    nothing(&mut client).await;
    settle(&mut client, json!({"type": "ack", "receipts": [got[0]["receipt"], got[1]["receipt"]]})).await;
    let more = work(&mut client, 2).await;
    nothing(&mut client).await;
    assert_eq!(group(&relay).await["in_flight"], 3);
    // It is told again, and more comes.
    consume(&mut client, 5).await;
    work(&mut client, 2).await;
    nothing(&mut client).await;
    // Nothing comes for what is settled, until there is less than it may have.
    consume(&mut client, 4).await;
    settle(&mut client, json!({"type": "ack", "receipts": [more[0]["receipt"]]})).await;
    nothing(&mut client).await;
    settle(&mut client, json!({"type": "ack", "receipts": [more[1]["receipt"]]})).await;
    work(&mut client, 1).await;
    // None from now on; what it has is its own.
    consume(&mut client, 0).await;
    settle(&mut client, json!({"type": "ack", "receipts": [got[2]["receipt"]]})).await;
    nothing(&mut client).await;
    assert_eq!(group(&relay).await["in_flight"], 3);
    consume(&mut client, 4).await;
    work(&mut client, 1).await;
    client.close().await;
    relay.stop().await;
}

async fn what_a_connection_has_comes_back_at_once_when_it_ends(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    let ids = publish(&relay, 3).await;
    let mut other = WsClient::connect(relay.address).await;
    for is_closed in [true, false] {
        let mut client = WsClient::connect(relay.address).await;
        consume(&mut client, 10).await;
        let got = work(&mut client, 3).await;
        consume(&mut other, 10).await;
        let since = Instant::now();
        if is_closed {
            client.close().await;
        } else {
            drop(client);
        }
        let again = work(&mut other, 3).await;
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert_eq!(again[0]["delivery"].as_u64(), got[0]["delivery"].as_u64().map(|before| before + 1));
        // Who has said that it goes has failed nothing.
        assert_eq!(group(&relay).await["failed"], u64::from(!is_closed));
        let receipts: Vec<_> = again.iter().map(|message| &message["receipt"]).collect();
        consume(&mut other, 0).await;
        settle(&mut other, json!({"type": "release", "receipts": receipts})).await;
    }
    // Each loss is charged to the message that the connection had the longest.
    for _ in 0..2 {
        let mut client = WsClient::connect(relay.address).await;
        consume(&mut client, 10).await;
        work(&mut client, 3).await;
        drop(client);
        let since = Instant::now();
        while group(&relay).await["in_flight"] != 0 {
            assert!(since.elapsed() < STUCK);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let dead = relay.get(&format!("{GROUP}/messages/{}?wait=10s", ids[0])).await.json();
    assert_eq!((&dead["state"], &dead["error"]), (&json!("dead"), &json!("crashed")));
    for id in &ids[1..] {
        assert_eq!(state(&relay, id).await["state"], "waiting", "the others were charged with nothing");
    }
    relay.stop().await;
}

async fn of_a_lost_connection_what_it_had_begun_is_charged(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({"max_deliveries": 1})).await;
    let ids = publish(&relay, 3).await;
    let mut client = WsClient::connect(relay.address).await;
    consume(&mut client, 3).await;
    let got = work(&mut client, 3).await;
    settle(&mut client, json!({"type": "extend", "receipts": [got[1]["receipt"]]})).await;
    drop(client);
    let dead = relay.get(&format!("{GROUP}/messages/{}?wait=10s", ids[1])).await.json();
    assert_eq!((&dead["state"], &dead["error"]), (&json!("dead"), &json!("crashed")));
    assert_eq!(state(&relay, &ids[0]).await["state"], "waiting");
    assert_eq!(state(&relay, &ids[2]).await["state"], "waiting");
    relay.stop().await;
}

async fn a_lost_connection_may_still_acknowledge_elsewhere(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    let ids = publish(&relay, 2).await;
    let mut client = WsClient::connect(relay.address).await;
    consume(&mut client, 2).await;
    let got = work(&mut client, 2).await;
    drop(client);
    let since = Instant::now();
    while group(&relay).await["waiting"] != 2 {
        assert!(since.elapsed() < STUCK);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut client = WsClient::connect(relay.address).await;
    let acked = settle(&mut client, json!({"type": "ack", "receipts": [got[0]["receipt"]]})).await;
    assert_eq!((&acked[0]["status"], &acked[0]["late"]), (&json!("acked"), &json!(true)));
    assert_eq!(state(&relay, &ids[0]).await["state"], "done");
    client.close().await;
    relay.stop().await;
}

async fn what_was_said_before_the_end_counts(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    publish(&relay, 100).await;
    let mut client = WsClient::connect(relay.address).await;
    consume(&mut client, 100).await;
    let got = work(&mut client, 100).await;
    for message in &got {
        client.send(json!({"type": "ack", "receipts": [message["receipt"]]}).to_string()).await;
    }
    client.close().await;
    let since = Instant::now();
    while group(&relay).await["done"] != 100 {
        assert!(since.elapsed() < STUCK, "{}", group(&relay).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    relay.stop().await;
}

async fn a_node_that_stops_gives_back_what_its_connections_have(storage: Storage) {
    let (relay, other) = (TestRelay::start(storage.clone()).await, TestRelay::start(storage).await);
    put(&relay, json!({})).await;
    publish(&relay, 50).await;
    let mut client = WsClient::connect(relay.address).await;
    consume(&mut client, 50).await;
    work(&mut client, 50).await;
    let mut second = WsClient::connect(other.address).await;
    consume(&mut second, 50).await;
    let since = Instant::now();
    relay.stop().await;
    work(&mut second, 50).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(group(&other).await["failed"], 0);
    second.close().await;
    other.stop().await;
}

async fn the_binary_encoding_says_the_same(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    let ids = publish(&relay, 2).await;
    let mut client = WsClient::connect_binary(relay.address).await;
    let consume = Consume {
        reference: Some("c".into()),
        topic: "jobs".into(),
        group: "workers".into(),
        credit: 2,
        consumer: Some("ann".into()),
    };
    client.send_binary(&ClientFrame::Consume(consume)).await;
    let mut receipts = Vec::new();
    let mut is_consuming = false;
    while receipts.len() < 2 {
        let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("a binary frame") };
        match binary::read_server(&bytes).expect("a frame") {
            ServerFrame::Consuming(consuming) => {
                assert_eq!((consuming.consumer.as_str(), consuming.credit), ("ann", 2));
                is_consuming = true;
            }
            ServerFrame::Work(work) => {
                assert!(is_consuming, "the answer comes first");
                for one in &work.deliveries {
                    assert_eq!(one.message.message_id.to_string(), ids[receipts.len()]);
                    assert_eq!(&*one.message.payload, receipts.len().to_string().as_bytes());
                    receipts.push(work.receipt(one).to_string());
                }
            }
            other => panic!("not expected: {other:?}"),
        }
    }
    let settle = |said| {
        let receipts = receipts.iter().map(|receipt| receipt.as_str().into()).collect();
        ClientFrame::Settle(Settle { reference: Some("s".into()), receipts, said })
    };
    for (said, status) in [
        (Said::Extend { ack_wait: Some(Duration::from_mins(1)) }, SettledStatus::Extended),
        (Said::Ack { result: Some(b"[1]") }, SettledStatus::Acked),
        (Said::Release, SettledStatus::Refused),
    ] {
        client.send_binary(&settle(said)).await;
        let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("a binary frame") };
        let ServerFrame::Settled { reference, results } = binary::read_server(&bytes).expect("a frame")
        else {
            panic!("settled")
        };
        assert_eq!((reference.as_deref(), results.len()), (Some("s"), 2));
        assert!(results.iter().all(|result| result.status == status), "{results:?}");
    }
    assert_eq!(state(&relay, &ids[1]).await["result"], json!([1]));
    for said in [Said::Ack { result: Some(b"{") }, Said::Nack { delay: Some(Duration::MAX), error: None }] {
        client.send_binary(&settle(said)).await;
        let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("a binary frame") };
        let ServerFrame::Error(error) = binary::read_server(&bytes).expect("a frame") else {
            panic!("an error")
        };
        assert_eq!((error.code, error.reference.as_deref()), (Code::InvalidField, Some("s")));
    }
    client.close().await;
    relay.stop().await;
}

async fn bad_frames_are_named_and_change_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    publish(&relay, 1).await;
    let mut client = WsClient::connect(relay.address).await;
    let consume = |change: Value| {
        let mut frame = json!({"type": "consume", "topic": "jobs", "group": "workers", "credit": 1});
        let change = change.as_object().expect("an object").clone();
        change.into_iter().for_each(|(name, value)| frame[name] = value);
        frame
    };
    let many: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    for (frame, code, field) in [
        (consume(json!({"topic": "no"})), "topic_not_found", None),
        (consume(json!({"group": "no"})), "group_not_found", None),
        (consume(json!({"topic": "a b"})), "invalid_field", Some("topic")),
        (consume(json!({"group": "a.b"})), "invalid_field", Some("group")),
        (consume(json!({"group": null})), "invalid_field", Some("group")),
        (consume(json!({"credit": 1_001})), "invalid_field", Some("credit")),
        (consume(json!({"credit": -1})), "invalid_field", Some("credit")),
        (consume(json!({"credit": null})), "invalid_field", Some("credit")),
        (consume(json!({"consumer": "tidemill:waiting"})), "invalid_field", Some("consumer")),
        (consume(json!({"colour": 1})), "invalid_field", Some("colour")),
        (json!({"type": "ack"}), "invalid_field", Some("receipts")),
        (json!({"type": "ack", "receipts": []}), "invalid_field", Some("receipts")),
        (json!({"type": "ack", "receipts": many}), "invalid_field", Some("receipts")),
        (json!({"type": "ack", "receipts": "a"}), "invalid_field", Some("receipts")),
        (
            json!({"type": "ack", "receipts": ["a"], "result": "x".repeat(65_536)}),
            "invalid_field",
            Some("result"),
        ),
        (json!({"type": "nack", "receipts": ["a"], "delay": -1}), "invalid_field", Some("delay")),
        (json!({"type": "nack", "receipts": ["a"], "delay": "366d"}), "invalid_field", Some("delay")),
        (json!({"type": "nack", "receipts": ["a"], "error": 7}), "invalid_field", Some("error")),
        (json!({"type": "extend", "receipts": ["a"], "ack_wait": "13h"}), "invalid_field", Some("ack_wait")),
        (json!({"type": "reject", "receipts": ["a"]}), "invalid_field", Some("reason")),
    ] {
        let mut frame = frame;
        frame["ref"] = json!("r");
        let error = client.ask(frame.to_string(), "error").await;
        assert_eq!(
            (&error["details"]["code"], &error["ref"]),
            (&json!(code), &json!("r")),
            "{frame} {error}"
        );
        assert_eq!(error["details"]["field"].as_str(), field, "{frame} {error}");
        assert_eq!(error["code"], "PROCESSING_ERROR");
    }
    let detail = group(&relay).await;
    assert_eq!((&detail["waiting"], &detail["in_flight"]), (&json!(1), &json!(0)));
    // Another name would be another consumer.
    client.ask(consume(json!({"consumer": "ann"})).to_string(), "consuming").await;
    work(&mut client, 1).await;
    let error = client.ask(consume(json!({"consumer": "bob"})).to_string(), "error").await;
    assert_eq!(error["details"]["field"], "consumer");
    client.ask(consume(json!({"consumer": "ann"})).to_string(), "consuming").await;
    // Today's clients say so of what they have read.
    client.send(json!({"type": "ack", "message_id": "1-0"}).to_string()).await;
    nothing(&mut client).await;
    client.close().await;
    relay.stop().await;
}

async fn a_group_that_goes_ends_its_consumption(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    let mut client = WsClient::connect(relay.address).await;
    consume(&mut client, 10).await;
    assert_eq!(relay.send("DELETE", GROUP, &[], b"").await.status, 204);
    let error = client.expect("error").await;
    assert_eq!((&error["details"]["code"], &error["ref"]), (&json!("group_not_found"), &json!("c")));
    put(&relay, json!({})).await;
    publish(&relay, 1).await;
    nothing(&mut client).await;
    // It can begin again, and the connection goes on.
    consume(&mut client, 10).await;
    client.close().await;
    relay.stop().await;
}

async fn many_connections_share_a_drain(storage: Storage) {
    const COUNT: usize = 2_000;
    let relay = TestRelay::start(storage).await;
    put(&relay, json!({})).await;
    let (address, stop, tasks) = (relay.address, CancellationToken::new(), TaskTracker::new());
    let workers = (0..8).map(|n| {
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut client = WsClient::connect(address).await;
            consume(&mut client, 1 + n * 7).await;
            let mut got = Vec::new();
            while let Some(frame) = stop.run_until_cancelled(client.frame()).await {
                if frame["type"] == "settled" {
                    let results = frame["results"].as_array().expect("results");
                    assert!(results.iter().all(|result| result["status"] == "acked"), "{frame}");
                    continue;
                }
                let messages = frame["messages"].as_array().expect("messages");
                got.extend(messages.iter().map(|message| message["payload"].as_u64().expect("a number")));
                let receipts: Vec<_> = messages.iter().map(|message| &message["receipt"]).collect();
                client.send(json!({"type": "ack", "receipts": receipts}).to_string()).await;
            }
            client.close().await;
            got
        })
    });
    let workers: Vec<_> = workers.collect();
    for chunk in (0..COUNT).collect::<Vec<_>>().chunks(100) {
        let messages: Vec<_> = chunk.iter().map(|n| json!({"topic": "jobs", "payload": n})).collect();
        let answer = relay.post("/api/v1/messages/bulk", json!({"messages": messages}).to_string()).await;
        assert!(answer.status < 300, "{}", answer.text());
    }
    let since = Instant::now();
    while group(&relay).await["done"].as_u64() < Some(COUNT as u64) {
        assert!(since.elapsed() < STUCK, "{}", group(&relay).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(tokio::time::timeout(STUCK, worker).await.expect("it ends").expect("it does not fail"));
    }
    all.sort_unstable();
    assert_eq!(all, (0..COUNT as u64).collect::<Vec<_>>(), "each once");
    relay.stop().await;
}

#[tokio::test]
async fn where_groups_are_switched_off_nothing_is_consumed() {
    let relay = TestRelay::start_with(memory(), |options| options.ws.groups = false).await;
    let mut client = WsClient::connect(relay.address).await;
    for frame in [
        json!({"type": "consume", "topic": "t", "group": "g", "credit": 1}),
        json!({"type": "ack", "receipts": ["a"]}),
    ] {
        let error = client.ask(frame.to_string(), "error").await;
        assert_eq!(error["details"]["field"], "type", "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("TIDEMILL_FEATURES")), "{error}");
    }
    relay.stop().await;
}

on_both_backends!(
    a_connection_is_given_work_and_settles_it,
    a_connection_has_no_more_than_its_credit,
    what_a_connection_has_comes_back_at_once_when_it_ends,
    of_a_lost_connection_what_it_had_begun_is_charged,
    a_lost_connection_may_still_acknowledge_elsewhere,
    what_was_said_before_the_end_counts,
    a_node_that_stops_gives_back_what_its_connections_have,
    the_binary_encoding_says_the_same,
    bad_frames_are_named_and_change_nothing,
    a_group_that_goes_ends_its_consumption,
    many_connections_share_a_drain,
);
