//! What carries the bytes of a connection, whatever lies between it and the wire.
//!
//! It owns what every kind of it keeps to, and how bytes are read and written over any. It must not
//! know a particular kind, nor what is carried.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::outbox::Outbox;

/// What a client speaks over its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or what follows an upgrade.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection that never waits: whoever has something for it writes what it takes now, and the one
/// task of the connection waits for the rest.
///
/// A kind that changes bytes on their way, as TLS does, holds some of its own: what is written and not
/// yet sent ([`Transport::try_flush`]), and what has arrived and was not read. Both stay with it through
/// every hand-over. How much it holds is bounded: while it cannot send what it holds, it takes no more.
///
/// When it is dropped the connection ends; a kind that has a last word says it then, if it can without
/// waiting.
///
/// What says `WouldBlock` has asked the socket until that said so. So whoever waits then waits for the
/// network, and never goes round in a circle.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Agrees with the client on what has to be agreed on before anything else, and returns what it speaks.
    /// Nothing is written before.
    ///
    /// # Errors
    /// The two do not come to terms, or the connection is gone.
    fn poll_agreed(&self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>>;

    /// Reads what has arrived, and returns how many bytes; none at the end of the connection.
    ///
    /// # Errors
    /// Nothing has arrived (`WouldBlock`), or the connection is gone.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes bytes, and returns how many.
    ///
    /// # Errors
    /// It takes none now (`WouldBlock`), or the connection is gone.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Takes bytes of several parts, one after the other, and returns how many.
    ///
    /// # Errors
    /// It takes none now (`WouldBlock`), or the connection is gone.
    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Sends on what it holds of what it took, and returns whether it holds nothing more.
    ///
    /// # Errors
    /// The connection is gone.
    fn try_flush(&self) -> io::Result<bool>;

    /// Returns whether there may be something to read; the task that asked last is woken once there is.
    /// Meanwhile it sends on what it holds: an answer of its own may be what the client waits for.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Returns whether the socket may take more, of new bytes or of those that are held; the task that
    /// asked last is woken once it does.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the client has hung up, or has closed its sending half, or the connection is gone. Nobody is woken for
    /// it; what has arrived before that need not have been read.
    fn is_left(&self) -> bool;

    /// Tells the client that nothing more comes. What is held and cannot be sent now is lost.
    ///
    /// # Errors
    /// The connection is gone.
    fn shut_down_write(&self) -> io::Result<()>;

    /// Sets what a connection needs of the kernel.
    ///
    /// # Errors
    /// The kernel refuses. The connection works, and is slower or holds more.
    fn tune(&self) -> io::Result<()>;
}

impl dyn Transport {
    /// Reads what has arrived, and returns how many bytes; none at the end of the connection. The task
    /// that asked last is woken once there is something.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Writes as much as is taken now.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write(&self, outbox: &mut Outbox) -> io::Result<()> {
        while !outbox.is_empty() {
            let written = match outbox.parts() {
                [front, bytes, rest] | [front, rest, bytes] if front.is_empty() && rest.is_empty() => {
                    self.try_write(&bytes)
                }
                parts => self.try_write_vectored(&parts),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => outbox.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        outbox.note_flushed(self.try_flush()?);
        Ok(())
    }

    /// Writes everything. Returns whether the client had to be waited for.
    ///
    /// # Errors
    /// The connection is gone, or the client took nothing for a whole `write_timeout` (`TimedOut`).
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not written stays in the outbox.
    pub async fn flush(&self, outbox: &mut Outbox, write_timeout: Duration) -> io::Result<bool> {
        // A client that takes everything at once must not keep others from their turn.
        tokio::task::consume_budget().await;
        let mut has_waited = false;
        loop {
            self.write(outbox)?;
            if outbox.is_sent() {
                return Ok(has_waited);
            }
            has_waited = true;
            let deadline = Instant::now() + write_timeout;
            match timeout_at(deadline, poll_fn(|cx| self.poll_writable(cx))).await {
                Ok(writable) => writable?,
                Err(_) => return Err(does_not_read()),
            }
        }
    }
}

/// Returns what is said of a client that took nothing for the whole write timeout.
#[must_use]
pub fn does_not_read() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the client does not read")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::Notify;

    use super::*;

    /// Takes one piece, and holds it until it may send it on.
    #[derive(Debug, Default)]
    struct Holding(Arc<Shared>);

    #[derive(Debug, Default)]
    struct Shared {
        state: Mutex<State>,
        waits: Notify,
    }

    #[derive(Debug, Default)]
    struct State {
        held: Vec<u8>,
        sent: Vec<u8>,
        may_send: bool,
        waker: Option<std::task::Waker>,
    }

    impl Shared {
        fn release(&self) {
            let mut state = self.state.lock();
            state.may_send = true;
            state.waker.take().into_iter().for_each(std::task::Waker::wake);
        }
    }

    impl Transport for Holding {
        fn poll_agreed(&self, _: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
            Poll::Ready(Ok(Protocol::Http1))
        }

        fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }

        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            if !self.try_flush()? {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.0.state.lock().held.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            self.try_write(&parts[0])
        }

        fn try_flush(&self) -> io::Result<bool> {
            let State { held, sent, may_send, .. } = &mut *self.0.state.lock();
            if *may_send {
                sent.append(held);
            }
            Ok(held.is_empty())
        }

        fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let mut state = self.0.state.lock();
            if state.may_send {
                return Poll::Ready(Ok(()));
            }
            state.waker = Some(cx.waker().clone());
            self.0.waits.notify_one();
            Poll::Pending
        }

        fn is_left(&self) -> bool {
            false
        }

        fn shut_down_write(&self) -> io::Result<()> {
            Ok(())
        }

        fn tune(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_flush_waits_for_what_is_held() {
        let shared = Arc::new(Shared::default());
        let transport: Box<dyn Transport> = Box::new(Holding(shared.clone()));
        let mut outbox = Outbox::default();
        outbox.own().extend_from_slice(b"abc");
        transport.write(&mut outbox).expect("it takes everything");
        assert!(outbox.is_empty() && !outbox.is_sent());
        outbox.push_shared(&bytes::Bytes::from_static(b"def"));
        transport.write(&mut outbox).expect("it says that it takes nothing");
        assert_eq!(outbox.len(), 3, "it takes no more while it holds some");

        let (has_waited, ()) = tokio::join!(transport.flush(&mut outbox, Duration::from_mins(1)), async {
            shared.waits.notified().await;
            shared.release();
        });
        assert!(has_waited.expect("it is written"));
        assert!(outbox.is_sent());
        assert_eq!(shared.state.lock().sent, b"abcdef");
    }

    #[tokio::test]
    async fn who_never_takes_what_is_held_does_not_read() {
        let transport: Box<dyn Transport> = Box::new(Holding::default());
        let mut outbox = Outbox::default();
        outbox.own().extend_from_slice(b"abc");
        let flushed = transport.flush(&mut outbox, Duration::from_millis(1)).await;
        assert_eq!(flushed.expect_err("nothing is sent").kind(), ErrorKind::TimedOut);
        assert!(outbox.is_empty(), "everything was taken, and nothing sent");
    }
}
