//! Sessions: what callers have open now (WebSockets, streams, long-polls), so that it can be ended, by
//! caller or all together while the node drains.
//!
//! It must not know what a session does.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::Timestamp;
use tidemill_proto::sessions::SessionKind;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Caller;
use super::token::TokenId;
use super::turns::Turns;
use crate::chance::Share;

/// The sessions of a node that are open now. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Cancelled when the node drains; the token of each session is a child of it.
    draining: CancellationToken,
    /// Over how many milliseconds goodbyes are spread then.
    spread_ms: AtomicU64,
    /// Cancelled when the node is about to end: goodbyes are spread over what there is left.
    ending: CancellationToken,
    open: Mutex<Open>,
    turns: Turns,
    /// Whether it cannot be told now who may go on.
    is_away: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    /// The number of the next session.
    next: u64,
    by_caller: HashMap<Caller, HashMap<u64, Entered>>,
    /// The tickets that something is opened with: who holds each, as whom, and since when.
    tickets: HashMap<TokenId, (u64, Caller, Instant)>,
}

/// A session, as the registry has it.
#[derive(Clone, Debug)]
struct Entered {
    over: CancellationToken,
    facts: Arc<Facts>,
}

/// How a session was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// What it is.
    pub kind: SessionKind,
    /// From where, if that is known.
    pub address: Option<IpAddr>,
    /// When.
    pub since: Timestamp,
}

impl Opening {
    /// Returns how a session is opened that no client has: what the node reads for itself.
    pub(crate) const fn by_the_node() -> Self {
        Self { kind: SessionKind::Stream, address: None, since: Timestamp::from_millis(0) }
    }
}

/// What is known of a session as long as it is open.
#[derive(Debug)]
struct Facts {
    opening: Opening,
    /// Why it was ended: `COMES_AGAIN` or `CUT`, else 0.
    why: AtomicU8,
    /// How many topics and patterns it reads.
    topics: AtomicU32,
    /// The time of the message that it was given last, in milliseconds; 0 while it has everything.
    read_up_to: AtomicU64,
}

/// What ends a session, beside its own end: its client may come again at once, and who may do what was in doubt, or
/// somebody who administers the relay wanted it.
const COMES_AGAIN: u8 = 1;
const CUT: u8 = 2;

/// A session that is open, as it is shown.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// Its number on this node.
    pub number: u64,
    /// Whose it is.
    pub caller: Caller,
    /// How it was opened.
    pub opening: Opening,
    /// How many topics and patterns it reads.
    pub topics: u32,
    /// The time of the message that it was given last, in milliseconds; `None` while it has everything.
    pub read_up_to: Option<u64>,
}

/// How long a session may take to begin after its ticket was taken.
const BEGINS_WITHIN: Duration = Duration::from_mins(1);

/// One session, taken out of the registry when dropped.
#[derive(Debug)]
pub struct Session {
    number: u64,
    caller: Caller,
    over: CancellationToken,
    facts: Arc<Facts>,
    sessions: Sessions,
    /// What it keeps from others as long as it is open.
    kept: Option<Arc<dyn Any + Send + Sync>>,
}

/// Why a session is to end, before its client ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The node drains: the client goes on elsewhere.
    Draining,
    /// The session was ended: the client may not go on as it is.
    Ended,
    /// It cannot be told now whether the client may go on: it comes again.
    Unknown,
    /// Somebody who administers the relay ended it: the client may come again.
    Cut,
}

impl Leave {
    /// Returns the last word to the client, in a sentence.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Draining => "the relay is shutting down; resume from the cursors",
            Self::Ended => "revoked",
            Self::Cut => "ended by who administers the relay; resume from the cursors",
            Self::Unknown => "who may do what cannot be looked up now; resume from the cursors",
        }
    }
}

impl Sessions {
    /// Returns a registry without sessions; all of them are to leave once `draining` is cancelled.
    #[must_use]
    pub fn new(draining: CancellationToken) -> Self {
        let (spread_ms, ending, open, turns, is_away) = Default::default();
        Self(Arc::new(Inner { draining, spread_ms, ending, open, turns, is_away }))
    }

    /// Has goodbyes spread over this time once the node drains.
    pub fn spread_over(&self, spread: Duration) {
        let spread_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.0.spread_ms.store(spread_ms, Ordering::Release);
    }

    /// Has goodbyes that are not said yet spread over this time from now on, as the node ends.
    pub fn end_within(&self, spread: Duration) {
        self.spread_over(spread);
        self.0.ending.cancel();
    }

