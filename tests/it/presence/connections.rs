//! Connections that are members of rooms by themselves: over every transport, until they close, and across nodes.

use std::time::Duration;

use serde_json::json;
use tidemill::proto::{BucketName, RoomName};
use tidemill::server::ServerOptions;
use tidemill::storage::StorageError;
use tokio::time::Instant;

use super::{ROOM, members, watch};
use crate::streams::on_both_backends;
use crate::support::always;
use crate::support::ground::Ground;
use crate::support::raw::Stream;
use crate::support::relay::TestRelay;
use crate::support::watcher::{Form, Watcher};
use crate::support::ws::WsClient;

on_both_backends! {
    a_connection_is_a_member_until_it_closes,
    a_connection_stays_as_long_as_it_is_open,
    a_name_stays_until_its_last_connection_closes,
    who_comes_back_within_the_grace_has_never_left,
    a_node_that_stops_lets_its_members_come_back,
    a_refused_connection_is_no_member
}

/// A connection that is a member of the room.
enum Connection {
    Stream(Stream),
    Watcher(Watcher),
    Socket(Box<WsClient>),
}

/// The ways to be one.
const WAYS: [&str; 4] = ["events", "lines", "watch", "socket"];

async fn open(relay: &TestRelay, way: &str, member: &str) -> Connection {
    let present = format!("presence=lobby&member={member}");
    let stream = async |kind: &str| {
        let path = format!("/api/v1/stream?topics=t&{present}");
        Connection::Stream(Stream::open(relay.address, &path, kind, "").await.expect("a stream"))
    };
    match way {
        "events" => stream("text/event-stream").await,
        "lines" => stream("application/x-ndjson").await,
        "watch" => {
            let path = format!("/api/v1/keys/b?{present}");
            Connection::Watcher(Watcher::open(relay.address, &path, Form::Events, "").await.expect("a watch"))
        }
        _ => {
            let path = format!("/ws?{present}");
            Connection::Socket(Box::new(WsClient::connect_at(relay.address, &path).await.expect("a socket")))
        }
    }
}

async fn close(connection: Connection) {
    match connection {
        Connection::Stream(stream) => drop(stream),
        Connection::Watcher(watcher) => drop(watcher),
        Connection::Socket(socket) => socket.close().await,
    }
}

/// Starts a relay whose members stay for so long.
async fn start(ground: &Ground, ttl_ms: u64, grace_ms: u64) -> TestRelay {
    let storage = ground.storage.clone();
    TestRelay::start_with(storage, |options: &mut ServerOptions| {
        options.relay.presence.ttl = Duration::from_millis(ttl_ms);
        options.relay.presence.grace = Duration::from_millis(grace_ms);
        options.drain = Duration::from_millis(300);
    })
    .await
}

async fn a_connection_is_a_member_until_it_closes(ground: &Ground) {
    let relay = start(ground, 15_000, 0).await;
    let mut watcher = watch(&relay, Form::Lines).await;
    watcher.expect("synced").await;
    for way in WAYS {
        let connection = open(&relay, way, way).await;
        let joined = watcher.expect("joined").await;
        let of = |name: &str| joined.data[name].as_str().map(str::to_owned);
        assert_eq!((joined.name(), of("address").as_deref()), (way, Some("127.0.0.1")), "{joined:?}");
        assert!(of("node").is_some() && of("connection").is_some() && of("since").is_some(), "{joined:?}");
        let room = relay.get(ROOM).await.json();
        assert_eq!(
            (&room["count"], &room["members"][0]["connection"]),
            (&json!(1), &json!(of("connection")))
        );
        close(connection).await;
        let left = watcher.expect("left").await;
        assert_eq!((left.name(), &left.data["reason"]), (way, &json!("left")));
    }
    // Who gives no name gets one, of its own each.
    let path = "/api/v1/stream?topics=t&presence=lobby";
    let one = Stream::open(relay.address, path, "text/event-stream", "").await.expect("a stream");
    let two = Stream::open(relay.address, path, "text/event-stream", "").await.expect("a stream");
    let (first, second) = (watcher.expect("joined").await, watcher.expect("joined").await);
    assert_ne!(first.name(), second.name());
    let metrics = relay.get("/metrics").await;
    assert!(
        metrics.text().lines().any(|line| line == "tidemill_presence_connections 2"),
        "{}",
        metrics.text()
    );
    drop((one, two));
    watcher.expect("left").await;
    watcher.expect("left").await;
    assert_eq!(members(&relay).await, Vec::<String>::new());
    relay.stop().await;
}

