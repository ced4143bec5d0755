//! Senders: connections that publish one request at a time, over HTTP or to a bare server.

use std::ops::Range;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tidemill_proto::message::PublishSummary;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connected::Connected;
use crate::http;
use crate::load::GRACE;
use crate::mark::{Mark, Template, Topics, command, key};
use crate::measure::{Meter, nanos};
use crate::pace::Schedule;
#[cfg(test)]
use crate::resp;
use crate::target::{Kind, TOPIC_PLACE, Target};

/// How long a sender waits before it connects again.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// Failures in a row after which a sender gives up.
pub(crate) const FAILURES_MAX: u32 = 100;
/// Failed requests that are remembered, so that their messages are not missed.
const REMEMBERED_MAX: usize = 10_000;

/// Why a mode does not go with a plain server.
pub(crate) const NOT_PLAIN: &str = "a server that is no relay is published to with --mode http";

/// How messages are put into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// One message a request; to a bare server, one XADD at a time
    Http,
    /// A batch of messages a request, as JSON; to a bare server, a pipeline of XADDs
    Bulk,
    /// A batch of messages a request, one a line; to a bare server, as bulk
    Ndjson,
    /// Frames over WebSocket, a window of them not yet answered; to a bare server, a rolling pipeline
    Ws,
    /// The same with binary frames
    WsBinary,
}

/// What requests look like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// How messages are put into requests.
    pub(crate) mode: Mode,
    /// Messages in a request of several.
    pub(crate) batch: usize,
    /// Bytes of a payload.
    pub(crate) payload_bytes: usize,
    /// Where they go.
    pub(crate) topics: Topics,
    /// About how many messages a bare server keeps of each topic.
    pub(crate) keep: u64,
    /// What is added to each message of a relay.
    pub(crate) extra: Extra,
}

/// What is added to each message of a relay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    /// How much later it is published.
    pub(crate) delay: Option<Duration>,
    /// Whether it has an idempotency key of its own.
    pub(crate) keyed: bool,
    /// Whether it is put as a key of a bucket, which has the name of the topic.
    pub(crate) put: bool,
}

impl Shape {
    /// Returns how many messages a request has.
    pub(crate) fn messages(&self) -> usize {
        if matches!(self.mode, Mode::Bulk | Mode::Ndjson) { self.batch } else { 1 }
    }
}

/// Why a request failed, told by whether the connection goes on.
#[derive(Debug)]
enum Fault {
    Refused(String),
    Broken(String),
}

/// What a sender has published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// How many messages it sent: their sequence numbers are below this.
    pub(crate) messages: u64,
    /// Sequence numbers of those whose fate is unknown.
    pub(crate) failed: Vec<Range<u64>>,
}

/// A connection that publishes one request at a time.
#[derive(Debug)]
pub(crate) struct Sender {
    target: Target,
    template: Template,
    topics: Topics,
    connected: Option<Connected>,
    publisher: u32,
    requests: u64,
    sent: Sent,
}

impl Sender {
    /// Opens a connection. `publisher` is its number among all.
    pub(crate) async fn open(
        target: &Target,
        headers: &str,
        shape: &Shape,
        publisher: u32,
    ) -> Result<Self, String> {
        let template = match target.kind {
            Kind::Relay => http_request(target, headers, shape),
            Kind::Server => pipeline(shape),
            Kind::Plain if shape.mode != Mode::Http => return Err(NOT_PLAIN.to_owned()),
            Kind::Plain => plain_request(target, headers, shape),
        };
        Ok(Self {
            target: target.clone(),
            template,
            topics: shape.topics.clone(),
            connected: Some(Connected::open(target).await?),
            publisher,
            requests: 0,
            sent: Sent::default(),
        })
    }

