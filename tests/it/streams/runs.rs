//! Topics that end, as publishers and readers see it on every way.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::proto::frame::{ClientFrame, ServerFrame, binary};
use tokio_tungstenite::tungstenite::Message;

use super::client::Coming;
use super::on_both_backends;
use crate::support::ground::Ground;
use crate::support::relay::TestRelay;
use crate::support::ws::{WsClient, publish_frame};

const MESSAGES: &str = "/api/v1/topics/run/messages";

async fn close(relay: &TestRelay, topic: &str) {
    let answer = relay.post(&format!("/api/v1/topics/{topic}/close"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((&answer.json()["topic"], &answer.json()["state"]), (&json!(topic), &json!("closed")));
}

async fn cancel(relay: &TestRelay, topic: &str, reason: &str) -> Value {
    let body = json!({ "reason": reason }).to_string();
    let answer = relay.post(&format!("/api/v1/topics/{topic}/cancel"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Returns the name and the data of the next event.
async fn next(coming: &mut Coming) -> (Option<String>, Value) {
    let event = coming.event().await.expect("a stream").expect("an event");
    (event.name.clone(), event.json())
}

async fn publishers_are_told_on_every_way(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for (topic, reason) in [("closed", None), ("cancelled", Some("no \"money\""))] {
        relay.publish(topic, "1").await;
        match reason {
            None => close(&relay, topic).await,
            Some(reason) => drop(cancel(&relay, topic, reason).await),
        }
        let code = if reason.is_none() { Code::TopicClosed } else { Code::Cancelled };
        let body = format!(r#"{{"topic":"{topic}","payload":1}}"#);
        let keyed = [("content-type", "application/json"), ("idempotency-key", "k")];
        let path = format!("/api/v1/topics/{topic}/messages");
        for answer in [
            relay.post("/api/v1/messages", &body).await,
            relay.send("POST", "/api/v1/messages", &keyed, body.as_bytes()).await,
            relay.post(&path, "1").await,
        ] {
            let problem = answer.problem();
            assert_eq!((answer.status, problem.code), (409, code));
            assert_eq!(problem.reason.as_deref(), reason);
        }
        let bulk = format!(r#"{{"messages":[{body},{{"topic":"other","payload":1}}]}}"#);
        let bulk = relay.post("/api/v1/messages/bulk", bulk).await.json();
        let lines = [("content-type", "application/x-ndjson")];
        let lines = relay.send("POST", &path, &lines, b"1\n2\n").await.json();
        assert_eq!((&bulk["summary"]["accepted"], &lines["summary"]["accepted"]), (&json!(1), &json!(0)));
        for result in [&bulk["results"][0], &lines["results"][0], &lines["results"][1]] {
            assert_eq!((&result["code"], result["reason"].as_str()), (&json!(code.as_str()), reason));
        }
        let mut text = WsClient::connect(relay.address).await;
        let frame = format!(r#"{{"type":"publish","ref":"7","topic":"{topic}","payload":1}}"#);
        let error = text.ask(frame, "error").await;
        assert_eq!((&error["ref"], &error["code"]), (&json!("7"), &json!(code.as_str())));
        assert_eq!(error["details"]["reason"].as_str(), reason);
        let mut bytes = WsClient::connect_binary(relay.address).await;
        bytes.send_binary(&ClientFrame::Publish(publish_frame(topic, b"1"))).await;
        let Some(Ok(Message::Binary(answer))) = bytes.next().await else { panic!("a binary frame") };
        let Ok(ServerFrame::Error(error)) = binary::read_server(&answer) else { panic!("an error") };
        assert_eq!((error.code, error.reason.as_deref()), (code, reason));

        let page = relay.get(&format!("{path}?order=asc")).await.json();
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(1), "what it has stays");
        let shown = relay.get(&format!("/api/v1/topics/{topic}")).await.json();
        assert_eq!((&shown["state"], shown["reason"].as_str()), (&json!(topic), reason));
    }
    let open = relay.get("/api/v1/topics/other").await.json();
    assert_eq!((&open["state"], &open["reason"]), (&json!("open"), &Value::Null));
    relay.stop().await;
}

async fn a_stream_of_the_topic_ends_behind_its_last_message(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let first = relay.publish("run", "1").await;
    let path = format!("{MESSAGES}?after=earliest");
    let mut events = Coming::events(relay.address, &path, &[]).await.unwrap();
    let mut lines = Coming::lines(relay.address, &path).await.unwrap();
    assert_eq!(next(&mut events).await.1["payload"], 1);
    assert_eq!(lines.line().await.unwrap().expect("a line")["payload"], 1);
    let last = relay.publish("run", "2").await;
    close(&relay, "run").await;
    assert_eq!(next(&mut events).await.1["payload"], 2);
    let closed = json!({"topic": "run", "state": "closed"});
    assert_eq!(next(&mut events).await, (Some("closed".to_owned()), closed));
    let end = json!({"reason": "closed", "cursors": {"run": last}});
    assert_eq!(next(&mut events).await, (Some("end".to_owned()), end));
    assert!(events.event().await.unwrap().is_none(), "the stream is over");
    assert_eq!(lines.line().await.unwrap().expect("a line")["payload"], 2);
    let line = lines.line().await.unwrap().expect("a line");
    assert_eq!(line, json!({"type": "closed", "topic": "run", "state": "closed"}));
    let line = lines.line().await.unwrap().expect("a line");
    assert_eq!((&line["type"], &line["reason"]), (&json!("end"), &json!("closed")));
    assert!(lines.line().await.unwrap().is_none());

    // A browser that comes back stops, once it has everything.
    let accept = ("accept", "text/event-stream");
    let back = relay.send("GET", MESSAGES, &[accept, ("last-event-id", &last)], b"").await;
    assert_eq!((back.status, back.body.len()), (204, 0));
    let mut rest = Coming::events(relay.address, MESSAGES, &[("last-event-id", &first)]).await.unwrap();
    assert_eq!(next(&mut rest).await.1["payload"], 2);
    assert_eq!(next(&mut rest).await.0.as_deref(), Some("closed"));
    assert_eq!(next(&mut rest).await.0.as_deref(), Some("end"));
    assert!(rest.event().await.unwrap().is_none());
    // Who comes for the first time is told.
    let mut late = Coming::events(relay.address, MESSAGES, &[]).await.unwrap();
    assert_eq!(next(&mut late).await.0.as_deref(), Some("closed"));
    relay.stop().await;
}

async fn a_stream_of_several_goes_on(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("run", "1").await;
    relay.publish("other", "1").await;
    let mut named = Coming::events(relay.address, "/api/v1/stream?topics=run,other", &[]).await.unwrap();
    let mut pattern = Coming::events(relay.address, "/api/v1/stream?topics=*", &[]).await.unwrap();
    let told = cancel(&relay, "run", "too slow").await;
    assert_eq!(told, json!({"topic": "run", "state": "cancelled", "reason": "too slow"}));
    for coming in [&mut named, &mut pattern] {
        let mut told_here = next(coming).await;
        while told_here.0.as_deref() == Some("cursor") {
            told_here = next(coming).await;
        }
        assert_eq!(told_here, (Some("closed".to_owned()), told.clone()));
    }
    relay.publish("other", "2").await;
    for coming in [&mut named, &mut pattern] {
        let mut event = coming.event().await.unwrap().expect("a message");
        while event.name.as_deref() == Some("cursor") {
            event = coming.event().await.unwrap().expect("a message");
        }
        assert_eq!(event.json()["payload"], 2);
    }
    // A pattern that comes now is not told of what has ended before.
    let mut late = Coming::events(relay.address, "/api/v1/stream?topics=r*,other", &[]).await.unwrap();
    relay.publish("other", "3").await;
    let mut event = late.event().await.unwrap().expect("a message");
    while event.name.as_deref() == Some("cursor") {
        event = late.event().await.unwrap().expect("a message");
    }
    assert_eq!(event.json()["payload"], 3);
    relay.stop().await;
}

async fn a_socket_is_told_once_and_goes_on(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("run", "1").await;
    let mut text = WsClient::connect(relay.address).await;
    let mut bytes = WsClient::connect_binary(relay.address).await;
    text.subscribe("run", "latest").await;
    bytes.subscribe("run", "latest").await;
    let told = cancel(&relay, "run", "why").await;
    let mut closed = text.expect("closed").await;
    closed.as_object_mut().expect("an object").remove("type");
    assert_eq!(closed, told);
    let Some(Ok(Message::Binary(frame))) = bytes.next().await else { panic!("a binary frame") };
    let Ok(ServerFrame::Closed(closed)) = binary::read_server(&frame) else { panic!("closed") };
    assert_eq!(serde_json::to_value(closed).unwrap(), told);
    // Closing it is news; the next topic of the name is, too.
    close(&relay, "run").await;
    assert_eq!(text.expect("closed").await["state"], "closed");
    assert_eq!(relay.send("DELETE", "/api/v1/topics/run", &[], b"").await.status, 204);
    assert_eq!(text.expect("gap").await["reason"], "deleted");
    relay.publish("run", "2").await;
    assert_eq!(text.expect("message").await["payload"], 2);
    // Who subscribes to what has ended gets what there is, and is told.
    close(&relay, "run").await;
    assert_eq!(text.expect("closed").await["state"], "closed");
    text.subscribe("run", "earliest").await;
    assert_eq!(text.expect("message").await["payload"], 2);
    assert_eq!(text.expect("closed").await["topic"], "run");
    relay.stop().await;
}

async fn polls_wait_and_name_what_has_ended(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let last = relay.publish("run", "1").await;
    close(&relay, "run").await;
    let poll = async |since: &str| {
        let body = json!({"topics": ["run"], "since": {"run": since}, "timeout": 1}).to_string();
        relay.post("/messages/poll", body).await.json()
    };
    let answer = poll("earliest").await;
    assert_eq!(answer["messages"].as_array().map(Vec::len), Some(1));
    let begun = tokio::time::Instant::now();
    let answer = poll(&last).await;
    assert_eq!((&answer["closed"], &answer["cursors"]["run"]), (&json!(["run"]), &json!(last)));
    assert!(begun.elapsed().as_millis() >= 900, "who does not know of it would ask again at once");
    relay.stop().await;
}

async fn what_is_wrong_with_an_end_is_said(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let missing = relay.post("/api/v1/topics/run/close", "").await;
    assert_eq!((missing.status, missing.problem().code), (404, Code::TopicNotFound));
    relay.publish("run", "1").await;
    let long = json!({"reason": "x".repeat(1_025)}).to_string();
    for body in ["{}", r#"{"reason":""}"#, r#"{"reason":7}"#, &long] {
        let answer = relay.post("/api/v1/topics/run/cancel", body).await;
        assert_eq!((answer.status, answer.problem().field.as_deref()), (400, Some("reason")), "{body}");
    }
    assert_eq!(relay.get("/api/v1/topics/run").await.json()["state"], "open");
    cancel(&relay, "run", &"x".repeat(1_024)).await;
    close(&relay, "run").await;
    close(&relay, "run").await;
    let late = relay.post("/api/v1/topics/run/cancel", r#"{"reason":"r"}"#).await;
    assert_eq!((late.status, late.problem().code), (409, Code::TopicClosed));
    relay.stop().await;
}

on_both_backends! {
    publishers_are_told_on_every_way,
    a_stream_of_the_topic_ends_behind_its_last_message,
    a_stream_of_several_goes_on,
    a_socket_is_told_once_and_goes_on,
    polls_wait_and_name_what_has_ended,
    what_is_wrong_with_an_end_is_said,
}

/// What one node ends, no other takes messages for, and its readers are told at once.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_knows_of_an_end() {
    use crate::support::ground::LIMITS;
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let here = TestRelay::start(ground.storage.clone()).await;
    let there = TestRelay::start(ground.under(LIMITS).await).await;
    let last = here.publish("run", "1").await;
    let mut events = Coming::events(there.address, MESSAGES, &[("last-event-id", &last)]).await.unwrap();
    let mut socket = WsClient::connect(there.address).await;
    socket.subscribe("run", "latest").await;
    there.publish("other", "1").await;
    close(&here, "run").await;
    assert_eq!(there.post(MESSAGES, "2").await.problem().code, Code::TopicClosed);
    assert_eq!(next(&mut events).await.0.as_deref(), Some("closed"));
    assert_eq!(next(&mut events).await.0.as_deref(), Some("end"));
    assert_eq!(socket.expect("closed").await["topic"], "run");
    // Producers that know nothing of relays are refused as well.
    let reply = ground.server().command(&["XADD", "stream:topic:run", "*", "payload", "2"]).await;
    assert!(format!("{reply:?}").contains("last possible ID"), "{reply:?}");
    here.stop().await;
    there.stop().await;
}
