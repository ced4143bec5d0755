//! Live streams: an answer whose body is written as messages come, by the feed or, where the client
//! does not take everything at once, by the stream's own task.
//!
//! Nothing is queued: a client that reads slowly has one chunk of its own here, and the cursor of its
//! reader. It must not know how frames are written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write as _};
use std::pin::pin;

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, DATE, VARY};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use serde::Serialize;
use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, PatternCursor, Problem, Timestamp, TopicName, TopicSelector};
use tokio::time::{Instant, sleep};

use super::{Http, head};
use crate::access::Leave;
use crate::budget::FREE_BYTES;
use crate::link::{Handover, Link, Outbox, Taken};
use crate::metrics::Transport;
use crate::relay::{Item, LiveMessage, LiveReader, Outlet, SharedBatch, TakeLimit};

/// Most items of one chunk: enough that a chunk of small messages is worth its system call.
const CHUNK_ITEMS_MAX: usize = 256;

/// The share of what a subscriber may hold that one chunk takes: history that is about to be written
/// is there twice.
const CHUNK_SHARE: usize = 4;

/// Bytes that a client may send while it is being written to. It has nothing to say.
const IGNORED_BYTES_MAX: usize = 64 * 1024;

/// How frames are written on a stream.
pub(super) trait Form: Send + 'static {
    /// Returns the content type.
    fn content_type(&self) -> HeaderValue;

    /// Returns as what its readers are counted.
    fn transport(&self) -> Transport;

    /// Returns the name of this form, if the frames of messages are the same for all of its readers.
    fn shared_as(&self) -> Option<&'static str>;

    /// Returns the first frame.
    fn greeting(&mut self, opening: &Opening) -> Bytes;

    /// Returns the frames of `items`, of which there is at least one.
    fn frames(&mut self, items: &[Item]) -> Bytes;

    /// Writes what a frame of a message has of its own into `front`, and returns the rest of it, which is the
    /// same for all readers.
    fn frame(&mut self, message: &LiveMessage, front: &mut Vec<u8>) -> Bytes;

    /// Notes that the frames of these items were written, which are the same for all readers of the form: whichever of
    /// them has made them.
    fn written(&mut self, _: &[Item]) {}

    /// Notes that the reader was told anew what there is.
    fn anew(&mut self) {}

    /// Returns the frame that shows that the relay is there, to a reader that has come up to this place; nothing where
    /// there is nothing to be said now.
    fn ping(&mut self, now: Timestamp, at: Option<MessageId>) -> Bytes;

    /// Returns the last frame, with the cursors to resume with.
    fn end(&mut self, reason: &str, cursors: &Cursors) -> Bytes;

    /// Returns the frame that tells why a stream cannot go on.
    fn problem(&mut self, problem: &Problem) -> Bytes;
}

/// What the first frame of a stream says.
#[derive(Debug, Serialize)]
pub(super) struct Opening {
    /// Where each topic starts: a cursor to resume with.
    pub(super) cursors: BTreeMap<TopicSelector, Cursor>,
    /// Those of the topics that do not exist yet.
    pub(super) absent: Vec<TopicName>,
}

/// A cursor of a topic, or of a pattern.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Cursor {
    Of(MessageId),
    OfPattern(PatternCursor),
}

/// The cursors of what a reader reads.
pub(super) type Cursors = BTreeMap<TopicSelector, Cursor>;

/// The way of a stream to its client.
pub(super) struct Stream {
    http: Http,
    form: Box<dyn Form>,
    link: Link,
    outbox: Outbox,
    chunked: bool,
    until: Until,
    sent_at: Instant,
}

/// With what the messages of a reader end, beside its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// With nothing.
    Ever,
    /// With its topic.
    Closed,
    /// With a hole, of which whoever writes the stream tells.
    Gap,
}