    /// Publishes until the meter or the schedule ends, and returns what was published.
    pub(crate) async fn run(mut self, meter: &Meter, mut schedule: Option<Schedule>) -> Sent {
        let deadline = meter.window.until + GRACE;
        let is_done = timeout_at(deadline, self.publish_on(meter, schedule.as_mut())).await;
        if is_done.is_err() {
            meter.failed("no answer when the run ended");
            self.forget();
        }
        if is_done != Ok(true) {
            tell_unsent(meter, schedule.as_ref());
        }
        self.sent
    }

    /// Publishes, and returns whether all is sent that should be.
    async fn publish_on(&mut self, meter: &Meter, mut schedule: Option<&mut Schedule>) -> bool {
        let mut failures = 0;
        loop {
            let at = match &mut schedule {
                Some(schedule) => match schedule.due().await {
                    Some(at) => at,
                    None => return true,
                },
                None => Instant::now(),
            };
            if !meter.goes_on(at, self.template.messages()) {
                return true;
            }
            let fault = match self.publish(at, meter.window.from).await {
                Ok(()) => {
                    failures = 0;
                    meter.record(at, Instant::now(), self.template.messages());
                    continue;
                }
                Err(fault) => fault,
            };
            self.forget();
            failures += 1;
            match fault {
                Fault::Refused(what) => meter.failed(&what),
                Fault::Broken(what) => {
                    meter.failed(&what);
                    self.connected = None;
                    sleep(PAUSE).await;
                }
            }
            if failures == FAILURES_MAX {
                meter.failed("a connection gave up");
                return false;
            }
        }
    }

    /// Remembers that the fate of the last request is unknown.
    fn forget(&mut self) {
        if self.sent.failed.len() < REMEMBERED_MAX {
            let last = self.sent.messages.saturating_sub(self.template.messages() as u64);
            self.sent.failed.push(last..self.sent.messages);
        }
    }

    /// Publishes one request, whose messages say that they were to be sent `at`, counted from `epoch`.
    async fn publish(&mut self, at: Instant, epoch: Instant) -> Result<(), Fault> {
        let messages = self.template.messages();
        for index in 0..messages {
            let mark =
                Mark { publisher: self.publisher, sequence: self.sent.messages, at_nanos: stamp(at, epoch) };
            self.template.mark(index, mark);
            self.sent.messages += 1;
        }
        if self.topics.count > 1 {
            self.template.aim(spread((u64::from(self.publisher) << 32) | self.requests, self.topics.count));
        }
        self.requests += 1;
        if self.connected.is_none() {
            self.connected = Some(Connected::open(&self.target).await.map_err(Fault::Broken)?);
        }
        match &mut self.connected {
            Some(Connected::Http(connection)) => {
                let answer = connection.exchange(&self.template.bytes).await.map_err(Fault::Broken)?;
                accepted(&answer, messages).map_err(Fault::Refused)
            }
            Some(Connected::Server(connection)) => {
                let sent = connection.exchange(&self.template.bytes, messages, 0).await;
                sent.map(|_| ()).map_err(Fault::Broken)
            }
            None => Err(Fault::Broken("there is no connection".to_owned())),
        }
    }
}

/// Counts what was due and never sent as failed: its times would be the longest of all.
pub(crate) fn tell_unsent(meter: &Meter, schedule: Option<&Schedule>) {
    match schedule.map_or(0, Schedule::left) {
        0 => {}
        left => meter.failed_times("due and not sent, for which the times are too short", left),
    }
}

/// Returns the time that a mark carries. It is counted from a second before the epoch's warm-up, so
/// that no time of a run is negative.
pub(crate) fn stamp(at: Instant, epoch: Instant) -> u64 {
    nanos(at + MARGIN - epoch)
}

/// Returns the instant that a mark carries.
pub(crate) fn unstamp(at_nanos: u64, epoch: Instant) -> Option<Instant> {
    (epoch + Duration::from_nanos(at_nanos)).checked_sub(MARGIN)
}

/// Longer than any warm-up.
const MARGIN: Duration = Duration::from_hours(2);

