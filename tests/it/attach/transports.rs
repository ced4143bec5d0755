//! One attach on each transport, as a client would do it: it asks, reads what it wants, and leaves; or
//! goes on elsewhere from where it was.

use std::io;
use std::net::SocketAddr;

use serde::Deserialize;
use tidemill::proto::frame::{ClientFrame, ServerFrame, Subscribe, binary};
use tidemill::proto::{Gap, MessageId};

use super::reading::{From, Got, Reading};
use crate::support::dice::Dice;
use crate::support::raw::{RawConnection, Stream};

/// A way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocketJson,
    WebSocketBinary,
    /// Server-sent events of one topic.
    Events,
    /// Server-sent events of several topics.
    EventsOfSeveral,
    Lines,
    /// `GET …/messages?wait=`.
    Wait,
    /// `POST /messages/poll`.
    Poll,
}

/// What comes, in any of the shapes of JSON.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    message_id: Option<&'a str>,
    topic: Option<&'a str>,
    payload: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    messages: Vec<Frame<'a>>,
    gap: Option<Gap>,
    resume: &'a str,
}

#[derive(Debug, Deserialize)]
struct Polled<'a> {
    #[serde(borrow)]
    messages: Vec<Frame<'a>>,
    #[serde(default)]
    gaps: Vec<Gap>,
    #[serde(borrow)]
    cursors: &'a serde_json::value::RawValue,
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> T {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap_or_else(|_| panic!("no id: {text}"))
}

fn gap_of(gap: &Gap) -> Got {
    Got::Gap { from: gap.from, to: gap.to, reason: gap.reason, missed: gap.missed }
}

/// The readings of one reader, one for each of its topics.
#[derive(Debug)]
pub(super) struct Readings(pub(super) Vec<Reading>);

impl Readings {
    fn take(&mut self, topic: &str, got: Got) {
        let reading = self.0.iter_mut().find(|reading| reading.track.name == topic);
        reading.unwrap_or_else(|| panic!("nobody reads {topic}: {got:?}")).take(got);
    }

    fn take_message(&mut self, frame: &Frame<'_>) {
        let (Some(message), Some(topic), Some(payload)) = (frame.message_id, frame.topic, frame.payload)
        else {
            panic!("no message: {frame:?}");
        };
        self.take(topic, Got::Message { id: id(message), payload });
    }

    fn take_gap(&mut self, gap: &Gap) {
        self.take(gap.topic.as_str(), gap_of(gap));
    }

    fn begun(&mut self) {
        self.0.iter_mut().for_each(|reading| reading.begun(None));
    }

    /// One of several topics is enough: which is ahead is not told.
    fn is_done(&self) -> bool {
        self.0.iter().any(Reading::is_done)
    }

    fn messages(&self) -> usize {
        self.0.iter().map(Reading::messages).sum()
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|reading| reading.track.name.as_str()).collect()
    }
}

/// Reads over server-sent events. With luck it leaves in the middle, and goes on by the last event, which
/// is an attach more. Returns how many there were.
pub(super) async fn by_events(
    relays: &[SocketAddr],
    readings: &mut Readings,
    dice: &mut Dice,
) -> io::Result<usize> {
    let several = readings.0.len() > 1;
    let path = if several {
        format!("/api/v1/stream?topics={}&", readings.names().join(","))
    } else {
        format!("/api/v1/topics/{}/messages?", readings.names()[0])
    };
    let from = readings.0[0].from;
    let resumes = dice.roll(4) == 0;
    let mut last = String::new();
    for attach in 1..=2 {
        let leave_at = if resumes && attach == 1 { dice.roll(20) } else { u64::MAX };
        let (query, headers) = match (attach, dice.roll(2)) {
            (1, _) => (format!("{path}after={}", from.cursor()), String::new()),
            (_, 0) => (format!("{path}last_event_id={last}"), String::new()),
            _ => (format!("{path}after=earliest"), format!("last-event-id: {last}\r\n")),
        };
        let mut stream = Stream::open(dice.pick(relays), &query, "text/event-stream", &headers).await?;
        if attach == 1 && (several || from != From::Latest) {
            readings.begun();
        }
        loop {
            let block = stream.until(b"\n\n").await?;
            let block = std::str::from_utf8(&block).expect("events in UTF-8");
            let (mut event_id, mut name, mut data) = (None, None, None);
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("id", value)) => event_id = Some(value),
                    Some(("event", value)) => name = Some(value),
                    Some(("data", value)) => data = Some(value),
                    // A sign of life is a comment.
                    Some(("retry" | "", _)) | None => {}
                    Some(other) => panic!("not expected: {other:?}"),
                }
            }
            match (name, data, event_id) {
                (None, Some(data), Some(event_id)) => {
                    let frame: Frame<'_> = parse(data.as_bytes());
                    assert!(several || frame.message_id == Some(event_id), "{block}");
                    readings.take_message(&frame);
                }
                (Some("gap"), Some(data), None) => readings.take_gap(&parse(data.as_bytes())),
                (Some("subscribed"), Some(_), Some(start)) => {
                    if !several && attach == 1 && from == From::Latest {
                        readings.0[0].begun(Some(id(start)));
                    }
                }
                other => panic!("not expected: {other:?}"),
            }
            if let Some(event_id) = event_id {
                event_id.clone_into(&mut last);
            }
            if readings.is_done() {
                return Ok(attach);
            }
            if !last.is_empty() && readings.messages() as u64 >= leave_at {
                break;
            }
        }
        drop(stream);
        // Some stay away for so long that they have missed something.
        let first = &readings.0[0];
        if dice.roll(12) == 0 && first.last().is_some() {
            first.track.until_trimmed_behind(first.next() - 1).await;
        }
    }
    unreachable!("the second attach reads to the end")
}

