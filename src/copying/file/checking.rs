//! Whether an answer of a file can be one: it is of the kind that was asked for, about what was asked, within the bounds of
//! what a relay takes, and in order.
//!
//! Checksums say that a file is as it was written; who wrote it may have been another program. It must not know where
//! records lie.

use std::fmt::Display;

use tidemill_proto::copy::{CopyRead, CopyTold};

use super::super::side::Told;
use super::super::wire::{check_read, check_told, told_from};
use crate::storage::{DELETED_MAX, IMPORTED_MAX};

/// Checks an answer; returns it.
///
/// # Errors
/// What is wrong with it, as a clause.
pub(super) fn checked(asked: &CopyRead, text: &[u8]) -> Result<Told, String> {
    check_read(asked).map_err(|problem| problem.detail.clone())?;
    let told: CopyTold = serde_json::from_slice(text).map_err(|cause| cause.to_string())?;
    check_told(&told).map_err(|problem| problem.detail.clone())?;
    let told = told_from(told).map_err(|problem| problem.detail.clone())?;
    fits(asked, &told)?;
    Ok(told)
}

/// Checks that names, ids or places of a page come one behind the other, and behind that where it begins.
fn ascend<T: Ord + Display>(
    what: &str,
    after: Option<&T>,
    all: impl Iterator<Item = T>,
    max: usize,
) -> Result<(), String> {
    let mut last: Option<T> = None;
    let mut count = 0;
    for next in all {
        if last.as_ref().or(after).is_some_and(|last| *last >= next) {
            let before = last.as_ref().or(after).map_or_else(String::new, ToString::to_string);
            return Err(format!("the {what} {next} does not come behind {before}"));
        }
        count += 1;
        last = Some(next);
    }
    if count > max {
        return Err(format!("it has {count} of these: {what}; at most {max} are in one record"));
    }
    Ok(())
}

fn same<T: PartialEq + Display>(asked: &T, told: &T) -> Result<(), String> {
    if asked == told { Ok(()) } else { Err(format!("it is about {told}, and {asked} was asked for")) }
}

fn fits(asked: &CopyRead, told: &Told) -> Result<(), String> {
    match (asked, told) {
        (CopyRead::Topic { topic }, Told::Topic(found)) => {
            same(topic, &found.topic.topic_name)?;
            if found.first.is_some_and(|first| first > found.last) {
                return Err("its first message comes behind its last".to_owned());
            }
            Ok(())
        }
        (CopyRead::Bucket { bucket }, Told::Bucket(found)) => same(bucket, &found.state.bucket),
        (
            CopyRead::Messages { after, .. }
            | CopyRead::Latest { after, .. }
            | CopyRead::Changes { after, .. },
            Told::Messages(page),
        ) => ascend("message", Some(after), page.iter().map(|message| message.id), IMPORTED_MAX),
        (CopyRead::Deletions { .. }, Told::Ids(ids)) => {
            ascend("deleted message", None, ids.iter().copied(), DELETED_MAX)
        }
        (CopyRead::Groups { .. }, Told::Groups(groups)) => {
            let mut names: Vec<_> = groups.iter().collect();
            names.sort_unstable();
            ascend("group", None, names.into_iter(), usize::MAX)
        }
        (CopyRead::Group { group, .. }, Told::Group(found)) => same(group, &found.group),
        (CopyRead::Pending { after, .. }, Told::Pending(page)) => {
            ascend("message", after.as_ref(), page.iter().map(|one| one.id), IMPORTED_MAX)
        }
        (CopyRead::Dead { after, .. }, Told::Dead(page)) => {
            ascend("message", after.as_ref(), page.iter().map(|one| one.id), IMPORTED_MAX)
        }
        (CopyRead::Keys { after, .. }, Told::Keys(page)) => {
            let keys = page.keys.iter().map(|one| one.entry.key.clone());
            ascend("key", after.as_ref(), keys, IMPORTED_MAX)?;
            match (page.keys.last(), &page.next) {
                (Some(last), Some(next)) if last.entry.key > *next => {
                    Err(format!("the key {} comes behind the end of its page", last.entry.key))
                }
                _ => Ok(()),
            }
        }
        (CopyRead::SomeKeys { keys, .. }, Told::SomeKeys(found)) => {
            if keys.len() != found.len() {
                return Err(format!("it tells of {} keys, and {} were asked for", found.len(), keys.len()));
            }
            let pairs = keys.iter().zip(found).filter_map(|(key, found)| Some((key, found.as_ref()?)));
            pairs.map(|(key, found)| same(key, &found.entry.key)).collect()
        }
        (CopyRead::Ends { after, .. }, Told::Ends(ends)) => {
            ascend("key", after.as_ref(), ends.iter().map(|(key, _)| key.clone()), IMPORTED_MAX)
        }
        (CopyRead::Unique { .. }, Told::Unique(_))
        | (CopyRead::Waiting { .. }, Told::Waiting(_))
        | (CopyRead::Recurring { .. }, Told::Recurring(_)) => Ok(()),
        _ => Err("it tells something else than was asked".to_owned()),
    }
}
