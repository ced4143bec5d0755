//! A connection that has left HTTP, as those see it who write to it.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::arrivals::with_arrivals;
use super::outbox::Outbox;
use super::transport::Transport;

/// How long a closed connection is read on.
///
/// Closing a socket with unread bytes resets it, and the reset can overtake what was written last: a
/// client that is still sending would never see why it was refused.
pub const LINGER: Duration = Duration::from_secs(1);

/// How much is read and dropped meanwhile, in bytes: a client that goes on sending has had its answer.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection. Clones are the same connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    transport: Box<dyn Transport>,
    write_timeout: Duration,
    cut: CancellationToken,
    /// Given back when the connection is closed.
    _place: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("transport", &self.0.transport).finish_non_exhaustive()
    }
}

impl Link {
    /// Returns a connection whose writes may stand still for `write_timeout`, and not once `cut` is
    /// cancelled. `place` is dropped when the connection is closed.
    #[must_use]
    pub fn new(
        transport: Box<dyn Transport>,
        write_timeout: Duration,
        cut: CancellationToken,
        place: impl Any + Send + Sync,
    ) -> Self {
        Self(Arc::new(Inner { transport, write_timeout, cut, _place: Box::new(place) }))
    }

    /// Writes as much as the client takes now.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write(&self, outbox: &mut Outbox) -> io::Result<()> {
        self.0.transport.write(outbox)
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
        tokio::select! {
            biased;
            flushed = self.0.transport.flush(outbox, self.0.write_timeout) => flushed,
            () = self.0.cut.cancelled() => Err(ErrorKind::ConnectionAborted.into()),
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
        poll_fn(|cx| self.0.transport.poll_readable(cx)).await
    }

    /// Hands what has arrived, up to 16 KiB of it, to `take`; nothing at the end of the connection.
    ///
    /// # Errors
    /// Nothing has arrived (`WouldBlock`), or the connection is gone.
    pub fn read<T>(&self, take: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        with_arrivals(|arrivals| {
            let count = self.0.transport.try_read(arrivals)?;
            Ok(take(&arrivals[..count]))
        })
    }

    /// Hangs up, once the client has had the time to read what was written last.
    pub async fn close(self) {
        if self.0.transport.shut_down_write().is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut room = LINGER_BYTES_MAX;
        while let Ok(Ok(())) = timeout_at(deadline, self.readable()).await {
            match self.read(<[u8]>::len) {
                // The client has hung up, which is all that was waited for.
                Ok(0) => return,
                Ok(count) if count > room => return,
                Ok(count) => room -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
