//! The socket as frames of one encoding: reading, writing, flushing, closing.
//!
//! It must not know what frames mean. The library takes frames apart and puts them together; bytes go
//! to the socket by way of the outbox, which feeds fill too.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tidemill_proto::frame::{ServerFrame, binary, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::link::{Link, Outbox, Taken};
use crate::metrics::Metrics;
use crate::relay::{Item, LiveMessage, Outlet, Round};

/// What the library takes from the bytes that have arrived at once. Every idle connection holds it.
const PARSE_BYTES: usize = 1024;
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

/// The side of a connection that reads.
#[derive(Debug)]
pub(super) struct Incoming {
    link: Link,
    protocol: WebSocketContext,
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

/// The socket, as the library sees it.
struct Pipe<'a> {
    arrived: &'a mut Bytes,
    replies: &'a mut Vec<u8>,
    is_over: bool,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() && !self.is_over {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.arrived.len());
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
    frame_bytes_max: usize,
    bytes_max: usize,
    metrics: Metrics,
) -> (Incoming, Outgoing) {
    let Taken { link, arrived, head, chunked: _ } = taken;
    let config = WebSocketConfig::default()
        .read_buffer_size(PARSE_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(frame_bytes_max))
        .max_frame_size(Some(frame_bytes_max));
    let protocol = WebSocketContext::new(Role::Server, Some(config));
    let mut outbox = Outbox::default();
    *outbox.own() = head;
    let incoming = Incoming { link: link.clone(), protocol, arrived, replies: Vec::new(), is_over: false };
    (incoming, Outgoing { link, encoding, outbox, bytes_max, metrics })
}

impl Incoming {
    /// Waits for a frame.
    ///
    /// # Errors
    /// The client breaks the protocol, or the connection has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.read_arrived()? {
                return Ok(message);
            }
            self.link.readable().await?;
        }
    }

    /// Returns a frame that has arrived already.
    ///
    /// # Errors
    /// The client breaks the protocol, or the connection has ended.
    pub(super) fn read_arrived(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let Self { arrived, replies, is_over, .. } = self;
            match self.protocol.read(&mut Pipe { arrived, replies, is_over: *is_over }) {
                Ok(message) => return Ok(Some(message)),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match self.link.read(Bytes::copy_from_slice) {
                Ok(arrived) => {
                    self.is_over = arrived.is_empty();
                    self.arrived = arrived;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves what the library has to say to the outbox.
    pub(super) fn reply(&mut self, outgoing: &mut Outgoing) {
        let Self { arrived, replies, is_over, .. } = self;
        // Writing to the pipe cannot fail; that the connection is closed now is told by reading, too.
        let _ = self.protocol.flush(&mut Pipe { arrived, replies, is_over: *is_over });
        if !self.replies.is_empty() {
            outgoing.outbox.own().append(&mut self.replies);
        }
    }
}

impl Outgoing {
    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds messages and gaps.
    pub(super) fn put_items(&mut self, items: &[Item]) {
        let (mut messages, mut gaps) = (0, 0);
        for item in items {
            match item {
                Item::Message(message) => {
                    messages += 1;
                    write_message(self.encoding, message, self.outbox.own());
                }
                Item::Gap(gap) => {
                    gaps += 1;
                    self.put(&ServerFrame::Gap((**gap).clone()));
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

    fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn deliver(&mut self, round: &Round) {
        let encoding = self.encoding;
        let name = match encoding {
            Encoding::Json => "text frames",
            Encoding::Binary => "binary frames",
        };
        let frames = round.encoded(name, |items| {
            let mut out = Vec::with_capacity(round.len_bytes());
            for item in items {
                if let Item::Message(message) = item {
                    write_message(encoding, message, &mut out);
                }
            }
            out.into()
        });
        self.metrics.sockets().sent(round.items().len() as u64, 0);
        self.outbox.push_shared(&frames);
        // Should the connection be gone, something is left, and the task that is called for it finds
        // out.
        let _ = self.link.write(&mut self.outbox);
    }
}

fn write_message(encoding: Encoding, message: &LiveMessage, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => write_frame(encoding, message.encoded(&json::MESSAGE), out),
        Encoding::Binary => write_frame(encoding, message.encoded(&binary::MESSAGE), out),
    }
}

fn write_frame(encoding: Encoding, payload: &[u8], out: &mut Vec<u8>) {
    let opcode = OpCode::Data(match encoding {
        Encoding::Json => Data::Text,
        Encoding::Binary => Data::Binary,
    });
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into a vector cannot fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}
