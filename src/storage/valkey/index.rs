//! Indexes: of topics, buckets and series, in the order of their names; and of what is due, by the time.
//!
//! An index has parts, each under a key of its own, so that the servers of a cluster share it. Which part has a name is told
//! by the slot of what it names, and never changes. Where topics are placed on servers by their names, each server has an
//! index of what lives there, with parts of its own. What is asked of several parts is asked of all at once. A name that
//! stands in another part than its own is passed over: somebody else has put it there, or it was placed elsewhere before.
//!
//! An index is a hint. Who makes something writes that first and the index behind it, and a sweep mends what was lost in
//! between; what is taken over from elsewhere is named first, as there may be nobody who sweeps. So no command, and no script, names a key of an index beside another key.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tidemill_proto::{BucketName, SeriesName, TopicName};
use tokio::time::timeout;

use super::cluster::others::{Others, Own};
use super::failure::{Effect, Redirect, of_key, of_reply, refuses_writes, unexpected};
use super::homes::{Home, Homes, Lives};
use super::keys::{IndexName, Keys};
use super::resp::{Bounds, Replies, Reply, Request, RespConnection};
use super::supervised::Supervised;
use crate::storage::StorageError;
use merging::{Run, merge};

mod merging;
mod times;

/// Members of a part that are asked for in one step, where those that came before were not enough.
const STEP_NAMES: usize = 256;
/// How long one of several servers may take to count.
const COUNTED_WITHIN: Duration = Duration::from_millis(250);
/// Comes behind every character of a name.
const BEHIND_NAMES: char = '\x7f';
/// Bytes that the answer to a command may have beside members, and for each member.
const ANSWER_BYTES: usize = 64 * 1024;
const MEMBER_BYTES: usize = 512;

/// What an index names.
pub(super) trait Named: Lives + Clone + Ord {
    /// Reads a member of an index; `None` where another program has put it there.
    fn of_member(text: &str) -> Option<Self>;

    /// Returns the name as a member.
    fn member(&self) -> &str;
}

impl Named for TopicName {
    fn of_member(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn member(&self) -> &str {
        self.as_str()
    }
}

impl Named for BucketName {
    fn of_member(text: &str) -> Option<Self> {
        Self::parse_kept(text)
    }

