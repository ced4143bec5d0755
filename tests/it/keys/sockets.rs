//! Watching keys and rooms over a WebSocket, in both of its encodings.

mod refused;

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::access::Caller;
use tidemill::proto::frame::{ClientFrame, binary, json as text};
use tidemill::storage::Storage;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{delete, on_both_backends, post, put, revision};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

on_both_backends![
    a_snapshot_comes_and_then_every_change,
    values_come_in_their_three_forms,
    a_watch_goes_on_behind_an_id,
    who_is_behind_the_log_begins_anew,
    a_bucket_that_is_deleted_is_told_anew,
    several_watches_stand_beside_each_other_and_topics,
    a_watch_ends_when_it_is_asked_to,
    a_room_is_watched,
    a_bookmark_comes_where_nothing_does,
    a_large_snapshot_has_every_key_once,
    one_who_stops_reading_misses_nothing_and_disturbs_nobody,
    a_socket_that_ends_watches_no_more,
];

/// A client that says and hears frames as JSON, however they travel.
struct Client(WsClient);

impl Client {
    async fn connect(relay: &TestRelay, is_binary: bool) -> Self {
        Self(if is_binary {
            WsClient::connect_binary(relay.address).await
        } else {
            WsClient::connect(relay.address).await
        })
    }

    /// Returns one for each encoding.
    async fn both(relay: &TestRelay) -> [Self; 2] {
        [Self::connect(relay, false).await, Self::connect(relay, true).await]
    }

    async fn send(&mut self, frame: &Value) {
        let frame = frame.to_string();
        if self.0.protocol.is_none() {
            return self.0.send(&frame).await;
        }
        let frame: ClientFrame<'_> = text::read(&frame).expect("a frame");
        self.0.send_binary(&frame).await;
    }

    async fn next(&mut self) -> Value {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            Some(Ok(Message::Binary(bytes))) => {
                let frame = binary::read_server(&bytes).expect("a frame");
                let mut out = Vec::new();
                text::write(&frame, &mut out);
                serde_json::from_slice(&out).expect("JSON")
            }
            other => panic!("no frame: {other:?}"),
        }
    }

    async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    async fn ask(&mut self, frame: &Value, kind: &str) -> Value {
        self.send(frame).await;
        self.expect(kind).await
    }

    /// Returns what comes up to a frame of this type, without that.
    async fn up_to(&mut self, kind: &str) -> (Vec<Value>, Value) {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return (frames, frame);
            }
            frames.push(frame);
        }
    }

    /// Watches a whole bucket as `w`, and returns what there is, and the id behind it.
    async fn watch(&mut self, bucket: &str) -> (Vec<Value>, String) {
        self.ask(&json!({ "type": "watch", "watch": "w", "bucket": bucket }), "watching").await;
        let (frames, synced) = self.up_to("synced").await;
        assert_eq!(synced["id"], synced["revision"], "{synced}");
        (frames, synced["id"].as_str().expect("an id").to_owned())
    }

    /// Checks that the next frame tells this.
    async fn tells(&mut self, kind: &str, name: &str, revision: &str, id: Option<&str>) -> Value {
        let frame = self.expect(kind).await;
        assert_eq!(told(&frame), (name, revision, id), "{frame}");
        frame
    }
}

fn told(frame: &Value) -> (&str, &str, Option<&str>) {
    let name = frame["key"].as_str().or(frame["member"].as_str());
    let text = |field: &str| frame[field].as_str();
    (name.unwrap_or_default(), text("revision").unwrap_or_default(), text("id"))
}