/// Reads over lines of JSON.
pub(super) async fn by_lines(
    relays: &[SocketAddr],
    readings: &mut Readings,
    dice: &mut Dice,
) -> io::Result<usize> {
    let path =
        format!("/api/v1/topics/{}/messages?after={}", readings.names()[0], readings.0[0].from.cursor());
    let mut stream = Stream::open(dice.pick(relays), &path, "application/x-ndjson", "").await?;
    readings.begun();
    while !readings.is_done() {
        let line = stream.until(b"\n").await?;
        let frame: Frame<'_> = parse(&line);
        match frame.kind {
            Some("message") => readings.take_message(&frame),
            Some("gap") => readings.take_gap(&parse(&line)),
            Some("subscribed" | "ping") => {}
            other => panic!("not expected: {other:?}"),
        }
    }
    Ok(1)
}

/// Reads pages that are waited for.
pub(super) async fn by_waiting(
    relays: &[SocketAddr],
    readings: &mut Readings,
    dice: &mut Dice,
) -> io::Result<usize> {
    let topic = readings.names()[0].to_owned();
    let mut cursor = readings.0[0].from.cursor();
    let mut connection = RawConnection::connect(dice.pick(relays)).await?;
    loop {
        let limit = 1 + dice.roll(60);
        let path = format!("/api/v1/topics/{topic}/messages?wait=15&limit={limit}&after={cursor}");
        let (status, body) = connection.exchange("GET", &path, "text/plain", "").await?;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let page: Page<'_> = parse(&body);
        if let Some(gap) = &page.gap {
            readings.take_gap(gap);
        }
        page.messages.iter().for_each(|message| readings.take_message(message));
        if readings.is_done() {
            return Ok(1);
        }
        page.resume.clone_into(&mut cursor);
        // Any node goes on where another one was.
        if dice.roll(8) == 0 {
            connection = RawConnection::connect(dice.pick(relays)).await?;
        }
    }
}

