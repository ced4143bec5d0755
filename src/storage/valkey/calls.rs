//! Calls: scripts over a connection of our own, many at a time.
//!
//! What arrives while requests are under way forms the next one, as with lanes; but calls have no order among each
//! other. Those that ask for the same of the same keys, and say that they may be, are one call of their script there: what
//! it does before it comes to one of them is done once. A script that the server does not know is loaded, and its calls are sent again: they had no effect.
//!
//! What may wait is bounded. What waited too long, or waits while the connection goes down, is answered as not sent.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::{Effect, Failure, of_reply, refuses_writes, same, unexpected};
use super::resp::{Arguments, Bounds, Parts, Reply, Request, RespConnection};
use super::scripts::Script;
use super::supervised::Supervised;
use crate::slow::{self, Spent};
use crate::storage::StorageError;

/// Requests under way at one time: one that the server works on, and one that is read or written meanwhile.
const UNDER_WAY: usize = 2;
/// Calls of one request.
const CALLS_PER_REQUEST: usize = 64;
/// Bytes that the replies to one request may have together, unless one call alone asks for more.
const REPLIES_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of one request, unless one call alone has more.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Calls that may wait.
const WAITING_MAX: usize = 4_096;
/// Arguments of calls that are one, so that the server is not held up by it, unless one of them alone has more.
const ARGUMENTS_JOINED: usize = 1_024;
/// Bytes and elements that every reply may have: a long error.
const REPLY_BYTES: usize = 4 * 1024;
const REPLY_ELEMENTS: usize = 64;
/// Bytes of a reply for each of its elements at least, on the whole.
const ELEMENT_BYTES: usize = 4;

/// What takes the reply to a call, and when that was sent, if it was.
type Taker = Box<dyn for<'a> FnOnce(Option<Instant>, Result<Reply<'a>, StorageError>) + Send>;

/// A call of a script: what it is given, what it would do, and what its reply may have.
#[derive(Debug)]
pub(super) struct Call {
    script: &'static Script,
    /// How many keys there are, which stand in front of what is shared.
    keys: usize,
    shared: Arguments,
    own: Arguments,
    joining: Joining,
    effect: Effect,
    /// Bytes that the reply will have, about.
    expected: usize,
    /// Bytes that it may have at most.
    bytes: usize,
    elements: usize,
}

/// Whether a script takes several calls at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// It takes one, and answers that.
    Never,
    /// It takes several and answers an array, with an answer for each; this one has to be alone.
    Alone,
    /// As that, and this one may be any of them.
    Joined,
}

impl Call {
    /// Returns a call with these keys and arguments.
    pub(super) fn new<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        script: &'static Script,
        effect: Effect,
        keys: &[K],
        arguments: &[A],
    ) -> Self {
        Self {
            script,
            keys: keys.len(),
            shared: keys.iter().collect(),
            own: arguments.iter().collect(),
            joining: Joining::Never,
            effect,
            expected: REPLY_BYTES,
            bytes: REPLY_BYTES,
            elements: REPLY_ELEMENTS,
        }
    }

    /// Returns a call with these keys and arguments, which are written already.
    pub(super) fn with_arguments(
        script: &'static Script,
        effect: Effect,
        keys: &[String],
        own: Arguments,
    ) -> Self {
        Self { own, ..Self::new(script, effect, keys, &[] as &[&str]) }
    }

    /// Returns the call of a script that takes several at once: after the keys come arguments that those have in common,
    /// and those of each behind the other. Where such a script cannot begin it answers one code, in an array, to all. Where
    /// its answer has grown long it may end with some of them, and has done nothing for the others, which ask again.
    pub(super) fn several<A: AsRef<[u8]>>(
        script: &'static Script,
        effect: Effect,
        keys: &[String],
        common: &[A],
        own: Arguments,
        joining: Joining,
    ) -> Self {
        let mut call = Self { own, joining, ..Self::new(script, effect, keys, &[] as &[&str]) };
        call.shared.extend(common);
        call
    }

    /// Says how many bytes the reply will have, about, and may have at most, beside those of an error.
    pub(super) fn replied(self, expected: usize, bytes: usize) -> Self {
        let elements = self.elements + bytes / ELEMENT_BYTES;
        Self { expected: self.expected + expected, bytes: self.bytes + bytes, elements, ..self }
    }
}