/// What the messages of a reader ended with.
pub(super) enum Ended {
    /// There is nothing more, for this reason.
    Over(Cow<'static, str>),
    /// There is a hole.
    Gap,
}

/// What a stream does next.
enum Turn {
    Farewell(Leave),
    Ping,
    /// The client has hung up, or breaks the rules.
    Over(io::Error),
}

/// Answers with everything that `reader` gets from now on.
pub(super) fn respond(
    http: &Http,
    reader: LiveReader<Stream>,
    form: impl Form,
    opening: Opening,
) -> Response {
    respond_until(http, reader, form, opening, Until::Ever)
}

/// The same of a reader of one topic, with which the answer ends.
pub(super) fn respond_of_topic(
    http: &Http,
    reader: LiveReader<Stream>,
    form: impl Form,
    opening: Opening,
) -> Response {
    respond_until(http, reader, form, opening, Until::Closed)
}

fn respond_until(
    http: &Http,
    reader: LiveReader<Stream>,
    form: impl Form,
    opening: Opening,
    until: Until,
) -> Response {
    hand_over(http, form, until, move |mut stream| {
        let greeting = stream.form.greeting(&opening);
        stream.put(greeting);
        stream.serve(reader)
    })
}

/// Answers with a stream that `serve` writes.
pub(super) fn hand_over<F: Future<Output = ()> + Send + 'static>(
    http: &Http,
    form: impl Form,
    until: Until,
    serve: impl FnOnce(Stream) -> F + Send + 'static,
) -> Response {
    let headers = [
        (CONTENT_TYPE, form.content_type()),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (VARY, HeaderValue::from_static("accept")),
        // Some proxies hold back what comes in small pieces, unless told not to.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let mut response = headers.into_response();
    // The HTTP library does not write this head.
    if let Ok(date) = head::with_date(http.0.relay.clock().now(), HeaderValue::from_str) {
        response.headers_mut().insert(DATE, date);
    }
    let (http, form) = (http.clone(), Box::new(form));
    response.extensions_mut().insert(Handover::to(move |Taken { link, head, chunked, .. }| {
        let mut outbox = Outbox::default();
        *outbox.own() = head;
        let sent_at = Instant::now();
        serve(Stream { http, form, link, outbox, chunked, until, sent_at })
    }));
    response
}

/// Returns the answer to a request for a stream by this method: to one that asks for the head alone nobody
/// writes a body.
pub(super) fn to(method: &Method, mut response: Response) -> Response {
    if method == Method::HEAD {
        response.extensions_mut().remove::<Handover>();
    }
    response
}

impl Stream {
    async fn serve(self, reader: LiveReader<Self>) {
        match self.write_until_the_end(reader).await {
            Ok(link) => link.close().await,
            Err(error) => tracing::debug!(%error, "a stream was ended by its client"),
        }
    }

    /// Writes what the reader has, and the last frame. From then on the reader's session is over, however long the client
    /// keeps the connection.
    ///
    /// # Errors
    /// The client has hung up, or does not read.
    async fn write_until_the_end(self, mut reader: LiveReader<Self>) -> io::Result<Link> {
        let http = self.http.clone();
        let _counted = http.0.metrics.readers().enter(self.form.transport());
        let (stream, ended) = self.write_messages(&mut reader).await?;
        let Ended::Over(reason) = ended else { return Ok(stream.link) };
        stream.write_last(&reason, cursors_of(&reader)).await
    }

    /// Writes what the reader has until the node drains, or until what the stream ends with.
    ///
    /// # Errors
    /// The client has hung up, or does not read.
    pub(super) async fn write_messages(mut self, reader: &mut LiveReader<Self>) -> io::Result<(Self, Ended)> {
        let http = self.http.clone();
        let options = &http.0.options;
        let limit = TakeLimit { items: CHUNK_ITEMS_MAX, bytes: self.bytes_max() };
        let mut farewell = pin!(reader.farewell());
        let mut ping = pin!(sleep(options.ping_every));
        let link = self.link.clone();
        let mut ignored = 0;
        let reason = loop {
            if let Err(error) = self.flush().await {
                if error.kind() == ErrorKind::TimedOut {
                    reader.note_cut();
                }
                return Err(error);
            }
            let items = reader.take(limit);
            if items.is_empty()
                && let Some((_, failure)) = reader.ended()
            {
                let problem = self.form.problem(failure.problem());
                self.put(problem);
                break Cow::Owned(failure.problem().detail.clone());
            }
            let turn = if items.is_empty() {
                let until = async {
                    tokio::select! {
                        biased;
                        leave = &mut farewell => Turn::Farewell(leave),
                        error = hung_up(&link, &mut ignored) => Turn::Over(error),
                        () = &mut ping => Turn::Ping,
                    }
                };
                let (stream, turn) = reader.idle(self, until).await;
                self = stream;
                turn
            } else {
                if let Some(held) = reader.held() {
                    self.outbox.keep(held);
                }
                if let (Until::Gap, Some(at)) = (self.until, gap_among(&items)) {
                    self.put_items(&items[..at]);
                    return Ok((self, Ended::Gap));
                }
                self.put_items(&items);
                if let Some(state) = closed(&items).filter(|_| self.until == Until::Closed) {
                    break Cow::Borrowed(state.as_str());
                }
                farewell.as_mut().now_or_never().map(Turn::Farewell)
            };
            match turn {
                None => {}
                Some(Turn::Over(error)) => return Err(error),
                Some(Turn::Farewell(leave)) => break Cow::Borrowed(leave.reason()),
                Some(Turn::Ping) => {
                    let now = Instant::now();
                    if self.sent_at + options.ping_every <= now {
                        let at = if self.until == Until::Gap { reader.cursors().pop() } else { None };
                        let at = at.map(|(_, at)| at);
                        let frame = self.form.ping(http.0.relay.clock().now(), at);
                        self.sent_at = now;
                        self.put(frame);
                    }
                    ping.as_mut().reset(self.sent_at + options.ping_every);
                }
            }
        };
        Ok((self, Ended::Over(reason)))
    }

    /// Writes the last frame, with what the reader resumes with.
    ///
    /// # Errors
    /// The client has hung up, or does not read.
    pub(super) async fn write_last(mut self, reason: &str, cursors: Cursors) -> io::Result<Link> {
        let last = self.form.end(reason, &cursors);
        self.put(last);
        if self.chunked {
            // A chunk without bytes is the last one.
            self.outbox.own().extend_from_slice(b"0\r\n\r\n");
        }
        self.flush().await?;
        Ok(self.link)
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.link.flush(&mut self.outbox).await.map(drop)
    }

    fn put_items(&mut self, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        let messages = items.iter().filter(|item| matches!(item, Item::Message(_))).count();
        self.http.0.metrics.messages().served(messages);
        if let [Item::Message(message)] = items
            && message.len_bytes() > FREE_BYTES
        {
            return self.put_large(message);
        }
        let frames = self.form.frames(items);
        self.put(frames);
    }

    /// Returns the name of what is written, if it is the same for all readers of the form.
    fn shared_as(&self) -> Option<&'static str> {
        self.form.shared_as().filter(|_| self.chunked)
    }

    /// Adds a message that is not copied for each reader.
    fn put_large(&mut self, message: &LiveMessage) {
        self.sent_at = Instant::now();
        let mut front = Vec::new();
        let rest = self.form.frame(message, &mut front);
        if front.is_empty() && rest.is_empty() {
            return;
        }
        let own = self.outbox.own();
        if self.chunked {
            // Writing into a vector cannot fail.
            let _ = write!(own, "{:x}\r\n", front.len() + rest.len());
        }
        own.append(&mut front);
        self.outbox.push_shared(&rest);
        if self.chunked {
            self.outbox.own().extend_from_slice(b"\r\n");
        }
    }

    /// Returns how many bytes are taken at once.
    pub(super) fn bytes_max(&self) -> usize {
        self.http.0.options.subscriber_bytes_max / CHUNK_SHARE
    }

    /// Notes that the reader was told anew what there is.
    pub(super) fn anew(&mut self) {
        self.form.anew();
    }

    pub(super) fn put(&mut self, frames: Bytes) {
        if frames.is_empty() {
            return;
        }
        self.sent_at = Instant::now();
        let chunk = if self.chunked { chunk(&frames) } else { frames };
        self.outbox.push_shared(&chunk);
    }
}

