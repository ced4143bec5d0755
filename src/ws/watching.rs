//! What one connection watches: keys of buckets, and members of rooms.
//!
//! Each watch makes its next step when what it has told before is written, so a slow client costs its cursors here, too;
//! and of all watches of a connection one at a time takes a part of a snapshot. It must not know frames.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use tidemill_proto::watched::WatchedKind;
use tidemill_proto::{MessageId, Problem};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::requests::{Watch, WatchTarget};
use super::told::Told;
use crate::relay::{
    Failure, Gate, Held, Item, KeyWatch, LiveMessage, NoOutlet, SNAPSHOT_RETRY, SNAPSHOTS_MAX, SnapshotPart,
    StepPlace, TOO_FAST, TakeLimit, change_of,
};

/// Most keys or changes that one watch tells at once.
const TOLD_AT_ONCE: usize = 256;

type Step = Pin<Box<dyn Future<Output = (Arc<str>, Stepped)> + Send>>;

/// What came of a step, with the watch, if it goes on.
type Stepped = (Outcome, Option<Box<Watcher>>);

enum Outcome {
    Began,
    Told(Vec<Told>, Vec<Held>),
    Refused(Failure),
    Ended(String),
}

/// What came.
pub(super) enum Come {
    /// It is watched from now on.
    Began { reference: Option<String>, name: Arc<str> },
    /// Something is told. What is held is kept until it is written.
    Told { name: Arc<str>, kind: WatchedKind, told: Vec<Told>, held: Vec<Held> },
    /// The watch could not begin.
    Refused { reference: Option<String>, failure: Failure },
    /// The watch cannot go on.
    Ended { name: Arc<str>, cursor: Option<MessageId>, reason: String },
}

/// The question that has a watch begin.
pub(super) struct Asked {
    pub(super) reference: Option<String>,
}

/// A watch that was ended by its client.
pub(super) struct Unwatched {
    /// The question for it, if that was not answered.
    pub(super) asked: Option<Asked>,
    /// Where to go on.
    pub(super) cursor: Option<MessageId>,
}

/// The watches of a connection.
pub(super) struct Watching {
    gate: Gate,
    bytes_max: usize,
    bookmark_every: Duration,
    watches: HashMap<Arc<str>, Standing>,
    steps: FuturesUnordered<Abortable<Step>>,
    /// Whose turn it is to take a part of a snapshot.
    turns: Arc<Semaphore>,
}

/// Where a watch stands.
struct Standing {
    kind: WatchedKind,
    /// Which question is answered when it has begun, until then.
    asked: Option<Asked>,
    /// The last id that was told of it.
    cursor: Option<MessageId>,
    abort: AbortHandle,
}

