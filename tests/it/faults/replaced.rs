//! A stream that was replaced behind the relay's back, or changed: what every door tells, of a bare id and to
//! who reads live. The table stands in the contract of the storage.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Node;
use crate::support::eventually;
use crate::support::relay::STUCK;
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};
use crate::support::wire::Stream;
use crate::support::ws::{Got, WsClient};

const TOPIC: &str = "replaced";
const KEY: &str = "stream:topic:replaced";
/// What is published last, so that a reader knows that it has everything.
const END: &str = "\"end\"";

/// What a door tells, in its order: payloads, and `gap <reason>`.
type Told = Vec<String>;

/// A reader that has stayed, by the name of its door.
struct Live {
    door: &'static str,
    told: mpsc::UnboundedReceiver<String>,
}

/// Readers on every live door, which have got the message behind this cursor.
struct Readers {
    live: Vec<Live>,
    tasks: JoinSet<()>,
}

async fn socket(node: &Node, door: &str) -> WsClient {
    if door == "json" {
        WsClient::connect(node.relay.address).await
    } else {
        WsClient::connect_binary(node.relay.address).await
    }
}

async fn stream(node: &Node, door: &str, cursor: &str) -> Stream {
    let accept = if door == "events" { "text/event-stream" } else { "application/x-ndjson" };
    let path = format!("/api/v1/topics/{TOPIC}/messages?after={cursor}");
    Stream::open(node.relay.address, &path, accept, "").await.expect("a stream")
}

async fn next_of_socket(socket: &mut WsClient) -> String {
    match socket.got().await {
        Got::Gap(reason) => format!("gap {reason}"),
        Got::Message(_, payload) => String::from_utf8(payload).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

async fn next_of_stream(stream: &mut Stream, door: &str) -> String {
    let end = if door == "events" { &b"\n\n"[..] } else { b"\n" };
    loop {
        let block = String::from_utf8(stream.until(end).await.expect("it goes on")).expect("text");
        let data: Vec<&str> = match door {
            "events" => block.lines().filter_map(|line| line.strip_prefix("data: ")).collect(),
            _ => vec![block.trim_end()],
        };
        let Ok(frame) = serde_json::from_str::<Value>(&data.join("\n")) else { continue };
        if let Some(reason) = frame["reason"].as_str() {
            return format!("gap {reason}");
        }
        if let Some(payload) = frame.get("payload") {
            return payload.to_string();
        }
    }
}

const LIVE: [&str; 4] = ["json", "binary", "events", "lines"];

impl Readers {
    async fn attach(node: &Node, cursor: &str, first: &str) -> Self {
        let (mut live, mut tasks) = (Vec::new(), JoinSet::new());
        for door in LIVE {
            let (sender, told) = mpsc::unbounded_channel();
            live.push(Live { door, told });
            if door == "json" || door == "binary" {
                let mut socket = socket(node, door).await;
                socket.subscribe(TOPIC, cursor).await;
                tasks.spawn(async move { while sender.send(next_of_socket(&mut socket).await).is_ok() {} });
            } else {
                let mut stream = stream(node, door, cursor).await;
                tasks.spawn(
                    async move { while sender.send(next_of_stream(&mut stream, door).await).is_ok() {} },
                );
            }
        }
        let mut readers = Self { live, tasks };
        for (door, told) in readers.next(1, "at first").await {
            assert_eq!(told, [first], "{door}");
        }
        readers
    }

    /// Returns so many things that each door tells next.
    async fn next(&mut self, count: usize, of: &str) -> BTreeMap<&'static str, Told> {
        let mut all = BTreeMap::new();
        for Live { door, told } in &mut self.live {
            let mut list = Told::new();
            while list.len() < count {
                match timeout(STUCK, told.recv()).await {
                    Ok(Some(next)) => list.push(next),
                    Ok(None) => panic!("{of}: {door} ended after {list:?}: {:?}", self.tasks.try_join_next()),
                    Err(_) => panic!("{of}: {door} is stuck after {list:?}"),
                }
            }
            all.insert(*door, list);
        }
        all
    }

    /// Whether some door tells more.
    fn have_more(&mut self) -> Option<(&'static str, String)> {
        self.live.iter_mut().find_map(|live| Some((live.door, live.told.try_recv().ok()?)))
    }
}

/// Returns what a door tells who comes with a bare id, up to the end.
async fn bare(node: &Node, door: &'static str, cursor: &str) -> Told {
    let mut told = Told::new();
    let of_list = |told: &mut Told, gap: &Value, messages: &Value| {
        told.extend(gap["reason"].as_str().map(|reason| format!("gap {reason}")));
        let payloads = messages.as_array().unwrap_or_else(|| panic!("{door}: {gap} {messages}")).iter();
        told.extend(payloads.map(|message| message["payload"].to_string()));
    };
    match door {
        "page" | "wait" => {
            let wait = if door == "wait" { "&wait=5" } else { "" };
            let path = format!("/api/v1/topics/{TOPIC}/messages?limit=100&order=asc&after={cursor}{wait}");
            let page = node.relay.get(&path).await.json();
            of_list(&mut told, &page["gap"], &page["messages"]);
        }
        "poll" => {
            let body = json!({"topics": [TOPIC], "since": {TOPIC: cursor}, "timeout": 5});
            let answer = node.relay.post("/messages/poll", body.to_string()).await.json();
            of_list(&mut told, &answer["gaps"][0], &answer["messages"]);
        }
        "json" | "binary" => {
            let mut socket = socket(node, door).await;
            socket.subscribe(TOPIC, cursor).await;
            while told.last().is_none_or(|last| last != END) {
                told.push(next_of_socket(&mut socket).await);
            }
        }
        _ => {
            let mut stream = stream(node, door, cursor).await;
            while told.last().is_none_or(|last| last != END) {
                told.push(next_of_stream(&mut stream, door).await);
            }
        }
    }
    told
}

const BARE: [&str; 7] = ["page", "wait", "poll", "json", "binary", "events", "lines"];

/// What is done behind the relay's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Replaced,
    WithSmallerIds,
    WithTheSameIds,
    RenamedOver,
    RenamedOverByAnOlderTopic,
    RenamedOverByANewerTopic,
    RestoredFromAnOlderCopy,
    TakenOut,
    Emptied,
    GivenALargerId,
    SetOver,
    Deleted,
}