impl Outlet for Stream {
    fn is_free(&self) -> bool {
        self.outbox.is_sent()
    }

    fn takes(&self, batch: &SharedBatch) -> bool {
        // What is copied for this reader alone has to be counted for it, which its own task does.
        let bytes_max = if self.shared_as().is_some() { self.bytes_max() } else { FREE_BYTES };
        self.is_free() && batch.len_bytes() <= bytes_max
    }

    fn deliver(&mut self, batch: &SharedBatch) {
        match self.shared_as() {
            Some(name) => {
                let form = &mut self.form;
                let chunk = batch.encoded(name, |items| chunk(&form.frames(items)));
                form.written(batch.items());
                self.http.0.metrics.messages().served(batch.items().len());
                if !chunk.is_empty() {
                    self.sent_at = Instant::now();
                    self.outbox.push_shared(&chunk);
                }
                if let Some(held) = batch.held() {
                    self.outbox.keep(held);
                }
            }
            None => self.put_items(batch.items()),
        }
        // Should the connection be gone, something is left, and the task that is called for it finds
        // out.
        let _ = self.link.write(&mut self.outbox);
    }
}

/// Returns how a topic has ended, where one has.
fn closed(items: &[Item]) -> Option<RunState> {
    items.iter().find_map(|item| match item {
        Item::Closed(closed) => Some(closed.state),
        Item::Message(_) | Item::Gap(_) | Item::Bookmark(..) => None,
    })
}

