//! What sides are asked, tell and are to do, as it stands on the wire, in either direction: what comes from there is checked.
//!
//! It must not know who reads and writes it.

use tidemill_proto::Problem;
use tidemill_proto::copy::{self as wire, CopyRead, CopyTold, CopyWrite};
use tidemill_proto::limits::{COPY_ITEMS_MAX, RECURRING_MAX, TOPIC_NAME_BYTES_MAX};

use super::side::{Told, WAITING_AT_ONCE, Write};
use crate::storage::{DELETED_MAX, DuePlace, WaitingPage};

mod bodies;
mod keys;
mod topics;

use bodies::{at, messages, read_message, read_recurring, read_waiting, recurring, waiting};
use keys::{bucket, copied_keys, ends, keys_part, read_bucket, read_ends, read_keys, read_keys_part};
use topics::{check_group, check_pending, check_topic};

/// Longest text from which a page of unique keys goes on: the longest id, and longer than a cursor of a server.
const UNIQUE_NEXT_BYTES_MAX: usize = 41;

/// What is wrong with what came from elsewhere.
type Checked<T> = Result<T, Box<Problem>>;

/// Returns that something has more items than it may.
fn check_count(field: &str, count: usize, max: usize) -> Checked<()> {
    if count <= max {
        return Ok(());
    }
    Err(Box::new(Problem::field(field, format_args!("has {count} items; a step has at most {max}"))))
}

/// Checks a question.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_read(asked: &CopyRead) -> Checked<()> {
    match asked {
        CopyRead::TopicNames { prefix, .. } if prefix.len() > TOPIC_NAME_BYTES_MAX => {
            let rule = format_args!("is longer than {TOPIC_NAME_BYTES_MAX} bytes");
            Err(Box::new(Problem::field("read.topic_names.prefix", rule)))
        }
        CopyRead::SomeKeys { keys, .. } => check_count("read.some_keys.keys", keys.len(), COPY_ITEMS_MAX),
        CopyRead::Unique { after: Some(after), .. } if after.len() > UNIQUE_NEXT_BYTES_MAX => {
            let rule = format_args!("is longer than {UNIQUE_NEXT_BYTES_MAX} bytes");
            Err(Box::new(Problem::field("read.unique.after", rule)))
        }
        CopyRead::Identity { .. }
        | CopyRead::TopicNames { .. }
        | CopyRead::BucketNames { .. }
        | CopyRead::RefusesNew
        | CopyRead::Retention
        | CopyRead::Topic { .. }
        | CopyRead::Messages { .. }
        | CopyRead::Latest { .. }
        | CopyRead::Deletions { .. }
        | CopyRead::Groups { .. }
        | CopyRead::Group { .. }
        | CopyRead::Pending { .. }
        | CopyRead::Dead { .. }
        | CopyRead::Unique { .. }
        | CopyRead::Waiting { .. }
        | CopyRead::Recurring { .. }
        | CopyRead::Bucket { .. }
        | CopyRead::Keys { .. }
        | CopyRead::Ends { .. }
        | CopyRead::Changes { .. } => Ok(()),
    }
}

/// Returns what was told as it stands on the wire.
#[must_use]
pub fn told_to(told: Told) -> CopyTold {
    match told {
        Told::Identity(texts) => CopyTold::Identity(texts),
        Told::TopicNames(names) => CopyTold::TopicNames(names),
        Told::BucketNames(names) => CopyTold::BucketNames(names),
        Told::Flag(is_so) => CopyTold::Flag(is_so),
        Told::Seconds(seconds) => CopyTold::Seconds(seconds),
        Told::Topic(topic) => CopyTold::Topic(topic),
        Told::Messages(all) => CopyTold::Messages(messages(&all)),
        Told::Ids(ids) => CopyTold::Ids(ids),
        Told::Groups(names) => CopyTold::Groups(names),
        Told::Group(group) => CopyTold::Group(group),
        Told::Pending(pending) => CopyTold::Pending(pending),
        Told::Dead(dead) => CopyTold::Dead(dead),
        Told::Unique(page) => CopyTold::Unique(page),
        Told::Waiting(page) => {
            let next = page.next.map(|next| wire::DueAfter { deliver_at: next.due, schedule_id: next.id });
            CopyTold::Waiting(wire::WaitingPage { messages: waiting(page.messages), next })
        }
        Told::Recurring(all) => CopyTold::Recurring(recurring(all)),
        Told::Bucket(copied) => CopyTold::Bucket(Box::new(bucket(*copied))),
        Told::Keys(page) => CopyTold::Keys(copied_keys(&page)),
        Told::SomeKeys(some) => {
            CopyTold::SomeKeys(some.iter().map(|copied| copied.as_ref().map(keys::copied_key)).collect())
        }
        Told::Ends(all) => CopyTold::Ends(ends(all)),
    }
}

