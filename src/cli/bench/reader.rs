//! Readers: subscribers over each transport, which look for marks in what they get.
//!
//! An idle reader holds no buffer: there may be thousands.

use std::borrow::Cow;
use std::io;

use clap::ValueEnum;
use serde::Serialize;
use tidemill_proto::frame::{ClientFrame, Subscribe, TOPICS_PER_FRAME_MAX, binary};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::mark::Mark;
use super::sender::key;
use super::target::{Kind, TOPIC_PLACE, Target, describe};
use super::{http, resp, ws};

/// Bytes of buffer once there is something to read.
const READ_BYTES: usize = 64 * 1024;
/// Largest frame, line or head in bytes.
const PIECE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a bare server is asked to wait for entries, in milliseconds.
const BLOCK_MS: &str = "1000";
/// Most entries that a bare server returns at once.
const BLOCK_COUNT: &str = "1000";

/// How a subscriber reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Transport {
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
pub(super) struct Reader {
    stream: TcpStream,
    form: Form,
    buffer: Vec<u8>,
    filled: usize,
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
    pub(super) async fn open(
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
        let (stream, buffer) = ws::open(target, headers, ws::PATH, is_binary, number).await?;
        let filled = buffer.len();
        let mut reader = Self { stream, form: Form::WebSocket, buffer, filled };
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
        reader.shrink();
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
        let (stream, buffer) = ws::open(target, headers, &path, false, number).await?;
        let filled = buffer.len();
        let mut reader = Self { stream, form: Form::WebSocket, buffer, filled };
        reader.shrink();
        Ok(reader)
    }

    /// Waits for the answer to a subscribe. Messages of topics that were subscribed to before it are
    /// dropped: nothing is published yet.
    async fn subscribed(&mut self) -> Result<(), String> {
        loop {
            let mut at = 0;
            while let Some(frame) = ws::frame(&self.buffer[at..self.filled])? {
                at += frame.bytes;
                match (frame.kind, frame.payload) {
                    (ws::Kind::Text, text) if text.starts_with(br#"{"type":"subscribed""#) => {
                        self.consume(at);
                        return Ok(());
                    }
                    (ws::Kind::Binary, [binary::VERSION, 0, ..]) => {
                        self.consume(at);
                        return Ok(());
                    }
                    (ws::Kind::Close, payload) => return Err(ws::closed(payload)),
                    (ws::Kind::Text, text) if memchr::memmem::find(text, br#""type":"error""#).is_some() => {
                        let text = String::from_utf8_lossy(&text[..text.len().min(300)]);
                        return Err(format!("the relay refused the subscription: {text}"));
                    }
                    (ws::Kind::Binary, [binary::VERSION, 6, ..]) => {
                        return Err("the relay refused the subscription".to_owned());
                    }
                    _ => {}
                }
            }
            self.consume(at);
            self.read().await?;
        }
    }

    async fn open_body(
        target: &Target,
        headers: &str,
        media: &str,
        topics: &[String],
        number: usize,
    ) -> Result<Self, String> {
        let path = match topics {
            [topic] => format!("/api/v1/topics/{topic}/messages"),
            topics => format!("/api/v1/stream?topics={}", topics.join(",")),
        };
        let stream = target.connect(number).await?;
        let form = Form::Body { chunks: http::Chunks::default(), line: Vec::new() };
        let mut reader = Self { stream, form, buffer: Vec::new(), filled: 0 };
        let request = http::request(target, &format!("Accept: {media}\r\n{headers}"), "GET", &path);
        reader.stream.write_all(&request).await.map_err(|error| describe("cannot send", &error))?;
        loop {
            reader.read().await?;
            let Some(head) = http::head(&reader.buffer[..reader.filled])? else { continue };
            if head.status != 200 {
                return Err(format!("no stream: status {}", head.status));
            }
            if head.body != http::Body::Chunked {
                return Err("an answer that is no stream".to_owned());
            }
            reader.consume(head.bytes);
            reader.shrink();
            return Ok(reader);
        }
    }

