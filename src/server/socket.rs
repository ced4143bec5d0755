//! A socket that does not wait for ever: for a client that does not read, nor for one that does not
//! hang up.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::admission::Place;
use super::handover::Slot;
use crate::link::LINGER;

/// A TCP connection with a limit on the time that a write may stand still.
pub(super) struct Socket {
    stream: TcpStream,
    /// What had arrived before the HTTP library came in.
    arrived: Bytes,
    write_timeout: Duration,
    /// Kept once made: a connection that stood still once will again.
    timer: Option<Pin<Box<Sleep>>>,
    state: State,
    slot: Arc<Slot>,
    /// Given back when the socket is closed, whatever the connection has become.
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing waits.
    Moving,
    /// A write stands still, and the timer runs.
    Standing,
    /// Our side is closed, and the timer runs.
    Lingering,
}

impl Socket {
    pub(super) const fn new(
        stream: TcpStream,
        arrived: Bytes,
        write_timeout: Duration,
        place: Place,
        slot: Arc<Slot>,
    ) -> Self {
        Self { stream, arrived, write_timeout, timer: None, state: State::Moving, slot, place }
    }

    /// Returns the connection, what has arrived of it and was not read, and its place.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes, Place) {
        (self.stream, self.arrived, self.place)
    }

    fn start_timer(&mut self, state: State, timeout: Duration) {
        self.state = state;
        let deadline = Instant::now() + timeout;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(sleep(timeout))),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Returns what a write came to, within the time it may stand still.
    fn bounded(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.slot.note_written();
        if written.is_ready() {
            self.state = State::Moving;
            return written;
        }
        if self.state != State::Standing {
            self.start_timer(State::Standing, self.write_timeout);
        }
        ready!(self.poll_timer(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.arrived.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let count = this.arrived.len().min(buffer.remaining());
        buffer.put_slice(&this.arrived.split_to(count));
        if this.arrived.is_empty() {
            // An empty slice of them would keep the whole.
            this.arrived = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.bounded(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.slot.note_flushed();
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state != State::Lingering {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.start_timer(State::Lingering, LINGER);
        }
        let mut scratch = [0; 4096];
        loop {
            if this.poll_timer(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The client has hung up, which is all that was waited for.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