async fn a_connection_stays_as_long_as_it_is_open(ground: &Ground) {
    let relay = start(ground, 1_000, 200).await;
    let mut watcher = watch(&relay, Form::Events).await;
    watcher.expect("synced").await;
    let connection = open(&relay, "socket", "ann").await;
    watcher.expect("joined").await;
    always(Duration::from_secs(3), async || members(&relay).await == ["ann"]).await;
    // Somebody takes it out; it is there, and its node says so again.
    assert_eq!(super::leave(&relay, "ann").await, 204);
    assert_eq!(watcher.expect("left").await.name(), "ann");
    assert_eq!(watcher.expect("joined").await.name(), "ann");
    let started = Instant::now();
    close(connection).await;
    let left = watcher.expect("left").await;
    assert_eq!((left.name(), &left.data["reason"]), ("ann", &json!("expired")));
    assert!(started.elapsed() >= Duration::from_millis(150), "after its grace: {:?}", started.elapsed());
    relay.stop().await;
}

async fn a_name_stays_until_its_last_connection_closes(ground: &Ground) {
    let relay = start(ground, 1_000, 0).await;
    let mut watcher = watch(&relay, Form::Events).await;
    watcher.expect("synced").await;
    let mut open_ones = Vec::new();
    let mut told = Vec::new();
    for way in ["events", "socket", "lines"] {
        open_ones.push(open(&relay, way, "ann").await);
        told.push(watcher.expect("joined").await.data["connection"].clone());
    }
    // An older one: nobody is told. The newest: the one before it is the connection that is there.
    close(open_ones.remove(0)).await;
    close(open_ones.pop().expect("it is open")).await;
    assert_eq!(watcher.expect("joined").await.data["connection"], told[1]);
    // It is said again and again that it is there.
    always(Duration::from_millis(2_500), async || members(&relay).await == ["ann"]).await;
    // One that is refused is none.
    let refused = "/api/v1/stream?topics=%21&presence=lobby&member=ann";
    let headers = [("accept", "text/event-stream")];
    assert_eq!(relay.send("GET", refused, &headers, b"").await.status, 400);
    always(Duration::from_millis(1_500), async || members(&relay).await == ["ann"]).await;
    close(open_ones.pop().expect("it is open")).await;
    let mut last = watcher.next().await.expect("it goes on");
    while last.kind == "joined" {
        last = watcher.next().await.expect("it goes on");
    }
    assert_eq!((last.kind.as_str(), last.name()), ("left", "ann"));
    relay.stop().await;
}

async fn who_comes_back_within_the_grace_has_never_left(ground: &Ground) {
    let (one, two) = (start(ground, 15_000, 3_000).await, start(ground, 15_000, 3_000).await);
    let mut watcher = watch(&two, Form::Events).await;
    watcher.expect("synced").await;
    let mut connection = open(&one, "events", "ann").await;
    let since = watcher.expect("joined").await.data["since"].clone();
    let mut connections = vec![watcher_connection(&two).await];
    for (round, way) in WAYS.into_iter().cycle().take(8).enumerate() {
        close(connection).await;
        let relay = if round % 2 == 0 { &two } else { &one };
        connection = open(relay, way, "ann").await;
        // Its connection is another one, and it is there since it came.
        let joined = watcher.expect("joined").await;
        assert_eq!((joined.name(), &joined.data["since"]), ("ann", &since));
    }
    // Of those that it had nobody is in its way, also when their time is over.
    always(Duration::from_secs(4), async || members(&two).await.contains(&"ann".to_owned())).await;
    let other = connections.pop().expect("it is open");
    close(connection).await;
    let left = watcher.expect("left").await;
    assert_eq!((left.name(), &left.data["reason"]), ("ann", &json!("expired")), "for the first time");
    close(other).await;
    one.stop().await;
    two.stop().await;
}