    async fn open_stream(target: &Target, topics: &[String], number: usize) -> Result<Self, String> {
        let [topic] = topics else {
            return Err("a bare server is read one topic at a time".to_owned());
        };
        let stream = resp::Connection::open(target, number).await?.into_stream();
        let form = Form::Stream { key: key(topic), after: "$".to_owned() };
        let mut reader = Self { stream, form, buffer: Vec::new(), filled: 0 };
        reader.block();
        Ok(reader)
    }

    /// Asks a bare server for what comes next.
    fn block(&mut self) {
        if let Form::Stream { key, after } = &self.form {
            let ask = ["XREAD", "BLOCK", BLOCK_MS, "COUNT", BLOCK_COUNT, "STREAMS", key, after];
            // A command of this size fits into the socket's buffer, where nothing else is under way.
            let _ = self.stream.try_write(&resp::command(&ask));
        }
    }

    /// Waits for what comes next, calls `found` with the marks in it, and returns how many gaps the
    /// relay told.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self, mut found: impl FnMut(Mark)) -> Result<u64, String> {
        // What came with the handshake has been read already.
        if self.filled == 0 {
            self.read().await?;
        }
        let before = self.filled;
        let gaps = match &self.form {
            Form::WebSocket => self.frames(&mut found)?,
            Form::Body { .. } => self.lines(&mut found)?,
            Form::Stream { .. } => {
                self.entries(&mut found)?;
                0
            }
        };
        if self.filled == before && before > 0 {
            self.read().await?;
        }
        Ok(gaps)
    }

    fn frames(&mut self, found: &mut impl FnMut(Mark)) -> Result<u64, String> {
        let (mut at, mut gaps) = (0, 0);
        while let Some(frame) = ws::frame(&self.buffer[at..self.filled])? {
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
                    let _ = self.stream.try_write(&pong);
                }
                ws::Kind::Pong => {}
            }
        }
        self.consume(at);
        Ok(gaps)
    }

    fn lines(&mut self, found: &mut impl FnMut(Mark)) -> Result<u64, String> {
        let Form::Body { chunks, line } = &mut self.form else { return Ok(0) };
        let used = chunks.take(&self.buffer[..self.filled], |data| line.extend_from_slice(data))?;
        let ended = chunks.ended;
        let whole = memchr::memrchr(b'\n', line).map_or(0, |at| at + 1);
        let text = &line[..whole];
        Mark::each(text, found);
        let count = |sign: &[u8]| memchr::memmem::find_iter(text, sign).count() as u64;
        let gaps = count(b"{\"type\":\"gap\"") + count(b"event: gap\n");
        line.drain(..whole);
        if line.len() > PIECE_BYTES_MAX {
            return Err("a line that is too long".to_owned());
        }
        self.consume(used);
        if ended { Err("the relay ended the stream".to_owned()) } else { Ok(gaps) }
    }

    fn entries(&mut self, found: &mut impl FnMut(Mark)) -> Result<(), String> {
        let Some(extent) = resp::extent(&self.buffer[..self.filled])? else { return Ok(()) };
        let reply = &self.buffer[..extent.bytes];
        if extent.is_error {
            return Err(resp::refusal(reply));
        }
        Mark::each(reply, found);
        if let (Some(id), Form::Stream { after, .. }) = (resp::last_entry(reply), &mut self.form) {
            *after = id;
        }
        self.consume(extent.bytes);
        self.block();
        Ok(())
    }

    /// Takes bytes off the front of the buffer.
    fn consume(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Gives the buffer back until there is something to read.
    fn shrink(&mut self) {
        self.buffer.truncate(self.filled);
        self.buffer.shrink_to_fit();
    }

    async fn read(&mut self) -> Result<(), String> {
        loop {
            self.stream.readable().await.map_err(|error| describe("cannot read", &error))?;
            if self.filled == self.buffer.len() {
                if self.filled >= PIECE_BYTES_MAX {
                    return Err("a frame that is too large".to_owned());
                }
                self.buffer.resize((self.filled * 2).max(READ_BYTES), 0);
            }
            match self.stream.try_read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(bytes) => {
                    self.filled += bytes;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(describe("cannot read", &error)),
            }
        }
    }
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
