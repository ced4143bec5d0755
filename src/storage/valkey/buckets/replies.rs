//! What scripts of buckets answer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp};

use super::super::entry::read_id;
use super::super::resp::{Parts, Reply};
use crate::storage::{
    AdaptiveTtl, BucketSettings, BucketState, KeyChanged, KeyDigest, KeyEntry, KeyPage, KeyRefusal, KeyValue,
    KeysChanged,
};

/// What a script answers: that all is well, or another code.
pub(super) enum Coded<T> {
    Well(T),
    Other(i64),
}

/// What became of changes of keys.
pub(super) enum Step {
    /// They are made, or refused; and when the bucket's next key is over, where that is news.
    Done {
        changed: KeysChanged,
        earliest: Option<u64>,
    },
    KeyReused,
    /// The fence is not that of who holds the lock: this one stands against it, if there is one.
    Fenced(Option<MessageId>),
    /// There may be room once keys have gone whose time is over.
    ExpireFirst,
}

/// Reads an answer with its code in front. 1, 12 to 16, and what is below 0, say that nothing was done.
pub(super) fn coded<T>(
    reply: Reply<'_>,
    read: impl FnOnce(i64, &mut Parts<'_>) -> Option<T>,
) -> Option<Coded<T>> {
    let Reply::Array(mut parts) = reply else { return None };
    match parts.next()?.integer()? {
        code if code == 1 || (12..=16).contains(&code) || code < 0 => Some(Coded::Other(code)),
        code => read(code, &mut parts).map(Coded::Well),
    }
}

/// Reads a number that may be written as text; `None` for an empty one.
pub(super) fn number(reply: &Reply<'_>) -> Option<u64> {
    match reply {
        Reply::Integer(number) => u64::try_from(*number).ok(),
        Reply::Bulk(bytes) | Reply::Simple(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Reply::Nil | Reply::Error(_) | Reply::Array(_) => None,
    }
}

/// Reads what became of so many changes.
pub(super) fn read_changed(code: i64, count: usize, parts: &mut Parts<'_>) -> Option<Step> {
    let refused = |at: Reply<'_>, refusal| {
        let at = usize::try_from(at.integer()?).ok()?;
        Some(Step::Done { changed: KeysChanged::Refused { at, refusal }, earliest: None })
    };
    match code {
        0 | 10 => {
            let earliest = number(&parts.next()?);
            let changed: Option<Vec<_>> = parts.by_ref().map(|line| read_line(line.bytes()?)).collect();
            let changed = changed.filter(|changed| changed.len() == count)?;
            Some(Step::Done { changed: KeysChanged::Made { changed, replayed: code == 10 }, earliest })
        }
        2 => {
            let at = parts.next()?;
            let revision = parts.next()?;
            refused(at, KeyRefusal::Condition(read_id(revision.bytes()?)))
        }
        3 => refused(parts.next()?, KeyRefusal::NotANumber),
        4 => {
            let at = parts.next()?;
            let number = std::str::from_utf8(parts.next()?.bytes()?).ok()?.parse().ok()?;
            refused(at, KeyRefusal::OutOfRange(number))
        }
        5 => refused(parts.next()?, KeyRefusal::TooManyKeys),
        6 => refused(parts.next()?, KeyRefusal::TooManyBytes),
        8 => Some(Step::ExpireFirst),
        9 => Some(Step::Fenced(read_id(parts.next()?.bytes()?))),
        11 => Some(Step::KeyReused),
        _ => None,
    }
}

fn read_line(line: &[u8]) -> Option<KeyChanged> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (revision, is_new, number) = (words.next()?, words.next()?, words.next()?);
    let revision = if revision == "-" { None } else { Some(read_id(revision.as_bytes())?) };
    let number = if number == "-" { None } else { Some(number.parse().ok()?) };
    // Answers that earlier versions remembered have no time.
    let expires_at = words.next().and_then(|due| due.parse().ok()).map(Timestamp::from_millis);
    Some(KeyChanged { revision, is_new: is_new == "1", number, expires_at })
}

/// Returns a digest as records have it.
pub(super) fn written(digest: &[u8; 32]) -> String {
    BASE64.encode(digest)
}

/// Reads the digests of a record; what is none is passed over, so that its value counts as damaged where it matters.
fn read_digest(text: &str) -> Option<KeyDigest> {
    let read = |text: &str| -> Option<[u8; 32]> { BASE64.decode(text).ok()?.try_into().ok() };
    let (own, parent) = text.split_once('.').map_or((text, None), |(own, parent)| (own, Some(parent)));
    Some(KeyDigest { own: read(own)?, parent: parent.and_then(read) })
}

