//! The socket as frames of one encoding: reading, writing, flushing, closing.
//!
//! It must not know what frames mean.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidemill_proto::frame::{ServerFrame, binary, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use crate::relay::LiveMessage;

/// What is read from a socket at once. Every idle connection holds it.
const READ_BYTES: usize = 4 * 1024;
/// Bytes of written frames after which they go to the socket. A connection keeps about as much once it
/// has needed it.
const WRITE_BYTES: usize = 16 * 1024;
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

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    encoding: Encoding,
    /// Ends a write that stands still when the node must stop.
    cut: CancellationToken,
    /// Whether a write stood still and went on since this was last asked.
    moved: bool,
}

impl Wire {
    pub(super) async fn new(
        upgraded: Upgraded,
        encoding: Encoding,
        frame_bytes_max: usize,
        cut: CancellationToken,
    ) -> Self {
        // The session flushes each batch before it takes the next, and `put` waits while the socket is
        // blocked, so the write buffer holds at most `WRITE_BYTES` and one frame. It has no bound of
        // its own, because a frame larger than that bound could never be sent.
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(frame_bytes_max))
            .max_frame_size(Some(frame_bytes_max));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self { socket, encoding, cut, moved: false }
    }

    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Waits for a frame; `None` at the end of the connection.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn read(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| std::pin::Pin::new(&mut self.socket).poll_next(cx)).await
    }

    /// Returns a frame that has arrived already.
    pub(super) async fn read_arrived(&mut self) -> Option<Option<Result<Message, Error>>> {
        poll_fn(|cx| match std::pin::Pin::new(&mut self.socket).poll_next(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// Writes a message in the encoding that all readers share.
    pub(super) async fn put_message(&mut self, message: &LiveMessage) -> Result<(), Error> {
        let data = match self.encoding {
            Encoding::Json => message.json_frame(),
            Encoding::Binary => message.binary_frame().clone(),
        };
        self.put_data(data).await
    }

    /// Writes a frame.
    pub(super) async fn put(&mut self, frame: &ServerFrame<'_>) -> Result<(), Error> {
        let mut out = Vec::with_capacity(192);
        match self.encoding {
            Encoding::Json => json::write(frame, &mut out),
            Encoding::Binary => binary::write_server(frame, &mut out),
        }
        self.put_data(out.into()).await
    }

    async fn put_data(&mut self, data: Bytes) -> Result<(), Error> {
        let kind = match self.encoding {
            Encoding::Json => Data::Text,
            Encoding::Binary => Data::Binary,
        };
        // What is ours is UTF-8 already; a text message would be checked for every reader.
        self.put_raw(Message::Frame(Frame::message(data, OpCode::Data(kind), true))).await
    }

    /// Writes a ping, to see a sign of life.
    pub(super) async fn put_ping(&mut self) -> Result<(), Error> {
        self.put_raw(Message::Ping(Bytes::new())).await
    }

    async fn put_raw(&mut self, message: Message) -> Result<(), Error> {
        let ready = poll_fn(|cx| std::pin::Pin::new(&mut self.socket).poll_ready(cx));
        Self::unless_cut(&self.cut, &mut self.moved, ready).await?;
        std::pin::Pin::new(&mut self.socket).start_send(message)
    }

    /// Hands what was written to the socket.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        let flushed = poll_fn(|cx| std::pin::Pin::new(&mut self.socket).poll_flush(cx));
        Self::unless_cut(&self.cut, &mut self.moved, flushed).await
    }

    async fn unless_cut(
        cut: &CancellationToken,
        moved: &mut bool,
        writing: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let mut writing = std::pin::pin!(writing);
        let mut stood_still = false;
        let watched = poll_fn(|cx| {
            let polled = writing.as_mut().poll(cx);
            stood_still |= polled.is_pending();
            polled
        });
        let written = tokio::select! {
            biased;
            written = watched => written,
            () = cut.cancelled() => Err(Error::AlreadyClosed),
        };
        *moved |= stood_still && written.is_ok();
        written
    }

    /// Returns whether the client has taken something that it had not taken at first, since this was
    /// last asked: a sign of life of one that is slow.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Ends the connection: writes the last frame and the close frame, where they can still be
    /// written, and hangs up.
    pub(super) async fn end(mut self, last: Option<ServerFrame<'_>>, close: Option<(u16, &'static str)>) {
        let goodbye = async {
            if let Some(last) = &last {
                self.put(last).await?;
            }
            if let Some((code, reason)) = close {
                let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
                self.put_raw(Message::Close(Some(frame))).await?;
            }
            self.flush().await
        };
        // A client that does not take them, or is gone, is left without.
        let _ = timeout(CLOSE_TIME, goodbye).await;
        // Hanging up at once, with something unread, would take back what was just written.
        let _ = timeout(CLOSE_TIME, self.socket.get_mut().shutdown()).await;
    }
}