/// Puts so many keys in one step, and returns their revisions.
async fn put_all(relay: &TestRelay, keys: impl Iterator<Item = String>) -> Vec<String> {
    let puts: Vec<_> = keys.map(|key| json!({ "op": "put", "key": key, "value": 0 })).collect();
    let answer = post(relay, "b", &[], &json!({ "changes": puts }).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let changed = answer.json()["changed"].as_array().expect("a list").clone();
    changed.iter().map(|one| one["revision"].as_str().expect("an id").to_owned()).collect()
}

async fn a_snapshot_comes_and_then_every_change(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let b = revision(&put(&relay, "b/b", &[], r#"{"n": 1}"#).await);
    let a = revision(&put(&relay, "b/a", &[], "1").await);
    put(&relay, "b/gone", &[], "1").await;
    let gone = revision(&delete(&relay, "b/gone", &[]).await);
    let mut clients = Client::both(&relay).await;
    for client in &mut clients {
        let watch = json!({ "type": "watch", "watch": "w\"", "bucket": "b", "ref": "7" });
        let watching = client.ask(&watch, "watching").await;
        assert_eq!(watching, json!({ "type": "watching", "watch": "w\"", "ref": "7" }));
        let first = client.tells("put", "a", &a, None).await;
        let second = client.tells("put", "b", &b, None).await;
        assert_eq!((&first["value"], &second["value"]), (&json!(1), &json!({ "n": 1 })));
        let synced = client.expect("synced").await;
        let expected = json!({ "type": "synced", "watch": "w\"", "revision": gone, "id": gone });
        assert_eq!(synced, expected);
    }
    let c = revision(&put(&relay, "b/c", &[], "3").await);
    let step = put_all(&relay, ["x", "y", "z"].map(str::to_owned).into_iter()).await;
    let deleted = revision(&delete(&relay, "b/a", &[]).await);
    put(&relay, "b/short?ttl=100ms", &[], "1").await;
    for client in &mut clients {
        let put = client.tells("put", "c", &c, Some(&c)).await;
        assert_eq!((&put["watch"], &put["value"]), (&json!("w\""), &json!(3)));
        // The place is behind the step, never inside.
        client.tells("put", "x", &step[0], None).await;
        client.tells("put", "y", &step[1], None).await;
        client.tells("put", "z", &step[2], Some(&step[2])).await;
        let frame = client.tells("deleted", "a", &deleted, Some(&deleted)).await;
        assert_eq!(frame.as_object().map(serde_json::Map::len), Some(5), "{frame}");
        client.expect("put").await;
        let expired = client.expect("expired").await;
        assert_eq!((&expired["key"], &expired["id"]), (&json!("short"), &expired["revision"]));
    }
    relay.stop().await;
}

async fn values_come_in_their_three_forms(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let large = format!("\"{}\"", "v".repeat(300_000));
    let put_all = async |at: &str| {
        let text = [("content-type", "text/plain; charset=utf-8")];
        relay.send("PUT", &format!("/api/v1/keys/b/{at}-text"), &text, "a\nb é".as_bytes()).await;
        let bytes = [("content-type", "image/png")];
        relay.send("PUT", &format!("/api/v1/keys/b/{at}-bytes"), &bytes, b"\x89PNG\r\n").await;
        put(&relay, &format!("b/{at}-json"), &[], "{\n  \"a\": 1\n}").await;
        put(&relay, &format!("b/{at}-large"), &[], &large).await;
    };
    put_all("before").await;
    let mut clients = Client::both(&relay).await;
    let mut frames = Vec::new();
    for client in &mut clients {
        frames.push(client.watch("b").await.0);
    }
    put_all("later").await;
    for (client, mut frames) in clients.iter_mut().zip(frames) {
        for _ in 0..4 {
            frames.push(client.expect("put").await);
        }
        assert_eq!(frames.len(), 8);
        for frame in &frames {
            let of = |name: &str| frame.get(name).cloned();
            let members = (of("value"), of("value_text"), of("value_base64"), of("content_type"));
            let expected = match told(frame).0.split_once('-').expect("two parts").1 {
                "text" => (None, Some(json!("a\nb é")), None, Some(json!("text/plain; charset=utf-8"))),
                "bytes" => (None, None, Some(json!("iVBORw0K")), Some(json!("image/png"))),
                "large" => (Some(serde_json::from_str(&large).expect("JSON")), None, None, None),
                _ => (Some(json!({ "a": 1 })), None, None, None),
            };
            assert_eq!(members, expected);
        }
    }
    relay.stop().await;
}

async fn a_watch_goes_on_behind_an_id(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "b/a", &[], "1").await;
    let [mut first, _] = Client::both(&relay).await;
    let (_, place) = first.watch("b").await;
    let step = put_all(&relay, ["x", "y"].map(str::to_owned).into_iter()).await;
    let deleted = revision(&delete(&relay, "b/a", &[]).await);
    for mut client in Client::both(&relay).await {
        let watch = json!({ "type": "watch", "watch": "w", "bucket": "b", "cursor": place });
        client.ask(&watch, "watching").await;
        client.tells("put", "x", &step[0], None).await;
        client.tells("put", "y", &step[1], Some(&step[1])).await;
        client.tells("deleted", "a", &deleted, Some(&deleted)).await;
        // One key alone: the step ends with what it does not watch.
        let one = json!({ "type": "watch", "watch": "one", "bucket": "b", "key": "x", "cursor": place });
        client.ask(&one, "watching").await;
        client.tells("put", "x", &step[0], None).await;
        let bookmark = client.expect("bookmark").await;
        assert_eq!((&bookmark["watch"], &bookmark["id"]), (&json!("one"), &json!(step[1])));
    }
    relay.stop().await;
}

async fn who_is_behind_the_log_begins_anew(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let early = revision(&put(&relay, "b/stays", &[], "1").await);
    for round in 0..130 {
        put_all(&relay, (0..100).map(|at| format!("k{}", (round * 7 + at) % 150))).await;
    }
    for mut client in Client::both(&relay).await {
        let watch = json!({ "type": "watch", "watch": "w", "bucket": "b", "cursor": early });
        client.ask(&watch, "watching").await;
        assert_eq!(client.expect("reset").await, json!({ "type": "reset", "watch": "w" }));
        let (frames, synced) = client.up_to("synced").await;
        assert_eq!(frames.len(), 151);
        assert!(frames.iter().all(|frame| frame["type"] == "put" && frame.get("id").is_none()));
        let next = revision(&put(&relay, "b/k1", &[], "1").await);
        assert!(synced["id"].as_str() < Some(&*next), "{synced}");
        client.tells("put", "k1", &next, Some(&next)).await;
    }
    relay.stop().await;
}

async fn a_bucket_that_is_deleted_is_told_anew(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "b/a", &[], "1").await;
    let mut clients = Client::both(&relay).await;
    for client in &mut clients {
        assert_eq!(client.watch("b").await.0.len(), 1);
    }
    assert_eq!(relay.send("DELETE", "/api/v1/buckets/b", &[], b"").await.status, 204);
    let c = revision(&put(&relay, "b/c", &[], "1").await);
    for client in &mut clients {
        client.expect("reset").await;
        let (frames, _) = client.up_to("synced").await;
        // It may be told of the deletion before there is another one.
        let put = match frames.into_iter().next() {
            Some(frame) => frame,
            None => client.expect("put").await,
        };
        assert_eq!((told(&put).0, told(&put).1), ("c", &*c));
    }
    relay.stop().await;
}

async fn several_watches_stand_beside_each_other_and_topics(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for mut client in Client::both(&relay).await {
        client.0.subscribe("t", "latest").await;
        for (name, bucket, prefix) in [("jobs", "b", "job."), ("all", "b", ""), ("other", "c", "")] {
            let watch = json!({ "type": "watch", "watch": name, "bucket": bucket, "prefix": prefix });
            client.ask(&watch, "watching").await;
            client.up_to("synced").await;
        }
        let used = json!({ "type": "watch", "watch": "all", "bucket": "c", "ref": "3" });
        let error = client.ask(&used, "error").await;
        assert_eq!((&error["ref"], &error["details"]["field"]), (&json!("3"), &json!("watch")), "{error}");
        let job = revision(&put(&relay, "b/job.1", &[], "1").await);
        let plain = revision(&put(&relay, "b/plain", &[], "1").await);
        let other = revision(&put(&relay, "c/job.1", &[], "1").await);
        relay.publish("t", "1").await;
        let mut seen = Vec::new();
        for _ in 0..5 {
            let frame = client.next().await;
            let text = |field: &str| frame[field].as_str().unwrap_or_default().to_owned();
            seen.push((text("type"), text("watch"), text("id")));
        }
        seen.sort_unstable();
        let put = |watch: &str, id: &str| ("put".to_owned(), watch.to_owned(), id.to_owned());
        let mut expected =
            [put("jobs", &job), put("all", &job), put("all", &plain), put("other", &other)].to_vec();
        expected.push(("message".to_owned(), String::new(), String::new()));
        expected.sort_unstable();
        assert_eq!(seen, expected);
        delete(&relay, "b/job.1", &[]).await;
        delete(&relay, "b/plain", &[]).await;
        delete(&relay, "c/job.1", &[]).await;
    }
    relay.stop().await;
}

async fn a_watch_ends_when_it_is_asked_to(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for mut client in Client::both(&relay).await {
        let (_, place) = client.watch("b").await;
        let end = json!({ "type": "unwatch", "watch": "w", "ref": "9" });
        let unwatched = client.ask(&end, "unwatched").await;
        assert_eq!(unwatched, json!({ "type": "unwatched", "watch": "w", "ref": "9", "id": place }));
        put(&relay, "b/a", &[], "1").await;
        // Nothing comes any more, and its name is free.
        let again = client.ask(&json!({ "type": "unwatch", "watch": "w" }), "unwatched").await;
        assert_eq!(again, json!({ "type": "unwatched", "watch": "w" }));
        let on = json!({ "type": "watch", "watch": "w", "bucket": "b", "cursor": place });
        client.ask(&on, "watching").await;
        assert_eq!(client.expect("put").await["key"], "a");
        // Each question has its answer, also where the watch has had no time to begin.
        client.send(&json!({ "type": "watch", "watch": "v", "bucket": "b", "ref": "10" })).await;
        client.send(&json!({ "type": "unwatch", "watch": "v", "ref": "11" })).await;
        let mut answers = Vec::new();
        while answers.last() != Some(&json!("unwatched")) {
            let mut frame = client.next().await;
            if frame["watch"] == "v" {
                answers.extend([frame["ref"].take(), frame["type"].take()]);
            }
        }
        let first: Vec<_> = answers.iter().filter(|answer| !answer.is_null()).collect();
        assert_eq!(first[..2], ["10", "watching"], "{answers:?}");
        assert_eq!(first[first.len() - 2..], ["11", "unwatched"], "{answers:?}");
        relay.send("DELETE", "/api/v1/buckets/b", &[], b"").await;
    }
    relay.stop().await;
}

async fn a_room_is_watched(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let room = "/api/v1/presence/lobby";
    let join = async |member: &str, query: &str, data: &str| {
        let json = [("content-type", "application/json")];
        relay.send("PUT", &format!("{room}/{member}{query}"), &json, data.as_bytes()).await
    };
    join("ann", "", r#"{"role": "pilot"}"#).await;
    let mut clients = Client::both(&relay).await;
    let mut places = Vec::new();
    for client in &mut clients {
        client.ask(&json!({ "type": "watch", "watch": "r", "room": "lobby" }), "watching").await;
        let (there, synced) = client.up_to("synced").await;
        let [ann] = &there[..] else { panic!("{there:?}") };
        assert_eq!((&ann["type"], &ann["member"]), (&json!("joined"), &json!("ann")));
        assert_eq!((&ann["data"], ann["since"].is_string()), (&json!({ "role": "pilot" }), true));
        places.push(synced["id"].clone());
    }
    join("bob", "?ttl=1s", "").await;
    assert_eq!(relay.send("DELETE", &format!("{room}/ann"), &[], b"").await.status, 204);
    for client in &mut clients {
        let bob = client.expect("joined").await;
        assert_eq!((&bob["member"], &bob["id"]), (&json!("bob"), &bob["revision"]));
        let left = client.expect("left").await;
        assert_eq!((&left["member"], &left["reason"]), (&json!("ann"), &json!("left")));
        let left = client.expect("left").await;
        assert_eq!((&left["member"], &left["reason"]), (&json!("bob"), &json!("expired")));
    }
    for (mut client, place) in Client::both(&relay).await.into_iter().zip(places) {
        let watch = json!({ "type": "watch", "watch": "r", "room": "lobby", "cursor": place });
        client.ask(&watch, "watching").await;
        for (kind, member) in [("joined", "bob"), ("left", "ann"), ("left", "bob")] {
            assert_eq!(client.expect(kind).await["member"], member);
        }
    }
    relay.stop().await;
}

async fn a_bookmark_comes_where_nothing_does(storage: Storage) {
    let every = Duration::from_millis(200);
    let relay = TestRelay::start_with(storage, |options| options.ws.bookmark_every = every).await;
    for mut client in Client::both(&relay).await {
        client.ask(&json!({ "type": "watch", "watch": "w", "bucket": "b", "prefix": "a" }), "watching").await;
        client.expect("synced").await;
        // Nothing of this is its own, and still it need not be passed again.
        let other = revision(&put(&relay, "b/other", &[], "1").await);
        let started = Instant::now();
        while client.expect("bookmark").await["id"] != other {
            assert!(started.elapsed() < SOON);
        }
    }
    relay.stop().await;
}

async fn a_large_snapshot_has_every_key_once(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for round in 0..30 {
        put_all(&relay, (0..100).map(|at| format!("k{:04}", round * 100 + at))).await;
    }
    for mut client in Client::both(&relay).await {
        let mut there = std::collections::BTreeMap::new();
        let mut revisions = std::collections::HashSet::new();
        let changes = async {
            for at in 0..40 {
                put_all(&relay, (0..50).map(|key| format!("k{:04}", key * 60 + at))).await;
            }
            put(&relay, "b/last", &[], "1").await;
        };
        let reading = async {
            client.send(&json!({ "type": "watch", "watch": "w", "bucket": "b" })).await;
            client.expect("watching").await;
            loop {
                let frame = client.next().await;
                if frame["type"] == "put" {
                    let (key, revision, id) = told(&frame);
                    assert!(revisions.insert(revision.to_owned()), "twice: {frame}");
                    there.insert(key.to_owned(), revision.to_owned());
                    if key == "last" && id.is_some() {
                        return;
                    }
                }
            }
        };
        tokio::join!(changes, reading);
        assert_eq!(there.len(), 3_001);
        let page = relay.get("/api/v1/keys/b?limit=1000&prefix=k1").await.json();
        for key in page.as_array().expect("a list") {
            let (name, revision) = (key["key"].as_str(), key["revision"].as_str());
            assert_eq!(there.get(name.expect("a name")).map(String::as_str), revision);
        }
        delete(&relay, "b/last", &[]).await;
    }
    relay.stop().await;
}

async fn one_who_stops_reading_misses_nothing_and_disturbs_nobody(storage: Storage) {
    const CHANGES: usize = 300;
    let relay =
        TestRelay::start_with(storage, |options| options.write_timeout = Duration::from_mins(1)).await;
    let value = format!("\"{}\"", "v".repeat(60_000));
    let mut slow = Client(WsClient::connect_narrow(relay.address).await);
    slow.watch("b").await;
    let mut quick = Client::both(&relay).await;
    for client in &mut quick {
        client.watch("b").await;
    }
    let mut revisions = Vec::new();
    for at in 0..CHANGES {
        let put = revision(&put(&relay, &format!("b/k{}", at % 5), &[], &value).await);
        for client in &mut quick {
            assert_eq!(told(&client.expect("put").await).1, put, "it has it at once");
        }
        revisions.push(put);
    }
    for revision in &revisions {
        let frame = slow.expect("put").await;
        assert_eq!(frame["id"], **revision, "it gets everything, in order");
        assert_eq!(frame["value"].as_str().map(str::len), Some(60_000));
    }
    relay.stop().await;
}

async fn a_socket_that_ends_watches_no_more(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for is_binary in [false, true] {
        let mut client = Client::connect(&relay, is_binary).await;
        client.watch("b").await;
        client.ask(&json!({ "type": "watch", "watch": "r", "room": "lobby" }), "watching").await;
        client.expect("synced").await;
        assert!(relay.sessions.end(&Caller::anyone()) > 0);
        let end = client.expect("end").await;
        assert!(end["reason"].is_string(), "{end}");
        client.0.closed().await;
        eventually(SOON, async || relay.sessions.count() == 0).await;
    }
    let mut client = Client::connect(&relay, false).await;
    client.watch("b").await;
    assert!(relay.sessions.count() > 0);
    client.0.close().await;
    eventually(SOON, async || relay.sessions.count() == 0).await;
    relay.stop().await;
}
