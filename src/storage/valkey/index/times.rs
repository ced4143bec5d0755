//! Indexes by the time: what is due, and when.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Change, Index, Named, Part, members_request};
use crate::storage::StorageError;
use crate::storage::valkey::failure::{Effect, unexpected};
use crate::storage::valkey::resp::{Parts, Reply};
use crate::storage::valkey::scripts;

impl<T: Named> Index<T> {
    /// Notes when something is due (ms), unless it is noted for earlier.
    pub(in super::super) async fn note(&self, due: &[(&T, u64)]) -> Result<(), StorageError> {
        let changes = self.changes(due.iter().map(|(name, ms)| (*name, Change::Earlier(*ms))));
        self.change(changes).await.map(drop)
    }

    /// Sets when something is due (ms), or that nothing is.
    pub(in super::super) async fn set(&self, due: &[(&T, Option<u64>)]) -> Result<(), StorageError> {
        let changes = due.iter().map(|(name, ms)| (*name, ms.map_or(Change::Removed, Change::At)));
        let changes = self.changes(changes);
        self.change(changes).await.map(drop)
    }

    /// Returns up to `limit` of what is due soonest, by when that is, by the clock of the server that knows it.
    pub(in super::super) async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(T, Duration)>, StorageError> {
        // As far as a number of scripts is exact.
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> 11).to_string();
        let asked = limit.to_string();
        let ask = |(number, part): (usize, &Part)| {
            let mut request = members_request(limit);
            let script = scripts::DUE_TOPICS.text().as_bytes();
            request.add(&[b"EVAL", script, b"1", part.key.as_bytes(), within.as_bytes(), asked.as_bytes()]);
            (number, request)
        };
        let requests: Vec<_> = self.parts.iter().enumerate().map(ask).collect();
        let mut due = Vec::new();
        // What is due with one server waits for no other.
        let asked = requests.iter().map(|(part, request)| self.ask(*part, request, Effect::Read));
        let (mut failed, mut is_answered) = (None, false);
        for ((number, part), replies) in self.parts.iter().enumerate().zip(join_all(asked).await) {
            let replies = match replies {
                Ok(replies) => replies,
                Err(error @ StorageError::ForeignKey(_)) => return Err(error),
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            is_answered = true;
            let Some(Reply::Array(mut parts)) = replies.iter().next() else { return Err(odd()) };
            match parts.next().and_then(|code| code.integer()) {
                Some(0) => {
                    let of_it = read_due(parts).ok_or_else(odd)?.into_iter();
                    due.extend(of_it.filter(|(name, _)| self.part_of(name) == number));
                }
                Some(-1) => return Err(StorageError::ForeignKey(part.key.as_str().into())),
                Some(_) | None => return Err(odd()),
            }
        }
        if let (Some(error), false) = (failed, is_answered) {
            return Err(error);
        }
        due.sort_by_key(|(_, due_in)| *due_in);
        due.truncate(limit);
        Ok(due)
    }

    /// Returns the names that each part has from this rank on, up to `limit` of each, and whether any has more. Where others
    /// have indexes of their own, they are not asked.
    pub(in super::super) async fn near_ranked(
        &self,
        first: usize,
        limit: usize,
    ) -> Result<(Vec<T>, bool), StorageError> {
        let (from, to) = (first.to_string(), (first + limit).saturating_sub(1).to_string());
        let ask = |part: usize| {
            let mut request = members_request(limit);
            let key = self.parts[part].key.as_bytes();
            request.add(&[b"ZRANGE", key, from.as_bytes(), to.as_bytes()]);
            (part, request)
        };
        let requests: Vec<_> = self.near.clone().map(ask).collect();
        let (mut names, mut has_more) = (Vec::new(), false);
        for replies in self.ask_all(&requests).await? {
            let Some(Reply::Array(members)) = replies.iter().next() else {
                return Err(unexpected("ZRANGE", Effect::Read));
            };
            has_more |= members.left() >= limit;
            let name = |member: Reply<'_>| T::of_member(std::str::from_utf8(member.bytes()?).ok()?);
            names.extend(members.filter_map(name));
        }
        Ok((names, has_more))
    }
}

fn odd() -> StorageError {
    unexpected("EVAL", Effect::Read)
}

/// Reads what a script has told behind its code: what time it is, and of each name when it is due.
fn read_due<T: Named>(mut parts: Parts<'_>) -> Option<Vec<(T, Duration)>> {
    let now = u64::try_from(parts.next()?.integer()?).ok()?;
    let mut due = Vec::new();
    while let (Some(member), Some(ms)) = (parts.next(), parts.next()) {
        let name = std::str::from_utf8(member.bytes()?).ok().and_then(T::of_member);
        // What another program has put there may have any number.
        let ms = std::str::from_utf8(ms.bytes()?).ok().and_then(|ms| ms.parse::<u64>().ok());
        let due_in = ms.map(|ms| Duration::from_millis(ms.saturating_sub(now)));
        due.extend(name.zip(due_in));
    }
    Some(due)
}
