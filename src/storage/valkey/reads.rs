//! Reads: the connections over which entries are read, whose turn it is, and how much may come at once.
//!
//! There are two, because a server writes one reply behind the other: a page of 8 MiB takes a tenth of a
//! second on a link of 1 Gbit/s, and whatever stands behind it waits for as long. So who asks for much at
//! once, as a page over HTTP does, goes over `page`; over `read` go feeds, readers that catch up, single
//! messages, tails and changes, none of which asks for more than [`SMALL_BYTES_MAX`]. Appends have a
//! connection of their own.
//!
//! The server bounds a range in entries, a read is bounded in bytes. So it asks for as many entries as
//! will fit, from what entries of this topic weighed before; and where that was wrong, what comes too much
//! is thrown away as it comes, and fewer are asked for.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill_proto::MessageId;
use tidemill_proto::limits::PAGE_BYTES_MAX;
use tidemill_proto::page::Order;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::entry;
use super::facts::{Asking, Beside, Numbers, Of, Proof, Way};
use super::failure::{Effect, is_no_such_key, of_key, of_reply, unexpected};
use super::keys::{self, sortable};
use super::resp::{Bounds, Parts, REQUESTS_MAX, Replies, Reply, Request, RespConnection, RespError};
use super::supervised::Supervised;
use crate::slow;
use crate::storage::{StorageError, StoredMessage, Tail};

/// Most bytes that a read over the connection for small ones asks for: what a feed reads at once.
pub(super) const SMALL_BYTES_MAX: usize = 1024 * 1024;
/// Reads under way at the same time over one connection: enough to fill it, few enough that what they
/// bring at once stays a bounded part of memory, here and in the server's buffers.
const READS_MAX: usize = 32;
/// Bytes that the reads under way over one connection may bring, as far as is known what entries weigh: some of the
/// largest pages, or as many of the others as there are turns. A page waits for its part before its first entry,
/// and has it until its last, since what has come lies in memory before anybody can count it.
const READS_KIB: usize = 16 * 1024;
/// Questions under way at the same time whose answers are a few numbers.
const QUESTIONS_MAX: usize = 256;
const _: () = assert!(READS_MAX + QUESTIONS_MAX < REQUESTS_MAX);
/// Entries in the first chunk of a read where it is not known what entries weigh in this topic. With
/// payloads of a mebibyte it weighs as much as the largest page; more would be too much for a server that
/// bounds what all clients hold.
const CHUNK_FIRST: usize = PAGE_BYTES_MAX / (1024 * 1024);
/// Most entries in a chunk.
pub(super) const CHUNK_MAX: usize = 1_000;
/// How many times as much as was asked for a chunk may bring: entries differ.
const CHUNK_BYTES_TIMES: usize = 4;
/// Bytes of an entry beside its message: its id, and the names of its fields.
const ENTRY_BYTES: usize = 256;
/// Least bytes that a chunk may bring, however little was asked for.
const CHUNK_BYTES_MIN: usize = 256 * 1024;
/// Most bytes of an entry, and of the one in front of it: twice the largest payload that can be set.
const ENTRY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Bytes of a reply for each of its elements at least, on the whole: what bounds these.
const ELEMENT_BYTES: usize = 8;
/// Most bytes of an entry that weighs little: it may come along with an answer that needs its id alone.
const LIGHT_BYTES_MAX: usize = 4 * 1024;
/// Topics of which it is remembered what their entries weigh; others share a place.
const WEIGHTS: usize = 1_024;

/// One connection for reads.
#[derive(Debug)]
pub(super) struct Reads {
    connection: Arc<Supervised<RespConnection>>,
    turns: Semaphore,
    /// Parts of what reads may bring, in KiB.
    room: Semaphore,
    /// Turns to ask what has a short answer.
    questions: Semaphore,
    timeout: Duration,
    weights: Arc<Weights>,
    asking: Arc<Asking>,
}

