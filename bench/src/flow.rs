//! Flows: connections that publish with a window of messages not yet answered, over WebSocket or to a
//! bare server.
//!
//! Writing and reading go on at the same time: a sender that only wrote would wait for a relay that
//! waits for its answers to be read.

use std::collections::VecDeque;
use std::io;

use tidemill_proto::frame::binary;
use tidemill_proto::frame::{ClientFrame, Publish, ServerFrame};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::load::GRACE;
use crate::mark::{Mark, Template, Topics};
use crate::measure::Meter;
use crate::pace::{Due, Schedule};
use crate::sender::{Mode, NOT_PLAIN, Sent, Shape, spread, stamp, tell_unsent, xadd};
use crate::target::{Kind, Target, describe};
use crate::{resp, ws};

/// Bytes that are gathered before they are written.
const OUT_BYTES: usize = 64 * 1024;
const IN_BYTES: usize = 64 * 1024;
/// Largest answer in bytes.
const IN_BYTES_MAX: usize = 1024 * 1024;

/// How answers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// They come in order.
    Server,
    /// They carry the reference, in JSON.
    Json,
    /// They carry the reference, in binary.
    Binary,
}

/// A connection that publishes with a window.
#[derive(Debug)]
pub(crate) struct Flow {
    stream: TcpStream,
    dialect: Dialect,
    template: Template,
    topics: Topics,
    publisher: u32,
    window: usize,
    sent: Sent,
    /// References that are not in use.
    free: Vec<u32>,
    /// References in use, in the order of sending, where answers come in order.
    order: VecDeque<u32>,
    /// By reference: when its message was to be sent, and its sequence number.
    waiting: Vec<(Instant, u64)>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    filled: usize,
}

impl Flow {
    /// Opens a connection. `publisher` is its number among all.
    pub(crate) async fn open(
        target: &Target,
        headers: &str,
        shape: &Shape,
        window: usize,
        publisher: u32,
    ) -> Result<Self, String> {
        let dialect = match (target.kind, shape.mode) {
            (Kind::Server, _) => Dialect::Server,
            (Kind::Relay, Mode::WsBinary) => Dialect::Binary,
            (Kind::Relay, _) => Dialect::Json,
            (Kind::Plain, _) => return Err(NOT_PLAIN.to_owned()),
        };
        let (stream, mut incoming) = match dialect {
            Dialect::Server => (resp::Connection::open(target, 0).await?.into_stream(), Vec::new()),
            Dialect::Json | Dialect::Binary => {
                ws::open(target, headers, ws::PATH, dialect == Dialect::Binary, 0).await?
            }
        };
        let template = match dialect {
            Dialect::Server => xadd(shape),
            Dialect::Json => ws::client_frame(ws::Kind::Text, &json(shape)),
            Dialect::Binary => ws::client_frame(ws::Kind::Binary, &in_binary(shape)),
        };
        let filled = incoming.len();
        incoming.resize(IN_BYTES.max(filled), 0);
        Ok(Self {
            stream,
            dialect,
            template,
            topics: shape.topics.clone(),
            publisher,
            window,
            sent: Sent::default(),
            free: (0..).take(window).collect(),
            order: VecDeque::with_capacity(window),
            waiting: vec![(Instant::now(), 0); window],
            outgoing: Vec::with_capacity(OUT_BYTES * 2),
            incoming,
            filled,
        })
    }

    /// Publishes until the meter or the schedule ends, and returns what was published.
    pub(crate) async fn run(mut self, meter: &Meter, mut schedule: Option<Schedule>) -> Sent {
        let deadline = meter.window.until + GRACE;
        let why = match timeout_at(deadline, self.publish_on(meter, schedule.as_mut())).await {
            Ok(Ok(())) => return self.sent,
            Ok(Err(why)) => why,
            Err(_) => "no answer when the run ended".to_owned(),
        };
        tell_unsent(meter, schedule.as_ref());
        let unanswered = (0..).zip(&self.waiting).filter(|(slot, _)| !self.free.contains(slot));
        let unanswered: Vec<_> = unanswered.map(|(_, (_, sequence))| *sequence..*sequence + 1).collect();
        meter.failed_times(&why, unanswered.len().max(1) as u64);
        self.sent.failed.extend(unanswered);
        self.sent
    }

