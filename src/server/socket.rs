//! A connection as the HTTP library sees it. It does not wait for ever: for a client that does not read,
//! nor for one that does not hang up.
//!
//! It must not know what is served.

use std::future::Future as _;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::admission::ConnectionPermit;
use super::handover::Slot;
use crate::link::{LINGER, LINGER_BYTES_MAX, Transport, does_not_read, with_arrivals};

/// A connection with a limit on the time that a write may stand still.
pub(super) struct Socket {
    transport: Box<dyn Transport>,
    /// What had arrived before the HTTP library came in.
    arrived: Bytes,
    write_timeout: Duration,
    /// Kept once made: a connection that stood still once will again.
    timer: Option<Pin<Box<Sleep>>>,
    state: State,
    /// How much is still read and dropped while it lingers, in bytes.
    linger_room: usize,
    slot: Arc<Slot>,
    /// Given back when the socket is closed, whatever the connection has become.
    permit: ConnectionPermit,
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
        transport: Box<dyn Transport>,
        arrived: Bytes,
        write_timeout: Duration,
        permit: ConnectionPermit,
        slot: Arc<Slot>,
    ) -> Self {
        let (timer, state, linger_room) = (None, State::Moving, LINGER_BYTES_MAX);
        Self { transport, arrived, write_timeout, timer, state, linger_room, slot, permit }
    }

    /// Returns the connection, what has arrived of it and was not read, and its permit.
    pub(super) fn into_parts(self) -> (Box<dyn Transport>, Bytes, ConnectionPermit) {
        (self.transport, self.arrived, self.permit)
    }

    /// Writes the last word of all, unless the library is in the middle of one: then it is left out.
    pub(super) fn say_last(&self, word: &[u8]) {
        if self.slot.is_flushed() {
            // Who does not take it is not waited for.
            let _ = self.transport.try_write(word);
        }
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

    /// Returns what `write` comes to once it need not wait, within the time in which the client must
    /// take something.
    fn poll_taken<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&dyn Transport) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if self.transport.poll_writable(cx)?.is_pending() {
                if self.state != State::Standing {
                    self.start_timer(State::Standing, self.write_timeout);
                }
                ready!(self.poll_timer(cx));
                return Poll::Ready(Err(does_not_read()));
            }
            self.state = State::Moving;
            match write(&*self.transport) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Waits until the transport holds nothing more of what was written.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Where it stood still, what is sent now is for the timer to know.
        if self.state != State::Standing && self.transport.try_flush()? {
            return Poll::Ready(Ok(()));
        }
        self.poll_taken(cx, |transport| match transport.try_flush() {
            Ok(true) => Ok(()),
            Ok(false) => Err(ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        })
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
            loop {
                ready!(this.transport.poll_readable(cx))?;
                // Not before there is something: this writes zeros to all of it.
                match this.transport.try_read(buffer.initialize_unfilled()) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    read => {
                        buffer.advance(read?);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
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
        this.slot.note_written();
        this.poll_taken(cx, |transport| transport.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.slot.note_written();
        this.poll_taken(cx, |transport| transport.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        this.slot.note_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state != State::Lingering {
            ready!(this.poll_sent(cx))?;
            this.transport.shut_down_write()?;
            this.start_timer(State::Lingering, LINGER);
        }
        loop {
            if this.poll_timer(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match ready!(with_arrivals(|arrivals| this.transport.poll_read(cx, arrivals))) {
                Ok(count @ 1..) if count <= this.linger_room => this.linger_room -= count,
                // The client has hung up, which is all that was waited for, or goes on sending.
                Ok(_) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
