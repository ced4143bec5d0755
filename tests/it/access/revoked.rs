//! What is taken away is gone on every node within a second, and what was open ends.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;
use tokio::time::{Instant, timeout};

use super::closed::{self, ROOT, send, token, user};
use crate::support::eventually;
use crate::support::ground::Ground;
use crate::support::raw::Stream;
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{Got, WsClient};

/// How long a session of who may not go on goes on at most.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// How long a node lets in who was sent away by another.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// What somebody has open on every live door.
struct Open {
    socket: WsClient,
    binary: WsClient,
    streams: Vec<(&'static str, Stream)>,
}

impl Open {
    async fn all(relay: &TestRelay, who: &str) -> Self {
        let headers = [("authorization", who)];
        let binary = [headers[0], ("sec-websocket-protocol", "tidemill.bincode.v1")];
        let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
        let mut binary = WsClient::connect_with(relay.address, &binary).await.expect("it upgrades");
        socket.subscribe("t", "latest").await;
        binary.subscribe("t", "latest").await;
        let mut streams = Vec::new();
        for (door, path, kind) in [
            ("events", "/api/v1/topics/t/messages?after=latest", "text/event-stream"),
            ("several", "/api/v1/stream?topics=t", "text/event-stream"),
            ("pattern", "/api/v1/stream?topics=*", "text/event-stream"),
            ("lines", "/api/v1/topics/t/messages?after=latest", "application/x-ndjson"),
        ] {
            let who = format!("authorization: {who}\r\n");
            streams.push((door, Stream::open(relay.address, path, kind, &who).await.expect("a stream")));
        }
        Self { socket, binary, streams }
    }

