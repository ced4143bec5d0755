//! How what waits for later is written: a line of how long it is returned once it is published (ms) and of the lengths
//! of payload, metadata, content type and order key, then these. What there is not is `-`. A script reads it when it publishes.

use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::OrderKey;

use crate::storage::Body;

/// Writes a body.
pub(super) fn write(body: &Body, ttl: Option<Duration>) -> Vec<u8> {
    let length = |part: Option<usize>| part.map_or_else(|| "-".to_owned(), |length| length.to_string());
    let line = format!(
        "{} {} {} {} {}\n",
        ttl.map_or_else(|| "-".to_owned(), |ttl| ttl.as_millis().to_string()),
        body.payload.len(),
        length(body.metadata.as_ref().map(Bytes::len)),
        length(body.content_type.as_ref().map(|kind| kind.len())),
        length(body.order_key.as_ref().map(|key| key.as_str().len())),
    );
    let mut written = Vec::with_capacity(line.len() + body.len_bytes());
    written.extend_from_slice(line.as_bytes());
    written.extend_from_slice(&body.payload);
    written.extend_from_slice(body.metadata.as_deref().unwrap_or_default());
    written.extend_from_slice(body.content_type.as_deref().unwrap_or_default().as_bytes());
    written.extend_from_slice(body.order_key.as_ref().map_or("", OrderKey::as_str).as_bytes());
    written
}

/// Reads a body; `None` if it has another form.
pub(super) fn read(written: &[u8]) -> Option<(Body, Option<Duration>)> {
    let end = written.iter().position(|byte| *byte == b'\n')?;
    let (line, mut rest) = (std::str::from_utf8(&written[..end]).ok()?, &written[end + 1..]);
    let mut numbers = line.split(' ').map(|text| match text {
        "-" => Some(None),
        digits => digits.parse::<u64>().ok().map(Some),
    });
    let ttl = numbers.next()??.map(Duration::from_millis);
    let mut part = || -> Option<Option<&[u8]>> {
        let Some(length) = numbers.next()?? else { return Some(None) };
        let (part, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = behind;
        Some(Some(part))
    };
    let (payload, metadata, content_type, order_key) = (part()??, part()?, part()?, part()?);
    let content_type = match content_type {
        Some(kind) => Some(std::str::from_utf8(kind).ok()?.into()),
        None => None,
    };
    let order_key = match order_key {
        Some(key) => Some(OrderKey::parse_bytes(key).ok()?),
        None => None,
    };
    let metadata = metadata.map(Bytes::copy_from_slice);
    Some((Body { payload: Bytes::copy_from_slice(payload), content_type, metadata, order_key }, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let body =
            |payload: &'static [u8], content_type: Option<&str>, metadata: Option<&'static str>| Body {
                payload: Bytes::from_static(payload),
                content_type: content_type.map(Box::from),
                metadata: metadata.map(|text| Bytes::from_static(text.as_bytes())),
                order_key: None,
            };
        let order_key = Some(OrderKey::parse("a \u{e9}").expect("a key"));
        for body in [
            body(b"", Some("a/b"), None),
            body(b"\n-\xff 1\n", Some("x"), Some("{}")),
            body(b"{\"a\":\n1}", None, Some("{\"b\":2}")),
            Body { order_key, ..body(b"1", None, None) },
        ] {
            for ttl in [None, Some(Duration::from_millis(1_500))] {
                assert_eq!(read(&write(&body, ttl)), Some((body.clone(), ttl)));
            }
        }
        for other in [
            &b""[..],
            b"x",
            b"- 5 - - -\nabc",
            b"- x - - -\nabc",
            b"5\n",
            b"- 1 - 1 -\na\xff",
            b"- 1 - - 1\na\n",
        ] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
