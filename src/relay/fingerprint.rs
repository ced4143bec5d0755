//! What tells two messages under one idempotency key apart.
//!
//! The digest is stored for the length of the idempotency window, so nodes of different versions
//! compare each other's: a change of the encoding makes honest retries look like other messages.
//! Where a trace is noted in the metadata it is no part of it: whoever sends a message again does so in a new
//! span (W3C Trace Context), and it is still the same message.
//! The topic is part of it, so that a backend which confused two topics would refuse, and never answer
//! with a message of the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use memchr::memmem;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use tidemill_proto::{BucketName, Delivery, TopicName};

use crate::storage::{Body, KeyChange, KeyCondition, KeyEdit, Unique};

/// The members of metadata that say which trace a message is part of.
pub(crate) const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// Parts on their way into a digest. Each is prefixed with its length, so that no two lists of parts have the same
/// encoding.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, bytes: Option<&[u8]>) {
        // An absent part is told from an empty one.
        self.0.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        self.0.update(bytes.unwrap_or_default());
    }

    fn digest(self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0.finalize()[..16]);
        half
    }
}

/// Returns a digest of everything that was sent to change keys. Of one that a lease keeps, that is told by a digest of the
/// lease, and not by what that has left.
pub(super) fn fingerprint_of_changes(
    bucket: &BucketName,
    changes: &[KeyChange],
    lease: Option<&[u8; 8]>,
) -> [u8; 16] {
    let mut parts = Parts(Sha256::new());
    parts.add(Some(b"keys"));
    parts.add(Some(bucket.as_str().as_bytes()));
    for KeyChange { key, condition, edit } in changes {
        parts.add(Some(key.as_str().as_bytes()));
        match condition {
            KeyCondition::Anything => parts.add(None),
            KeyCondition::Absent => parts.add(Some(b"absent")),
            KeyCondition::Present => parts.add(Some(b"present")),
            KeyCondition::Revision(revision) => parts.add(Some(revision.to_string().as_bytes())),
            KeyCondition::Filling(token) => {
                parts.add(Some(b"filling"));
                parts.add(Some(&token.0));
            }
        }
        let millis = |ttl: Option<Duration>| ttl.map(|ttl| ttl.as_millis().to_le_bytes());
        match edit {
            KeyEdit::Put { value, ttl, fresh, owner } => {
                parts.add(Some(b"put"));
                parts.add(Some(&value.bytes));
                parts.add(value.content_type.as_ref().map(|text| text.as_bytes()));
                match lease {
                    None => parts.add(millis(*ttl).as_ref().map(<[u8; 16]>::as_slice)),
                    Some(lease) => parts.add(Some(lease)),
                }
                parts.add(owner.as_ref().map(|owner| owner.as_str().as_bytes()));
                // Of a value that is always fresh there is no such part.
                if let Some(fresh) = fresh {
                    parts.add(Some(b"fresh"));
                    parts.add(Some(&fresh.as_millis().to_le_bytes()));
                }
            }
            KeyEdit::Delete => parts.add(Some(b"delete")),
            KeyEdit::Increment { by, min, max, ttl } => {
                parts.add(Some(b"increment"));
                for number in [Some(*by), *min, *max] {
                    parts.add(number.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
                }
                parts.add(millis(*ttl).as_ref().map(<[u8; 16]>::as_slice));
            }
        }
    }
    parts.digest()
}

/// Returns a digest of everything the publisher sent, but for the trace.
pub(super) fn fingerprint(
    topic: &TopicName,
    body: &Body,
    ttl_seconds: Option<u64>,
    delivery: Option<Delivery>,
    unique: Option<&Unique>,
) -> [u8; 16] {
    let mut parts = Parts(Sha256::new());
    let mut part = |bytes: Option<&[u8]>| parts.add(bytes);
    part(Some(topic.as_str().as_bytes()));
    part(Some(&body.payload));
    part(body.content_type.as_ref().map(|text| text.as_bytes()));
    part(body.metadata.as_deref().and_then(without_trace).as_deref());
    part(ttl_seconds.map(u64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
    // Of a message for now, of one without an order key, and of one that is not unique there is no such part.
    match delivery {
        None => {}
        Some(Delivery::After(delay)) => {
            part(Some(b"after"));
            part(Some(&u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).to_le_bytes()));
        }
        Some(Delivery::At(at)) => {
            part(Some(b"at"));
            part(Some(&at.as_millis().to_le_bytes()));
        }
    }
    if let Some(key) = &body.order_key {
        part(Some(b"order_key"));
        part(Some(key.as_str().as_bytes()));
    }
    if let Some(Unique { group, key }) = unique {
        part(Some(b"unique"));
        part(Some(group.as_str().as_bytes()));
        part(Some(key.as_bytes()));
    }
    parts.digest()
}

/// Returns metadata without the members of a trace; `None` if nothing is left.
fn without_trace(metadata: &[u8]) -> Option<Cow<'_, [u8]>> {
    // They begin with the same letters, and most metadata has neither.
    if memmem::find(metadata, b"\"trace").is_none() {
        return Some(Cow::Borrowed(metadata));
    }
    let Ok(mut members) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(metadata) else {
        return Some(Cow::Borrowed(metadata));
    };
    let with_trace = members.len();
    members.retain(|name, _| !TRACE.contains(&name.as_str()));
    if members.len() == with_trace {
        return Some(Cow::Borrowed(metadata));
    }
    if members.is_empty() {
        return None;
    }
    serde_json::to_vec(&members).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemill_proto::work::GroupName;
    use tidemill_proto::{KeyName, MessageId, OrderKey, Timestamp};

    use super::*;
    use crate::storage::{FillToken, KeyValue};

    #[test]
    fn everything_that_is_said_of_a_change_counts() {
        let name = |text: &str| KeyName::parse(text).expect("a name");
        let change = |condition, edit| KeyChange { key: name("k"), condition, edit };
        let put = |bytes: &'static str, kind: Option<&str>, ttl: Option<u64>, owner: Option<&str>| {
            let bytes = Bytes::from_static(bytes.as_bytes());
            let value = KeyValue { bytes, content_type: kind.map(Box::from) };
            KeyEdit::Put { value, ttl: ttl.map(Duration::from_millis), fresh: None, owner: owner.map(name) }
        };
        let fresh = |ms| {
            let value = KeyValue { bytes: Bytes::from_static(b"1"), content_type: None };
            KeyEdit::Put { value, ttl: None, fresh: Some(Duration::from_millis(ms)), owner: None }
        };
        let add = |by, min, max, ttl: Option<u64>| KeyEdit::Increment {
            by,
            min,
            max,
            ttl: ttl.map(Duration::from_millis),
        };
        let any = KeyCondition::Anything;
        let one = change(any, put("1", None, None, None));
        let all = [
            vec![one.clone()],
            vec![KeyChange { key: name("j"), ..one.clone() }],
            vec![one.clone(), change(any, KeyEdit::Delete)],
            vec![change(any, KeyEdit::Delete), one.clone()],
            vec![change(KeyCondition::Absent, put("1", None, None, None))],
            vec![change(KeyCondition::Present, put("1", None, None, None))],
            vec![change(KeyCondition::Revision(MessageId::new(1, 0)), put("1", None, None, None))],
            vec![change(KeyCondition::Filling(FillToken([0; 16])), put("1", None, None, None))],
            vec![change(KeyCondition::Filling(FillToken([1; 16])), put("1", None, None, None))],
            vec![change(any, fresh(1))],
            vec![change(any, fresh(2))],
            vec![change(any, put("2", None, None, None))],
            vec![change(any, put("1", Some(""), None, None))],
            vec![change(any, put("1", None, Some(1), None))],
            vec![change(any, put("1", None, None, Some("ann")))],
            vec![change(any, KeyEdit::Delete)],
            vec![change(any, add(1, None, None, None))],
            vec![change(any, add(2, None, None, None))],
            vec![change(any, add(1, Some(1), None, None))],
            vec![change(any, add(1, None, Some(1), None))],
            vec![change(any, add(1, None, None, Some(1)))],
        ];
        let bucket = BucketName::parse("b").expect("a name");
        let all: Vec<_> = all.iter().map(|changes| fingerprint_of_changes(&bucket, changes, None)).collect();
        for (at, of) in all.iter().enumerate() {
            assert!(!all[..at].contains(of), "{at}");
        }
        assert_eq!(all[0], fingerprint_of_changes(&bucket, std::slice::from_ref(&one), None));
        let other = BucketName::parse("c").expect("a name");
        assert_ne!(all[0], fingerprint_of_changes(&other, std::slice::from_ref(&one), None));
        // What a lease has left is no part of it, and which lease it is.
        let under = |ttl, lease: u8| {
            let put = change(any, put("1", None, Some(ttl), None));
            fingerprint_of_changes(&bucket, &[put], Some(&[lease; 8]))
        };
        assert_eq!(under(5, 1), under(4, 1));
        assert_ne!(under(5, 1), under(5, 2));
        assert!(!all.contains(&under(1, 1)));
    }

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let body = |payload: &'static str, content_type: Option<&str>, metadata: Option<&'static str>| Body {
            payload: Bytes::from_static(payload.as_bytes()),
            content_type: content_type.map(Box::from),
            metadata: metadata.map(|text| Bytes::from_static(text.as_bytes())),
            order_key: None,
        };
        let order_key = OrderKey::parse("{}").ok();
        let topic = |name: &str| TopicName::parse(name).expect("a name");
        let x = topic("x");
        let unique = |group: &str, key: &str| Unique {
            group: GroupName::parse(group).expect("a name"),
            key: key.into(),
        };
        let all = [
            fingerprint(&x, &body("{}", None, None), None, None, None),
            fingerprint(&x, &body("{}", Some(""), None), None, None, None),
            fingerprint(&x, &body("{}", Some("{}"), None), None, None, None),
            fingerprint(&x, &body("{}", None, Some("{}")), None, None, None),
            fingerprint(&x, &Body { order_key, ..body("{}", None, None) }, None, None, None),
            fingerprint(&x, &body("{}{}", None, None), None, None, None),
            fingerprint(&x, &body("{}", None, None), Some(1), None, None),
            fingerprint(&x, &body("{}", None, None), None, None, Some(&unique("g", "k"))),
            fingerprint(&x, &body("{}", None, None), None, None, Some(&unique("gk", ""))),
            fingerprint(&topic("y"), &body("{}", None, None), None, None, None),
            fingerprint(
                &x,
                &body("{}", None, None),
                None,
                Some(Delivery::After(Duration::from_millis(5))),
                None,
            ),
            fingerprint(
                &x,
                &body("{}", None, None),
                None,
                Some(Delivery::At(Timestamp::from_millis(5))),
                None,
            ),
            fingerprint(&topic("xx"), &body("1", None, None), None, None, None),
            fingerprint(&x, &body("x1", None, None), None, None, None),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(all[0], fingerprint(&x, &body("{}", None, None), None, None, None));
    }

    #[test]
    fn a_trace_is_no_part_of_it() {
        let of = |metadata: Option<&'static str>| {
            let metadata = metadata.map(|text| Bytes::from_static(text.as_bytes()));
            let body =
                Body { payload: Bytes::from_static(b"1"), content_type: None, metadata, order_key: None };
            fingerprint(&TopicName::parse("x").expect("a name"), &body, None, None, None)
        };
        assert_eq!(of(Some(r#"{"traceparent":"00-1","tracestate":"a=b"}"#)), of(None));
        assert_eq!(of(Some(r#"{"a":1,"traceparent":"00-1"}"#)), of(Some(r#"{"a":1}"#)));
        assert_eq!(of(Some(r#"{"traceparent":"00-2","a":1}"#)), of(Some(r#"{ "a":1, "tracestate":"00-1"}"#)));
        for other in [
            None,
            Some("{}"),
            Some(r#"{"a":2}"#),
            Some(r#"{"a":1,"trace":2}"#),
            Some(r#"{"a":{"traceparent":1}}"#),
        ] {
            assert_ne!(of(other), of(Some(r#"{"a":1}"#)), "{other:?}");
        }
    }
}
