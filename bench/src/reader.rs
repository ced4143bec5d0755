//! Readers: subscribers over each transport, which look for marks in what they get.
//!
//! An idle reader holds no buffer: there may be thousands. What arrives for any of them is read in one
//! place for each thread, which stays in the processor's cache; a buffer for each would not.

use std::borrow::Cow;
use std::cell::Cell;
use std::{io, mem};

use clap::ValueEnum;
use serde::Serialize;
use tidemill_proto::frame::{ClientFrame, Subscribe, TOPICS_PER_FRAME_MAX, binary};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::mark::{Mark, key};
use crate::target::{Kind, TOPIC_PLACE, Target, describe};
use crate::{http, resp, ws};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Largest frame, line or head in bytes.
const PIECE_BYTES_MAX: usize = 64 * 1024 * 1024;
const TOO_LARGE: &str = "a frame that is too large";
const CLOSED: &str = "the connection was closed";
/// How long a bare server is asked to wait for entries, in milliseconds.
const BLOCK_MS: &str = "1000";
/// Most entries that a bare server returns at once.
const BLOCK_COUNT: &str = "1000";

thread_local! {
    /// Where bytes arrive. They do not stay.
    static ARRIVALS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// How often something has arrived.
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// Returns how often something has arrived for readers of this thread.
pub(crate) fn reads() -> u64 {
    READS.get()
}

/// What stands in front of the name of a bucket that is watched, in place of a topic that is read.
pub(crate) const BUCKET: &str = "keys/";

/// How a subscriber reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// WebSocket with JSON frames
    Ws,
    /// WebSocket with binary frames
    WsBinary,
    /// Server-sent events
    Sse,
    /// Lines of JSON
    Ndjson,
}

/// A subscriber.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: TcpStream,
    form: Form,
    /// What has arrived and is not used yet: the start of something that is not whole, and at first what
    /// came with the answer to the handshake.
    rest: Vec<u8>,
    /// Whether nothing was taken out of the rest yet: it may be whole.
    is_new: bool,
}

#[derive(Debug)]
enum Form {
    WebSocket,
    Body {
        chunks: http::Chunks,
        /// What has come of the last line, without the frame of chunks.
        line: Vec<u8>,
    },
    /// `XREAD`, for one key.
    Stream {
        key: String,
        after: String,
    },
}

impl Reader {
    /// Subscribes to topics from now on, and returns once the target says that it has begun. `number`
    /// is the connection's, among many.
    pub(crate) async fn open(
        target: &Target,
        headers: &str,
        transport: Transport,
        topics: &[String],
        number: usize,
    ) -> Result<Self, String> {
        match (target.kind, transport) {
            (Kind::Server, _) => Self::open_stream(target, topics, number).await,
            (Kind::Plain, Transport::Ws) => Self::open_plain(target, headers, topics, number).await,
            (Kind::Plain, _) => Err("a server that is no relay is read with --transport ws".to_owned()),
            (Kind::Relay, Transport::Ws) => Self::open_ws(target, headers, false, topics, number).await,
            (Kind::Relay, Transport::WsBinary) => Self::open_ws(target, headers, true, topics, number).await,
            (Kind::Relay, Transport::Sse) => {
                Self::open_body(target, headers, "text/event-stream", topics, number).await
            }
            (Kind::Relay, Transport::Ndjson) => {
                Self::open_body(target, headers, "application/x-ndjson", topics, number).await
            }
        }
    }

    async fn open_ws(
        target: &Target,
        headers: &str,
        is_binary: bool,
        topics: &[String],
        number: usize,
    ) -> Result<Self, String> {
        let (stream, rest) = ws::open(target, headers, ws::PATH, is_binary, number).await?;
        let mut reader = Self { stream, form: Form::WebSocket, rest, is_new: true };
        for topics in topics.chunks(TOPICS_PER_FRAME_MAX) {
            let mut out = Vec::new();
            if is_binary {
                let topics = topics.iter().map(|topic| Cow::Borrowed(topic.as_str())).collect();
                let subscribe =
                    Subscribe { topics, offset: Some(Cow::Borrowed("latest")), ..Subscribe::default() };
                let mut frame = Vec::new();
                binary::write_client(&ClientFrame::Subscribe(subscribe), &mut frame);
                ws::write(&mut out, ws::Kind::Binary, &frame);
            } else {
                let frame = serde_json::json!({ "type": "subscribe", "topics": topics, "offset": "latest" });
                ws::write(&mut out, ws::Kind::Text, frame.to_string().as_bytes());
            }
            reader.stream.write_all(&out).await.map_err(|error| describe("cannot send", &error))?;
            reader.subscribed().await?;
        }
        reader.rest.shrink_to_fit();
        only_listens(&reader.stream);
        Ok(reader)
    }

