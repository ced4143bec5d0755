//! A connection of our own to the server, for everything that messages pass over. What is spoken is RESP.
//!
//! The client library builds every command in growing buffers and every reply as a tree, which was most
//! of what an append or a page cost the relay; and every three seconds it compares what it is subscribed to
//! with what it should be, which held up everything else where that were many topics. Here commands are
//! written into one buffer, and replies are read in place. Nothing else is offered: no reconnecting, no
//! cluster.
//!
//! Requests go out in the order in which they were begun, each written by whoever asks, so that a lone
//! one wakes nobody on its way. What comes back is read in one place, the [`Driver`], which gives each
//! request its replies. A request that is given up after its first byte cannot be taken back: if it was
//! not written to its end the connection is closed, else its replies are dropped when they come.
//!
//! Each request says what its replies may have at most. More than that is never held: it ends the
//! connection, or, where the request allows for it, is thrown away as it comes and told to who asked.
//!
//! `open` owns connecting, TLS and the login; the form of commands and replies is that of `tidemill-resp`.
//!
//! **Invariant:** whether the first byte of a request was written is always known, so that a request
//! that failed is told either as certainly without effect or as unknown.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tidemill_resp::{Cut, Cutter, Malformed};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod open;

pub(super) use open::Peer;
pub(super) use tidemill_resp::{Arguments, Bounds, Command, Item, Parts, Replies, Reply, Request, Walk};

/// Most requests under way. The lanes and the reads have few (see `lanes` and `reads`); the rest is for
/// those that were given up, until a look at the connection finds out what ails it.
pub(super) const REQUESTS_MAX: usize = 1_024;
/// Room for a read: the replies to a few hundred appends.
const READ_BYTES: usize = 16 * 1024;
/// Most room for a read. Where replies are long it grows up to here, so that they come in few pieces.
const READ_BYTES_MAX: usize = 256 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Why a request has no replies, and what that says about its effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RespError {
    /// Nothing of it was written.
    #[error("the request was not sent: {0}")]
    Unsent(String),
    /// Some or all of it was written.
    #[error("the request was not answered: {0}")]
    Unanswered(String),
    /// It was answered, with more than it had said that it would take.
    #[error("the answer is larger than what was asked for may be")]
    TooLarge {
        /// How many elements of the answer were within the bounds.
        fitting: usize,
    },
}

/// A connection to the server.
#[derive(Debug)]
pub(super) struct RespConnection {
    sending: Arc<Sending>,
}

/// The writing end of a connection.
struct Sending {
    /// Whether a write that fails may have sent something all the same, as one that encrypts may.
    is_sealed: bool,
    /// Held while a request is written, in the order of asking.
    writer: tokio::sync::Mutex<Writer>,
    state: Arc<State>,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What runs beside the reading of a connection; ends with the reason when the connection is of no use any more.
type Beside = Pin<Box<dyn Future<Output = String> + Send>>;

/// The reading end of a connection. The connection answers nothing while nobody drives it, and is closed when it
/// is dropped.
pub(super) struct Driver {
    reader: Reader,
    read: BytesMut,
    cutter: Cutter,
    state: Arc<State>,
    beside: Option<Beside>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    open: Mutex<Open>,
    /// Cancelled when the connection is closed.
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Open {
    /// Those under way, in the order of their bytes.
    requests: VecDeque<PendingRequest>,
    /// Why the connection is closed, once it is.
    reason: Option<String>,
}

/// A request under way.
#[derive(Debug)]
struct PendingRequest {
    commands: usize,
    /// Whether a refusal comes before the reply that is waited for.
    unanswered: bool,
    bounds: Bounds,
    cut: oneshot::Sender<Cut>,
}

impl RespConnection {
    fn new(reader: Reader, writer: Writer, is_sealed: bool) -> (Self, Driver) {
        let state = Arc::new(State::default());
        let writer = tokio::sync::Mutex::new(writer);
        let sending = Arc::new(Sending { is_sealed, writer, state: state.clone() });
        let (read, cutter) = (BytesMut::new(), Cutter::default());
        (Self { sending }, Driver { reader, read, cutter, state, beside: None })
    }