/// A range of a stream, from one bound to another, and how much of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) stream: &'a str,
    pub(super) order: Order,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    /// Entries wanted.
    pub(super) count: usize,
    /// Entries more, in front of those that are wanted: that of the cursor.
    pub(super) in_front: usize,
    /// Bytes of messages wanted.
    pub(super) bytes_max: usize,
}

/// What a range has.
#[derive(Debug)]
pub(super) struct FoundEntries {
    pub(super) entries: Vec<StoredMessage>,
    /// Whether there are no more in the range.
    pub(super) is_all: bool,
}

/// What entries weigh, by topic. It is a guess: where it is wrong, a read takes a turn more.
#[derive(Debug)]
pub(super) struct Weights {
    places: Box<[AtomicUsize]>,
    hasher: RandomState,
}

impl Weights {
    pub(super) fn new() -> Self {
        let places = (0..WEIGHTS).map(|_| AtomicUsize::new(0)).collect();
        Self { places, hasher: RandomState::new() }
    }

    fn place(&self, stream: &str) -> &AtomicUsize {
        let place = self.hasher.hash_one(stream) % self.places.len() as u64;
        &self.places[usize::try_from(place).unwrap_or(0)]
    }

    fn of(&self, stream: &str) -> Option<usize> {
        Some(self.place(stream).load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Notes what entries weighed: heavier ones at once, lighter ones bit by bit.
    fn note(&self, stream: &str, bytes: usize) {
        let place = self.place(stream);
        let before = place.load(Ordering::Relaxed);
        let now = bytes.max(before - before / 4).max(1);
        if now != before {
            place.store(now, Ordering::Relaxed);
        }
    }
}

impl Reads {
    pub(super) fn new(
        connection: Arc<Supervised<RespConnection>>,
        timeout: Duration,
        weights: Arc<Weights>,
        asking: Arc<Asking>,
    ) -> Self {
        let (turns, questions) = (Semaphore::new(READS_MAX), Semaphore::new(QUESTIONS_MAX));
        let room = Semaphore::new(READS_KIB);
        Self { connection, turns, room, questions, timeout, weights, asking }
    }

    /// Returns whether entries of a topic are known to weigh little.
    pub(super) fn are_light(&self, stream: &str) -> bool {
        self.weights.of(stream).is_some_and(|bytes| bytes <= LIGHT_BYTES_MAX)
    }

    pub(super) fn connection(&self) -> &Arc<Supervised<RespConnection>> {
        &self.connection
    }

    /// Waits for a part of what reads may bring, for `limit` entries that may weigh so much together.
    ///
    /// # Errors
    /// There was none in time.
    pub(super) async fn room_for(
        &self,
        stream: &str,
        limit: usize,
        bytes_max: usize,
    ) -> Result<SemaphorePermit<'_>, StorageError> {
        let expected = self
            .weights
            .of(stream)
            .map_or(bytes_max, |bytes| limit.saturating_mul(bytes + ENTRY_BYTES).min(bytes_max.max(bytes)));
        let kib = u32::try_from(expected.div_ceil(1024).min(READS_KIB)).unwrap_or(u32::MAX);
        in_time(self.timeout, self.room.acquire_many(kib)).await
    }

    /// Returns how many entries to ask for first, of `limit` that may weigh so much together.
    pub(super) fn first_chunk(&self, stream: &str, limit: usize, bytes_max: usize) -> usize {
        let fitting = self.weights.of(stream).map_or(CHUNK_FIRST, |bytes| bytes_max / bytes);
        limit.min(fitting).clamp(1, CHUNK_MAX)
    }

    /// Reads a range.
    pub(super) async fn range(&self, ask: Ask<'_>) -> Result<FoundEntries, StorageError> {
        let _turn = self.turn().await?;
        let (replies, count) = self.fitting(ask, |request, count| add_range(request, ask, count)).await?;
        self.found(ask, count, replies.iter().next())
    }

    /// Reads a range behind a cursor, and in front of it what proves that nothing of the topic is missing, if it does, and
    /// where messages were lost: it is found without a script, which costs the server several times as much as the range.
    pub(super) async fn range_and_proof(
        &self,
        ask: Ask<'_>,
        of: Of<'_>,
        cursor: MessageId,
    ) -> Result<(FoundEntries, Beside), StorageError> {
        let _turn = self.turn().await?;
        let add = |request: &mut Request, count| {
            Proof::ask(request, of);
            add_range(request, ask, count);
        };
        let (replies, count) = self.fitting(ask, add).await?;
        let mut replies = replies.iter();
        let beside = Proof::read(&mut replies, cursor);
        Ok((self.found(ask, count, replies.next())?, beside))
    }

    /// Reads a range and what the server knows of the topic, one behind the other: what was published between
    /// the two is not in the range.
    pub(super) async fn range_and_numbers(
        &self,
        ask: Ask<'_>,
        of: Of<'_>,
        cursor: MessageId,
    ) -> Result<(FoundEntries, Numbers), StorageError> {
        let _turn = self.turn().await?;
        let mut way = self.asking.first();
        loop {
            let add = |request: &mut Request, count| {
                add_range(request, ask, count);
                self.asking.add(request, way, of, cursor);
            };
            let (replies, count) = self.fitting(ask, add).await?;
            let mut replies = replies.iter();
            let range = replies.next();
            if let Some(numbers) = self.numbers(&mut way, cursor, replies)? {
                return Ok((self.found(ask, count, range)?, numbers));
            }
        }
    }

    /// Reads a range and what the server knows of the topic, all in one step of the server: were the topic
    /// trimmed between the entries and the counts, what was missed would be counted wrong, and later gaps
    /// with it.
    pub(super) async fn range_with_history(
        &self,
        ask: Ask<'_>,
        of: Of<'_>,
        cursor: MessageId,
    ) -> Result<(FoundEntries, Numbers), StorageError> {
        let _turn = self.turn().await?;
        let mut way = self.asking.first();
        loop {
            let add = |request: &mut Request, count| {
                request.add(&[b"MULTI"]);
                self.asking.add(request, way, of, cursor);
                add_range(request, ask, count);
                request.add(&[b"EXEC"]);
            };
            let (replies, count) = self.fitting(ask, add).await?;
            let results = match executed(&replies, way.commands() + 1) {
                Ok(results) => results,
                Err(error) => {
                    way = Asking::next(way, &error).ok_or_else(|| of_stream(error))?;
                    continue;
                }
            };
            let Some(numbers) = self.numbers(&mut way, cursor, results.clone())? else { continue };
            return Ok((self.found(ask, count, results.last())?, numbers));
        }
    }

    /// Returns what the server knows of a topic.
    pub(super) async fn numbers_of(&self, of: Of<'_>, cursor: MessageId) -> Result<Numbers, StorageError> {
        let mut way = self.asking.first();
        loop {
            let mut request = Request::default();
            self.asking.add(&mut request, way, of, cursor);
            // Of `XINFO STREAM` itself, two whole entries come along.
            request.bound(bounds(1, 0));
            let replies = self.ask(&request).await?;
            if let Some(numbers) = self.numbers(&mut way, cursor, replies.iter())? {
                return Ok(numbers);
            }
        }
    }

    /// Returns the newest end of a topic that is described under a key.
    pub(super) async fn tail_of(&self, of: Of<'_>, description: &str) -> Result<Tail, StorageError> {
        let mut way = self.asking.first();
        loop {
            let mut request = Request::default();
            self.asking.add(&mut request, way, of, MessageId::MIN);
            for field in [keys::LATE, keys::REASON] {
                request.add(&[b"HGET", description.as_bytes(), field.as_bytes()]);
            }
            request.bound(bounds(1, 0));
            let replies = self.ask(&request).await?;
            let mut fields = replies.iter().skip(way.commands());
            let [late, reason] = [fields.next(), fields.next()];
            let late = late.as_ref().and_then(Reply::bytes);
            let reason = reason.as_ref().and_then(Reply::bytes);
            if let Some(numbers) = self.numbers(&mut way, MessageId::MIN, replies.iter())? {
                return Ok(numbers.tail(late, reason));
            }
        }
    }

    /// Reads the answers to a question that was asked this way. `None` where it is to be asked in another way,
    /// which is noted.
    fn numbers<'a>(
        &self,
        way: &mut Way,
        cursor: MessageId,
        replies: impl Iterator<Item = Reply<'a>> + Clone,
    ) -> Result<Option<Numbers>, StorageError> {
        let refused = replies.clone().take(way.commands()).find_map(|reply| reply.error());
        if let Some(error) = refused {
            *way = Asking::next(*way, &error).ok_or_else(|| of_stream(error))?;
            return Ok(None);
        }
        let numbers =
            Numbers::read(*way, cursor, replies).ok_or_else(|| unexpected("XINFO STREAM", Effect::Read))?;
        self.asking.answered(*way);
        Ok(Some(numbers))
    }