/// Returns a topic for the operation with this number: any of them, as if at random.
pub(crate) fn spread(number: u64, count: u32) -> u32 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u32::try_from(mixed % u64::from(count)).unwrap_or_default()
}

/// Checks that all messages of a request were accepted.
fn accepted(answer: &http::Answer<'_>, messages: usize) -> Result<(), String> {
    if !(200..300).contains(&answer.status) {
        let problem = serde_json::from_slice::<tidemill_proto::Problem>(answer.body).ok();
        let code = problem.map(|problem| format!(" ({})", problem.code.as_str())).unwrap_or_default();
        return Err(format!("status {}{code}", answer.status));
    }
    if messages == 1 {
        return Ok(());
    }
    // The results before it would cost more to read than the relay took to write them.
    let at = memchr::memmem::rfind(answer.body, br#""summary":"#);
    let summary = at.and_then(|at| answer.body[at + br#""summary":"#.len()..].strip_suffix(b"}"));
    match summary.and_then(|json| serde_json::from_slice::<PublishSummary>(json).ok()) {
        Some(summary) if summary.accepted == messages => Ok(()),
        Some(_) => Err("the relay refused messages of a batch".to_owned()),
        None => Err("the answer is not a relay's".to_owned()),
    }
}

/// Returns the request that publishes to a relay.
fn http_request(target: &Target, headers: &str, shape: &Shape) -> Template {
    let mut path = Template::default();
    let mut body = Template::default();
    let media = match shape.mode {
        Mode::Ndjson => {
            path.text("/api/v1/topics/");
            path.topic(&shape.topics);
            path.text("/messages");
            for _ in 0..shape.batch {
                body.payload(shape.payload_bytes);
                body.text("\n");
            }
            "application/x-ndjson"
        }
        Mode::Bulk => {
            path.text("/api/v1/messages/bulk");
            body.text(r#"{"messages":["#);
            for index in 0..shape.batch {
                body.text(if index > 0 { "," } else { "" });
                message(&mut body, shape);
            }
            body.text("]}");
            "application/json"
        }
        Mode::Http | Mode::Ws | Mode::WsBinary if shape.extra.put => {
            path.text("/api/v1/keys/");
            path.topic(&shape.topics);
            path.text("/state");
            body.payload(shape.payload_bytes);
            "application/json"
        }
        Mode::Http | Mode::Ws | Mode::WsBinary => {
            path.text("/api/v1/messages");
            message(&mut body, shape);
            "application/json"
        }
    };
    let keyed = shape.extra.keyed && shape.mode == Mode::Http;
    let method = if shape.extra.put { "PUT" } else { "POST" };
    send(method, target, headers, (&path, media, keyed), &body)
}

/// Returns the request that publishes to a plain server: the payload as it is.
fn plain_request(target: &Target, headers: &str, shape: &Shape) -> Template {
    let publish = target.paths.as_ref().map_or("", |paths| paths.publish.as_str());
    let mut path = Template::default();
    for (number, part) in publish.split(TOPIC_PLACE).enumerate() {
        if number > 0 {
            path.topic(&shape.topics);
        }
        path.text(part);
    }
    let mut body = Template::default();
    body.payload(shape.payload_bytes);
    send("POST", target, headers, (&path, "application/json", false), &body)
}

fn send(
    method: &str,
    target: &Target,
    headers: &str,
    what: (&Template, &str, bool),
    body: &Template,
) -> Template {
    let (path, media, keyed) = what;
    let mut request = Template::default();
    request.text(&format!("{method} {}", target.base));
    request.append(path);
    let (host, length) = (&target.host, body.bytes.len());
    request.text(&format!(
        " HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n{headers}"
    ));
    if keyed {
        request.text("Idempotency-Key: ");
        request.key();
        request.text("\r\n");
    }
    request.text("\r\n");
    request.append(body);
    request
}

fn message(body: &mut Template, shape: &Shape) {
    body.text(r#"{"topic":""#);
    body.topic(&shape.topics);
    body.text(r#"","payload":"#);
    body.payload(shape.payload_bytes);
    if let Some(delay) = shape.extra.delay {
        body.text(&format!(r#","delay":{}"#, delay.as_secs_f64()));
    }
    // Of a message alone the key stands in the head.
    if shape.extra.keyed && shape.mode != Mode::Http {
        body.text(r#","key":""#);
        body.key();
        body.text("\"");
    }
    body.text("}");
}

/// Returns the commands that append to a bare server what a relay would: the same key and fields.
fn pipeline(shape: &Shape) -> Template {
    let one = xadd(shape);
    let mut all = Template::default();
    for _ in 0..shape.messages() {
        all.append(&one);
    }
    all
}

/// Returns the command that appends one message.
pub(crate) fn xadd(shape: &Shape) -> Template {
    let text = |text: &str| {
        let mut part = Template::default();
        part.text(text);
        part
    };
    let mut key_ = text(&key(""));
    key_.topic(&shape.topics);
    let mut payload = Template::default();
    payload.payload(shape.payload_bytes);
    let (keep, time) = (text(&shape.keep.to_string()), text("2026-01-01T00:00:00.000Z"));
    let (xadd, maxlen, about, any) = (text("XADD"), text("MAXLEN"), text("~"), text("*"));
    command(&[xadd, key_, maxlen, about, keep, any, text("payload"), payload, text("timestamp"), time])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Paths;

    fn shape(mode: Mode, topics: u32) -> Shape {
        let (topics, extra) = (Topics::new("t".to_owned(), topics), Extra::default());
        Shape { mode, batch: 3, payload_bytes: 200, topics, keep: 9, extra }
    }

    #[test]
    fn requests_are_what_their_heads_say() {
        let target = Target::parse("http://127.0.0.1:1/base", None, false).expect("a URL");
        for mode in [Mode::Http, Mode::Bulk, Mode::Ndjson] {
            let request = http_request(&target, "X-A: b\r\n", &shape(mode, 5));
            let text = String::from_utf8(request.bytes.clone()).expect("ASCII");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("POST /base/api/v1/") && head.ends_with("X-A: b"), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert_eq!(request.messages(), if mode == Mode::Http { 1 } else { 3 });
            let values = if mode == Mode::Ndjson { body.lines().collect() } else { vec![body] };
            for json in values {
                serde_json::from_str::<serde_json::Value>(json).expect("JSON");
            }
        }
    }

    #[test]
    fn a_plain_server_gets_the_payload_on_its_path() {
        let paths = Paths { publish: "/p/{topic}?a".to_owned(), subscribe: "/s/{topic}".to_owned() };
        let target = Target::parse("http://127.0.0.1:1", Some(paths), false).expect("a URL");
        let request = plain_request(&target, "", &shape(Mode::Http, 1));
        let text = String::from_utf8(request.bytes.clone()).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("POST /p/t?a HTTP/1.1\r\n"), "{head}");
        assert_eq!((body.len(), request.messages()), (200, 1));
    }

    #[test]
    fn commands_are_whole_and_as_many_as_they_should_be() {
        let commands = pipeline(&shape(Mode::Bulk, 1));
        let mut rest = commands.bytes.as_slice();
        let mut count = 0;
        while let Some(extent) = resp::extent(rest).expect("RESP") {
            rest = &rest[extent.bytes..];
            count += 1;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!((count, commands.messages()), (3, 3));
    }

    #[test]
    fn marks_carry_their_time() {
        let epoch = Instant::now();
        let at = epoch.checked_sub(Duration::from_millis(5)).expect("after the start of the machine");
        assert_eq!(unstamp(stamp(at, epoch), epoch), Some(at));
    }

    #[test]
    fn every_topic_gets_its_share() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|number| counts[spread(number, 10) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