    /// Enters a session. It is over at once where its caller has come with a ticket that somebody else has come with
    /// since.
    #[must_use]
    pub fn open(&self, caller: &Caller, opening: Opening) -> Session {
        let over = self.0.draining.child_token();
        let mut open = self.0.open.lock();
        let holds = |id: &TokenId| open.tickets.get(id).is_some_and(|(_, holder, _)| holder == caller);
        if !caller.ticket().as_ref().is_none_or(holds) {
            over.cancel();
        }
        let number = open.next;
        open.next += 1;
        let (why, topics, read_up_to) = Default::default();
        let facts = Arc::new(Facts { opening, why, topics, read_up_to });
        let entered = Entered { over: over.clone(), facts: facts.clone() };
        open.by_caller.entry(caller.clone()).or_default().insert(number, entered);
        drop(open);
        Session { number, caller: caller.clone(), over, facts, sessions: self.clone(), kept: None }
    }

    /// Ends all sessions that a caller has open now, and returns how many.
    #[expect(clippy::must_use_candidate, reason = "sessions end, whether or not somebody counts them")]
    pub fn end(&self, caller: &Caller) -> usize {
        self.end_of(|other| other == caller)
    }

    /// Notes whether it can be told who may go on: it is what sessions are told that end from now on.
    pub(super) fn note_away(&self, is_away: bool) {
        self.0.is_away.store(is_away, Ordering::Release);
    }

    /// Ends all sessions of those callers, and returns how many.
    pub(super) fn end_of(&self, is_over: impl Fn(&Caller) -> bool) -> usize {
        let over: Vec<_> = {
            let open = self.0.open.lock();
            let over = open.by_caller.iter().filter(|(caller, _)| is_over(caller));
            over.flat_map(|(_, sessions)| sessions.values().map(|session| session.over.clone())).collect()
        };
        // Outside the lock: who is woken here may leave at once.
        over.iter().for_each(CancellationToken::cancel);
        over.len()
    }

    /// Waits until nobody else comes with this ticket: whoever comes last in the storage is to be noted last here.
    pub(super) async fn ticket_turn(&self, id: TokenId) -> MutexGuard<'_, ()> {
        self.0.turns.of(id).await
    }

    /// Notes that something is opened with a ticket, and returns whose turn is over with that.
    pub(super) fn note_ticket(&self, id: TokenId, holder: u64, caller: &Caller) -> Option<Caller> {
        let entry = (holder, caller.clone(), Instant::now());
        self.0.open.lock().tickets.insert(id, entry).map(|(_, before, _)| before)
    }

    /// Returns the tickets that something is open with, and who holds each here.
    pub(super) fn tickets(&self) -> Vec<(TokenId, u64)> {
        let now = Instant::now();
        let Open { by_caller, tickets, .. } = &mut *self.0.open.lock();
        tickets.retain(|_, (_, caller, since)| {
            now.duration_since(*since) < BEGINS_WITHIN || by_caller.contains_key(caller)
        });
        tickets.iter().map(|(id, (holder, ..))| (*id, *holder)).collect()
    }

    /// Forgets a ticket that this one holds, and returns as whom.
    pub(super) fn forget_ticket(&self, id: TokenId, holder: u64) -> Option<Caller> {
        let tickets = &mut self.0.open.lock().tickets;
        let is_held = tickets.get(&id).is_some_and(|(of, ..)| *of == holder);
        if is_held { tickets.remove(&id).map(|(_, caller, _)| caller) } else { None }
    }

    /// Whether the node drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Waits until the node drains: what only waits for something is answered then.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Returns those that are open with a number behind this one, in the order of their numbers, at most `limit`.
    #[must_use]
    pub fn list(&self, after: Option<u64>, limit: usize) -> Vec<OpenSession> {
        let mut found: Vec<_> = {
            let open = self.0.open.lock();
            let all = open
                .by_caller
                .iter()
                .flat_map(|(caller, sessions)| sessions.iter().map(move |it| (caller, it)));
            let behind = all.filter(|(_, (number, _))| after.is_none_or(|after| **number > after));
            behind.map(|(caller, (number, it))| (*number, caller.clone(), it.facts.clone())).collect()
        };
        found.sort_unstable_by_key(|(number, ..)| *number);
        found.truncate(limit);
        let shown = |(number, caller, facts): (u64, Caller, Arc<Facts>)| OpenSession {
            number,
            caller,
            opening: facts.opening,
            topics: facts.topics.load(Ordering::Relaxed),
            read_up_to: Some(facts.read_up_to.load(Ordering::Relaxed)).filter(|at| *at > 0),
        };
        found.into_iter().map(shown).collect()
    }

    /// Ends the session with this number: its client may come again. Returns whose it was, or `None` where there is none.
    #[expect(clippy::must_use_candidate, reason = "it ends, whoever wants to know whose it was")]
    pub fn cut(&self, number: u64) -> Option<Caller> {
        let found = {
            let open = self.0.open.lock();
            let mut all = open.by_caller.iter();
            all.find_map(|(caller, sessions)| Some((caller.clone(), sessions.get(&number)?.clone())))
        };
        let (caller, Entered { over, facts }) = found?;
        facts.why.store(CUT, Ordering::Release);
        over.cancel();
        Some(caller)
    }

    /// Returns how many sessions are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.open.lock().by_caller.values().map(HashMap::len).sum()
    }
}