    /// Returns which messages from behind a cursor up to another were deleted by request.
    pub(super) async fn deleted_between(
        &self,
        of: Of<'_>,
        after: MessageId,
        last: MessageId,
    ) -> Result<HashSet<MessageId>, StorageError> {
        let (after, last) = (format!("({}", sortable(after)), format!("[{}", sortable(last)));
        let mut request = Request::default();
        request.add(&[b"ZRANGEBYLEX", of.deleted.as_bytes(), after.as_bytes(), last.as_bytes()]);
        match self.ask(&request).await?.iter().next() {
            Some(Reply::Error(text)) => Err(of_reply(text_of(text))),
            Some(Reply::Array(ids)) => Ok(ids.filter_map(|id| entry::read_id(id.bytes()?)).collect()),
            _ => Err(unexpected("ZRANGEBYLEX", Effect::Read)),
        }
    }

    /// Returns all that is remembered of messages of a topic that were taken out, in its order.
    pub(super) async fn remembered(&self, deleted: &str) -> Result<Vec<String>, StorageError> {
        let mut request = Request::default();
        request.add(&[b"ZRANGE", deleted.as_bytes(), b"0", b"-1"]);
        match self.ask(&request).await?.iter().next() {
            Some(Reply::Error(text)) => Err(of_key(of_reply(text_of(text)), deleted)),
            Some(Reply::Array(found)) => Ok(found.filter_map(|text| Some(text_of(text.bytes()?))).collect()),
            _ => Err(unexpected("ZRANGE", Effect::Read)),
        }
    }