/// Returns which calls of one request are one call of a script, in the order in which they are sent: the places of each.
fn joined(calls: &[Waiting]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    // The group of each kind that takes more, and how many arguments it has.
    let mut open: HashMap<(*const Script, &Arguments), (usize, usize)> = HashMap::new();
    for (at, Waiting { call, .. }) in calls.iter().enumerate() {
        if call.joining == Joining::Joined {
            let count = call.own.count();
            let kind = (std::ptr::from_ref(call.script), &call.shared);
            match open.get_mut(&kind) {
                Some((group, arguments)) if *arguments + count <= ARGUMENTS_JOINED => {
                    groups[*group].push(at);
                    *arguments += count;
                    continue;
                }
                Some(_) | None => drop(open.insert(kind, (groups.len(), count))),
            }
        }
        groups.push(vec![at]);
    }
    groups
}

/// Adds calls of scripts, each for a group of calls.
fn write(calls: &[Waiting], groups: &[Vec<usize>], request: &mut Request) {
    for group in groups {
        let Some(Call { script, keys, shared, .. }) = group.first().map(|at| &calls[*at].call) else {
            continue;
        };
        let own = || group.iter().map(|at| &calls[*at].call.own);
        let count = shared.count() + own().map(Arguments::count).sum::<usize>();
        let mut command = request.begin(3 + count);
        command.arg(b"EVALSHA").arg(script.digest().as_bytes()).number(*keys as u64).all(shared);
        for arguments in own() {
            command.all(arguments);
        }
    }
}

/// What came of a call.
enum Replied<'a> {
    With(Reply<'a>),
    /// Others that it is one call with have filled the reply; nothing was done for it.
    Later,
    Never,
}

/// Calls that are to be sent.
#[derive(Default)]
struct Left {
    calls: Vec<Waiting>,
    /// Whether the server does not know the script of some.
    unknown: bool,
}

/// Returns what came of each call, from the replies to groups of them.
fn replies_of<'r>(
    calls: &[Waiting],
    groups: &[Vec<usize>],
    replies: impl Iterator<Item = Reply<'r>>,
) -> Vec<Replied<'r>> {
    let mut all: Vec<Replied<'r>> = calls.iter().map(|_| Replied::Never).collect();
    for (group, reply) in groups.iter().zip(replies) {
        let several = group.first().is_some_and(|at| calls[*at].call.joining != Joining::Never);
        match reply {
            Reply::Array(parts) if several && is_of_each(&parts) => {
                let mut parts = parts.peekable();
                let is_any = parts.peek().is_some();
                for at in group {
                    all[*at] = match parts.next() {
                        Some(part) => Replied::With(part),
                        None if is_any => Replied::Later,
                        None => Replied::Never,
                    };
                }
            }
            reply => {
                for at in group {
                    all[*at] = Replied::With(reply.clone());
                }
            }
        }
    }
    all
}

/// Returns whether these are answers of several calls, and not one with its code in front.
fn is_of_each(parts: &Parts<'_>) -> bool {
    !matches!(parts.clone().next(), Some(Reply::Integer(_)))
}

/// A call that waits, with who takes its reply.
struct Waiting {
    call: Call,
    since: Instant,
    taker: Taker,
}

/// The calls to a server.
pub(super) struct Calls {
    waiting: mpsc::Sender<Waiting>,
    connection: Arc<Supervised<RespConnection>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Calls {
    /// Starts on `tracker`, until `token` is cancelled.
    pub(super) fn start(
        connection: Arc<Supervised<RespConnection>>,
        timeout: Duration,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        let (waiting, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..UNDER_WAY {
            let caller =
                Caller { waiting: receiver.clone(), connection: connection.clone(), wait_max: timeout };
            tracker.spawn(token.clone().run_until_cancelled_owned(caller.run()));
        }
        Self { waiting, connection }
    }

    pub(super) fn connection(&self) -> &Arc<Supervised<RespConnection>> {
        &self.connection
    }

    /// Calls a script, and reads its reply; `None` from `read` says that it has another form.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, and what the server answers.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the script may run.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(Reply<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (tx, rx) = oneshot::channel();
        let effect = call.effect;
        let taker: Taker = Box::new(move |sent_at, reply| {
            let outcome = reply.and_then(|reply| match reply.error() {
                Some(text) => Err(of_reply(text)),
                None => read(reply).ok_or_else(|| unexpected("EVALSHA", effect)),
            });
            // Who no longer waits needs no answer.
            let _ = tx.send((sent_at, outcome));
        });
        if !self.connection.is_up() {
            return Err(StorageError::Unavailable(self.connection.down().into()));
        }
        let since = Instant::now();
        let waiting = Waiting { call, since, taker };
        self.waiting.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StorageError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        match rx.await {
            Ok((sent_at, outcome)) => {
                let now = Instant::now();
                slow::note(Spent::between(since, sent_at.unwrap_or(now), now));
                outcome
            }
            Err(_) if effect == Effect::Read => Err(stopping()),
            Err(_) => Err(StorageError::Indeterminate(Failure::Lost.into())),
        }
    }
}

fn stopping() -> StorageError {
    StorageError::Unavailable(Failure::Stopping.into())
}

/// Sends one request after the other.
struct Caller {
    waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    connection: Arc<Supervised<RespConnection>>,
    wait_max: Duration,
}

impl Caller {
    async fn run(self) {
        while let Some(calls) = self.take().await {
            let mut left = Left { calls, unknown: false };
            while !left.calls.is_empty() {
                left = self.send(left).await;
            }
        }
    }

