//! The socket as frames of one encoding: reading, writing, flushing, closing.
//!
//! It must not know what frames mean. The library takes frames apart and puts them together; bytes go
//! to the socket by way of the outbox, which feeds fill too.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tidemill_proto::frame::{HandedRef, ServerFrame, WorkRef, binary, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::meter::Meter;
use crate::budget::{Budget, FREE_BYTES, Hold, Spent};
use crate::link::{Link, Outbox, Taken};
use crate::metrics::Metrics;
use crate::relay::{DeliveriesOf, Held, Item, LiveMessage, Outlet, SharedBatch, as_wire};

mod watched;

/// What the library takes from the bytes that have arrived at once. Every idle connection holds it.
const PARSE_BYTES: usize = 1024;
/// Most bytes that stand in front of what a frame of the relay holds (RFC 6455 section 5.2).
const HEADER_BYTES_MAX: usize = 10;
/// Bytes of a message of a group beside its payload and metadata, about.
const WORK_BYTES: usize = 320;
/// Time for the last frames to leave.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// How frames are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// JSON in text frames.
    Json,
    /// The binary encoding in binary frames.
    Binary,
}

/// From so many bytes on, a message that was taken leaves no place of its size behind.
const KEPT_BYTES_MAX: u64 = 4 * 1024;

/// What a connection may take in.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    /// Largest frame, and largest message.
    pub(super) frame_bytes_max: usize,
    /// Where a message counts that is not whole.
    pub(super) budget: Budget,
    /// Time for a message to arrive whole.
    pub(super) message_timeout: Duration,
}

/// The side of a connection that reads.
#[derive(Debug)]
pub(super) struct Incoming {
    link: Link,
    protocol: WebSocketContext,
    intake: Intake,
    meter: Meter,
    /// What is counted of the message that is not whole.
    hold: Hold,
    /// When that was first waited for.
    began: Option<Instant>,
    /// What has arrived and was not taken apart yet.
    arrived: Bytes,
    /// What the library answers by itself: pongs, and the echo of a close frame.
    replies: Vec<u8>,
    is_over: bool,
}

/// The side of a connection that writes.
pub(super) struct Outgoing {
    link: Link,
    encoding: Encoding,
    outbox: Outbox,
    bytes_max: usize,
    metrics: Metrics,
}

/// A message that has arrived whole, with what counts of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) message: Message,
    pub(super) hold: Hold,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client breaks the protocol, or the connection has ended.
    Protocol(Error),
    /// A message did not arrive whole in its time.
    Late,
    /// The relay holds as much of what clients have sent as it may.
    NoRoom,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Protocol(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Protocol(error.into())
    }
}