    /// An empty range does not tell a topic without messages from one that does not exist.
    pub(super) async fn must_exist(&self, stream: &str) -> Result<(), StorageError> {
        let mut request = Request::default();
        request.add(&[b"EXISTS", stream.as_bytes()]);
        match self.ask(&request).await?.iter().next() {
            Some(Reply::Integer(0)) => Err(StorageError::NoTopic),
            Some(Reply::Error(text)) => Err(of_reply(text_of(text))),
            _ => Ok(()),
        }
    }

    /// Asks what has a short answer.
    pub(super) async fn ask(&self, request: &Request) -> Result<Replies, StorageError> {
        self.try_ask(request).await?.map_err(|error| self.connection.failed(error, Effect::Read))
    }

    /// As [`ask`](Self::ask), with the connection's own error, for who can do without the answer.
    pub(super) async fn try_ask(
        &self,
        request: &Request,
    ) -> Result<Result<Replies, RespError>, StorageError> {
        let _turn = self.turn_of(&self.questions).await?;
        self.connection.try_exchange(request).await
    }

    /// Asks for a range, and for fewer entries where they are more than may come at once. Returns for how
    /// many it was asked in the end.
    async fn fitting(
        &self,
        ask: Ask<'_>,
        add: impl Fn(&mut Request, usize),
    ) -> Result<(Replies, usize), StorageError> {
        let mut count = ask.count;
        loop {
            let mut request = Request::default();
            add(&mut request, count);
            let bounds = bounds(count, ask.bytes_max);
            request.bound(bounds);
            match self.connection.try_exchange(&request).await? {
                Ok(replies) => return Ok((replies, count)),
                Err(RespError::TooLarge { fitting }) if count > 1 => {
                    self.weights.note(ask.stream, bounds.bytes / fitting.max(1));
                    count = fitting.saturating_sub(ask.in_front).clamp(1, count / 2);
                }
                Err(error) => return Err(self.connection.failed(error, Effect::Read)),
            }
        }
    }

