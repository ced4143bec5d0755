//! Readers, on every way there is. Each goes on from where it was whenever it is cut off or refused, and
//! leaves now and then by itself.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tidemill::proto::frame::{ClientFrame, ServerFrame, Subscribe, binary};
use tidemill::proto::{MessageId, TopicName};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use super::{Door, END, World};
use crate::support::dice::Dice;
use crate::support::raw::{RawConnection, Stream};
use crate::support::relay::try_send;
use crate::support::ws::{Got, WsClient};

/// A way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadBy {
    Inside,
    Pages,
    /// Pages that are waited for.
    Wait,
    /// `POST /messages/poll`.
    Poll,
    Events,
    Lines,
    Socket,
    BinarySocket,
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum From {
    Earliest,
    Latest,
    After(MessageId),
}

/// What a reader asked for and got.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) number: u64,
    pub(super) by: ReadBy,
    pub(super) topic: TopicName,
    pub(super) from: From,
    pub(super) got: Vec<Got>,
    last: Option<MessageId>,
    /// After how much more it leaves.
    leaves_in: u64,
    has_ended: bool,
}

impl Reading {
    /// Returns where it goes on.
    pub(super) fn place(&self) -> From {
        self.last.map_or(self.from, From::After)
    }

    fn cursor(&self) -> String {
        match self.place() {
            From::Earliest => "earliest".to_owned(),
            From::Latest => "latest".to_owned(),
            From::After(id) => id.to_string(),
        }
    }

    /// Takes what came. Returns whether the reader leaves.
    pub(super) fn take(&mut self, got: Got) -> bool {
        if let Got::Message(id, payload) = &got {
            self.last = Some(*id);
            self.has_ended = payload == END.as_bytes();
        }
        self.got.push(got);
        self.leaves_in = self.leaves_in.saturating_sub(1);
        self.has_ended || self.leaves_in == 0
    }
}

fn id_of(json: &Value) -> MessageId {
    json["message_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id: {json}"))
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// Reads a topic to its end.
pub(super) async fn read(world: Arc<World>, by: ReadBy, number: u64, mut dice: Dice) -> Reading {
    let topic = world.topic(&mut dice).clone();
    sleep(dice.up_to_ms(400)).await;
    let from = match dice.roll(4) {
        0 => From::Latest,
        1 => From::Earliest,
        _ => world.id(&topic, &mut dice).map_or(From::Earliest, From::After),
    };
    let mut reading =
        Reading { number, by, topic, from, got: Vec::new(), last: None, leaves_in: 0, has_ended: false };
    while !reading.has_ended {
        if reading.place() == From::Latest && world.faulty.is_calm() {
            // Who has been refused so long would get nothing: the last message is there.
            reading.from = From::Earliest;
        }
        if !reading.got.is_empty() {
            // It comes again.
            reading.got.push(Got::Lost);
        }
        reading.leaves_in = if dice.roll(3) == 0 { 1 + dice.roll(40) } else { u64::MAX };
        match &world.door {
            Door::Inside(inside) => inside.attach(&mut reading, &mut dice).await,
            // Who is cut off, or refused, comes again.
            Door::Outside(relay) => attach(*relay, &mut reading, &mut dice).await,
        }
        sleep(dice.up_to_ms(20)).await;
    }
    reading
}

async fn attach(relay: SocketAddr, reading: &mut Reading, dice: &mut Dice) {
    match reading.by {
        ReadBy::Inside => unreachable!("it has a door"),
        ReadBy::Pages => by_pages(relay, false, reading, dice).await,
        ReadBy::Wait => by_pages(relay, true, reading, dice).await,
        ReadBy::Poll => by_polling(relay, reading).await,
        ReadBy::Events => by_events(relay, reading, dice).await,
        ReadBy::Lines => by_lines(relay, reading).await,
        ReadBy::Socket => by_socket(relay, false, reading).await,
        ReadBy::BinarySocket => by_socket(relay, true, reading).await,
    }
}

/// Asks once. What the storage could not do now is no answer.
async fn ask(relay: SocketAddr, method: &str, path: &str, body: &str) -> Option<Value> {
    let headers = [("content-type", "application/json")];
    let answer = try_send(relay, method, path, &headers, body.as_bytes()).await.expect("an answer");
    match answer.status {
        200 => Some(answer.json()),
        404 | 503 | 504 => {
            drop(answer.problem());
            None
        }
        _ => panic!("{method} {path}: {answer:?}"),
    }
}

fn gap(json: &Value) -> Got {
    Got::Gap(json["reason"].as_str().unwrap_or_else(|| panic!("no reason: {json}")).to_owned())
}

fn message(json: &Value) -> Got {
    Got::Message(id_of(json), json["payload"].to_string().into_bytes())
}

async fn by_pages(relay: SocketAddr, waits: bool, reading: &mut Reading, dice: &mut Dice) {
    if !waits && reading.from == From::Latest {
        // A page of what is to come has nothing.
        reading.from = From::Earliest;
    }
    let mut cursor = reading.cursor();
    loop {
        let limit = 1 + dice.roll(30);
        let wait = if waits { format!("&wait={}", 1 + dice.roll(2)) } else { String::new() };
        let path = format!("/api/v1/topics/{}/messages?limit={limit}&after={cursor}{wait}", reading.topic);
        let Some(page) = ask(relay, "GET", &path, "").await else { return };
        if page["gap"].is_object() && reading.take(gap(&page["gap"])) {
            return;
        }
        for json in page["messages"].as_array().expect("messages") {
            if reading.take(message(json)) {
                return;
            }
        }
        match page["resume"].as_str() {
            Some(resume) => resume.clone_into(&mut cursor),
            None => cursor = reading.cursor(),
        }
        if !waits {
            sleep(dice.up_to_ms(20)).await;
        }
    }
}