    /// Sends a request and returns its replies, one for each command. Error replies are replies.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the commands may run. The connection stays in order.
    pub(super) async fn exchange(&self, request: &Request, within: Duration) -> Result<Replies, RespError> {
        self.sending.exchange(request, within).await
    }

    /// Subscribes to channels, or unsubscribes from them, as `command` says; returns when that holds.
    /// What is heard goes to whoever [listens](Driver::listen). A refusal is an error, and the
    /// connection is of no more use then.
    ///
    /// # Cancel safety
    /// Not cancel-safe, like [`exchange`](Self::exchange).
    pub(super) async fn subscribe<A: AsRef<[u8]>>(
        &self,
        command: &str,
        channels: &[A],
        within: Duration,
    ) -> Result<(), String> {
        let mut request = Request::default();
        // The reply to the second command comes behind the messages that confirm the first.
        request.add_unanswered(command.as_bytes(), channels).add(&[b"PING"]);
        let replies = self.exchange(&request, within).await.map_err(|error| error.to_string())?;
        replies.iter().find_map(|reply| reply.error()).map_or(Ok(()), |refusal| {
            self.close(&refusal);
            Err(refusal)
        })
    }

    /// Closes the connection: every request under way ends now.
    pub(super) fn close(&self, reason: &str) {
        self.sending.state.close(reason);
    }
}

impl Drop for RespConnection {
    fn drop(&mut self) {
        self.sending.state.close("nobody uses the connection any more");
    }
}

impl Sending {
    async fn exchange(&self, request: &Request, within: Duration) -> Result<Replies, RespError> {
        let mut written = false;
        let outcome = timeout(within, self.ask(request, &mut written)).await;
        let reason = match outcome {
            Ok(Ok(Cut::Replies(replies))) => return Ok(replies),
            Ok(Ok(Cut::TooLarge { fitting })) => return Err(RespError::TooLarge { fitting }),
            Ok(Err(reason)) => reason,
            Err(_) => format!("it took longer than {} ms", within.as_millis()),
        };
        Err(if written { RespError::Unanswered(reason) } else { RespError::Unsent(reason) })
    }

    /// Sends a request; `written` becomes true with its first byte.
    async fn ask(&self, request: &Request, written: &mut bool) -> Result<Cut, String> {
        if request.commands() == 0 {
            return Ok(Cut::Replies(Replies::default()));
        }
        let mut writer = self.writer.lock().await;
        let cut = self.state.begin(request)?;
        Writing {
            state: &self.state,
            length: request.bytes().len(),
            at: 0,
            is_sealed: self.is_sealed,
            written,
        }
        .write(&mut writer, request.bytes())
        .await?;
        // Of TLS, something may still be in its buffer.
        let flushed = self.state.closed.run_until_cancelled(writer.flush()).await;
        drop(writer);
        if let Some(Err(error)) = flushed {
            self.state.close(&error.to_string());
        }
        cut.await.map_err(|_| self.state.reason())
    }
}

/// A request that is being written. Dropped half way, it leaves the connection in order or closed.
struct Writing<'a> {
    state: &'a State,
    length: usize,
    at: usize,
    is_sealed: bool,
    written: &'a mut bool,
}

impl Writing<'_> {
    async fn write(mut self, writer: &mut Writer, bytes: &[u8]) -> Result<(), String> {
        while let Some(rest) = bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            let reason = match self.state.closed.run_until_cancelled(writer.write(rest)).await {
                Some(Ok(0)) => "the connection takes nothing more".to_owned(),
                Some(Ok(count)) => {
                    self.at += count;
                    *self.written = true;
                    continue;
                }
                Some(Err(error)) => {
                    *self.written |= self.is_sealed;
                    error.to_string()
                }
                None => return Err(self.state.reason()),
            };
            self.state.close(&reason);
            return Err(reason);
        }
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.at == 0 {
            self.state.take_back();
        } else if self.at < self.length {
            self.state.close("a request was given up half way");
        }
    }
}