    /// Reads the reply to a question for so many entries.
    fn found(
        &self,
        ask: Ask<'_>,
        count: usize,
        reply: Option<Reply<'_>>,
    ) -> Result<FoundEntries, StorageError> {
        let entries = match reply {
            Some(Reply::Error(text)) => return Err(of_reply(text_of(text))),
            reply => reply.and_then(entry::read_all).ok_or_else(|| unexpected("XRANGE", Effect::Read))?,
        };
        if !entries.is_empty() {
            let bytes: usize = entries.iter().map(|entry| entry.body.len_bytes()).sum();
            self.weights.note(ask.stream, bytes / entries.len());
        }
        let is_all = entries.len() < count + ask.in_front;
        Ok(FoundEntries { entries, is_all })
    }

    /// Waits for a turn to read.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, StorageError> {
        self.turn_of(&self.turns).await
    }

    async fn turn_of<'a>(&self, turns: &'a Semaphore) -> Result<SemaphorePermit<'a>, StorageError> {
        in_time(self.timeout, turns.acquire()).await
    }
}

async fn in_time<'a>(
    within: Duration,
    permit: impl Future<Output = Result<SemaphorePermit<'a>, AcquireError>>,
) -> Result<SemaphorePermit<'a>, StorageError> {
    match slow::queued(timeout(within, permit)).await {
        Ok(Ok(permit)) => Ok(permit),
        // The semaphore is never closed, so it is the time that has run out.
        Ok(Err(_)) | Err(_) => Err(StorageError::Overloaded),
    }
}

fn add_range(request: &mut Request, ask: Ask<'_>, count: usize) {
    let name: &[u8] = match ask.order {
        Order::Asc => b"XRANGE",
        Order::Desc => b"XREVRANGE",
    };
    let mut command = request.begin(6);
    command.arg(name).arg(ask.stream.as_bytes()).arg(ask.from.as_bytes()).arg(ask.to.as_bytes());
    command.arg(b"COUNT").number((count + ask.in_front) as u64);
}

/// Returns what the reply to a question for so many entries may have at most.
fn bounds(count: usize, bytes_max: usize) -> Bounds {
    let bytes = if count == 1 {
        // The first message of a read is given whatever it weighs.
        ENTRY_BYTES_MAX
    } else {
        let wanted = bytes_max.saturating_mul(CHUNK_BYTES_TIMES).clamp(CHUNK_BYTES_MIN, ENTRY_BYTES_MAX);
        wanted + count * ENTRY_BYTES
    };
    Bounds { bytes, elements: bytes / ELEMENT_BYTES, pass_over: true }
}

/// Returns the results of a transaction of so many commands, or why there are none.
fn executed(replies: &Replies, commands: usize) -> Result<Parts<'_>, String> {
    let mut replies = replies.iter();
    // That it has begun, and what is queued: one refusal spoils it all.
    if let Some(refusal) = replies.by_ref().take(1 + commands).find_map(|queued| queued.error()) {
        return Err(refusal);
    }
    match replies.next() {
        Some(Reply::Array(results)) => Ok(results),
        last => Err(last
            .and_then(|last| last.error())
            .unwrap_or_else(|| "ERR an answer to EXEC in an unknown form".to_owned())),
    }
}

/// Returns the contract's error for an error that concerns a stream.
fn of_stream(error: String) -> StorageError {
    if is_no_such_key(&error) { StorageError::NoTopic } else { of_reply(error) }
}

fn text_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