async fn by_polling(relay: SocketAddr, reading: &mut Reading) {
    let topic = reading.topic.clone();
    let mut since = format!(r#"{{"{topic}":"{}"}}"#, reading.cursor());
    loop {
        let body = format!(r#"{{"topics":["{topic}"],"since":{since},"timeout":2}}"#);
        let Some(polled) = ask(relay, "POST", "/messages/poll", &body).await else { return };
        // Gaps have a list of their own: each stands in front of the first message behind it.
        let mut gaps: Vec<_> = polled["gaps"].as_array().cloned().unwrap_or_default();
        for json in polled["messages"].as_array().expect("messages") {
            let is_before =
                |gap: &mut Value| gap["to"].as_str().and_then(|to| to.parse().ok()) <= Some(id_of(json));
            for before in gaps.extract_if(.., is_before) {
                reading.take(gap(&before));
            }
            if reading.take(message(json)) {
                return;
            }
        }
        for behind in &gaps {
            reading.take(gap(behind));
        }
        since = polled["cursors"].to_string();
    }
}

/// Opens a stream; one that cannot be had now is none.
async fn open(relay: SocketAddr, path: &str, kind: &str, headers: &str) -> Option<Stream> {
    let connection = RawConnection::connect(relay).await.ok()?;
    match Stream::try_open_on(connection, path, kind, headers).await.ok()? {
        Ok(stream) => Some(stream),
        Err(404 | 503 | 504) => None,
        Err(status) => panic!("{path}: {status}"),
    }
}

async fn by_events(relay: SocketAddr, reading: &mut Reading, dice: &mut Dice) {
    let path = format!("/api/v1/topics/{}/messages?after=", reading.topic);
    // By header or by query, as clients do.
    let (path, headers) = match reading.place() {
        From::After(id) if dice.roll(2) == 0 => (path + "earliest", format!("last-event-id: {id}\r\n")),
        _ => (path + &reading.cursor(), String::new()),
    };
    let Some(mut stream) = open(relay, &path, "text/event-stream", &headers).await else { return };
    while let Ok(block) = stream.until(b"\n\n").await {
        let block = String::from_utf8(block).expect("events in UTF-8");
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let got = match (field("event: "), field("data: ")) {
            (None, Some(data)) => message(&parse(data.as_bytes())),
            (Some("gap"), Some(data)) => gap(&parse(data.as_bytes())),
            (Some("subscribed"), Some(_)) => continue,
            _ => panic!("not expected: {block}"),
        };
        if reading.take(got) {
            return;
        }
    }
}

async fn by_lines(relay: SocketAddr, reading: &mut Reading) {
    let path = format!("/api/v1/topics/{}/messages?after={}", reading.topic, reading.cursor());
    let Some(mut stream) = open(relay, &path, "application/x-ndjson", "").await else { return };
    while let Ok(line) = stream.until(b"\n").await {
        let json = parse(&line);
        let got = match json["type"].as_str() {
            Some("message") => message(&json),
            Some("gap") => gap(&json),
            Some("subscribed" | "ping") => continue,
            _ => panic!("not expected: {json}"),
        };
        if reading.take(got) {
            return;
        }
    }
}

async fn by_socket(relay: SocketAddr, is_binary: bool, reading: &mut Reading) {
    let (topic, cursor) = (reading.topic.to_string(), reading.cursor());
    let mut client = if is_binary {
        let mut client = WsClient::connect_binary(relay).await;
        let cursors = vec![(topic.as_str().into(), cursor.into())];
        let frame = Subscribe { topics: vec![topic.as_str().into()], cursors, ..Subscribe::default() };
        client.send_binary(&ClientFrame::Subscribe(frame)).await;
        client
    } else {
        let mut client = WsClient::connect(relay).await;
        client.send(format!(r#"{{"type":"subscribe","topics":["{topic}"],"offset":"{cursor}"}}"#)).await;
        client
    };
    loop {
        let got = match client.next().await {
            Some(Ok(Message::Text(text))) => {
                let json = parse(text.as_bytes());
                match json["type"].as_str() {
                    Some("message") => message(&json),
                    Some("gap") => gap(&json),
                    Some("subscribed") => continue,
                    Some("error") => break,
                    _ => panic!("not expected: {json}"),
                }
            }
            Some(Ok(Message::Binary(bytes))) => match binary::read_server(&bytes).expect("a frame") {
                ServerFrame::Message(message) => {
                    Got::Message(message.message_id, message.payload.into_owned())
                }
                ServerFrame::Gap(gap) => Got::Gap(gap.reason.as_str().to_owned()),
                ServerFrame::Subscribed { .. } => continue,
                ServerFrame::Error(_) => break,
                other => panic!("not expected: {other:?}"),
            },
            other => panic!("not expected: {other:?}"),
        };
        if reading.take(got) {
            break;
        }
    }
    client.close().await;
}
