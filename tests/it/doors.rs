//! Payloads through every door: whatever a publisher has sent, by whatever way, comes back byte for byte by
//! every other one, but for what a door says that it cannot carry.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;
use tidemill::proto::frame::{ClientFrame, Publish, ServerFrame, binary};
use tidemill::proto::json::with_blanks;
use tokio_tungstenite::tungstenite::Message;

use crate::streams::on_both_backends;
use crate::support::dice::Dice;
use crate::support::ground::Ground;
use crate::support::length;
use crate::support::raw::Stream;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

const TOPIC: &str = "doors";
const MESSAGES: &str = "/api/v1/topics/doors/messages";
const MULTI: &str = "application/geo+json; a=\"b\"";

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    payload: Vec<u8>,
    /// As it is served: none for JSON that has no other.
    content_type: Option<String>,
}

/// Appends white space of every kind.
fn blanks(dice: &mut Dice, out: &mut String) {
    while dice.roll(3) == 0 {
        out.push_str(dice.pick(&[" ", "\t", "\n", "\r", "\r\n", "\n\n", "  "]));
    }
}

/// Appends a JSON value with white space wherever it may stand.
fn value(dice: &mut Dice, depth: u64, out: &mut String) {
    let kinds = if depth == 0 { 4 } else { 6 };
    match dice.roll(kinds) {
        0 => out.push_str(dice.pick(&["null", "true", "false"])),
        1 => {
            let numbers = ["0", "-0", "1.10", "1e400", "123456789012345678901234567890", "-1E-2"];
            out.push_str(dice.pick(&numbers));
        }
        2 | 3 => string(dice, out),
        4 => list(dice, out, ['[', ']'], |dice, out| value(dice, depth - 1, out)),
        _ => list(dice, out, ['{', '}'], |dice, out| {
            string(dice, out);
            blanks(dice, out);
            out.push(':');
            blanks(dice, out);
            value(dice, depth - 1, out);
        }),
    }
}

fn list(dice: &mut Dice, out: &mut String, [open, close]: [char; 2], item: impl Fn(&mut Dice, &mut String)) {
    out.push(open);
    blanks(dice, out);
    for at in 0..dice.roll(4) {
        if at > 0 {
            out.push(',');
            blanks(dice, out);
        }
        item(dice, out);
        blanks(dice, out);
    }
    out.push(close);
}

fn string(dice: &mut Dice, out: &mut String) {
    let parts = [
        "a",
        "é",
        "\\n",
        "\\r",
        "\\u00e9",
        "\\ud83d\\ude00",
        "😀",
        "\u{2028}",
        "\u{85}",
        "\u{b}",
        "data: ",
        "id: 1",
        "\\\"",
        ": ",
    ];
    out.push('"');
    for _ in 0..dice.roll(6) {
        // A raw vertical tab is a control character, which JSON does not have.
        let part = dice.pick(&parts);
        out.push_str(if part == "\u{b}" { "\\u000b" } else { part });
    }
    out.push('"');
}

/// Returns JSON with white space around it, inside it, or both.
fn json(dice: &mut Dice) -> String {
    let mut out = String::new();
    blanks(dice, &mut out);
    value(dice, 3, &mut out);
    blanks(dice, &mut out);
    out
}

/// The ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Body,
    BodyOfType,
    Line,
    Described,
    DescribedBytes,
    Bulk,
    BulkText,
    Frame,
    FrameBytes,
    Binary,
    BinaryOfType,
    TextBody,
    Bytes,
}

const ALL: [In; 13] = [
    In::Body,
    In::BodyOfType,
    In::Line,
    In::Described,
    In::DescribedBytes,
    In::Bulk,
    In::BulkText,
    In::Frame,
    In::FrameBytes,
    In::Binary,
    In::BinaryOfType,
    In::TextBody,
    In::Bytes,
];

/// The sockets of a test, one in each encoding.
struct Sockets {
    text: WsClient,
    binary: WsClient,
}

impl Sockets {
    async fn publish_text(&mut self, frame: String) -> String {
        let answer = self.text.ask(frame, "published").await;
        answer["message_id"].as_str().expect("an id").to_owned()
    }

