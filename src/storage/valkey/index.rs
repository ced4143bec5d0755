//! Indexes: of topics, buckets and series, in the order of their names; and of what is due, by the time.
//!
//! An index has parts, each under a key of its own, so that the servers of a cluster share it. Which part has a name is told
//! by the slot of what it names, and never changes. What is asked of several parts is asked of all at once.
//!
//! An index is a hint. Who makes something writes that first and the index behind it, and a sweep mends what was lost in
//! between. So no command, and no script, names a key of an index beside another key.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tidemill_proto::{BucketName, SeriesName, TopicName};
use tokio::time::timeout;

use super::cluster::seat::Seat;
use super::failure::{Effect, Redirect, of_key, of_reply, refuses_writes, unexpected};
use super::keys::{self, IndexName, Keys};
use super::resp::{Bounds, Replies, Reply, Request, RespConnection};
use super::slots::slot_of;
use super::supervised::Supervised;
use super::{slot_of_bucket, slot_of_topic};
use crate::storage::StorageError;
use merging::{Run, merge};

mod merging;
mod times;

/// Members of a part that are asked for in one step, where those that came before were not enough.
const STEP_NAMES: usize = 256;
/// How long a server of a cluster may take to count.
const COUNTED_WITHIN: Duration = Duration::from_millis(250);
/// Comes behind every character of a name.
const BEHIND_NAMES: char = '\x7f';
/// Bytes that the answer to a command may have beside members, and for each member.
const ANSWER_BYTES: usize = 64 * 1024;
const MEMBER_BYTES: usize = 512;

/// What an index names.
pub(super) trait Named: Clone + Ord {
    /// Reads a member of an index; `None` where another program has put it there.
    fn of_member(text: &str) -> Option<Self>;

    /// Returns the name as a member.
    fn member(&self) -> &str;

    /// Returns the slot of what has this name, where keys have braces.
    fn slot(&self) -> u16;
}

impl Named for TopicName {
    fn of_member(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn member(&self) -> &str {
        self.as_str()
    }

    fn slot(&self) -> u16 {
        slot_of_topic(self)
    }
}

impl Named for BucketName {
    fn of_member(text: &str) -> Option<Self> {
        Self::parse_kept(text)
    }

    fn member(&self) -> &str {
        self.as_str()
    }

    fn slot(&self) -> u16 {
        slot_of_bucket(self)
    }
}

impl Named for SeriesName {
    fn of_member(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn member(&self) -> &str {
        self.as_str()
    }

    fn slot(&self) -> u16 {
        slot_of(keys::series(self).as_bytes())
    }
}

/// Returns the key of the part of an index that has this name.
pub(super) fn key_of(keys: Keys, index: IndexName, name: &impl Named) -> String {
    keys.index(index, keys.part_of(name.slot()))
}

/// All indexes.
#[derive(Debug)]
pub(super) struct Indexes {
    /// Topics, in order.
    pub(super) topics: Index<TopicName>,
    /// Topics in which something waits for later, by when the next is due.
    pub(super) schedules: Index<TopicName>,
    /// Buckets, in order.
    pub(super) buckets: Index<BucketName>,
    /// Buckets in which a key has a time, by when the first is over.
    pub(super) expiring: Index<BucketName>,
    /// Series, in order.
    pub(super) series: Index<SeriesName>,
}

impl Indexes {
    /// Returns those that are kept where this connection goes.
    pub(super) fn new(
        connection: &Arc<Supervised<RespConnection>>,
        seat: Option<&Arc<Seat>>,
        keys: Keys,
    ) -> Self {
        Self {
            topics: Index::new(connection, seat, keys, IndexName::Topics),
            schedules: Index::new(connection, seat, keys, IndexName::Schedules),
            buckets: Index::new(connection, seat, keys, IndexName::Buckets),
            expiring: Index::new(connection, seat, keys, IndexName::Expiring),
            series: Index::new(connection, seat, keys, IndexName::Series),
        }
    }
}

/// An index.
#[derive(Debug)]
pub(super) struct Index<T> {
    connection: Arc<Supervised<RespConnection>>,
    /// In a cluster, where parts live.
    seat: Option<Arc<Seat>>,
    keys: Keys,
    /// The key of each part.
    parts: Vec<String>,
    /// How many names each part was found to have last.
    counts: Vec<AtomicU64>,
    names: PhantomData<fn() -> T>,
}

/// What becomes of a name.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It is named, in order.
    Added,
    /// It is named by this time, unless it is by an earlier one.
    Earlier(u64),
    /// It is named by this time.
    At(u64),
    Removed,
}

impl Change {
    fn write(self, request: &mut Request, key: &[u8], member: &[u8]) {
        match self {
            Self::Added => request.add(&[b"ZADD", key, b"0", member]),
            Self::Earlier(ms) => request.add(&[b"ZADD", key, b"LT", ms.to_string().as_bytes(), member]),
            Self::At(ms) => request.add(&[b"ZADD", key, ms.to_string().as_bytes(), member]),
            Self::Removed => request.add(&[b"ZREM", key, member]),
        };
    }
}

/// What is to be sent to each part, with the places of its changes among all.
struct Changes {
    parts: Vec<(Request, Vec<usize>)>,
    count: usize,
}

/// Returns an empty request whose answer has up to so many members, which may be long.
fn members_request(members: usize) -> Request {
    let mut request = Request::default();
    request.bound(Bounds {
        bytes: ANSWER_BYTES + members * MEMBER_BYTES,
        // With a time each.
        elements: 16 + 2 * members,
        pass_over: true,
    });
    request
}

impl<T: Named> Index<T> {
    fn new(
        connection: &Arc<Supervised<RespConnection>>,
        seat: Option<&Arc<Seat>>,
        keys: Keys,
        name: IndexName,
    ) -> Self {
        let parts: Vec<_> = (0..keys.parts()).map(|part| keys.index(name, part)).collect();
        let counts = parts.iter().map(|_| AtomicU64::new(0)).collect();
        Self { connection: connection.clone(), seat: seat.cloned(), keys, parts, counts, names: PhantomData }
    }