const ALL: [Done; 12] = [
    Done::Replaced,
    Done::WithSmallerIds,
    Done::WithTheSameIds,
    Done::RenamedOver,
    Done::RenamedOverByAnOlderTopic,
    Done::RenamedOverByANewerTopic,
    Done::RestoredFromAnOlderCopy,
    Done::TakenOut,
    Done::Emptied,
    Done::GivenALargerId,
    Done::SetOver,
    Done::Deleted,
];

impl Done {
    /// Returns what is told to who has seen `1` and comes with its id, and to who has got `3` live.
    fn told(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Replaced | Self::RenamedOver | Self::RenamedOverByAnOlderTopic => {
                (&["gap reset", "4", END], &["gap reset", "4", END])
            }
            Self::WithSmallerIds => (&["gap reset", "4", "5", END], &["gap reset", "4", "5", END]),
            // A bare id that is kept proves that nothing is missing: nobody can know better.
            Self::WithTheSameIds => (&["5", "6", END], &["gap reset", "4", "5", "6", END]),
            Self::RenamedOverByANewerTopic => (&["gap deleted", "4", END], &["gap deleted", "4", END]),
            // It is the same topic, so who has stayed goes on behind what it has got.
            Self::RestoredFromAnOlderCopy => (&["2", END], &["gap reset", END]),
            Self::TakenOut => (&["gap trimmed", "3", "5", END], &["gap trimmed", "5", END]),
            Self::Emptied => (&["gap trimmed", END], &[END]),
            Self::GivenALargerId => (&["2", "3", END], &[END]),
            Self::SetOver | Self::Deleted => (&["gap reset", END], &["gap deleted", END]),
        }
    }

    /// Returns how many of those come before the end is there.
    fn told_before(self) -> usize {
        self.told().1.iter().filter(|told| **told != END).count()
    }
}

/// A topic with three messages, and what it takes to do something to it.
struct Stage<'a> {
    server: &'a Server,
    node: &'a Node,
    ids: Vec<String>,
    copy: Vec<u8>,
}

impl<'a> Stage<'a> {
    async fn set(server: &'a Server, node: &'a Node, done: Done, is_foreign: bool) -> Self {
        server.command(&["FLUSHDB"]).await;
        if done == Done::RenamedOverByAnOlderTopic {
            assert_eq!(node.publish("other", "4", None).await.status, 201);
        }
        let (mut ids, mut copy) = (Vec::new(), Vec::new());
        for payload in ["1", "2", "3"] {
            let id = if is_foreign {
                server.command(&["XADD", KEY, "*", "payload", payload]).await.text()
            } else {
                let answer = node.publish(TOPIC, payload, None).await;
                assert_eq!(answer.status, 201);
                answer.json()["message_id"].as_str().expect("an id").to_owned()
            };
            ids.push(id);
            if payload == "2"
                && let Reply::Bulk(bytes) = server.command(&["DUMP", KEY]).await
            {
                copy = bytes;
            }
        }
        if done == Done::RenamedOverByANewerTopic {
            // A topic's first id is of the millisecond after it was made.
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert_eq!(node.publish("other", "4", None).await.status, 201);
        }
        Self { server, node, ids, copy }
    }

    async fn add(&self, id: &str, payload: &str) {
        self.server.command(&["XADD", KEY, id, "payload", payload]).await;
    }