/// Reads by long-polls over one or several topics.
pub(super) async fn by_polling(
    relays: &[SocketAddr],
    readings: &mut Readings,
    dice: &mut Dice,
) -> io::Result<usize> {
    let topics = serde_json::to_string(&readings.names()).expect("names are text");
    // A topic without a cursor is read from now on.
    let mut since = Vec::new();
    for Reading { track, from, .. } in &readings.0 {
        if *from != From::Latest || dice.roll(2) == 0 {
            since.push(format!(r#""{}":"{}""#, track.name, from.cursor()));
        }
    }
    let mut since = format!("{{{}}}", since.join(","));
    let mut connection = RawConnection::connect(dice.pick(relays)).await?;
    loop {
        let body = format!(r#"{{"topics":{topics},"since":{since},"timeout":15}}"#);
        let (status, body) = connection.exchange("POST", "/messages/poll", "application/json", &body).await?;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let polled: Polled<'_> = parse(&body);
        // Gaps have a list of their own: each stands in front of the first message behind it.
        let mut gaps = polled.gaps;
        for message in &polled.messages {
            let place = message.message_id.map(id).expect("an id");
            let is_before = |gap: &mut Gap| Some(gap.topic.as_str()) == message.topic && gap.to <= place;
            gaps.extract_if(.., is_before).for_each(|gap| readings.take_gap(&gap));
            readings.take_message(message);
        }
        for gap in &gaps {
            readings.take_gap(gap);
        }
        if readings.is_done() {
            return Ok(1);
        }
        polled.cursors.get().clone_into(&mut since);
        if dice.roll(8) == 0 {
            connection = RawConnection::connect(dice.pick(relays)).await?;
        }
    }
}

/// A WebSocket, on which a reader attaches once or several times.
#[derive(Debug)]
pub(super) struct Socket {
    connection: RawConnection,
    is_binary: bool,
}

impl Socket {
    pub(super) async fn connect(relay: SocketAddr, is_binary: bool) -> io::Result<Self> {
        let mut connection = RawConnection::connect(relay).await?;
        connection.upgrade(is_binary.then_some("tidemill.bincode.v1")).await?;
        Ok(Self { connection, is_binary })
    }

    async fn subscribe(&mut self, topic: &str, cursor: &str) -> io::Result<()> {
        if self.is_binary {
            let frame = Subscribe {
                topics: vec![topic.into()],
                cursors: vec![(topic.into(), cursor.into())],
                ..Subscribe::default()
            };
            self.send_binary(&ClientFrame::Subscribe(frame)).await
        } else {
            let frame = format!(r#"{{"type":"subscribe","topics":["{topic}"],"offset":"{cursor}"}}"#);
            self.connection.send_frame(0x81, frame.as_bytes()).await
        }
    }

    async fn unsubscribe(&mut self, topic: &str) -> io::Result<()> {
        if self.is_binary {
            self.send_binary(&ClientFrame::Unsubscribe { topics: vec![topic.into()] }).await
        } else {
            let frame = format!(r#"{{"type":"unsubscribe","topics":["{topic}"]}}"#);
            self.connection.send_frame(0x81, frame.as_bytes()).await
        }
    }

    async fn send_binary(&mut self, frame: &ClientFrame<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        binary::write_client(frame, &mut out);
        self.connection.send_frame(0x82, &out).await
    }

    /// Returns what comes next.
    async fn next(&mut self) -> io::Result<Coming> {
        loop {
            let (first, payload) = self.connection.frame().await?;
            match first {
                0x81 if !self.is_binary => return Ok(coming_json(&payload)),
                0x82 if self.is_binary => return Ok(coming_binary(&payload)),
                0x89 => self.connection.send_frame(0x8A, &payload).await?,
                _ => panic!("not expected: {first:x} {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    /// Attaches, and reads what is wanted. What comes before the answer belongs to `earlier`.
    pub(super) async fn read(
        &mut self,
        reading: &mut Reading,
        from: From,
        mut earlier: Option<&mut Reading>,
    ) -> io::Result<()> {
        let topic = reading.track.name.clone();
        self.subscribe(&topic, &from.cursor()).await?;
        loop {
            match self.next().await? {
                Coming::Subscribed(cursor) => break reading.begun(Some(cursor)),
                Coming::Got(got) => {
                    let earlier = earlier.as_mut();
                    earlier.unwrap_or_else(|| panic!("before the answer: {got:?}")).take(got);
                }
                Coming::Unsubscribed(_) => panic!("nobody asked for it"),
            }
        }
        while !reading.is_done() {
            match self.next().await? {
                Coming::Got(got) => reading.take(got),
                other => panic!("not expected: {other:?}"),
            }
        }
        Ok(())
    }

    /// Leaves the topic, and returns the cursor where the reader is.
    pub(super) async fn leave(&mut self, reading: &mut Reading) -> io::Result<MessageId> {
        let topic = reading.track.name.clone();
        self.unsubscribe(&topic).await?;
        loop {
            match self.next().await? {
                Coming::Got(got) => reading.take(got),
                Coming::Unsubscribed(cursor) => {
                    // A gap moves it on, too.
                    assert!(Some(cursor) >= reading.last(), "{cursor} is not where it is: {reading:?}");
                    assert!(reading.ends_in_gap() || Some(cursor) == reading.last(), "{cursor}: {reading:?}");
                    return Ok(cursor);
                }
                Coming::Subscribed(_) => panic!("nobody asked for it"),
            }
        }
    }
}

/// What comes over a WebSocket.
#[derive(Debug)]
enum Coming {
    Subscribed(MessageId),
    Unsubscribed(MessageId),
    Got(Got),
}

fn coming_json(text: &[u8]) -> Coming {
    #[derive(Deserialize)]
    struct Answer {
        cursors: std::collections::BTreeMap<String, MessageId>,
    }
    let frame: Frame<'_> = parse(text);
    let cursor = || parse::<Answer>(text).cursors.into_values().next().expect("one topic");
    match frame.kind {
        Some("message") => {
            let (message, payload) = frame.message_id.zip(frame.payload).expect("a message");
            Coming::Got(Got::Message { id: id(message), payload })
        }
        Some("gap") => Coming::Got(gap_of(&parse(text))),
        Some("subscribed") => Coming::Subscribed(cursor()),
        Some("unsubscribed") => Coming::Unsubscribed(cursor()),
        _ => panic!("not expected: {}", String::from_utf8_lossy(text)),
    }
}

fn coming_binary(bytes: &[u8]) -> Coming {
    match binary::read_server(bytes).expect("a frame") {
        ServerFrame::Message(message) => {
            let payload = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
            let payload = payload.unwrap_or_else(|| panic!("no number: {message:?}"));
            Coming::Got(Got::Message { id: message.message_id, payload })
        }
        ServerFrame::Gap(gap) => Coming::Got(gap_of(&gap)),
        ServerFrame::Subscribed { topics, .. } => Coming::Subscribed(topics[0].1),
        ServerFrame::Unsubscribed { topics, .. } => Coming::Unsubscribed(topics[0].1),
        other => panic!("not expected: {other:?}"),
    }
}