    /// Takes what waits, up to the bounds of a request.
    async fn take(&self) -> Option<Vec<Waiting>> {
        let mut waiting = self.waiting.lock().await;
        let mut calls = Vec::new();
        let (mut request_bytes, mut replies_bytes) = (0, 0);
        let mut next = Some(waiting.recv().await?);
        while let Some(one) = next {
            if one.since.elapsed() > self.wait_max {
                (one.taker)(None, Err(StorageError::Unavailable(Failure::Expired.into())));
            } else {
                request_bytes += one.call.shared.len_bytes() + one.call.own.len_bytes();
                replies_bytes += one.call.expected;
                calls.push(one);
            }
            let is_full = calls.len() >= CALLS_PER_REQUEST
                || request_bytes >= REQUEST_BYTES
                || replies_bytes >= REPLIES_BYTES;
            next = if is_full { None } else { waiting.try_recv().ok() };
        }
        Some(calls)
    }

    /// Sends calls and gives out their replies; returns those that have none yet. At least one of those that are one call
    /// has one then, unless their script was not known.
    async fn send(&self, Left { calls, unknown: loads }: Left) -> Left {
        let mut request = Request::default();
        let mut bounds = Bounds { bytes: REPLY_BYTES, elements: REPLY_ELEMENTS, pass_over: true };
        let mut loaded: Vec<&'static Script> = Vec::new();
        if loads {
            for waiting in &calls {
                let script = waiting.call.script;
                if !loaded.iter().any(|known| std::ptr::eq(*known, script)) {
                    request.add(&[b"SCRIPT", b"LOAD", script.text().as_bytes()]);
                    loaded.push(script);
                }
            }
        }
        for Waiting { call, .. } in &calls {
            bounds.bytes += call.bytes;
            bounds.elements += call.elements;
        }
        let groups = joined(&calls);
        write(&calls, &groups, &mut request);
        request.bound(bounds);
        let effect = if calls.iter().any(|waiting| waiting.call.effect == Effect::Write) {
            Effect::Write
        } else {
            Effect::Read
        };
        let sent_at = Some(Instant::now());
        let replies = match self.connection.exchange(&request, effect).await {
            Ok(replies) => replies,
            Err(error) => {
                for waiting in calls {
                    (waiting.taker)(sent_at, Err(same(&error)));
                }
                return Left::default();
            }
        };
        let mut replies = replies.iter();
        let not_loaded = replies.by_ref().take(loaded.len()).find_map(|reply| reply.error());
        let replies = replies_of(&calls, &groups, replies);
        let mut left = Left::default();
        for (waiting, reply) in calls.into_iter().zip(replies) {
            let reply = match reply {
                Replied::With(reply) => reply,
                Replied::Later => {
                    left.calls.push(waiting);
                    continue;
                }
                Replied::Never => {
                    (waiting.taker)(sent_at, Err(unexpected("EVALSHA", waiting.call.effect)));
                    continue;
                }
            };
            match reply.error() {
                Some(text) if text.starts_with("NOSCRIPT") && !loads => {
                    left.unknown = true;
                    left.calls.push(waiting);
                }
                Some(text) if text.starts_with("NOSCRIPT") => {
                    let cause = Failure::NoScripts(not_loaded.clone().unwrap_or(text)).into();
                    (waiting.taker)(sent_at, Err(StorageError::Unavailable(cause)));
                }
                Some(text) => {
                    if refuses_writes(&text) {
                        self.connection.suspect();
                    }
                    (waiting.taker)(sent_at, Err(of_reply(text)));
                }
                None => (waiting.taker)(sent_at, Ok(reply)),
            }
        }
        left
    }
}
