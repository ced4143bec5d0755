//! A transport in memory, whose other end is the test: every byte arrives and leaves in the pieces that
//! the test wants.
//!
//! It must not know what is tested.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill::link::{Protocol, Transport};
use tidemill::server::{Accepted, Bound, Listen, Listener};
use tokio::sync::{Mutex as Turn, Notify, mpsc};
use tokio::time::timeout;

use super::relay::STUCK;

/// Connections that wait to be accepted.
const BACKLOG: usize = 16;

/// How a connection takes what is written to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taking {
    /// Most bytes that one write takes.
    pub(crate) at_once: usize,
    /// Bytes that are taken after each wait; none once [`Client::hold`] was called.
    pub(crate) after_a_wait: usize,
}

impl Taking {
    /// Everything, at once.
    pub(crate) const ALL: Self = Self { at_once: usize::MAX, after_a_wait: usize::MAX };
}

struct State {
    /// What the client has sent. Each piece is one read.
    arriving: VecDeque<Vec<u8>>,
    /// Whether the next piece has arrived: the relay has to wait for each.
    has_arrived: bool,
    is_ended: bool,
    /// What the relay has written.
    written: Vec<u8>,
    taking: Taking,
    /// Bytes that are taken until the next wait.
    room: usize,
    /// Whether the relay has shut down its side, or dropped it.
    is_over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Pipe {
    state: Mutex<State>,
    /// Tells the client that something has changed.
    changed: Notify,
}

/// The relay's end.
struct Inner(Arc<Pipe>);

/// The test's end.
pub(crate) struct Client(Arc<Pipe>);

/// Where the relay accepts such connections.
struct PipeListen {
    bound: Bound,
    incoming: Arc<Turn<mpsc::Receiver<Box<dyn Transport>>>>,
}

/// Opens connections to a relay that listens.
#[derive(Clone, Debug)]
pub(crate) struct Dialer(mpsc::Sender<Box<dyn Transport>>);

/// Returns a listener for such connections, and who opens them.
pub(crate) fn listener() -> (Arc<dyn Listen>, Dialer) {
    let (dialer, incoming) = mpsc::channel(BACKLOG);
    let bound = Bound { url: "memory://pipe".to_owned(), address: None };
    (Arc::new(PipeListen { bound, incoming: Arc::new(Turn::new(incoming)) }), Dialer(dialer))
}

impl Dialer {
    /// Opens a connection. The relay sees what `wrap` makes of its end.
    pub(crate) async fn connect(
        &self,
        taking: Taking,
        wrap: impl FnOnce(Box<dyn Transport>) -> Box<dyn Transport>,
    ) -> Client {
        let state = State {
            arriving: VecDeque::new(),
            has_arrived: false,
            is_ended: false,
            written: Vec::new(),
            taking,
            room: taking.after_a_wait,
            is_over: false,
            reader: None,
            writer: None,
        };
        let pipe = Arc::new(Pipe { state: Mutex::new(state), changed: Notify::new() });
        self.0.send(wrap(Box::new(Inner(pipe.clone())))).await.expect("the relay listens");
        Client(pipe)
    }
}

impl Client {
    /// Sends bytes, which arrive in one piece.
    pub(crate) fn send(&self, piece: &[u8]) {
        assert!(!piece.is_empty(), "a piece has bytes");
        let mut state = self.0.state.lock();
        state.arriving.push_back(piece.to_vec());
        state.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Says that nothing more comes.
    pub(crate) fn end(&self) {
        let mut state = self.0.state.lock();
        state.is_ended = true;
        state.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Takes nothing more.
    pub(crate) fn hold(&self) {
        let mut state = self.0.state.lock();
        state.room = 0;
        state.taking.after_a_wait = 0;
    }

    /// Takes everything again.
    pub(crate) fn release(&self) {
        let mut state = self.0.state.lock();
        state.room = usize::MAX;
        state.taking = Taking::ALL;
        state.writer.take().into_iter().for_each(Waker::wake);
    }

    /// Returns what was written since the last time.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.state.lock().written)
    }

    /// Waits until the relay has written something, and returns it; nothing once the connection is over.
    pub(crate) async fn more(&self) -> Vec<u8> {
        let more = async {
            loop {
                let changed = self.0.changed.notified();
                let is_over = self.0.state.lock().is_over;
                let written = self.take();
                if is_over || !written.is_empty() {
                    return written;
                }
                changed.await;
            }
        };
        timeout(STUCK, more).await.expect("the relay writes, or hangs up")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
        self.release();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.changed.notify_one();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Transport for Inner {
    fn poll_agreed(&self, _: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        Poll::Ready(Ok(Protocol::Http1))
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if !state.has_arrived {
            return Err(ErrorKind::WouldBlock.into());
        }
        let Some(piece) = state.arriving.front_mut() else { return Ok(0) };
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        piece.drain(..count);
        if piece.is_empty() {
            state.arriving.pop_front();
            state.has_arrived = false;
        }
        Ok(count)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        let count = bytes.len().min(state.room).min(state.taking.at_once);
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.room -= count;
        state.written.extend_from_slice(&bytes[..count]);
        self.0.changed.notify_one();
        Ok(count)
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // A vector of bytes is one write: what is taken of it is a matter of its length alone.
        self.try_write(&parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>())
    }

    fn try_flush(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.has_arrived {
            return Poll::Ready(Ok(()));
        }
        if state.arriving.is_empty() && !state.is_ended {
            state.reader = Some(cx.waker().clone());
        } else {
            state.has_arrived = true;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.room > 0 {
            return Poll::Ready(Ok(()));
        }
        if state.taking.after_a_wait == 0 {
            state.writer = Some(cx.waker().clone());
        } else {
            state.room = state.taking.after_a_wait;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn is_left(&self) -> bool {
        self.0.state.lock().is_over
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.0.state.lock().is_over = true;
        self.0.changed.notify_one();
        Ok(())
    }

    fn tune(&self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for PipeListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeListen").finish_non_exhaustive()
    }
}

impl fmt::Display for PipeListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bound.fmt(f)
    }
}

#[async_trait]
impl Listen for PipeListen {
    async fn bind(&self) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Self { bound: self.bound.clone(), incoming: self.incoming.clone() }))
    }
}

#[async_trait]
impl Listener for PipeListen {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self.incoming.lock().await.recv().await {
            Some(transport) => Ok(Accepted { transport, from: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) }),
            // Nobody dials any more.
            None => std::future::pending().await,
        }
    }
}