/// A connection that is no member.
async fn watcher_connection(relay: &TestRelay) -> Connection {
    let stream = Stream::open(relay.address, "/api/v1/stream?topics=t", "text/event-stream", "").await;
    Connection::Stream(stream.expect("a stream"))
}

async fn a_node_that_stops_lets_its_members_come_back(ground: &Ground) {
    let (one, two) = (start(ground, 15_000, 4_000).await, start(ground, 15_000, 4_000).await);
    let mut watcher = watch(&two, Form::Events).await;
    watcher.expect("synced").await;
    let back = open(&one, "lines", "back").await;
    let gone = open(&one, "socket", "gone").await;
    for _ in 0..2 {
        watcher.expect("joined").await;
    }
    let stopped = Instant::now();
    one.stop().await;
    close(back).await;
    drop(gone);
    let back = open(&two, "lines", "back").await;
    assert_eq!(watcher.expect("joined").await.name(), "back");
    let left = watcher.expect("left").await;
    assert_eq!((left.name(), &left.data["reason"]), ("gone", &json!("expired")));
    let after = stopped.elapsed();
    assert!(after >= Duration::from_millis(3_900), "after the grace: {after:?}");
    assert!(after < Duration::from_secs(13), "and not with its whole time: {after:?}");
    assert_eq!(members(&two).await, ["back"]);
    close(back).await;
    two.stop().await;
}

async fn a_refused_connection_is_no_member(ground: &Ground) {
    let relay = start(ground, 15_000, 0).await;
    let mut watcher = watch(&relay, Form::Events).await;
    watcher.expect("synced").await;
    let headers = [("accept", "text/event-stream")];
    let stream = "stream?topics=t&presence=lobby";
    for (path, status, field) in [
        ("stream?topics=t&presence=lobby&member=a%20b", 400, Some("member")),
        ("stream?topics=t&presence=a%20b", 400, Some("presence")),
        ("stream?topics=t&member=ann", 400, Some("member")),
        // What is wrong is something else.
        ("stream?presence=lobby&topics=%21", 400, Some("topics")),
        (&format!("{stream}&last_event_id=x"), 400, Some("last_event_id")),
        (&format!("{stream}&must_exist=true"), 404, None),
        ("topics/t/messages?presence=lobby&limit=1", 400, Some("limit")),
        ("topics/t/messages?presence=lobby&cursor=x", 400, Some("cursor")),
        ("topics/t/messages?presence=lobby&must_exist=true", 404, None),
        ("keys/b?presence=lobby&limit=1", 400, Some("limit")),
        ("keys/b?presence=lobby&prefix=%21", 400, Some("prefix")),
        ("keys/b?presence=lobby&last_event_id=x", 400, Some("last_event_id")),
        ("presence/other?presence=lobby&limit=1", 400, Some("limit")),
    ] {
        let problem = relay.send("GET", &format!("/api/v1/{path}"), &headers, b"").await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (status, field), "{path}: {problem:?}");
    }
    // Who was refused was never there, and nothing is left of it.
    let room = BucketName::of_room(&RoomName::parse("lobby").expect("a name"));
    let kept = ground.storage.buckets.bucket(&room).await;
    assert!(matches!(kept, Err(StorageError::NoBucket)), "{kept:?}");
    let first = open(&relay, "watch", "ann").await;
    assert_eq!(watcher.expect("joined").await.name(), "ann");
    close(first).await;
    assert_eq!(watcher.expect("left").await.name(), "ann");
    relay.stop().await;
}
