//! Buckets and their keys, in either direction.

use tidemill_proto::copy::{self as wire, ChangedKey, CopiedEnd, CopiedRevision, KeysPage, Sha256};
use tidemill_proto::duration::Seconds;
use tidemill_proto::keys::{AdaptiveTtl, Bucket};
use tidemill_proto::limits::{COPY_ITEMS_MAX, KEY_HISTORY_MAX, LOST_MARKS_MAX};
use tidemill_proto::{KeyName, Problem, Timestamp};

use super::bodies::{at, of_item, read_value, value};
use super::topics::COUNT_MAX;
use super::{Checked, check_count};
use crate::storage::{
    self, BucketSettings, BucketState, CopiedBucket, CopiedKey, CopiedKeys, KeyDigest, KeyEntry, KeysPart,
};

pub(super) fn bucket(copied: CopiedBucket) -> wire::CopiedBucket {
    let CopiedBucket { state, epoch, born, first, last, length, given, holes, freeze, has_keys } = copied;
    let bucket = Bucket::from(state);
    wire::CopiedBucket { bucket, epoch, born, first, last, length, given, holes, freeze, has_keys }
}

pub(super) fn read_bucket(copied: wire::CopiedBucket) -> CopiedBucket {
    let wire::CopiedBucket { bucket, epoch, born, first, last, length, given, holes, freeze, has_keys } =
        copied;
    let Bucket {
        bucket,
        history,
        ttl,
        absolute_age,
        max_keys,
        max_bytes,
        adaptive_ttl,
        created_at,
        keys,
        bytes,
    } = bucket;
    let adaptive = |AdaptiveTtl { min, max }: AdaptiveTtl| storage::AdaptiveTtl { min: min.0, max: max.0 };
    let settings = BucketSettings {
        history,
        ttl: ttl.map(|Seconds(ttl)| ttl),
        absolute_age: absolute_age.map(|Seconds(age)| age),
        max_keys,
        max_bytes,
        adaptive_ttl: adaptive_ttl.map(adaptive),
    };
    let state = BucketState { bucket, settings, created_at, keys, bytes };
    CopiedBucket { state, epoch, born, first, last, length, given, holes, freeze, has_keys }
}

pub(super) fn check_bucket(field: &str, copied: &wire::CopiedBucket) -> Checked<()> {
    let Bucket { history, max_keys, max_bytes, adaptive_ttl, .. } = &copied.bucket;
    let fault = |name: &str, rule: &str| {
        Err(Box::new(Problem::field(format!("{field}.bucket.{name}").as_str(), rule)))
    };
    if !(1..=KEY_HISTORY_MAX).contains(history) {
        return fault("history", &format!("must be 1 to {KEY_HISTORY_MAX}"));
    }
    if *max_keys == Some(0) {
        return fault("max_keys", "must be at least 1");
    }
    if *max_bytes == Some(0) {
        return fault("max_bytes", "must be at least 1");
    }
    if adaptive_ttl.is_some_and(|ttl| ttl.min.0.is_zero() || ttl.min > ttl.max) {
        return fault(
            "adaptive_ttl",
            "must have a `min` that is more than nothing, and a `max` not below it",
        );
    }
    if copied.length > COUNT_MAX || copied.given.is_some_and(|given| given > COUNT_MAX) {
        return Err(Box::new(Problem::field(format!("{field}.given").as_str(), "is more than can be")));
    }
    check_count(&format!("{field}.holes"), copied.holes.len(), LOST_MARKS_MAX)
}

fn revision(entry: &KeyEntry) -> CopiedRevision {
    CopiedRevision {
        revision: entry.revision,
        created_at: entry.created_at,
        expires_at: entry.expires_at,
        owner: entry.owner.clone(),
        value: entry.value.as_ref().map(value).unwrap_or_default(),
        digest: entry.digest.map(|digest| Sha256(digest.own)),
        parent_digest: entry.digest.and_then(|digest| digest.parent).map(Sha256),
        fresh_until: entry.fresh_until,
        is_counted: entry.is_counted,
    }
}