    /// Opens a WebSocket whose path says what it is to send.
    async fn open_plain(
        target: &Target,
        headers: &str,
        topics: &[String],
        number: usize,
    ) -> Result<Self, String> {
        let ([topic], Some(paths)) = (topics, &target.paths) else {
            return Err("a server that is no relay is read one topic at a time".to_owned());
        };
        let path = paths.subscribe.replace(TOPIC_PLACE, topic);
        let (stream, rest) = ws::open(target, headers, &path, false, number).await?;
        let mut reader = Self { stream, form: Form::WebSocket, rest, is_new: true };
        reader.rest.shrink_to_fit();
        only_listens(&reader.stream);
        Ok(reader)
    }

    /// Waits for the answer to a subscribe. Messages of topics that were subscribed to before it are
    /// dropped: nothing is published yet.
    async fn subscribed(&mut self) -> Result<(), String> {
        loop {
            while let Some(frame) = ws::frame(&self.rest)? {
                let is_answer = match (frame.kind, frame.payload) {
                    (ws::Kind::Text, text) if text.starts_with(br#"{"type":"subscribed""#) => true,
                    (ws::Kind::Binary, [binary::VERSION, 0, ..]) => true,
                    (ws::Kind::Close, payload) => return Err(ws::closed(payload)),
                    (ws::Kind::Text, text) if memchr::memmem::find(text, br#""type":"error""#).is_some() => {
                        let text = String::from_utf8_lossy(&text[..text.len().min(300)]);
                        return Err(format!("the relay refused the subscription: {text}"));
                    }
                    (ws::Kind::Binary, [binary::VERSION, 6, ..]) => {
                        return Err("the relay refused the subscription".to_owned());
                    }
                    _ => false,
                };
                let used = frame.bytes;
                self.rest.drain(..used);
                if is_answer {
                    return Ok(());
                }
            }
            self.read_more().await?;
        }
    }

    async fn open_body(
        target: &Target,
        headers: &str,
        media: &str,
        topics: &[String],
        number: usize,
    ) -> Result<Self, String> {
        let watched = topics.first().and_then(|topic| topic.strip_prefix(BUCKET));
        let path = match topics {
            [_] if let Some(bucket) = watched => format!("/api/v1/keys/{bucket}"),
            [topic] => format!("/api/v1/topics/{topic}/messages"),
            topics => format!("/api/v1/stream?topics={}", topics.join(",")),
        };
        let stream = target.connect(number).await?;
        let form = Form::Body { chunks: http::Chunks::default(), line: Vec::new() };
        let mut reader = Self { stream, form, rest: Vec::new(), is_new: true };
        let request = http::request(target, &format!("Accept: {media}\r\n{headers}"), "GET", &path);
        reader.stream.write_all(&request).await.map_err(|error| describe("cannot send", &error))?;
        loop {
            reader.read_more().await?;
            let Some(head) = http::head(&reader.rest)? else { continue };
            if head.status != 200 {
                return Err(format!("no stream: status {}", head.status));
            }
            if head.body != http::Body::Chunked {
                return Err("an answer that is no stream".to_owned());
            }
            reader.rest.drain(..head.bytes);
            break;
        }
        // What changes before a watch has begun is told as it was then, and not as each change of it.
        while watched.is_some() && memchr::memmem::find(&reader.rest, b"synced").is_none() {
            reader.read_more().await?;
        }
        reader.rest.shrink_to_fit();
        Ok(reader)
    }

    async fn open_stream(target: &Target, topics: &[String], number: usize) -> Result<Self, String> {
        let [topic] = topics else {
            return Err("a bare server is read one topic at a time".to_owned());
        };
        let stream = resp::Connection::open(target, number).await?.into_stream();
        let (key, after) = (key(topic), "$".to_owned());
        block(&stream, &key, &after);
        Ok(Self { stream, form: Form::Stream { key, after }, rest: Vec::new(), is_new: true })
    }

    /// Reads what comes next to the rest.
    async fn read_more(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.rest).await {
            Ok(0) => Err(CLOSED.to_owned()),
            Ok(_) if self.rest.len() > PIECE_BYTES_MAX => Err(TOO_LARGE.to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(describe("cannot read", &error)),
        }
    }

    /// Waits for what comes next, calls `found` with the marks in it, and returns how many gaps the
    /// relay told.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(crate) async fn next(&mut self, mut found: impl FnMut(Mark)) -> Result<u64, String> {
        if mem::take(&mut self.is_new) && !self.rest.is_empty() {
            let (used, gaps) = self.form.take(&self.stream, &self.rest, &mut found)?;
            if used > 0 {
                self.rest.drain(..used);
                return Ok(gaps);
            }
        }
        loop {
            self.stream.readable().await.map_err(|error| describe("cannot read", &error))?;
            if let Some(gaps) = self.take_arrived(&mut found)? {
                return Ok(gaps);
            }
        }
    }

