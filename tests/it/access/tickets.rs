//! Tickets: what one opens, what it resumes, and what it is good for to who finds it.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;

use super::closed::{self, ROOT, send, token, user};
use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS};
use crate::support::raw::{RawConnection, Stream};
use crate::support::relay::{TestRelay, memory};
use crate::support::server::Kind;
use crate::support::ws::{Got, WsClient};

const EVENTS: &str = "text/event-stream";

/// Makes a ticket of somebody.
async fn ticket(relay: &TestRelay, who: &str, wanted: &Value) -> String {
    let answer = send(relay, Some(who), "POST", "/api/v1/tickets", wanted).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    let at: tidemill::proto::Timestamp = serde_json::from_value(made["expires_at"].clone()).expect("a time");
    let now = tidemill::clock::Clock::system().now();
    let left = at.as_millis().saturating_sub(now.as_millis());
    assert!((20_000..=30_000).contains(&left), "{left} ms");
    made["ticket"].as_str().expect("a text").to_owned()
}

fn path(topic: &str, ticket: &str) -> String {
    format!("/api/v1/topics/{topic}/messages?after=earliest&ticket={ticket}")
}

/// Opens a stream, or returns the status with which it was refused.
async fn open(relay: &TestRelay, path: &str, kind: &str, resumes_after: Option<&str>) -> Result<Stream, u16> {
    let headers = resumes_after.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    let connection = RawConnection::connect(relay.address).await.expect("it connects");
    Stream::try_open_on(connection, path, kind, &headers).await.expect("an answer")
}

