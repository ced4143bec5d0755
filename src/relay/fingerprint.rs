//! What tells two messages under one idempotency key apart.
//!
//! The digest is stored for the length of the idempotency window, so nodes of different versions
//! compare each other's: a change of the encoding makes honest retries look like other messages.
//! The topic is part of it, so that a backend which confused two topics would refuse, and never answer
//! with a message of the other.

use sha2::{Digest as _, Sha256};

use tidemill_proto::TopicName;

use crate::storage::Body;

/// Returns a digest of everything the publisher sent.
///
/// Parts are prefixed with their lengths, so that no two messages have the same encoding.
pub(super) fn fingerprint(topic: &TopicName, body: &Body, ttl_seconds: Option<u64>) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        // An absent part is told from an empty one.
        hash.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(Some(topic.as_str().as_bytes()));
    part(Some(&body.payload));
    part(body.content_type.as_ref().map(|text| text.as_bytes()));
    part(body.metadata.as_deref());
    part(ttl_seconds.map(u64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let body = |payload: &'static str, content_type: Option<&str>, metadata: Option<&'static str>| Body {
            payload: Bytes::from_static(payload.as_bytes()),
            content_type: content_type.map(Box::from),
            metadata: metadata.map(|text| Bytes::from_static(text.as_bytes())),
        };
        let topic = |name: &str| TopicName::parse(name).expect("a name");
        let x = topic("x");
        let all = [
            fingerprint(&x, &body("{}", None, None), None),
            fingerprint(&x, &body("{}", Some(""), None), None),
            fingerprint(&x, &body("{}", Some("{}"), None), None),
            fingerprint(&x, &body("{}", None, Some("{}")), None),
            fingerprint(&x, &body("{}{}", None, None), None),
            fingerprint(&x, &body("{}", None, None), Some(1)),
            fingerprint(&topic("y"), &body("{}", None, None), None),
            fingerprint(&topic("xx"), &body("1", None, None), None),
            fingerprint(&x, &body("x1", None, None), None),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(all[0], fingerprint(&x, &body("{}", None, None), None));
    }
}