    /// Takes what has arrived, and returns how many gaps the relay told; `None` if nothing has.
    fn take_arrived(&mut self, found: &mut impl FnMut(Mark)) -> Result<Option<u64>, String> {
        let mut bytes = ARRIVALS.take();
        bytes.clear();
        // What is large and not whole is not copied for each piece of it that arrives.
        if self.rest.len() > READ_BYTES {
            mem::swap(&mut bytes, &mut self.rest);
        } else {
            bytes.extend_from_slice(&self.rest);
            self.rest = Vec::new();
        }
        bytes.reserve(READ_BYTES);
        let (used, gaps) = match self.stream.try_read_buf(&mut bytes) {
            Ok(0) => return Err(CLOSED.to_owned()),
            Ok(_) => {
                READS.set(READS.get() + 1);
                let (used, gaps) = self.form.take(&self.stream, &bytes, found)?;
                (used, Some(gaps))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, None),
            Err(error) => return Err(describe("cannot read", &error)),
        };
        if bytes.len() - used > PIECE_BYTES_MAX {
            return Err(TOO_LARGE.to_owned());
        }
        if used == 0 && bytes.len() > READ_BYTES {
            mem::swap(&mut bytes, &mut self.rest);
        } else {
            self.rest = bytes[used..].to_vec();
        }
        ARRIVALS.set(bytes);
        Ok(gaps)
    }
}

impl Form {
    /// Takes what is whole in `bytes`, calls `found` with the marks in it, and returns how many bytes
    /// were used and how many gaps the relay told.
    fn take(
        &mut self,
        stream: &TcpStream,
        bytes: &[u8],
        found: &mut impl FnMut(Mark),
    ) -> Result<(usize, u64), String> {
        match self {
            Self::WebSocket => frames(stream, bytes, found),
            Self::Body { chunks, line } => lines(chunks, line, bytes, found),
            Self::Stream { key, after } => Ok((entries(stream, key, after, bytes, found)?, 0)),
        }
    }
}

fn frames(stream: &TcpStream, bytes: &[u8], found: &mut impl FnMut(Mark)) -> Result<(usize, u64), String> {
    let (mut at, mut gaps) = (0, 0);
    while let Some(frame) = ws::frame(&bytes[at..])? {
        at += frame.bytes;
        match frame.kind {
            ws::Kind::Text | ws::Kind::Binary => {
                let mut any = false;
                Mark::each(frame.payload, |mark| {
                    any = true;
                    found(mark);
                });
                if !any {
                    gaps += other_frame(frame.payload)?;
                }
            }
            ws::Kind::Close => return Err(ws::closed(frame.payload)),
            ws::Kind::Ping => {
                let mut pong = Vec::new();
                ws::write(&mut pong, ws::Kind::Pong, frame.payload);
                // A subscriber writes nothing else, so there is room.
                let _ = stream.try_write(&pong);
                only_listens(stream);
            }
            ws::Kind::Pong => {}
        }
    }
    Ok((at, gaps))
}

fn lines(
    chunks: &mut http::Chunks,
    line: &mut Vec<u8>,
    bytes: &[u8],
    found: &mut impl FnMut(Mark),
) -> Result<(usize, u64), String> {
    let used = chunks.take(bytes, |data| line.extend_from_slice(data))?;
    let whole = memchr::memrchr(b'\n', line).map_or(0, |at| at + 1);
    let text = &line[..whole];
    Mark::each(text, found);
    let count = |sign: &[u8]| memchr::memmem::find_iter(text, sign).count() as u64;
    let gaps = count(b"{\"type\":\"gap\"") + count(b"event: gap\n");
    line.drain(..whole);
    if line.len() > PIECE_BYTES_MAX {
        return Err("a line that is too long".to_owned());
    }
    if chunks.ended { Err("the relay ended the stream".to_owned()) } else { Ok((used, gaps)) }
}