/// Returns what a reader resumes with.
pub(super) fn cursors_of(reader: &LiveReader<Stream>) -> Cursors {
    let topics = reader.cursors().into_iter().map(|(topic, at)| (topic.into(), Cursor::Of(at)));
    let patterns = reader.pattern_cursors().into_iter();
    let patterns = patterns.map(|(pattern, at)| (pattern.into(), Cursor::OfPattern(at)));
    topics.chain(patterns).collect()
}

/// Returns the place of the first hole.
fn gap_among(items: &[Item]) -> Option<usize> {
    items.iter().position(|item| matches!(item, Item::Gap(_)))
}

/// Returns bytes as one chunk (RFC 9112 section 7.1); nothing of none, which would be the last.
fn chunk(bytes: &Bytes) -> Bytes {
    if bytes.is_empty() {
        return Bytes::new();
    }
    let mut out = Vec::with_capacity(bytes.len() + 16);
    // Writing into a vector cannot fail.
    let _ = write!(out, "{:x}\r\n", bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// Waits until the client hangs up, or has sent more than there is any reason to.
async fn hung_up(link: &Link, ignored: &mut usize) -> io::Error {
    loop {
        let read = match link.readable().await {
            Ok(()) => link.read(<[u8]>::len),
            Err(error) => Err(error),
        };
        match read {
            Ok(0) => return ErrorKind::UnexpectedEof.into(),
            Ok(count) => *ignored += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
        if *ignored > IGNORED_BYTES_MAX {
            return io::Error::new(ErrorKind::InvalidData, "the client sends behind its request");
        }
    }
}

/// Returns the frames of many items in one piece; those of one as they are, without a copy.
pub(super) fn join<'a>(items: &'a [Item], frame: impl Fn(&'a Item) -> std::borrow::Cow<'a, Bytes>) -> Bytes {
    if let [only] = items {
        return frame(only).into_owned();
    }
    let size = items.iter().map(|item| match item {
        Item::Message(message) => message.len_bytes(),
        Item::Gap(_) | Item::Closed(_) => 256,
        Item::Bookmark(_, cursor) => cursor.as_str().len() + 256,
    });
    let mut out = Vec::with_capacity(size.sum());
    for item in items {
        out.extend_from_slice(&frame(item));
    }
    out.into()
}
