//! Watching keys: a snapshot of what there is, and every change from there on.
//!
//! Whoever watches stands in the log of the bucket before the snapshot is taken, page by page, and reads on from there
//! behind it. A change that a page had already is passed over: each key's newest revision in the pages is remembered, if it
//! is later than the place in the log, and nothing else has to be. At the end of the log as it was when the last page was
//! taken, what was given out is what the bucket had at that moment.
//!
//! It must not know how keys and changes are written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::sessions::SessionKind;
use tidemill_proto::watched::{ChangeRef, LoggedKind, WatchedKind};
use tidemill_proto::{BucketName, Cursor, KeyName, MessageId, PayloadRef, Problem, Since, TopicName};
use tokio::sync::Semaphore;

use super::live::{Begun, Held, Item, LiveMessage, LiveReader, Outlet, TakeLimit};
use super::{Failure, Gate};
use crate::access::{Kind, Verb};
use crate::features::Feature;
use crate::storage::{KeyEntry, KeyRange, LoggedRef, StorageError};

/// Keys of one page of a snapshot.
const PAGE_KEYS: usize = 500;
/// Bytes of values of one page, about.
const PAGE_BYTES: usize = 128 * 1024;
/// Pages that are on their way to clients at one time, over a node: what a page holds lies in memory until it is written.
const PAGES_MAX: usize = 64;

/// How long to wait before the storage is asked again for a snapshot that it did not give: at first, and at most.
pub const SNAPSHOT_RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// How often a snapshot is taken anew because its log was trimmed meanwhile, before it is given up.
pub const SNAPSHOTS_MAX: usize = 5;
/// Why it is.
pub const TOO_FAST: &str = "the bucket changes faster than it can be read; try again with a longer prefix";

/// The pages that are on their way to clients.
#[derive(Debug)]
pub(super) struct Snapshots(Arc<Semaphore>);

impl Default for Snapshots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PAGES_MAX)))
    }
}

/// Which keys of a bucket are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// One.
    Key(KeyName),
    /// Those whose names begin so; all where that is empty.
    Prefix(Box<str>),
}

impl WatchScope {
    /// Returns whether a key is one of them.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        match self {
            Self::Key(only) => only.as_str() == key,
            Self::Prefix(prefix) => key.starts_with(&**prefix),
        }
    }

    /// Returns whether every key is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }
}

/// Keys that are watched by one reader.
pub struct KeyWatch<O: Outlet> {
    gate: Gate,
    kind: WatchedKind,
    bucket: BucketName,
    log: TopicName,
    scope: WatchScope,
    reader: LiveReader<O>,
    /// The newest revisions that pages had, of keys that have changed since the reader stood in the log.
    seen: HashMap<KeyName, MessageId>,
    /// Where the reader stood in the log before the first page.
    from: MessageId,
    /// How much of the snapshot is taken.
    stage: Stage,
}

/// How much of a snapshot is taken.
#[derive(Debug)]
enum Stage {
    /// The pages up to behind this key.
    Pages(Option<KeyName>),
    /// All pages.
    AllPages,
    /// All pages, and of what has changed meanwhile that up to the cursor, which ends with this change, or behind it
    /// where more of the same step follow.
    Changes { end: MessageId, is_open: bool },
}

impl<O: Outlet> std::fmt::Debug for KeyWatch<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyWatch")
            .field("bucket", &self.bucket)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A part of a snapshot, in the order in which they come.
#[derive(Debug)]
pub enum SnapshotPart {
    /// A page of keys with their values; what is held is their place among the pages that are on their way, to be kept
    /// until they are written.
    Page(Vec<KeyEntry>, Option<Held>),
    /// What has changed since, of what is watched.
    Changes(Vec<Arc<LiveMessage>>),
    /// It is whole: what comes next are changes.
    Whole,
    /// It cannot become whole: the log was trimmed, or is another one.
    Torn,
}