/// Checks what was told of what has bounds, as what is to be done with it is checked.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check_told(told: &CopyTold) -> Checked<()> {
    match told {
        CopyTold::Topic(topic) => check_topic("topic", topic),
        CopyTold::Group(group) => check_group("group", group),
        CopyTold::Pending(pending) => check_pending("pending", pending),
        CopyTold::Bucket(bucket) => keys::check_bucket("bucket", bucket),
        CopyTold::Recurring(recurring) => check_count("recurring", recurring.len(), RECURRING_MAX),
        CopyTold::Waiting(page) => check_count("waiting", page.messages.len(), WAITING_AT_ONCE),
        CopyTold::Unique(page) => match &page.next {
            Some(next) if next.len() > UNIQUE_NEXT_BYTES_MAX => {
                let rule = format_args!("is longer than {UNIQUE_NEXT_BYTES_MAX} bytes");
                Err(Box::new(Problem::field("unique.next", rule)))
            }
            _ => Ok(()),
        },
        CopyTold::Identity(_)
        | CopyTold::TopicNames(_)
        | CopyTold::BucketNames(_)
        | CopyTold::Flag(_)
        | CopyTold::Seconds(_)
        | CopyTold::Messages(_)
        | CopyTold::Ids(_)
        | CopyTold::Groups(_)
        | CopyTold::Dead(_)
        | CopyTold::Keys(_)
        | CopyTold::SomeKeys(_)
        | CopyTold::Ends(_) => Ok(()),
    }
}

/// Returns what stands on the wire as it was told.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn told_from(told: CopyTold) -> Checked<Told> {
    Ok(match told {
        CopyTold::Identity(texts) => Told::Identity(texts),
        CopyTold::TopicNames(names) => Told::TopicNames(names),
        CopyTold::BucketNames(names) => Told::BucketNames(names),
        CopyTold::Flag(is_so) => Told::Flag(is_so),
        CopyTold::Seconds(seconds) => Told::Seconds(seconds),
        CopyTold::Topic(topic) => Told::Topic(topic),
        CopyTold::Messages(all) => Told::Messages(at("messages", all, read_message)?),
        CopyTold::Ids(ids) => Told::Ids(ids),
        CopyTold::Groups(names) => Told::Groups(names),
        CopyTold::Group(group) => Told::Group(group),
        CopyTold::Pending(pending) => Told::Pending(pending),
        CopyTold::Dead(dead) => Told::Dead(dead),
        CopyTold::Unique(page) => Told::Unique(page),
        CopyTold::Waiting(wire::WaitingPage { messages, next }) => {
            let next = next.map(|next| DuePlace { due: next.deliver_at, id: next.schedule_id });
            Told::Waiting(WaitingPage { messages: at("waiting", messages, read_waiting)?, next })
        }
        CopyTold::Recurring(all) => Told::Recurring(at("recurring", all, read_recurring)?),
        CopyTold::Bucket(copied) => Told::Bucket(Box::new(read_bucket(*copied))),
        CopyTold::Keys(page) => Told::Keys(read_keys(page)?),
        CopyTold::SomeKeys(some) => {
            Told::SomeKeys(at("some_keys", some, |copied| copied.map(keys::read_key).transpose())?)
        }
        CopyTold::Ends(all) => Told::Ends(read_ends(all)),
    })
}

/// Returns what is to be done as it stands on the wire.
#[must_use]
pub fn write_to(write: Write) -> CopyWrite {
    match write {
        Write::Mark { topic } => CopyWrite::Mark { topic },
        Write::RefuseNew { refused } => CopyWrite::RefuseNew { refused },
        Write::Freeze { topic, frozen } => CopyWrite::Freeze { topic, frozen },
        Write::FreezeBucket { bucket, frozen } => CopyWrite::FreezeBucket { bucket, frozen },
        Write::Delete { topic } => CopyWrite::Delete { topic },
        Write::DeleteBucket { bucket } => CopyWrite::DeleteBucket { bucket },
        Write::Begin(topic) => CopyWrite::Begin(topic),
        Write::Messages { topic, epoch, after, messages: all } => {
            CopyWrite::Messages { topic, epoch, after, messages: messages(&all) }
        }
        Write::Forget { topic, epoch, ids } => CopyWrite::Forget { topic, epoch, ids },
        Write::Group { topic, group } => CopyWrite::Group { topic, group },
        Write::Pending { topic, group, pending } => CopyWrite::Pending { topic, group, pending },
        Write::Dead { topic, group, dead } => CopyWrite::Dead { topic, group, dead },
        Write::Unique { topic, group, unique } => CopyWrite::Unique { topic, group, unique },
        Write::Waiting { topic, first, waiting: all, recurring: again } => {
            CopyWrite::Waiting { topic, first, waiting: waiting(all), recurring: recurring(again) }
        }
        Write::Finish { topic, deletions } => CopyWrite::Finish { topic, deletions },
        Write::BeginBucket(copied) => CopyWrite::BeginBucket(Box::new(bucket(*copied))),
        Write::Keys { bucket, epoch, keys } => CopyWrite::Keys { bucket, epoch, keys: keys_part(&keys) },
        Write::Ends { bucket, epoch, ends: all } => CopyWrite::Ends { bucket, epoch, ends: ends(all) },
        Write::Changes { bucket, epoch, after, changes } => {
            CopyWrite::Changes { bucket, epoch, after, changes: messages(&changes) }
        }
        Write::FinishBucket(copied) => CopyWrite::FinishBucket(Box::new(bucket(*copied))),
    }
}

