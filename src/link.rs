//! A connection that has left HTTP: a live stream or a WebSocket, written by whoever has something
//! for it.
//!
//! It owns the socket of such a connection, what is still to be written to it, and how it comes here
//! from the HTTP library. It must not know what is written.
//!
//! | file | owns |
//! |---|---|
//! | `handover` | how a handler asks for the connection of its request |
//! | `outbox` | bytes on their way to the socket |
//!
//! A live connection is quiet nearly all the time, and there are many: here it costs its socket, and
//! none of the buffers that the HTTP library keeps for the next request.

mod handover;
mod outbox;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use handover::{Handover, Taken};
pub use outbox::Outbox;

/// Bytes that are read from a socket at once.
const READ_BYTES: usize = 16 * 1024;

/// How long a closed connection is read on.
///
/// Closing a socket with unread bytes resets it, and the reset can overtake what was written last: a
/// client that is still sending would never see why it was refused.
pub const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    /// Where bytes arrive. They do not stay, so one place for each thread is enough.
    static ARRIVALS: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A connection. Clones are the same connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    stream: TcpStream,
    write_timeout: Duration,
    cut: CancellationToken,
    /// Given back when the connection is closed.
    _place: Box<dyn Any + Send + Sync>,
}

/// Lends the place where bytes arrive on this thread: 16 KiB.
///
/// # Panics
/// `take` asks for it again.
pub fn with_arrivals<T>(take: impl FnOnce(&mut [u8]) -> T) -> T {
    ARRIVALS.with_borrow_mut(|arrivals| take(arrivals))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stream", &self.0.stream).finish_non_exhaustive()
    }
}

impl Link {
    /// Returns a connection whose writes may stand still for `write_timeout`, and not once `cut` is
    /// cancelled. `place` is dropped when the connection is closed.
    #[must_use]
    pub fn new(
        stream: TcpStream,
        write_timeout: Duration,
        cut: CancellationToken,
        place: impl Any + Send + Sync,
    ) -> Self {
        Self(Arc::new(Inner { stream, write_timeout, cut, _place: Box::new(place) }))
    }

    /// Writes as much as the socket takes now.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write(&self, outbox: &mut Outbox) -> io::Result<()> {
        while !outbox.is_empty() {
            let written = match outbox.parts() {
                [bytes, rest] | [rest, bytes] if rest.is_empty() => self.0.stream.try_write(&bytes),
                parts => self.0.stream.try_write_vectored(&parts),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => outbox.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes everything. Returns whether the client had to be waited for.
    ///
    /// # Errors
    /// The connection is gone, or cut (`ConnectionAborted`); or the client took nothing for the whole
    /// write timeout (`TimedOut`).
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not written stays in the outbox.
    pub async fn flush(&self, outbox: &mut Outbox) -> io::Result<bool> {
        // A client that takes everything at once must not keep others from their turn.
        tokio::task::consume_budget().await;
        let mut has_waited = false;
        loop {
            self.write(outbox)?;
            if outbox.is_empty() {
                return Ok(has_waited);
            }
            has_waited = true;
            let deadline = Instant::now() + self.0.write_timeout;
            tokio::select! {
                biased;
                writable = timeout_at(deadline, self.0.stream.writable()) => match writable {
                    Ok(writable) => writable?,
                    Err(_) => return Err(io::Error::new(ErrorKind::TimedOut, "the client does not read")),
                },
                () = self.0.cut.cancelled() => return Err(ErrorKind::ConnectionAborted.into()),
            }
        }
    }

    /// Waits until something has arrived.
    ///
    /// # Errors
    /// The connection is gone.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.stream.readable().await
    }

    /// Hands what has arrived, up to 16 KiB of it, to `take`; nothing at the end of the connection.
    ///
    /// # Errors
    /// Nothing has arrived (`WouldBlock`), or the connection is gone.
    pub fn read<T>(&self, take: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        with_arrivals(|arrivals| {
            let count = self.0.stream.try_read(arrivals)?;
            Ok(take(&arrivals[..count]))
        })
    }

    /// Hangs up, once the client has had the time to read what was written last.
    pub async fn close(self) {
        let socket = socket2::SockRef::from(&self.0.stream);
        if socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        while let Ok(Ok(())) = timeout_at(deadline, self.readable()).await {
            match self.read(<[u8]>::len) {
                // The client has hung up, which is all that was waited for.
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
