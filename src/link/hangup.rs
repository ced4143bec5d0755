//! Whether a client that waits for an answer is still there, and what becomes of an answer that was not written.
//!
//! The HTTP library does not read while an answer is made, since a client that has closed its sending half may still
//! wait for it. For whom more is at stake than the answer, here is asked whether the client has hung up; and what is to be
//! undone where an answer is not written whole is left here. Once the kernel has all of it, the client may have it:
//! a connection that breaks afterwards says nothing of that. `HAProxy` resets each connection that it does not need any
//! more, so that none is left in `TIME_WAIT`, however long ago it has read the answer.
//! It must not know what is answered.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::transport::{Protocol, Transport};

/// How often it is asked whether a client is there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is done where an answer is not written whole.
type Undo = Box<dyn FnOnce() + Send>;

/// The client of a connection, as whoever answers its requests may ask for it. Cloning is cheap.
#[derive(Clone)]
pub struct Hangup(Arc<Inner>);

struct Inner {
    transport: Weak<dyn Transport>,
    /// Of the answers that are being written.
    unwritten: Mutex<Vec<Undo>>,
}

impl fmt::Debug for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hangup").finish_non_exhaustive()
    }
}

/// A connection that can be asked whether its client is there, while somebody else reads and writes it.
#[derive(Debug)]
struct Shared {
    transport: Arc<dyn Transport>,
    hangup: Hangup,
}

impl Hangup {
    /// Returns a connection, and its client.
    #[must_use]
    pub fn of(transport: Box<dyn Transport>) -> (Box<dyn Transport>, Self) {
        let transport: Arc<dyn Transport> = transport.into();
        let hangup =
            Self(Arc::new(Inner { transport: Arc::downgrade(&transport), unwritten: Mutex::default() }));
        (Box::new(Shared { transport, hangup: hangup.clone() }), hangup)
    }

    /// Whether the client has hung up. One that has closed its sending half alone is taken for one that has.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.0.transport.upgrade().is_none_or(|transport| transport.is_left())
    }

    /// Waits until the client has hung up.
    pub async fn wait(&self) {
        while !self.is_left() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Leaves what is to be undone if the answer that is about to be written is not written whole.
    pub fn unless_written(&self, undo: impl FnOnce() + Send + 'static) {
        self.0.unwritten.lock().push(Box::new(undo));
    }

    /// Tells that everything is written up to now.
    fn written(&self) {
        self.0.unwritten.lock().clear();
    }
}

/// The connection is over: what is not written by now never is.
impl Drop for Shared {
    fn drop(&mut self) {
        let unwritten = std::mem::take(&mut *self.hangup.0.unwritten.lock());
        for undo in unwritten {
            undo();
        }
    }
}

impl Transport for Shared {
    fn poll_agreed(&self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        self.transport.poll_agreed(cx)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.transport.try_read(buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.transport.try_write(bytes)
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.transport.try_write_vectored(parts)
    }

    fn try_flush(&self) -> io::Result<bool> {
        let flushed = self.transport.try_flush();
        if matches!(flushed, Ok(true)) {
            self.hangup.written();
        }
        flushed
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_writable(cx)
    }

    fn is_left(&self) -> bool {
        self.transport.is_left()
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.transport.shut_down_write()
    }

    fn tune(&self) -> io::Result<()> {
        self.transport.tune()
    }
}