    /// Makes the stream anew, with these ids, before anybody can see that it was gone.
    async fn replace(&self, ids: &[&str]) {
        let script = "redis.call('DEL', KEYS[1])
            for at, id in ipairs(ARGV) do redis.call('XADD', KEYS[1], id, 'payload', at + 3) end";
        self.server.command(&[&["EVAL", script, "1", KEY], ids].concat()).await;
    }

    async fn act(&self, done: Done) {
        let Self { server, ids, .. } = self;
        match done {
            Done::Replaced => self.replace(&["*"]).await,
            Done::WithSmallerIds => self.replace(&["1-1", "1-2"]).await,
            Done::WithTheSameIds => self.replace(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await,
            Done::RenamedOver => {
                server.command(&["XADD", "elsewhere", "*", "payload", "4"]).await;
                server.command(&["RENAME", "elsewhere", KEY]).await;
            }
            Done::RenamedOverByAnOlderTopic | Done::RenamedOverByANewerTopic => {
                server.command(&["RENAME", "stream:topic:other", KEY]).await;
            }
            Done::RestoredFromAnOlderCopy => {
                let command: [&[u8]; 5] = [b"RESTORE", KEY.as_bytes(), b"0", &self.copy, b"REPLACE"];
                server.command(&command).await;
            }
            Done::TakenOut => {
                // In one step, so that nobody has seen the message that is taken out last.
                let script = "redis.call('XDEL', KEYS[1], ARGV[1])
                    local id = redis.call('XADD', KEYS[1], '*', 'payload', '4')
                    redis.call('XADD', KEYS[1], '*', 'payload', '5')
                    redis.call('XDEL', KEYS[1], id)";
                server.command(&["EVAL", script, "1", KEY, &ids[1]]).await;
            }
            Done::Emptied => {
                server.command(&["XTRIM", KEY, "MAXLEN", "0"]).await;
            }
            Done::GivenALargerId => {
                server.command(&["XSETID", KEY, "9999999999999-0"]).await;
            }
            Done::SetOver => {
                server.command(&["SET", KEY, "x"]).await;
            }
            Done::Deleted => {
                server.command(&["DEL", KEY]).await;
            }
        }
    }

    async fn end(&self, done: Done) {
        if done == Done::SetOver {
            self.server.command(&["DEL", KEY]).await;
        }
        self.add("*", END).await;
    }

    /// Does it under readers, and compares what every door tells.
    async fn play(&self, done: Done, at_once: bool) {
        let mut readers = Readers::attach(self.node, &self.ids[1], "3").await;
        let (to_bare, to_live) = done.told();
        self.act(done).await;
        let before = if at_once { 0 } else { done.told_before() };
        let of = format!("{done:?}, at once: {at_once}");
        let mut told = readers.next(before, &of).await;
        self.end(done).await;
        for (door, rest) in readers.next(to_live.len() - before, &of).await {
            let all = told.entry(door).or_default();
            all.extend(rest);
            assert_eq!(all, to_live, "{done:?} at once: {at_once}, live on {door}");
        }
        for door in BARE {
            let told = bare(self.node, door, &self.ids[0]).await;
            // What was trimmed, and is still at hand because others read it live, is not missing.
            let is_at_hand = done == Done::Emptied && door != "page" && told == ["2", "3", END];
            assert!(
                told == to_bare || is_at_hand,
                "{done:?} at once: {at_once}, a bare id on {door}: {told:?}, not {to_bare:?}"
            );
        }
        assert_eq!(readers.have_more(), None, "{done:?}");
    }
}

async fn every_door_tells_what_was_done(kind: Kind, notices: &str) {
    let Some(server) = Server::start(kind, &["--notify-keyspace-events", notices]).await else { return };
    let node = Node::start(server.port()).await;
    for done in ALL {
        for at_once in [true, false] {
            // Where it is over before anybody has looked, nothing need be told of a topic that was gone between.
            if at_once && matches!(done, Done::SetOver | Done::Deleted) {
                continue;
            }
            Stage::set(&server, &node, done, false).await.play(done, at_once).await;
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_valkey() {
    every_door_tells_what_was_done(Kind::Valkey, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_valkey_that_gives_notice() {
    every_door_tells_what_was_done(Kind::Valkey, "Ktg$").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_redis() {
    every_door_tells_what_was_done(Kind::Redis, "").await;
}

/// Streams of other producers, before a sweep has come by, and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_another_producer() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    for is_swept in [false, true] {
        for done in [Done::Replaced, Done::WithSmallerIds, Done::RenamedOver, Done::TakenOut, Done::Emptied] {
            let stage = Stage::set(&server, &node, done, true).await;
            if is_swept {
                eventually(STUCK, async || {
                    server.command(&["DEL", "tidemill:sweep"]).await;
                    node.storage.upkeep.sweep().await.expect("it sweeps").topics > 0
                })
                .await;
            }
            stage.play(done, false).await;
        }
    }
    node.stop().await;
}