/// The socket, as the library sees it: up to the end of a frame, so that nothing of the next one is held
/// where nobody sees it.
struct Pipe<'a> {
    arrived: &'a mut Bytes,
    meter: &'a mut Meter,
    replies: &'a mut Vec<u8>,
    is_over: bool,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() && !self.is_over {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.meter.take(&self.arrived[..buffer.len().min(self.arrived.len())]);
        buffer[..count].copy_from_slice(&self.arrived[..count]);
        self.arrived.advance(count);
        Ok(count)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns both sides of a connection that has become a WebSocket.
pub(super) fn open(
    taken: Taken,
    encoding: Encoding,
    intake: Intake,
    bytes_max: usize,
    metrics: Metrics,
) -> (Incoming, Outgoing) {
    let Taken { link, arrived, head, chunked: _ } = taken;
    let mut outbox = Outbox::default();
    *outbox.own() = head;
    let incoming = Incoming {
        link: link.clone(),
        protocol: intake.protocol(),
        intake,
        meter: Meter::default(),
        hold: Hold::default(),
        began: None,
        arrived,
        replies: Vec::new(),
        is_over: false,
    };
    (incoming, Outgoing { link, encoding, outbox, bytes_max, metrics })
}

impl Intake {
    fn protocol(&self) -> WebSocketContext {
        let config = WebSocketConfig::default()
            .read_buffer_size(PARSE_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(self.frame_bytes_max))
            .max_frame_size(Some(self.frame_bytes_max));
        WebSocketContext::new(Role::Server, Some(config))
    }
}

impl Incoming {
    /// Waits for a message.
    ///
    /// # Errors
    /// The client breaks the protocol, the connection has ended, the message does not come in its time, or
    /// there is no room for it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<Arrived, Broken> {
        loop {
            if let Some(arrived) = self.read_arrived()? {
                return Ok(arrived);
            }
            match self.began {
                None => self.link.readable().await?,
                Some(began) => {
                    let deadline = began + self.intake.message_timeout;
                    timeout_at(deadline, self.link.readable()).await.map_err(|_| Broken::Late)??;
                }
            }
        }
    }

    /// Starts the time of a message that is not whole anew: the relay has not read meanwhile.
    pub(super) fn forgive(&mut self) {
        self.began = self.began.map(|_| Instant::now());
    }

    /// Returns a message that has arrived already.
    ///
    /// # Errors
    /// As those of [`read`](Self::read).
    pub(super) fn read_arrived(&mut self) -> Result<Option<Arrived>, Broken> {
        loop {
            let before = self.meter.unfinished_bytes();
            let Self { arrived, meter, replies, is_over, .. } = self;
            match self.protocol.read(&mut Pipe { arrived, meter, replies, is_over: *is_over }) {
                Ok(message) => return Ok(Some(self.take(message, before))),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let unfinished = self.meter.unfinished_bytes();
            self.intake.budget.raise(&mut self.hold, unfinished).map_err(|Spent| Broken::NoRoom)?;
            match self.link.read(Bytes::copy_from_slice) {
                Ok(arrived) => {
                    self.is_over = arrived.is_empty();
                    self.arrived = arrived;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.note_waiting(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns a message with what is counted of it.
    fn take(&mut self, message: Message, bytes: u64) -> Arrived {
        if self.meter.is_unfinished() {
            // It came between the frames of another.
            return Arrived { message, hold: Hold::default() };
        }
        self.began = None;
        if bytes.max(message.len() as u64) > KEPT_BYTES_MAX {
            // The library would keep a place of that size for as long as the connection lasts.
            let Self { arrived, meter, replies, is_over, .. } = self;
            let flushed = self.protocol.flush(&mut Pipe { arrived, meter, replies, is_over: *is_over });
            if flushed.is_ok() && !message.is_close() {
                self.protocol = self.intake.protocol();
            }
        }
        Arrived { message, hold: std::mem::take(&mut self.hold) }
    }

    fn note_waiting(&mut self) -> Result<Option<Arrived>, Broken> {
        if !self.meter.is_unfinished() {
            self.began = None;
            return Ok(None);
        }
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        if began + self.intake.message_timeout <= now { Err(Broken::Late) } else { Ok(None) }
    }

    /// Moves what the library has to say to the outbox.
    pub(super) fn reply(&mut self, outgoing: &mut Outgoing) {
        let Self { arrived, meter, replies, is_over, .. } = self;
        // Writing to the pipe cannot fail; that the connection is closed now is told by reading, too.
        let _ = self.protocol.flush(&mut Pipe { arrived, meter, replies, is_over: *is_over });
        if !self.replies.is_empty() {
            outgoing.outbox.own().append(&mut self.replies);
        }
    }
}

impl Outgoing {
    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Returns how many bytes are taken at once.
    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Adds messages and gaps. What is `held` is kept until they are written.
    pub(super) fn put_items(&mut self, items: &[Item], held: Option<Held>) {
        if let Some(held) = held {
            self.outbox.keep(held);
        }
        let copied = items.iter().map(|item| match item {
            Item::Message(message) => Some(encoded(self.encoding, message).len()),
            Item::Gap(_) | Item::Closed(_) | Item::Bookmark(..) => None,
        });
        // What waits for a slow client takes no more than it has.
        let copied =
            copied.flatten().filter(|bytes| *bytes <= FREE_BYTES).map(|bytes| bytes + HEADER_BYTES_MAX);
        self.outbox.own().reserve_exact(copied.sum());
        let (mut messages, mut gaps) = (0, 0);
        for item in items {
            match item {
                Item::Message(message) => {
                    messages += 1;
                    let bytes = encoded(self.encoding, message);
                    if bytes.len() > FREE_BYTES {
                        write_header(self.encoding, bytes.len(), self.outbox.own());
                        self.outbox.push_shared(bytes);
                    } else {
                        write_frame(self.encoding, bytes, self.outbox.own());
                    }
                }
                Item::Gap(gap) => {
                    gaps += 1;
                    self.put(&ServerFrame::Gap((**gap).clone()));
                }
                Item::Closed(closed) => self.put(&ServerFrame::Closed((**closed).clone())),
                Item::Bookmark(pattern, cursor) => {
                    self.put(&ServerFrame::Cursor { pattern: pattern.clone(), cursor: cursor.clone() });
                }
            }
        }
        self.metrics.sockets().sent(messages, gaps);
    }

    /// Adds a frame.
    pub(super) fn put(&mut self, frame: &ServerFrame<'_>) {
        let mut out = Vec::with_capacity(192);
        match self.encoding {
            Encoding::Json => json::write(frame, &mut out),
            Encoding::Binary => binary::write_server(frame, &mut out),
        }
        write_frame(self.encoding, &out, self.outbox.own());
    }

    /// Adds messages of a group. What is counted of them is kept until they are written.
    pub(super) fn put_work(&mut self, of: &DeliveriesOf, hold: Hold) {
        let bytes: usize = of.deliveries.iter().map(|delivery| delivery.message.body.len_bytes()).sum();
        let mut out = Vec::with_capacity(bytes + of.deliveries.len() * WORK_BYTES);
        let cancelled = of.cancelled.as_deref();
        let work = WorkRef { topic: &of.topic, group: &of.group, epoch: of.epoch, cancelled };
        let handed = of.deliveries.iter().map(|delivery| HandedRef {
            message: as_wire(&of.topic, &delivery.message),
            delivery: delivery.delivery,
            deadline: delivery.deadline,
        });
        match self.encoding {
            Encoding::Json => json::write_work(work, handed, &mut out),
            Encoding::Binary => binary::write_work(work, handed, &mut out),
        }
        self.metrics.sockets().sent(of.deliveries.len() as u64, 0);
        for delivery in &of.deliveries {
            self.metrics.work().claimed(delivery.delivery);
        }
        write_header(self.encoding, out.len(), self.outbox.own());
        self.outbox.push_shared(&out.into());
        if !hold.is_empty() {
            self.outbox.keep(Arc::new(hold));
        }
    }

    /// Adds a ping, to see a sign of life.
    pub(super) fn put_ping(&mut self) {
        // Writing into a vector cannot fail.
        let _ = Frame::ping(Bytes::new()).format(self.outbox.own());
    }

    /// Returns how many bytes are still to be written.
    pub(super) fn len(&self) -> usize {
        self.outbox.len()
    }

    /// Writes everything to the socket. Returns whether the client had to be waited for.
    pub(super) async fn flush(&mut self) -> Result<bool, Error> {
        Ok(self.link.flush(&mut self.outbox).await?)
    }

    /// Ends the connection: writes the last frame and the close frame, where they can still be
    /// written, and hangs up.
    pub(super) async fn end(mut self, last: Option<ServerFrame<'_>>, close: Option<(u16, &'static str)>) {
        if let Some(last) = &last {
            self.put(last);
        }
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
            let _ = Frame::close(Some(frame)).format(self.outbox.own());
        }
        // A client that does not take them, or is gone, is left without.
        let _ = timeout(CLOSE_TIME, self.flush()).await;
        self.link.close().await;
    }
}

impl Outlet for Outgoing {
    fn is_free(&self) -> bool {
        self.outbox.is_sent()
    }

    fn takes(&self, batch: &SharedBatch) -> bool {
        self.is_free() && batch.len_bytes() <= self.bytes_max
    }

    fn deliver(&mut self, batch: &SharedBatch) {
        let encoding = self.encoding;
        let name = match encoding {
            Encoding::Json => "text frames",
            Encoding::Binary => "binary frames",
        };
        let frames = batch.encoded(name, |items| {
            let mut out = Vec::with_capacity(batch.len_bytes());
            for item in items {
                if let Item::Message(message) = item {
                    write_frame(encoding, encoded(encoding, message), &mut out);
                }
            }
            out.into()
        });
        self.metrics.sockets().sent(batch.items().len() as u64, 0);
        self.outbox.push_shared(&frames);
        if let Some(held) = batch.held() {
            self.outbox.keep(held);
        }
        // Should the connection be gone, something is left, and the task that is called for it finds
        // out.
        let _ = self.link.write(&mut self.outbox);
    }
}

/// Returns what the frame of a message holds, which is the same for all of its readers.
fn encoded(encoding: Encoding, message: &LiveMessage) -> &Bytes {
    match encoding {
        Encoding::Json => message.encoded(&json::MESSAGE),
        Encoding::Binary => message.encoded(&binary::MESSAGE),
    }
}

fn write_frame(encoding: Encoding, payload: &[u8], out: &mut Vec<u8>) {
    write_header(encoding, payload.len(), out);
    out.extend_from_slice(payload);
}

fn write_header(encoding: Encoding, payload_bytes: usize, out: &mut Vec<u8>) {
    let opcode = OpCode::Data(match encoding {
        Encoding::Json => Data::Text,
        Encoding::Binary => Data::Binary,
    });
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into a vector cannot fail.
    let _ = header.format(payload_bytes as u64, out);
}