    fn member(&self) -> &str {
        self.as_str()
    }
}

impl Named for SeriesName {
    fn of_member(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn member(&self) -> &str {
        self.as_str()
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
    /// Topics that are being taken over, in order.
    pub(super) importing: Index<TopicName>,
    /// Buckets that are being taken over, in order.
    pub(super) begun: Index<BucketName>,
}

impl Indexes {
    /// Returns those that are kept where this connection goes.
    pub(super) fn new(
        connection: &Arc<Supervised<RespConnection>>,
        others: Option<&Others>,
        keys: Keys,
    ) -> Self {
        Self {
            topics: Index::new(connection, others, keys, IndexName::Topics),
            schedules: Index::new(connection, others, keys, IndexName::Schedules),
            buckets: Index::new(connection, others, keys, IndexName::Buckets),
            expiring: Index::new(connection, others, keys, IndexName::Expiring),
            series: Index::new(connection, others, keys, IndexName::Series),
            importing: Index::new(connection, others, keys, IndexName::Importing),
            begun: Index::new(connection, others, keys, IndexName::Begun),
        }
    }
}

/// An index.
#[derive(Debug)]
pub(super) struct Index<T> {
    connection: Arc<Supervised<RespConnection>>,
    /// Where there are several shards, who has the other parts.
    others: Option<Others>,
    homes: Homes,
    keys: Keys,
    parts: Vec<Part>,
    /// The parts that may name what lives at the shard.
    near: Range<usize>,
    names: PhantomData<fn() -> T>,
}

/// A part of an index.
#[derive(Debug)]
struct Part {
    key: String,
    /// The key that is there while no more of what it names is to be made.
    closed: String,
    home: Home,
    /// How many names it was found to have last.
    count: AtomicU64,
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

/// Returns how many names of a page each of some parts is asked for first: where it is one of many about twice its share,
/// as names are spread unevenly.
fn share(limit: usize, parts: usize) -> usize {
    match parts {
        0 | 1 => limit,
        parts => limit.min(2 * limit.div_ceil(parts) + 8),
    }
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
        others: Option<&Others>,
        keys: Keys,
        name: IndexName,
    ) -> Self {
        let homes = others.map_or_else(Homes::default, |others| others.homes().clone());
        let part = |(server, part): (Home, usize)| {
            let key = keys.index(name, part);
            let home = match &homes {
                Homes::BySlot => homes.of(key.as_str()),
                Homes::ByName(_) => server,
            };
            Part { key, closed: keys.closed(part), home, count: AtomicU64::new(0) }
        };
        let all = (0..homes.indexes()).flat_map(|server| (0..keys.parts()).map(move |part| (server, part)));
        let parts: Vec<Part> = all.map(part).collect();
        let near = match others.map(Others::own) {
            None | Some(Own::Seat(_)) => 0..parts.len(),
            Some(Own::Server(number)) => {
                let first = usize::from(*number) * keys.parts();
                first..first + keys.parts()
            }
        };
        let (connection, others) = (connection.clone(), others.cloned());
        Self { connection, others, homes, keys, parts, near, names: PhantomData }
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

    /// Takes names out of the parts of the shard's own server that stand there although they live elsewhere: nobody else
    /// would.
    pub(super) async fn disown(&self, names: &[&T]) -> Result<(), StorageError> {
        let removed = names.iter().map(|name| (*name, Change::Removed));
        let changes = self.changes_in(removed, |name| self.near.start + self.keys.part_of(name.slot()));
        self.change(changes).await.map(drop)
    }

    /// Returns whether it names this.
    pub(super) async fn has(&self, name: &T) -> Result<bool, StorageError> {
        let part = self.part_of(name);
        let mut request = Request::default();
        request.add(&[b"ZRANK", self.parts[part].key.as_bytes(), name.member().as_bytes()]);
        let replies = self.ask(part, &request, Effect::Read).await?;
        Ok(replies.iter().next().is_some_and(|reply| !matches!(reply, Reply::Nil)))
    }

    /// Returns those that it does not name of some, which are few enough for one step.
    pub(super) async fn missing<'a>(&self, names: &[&'a T]) -> Result<Vec<&'a T>, StorageError> {
        let mut asked: BTreeMap<usize, (Request, Vec<&'a T>)> = BTreeMap::new();
        for name in names {
            let part = self.part_of(name);
            let (request, of_part) =
                asked.entry(part).or_insert_with(|| (members_request(names.len()), Vec::new()));
            request.add(&[b"ZRANK", self.parts[part].key.as_bytes(), name.member().as_bytes()]);
            of_part.push(name);
        }
        let ask = asked.iter().map(|(part, (request, _))| self.ask(*part, request, Effect::Read));
        let mut missing = Vec::new();
        for ((_, of_part), replies) in asked.values().zip(join_all(ask).await) {
            let replies = replies?;
            let unnamed = of_part.iter().zip(replies.iter()).filter(|(_, reply)| matches!(reply, Reply::Nil));
            missing.extend(unnamed.map(|(name, _)| *name));
        }
        Ok(missing)
    }

    /// Returns how many it names. Of several servers, one that does not tell at once holds up nobody: of its parts it is told
    /// what they had when it did.
    pub(super) async fn count(&self) -> Result<u64, StorageError> {
        let counts = |(number, part): (usize, &Part)| {
            let mut request = Request::default();
            request.add(&[b"ZCARD", part.key.as_bytes()]);
            (number, request)
        };
        let asked: Vec<_> = self.parts.iter().enumerate().map(counts).collect();
        let within = if self.others.is_some() { COUNTED_WITHIN } else { Duration::MAX };
        let ask = asked.iter().map(|(part, request)| timeout(within, self.ask(*part, request, Effect::Read)));
        let mut all: u64 = 0;
        for (Part { count: known, .. }, answer) in self.parts.iter().zip(join_all(ask).await) {
            match answer {
                Ok(Ok(replies)) => {
                    let count = replies.iter().next().and_then(|reply| u64::try_from(reply.integer()?).ok());
                    known.store(count.ok_or_else(|| unexpected("ZCARD", Effect::Read))?, Ordering::Relaxed);
                }
                Ok(Err(StorageError::Unavailable(_))) if self.others.is_some() => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
            all = all.saturating_add(known.load(Ordering::Relaxed));
        }
        Ok(all)
    }

    /// Returns up to `limit` names that begin with a prefix and come after `after`, in order; fewer are all. What another
    /// program has put between them is passed over, and servers are not asked on which no such name is placed.
    pub(super) async fn page(
        &self,
        prefix: &str,
        after: Option<&T>,
        limit: usize,
    ) -> Result<Vec<T>, StorageError> {
        let may_have = |part: &usize| self.homes.may_have(self.parts[*part].home, prefix);
        let parts = (0..self.parts.len()).filter(may_have).collect();
        self.page_of(parts, prefix, after, limit).await
    }

    /// Returns up to `limit` names that come after `after`, in order, among which are all of what lives at the shard; fewer
    /// are all. Where others have indexes of their own, they are not asked.
    pub(super) async fn near(&self, after: Option<&T>, limit: usize) -> Result<Vec<T>, StorageError> {
        self.page_of(self.near.clone().collect(), "", after, limit).await
    }

    async fn page_of(
        &self,
        parts: Vec<usize>,
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
        let mut asked = share(limit, parts.len());
        let mut runs: Vec<Run<T>> = parts.into_iter().map(|part| Run::new(part, &from)).collect();
        let mut names = Vec::new();
        loop {
            merge(&mut runs, &mut names, limit);
            let open: Vec<usize> = (0..runs.len()).filter(|run| runs[*run].is_open()).collect();
            if names.len() >= limit || open.is_empty() {
                return Ok(names);
            }
            let members = |run: &usize| {
                let (run, mut request) = (&runs[*run], members_request(asked));
                let mut command = request.begin(8);
                command.arg(b"ZRANGE").arg(self.parts[run.part()].key.as_bytes());
                command.arg(run.from()).arg(to.as_bytes());
                command.arg(b"BYLEX").arg(b"LIMIT").number(0).number(asked as u64);
                drop(command);
                (run.part(), request)
            };
            let requests: Vec<_> = open.iter().map(members).collect();
            let answers = self.ask_all(&requests).await?;
            for (run, replies) in open.into_iter().zip(answers) {
                let run = &mut runs[run];
                let part = run.part();
                let Some(Reply::Array(members)) = replies.iter().next() else {
                    return Err(unexpected("ZRANGE", Effect::Read));
                };
                let members = members.filter_map(|member| member.bytes());
                run.take_in(members, asked, |name| self.part_of(name) == part);
            }
            asked = asked.max(STEP_NAMES);
        }
    }

    fn part_of(&self, name: &T) -> usize {
        // That of the only one is not asked for.
        if self.parts.len() == 1 {
            return 0;
        }
        usize::from(self.homes.index_of(name)) * self.keys.parts() + self.keys.part_of(name.slot())
    }

    /// Returns what is to be sent to each part for such changes, those of each in the order in which they come.
    fn changes<'a>(&self, changes: impl Iterator<Item = (&'a T, Change)>) -> Changes
    where
        T: 'a,
    {
        self.changes_in(changes, |name| self.part_of(name))
    }