    async fn publish_on(&mut self, meter: &Meter, mut schedule: Option<&mut Schedule>) -> Result<(), String> {
        let mut ended = false;
        loop {
            ended = ended || self.gather(meter, schedule.as_deref_mut());
            if ended && self.free.len() == self.window && self.outgoing.is_empty() {
                return Ok(());
            }
            let mut interest = Interest::READABLE;
            if !self.outgoing.is_empty() {
                interest |= Interest::WRITABLE;
            }
            let waits = !ended && !self.free.is_empty();
            let ready = match &schedule {
                Some(schedule) if waits => tokio::select! {
                    ready = self.stream.ready(interest) => ready,
                    () = schedule.wait() => continue,
                },
                _ => self.stream.ready(interest).await,
            };
            let ready = ready.map_err(|error| describe("cannot send", &error))?;
            if ready.is_writable() && !self.outgoing.is_empty() {
                match self.stream.try_write(&self.outgoing) {
                    Ok(bytes) => drop(self.outgoing.drain(..bytes)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(describe("cannot send", &error)),
                }
            }
            if ready.is_readable() {
                match self.stream.try_read(&mut self.incoming[self.filled..]) {
                    Ok(0) => return Err("the connection was closed".to_owned()),
                    Ok(bytes) => self.filled += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(describe("cannot read", &error)),
                }
                self.answers(meter)?;
            }
        }
    }

    /// Writes the messages that may be sent now behind those that wait to be written, and returns
    /// whether they were the last.
    fn gather(&mut self, meter: &Meter, mut schedule: Option<&mut Schedule>) -> bool {
        let now = Instant::now();
        while self.outgoing.len() < OUT_BYTES
            && let Some(slot) = self.free.pop()
        {
            let at = match schedule.as_mut().map(|schedule| schedule.try_due(now)) {
                None => Some(now),
                Some(Due::Now(at)) => Some(at),
                Some(Due::Later) => {
                    self.free.push(slot);
                    return false;
                }
                Some(Due::Never) => None,
            };
            let Some(at) = at.filter(|at| meter.goes_on(*at, 1)) else {
                self.free.push(slot);
                return true;
            };
            let sequence = self.sent.messages;
            self.sent.messages += 1;
            self.waiting[slot as usize] = (at, sequence);
            let at_nanos = stamp(at, meter.window.from);
            self.template.mark(0, Mark { publisher: self.publisher, sequence, at_nanos });
            self.template.refer(slot);
            if self.topics.count > 1 {
                self.template.aim(spread((u64::from(self.publisher) << 32) | sequence, self.topics.count));
            }
            if self.dialect == Dialect::Server {
                self.order.push_back(slot);
            }
            self.outgoing.extend_from_slice(&self.template.bytes);
        }
        false
    }

    /// Takes the answers out of what was read.
    fn answers(&mut self, meter: &Meter) -> Result<(), String> {
        let mut at = 0;
        let mut done = Vec::with_capacity(64);
        loop {
            let rest = &self.incoming[at..self.filled];
            let (bytes, answer) = match self.dialect {
                Dialect::Server => match resp::extent(rest)? {
                    None => break,
                    Some(extent) => {
                        let slot = self.order.pop_front().ok_or("an answer to nothing")?;
                        let refused = extent.is_error.then(|| resp::refusal(&rest[..extent.bytes]));
                        (extent.bytes, Some((slot, refused)))
                    }
                },
                Dialect::Json | Dialect::Binary => match ws::frame(rest)? {
                    None => break,
                    Some(frame) => {
                        let answer = match frame.kind {
                            ws::Kind::Text => in_text(frame.payload)?,
                            ws::Kind::Binary => in_bytes(frame.payload)?,
                            ws::Kind::Close => return Err(ws::closed(frame.payload)),
                            ws::Kind::Ping => {
                                ws::write(&mut self.outgoing, ws::Kind::Pong, frame.payload);
                                None
                            }
                            ws::Kind::Pong => None,
                        };
                        (frame.bytes, answer)
                    }
                },
            };
            at += bytes;
            let Some((slot, refused)) = answer else { continue };
            let (started, sequence) = *self.waiting.get(slot as usize).ok_or("an answer to nothing")?;
            self.free.push(slot);
            match refused {
                None => done.push(started),
                Some(why) => {
                    meter.failed(&why);
                    self.sent.failed.push(sequence..sequence + 1);
                }
            }
        }
        self.incoming.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.filled == self.incoming.len() {
            if self.filled >= IN_BYTES_MAX {
                return Err("an answer that is too large".to_owned());
            }
            self.incoming.resize(self.filled * 2, 0);
        }
        meter.record_all(Instant::now(), 1, done.into_iter());
        Ok(())
    }
}

type Answer = Option<(u32, Option<String>)>;

/// Reads an answer in JSON. The reference stands near its start; the rest need not be read.
fn in_text(payload: &[u8]) -> Result<Answer, String> {
    const PUBLISHED: &[u8] = br#"{"type":"published","ref":""#;
    if let Some(rest) = payload.strip_prefix(PUBLISHED) {
        let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
        return Ok(Some((reference(&rest[..end])?, None)));
    }
    let frame: serde_json::Value =
        serde_json::from_slice(payload).map_err(|_| "a frame that is no JSON".to_owned())?;
    match (frame["type"].as_str(), frame["ref"].as_str()) {
        (Some("published"), Some(text)) => Ok(Some((reference(text.as_bytes())?, None))),
        (Some("error"), text) => {
            let why = format!("the relay refused ({})", frame["code"].as_str().unwrap_or("no code"));
            match text {
                Some(text) => Ok(Some((reference(text.as_bytes())?, Some(why)))),
                None => Err(why),
            }
        }
        _ => Ok(None),
    }
}

/// Reads an answer in binary: version, variant 2, a reference that is there, its length, itself.
fn in_bytes(payload: &[u8]) -> Result<Answer, String> {
    if let [binary::VERSION, 2, 1, length @ ..=250, rest @ ..] = payload
        && let Some(text) = rest.get(..usize::from(*length))
    {
        return Ok(Some((reference(text)?, None)));
    }
    match binary::read_server(payload).map_err(|_| "a frame that cannot be read".to_owned())? {
        ServerFrame::Error(error) => {
            let why = format!("the relay refused ({})", error.code.as_str());
            match error.reference {
                Some(text) => Ok(Some((reference(text.as_bytes())?, Some(why)))),
                None => Err(why),
            }
        }
        _ => Ok(None),
    }
}

fn reference(text: &[u8]) -> Result<u32, String> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.parse().map_err(|_| "an answer to nothing".to_owned())
}

