//! Whether a client that waits for an answer is still there, and what becomes of an answer that it did not get.
//!
//! The HTTP library does not read while an answer is made, since a client that has closed its sending half may still
//! wait for it. For whom more is at stake than the answer, here is asked whether the client has hung up; and what is to be
//! undone where the connection breaks behind an answer is left here.
//! It must not know what is answered.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::transport::{Protocol, Transport};

/// How often it is asked whether a client is there.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long after an answer a connection that breaks shows that the client did not get it.
const IN_DOUBT: Duration = Duration::from_secs(1);

/// What is done where a client did not get an answer.
type Undo = Box<dyn FnOnce() + Send>;

/// The client of a connection, as whoever answers its requests may ask for it. Cloning is cheap.
#[derive(Clone)]
pub struct Hangup(Arc<Inner>);

struct Inner {
    transport: Weak<dyn Transport>,
    /// Of the last answer, since when it is in doubt.
    in_doubt: Mutex<Option<(Instant, Undo)>>,
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
            Self(Arc::new(Inner { transport: Arc::downgrade(&transport), in_doubt: Mutex::default() }));
        (Box::new(Shared { transport, hangup: hangup.clone() }), hangup)
    }

    /// Waits until the client has hung up. One that has closed its sending half alone is taken for one that has.
    pub async fn wait(&self) {
        while self.0.transport.upgrade().is_some_and(|transport| !transport.is_left()) {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Leaves what is to be undone if the client does not get the answer that is about to be written. It has got the
    /// one before: it has asked again.
    pub fn unless_got(&self, undo: impl FnOnce() + Send + 'static) {
        if self.0.transport.upgrade().is_none_or(|transport| transport.is_left()) {
            return undo();
        }
        *self.0.in_doubt.lock() = Some((Instant::now(), Box::new(undo)));
    }

    /// Tells that the client has ended the connection, and was there until the answer: it has got it. One that ends with
    /// something unread breaks the connection, as one does that is sent something afterwards.
    fn ended(&self) {
        self.0.in_doubt.lock().take();
    }

    /// Tells that the connection has broken: what was left a moment ago is undone.
    pub fn broken(&self) {
        let in_doubt = self.0.in_doubt.lock().take();
        if let Some((since, undo)) = in_doubt
            && since.elapsed() < IN_DOUBT
        {
            undo();
        }
    }
}

impl Transport for Shared {
    fn poll_agreed(&self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        self.transport.poll_agreed(cx)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.transport.try_read(buffer);
        if matches!(read, Ok(0)) && !buffer.is_empty() {
            self.hangup.ended();
        }
        read
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.transport.try_write(bytes)
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.transport.try_write_vectored(parts)
    }

    fn try_flush(&self) -> io::Result<bool> {
        self.transport.try_flush()
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