/// Returns what stands on the wire as it is to be done.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn write_from(write: CopyWrite) -> Checked<Write> {
    Ok(match write {
        CopyWrite::Mark { topic } => Write::Mark { topic },
        CopyWrite::RefuseNew { refused } => Write::RefuseNew { refused },
        CopyWrite::Freeze { topic, frozen } => Write::Freeze { topic, frozen },
        CopyWrite::FreezeBucket { bucket, frozen } => Write::FreezeBucket { bucket, frozen },
        CopyWrite::Delete { topic } => Write::Delete { topic },
        CopyWrite::DeleteBucket { bucket } => Write::DeleteBucket { bucket },
        CopyWrite::Begin(topic) => {
            check_topic("write.begin", &topic)?;
            Write::Begin(topic)
        }
        CopyWrite::Messages { topic, epoch, after, messages } => {
            const FIELD: &str = "write.messages.messages";
            check_count(FIELD, messages.len(), COPY_ITEMS_MAX)?;
            Write::Messages { topic, epoch, after, messages: at(FIELD, messages, read_message)? }
        }
        CopyWrite::Forget { topic, epoch, ids } => {
            check_count("write.forget.ids", ids.len(), COPY_ITEMS_MAX)?;
            Write::Forget { topic, epoch, ids }
        }
        CopyWrite::Group { topic, group } => {
            check_group("write.group.group", &group)?;
            Write::Group { topic, group }
        }
        CopyWrite::Pending { topic, group, pending } => {
            check_pending("write.pending.pending", &pending)?;
            Write::Pending { topic, group, pending }
        }
        CopyWrite::Dead { topic, group, dead } => {
            check_count("write.dead.dead", dead.len(), COPY_ITEMS_MAX)?;
            Write::Dead { topic, group, dead }
        }
        CopyWrite::Unique { topic, group, unique } => {
            check_count("write.unique.unique", unique.len(), COPY_ITEMS_MAX)?;
            Write::Unique { topic, group, unique }
        }
        CopyWrite::Waiting { topic, first, waiting, recurring } => {
            const WAITING: &str = "write.waiting.waiting";
            const RECURRING: &str = "write.waiting.recurring";
            check_count(WAITING, waiting.len(), WAITING_AT_ONCE)?;
            check_count(RECURRING, recurring.len(), RECURRING_MAX)?;
            let waiting = at(WAITING, waiting, read_waiting)?;
            Write::Waiting { topic, first, waiting, recurring: at(RECURRING, recurring, read_recurring)? }
        }
        CopyWrite::Finish { topic, deletions } => {
            check_topic("write.finish.topic", &topic)?;
            check_count("write.finish.deletions", deletions.len(), DELETED_MAX)?;
            Write::Finish { topic, deletions }
        }
        CopyWrite::BeginBucket(copied) => {
            keys::check_bucket("write.begin_bucket", &copied)?;
            Write::BeginBucket(Box::new(read_bucket(*copied)))
        }
        CopyWrite::Keys { bucket, epoch, keys } => {
            Write::Keys { bucket, epoch, keys: read_keys_part("write.keys.keys", keys)? }
        }
        CopyWrite::Ends { bucket, epoch, ends } => {
            check_count("write.ends.ends", ends.len(), COPY_ITEMS_MAX)?;
            Write::Ends { bucket, epoch, ends: read_ends(ends) }
        }
        CopyWrite::Changes { bucket, epoch, after, changes } => {
            const FIELD: &str = "write.changes.changes";
            check_count(FIELD, changes.len(), COPY_ITEMS_MAX)?;
            Write::Changes { bucket, epoch, after, changes: at(FIELD, changes, read_message)? }
        }
        CopyWrite::FinishBucket(copied) => {
            keys::check_bucket("write.finish_bucket", &copied)?;
            Write::FinishBucket(Box::new(read_bucket(*copied)))
        }
    })
}
