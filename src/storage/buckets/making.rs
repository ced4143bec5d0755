//! Which changes make a bucket: those that make a key in it. All others are answered as by one that has no keys, and leave
//! nothing behind.

use super::{KeyChange, KeyChanged, KeyCondition, KeyEdit, KeyRefusal, KeysChanged};

/// Returns what comes of changes where there is no bucket; `None` where they make a key, and so their bucket.
#[must_use]
pub fn changed_without_bucket(changes: &[KeyChange]) -> Option<KeysChanged> {
    let refused = changes.iter().enumerate().find_map(|(at, change)| Some((at, refusal_of(change)?)));
    if let Some((at, refusal)) = refused {
        return Some(KeysChanged::Refused { at, refusal });
    }
    if changes.iter().any(|change| !matches!(change.edit, KeyEdit::Delete)) {
        return None;
    }
    let nothing = KeyChanged { revision: None, is_new: false, number: None, expires_at: None };
    Some(KeysChanged::Made { changed: vec![nothing; changes.len()], replayed: false })
}

/// Returns why a change of a key that is not there is refused.
fn refusal_of(KeyChange { condition, edit, .. }: &KeyChange) -> Option<KeyRefusal> {
    match condition {
        KeyCondition::Anything | KeyCondition::Absent => {}
        KeyCondition::Present | KeyCondition::Revision(_) | KeyCondition::Filling(_) => {
            return Some(KeyRefusal::Condition(None));
        }
    }
    match edit {
        KeyEdit::Put { .. } | KeyEdit::Delete => None,
        KeyEdit::Increment { by, min, max, .. } => {
            let fits = min.is_none_or(|min| *by >= min) && max.is_none_or(|max| *by <= max);
            (!fits).then_some(KeyRefusal::OutOfRange(0))
        }
    }
}