fn entries(
    stream: &TcpStream,
    key: &str,
    after: &mut String,
    bytes: &[u8],
    found: &mut impl FnMut(Mark),
) -> Result<usize, String> {
    let Some(extent) = resp::extent(bytes)? else { return Ok(0) };
    let reply = &bytes[..extent.bytes];
    if extent.is_error {
        return Err(resp::refusal(reply));
    }
    Mark::each(reply, found);
    if let Some(id) = resp::last_entry(reply) {
        *after = id;
    }
    block(stream, key, after);
    Ok(extent.bytes)
}

/// Asks a bare server for what comes next.
fn block(stream: &TcpStream, key: &str, after: &str) {
    let ask = ["XREAD", "BLOCK", BLOCK_MS, "COUNT", BLOCK_COUNT, "STREAMS", key, after];
    // A command of this size fits into the socket's buffer, where nothing else is under way.
    let _ = stream.try_write(&resp::command(&ask));
}

/// Has the system acknowledge as it does for one that never writes.
///
/// Linux takes a socket that has answered something, with a subscribe or a pong, for one that soon writes
/// again, and leaves its acknowledgements for then, until one is late by 40 ms. Those that are due all
/// the same, every second message or so, are sent on the loopback device within the sender's send: the
/// relay would do what is the reader's work.
fn only_listens(stream: &TcpStream) {
    // It is only about who does the work, and other systems do not have it.
    #[cfg(target_os = "linux")]
    let _ = stream.set_quickack(true);
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// Returns how many gaps a frame without a mark tells, or what it complains of.
fn other_frame(payload: &[u8]) -> Result<u64, String> {
    let is = |kind: &str| memchr::memmem::find(payload, format!(r#""type":"{kind}""#).as_bytes()).is_some();
    match payload {
        [binary::VERSION, 4, ..] => Ok(1),
        [binary::VERSION, 6, ..] => Err("the relay sent an error".to_owned()),
        [binary::VERSION, 7, ..] => Err("the relay ended the stream".to_owned()),
        [b'{', ..] if is("gap") => Ok(1),
        [b'{', ..] if is("error") => Err("the relay sent an error".to_owned()),
        [b'{', ..] if is("end") => Err("the relay ended the stream".to_owned()),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// Returns a server's frame with a mark of this number, and so many bytes besides.
    fn frame(sequence: u64, more: usize) -> Vec<u8> {
        let text = format!("tidemark:0000{sequence:012x}{:016x}{}", 7, "x".repeat(more));
        let mut out = vec![0x81, 127];
        out.extend_from_slice(&(text.len() as u64).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
        out
    }

    #[tokio::test]
    async fn every_frame_is_found_however_its_bytes_arrive() {
        let sizes = [0, 10, READ_BYTES / 2, 5 * READ_BYTES, 0, 3, 2 * READ_BYTES, 1];
        let wire: Vec<_> = (0..).zip(sizes).flat_map(|(number, more)| frame(number, more)).collect();
        for piece in [1_000, 40_000, 1 << 20] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (stream, served) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (stream, (mut served, _)) = (stream.expect("a connection"), served.expect("a connection"));
            // One whole frame and a part of the next came with the handshake.
            let (with_handshake, later) = wire.split_at(70);
            let mut reader =
                Reader { stream, form: Form::WebSocket, rest: with_handshake.to_vec(), is_new: true };
            let later = later.to_vec();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                for piece in later.chunks(piece) {
                    served.write_all(piece).await.expect("somebody reads");
                    tokio::task::yield_now().await;
                }
            });
            let mut found = Vec::new();
            while found.len() < sizes.len() {
                reader.next(|mark| found.push(mark.sequence)).await.expect("messages");
            }
            assert_eq!(found, (0..sizes.len() as u64).collect::<Vec<_>>(), "{piece}");
            assert_eq!(reader.rest.capacity(), 0, "an idle reader holds nothing");
            assert_eq!(reader.next(|_| {}).await, Err(CLOSED.to_owned()));
        }
    }
}