impl Gate {
    /// Watches keys of a bucket, which need not exist.
    ///
    /// # Errors
    /// The caller may not read all of them, or keys are switched off.
    pub fn watch_keys<O: Outlet>(
        &self,
        bucket: &BucketName,
        scope: WatchScope,
    ) -> Result<KeyWatch<O>, Failure> {
        if !self.relay().options.features.has(Feature::Keys) {
            let rule = "is of buckets, which are switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `keys`)";
            return Err(Problem::field("bucket", rule).into());
        }
        match &scope {
            WatchScope::Key(key) => {
                self.caller().check_named(Verb::Read, Kind::Key, &[bucket.as_str(), key.as_str()])?;
            }
            WatchScope::Prefix(prefix) => {
                self.caller().check_each(Verb::Read, Kind::Key, &[bucket.as_str(), prefix])?;
            }
        }
        Ok(KeyWatch::new(self, WatchedKind::Keys, bucket, scope))
    }
}

impl<O: Outlet> KeyWatch<O> {
    /// Returns a watch of keys that the caller may read.
    pub(super) fn new(gate: &Gate, kind: WatchedKind, bucket: &BucketName, scope: WatchScope) -> Self {
        Self {
            gate: gate.clone(),
            kind,
            bucket: bucket.clone(),
            log: TopicName::log_of(bucket),
            scope,
            reader: gate.live_reader(SessionKind::Watch),
            seen: HashMap::new(),
            from: MessageId::MIN,
            stage: Stage::Pages(None),
        }
    }

    /// Returns what is watched.
    #[must_use]
    pub const fn kind(&self) -> WatchedKind {
        self.kind
    }

    /// Returns which keys are watched.
    #[must_use]
    pub const fn scope(&self) -> &WatchScope {
        &self.scope
    }

    /// Returns what reads the log.
    pub const fn reader(&mut self) -> &mut LiveReader<O> {
        &mut self.reader
    }

    /// Returns up to where the log was read.
    #[must_use]
    pub fn cursor(&self) -> MessageId {
        self.reader.cursor(&self.log).unwrap_or(MessageId::MIN)
    }

    /// Goes on behind a change that the client has dealt with, without a snapshot.
    ///
    /// # Errors
    /// As many topics are read live as may be, or the storage did not answer.
    pub async fn resume(&mut self, after: MessageId) -> Result<(), Failure> {
        self.seen.clear();
        self.reader.add_log(&self.bucket, Since::Cursor(Cursor::After(after))).await.map(drop)
    }

    /// Begins a snapshot: from here on no change is missed.
    ///
    /// # Errors
    /// As many topics are read live as may be, or the storage did not answer.
    pub async fn begin(&mut self) -> Result<(), Failure> {
        self.seen.clear();
        self.stage = Stage::Pages(None);
        let Begun { cursor, .. } = self.reader.add_log(&self.bucket, Since::Cursor(Cursor::Latest)).await?;
        self.from = cursor;
        Ok(())
    }