impl State {
    /// Enters a request behind the others. Only who holds the writer may do so.
    fn begin(&self, request: &Request) -> Result<oneshot::Receiver<Cut>, String> {
        let mut open = self.open.lock();
        if let Some(reason) = &open.reason {
            return Err(reason.clone());
        }
        if open.requests.len() >= REQUESTS_MAX {
            return Err("too many requests wait for their answers".to_owned());
        }
        let (cut, receiver) = oneshot::channel();
        open.requests.push_back(PendingRequest {
            commands: request.commands(),
            unanswered: request.has_unanswered(),
            bounds: request.bounds(),
            cut,
        });
        Ok(receiver)
    }

    /// Takes the newest request back, of which nothing was written.
    fn take_back(&self) {
        self.open.lock().requests.pop_back();
    }

    fn close(&self, reason: &str) {
        {
            let mut open = self.open.lock();
            if open.reason.is_none() {
                open.reason = Some(reason.to_owned());
            }
            open.requests.clear();
        }
        self.closed.cancel();
    }

    fn reason(&self) -> String {
        self.open.lock().reason.clone().unwrap_or_else(|| "the connection was closed".to_owned())
    }

    /// Gives the requests under way what was read for them.
    fn give(
        &self,
        cutter: &mut Cutter,
        read: &mut BytesMut,
        unasked: &mut impl FnMut(Parts<'_>),
    ) -> Result<(), Malformed> {
        loop {
            let asked = self.open.lock().requests.front().map(|asked| (asked.commands, asked.bounds));
            let Some((commands, bounds)) = asked else {
                return cutter.pass_over(read, unasked);
            };
            let Some(cut) = cutter.cut(read, commands, &bounds, unasked)? else { return Ok(()) };
            // Closed in between, there is none.
            let Some(asked) = self.open.lock().requests.pop_front() else { return Ok(()) };
            if asked.unanswered && is_refused(&cut) {
                // Nobody waits for the reply that is still to come, and it must not pass for another's.
                let rest = PendingRequest { commands, unanswered: false, bounds, cut: oneshot::channel().0 };
                self.open.lock().requests.push_front(rest);
            }
            // Who no longer waits needs no replies.
            let _ = asked.cut.send(cut);
        }
    }
}

/// Whether a reply is an error.
fn is_refused(cut: &Cut) -> bool {
    matches!(cut, Cut::Replies(replies) if replies.iter().any(|reply| reply.error().is_some()))
}

impl Driver {
    /// Reads until the connection breaks or is closed, and returns the reason.
    pub(super) async fn drive(self) -> String {
        self.listen(|_| {}).await
    }

    /// As [`drive`](Self::drive), and hands what the server sends unasked to `heard`: what comes over a
    /// channel is `message`, the channel, and the text.
    pub(super) async fn listen(mut self, mut heard: impl FnMut(Parts<'_>) + Send) -> String {
        let state = self.state.clone();
        let beside = self.beside.take();
        let beside = async {
            match beside {
                Some(beside) => beside.await,
                None => std::future::pending().await,
            }
        };
        let reading = async {
            tokio::select! {
                biased;
                reason = self.read_all(&mut heard) => reason,
                reason = beside => reason,
            }
        };
        if let Some(reason) = state.closed.run_until_cancelled(reading).await {
            state.close(&reason);
        }
        state.reason()
    }

    async fn read_all(&mut self, heard: &mut impl FnMut(Parts<'_>)) -> String {
        let mut room = READ_BYTES;
        loop {
            let free = self.read.capacity() - self.read.len();
            // What is known to come of a reply has its place at once, so that it is not moved as it grows.
            if free < (room / 4).max(self.cutter.wanted()) {
                self.read.reserve(room.max(self.cutter.wanted()));
            }
            let free = self.read.capacity() - self.read.len();
            match self.reader.read_buf(&mut self.read).await {
                Ok(0) => return "the server has closed the connection".to_owned(),
                Ok(count) if count == free => room = (room * 2).min(READ_BYTES_MAX),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
            if let Err(malformed) = self.state.give(&mut self.cutter, &mut self.read, heard) {
                return malformed.to_string();
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.state.close("nobody reads the connection any more");
    }
}

#[cfg(test)]
mod tests;
