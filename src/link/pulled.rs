//! A stream of HTTP/2 as a transport: what is written waits here until the library pulls it, which it does
//! when the client gives room.
//!
//! It takes a little without being pulled, as the kernel does for a socket, so that who writes it need not
//! know what carries it.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::transport::{Protocol, Transport};

/// Bytes that are taken for a client and not pulled yet.
const WAITING_BYTES_MAX: usize = 16 * 1024;

/// Returns a transport, and what is written to it.
#[must_use]
pub fn pulled() -> (Pulled, PulledBytes) {
    let shared = Arc::new(Mutex::new(State::default()));
    (Pulled(shared.clone()), PulledBytes(shared))
}

/// The side that is written to.
pub struct Pulled(Arc<Mutex<State>>);

/// The side that pulls. Dropping it is what hanging up is elsewhere.
pub struct PulledBytes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// What comes of it once nothing waits.
    end: End,
    is_hung_up: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    puller: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// More may come.
    #[default]
    Open,
    /// Everything was written.
    Complete,
    /// The rest will never come.
    Broken,
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulled").finish_non_exhaustive()
    }
}

impl fmt::Debug for PulledBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PulledBytes").finish_non_exhaustive()
    }
}

fn wake(waker: Option<Waker>) {
    waker.into_iter().for_each(Waker::wake);
}

impl Pulled {
    fn end(&self, end: End) {
        let mut state = self.0.lock();
        if state.end != End::Open {
            return;
        }
        state.end = end;
        if end == End::Broken {
            state.waiting = Vec::new();
        }
        let puller = state.puller.take();
        drop(state);
        wake(puller);
    }
}

impl Drop for Pulled {
    fn drop(&mut self) {
        self.end(End::Broken);
    }
}

impl PulledBytes {
    /// Returns what waits, once there is something; `None` at the end.
    ///
    /// # Errors
    /// The rest will never come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut state = self.0.lock();
        if state.waiting.is_empty() {
            return match state.end {
                End::Open => {
                    state.puller = Some(cx.waker().clone());
                    Poll::Pending
                }
                End::Complete => Poll::Ready(None),
                End::Broken => Poll::Ready(Some(Err(ErrorKind::ConnectionAborted.into()))),
            };
        }
        let bytes = std::mem::take(&mut state.waiting);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        Poll::Ready(Some(Ok(bytes.into())))
    }
}

impl Drop for PulledBytes {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_hung_up = true;
        state.waiting = Vec::new();
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        wake(reader);
        wake(writer);
    }
}

impl Transport for Pulled {
    fn poll_agreed(&self, _: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        Poll::Ready(Ok(Protocol::Http2))
    }

    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        if self.0.lock().is_hung_up { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.is_hung_up {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut count = 0;
        for part in parts {
            let room = part.len().min(WAITING_BYTES_MAX - state.waiting.len());
            state.waiting.extend_from_slice(&part[..room]);
            count += room;
        }
        if count == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let puller = state.puller.take();
        drop(state);
        wake(puller);
        Ok(count)
    }

    fn try_flush(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.is_hung_up {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.is_hung_up || state.waiting.len() < WAITING_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_left(&self) -> bool {
        self.0.lock().is_hung_up
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.end(End::Complete);
        Ok(())
    }

    fn tune(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn pull(bytes: &mut PulledBytes) -> Poll<Option<io::Result<Bytes>>> {
        bytes.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn text(polled: Poll<Option<io::Result<Bytes>>>) -> Bytes {
        match polled {
            Poll::Ready(Some(Ok(bytes))) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn so_much_is_taken_until_it_is_pulled() {
        let (transport, mut bytes) = pulled();
        assert!(pull(&mut bytes).is_pending());
        let large = vec![b'x'; WAITING_BYTES_MAX - 1];
        assert_eq!(transport.try_write(&large).expect("room"), large.len());
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
        assert_eq!(transport.try_write_vectored(&parts).expect("room for one"), 1);
        let refused = transport.try_write(b"b").expect_err("no room");
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        assert!(transport.poll_writable(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(text(pull(&mut bytes)), [&large[..], b"a"].concat());
        assert_eq!(transport.try_write(b"bc").expect("room again"), 2);
        assert_eq!(text(pull(&mut bytes)), b"bc"[..]);
    }

    #[test]
    fn the_end_is_told_from_a_cut() {
        let (transport, mut bytes) = pulled();
        transport.try_write(b"last").expect("room");
        transport.shut_down_write().expect("it is open");
        drop(transport);
        assert_eq!(text(pull(&mut bytes)), b"last"[..]);
        assert!(matches!(pull(&mut bytes), Poll::Ready(None)));

        let (transport, mut bytes) = pulled();
        transport.try_write(b"part").expect("room");
        drop(transport);
        assert!(matches!(pull(&mut bytes), Poll::Ready(Some(Err(_)))), "nothing that is cut looks whole");
    }

    #[test]
    fn who_hangs_up_is_seen_to() {
        let (transport, bytes) = pulled();
        assert_eq!(transport.try_read(&mut [0]).expect_err("nothing comes").kind(), ErrorKind::WouldBlock);
        drop(bytes);
        assert_eq!(transport.try_read(&mut [0]).expect("the end"), 0);
        assert_eq!(transport.try_write(b"x").expect_err("it is gone").kind(), ErrorKind::BrokenPipe);
    }
}