async fn publish(relay: &TestRelay, who: &str, payload: u64) -> String {
    let body = json!({ "topic": "t", "payload": payload });
    let answer = send(relay, Some(who), "POST", "/api/v1/messages", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

async fn until(stream: &mut Stream, end: &str) -> String {
    String::from_utf8(stream.until(end.as_bytes()).await.expect("it comes")).expect("text")
}

async fn ends_as_revoked(stream: &mut Stream) {
    let told = String::from_utf8(stream.rest().await.expect("it ends well")).expect("text");
    assert!(told.contains("revoked"), "{told}");
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_then_resumes_it_for_one_reader_at_a_time() {
    let relay = closed::start(memory()).await;
    let (_, who) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let first = publish(&relay, &who, 1).await;
    let ticket = ticket(&relay, &who, &json!({ "topics": ["t"] })).await;
    let path = path("t", &ticket);
    let mut stream = open(&relay, &path, EVENTS, None).await.expect("it opens");
    until(&mut stream, "\"payload\":1").await;

    let other = self::path("u", &ticket);
    let page = "/api/v1/stream?topics=t&ticket=";
    for (door, path, resumes) in [
        ("again", &path, None),
        ("another topic", &other, Some(&*first)),
        ("another path", &format!("{page}{ticket}"), Some("0-0")),
        ("a parameter more", &format!("{path}&must_exist=true"), Some(&*first)),
    ] {
        assert_eq!(open(&relay, path, EVENTS, resumes).await.err(), Some(401), "{door}");
    }
    let second = publish(&relay, &who, 2).await;
    until(&mut stream, "\"payload\":2").await;

    // As a browser does that has lost its connection, before the relay knows.
    let mut resumed = open(&relay, &path, EVENTS, Some(&first)).await.expect("it resumes");
    assert!(until(&mut resumed, "\"payload\":2").await.contains(&second));
    ends_as_revoked(&mut stream).await;
    // As a page does that keeps the id itself.
    let mut again =
        open(&relay, &format!("{path}&last_event_id={second}"), EVENTS, None).await.expect("it resumes");
    publish(&relay, &who, 3).await;
    assert!(!until(&mut again, "\"payload\":3").await.contains("\"payload\":2"));
    ends_as_revoked(&mut resumed).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_ticket_is_good_for_nothing_else_and_can_do_no_more_than_its_maker() {
    let relay = closed::start(memory()).await;
    let (_, who) = token(&relay, ROOT, &["allow publish,read a.*"]).await;
    let code = async |wanted: Value| {
        let answer = send(&relay, Some(&who), "POST", "/api/v1/tickets", &wanted).await;
        (answer.status != 201).then(|| answer.problem().code)
    };
    for (wanted, expected) in [
        (json!({ "topics": ["a.x", "a.*"] }), None),
        (json!({ "topics": ["b"] }), Some(Code::Forbidden)),
        (json!({ "rules": ["allow read *"] }), None),
        (json!({}), Some(Code::InvalidField)),
        (json!({ "topics": [] }), Some(Code::InvalidField)),
        (json!({ "topics": ["a.x"], "rules": [] }), Some(Code::InvalidField)),
        (json!({ "topics": ["a b"] }), Some(Code::InvalidField)),
        (json!({ "rules": ["allow"] }), Some(Code::InvalidField)),
        (json!({ "topics": vec!["a.x"; 201] }), Some(Code::InvalidField)),
        (json!({ "topics": "a.x" }), Some(Code::InvalidField)),
    ] {
        assert_eq!(code(wanted.clone()).await, expected, "{wanted}");
    }
    let nobody = send(&relay, None, "POST", "/api/v1/tickets", &json!({ "topics": ["a.x"] })).await;
    assert_eq!(nobody.status, 401);

    let wide = ticket(&relay, &who, &json!({ "rules": ["allow read,publish *"] })).await;
    assert_eq!(open(&relay, &path("b", &wide), EVENTS, None).await.err(), Some(403), "its maker may not");
    for (method, path) in [
        ("GET", "/api/v1/topics/a.x/messages?ticket="),
        ("GET", "/api/v1/topics?ticket="),
        ("POST", "/api/v1/topics/a.x/messages?ticket="),
        ("GET", "/api/v1/topics/a.x?ticket="),
        ("DELETE", "/api/v1/topics/a.x?ticket="),
    ] {
        let path = format!("{path}{wide}");
        let answer = relay.send(method, &path, &[("content-type", "application/json")], b"1").await;
        assert!(matches!(answer.status, 400 | 401), "{method} {path}: {answer:?}");
    }
    let bearer = format!("Bearer {wide}");
    let shown = send(&relay, Some(&bearer), "GET", "/api/v1/topics", &Value::Null).await;
    assert_eq!(shown.status, 401, "a ticket is no token");
    let (_, secret) = who.split_once(' ').expect("a token");
    for wrong in [secret, "tk_", "", "tk_0123456789abcdef_typed"] {
        assert_eq!(open(&relay, &path("a.x", wrong), EVENTS, None).await.err(), Some(401), "{wrong}");
    }
    let both =
        relay.send("GET", &path("a.x", &wide), &[("accept", EVENTS), ("authorization", &who)], b"").await;
    assert_eq!(both.problem().code, Code::InvalidField, "one of the two is meant");
    relay.stop().await;
}

#[tokio::test]
async fn a_ticket_opens_one_socket_once_and_publishes_what_its_rules_allow() {
    let relay = closed::start(memory()).await;
    let ann = user(&relay, "ann", &["write"]).await;
    let ticket = ticket(&relay, &ann, &json!({ "rules": ["allow publish,read a.*"] })).await;
    let path = format!("/ws?ticket={ticket}");
    let mut socket = WsClient::connect_at(relay.address, &path).await.expect("it upgrades");
    socket.subscribe("a.x", "latest").await;
    socket.send(r#"{"type":"publish","topic":"a.x","payload":1}"#).await;
    let frames = [socket.frame().await, socket.frame().await];
    assert!(frames.iter().any(|frame| frame["type"] == "published"), "{frames:?}");
    let refused = socket.ask(r#"{"type":"publish","topic":"b","payload":1}"#, "error").await;
    assert_eq!(refused["details"]["code"], "forbidden", "{refused}");
    for _ in 0..2 {
        assert!(WsClient::connect_at(relay.address, &path).await.is_err(), "a socket is not resumed");
    }
    let removed = send(&relay, Some(ROOT), "DELETE", "/api/v1/users/ann", &Value::Null).await;
    assert_eq!(removed.status, 204);
    assert_eq!(
        (socket.got().await, socket.got().await),
        (Got::End, Got::Close(4401)),
        "it ends with its maker"
    );
    relay.stop().await;
}

#[tokio::test]
async fn what_is_open_ends_with_the_token_that_made_its_ticket() {
    let relay = closed::start(memory()).await;
    let (id, who) = token(&relay, ROOT, &["allow read *"]).await;
    let made = ticket(&relay, &who, &json!({ "topics": ["t"] })).await;
    let mut stream = open(&relay, &path("t", &made), EVENTS, None).await.expect("it opens");
    let unused = ticket(&relay, &who, &json!({ "topics": ["t"] })).await;
    let gone = send(&relay, Some(ROOT), "DELETE", &format!("/api/v1/tokens/{id}"), &Value::Null).await;
    assert_eq!(gone.status, 204);
    ends_as_revoked(&mut stream).await;
    for ticket in [&made, &unused] {
        assert_eq!(open(&relay, &path("t", ticket), EVENTS, Some("0-0")).await.err(), Some(401));
    }
    relay.stop().await;
}

async fn is_shared_by_all_nodes(ground: Ground) {
    let one = closed::start(ground.storage.clone()).await;
    let two = closed::start(ground.storage.clone()).await;
    let (_, who) = token(&one, ROOT, &["allow publish,read *"]).await;
    eventually(Duration::from_secs(5), async || {
        send(&two, Some(&who), "GET", "/api/v1/topics", &Value::Null).await.status == 200
    })
    .await;
    let first = publish(&one, &who, 1).await;
    let ticket = ticket(&one, &who, &json!({ "topics": ["t"] })).await;
    let path = path("t", &ticket);
    let mut stream = open(&two, &path, EVENTS, None).await.expect("it opens on another node");
    until(&mut stream, "\"payload\":1").await;
    assert_eq!(open(&one, &path, EVENTS, None).await.err(), Some(401), "it was used there");
    let mut resumed = open(&one, &path, EVENTS, Some(&first)).await.expect("it resumes here");
    let began = tokio::time::Instant::now();
    ends_as_revoked(&mut stream).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    publish(&two, &who, 2).await;
    until(&mut resumed, "\"payload\":2").await;
    drop(resumed);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn nodes_on_one_memory_share_tickets() {
    is_shared_by_all_nodes(Ground::memory().await.expect("memory is always there")).await;
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn nodes_on_one_valkey_share_tickets() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        is_shared_by_all_nodes(ground).await;
    }
}

#[tokio::test]
async fn an_open_relay_takes_tickets_and_asks_nobody() {
    let relay = TestRelay::start(memory()).await;
    let made = relay.post("/api/v1/tickets", r#"{"topics":["t"]}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let ticket = made.json()["ticket"].as_str().expect("a text").to_owned();
    for _ in 0..2 {
        assert!(open(&relay, &path("t", &ticket), EVENTS, None).await.is_ok());
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_ticket_of_a_log_in_ends_with_it() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["write"]).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let log_in = async || {
        let body = b"username=ann&password=correct+horse";
        let tokens = relay.send("POST", "/auth/login", &[form], body).await.json();
        format!("Bearer {}", tokens["access_token"].as_str().expect("a text"))
    };
    let (one, other) = (log_in().await, log_in().await);
    publish(&relay, &one, 1).await;
    let mut streams = Vec::new();
    for who in [&one, &other] {
        let ticket = ticket(&relay, who, &json!({ "topics": ["t"] })).await;
        let mut stream = open(&relay, &path("t", &ticket), EVENTS, None).await.expect("it opens");
        until(&mut stream, "\"payload\":1").await;
        streams.push(stream);
    }
    let unused = ticket(&relay, &one, &json!({ "topics": ["t"] })).await;
    assert_eq!(send(&relay, Some(&one), "POST", "/auth/logout", &Value::Null).await.status, 204);
    ends_as_revoked(&mut streams[0]).await;
    assert_eq!(open(&relay, &path("t", &unused), EVENTS, None).await.err(), Some(401));
    publish(&relay, &other, 2).await;
    until(&mut streams[1], "\"payload\":2").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_ticket_of_who_was_made_a_moment_ago_opens_on_every_node() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let relays = [closed::start(ground.storage.clone()).await, closed::start(other).await];
    let (_, root) = token(&relays[0], ROOT, &["allow publish,read *"]).await;
    publish(&relays[0], &root, 1).await;
    for number in 0..10 {
        let (_, who) = token(&relays[0], ROOT, &["allow read *"]).await;
        let ticket = ticket(&relays[0], &who, &json!({ "topics": ["t"] })).await;
        let mut stream = open(&relays[1], &path("t", &ticket), EVENTS, None).await;
        let stream = stream.as_mut().unwrap_or_else(|status| panic!("{number}: {status}"));
        until(stream, "\"payload\":1").await;
    }
    for relay in relays {
        relay.stop().await;
    }
}
