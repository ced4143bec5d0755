//! Every door through which messages of a topic are read, with what it tells in one form.
//!
//! It must not know what is tested.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemill::proto::Since;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::raw::Stream;
use super::relay::{STUCK, TestRelay};
use super::ws::{Got, WsClient};

/// Things that a test may leave unread.
const TOLD_MAX: usize = 64;

/// A topic, and where to begin in it.
type Place<'a> = (&'a str, &'a str);

/// What a door tells, in its order: payloads, and `gap <reason>`.
pub(crate) type Told = Vec<String>;

/// A reader that has stayed, by the name of its door.
struct Live {
    door: &'static str,
    told: mpsc::Receiver<String>,
}

/// Readers on every live door.
pub(crate) struct Readers {
    live: Vec<Live>,
    tasks: JoinSet<()>,
}

async fn socket(relay: &TestRelay, door: &str) -> WsClient {
    if door == "json" {
        WsClient::connect(relay.address).await
    } else {
        WsClient::connect_binary(relay.address).await
    }
}

async fn stream(relay: &TestRelay, door: &str, (topic, cursor): Place<'_>) -> Stream {
    let accept = if door == "lines" { "application/x-ndjson" } else { "text/event-stream" };
    let path = if door == "several" {
        // The ids of its events are no cursors of one topic.
        let name = if Since::parse(cursor).is_ok() { "after" } else { "last_event_id" };
        format!("/api/v1/stream?topics={topic}&{name}={cursor}")
    } else {
        format!("/api/v1/topics/{topic}/messages?after={cursor}")
    };
    Stream::open(relay.address, &path, accept, "").await.expect("a stream")
}

async fn next_of_socket(socket: &mut WsClient) -> String {
    match socket.got().await {
        Got::Gap(reason) => format!("gap {reason}"),
        Got::Message(_, payload) => String::from_utf8(payload).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

async fn next_of_stream(stream: &mut Stream, door: &str) -> String {
    let end = if door == "lines" { &b"\n"[..] } else { b"\n\n" };
    loop {
        let block = String::from_utf8(stream.until(end).await.expect("it goes on")).expect("text");
        let data: Vec<&str> = match door {
            "lines" => vec![block.trim_end()],
            _ => block.lines().filter_map(|line| line.strip_prefix("data: ")).collect(),
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

/// The doors on which a reader stays.
pub(crate) const LIVE: [&str; 5] = ["json", "binary", "events", "lines", "several"];

impl Readers {
    /// Attaches one on each.
    pub(crate) async fn attach(relay: &TestRelay, topic: &str, cursor: &str) -> Self {
        let (mut live, mut tasks) = (Vec::new(), JoinSet::new());
        for door in LIVE {
            let (sender, told) = mpsc::channel(TOLD_MAX);
            live.push(Live { door, told });
            if door == "json" || door == "binary" {
                let mut socket = socket(relay, door).await;
                socket.subscribe(topic, cursor).await;
                tasks.spawn(
                    async move { while sender.send(next_of_socket(&mut socket).await).await.is_ok() {} },
                );
            } else {
                let mut stream = stream(relay, door, (topic, cursor)).await;
                tasks.spawn(async move {
                    while sender.send(next_of_stream(&mut stream, door).await).await.is_ok() {}
                });
            }
        }
        Self { live, tasks }
    }

    /// Returns so many things that each door tells next.
    pub(crate) async fn next(&mut self, count: usize, of: &str) -> BTreeMap<&'static str, Told> {
        let mut all = BTreeMap::new();
        for Live { door, told } in &mut self.live {
            let mut list = Told::new();
            while list.len() < count {
                match timeout(STUCK, told.recv()).await {
                    Ok(Some(next)) => list.push(next),
                    Ok(None) => panic!("{of}: {door} ended after {list:?}: {:?}", self.tasks.try_join_next()),
                    Err(Elapsed { .. }) => panic!("{of}: {door} is stuck after {list:?}"),
                }
            }
            all.insert(*door, list);
        }
        all
    }

    /// Whether some door tells more.
    pub(crate) fn have_more(&mut self) -> Option<(&'static str, String)> {
        self.live.iter_mut().find_map(|live| Some((live.door, live.told.try_recv().ok()?)))
    }
}

/// Returns the cursor that a door hands out before the first message; of one that answers once, where there is
/// none.
pub(crate) async fn start(relay: &TestRelay, door: &'static str, (topic, words): Place<'_>) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{door} {words}: {value}")).to_owned();
    match door {
        "wait" => {
            let path = format!("/api/v1/topics/{topic}/messages?wait=1&after={words}");
            text(&relay.get(&path).await.json()["resume"])
        }
        "poll" => {
            let body = json!({"topics": [topic], "since": {topic: words}, "timeout": 1}).to_string();
            text(&relay.post("/messages/poll", body).await.json()["cursors"][topic])
        }
        "json" | "binary" => socket(relay, door).await.subscribe(topic, words).await,
        _ => {
            let mut stream = stream(relay, door, (topic, words)).await;
            let end = if door == "lines" { &b"\n"[..] } else { b"\n\n" };
            let opening = String::from_utf8(stream.until(end).await.expect("it begins")).expect("text");
            match opening.lines().find_map(|line| line.strip_prefix("id: ")) {
                Some(id) => id.to_owned(),
                None => text(&serde_json::from_str::<Value>(&opening).expect("a line")["cursors"][topic]),
            }
        }
    }
}

/// Returns what a door tells who comes with a bare id, up to the message that is the last.
pub(crate) async fn bare(
    relay: &TestRelay,
    door: &'static str,
    (topic, cursor): Place<'_>,
    end: &str,
) -> Told {
    let mut told = Told::new();
    let of_list = |told: &mut Told, gap: &Value, messages: &Value| {
        told.extend(gap["reason"].as_str().map(|reason| format!("gap {reason}")));
        let payloads = messages.as_array().unwrap_or_else(|| panic!("{door}: {gap} {messages}")).iter();
        told.extend(payloads.map(|message| message["payload"].to_string()));
    };
    match door {
        "page" | "wait" => {
            let wait = if door == "wait" { "&wait=5" } else { "" };
            let path = format!("/api/v1/topics/{topic}/messages?limit=100&order=asc&after={cursor}{wait}");
            let page = relay.get(&path).await.json();
            of_list(&mut told, &page["gap"], &page["messages"]);
        }
        "poll" => {
            let body = json!({"topics": [topic], "since": {topic: cursor}, "timeout": 5});
            let answer = relay.post("/messages/poll", body.to_string()).await.json();
            of_list(&mut told, &answer["gaps"][0], &answer["messages"]);
        }
        "json" | "binary" => {
            let mut socket = socket(relay, door).await;
            socket.subscribe(topic, cursor).await;
            while told.last().is_none_or(|last| last != end) {
                told.push(next_of_socket(&mut socket).await);
            }
        }
        _ => {
            let mut stream = stream(relay, door, (topic, cursor)).await;
            while told.last().is_none_or(|last| last != end) {
                told.push(next_of_stream(&mut stream, door).await);
            }
        }
    }
    told
}

/// The doors that take a bare id.
pub(crate) const BARE: [&str; 8] = ["page", "wait", "poll", "json", "binary", "events", "lines", "several"];
