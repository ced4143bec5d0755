//! Heads of answers as bytes, where the HTTP library does not write them: those of live streams, and of
//! publishes that took the shortcut.

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
    let version: &[u8] = if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
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
    fn a_date_is_of_its_own_second() {
        let date = |ms| with_date(Timestamp::from_millis(ms), str::to_owned);
        assert_eq!(date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(784_111_778_000), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