impl Session {
    /// Returns the session, which keeps this until it ends.
    #[must_use]
    pub fn keeping(mut self, kept: Arc<dyn Any + Send + Sync>) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Returns whose session it is.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Ends it: its client may not go on as it is.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// Notes that it reads a topic or a pattern more.
    pub fn reads_more(&self) {
        self.facts.topics.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that it reads a topic or a pattern less.
    pub fn reads_less(&self) {
        self.facts.topics.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that it has everything.
    pub fn has_all(&self) {
        self.facts.read_up_to.store(0, Ordering::Relaxed);
    }

    /// Notes the time of the message that it was given last, in milliseconds, and that there may be more.
    pub fn has_up_to(&self, milliseconds: u64) {
        self.facts.read_up_to.store(milliseconds, Ordering::Relaxed);
    }

    /// Ends it: its client may come again at once.
    pub fn end_for_now(&self) {
        self.facts.why.store(COMES_AGAIN, Ordering::Release);
        self.over.cancel();
    }

    /// Returns its number on this node, and what ends it: cancelled, too, once it has ended.
    #[must_use]
    pub fn ender(&self) -> (u64, CancellationToken) {
        (self.number, self.over.clone())
    }

    /// Returns what is ready when the session is to end: at once where it is ended; while the node drains
    /// at a random moment of the time over which goodbyes are spread, so that clients do not all come to the
    /// next node at the same time.
    #[must_use]
    pub fn farewell(&self) -> Farewell {
        Farewell {
            over: Some(Box::pin(self.over.clone().cancelled_owned())),
            facts: self.facts.clone(),
            sessions: self.sessions.clone(),
            share: Share::random(),
            wait: None,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut open = self.sessions.0.open.lock();
        if let Some(sessions) = open.by_caller.get_mut(&self.caller) {
            sessions.remove(&self.number);
            if sessions.is_empty() {
                open.by_caller.remove(&self.caller);
            }
        }
        drop(open);
        // Frees its place among the children of the node's token.
        self.over.cancel();
    }
}

/// Ready when a session is to end.
#[derive(Debug)]
pub struct Farewell {
    /// `None` once it was told.
    over: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    facts: Arc<Facts>,
    sessions: Sessions,
    /// Which part of the spread it waits.
    share: Share,
    wait: Option<Wait>,
}

/// The wait for one's turn to leave.
#[derive(Debug)]
struct Wait {
    turn: Pin<Box<Sleep>>,
    /// When the node is about to end, and the turn comes earlier; `None` once it is.
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Farewell {
    fn turn(&self) -> Pin<Box<Sleep>> {
        let spread = Duration::from_millis(self.sessions.0.spread_ms.load(Ordering::Acquire));
        Box::pin(sleep(self.share.of(spread)))
    }

    /// Returns whether it waits, and the node is about to end since it was asked last.
    fn is_hurried(&mut self, cx: &mut Context<'_>) -> bool {
        let ending = self.wait.as_mut().and_then(|wait| wait.ending.as_mut());
        ending.is_some_and(|ending| ending.as_mut().poll(cx).is_ready())
    }
}

impl Future for Farewell {
    type Output = Leave;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Leave> {
        if let Some(over) = &mut self.over {
            ready!(over.as_mut().poll(cx));
            self.over = None;
            if self.sessions.0.draining.is_cancelled() {
                let ending = Some(Box::pin(self.sessions.0.ending.clone().cancelled_owned()));
                self.wait = Some(Wait { turn: self.turn(), ending });
            }
        }
        if self.is_hurried(cx) {
            let turn = self.turn();
            self.wait = Some(Wait { turn, ending: None });
        }
        let why = self.facts.why.load(Ordering::Acquire);
        let is_away = self.sessions.0.is_away.load(Ordering::Acquire) || why == COMES_AGAIN;
        match &mut self.wait {
            Some(wait) => wait.turn.as_mut().poll(cx).map(|()| Leave::Draining),
            None if why == CUT => Poll::Ready(Leave::Cut),
            None if is_away => Poll::Ready(Leave::Unknown),
            None => Poll::Ready(Leave::Ended),
        }
    }
}

#[cfg(test)]
mod tests;