    /// Returns the next part of a snapshot that was begun. A page waits for its turn; of changes there are no more than
    /// the limit says.
    ///
    /// # Errors
    /// The storage did not answer; asked again, it goes on where it was.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn next_part(&mut self, limit: TakeLimit) -> Result<SnapshotPart, Failure> {
        loop {
            match &self.stage {
                Stage::Pages(after) => return self.page(after.clone()).await,
                Stage::AllPages => {
                    let end = self.end().await?;
                    self.stage = Stage::Changes { end, is_open: false };
                }
                Stage::Changes { end, is_open } if *is_open || self.cursor() < *end => {
                    let end = *end;
                    let items = self.reader.next(limit).await;
                    self.stage = Stage::Changes { end, is_open: is_within_a_step(&items) };
                    if items.iter().any(|item| matches!(item, Item::Gap(_))) {
                        return Ok(SnapshotPart::Torn);
                    }
                    let changes = items.into_iter().filter_map(|item| match item {
                        Item::Message(message) => Some(message),
                        Item::Gap(_) | Item::Closed(_) | Item::Bookmark(..) => None,
                    });
                    let unseen = changes.filter(|message| self.is_unseen(message)).collect();
                    return Ok(SnapshotPart::Changes(unseen));
                }
                Stage::Changes { .. } => {
                    // All of it was passed.
                    self.seen = HashMap::new();
                    return Ok(SnapshotPart::Whole);
                }
            }
        }
    }

    async fn page(&mut self, after: Option<KeyName>) -> Result<SnapshotPart, Failure> {
        let turns = self.gate.relay().snapshots.0.clone();
        // It is never closed.
        let turn = turns.acquire_owned().await.ok().map(|turn| Arc::new(turn) as Held);
        let buckets = &self.gate.relay().storage.buckets;
        let (entries, next) = match &self.scope {
            WatchScope::Key(key) => {
                let entry = buckets.key(&self.bucket, key, true).await;
                (entry.map_err(|error| Failure::read(error, None))?.into_iter().collect(), None)
            }
            WatchScope::Prefix(prefix) => {
                let range = KeyRange {
                    prefix: prefix.clone(),
                    after,
                    limit: PAGE_KEYS,
                    bytes_max: PAGE_BYTES,
                    values: true,
                };
                match buckets.list_keys(&self.bucket, range).await {
                    Ok(page) => (page.entries, page.next),
                    Err(StorageError::NoBucket) => (Vec::new(), None),
                    Err(error) => return Err(Failure::read(error, None)),
                }
            }
        };
        for entry in entries.iter().filter(|entry| entry.revision > self.from) {
            self.seen.insert(entry.key.clone(), entry.revision);
        }
        self.stage = next.map_or(Stage::AllPages, |next| Stage::Pages(Some(next)));
        Ok(SnapshotPart::Page(entries, turn))
    }

    /// Returns the end of the log as it is now: up to there the snapshot is whole.
    async fn end(&mut self) -> Result<MessageId, Failure> {
        match self.gate.relay().storage.live.tail(&self.log).await {
            Ok(tail) => Ok(tail.last.unwrap_or(MessageId::MIN)),
            Err(StorageError::NoTopic) => Ok(MessageId::MIN),
            Err(error) => Err(Failure::read(error, None)),
        }
    }

    /// Returns whether a change is one of what is watched, and no page had it already, or a later one of its key.
    fn is_unseen(&self, message: &LiveMessage) -> bool {
        change_of(message).is_some_and(|logged| {
            self.scope.has(logged.key) && self.seen.get(logged.key).is_none_or(|seen| message.id() > *seen)
        })
    }
}

/// Returns a key of a snapshot as it is told of something of this kind; `None` of one that was read without its value.
#[must_use]
pub fn told_of_entry(of: WatchedKind, entry: &KeyEntry) -> Option<ChangeRef<'_>> {
    let value = entry.value.as_ref()?;
    let value = PayloadRef { bytes: &value.bytes, content_type: value.content_type.as_deref() };
    let value = entry.is_sound().then_some(value);
    let (key, revision) = (entry.key.as_str(), entry.revision);
    Some(ChangeRef { of, change: LoggedKind::Put, key, revision, value })
}

/// Returns the change that a message of a log tells; `None` of what another program has put there.
#[must_use]
pub fn change_of(message: &LiveMessage) -> Option<LoggedRef<'_>> {
    LoggedRef::read(message.stored().body.metadata.as_deref()?)
}

/// Where whoever tells changes stands among the steps of a log: a client resumes behind steps that are whole alone.
#[derive(Debug, Default)]
pub struct StepPlace {
    /// Whether a change was told of the step that is being told.
    has_told: bool,
    /// Whether more of that step follow.
    is_within: bool,
}

impl StepPlace {
    /// Passes a change, that was told or not. Returns whether a client has to be told where its step ends, since the last
    /// change of it was not told.
    pub const fn pass(&mut self, logged: &LoggedRef<'_>, is_told: bool) -> bool {
        let had_told = self.has_told;
        self.is_within = logged.more;
        self.has_told = self.is_within && (had_told || is_told);
        !self.is_within && had_told && !is_told
    }

    /// Passes what others have told, all of it.
    pub fn pass_told(&mut self, items: &[Item]) {
        self.is_within = is_within_a_step(items);
        self.has_told = self.is_within;
    }

    /// Returns whether more of the same step follow.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.is_within
    }
}

/// Returns whether more changes of the same step follow behind these items.
fn is_within_a_step(items: &[Item]) -> bool {
    match items.last() {
        Some(Item::Message(message)) => change_of(message).is_some_and(|logged| logged.more),
        Some(Item::Gap(_) | Item::Closed(_) | Item::Bookmark(..)) | None => false,
    }
}