    fn changes_in<'a>(
        &self,
        changes: impl Iterator<Item = (&'a T, Change)>,
        part_of: impl Fn(&T) -> usize,
    ) -> Changes
    where
        T: 'a,
    {
        let mut all = Changes { parts: self.parts.iter().map(|_| Default::default()).collect(), count: 0 };
        for (name, change) in changes {
            let part = part_of(name);
            let (request, places) = &mut all.parts[part];
            change.write(request, self.parts[part].key.as_bytes(), name.member().as_bytes());
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
            let key = &self.parts[part].closed;
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

    /// Returns whether no more of what it names are to be made at the shard: the part that does not tell has not said so.
    pub(super) async fn is_closed(&self) -> Result<bool, StorageError> {
        let mut request = Request::default();
        let part = self.near.start;
        request.add(&[b"EXISTS", self.parts[part].closed.as_bytes()]);
        let replies = self.ask(part, &request, Effect::Read).await?;
        Ok(replies.iter().next().and_then(|reply| reply.integer()) == Some(1))
    }

    /// Sends a request to a part, and returns its replies where none is an error.
    async fn ask(&self, part: usize, request: &Request, effect: Effect) -> Result<Replies, StorageError> {
        let replies = self.exchange(part, request, effect).await?;
        match replies.iter().find_map(|reply| reply.error()) {
            Some(text) => Err(of_key(of_reply(text), self.parts[part].key.as_str())),
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
        let owner = |others: &Others| others.owner_of(self.parts[part].home);
        let shard = self.others.as_ref().map(owner).transpose()?;
        let connection = shard.as_ref().map_or(&self.connection, |shard| shard.calls.connection());
        let replies = connection.exchange(request, effect).await?;
        for text in replies.iter().filter_map(|reply| reply.error()) {
            if refuses_writes(&text) {
                connection.suspect();
            }
            if let (Some(others), Some(redirect)) = (&self.others, Redirect::read(&text)) {
                others.heed(&redirect);
            }
        }
        Ok(replies)
    }
}

#[cfg(test)]
mod tests;