fn json(shape: &Shape) -> Template {
    let mut frame = Template::default();
    frame.text(r#"{"type":"publish","ref":""#);
    frame.reference();
    frame.text(r#"","topic":""#);
    frame.topic(&shape.topics);
    frame.text(r#"","payload":"#);
    frame.payload(shape.payload_bytes);
    frame.text("}");
    frame
}

/// Returns the frame in binary, as the codec writes it, with the places found again in it.
fn in_binary(shape: &Shape) -> Template {
    let (mut reference, mut topic, mut payload) =
        (Template::default(), Template::default(), Template::default());
    reference.reference();
    topic.topic(&shape.topics);
    payload.payload(shape.payload_bytes);
    let text = |template: &Template| String::from_utf8_lossy(&template.bytes).into_owned();
    let mut bytes = Vec::new();
    let frame = ClientFrame::Publish(Publish {
        reference: Some(text(&reference).into()),
        topic: text(&topic).into(),
        payload: payload.bytes.as_slice().into(),
        content_type: None,
        metadata: None,
        ttl: None,
        key: None,
        delivery: None,
        expected_last: None,
        order_key: None,
        unique: None,
        durability: None,
        fence: None,
    });
    binary::write_client(&frame, &mut bytes);
    // The parts stand in this order, so each is looked for behind the one before.
    let mut out = Template::default();
    let mut rest = bytes.as_slice();
    for part in [&reference, &topic, &payload] {
        let at = memchr::memmem::find(rest, &part.bytes).unwrap_or_default();
        out.bytes.extend_from_slice(&rest[..at]);
        out.append(part);
        rest = &rest[at + part.bytes.len()..];
    }
    out.bytes.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::Extra;

    fn shape() -> Shape {
        let topics = Topics::new("t".to_owned(), 9);
        Shape { mode: Mode::Ws, batch: 1, payload_bytes: 300, topics, keep: 1, extra: Extra::default() }
    }

    #[test]
    fn frames_of_both_kinds_are_publishes() {
        let mark = Mark { publisher: 1, sequence: 2, at_nanos: 3 };
        for (is_binary, mut template) in [(false, json(&shape())), (true, in_binary(&shape()))] {
            template.refer(77);
            template.aim(8);
            template.mark(0, mark);
            let frame = if is_binary {
                binary::read_client(&template.bytes).expect("a frame")
            } else {
                let text = std::str::from_utf8(&template.bytes).expect("UTF-8");
                tidemill_proto::frame::json::read(text).expect("a frame")
            };
            let ClientFrame::Publish(publish) = frame else { panic!("a publish") };
            assert_eq!(publish.reference.as_deref(), Some("000077"));
            assert_eq!((publish.topic.as_ref(), publish.payload.len()), ("t-000008", 300));
            let mut found = None;
            Mark::each(&publish.payload, |mark| found = Some(mark));
            assert_eq!(found, Some(mark));
        }
    }

    #[test]
    fn answers_of_both_kinds_are_read() {
        use tidemill_proto::frame::json;
        let published = ServerFrame::Published {
            durability: None,
            reference: Some("000042".into()),
            message_id: tidemill_proto::MessageId::new(1, 2),
            topic: tidemill_proto::TopicName::parse("t").expect("a name"),
            timestamp: tidemill_proto::Timestamp::from_millis(1),
            replayed: false,
        };
        let (mut text, mut bytes) = (Vec::new(), Vec::new());
        json::write(&published, &mut text);
        binary::write_server(&published, &mut bytes);
        assert_eq!(in_text(&text), Ok(Some((42, None))));
        assert_eq!(in_bytes(&bytes), Ok(Some((42, None))));
        let refused = in_text(br#"{"type":"error","ref":"7","code":"too_large","message":"no"}"#);
        assert_eq!(refused, Ok(Some((7, Some("the relay refused (too_large)".to_owned())))));
    }
}