    /// Checks that each is told why it ends, and ends.
    async fn end(mut self) {
        for socket in [&mut self.socket, &mut self.binary] {
            assert_eq!((socket.got().await, socket.got().await), (Got::End, Got::Close(4401)));
        }
        for (door, stream) in &mut self.streams {
            let told = String::from_utf8(stream.rest().await.expect("it ends well")).expect("text");
            let is_told =
                if *door == "lines" { told.contains(r#""type":"end""#) } else { told.contains("event: end") };
            assert!(is_told && told.contains("revoked"), "{door}: {told}");
        }
    }
}

async fn ends_within(relay: &TestRelay, open: Open, take_away: impl Future<Output = ()>) {
    assert!(relay.sessions.count() >= 6);
    let began = Instant::now();
    take_away.await;
    timeout(ENDED_WITHIN, open.end()).await.expect("all of it ends in time");
    assert!(began.elapsed() < ENDED_WITHIN, "{:?}", began.elapsed());
    eventually(ENDED_WITHIN, async || relay.sessions.count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_ends_when_its_right_is_taken_away() {
    let relay = closed::start(memory()).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let body = json!({ "topic": "t", "payload": 1 });
    assert_eq!(send(&relay, Some(&all), "POST", "/api/v1/messages", &body).await.status, 201);
    let delete = async |path: String| {
        assert_eq!(send(&relay, Some(ROOT), "DELETE", &path, &Value::Null).await.status, 204, "{path}");
    };
    let put = async |path: &str, body: Value| {
        let answer = send(&relay, Some(ROOT), "PUT", path, &body).await;
        assert!(answer.status < 300, "{answer:?}");
    };

    // Revoked itself.
    let (id, reader) = token(&relay, ROOT, &["allow read *"]).await;
    let open = Open::all(&relay, &reader).await;
    ends_within(&relay, open, delete(format!("/api/v1/tokens/{id}"))).await;

    // Its maker is removed, not active, or has another role; or the role has other rules.
    for (at, take_away) in ["remove", "idle", "role", "rules"].into_iter().enumerate() {
        let name = format!("u{at}");
        put("/api/v1/roles/crew", json!({ "rules": ["allow read *"] })).await;
        let basic = user(&relay, &name, &["crew"]).await;
        let (_, reader) = token(&relay, &basic, &["allow read *"]).await;
        let open = Open::all(&relay, &reader).await;
        let path = format!("/api/v1/users/{name}");
        ends_within(&relay, open, async {
            match take_away {
                "remove" => delete(path).await,
                "idle" => put(&path, json!({ "is_active": false })).await,
                "role" => put(&path, json!({ "roles": [] })).await,
                _ => put("/api/v1/roles/crew", json!({ "rules": ["allow read other"] })).await,
            }
        })
        .await;
    }

    // Its time is over.
    let wanted = json!({ "name": "t", "rules": ["allow read *"], "expires_in": 1 });
    let made = send(&relay, Some(ROOT), "POST", "/api/v1/tokens", &wanted).await.json();
    let open = Open::all(&relay, &format!("Bearer {}", made["token"].as_str().expect("a text"))).await;
    ends_within(&relay, open, async {}).await;

    // Nobody else was sent away meanwhile.
    assert_eq!(send(&relay, Some(&all), "POST", "/api/v1/messages", &body).await.status, 201);
    relay.stop().await;
}

async fn nodes_agree_within_a_second(storage: Storage) {
    let relays = [closed::start(storage.clone()).await, closed::start(storage).await];
    let [one, other] = &relays;
    let reads = async |relay: &TestRelay, who: &str| {
        send(relay, Some(who), "GET", "/api/v1/topics", &Value::Null).await
    };
    let (id, bearer) = token(one, ROOT, &["allow read *"]).await;
    assert_eq!(reads(one, &bearer).await.status, 200, "whoever is answered is let in at once");
    assert_eq!(reads(other, &bearer).await.status, 200, "on every node");
    let mut socket =
        WsClient::connect_with(other.address, &[("authorization", &*bearer)]).await.expect("it upgrades");
    socket.subscribe("t", "latest").await;
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(send(one, Some(ROOT), "DELETE", &path, &Value::Null).await.status, 204);
    assert_eq!(reads(one, &bearer).await.problem().code, Code::Unauthenticated);
    eventually(GONE_WITHIN, async || reads(other, &bearer).await.status == 401).await;
    assert_eq!((socket.got().await, socket.got().await), (Got::End, Got::Close(4401)));

    // A user of one is known to the other, with its password, and a role that is written here holds there.
    let ann = user(one, "ann", &["read"]).await;
    let tokens =
        async |relay: &TestRelay| send(relay, Some(&ann), "GET", "/api/v1/tokens", &Value::Null).await;
    assert_eq!(tokens(other).await.status, 200, "at once");
    let rules = json!({ "rules": ["allow read public.*"] });
    assert_eq!(send(other, Some(ROOT), "PUT", "/api/v1/roles/anonymous", &rules).await.status, 200);
    let anonymous = async || send(one, None, "GET", "/api/v1/topics", &Value::Null).await.status == 200;
    eventually(GONE_WITHIN, anonymous).await;
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_memory_agree_within_a_second() {
    nodes_agree_within_a_second(memory()).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_server_agree_within_a_second() {
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    nodes_agree_within_a_second(ground.storage.clone()).await;
}

/// Who reads a topic because it owns it does not read what others publish under that name afterwards.
#[tokio::test]
async fn who_owned_a_topic_stops_reading_it() {
    let relay = closed::start(memory()).await;
    let put = json!({ "rules": ["allow publish mk.*"] });
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/roles/maker", &put).await.status, 201);
    user(&relay, "eve", &["maker"]).await;
    user(&relay, "vic", &["maker"]).await;
    let (eve, vic) = (closed::log_in(&relay, "eve").await, closed::log_in(&relay, "vic").await);
    let path = "/api/v1/topics/mk.t/messages";
    assert_eq!(send(&relay, Some(&eve), "POST", path, &json!(1)).await.status, 201);
    let headers = [("authorization", &*eve)];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    socket.subscribe("mk.t", "latest").await;
    let who = format!("authorization: {eve}\r\n");
    let live = format!("{path}?after=latest");
    let mut stream =
        Stream::open(relay.address, &live, "application/x-ndjson", &who).await.expect("a stream");
    // It still owns it: nothing ends.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(send(&relay, Some(&eve), "POST", path, &json!(2)).await.status, 201);
    assert!(matches!(socket.got().await, Got::Message(_, payload) if payload == b"2"));
    assert_eq!(send(&relay, Some(&eve), "DELETE", "/api/v1/topics/mk.t", &Value::Null).await.status, 204);
    let told = timeout(ENDED_WITHIN, stream.rest()).await.expect("in time").expect("it ends well");
    let told = String::from_utf8(told).expect("text");
    assert!(told.contains("revoked"), "{told}");
    assert_eq!(send(&relay, Some(&vic), "POST", path, &json!(3)).await.status, 201);
    loop {
        match timeout(ENDED_WITHIN, socket.got()).await.expect("in time") {
            Got::Close(code) => break assert_eq!(code, 4401),
            Got::Message(_, payload) => assert_ne!(payload, b"3", "a message of another owner"),
            _ => {}
        }
    }
    relay.stop().await;
}
