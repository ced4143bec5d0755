//! Answers as bytes, where the HTTP library does not write them: heads of live streams, and whole answers
//! to publishes that took the fast path and to connections that are refused.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderMap, StatusCode, Version};
use tidemill_proto::Timestamp;

thread_local! {
    /// The date written last, with its second: it is asked for far more often than it changes.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Writes a status line and headers, and the empty line behind them.
pub(crate) fn write(out: &mut Vec<u8>, version: Version, status: StatusCode, headers: &HeaderMap) {
    write_status(out, version, status);
    for (name, value) in headers {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// An answer whose whole body is at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    /// The status.
    pub(crate) status: StatusCode,
    /// Header lines, but for those below: whole ones, or a beginning and what stands behind it. Each
    /// starts with the end of the line before it, so that few pieces are copied.
    pub(crate) lines: &'a [(&'a str, &'a [u8])],
    /// The time for the header `Date`, where there is one.
    pub(crate) now: Option<Timestamp>,
    /// Whether the connection ends with this answer.
    pub(crate) closing: bool,
    /// The body.
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// Returns the bytes.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let lines_bytes: usize = self.lines.iter().map(|(start, rest)| start.len() + rest.len()).sum();
        let mut out = Vec::with_capacity(160 + lines_bytes + self.body.len());
        if self.status == StatusCode::CREATED {
            out.extend_from_slice(b"HTTP/1.1 201 Created");
        } else {
            write_status(&mut out, Version::HTTP_11, self.status);
        }
        for (start, rest) in self.lines {
            out.extend_from_slice(start.as_bytes());
            out.extend_from_slice(rest);
        }
        if self.closing {
            out.extend_from_slice(b"\r\nconnection: close");
        }
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
        if let Some(now) = self.now {
            out.extend_from_slice(b"\r\ndate: ");
            with_date(now, |date| out.extend_from_slice(date.as_bytes()));
        }
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(self.body);
        out
    }
}

/// Writes a status line, but for its end.
fn write_status(out: &mut Vec<u8>, version: Version, status: StatusCode) {
    let version: &[u8] = if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
}

/// Hands the date of `now` to `take`, as a `Date` header has it.
pub(super) fn with_date<T>(now: Timestamp, take: impl FnOnce(&str) -> T) -> T {
    let second = now.as_millis() / 1_000;
    DATE.with_borrow_mut(|(of, date)| {
        if *of != second {
            *date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *of = second;
        }
        take(date)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_its_length_and_whether_it_is_the_last() {
        let answer = Answer {
            status: StatusCode::CREATED,
            lines: &[("\r\ncontent-type: ", b"application/json")],
            now: Some(Timestamp::from_millis(784_111_777_000)),
            closing: false,
            body: b"{}",
        };
        let text = |answer: Answer<'_>| String::from_utf8(answer.to_bytes()).expect("text");
        assert_eq!(
            text(answer),
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 2\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n{}"
        );
        assert!(text(Answer { closing: true, ..answer }).contains("\r\nconnection: close\r\n"));
    }

    #[test]
    fn a_date_is_of_its_own_second() {
        let date = |ms| with_date(Timestamp::from_millis(ms), str::to_owned);
        assert_eq!(date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(784_111_778_000), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