    async fn publish_binary(&mut self, payload: &[u8], content_type: Option<&str>) -> String {
        let frame = Publish {
            durability: None,
            fence: None,
            reference: None,
            topic: TOPIC.into(),
            payload: payload.into(),
            content_type: content_type.map(Into::into),
            metadata: None,
            ttl: None,
            key: None,
            delivery: None,
            expected_last: None,
            order_key: None,
            unique: None,
        };
        self.binary.send_binary(&ClientFrame::Publish(frame)).await;
        let Some(Ok(Message::Binary(answer))) = self.binary.next().await else { panic!("an answer") };
        match binary::read_server(&answer).expect("a frame") {
            ServerFrame::Published { message_id, .. } => message_id.to_string(),
            other => panic!("not published: {other:?}"),
        }
    }
}

/// Publishes by one way, and returns the id with what is to come back.
async fn publish(relay: &TestRelay, sockets: &mut Sockets, way: In, json: &str) -> (String, Sent) {
    let post = async |path: &str, kind: &str, body: &[u8]| {
        let answer = relay.send("POST", path, &[("content-type", kind)], body).await;
        assert!(matches!(answer.status, 201 | 207), "{way:?} {json:?}: {answer:?}");
        let answer = answer.json();
        let id = answer["message_id"].as_str().or(answer["results"][0]["message_id"].as_str());
        id.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let single = "/api/v1/messages";
    let sent = |payload: &str, content_type: Option<&str>| Sent {
        payload: payload.as_bytes().to_vec(),
        content_type: content_type.map(str::to_owned),
    };
    let (bare, base64) = (json.trim_matches([' ', '\t', '\r', '\n']), BASE64.encode(json));
    let text = serde_json::to_string(json).expect("a string");
    match way {
        In::Body => {
            (post(MESSAGES, "application/json; charset=utf-8", json.as_bytes()).await, sent(json, None))
        }
        In::BodyOfType => (post(MESSAGES, MULTI, json.as_bytes()).await, sent(json, Some(MULTI))),
        In::Line => {
            // A line has no line break, and its end is no part of it.
            let line = json.replace('\n', " ");
            let line = line.trim_end_matches('\r');
            let body = format!("\n{line}\r\n");
            (post(MESSAGES, "application/x-ndjson", body.as_bytes()).await, sent(line, None))
        }
        // White space around a value is that of the object which the value stands in.
        In::Described => {
            let body = format!(r#"{{"topic":"{TOPIC}","payload":{json}}}"#);
            (post(single, "application/json", body.as_bytes()).await, sent(bare, None))
        }
        In::DescribedBytes => {
            let body = format!(
                r#"{{"topic":"{TOPIC}","payload_base64":"{base64}","content_type":"application/json"}}"#
            );
            (post(single, "application/json", body.as_bytes()).await, sent(json, None))
        }
        In::Bulk => {
            let kind = "application/vnd.a+json";
            let body =
                format!(r#"{{"messages":[{{"topic":"{TOPIC}","payload":{json},"content_type":"{kind}"}}]}}"#);
            let id = post("/api/v1/messages/bulk", "application/json", body.as_bytes()).await;
            (id, sent(bare, Some(kind)))
        }
        In::BulkText => {
            let body = format!(r#"{{"messages":[{{"topic":"{TOPIC}","payload_text":{text}}}]}}"#);
            let id = post("/api/v1/messages/bulk", "application/json", body.as_bytes()).await;
            (id, sent(json, Some("text/plain; charset=utf-8")))
        }
        In::Frame => {
            let frame = format!(r#"{{"type":"publish","topic":"{TOPIC}","payload":{json}}}"#);
            (sockets.publish_text(frame).await, sent(bare, None))
        }
        In::FrameBytes => {
            let kind = "application/cloudevents+json";
            let frame = format!(
                r#"{{"type":"publish","topic":"{TOPIC}","payload_base64":"{base64}","content_type":"{kind}"}}"#
            );
            (sockets.publish_text(frame).await, sent(json, Some(kind)))
        }
        In::Binary => (sockets.publish_binary(json.as_bytes(), None).await, sent(json, None)),
        In::BinaryOfType => {
            let id = sockets.publish_binary(json.as_bytes(), Some(MULTI)).await;
            (id, sent(json, Some(MULTI)))
        }
        In::TextBody => (post(MESSAGES, "text/csv", json.as_bytes()).await, sent(json, Some("text/csv"))),
        In::Bytes => {
            let mut bytes = json.as_bytes().to_vec();
            bytes.push(0xff);
            let id = post(MESSAGES, "application/x-thing", &bytes).await;
            (id, Sent { payload: bytes, content_type: Some("application/x-thing".to_owned()) })
        }
    }
}

/// Returns the id and what was sent, from a message in JSON as it was written.
fn read(text: &str) -> (String, Sent) {
    let raw: HashMap<&str, &RawValue> = serde_json::from_str(text).expect("a message");
    let string = |name: &str| -> Option<String> {
        raw.get(name).map(|value| serde_json::from_str(value.get()).expect("a string"))
    };
    let forms =
        ["payload", "payload_text", "payload_base64"].into_iter().filter(|name| raw.contains_key(name));
    assert_eq!(forms.count(), 1, "{text}");
    let payload = if let Some(json) = raw.get("payload") {
        with_blanks(text, json.get()).as_bytes().to_vec()
    } else if let Some(text) = string("payload_text") {
        text.into_bytes()
    } else {
        BASE64.decode(string("payload_base64").expect("a payload")).expect("base64")
    };
    (string("message_id").expect("an id"), Sent { payload, content_type: string("content_type") })
}

/// A page, or the answer to a poll. Not every number there fits into one of a program.
#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    next_cursor: Option<String>,
    cursors: Option<HashMap<String, String>>,
}

/// Returns the messages of a page or of a poll, and where the next one begins.
fn read_page(text: &str) -> (HashMap<String, Sent>, String) {
    let Page { messages, next_cursor, cursors } = serde_json::from_str(text).expect("a page");
    let next = next_cursor.or_else(|| cursors?.get(TOPIC).cloned()).expect("more");
    (messages.into_iter().map(|message| read(message.get())).collect(), next)
}

/// Reads so many messages off a stream, whose frames end so and are turned into JSON text.
async fn read_stream(
    relay: &TestRelay,
    path: &str,
    (accept, end): (&str, &[u8]),
    count: usize,
    json: impl Fn(&str) -> Option<String>,
) -> HashMap<String, Sent> {
    let mut stream = Stream::open(relay.address, path, accept, "").await.expect("a stream");
    let mut all = HashMap::new();
    while all.len() < count {
        let frame = String::from_utf8(stream.until(end).await.expect("more")).expect("UTF-8");
        let Some(json) = json(&frame) else { continue };
        all.extend([read(&json)]);
    }
    all
}

/// Returns what a client of events makes of a block, if it is a message.
fn of_event(block: &str) -> Option<String> {
    assert!(!block.contains('\r'), "{block:?}");
    let data: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert!(!data.is_empty(), "a block without data: {block:?}");
    (!block.contains("event: ")).then(|| data.join("\n"))
}

async fn read_socket(mut client: WsClient, count: usize) -> HashMap<String, Sent> {
    client.subscribe(TOPIC, "earliest").await;
    let mut all = HashMap::new();
    while all.len() < count {
        let (id, sent) = match client.next().await {
            Some(Ok(Message::Text(text))) => read(&text),
            Some(Ok(Message::Binary(bytes))) => match binary::read_server(&bytes).expect("a frame") {
                ServerFrame::Message(message) => {
                    let content_type = message.content_type.map(std::borrow::Cow::into_owned);
                    (
                        message.message_id.to_string(),
                        Sent { payload: message.payload.into_owned(), content_type },
                    )
                }
                other => panic!("not expected: {other:?}"),
            },
            other => panic!("not expected: {other:?}"),
        };
        all.insert(id, sent);
    }
    all
}

/// Returns what is left of a payload of JSON where line breaks become something else.
fn with_breaks(sent: &HashMap<String, Sent>, to: impl Fn(&str) -> String) -> HashMap<String, Sent> {
    let change = |(id, sent): (&String, &Sent)| {
        let is_json = sent.content_type.as_deref().is_none_or(|kind| kind.contains("+json"));
        let payload = if is_json {
            to(std::str::from_utf8(&sent.payload).expect("JSON is UTF-8")).into_bytes()
        } else {
            sent.payload.clone()
        };
        (id.clone(), Sent { payload, ..sent.clone() })
    };
    sent.iter().map(change).collect()
}

async fn every_payload_comes_back_by_every_door(ground: &Ground) {
    let cases = length::pick(60, 2_000);
    let relay = TestRelay::start(ground.storage.clone()).await;
    let mut dice = Dice::cast();
    let mut sockets = Sockets {
        text: WsClient::connect(relay.address).await,
        binary: WsClient::connect_binary(relay.address).await,
    };
    let mut sent = HashMap::new();
    for case in 0..cases {
        let way = ALL[usize::try_from(case).expect("an index") % ALL.len()];
        let json = json(&mut dice);
        sent.extend([publish(&relay, &mut sockets, way, &json).await]);
    }
    let count = sent.len();
    assert_eq!(count as u64, cases, "each has an id of its own");

    let mut pages = HashMap::new();
    let mut after = "earliest".to_owned();
    while pages.len() < count {
        let page = relay.get(&format!("{MESSAGES}?limit=1000&after={after}")).await;
        let (messages, next) = read_page(page.text());
        pages.extend(messages);
        after = next;
    }
    assert_eq!(pages, sent, "pages");
    for (id, sent) in &sent {
        let one = relay.get(&format!("{MESSAGES}/{id}")).await;
        assert_eq!(read(one.text()), (id.clone(), sent.clone()), "one message");
        let payload = relay.get(&format!("{MESSAGES}/{id}/payload")).await;
        assert_eq!(payload.body, sent.payload, "the payload alone");
        let content_type = sent.content_type.as_deref().unwrap_or("application/json");
        assert_eq!(payload.header("content-type"), Some(content_type));
    }
    let mut polled = HashMap::new();
    let mut since = "earliest".to_owned();
    while polled.len() < count {
        let body = format!(r#"{{"topics":["{TOPIC}"],"since":{{"{TOPIC}":"{since}"}}}}"#);
        let answer = relay.post("/messages/poll", body).await;
        let (messages, next) = read_page(answer.text());
        polled.extend(messages);
        since = next;
    }
    assert_eq!(polled, sent, "polls");

    assert_eq!(read_socket(WsClient::connect(relay.address).await, count).await, sent, "JSON frames");
    assert_eq!(
        read_socket(WsClient::connect_binary(relay.address).await, count).await,
        sent,
        "binary frames"
    );
    let events = with_breaks(&sent, |text| text.replace("\r\n", "\n").replace('\r', "\n"));
    let lines = with_breaks(&sent, |text| text.replace(['\r', '\n'], " "));
    for path in
        [format!("{MESSAGES}?after=earliest"), format!("/api/v1/stream?topics={TOPIC}&after=earliest")]
    {
        let got = read_stream(&relay, &path, ("text/event-stream", b"\n\n"), count, of_event).await;
        assert_eq!(got, events, "events of {path}");
        let line = |line: &str| {
            let is_message = line.starts_with(r#"{"type":"message","#);
            is_message.then(|| line.to_owned())
        };
        let got = read_stream(&relay, &path, ("application/x-ndjson", b"\n"), count, line).await;
        assert_eq!(got, lines, "lines of {path}");
    }
    relay.stop().await;
}

/// A key is for what was sent: also white space and the content type tell two messages apart.
async fn a_key_is_for_every_byte(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let post = async |kind: &str, body: &str| {
        let headers = [("content-type", kind), ("idempotency-key", "once")];
        relay.send("POST", MESSAGES, &headers, body.as_bytes()).await
    };
    assert_eq!(post("application/json", " [1]\n").await.status, 201);
    let again = post("application/json; charset=utf-8", " [1]\n").await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")), "the same");
    for (kind, body) in [
        ("application/json", "[1]"),
        ("application/json", " [1]\r\n"),
        ("application/json", " [ 1]\n"),
        ("application/geo+json", " [1]\n"),
        ("text/plain", " [1]\n"),
    ] {
        assert_eq!(post(kind, body).await.problem().code.as_str(), "key_reused", "{kind} {body:?}");
    }
    relay.stop().await;
}

on_both_backends! { every_payload_comes_back_by_every_door, a_key_is_for_every_byte }