fn read_revision(key: &KeyName, revision: CopiedRevision) -> Checked<KeyEntry> {
    let CopiedRevision { value, digest, parent_digest, .. } = revision;
    let parent = parent_digest.map(|Sha256(parent)| parent);
    Ok(KeyEntry {
        key: key.clone(),
        revision: revision.revision,
        created_at: revision.created_at,
        expires_at: revision.expires_at,
        owner: revision.owner,
        value: Some(read_value(value)?),
        digest: digest.map(|Sha256(own)| KeyDigest { own, parent }),
        fresh_until: revision.fresh_until,
        is_counted: revision.is_counted,
    })
}

pub(super) fn copied_key(copied: &CopiedKey) -> wire::CopiedKey {
    let CopiedKey { entry, past } = copied;
    let (key, past) = (entry.key.clone(), past.iter().map(revision).collect());
    wire::CopiedKey { key, now: revision(entry), past }
}

pub(super) fn read_key(copied: wire::CopiedKey) -> Checked<CopiedKey> {
    let wire::CopiedKey { key, now, past } = copied;
    check_count("past", past.len(), KEY_HISTORY_MAX as usize)?;
    let entry = read_revision(&key, now).map_err(|problem| of_item(&problem, "now"))?;
    Ok(CopiedKey { entry, past: at("past", past, |earlier| read_revision(&key, earlier))? })
}

pub(super) fn copied_keys(page: &CopiedKeys) -> KeysPage {
    KeysPage { keys: page.keys.iter().map(copied_key).collect(), next: page.next.clone() }
}

pub(super) fn read_keys(page: KeysPage) -> Checked<CopiedKeys> {
    Ok(CopiedKeys { keys: at("keys", page.keys, read_key)?, next: page.next })
}

pub(super) fn keys_part(part: &KeysPart) -> wire::KeysPart {
    let all = |keys: &[CopiedKey]| keys.iter().map(copied_key).collect();
    match part {
        KeysPart::First(keys) => wire::KeysPart::First(all(keys)),
        KeysPart::More(keys) => wire::KeysPart::More(all(keys)),
        KeysPart::Last(keys) => wire::KeysPart::Last(all(keys)),
        KeysPart::Changed(keys) => wire::KeysPart::Changed(
            keys.iter()
                .map(|(key, copied)| ChangedKey { key: key.clone(), copied: copied.as_ref().map(copied_key) })
                .collect(),
        ),
    }
}

pub(super) fn read_keys_part(field: &str, part: wire::KeysPart) -> Checked<KeysPart> {
    let all = |name: &str, keys: Vec<wire::CopiedKey>| {
        let field = format!("{field}.{name}");
        check_count(&field, keys.len(), COPY_ITEMS_MAX)?;
        at(&field, keys, read_key)
    };
    Ok(match part {
        wire::KeysPart::First(keys) => KeysPart::First(all("first", keys)?),
        wire::KeysPart::More(keys) => KeysPart::More(all("more", keys)?),
        wire::KeysPart::Last(keys) => KeysPart::Last(all("last", keys)?),
        wire::KeysPart::Changed(keys) => {
            let field = format!("{field}.changed");
            check_count(&field, keys.len(), COPY_ITEMS_MAX)?;
            KeysPart::Changed(at(&field, keys, |ChangedKey { key, copied }| {
                if copied.as_ref().is_some_and(|copied| copied.key != key) {
                    return Err(Box::new(Problem::field("copied.key", "is another key")));
                }
                Ok((key, copied.map(read_key).transpose()?))
            })?)
        }
    })
}

pub(super) fn ends(ends: Vec<(KeyName, Option<Timestamp>)>) -> Vec<CopiedEnd> {
    ends.into_iter().map(|(key, expires_at)| CopiedEnd { key, expires_at }).collect()
}

pub(super) fn read_ends(ends: Vec<CopiedEnd>) -> Vec<(KeyName, Option<Timestamp>)> {
    ends.into_iter().map(|CopiedEnd { key, expires_at }| (key, expires_at)).collect()
}