impl Watching {
    /// Returns those of a connection that is told so many bytes at once, of each watch.
    pub(super) fn new(gate: &Gate, bytes_max: usize, bookmark_every: Duration) -> Self {
        Self {
            gate: gate.clone(),
            bytes_max,
            bookmark_every,
            watches: HashMap::new(),
            steps: FuturesUnordered::new(),
            turns: Arc::new(Semaphore::new(1)),
        }
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Watches something. What comes of it is told by [`next`](Self::next).
    ///
    /// # Errors
    /// The name is in use, or the caller may not.
    pub(super) fn watch(&mut self, asked: Watch) -> Result<(), Failure> {
        let Watch { reference, name, target, cursor } = asked;
        if self.watches.contains_key(&*name) {
            let rule =
                "is the name of another watch of this connection; write another, or `unwatch` that one";
            return Err(Problem::field("watch", rule).into());
        }
        let watch = match target {
            WatchTarget::Keys(bucket, scope) => self.gate.watch_keys(&bucket, scope)?,
            WatchTarget::Room(room) => self.gate.watch_room(&room)?,
        };
        let name: Arc<str> = name.into();
        let kind = watch.kind();
        let watcher = Watcher {
            watch,
            limit: TakeLimit { items: TOLD_AT_ONCE, bytes: self.bytes_max },
            bookmark_every: self.bookmark_every,
            turns: self.turns.clone(),
            stage: Stage::First(cursor),
            torn: 0,
            place: StepPlace::default(),
            told_at: Instant::now(),
        };
        let (abort, _) = AbortHandle::new_pair();
        self.watches.insert(name.clone(), Standing { kind, asked: Some(Asked { reference }), cursor, abort });
        self.go_on(name, Box::new(watcher));
        Ok(())
    }

    /// Ends a watch, if there is one of this name.
    pub(super) fn unwatch(&mut self, name: &str) -> Option<Unwatched> {
        let Standing { asked, cursor, abort, .. } = self.watches.remove(name)?;
        abort.abort();
        Some(Unwatched { asked, cursor })
    }

    /// Waits for what comes first; for ever where nothing is watched.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Come {
        std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(stepped)) = self.steps.poll_next_unpin(cx) {
                // A watch that was ended has nothing to tell.
                if let Ok((name, stepped)) = stepped
                    && let Some(come) = self.take(name, stepped)
                {
                    return Poll::Ready(come);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes what came of a step.
    fn take(&mut self, name: Arc<str>, (outcome, watcher): Stepped) -> Option<Come> {
        let standing = self.watches.get_mut(&name)?;
        let mut reference = || standing.asked.take().and_then(|asked| asked.reference);
        let come = match outcome {
            Outcome::Began => Come::Began { reference: reference(), name: name.clone() },
            Outcome::Told(told, held) => {
                standing.cursor = told.iter().fold(standing.cursor, cursor_behind);
                Come::Told { name: name.clone(), kind: standing.kind, told, held }
            }
            Outcome::Refused(failure) => Come::Refused { reference: reference(), failure },
            Outcome::Ended(reason) => Come::Ended { name: name.clone(), cursor: standing.cursor, reason },
        };
        match watcher {
            Some(watcher) => self.go_on(name, watcher),
            None => drop(self.watches.remove(&name)),
        }
        Some(come)
    }

    /// Has a watch make its next step.
    fn go_on(&mut self, name: Arc<str>, watcher: Box<Watcher>) {
        let Some(standing) = self.watches.get_mut(&name) else { return };
        let (abort, aborted) = AbortHandle::new_pair();
        standing.abort = abort;
        let step: Step = Box::pin(async move { (name, watcher.step().await) });
        self.steps.push(Abortable::new(step, aborted));
    }
}

/// Returns where to go on behind what is told.
fn cursor_behind(cursor: Option<MessageId>, told: &Told) -> Option<MessageId> {
    match told {
        Told::Entry(_) | Told::Early(_) => cursor,
        Told::Change(message) if change_of(message).is_some_and(|logged| logged.more) => cursor,
        Told::Change(message) => Some(message.id()),
        Told::Synced(id) | Told::Bookmark(id) => Some(*id),
        Told::Reset => None,
    }
}

/// One watch.
struct Watcher {
    watch: KeyWatch<NoOutlet>,
    limit: TakeLimit,
    bookmark_every: Duration,
    turns: Arc<Semaphore>,
    stage: Stage,
    /// How many snapshots in a row have come to nothing.
    torn: usize,
    place: StepPlace,
    /// When something was told last.
    told_at: Instant,
}

/// What a watch does next.
enum Stage {
    /// It begins; behind this id, or with a snapshot.
    First(Option<MessageId>),
    /// It begins a snapshot anew.
    Anew,
    /// It takes a part of a snapshot.
    Snapshot,
    /// It waits for changes.
    Changes,
    /// Nothing: its snapshots come to nothing.
    Over,
}

impl Watcher {
    /// Makes the next step.
    async fn step(mut self: Box<Self>) -> Stepped {
        if let Stage::First(cursor) = self.stage {
            return match self.begin(cursor).await {
                Ok(()) => (Outcome::Began, Some(self)),
                Err(failure) => (Outcome::Refused(failure), None),
            };
        }
        let mut wait = SNAPSHOT_RETRY[0];
        loop {
            match self.tell().await {
                Ok(_) if matches!(self.stage, Stage::Over) => return (Outcome::Ended(TOO_FAST.into()), None),
                Ok((told, held)) => {
                    self.told_at = Instant::now();
                    return (Outcome::Told(told, held), Some(self));
                }
                Err(failure) if failure.problem().retryable => {
                    sleep(wait).await;
                    wait = (wait * 2).min(SNAPSHOT_RETRY[1]);
                }
                Err(failure) => return (Outcome::Ended(failure.problem().detail.clone()), None),
            }
        }
    }

    async fn begin(&mut self, cursor: Option<MessageId>) -> Result<(), Failure> {
        self.stage = if let Some(after) = cursor {
            self.watch.resume(after).await?;
            Stage::Changes
        } else {
            self.watch.begin().await?;
            Stage::Snapshot
        };
        Ok(())
    }

    /// Returns what is told next.
    async fn tell(&mut self) -> Result<(Vec<Told>, Vec<Held>), Failure> {
        if matches!(self.stage, Stage::Changes) {
            return Ok(self.tell_changes().await);
        }
        // It is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok().map(|turn| Arc::new(turn) as Held);
        if matches!(self.stage, Stage::Anew) {
            self.begin(None).await?;
        }
        let (told, held): (Vec<_>, _) = match self.watch.next_part(self.limit).await? {
            SnapshotPart::Page(entries, held) => (entries.into_iter().map(Told::Entry).collect(), held),
            SnapshotPart::Changes(changes) => (changes.into_iter().map(Told::Early).collect(), None),
            SnapshotPart::Torn => {
                self.torn += 1;
                self.stage = if self.torn > SNAPSHOTS_MAX { Stage::Over } else { Stage::Anew };
                (vec![Told::Reset], None)
            }
            SnapshotPart::Whole => {
                (self.torn, self.stage, self.place) = (0, Stage::Changes, StepPlace::default());
                (vec![Told::Synced(self.watch.cursor())], None)
            }
        };
        Ok((told, turn.into_iter().chain(held).collect()))
    }

    async fn tell_changes(&mut self) -> (Vec<Told>, Vec<Held>) {
        loop {
            let taken =
                timeout_at(self.told_at + self.bookmark_every, self.watch.reader().next_counted(self.limit));
            let Ok((items, held)) = taken.await else {
                self.told_at = Instant::now();
                if self.place.is_within() {
                    continue;
                }
                return (vec![Told::Bookmark(self.watch.cursor())], Vec::new());
            };
            let mut told = Vec::with_capacity(items.len());
            for item in items {
                match item {
                    Item::Message(message) => self.tell_change(message, &mut told),
                    Item::Gap(_) => {
                        self.stage = Stage::Anew;
                        told.push(Told::Reset);
                        break;
                    }
                    Item::Closed(_) | Item::Bookmark(..) => {}
                }
            }
            if !told.is_empty() {
                return (told, held.into_iter().collect());
            }
            // However much there is that it does not watch, others have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Adds a change, if it is one of those that are watched; where a step ends with another, the place behind it.
    fn tell_change(&mut self, message: Arc<LiveMessage>, told: &mut Vec<Told>) {
        let Some(logged) = change_of(&message) else { return };
        let is_watched = self.watch.scope().has(logged.key);
        if self.place.pass(&logged, is_watched) {
            told.push(Told::Bookmark(message.id()));
        } else if is_watched {
            told.push(Told::Change(message));
        }
    }
}