    /// Has it name these; returns of each whether it did not yet.
    pub(super) async fn add(&self, names: &[&T]) -> Result<Vec<bool>, StorageError> {
        let changes = self.changes(names.iter().map(|name| (*name, Change::Added)));
        self.change(changes).await
    }

    /// Has it not name these any more.
    pub(super) async fn remove(&self, names: &[&T]) -> Result<(), StorageError> {
        let changes = self.changes(names.iter().map(|name| (*name, Change::Removed)));
        self.change(changes).await.map(drop)
    }

    /// Returns whether it names this.
    pub(super) async fn has(&self, name: &T) -> Result<bool, StorageError> {
        let part = self.part_of(name);
        let mut request = Request::default();
        request.add(&[b"ZRANK", self.parts[part].as_bytes(), name.member().as_bytes()]);
        let replies = self.ask(part, &request, Effect::Read).await?;
        Ok(replies.iter().next().is_some_and(|reply| !matches!(reply, Reply::Nil)))
    }

    /// Returns how many it names. In a cluster, a server that does not tell at once holds up nobody: of its parts it is told
    /// what they had when it did.
    pub(super) async fn count(&self) -> Result<u64, StorageError> {
        let counts = |(part, key): (usize, &String)| {
            let mut request = Request::default();
            request.add(&[b"ZCARD", key.as_bytes()]);
            (part, request)
        };
        let asked: Vec<_> = self.parts.iter().enumerate().map(counts).collect();
        let within = if self.seat.is_some() { COUNTED_WITHIN } else { Duration::MAX };
        let ask = asked.iter().map(|(part, request)| timeout(within, self.ask(*part, request, Effect::Read)));
        let mut all: u64 = 0;
        for (known, answer) in self.counts.iter().zip(join_all(ask).await) {
            match answer {
                Ok(Ok(replies)) => {
                    let count = replies.iter().next().and_then(|reply| u64::try_from(reply.integer()?).ok());
                    known.store(count.ok_or_else(|| unexpected("ZCARD", Effect::Read))?, Ordering::Relaxed);
                }
                Ok(Err(StorageError::Unavailable(_))) if self.seat.is_some() => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
            all = all.saturating_add(known.load(Ordering::Relaxed));
        }
        Ok(all)
    }

    /// Returns up to `limit` names that begin with a prefix and come after `after`, in order; fewer are all. What another
    /// program has put between them is passed over.
    pub(super) async fn page(
        &self,
        prefix: &str,
        after: Option<&T>,
        limit: usize,
    ) -> Result<Vec<T>, StorageError> {
        let to = if prefix.is_empty() { "+".to_owned() } else { format!("({prefix}{BEHIND_NAMES}") };
        let from = match after.map(T::member) {
            Some(after) if after >= prefix => format!("({after}"),
            Some(_) | None if prefix.is_empty() => "-".to_owned(),
            Some(_) | None => format!("[{prefix}"),
        };
        let mut runs: Vec<Run<T>> = self.parts.iter().map(|_| Run::new(&from)).collect();
        let mut asked = self.share(limit);
        let mut names = Vec::new();
        loop {
            merge(&mut runs, &mut names, limit);
            let open: Vec<usize> = (0..runs.len()).filter(|part| runs[*part].is_open()).collect();
            if names.len() >= limit || open.is_empty() {
                return Ok(names);
            }
            let members = |part: &usize| {
                let mut request = members_request(asked);
                let mut command = request.begin(8);
                command.arg(b"ZRANGE").arg(self.parts[*part].as_bytes());
                command.arg(runs[*part].from()).arg(to.as_bytes());
                command.arg(b"BYLEX").arg(b"LIMIT").number(0).number(asked as u64);
                drop(command);
                (*part, request)
            };
            let requests: Vec<_> = open.iter().map(members).collect();
            let answers = self.ask_all(&requests).await?;
            for (part, replies) in open.into_iter().zip(answers) {
                let Some(Reply::Array(members)) = replies.iter().next() else {
                    return Err(unexpected("ZRANGE", Effect::Read));
                };
                runs[part].take_in(members.filter_map(|member| member.bytes()), asked);
            }
            asked = asked.max(STEP_NAMES);
        }
    }

    /// Returns how many names of a page each part is asked for first: where it is one of many about twice its share, as
    /// names are spread unevenly.
    fn share(&self, limit: usize) -> usize {
        match self.parts.len() {
            1 => limit,
            parts => limit.min(2 * limit.div_ceil(parts) + 8),
        }
    }

    fn part_of(&self, name: &T) -> usize {
        // That of the only one is not asked for.
        if self.parts.len() == 1 { 0 } else { self.keys.part_of(name.slot()) }
    }

    /// Returns what is to be sent to each part for such changes, those of each in the order in which they come.
    fn changes<'a>(&self, changes: impl Iterator<Item = (&'a T, Change)>) -> Changes
    where
        T: 'a,
    {
        let mut all = Changes { parts: self.parts.iter().map(|_| Default::default()).collect(), count: 0 };
        for (name, change) in changes {
            let part = self.part_of(name);
            let (request, places) = &mut all.parts[part];
            change.write(request, self.parts[part].as_bytes(), name.member().as_bytes());
            places.push(all.count);
            all.count += 1;
        }
        all
    }