/// Reads a record, whose value is left out where it was not wanted.
pub(super) fn read_record(key: KeyName, due: Option<u64>, wants: bool, record: &[u8]) -> Option<KeyEntry> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&record[..end]).ok()?.splitn(7, ' ');
    let revision: MessageId = read_id(words.next()?.as_bytes())?;
    let created_at = Timestamp::from_millis(words.next()?.parse().ok()?);
    let owner = words.next()?.strip_prefix('=').and_then(|owner| KeyName::parse(owner).ok());
    let _past = words.next()?;
    let digest = read_digest(words.next()?);
    let fresh = words.next()?;
    let (is_counted, fresh) = fresh.strip_prefix('~').map_or((false, fresh), |fresh| (true, fresh));
    let fresh_until = fresh.parse().ok().map(Timestamp::from_millis);
    let content_type = words.next()?.strip_prefix('=').map(Box::from);
    let value = wants.then(|| KeyValue { bytes: Bytes::copy_from_slice(&record[end + 1..]), content_type });
    Some(KeyEntry {
        key,
        revision,
        created_at,
        expires_at: due.map(Timestamp::from_millis),
        owner,
        value,
        digest,
        fresh_until,
        is_counted,
    })
}

/// Reads a key, if it is there.
#[expect(clippy::option_option, reason = "that there is none is an answer, and no answer is another")]
pub(super) fn read_entry(key: KeyName, wants: bool, reply: Reply<'_>) -> Option<Option<KeyEntry>> {
    let mut parts = match reply {
        Reply::Nil => return Some(None),
        Reply::Array(parts) => parts,
        Reply::Simple(_) | Reply::Bulk(_) | Reply::Integer(_) | Reply::Error(_) => return None,
    };
    let due = number(&parts.next()?);
    read_record(key, due, wants, parts.next()?.bytes()?).map(Some)
}

/// Reads a key that was touched, and when the bucket's next key is over, where that is news.
#[expect(clippy::option_option, reason = "that there is none is an answer, and no answer is another")]
pub(super) fn read_touched(
    key: KeyName,
    wants: bool,
    reply: Reply<'_>,
) -> Option<Option<(KeyEntry, Option<u64>)>> {
    let mut parts = match reply {
        Reply::Nil => return Some(None),
        Reply::Array(parts) => parts,
        Reply::Simple(_) | Reply::Bulk(_) | Reply::Integer(_) | Reply::Error(_) => return None,
    };
    let due = number(&parts.next()?);
    let entry = read_record(key, due, wants, parts.next()?.bytes()?)?;
    Some(Some((entry, number(&parts.next()?))))
}

/// Reads the revisions of a key, of which the first is the current one.
pub(super) fn read_history(key: &KeyName, reply: Reply<'_>) -> Option<Vec<KeyEntry>> {
    let mut parts = match reply {
        Reply::Nil => return Some(Vec::new()),
        Reply::Array(parts) => parts,
        Reply::Simple(_) | Reply::Bulk(_) | Reply::Integer(_) | Reply::Error(_) => return None,
    };
    let mut due = number(&parts.next()?);
    let mut entries: Vec<_> = parts
        .map(|record| read_record(key.clone(), due.take(), true, record.bytes()?))
        .collect::<Option<_>>()?;
    for earlier in entries.iter_mut().skip(1) {
        (earlier.fresh_until, earlier.is_counted) = (None, false);
    }
    Some(entries)
}

/// Reads a page of keys; nothing where there is no bucket.
#[expect(clippy::option_option, reason = "that there is none is an answer, and no answer is another")]
pub(super) fn read_page(wants: bool, reply: Reply<'_>) -> Option<Option<KeyPage>> {
    let mut parts = match reply {
        Reply::Nil => return Some(None),
        Reply::Array(parts) => parts,
        Reply::Simple(_) | Reply::Bulk(_) | Reply::Integer(_) | Reply::Error(_) => return None,
    };
    let name = |reply: Reply<'_>| KeyName::parse(std::str::from_utf8(reply.bytes()?).ok()?).ok();
    let next = name(parts.next()?);
    let mut entries = Vec::new();
    while let Some(key) = parts.next() {
        let (due, record) = (number(&parts.next()?), parts.next()?);
        // What other programs put there is no key.
        if let Some(key) = name(key) {
            entries.push(read_record(key, due, wants, record.bytes()?)?);
        }
    }
    Some(Some(KeyPage { entries, next }))
}

/// Reads a bucket, and whether it is new.
pub(super) fn read_state(bucket: BucketName, parts: &mut Parts<'_>) -> Option<(BucketState, bool)> {
    let is_new = parts.next()?.integer()? == 1;
    let keys = u64::try_from(parts.next()?.integer()?).ok()?;
    let created_at = std::str::from_utf8(parts.next()?.bytes()?).ok()?.parse().ok()?;
    let mut numbers = [None; 8];
    for number_of in &mut numbers {
        *number_of = number(&parts.next()?);
    }
    let [bytes, history, ttl, age, max_keys, max_bytes, min, max] = numbers;
    let duration = |ms: Option<u64>| ms.map(std::time::Duration::from_millis);
    let settings = BucketSettings {
        history: history.and_then(|history| u32::try_from(history).ok()).unwrap_or(1),
        ttl: duration(ttl),
        absolute_age: duration(age),
        max_keys,
        max_bytes,
        adaptive_ttl: duration(min).zip(duration(max)).map(|(min, max)| AdaptiveTtl { min, max }),
    };
    let bytes = bytes.unwrap_or(0);
    Some((BucketState { bucket, settings, created_at, keys, bytes }, is_new))
}