    /// Makes changes; returns of each whether the part has another number of names by it.
    async fn change(&self, changes: Changes) -> Result<Vec<bool>, StorageError> {
        let asked = changes.parts.iter().enumerate().filter(|(_, (_, places))| !places.is_empty());
        let asked = asked.map(|(part, (request, places))| async move {
            (places, self.ask(part, request, Effect::Write).await)
        });
        let (mut answers, mut outcome) = (vec![false; changes.count], Ok(()));
        for (places, replies) in join_all(asked).await {
            match replies {
                Ok(replies) => {
                    for (at, reply) in places.iter().zip(replies.iter()) {
                        answers[*at] = reply.integer().is_some_and(|count| count > 0);
                    }
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| answers)
    }

    /// Asks parts, each with its request, which changes nothing.
    async fn ask_all(&self, requests: &[(usize, Request)]) -> Result<Vec<Replies>, StorageError> {
        let asked = requests.iter().map(|(part, request)| self.ask(*part, request, Effect::Read));
        join_all(asked).await.into_iter().collect()
    }

    /// Has no more of what it names be made from now on, or again.
    pub(super) async fn close(&self, closes: bool) -> Result<(), StorageError> {
        let closing = (0..self.parts.len()).map(|part| async move {
            let key = self.keys.closed(part);
            let mut request = Request::default();
            if closes {
                request.add(&[b"SET", key.as_bytes(), b"1"]);
            } else {
                request.add(&[b"DEL", key.as_bytes()]);
            }
            self.ask(part, &request, Effect::Write).await
        });
        join_all(closing).await.into_iter().try_for_each(|replies| replies.map(drop))
    }

    /// Returns whether no more of what it names are to be made: the part that does not tell has not said so.
    pub(super) async fn is_closed(&self) -> Result<bool, StorageError> {
        let mut request = Request::default();
        request.add(&[b"EXISTS", self.keys.closed(0).as_bytes()]);
        let replies = self.ask(0, &request, Effect::Read).await?;
        Ok(replies.iter().next().and_then(|reply| reply.integer()) == Some(1))
    }

    /// Sends a request to a part, and returns its replies where none is an error.
    async fn ask(&self, part: usize, request: &Request, effect: Effect) -> Result<Replies, StorageError> {
        let replies = self.exchange(part, request, effect).await?;
        match replies.iter().find_map(|reply| reply.error()) {
            Some(text) => Err(of_key(of_reply(text), self.parts[part].as_str())),
            None => Ok(replies),
        }
    }

    /// Sends a request to where a part lives.
    async fn exchange(
        &self,
        part: usize,
        request: &Request,
        effect: Effect,
    ) -> Result<Replies, StorageError> {
        let shard = match &self.seat {
            Some(seat) => Some(seat.owner_of(slot_of(self.parts[part].as_bytes()))?),
            None => None,
        };
        let connection = shard.as_ref().map_or(&self.connection, |shard| shard.calls.connection());
        let replies = connection.exchange(request, effect).await?;
        for text in replies.iter().filter_map(|reply| reply.error()) {
            if refuses_writes(&text) {
                connection.suspect();
            }
            if let (Some(seat), Some(redirect)) = (&self.seat, Redirect::read(&text)) {
                seat.heed(&redirect);
            }
        }
        Ok(replies)
    }
}

#[cfg(test)]
mod tests;
