//! Numbers and places in a topic, as they are written on the command line, and what to write instead of what is
//! wrong. It must not know commands.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tidemill_proto::limits::TTL_SECONDS_MAX;
use tidemill_proto::schedule::DELAY_MAX;
use tidemill_proto::{Delivery, Since, Timestamp, duration};

/// Reads a place in a topic.
pub(super) fn parse_point<P: FromStr<Err: Display>>(text: &str) -> Result<P, String> {
    text.parse().map_err(|error: P::Err| {
        // The most frequent mistake: a minus looks like a flag.
        let ago = format!("-{text}");
        let meant = Since::parse(&ago).map(|_| format!("did you mean `{ago}`? It "));
        format!("{}{error}", meant.unwrap_or_default())
    })
}

/// Checks that a text is a place in a topic, and keeps it as it was written.
pub(super) fn point(text: &str) -> Result<String, String> {
    parse_point::<Since>(text).map(|_| text.to_owned())
}

/// Reads how many there are to be.
pub(super) fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "write a whole number from 1 on".to_owned())
}

/// Reads how many seconds there are to be.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| {
        // The most frequent mistake: elsewhere a duration may have a unit.
        let meant = duration::parse(text).ok().map(|span| span.as_secs()).filter(|seconds| *seconds > 0);
        let meant = meant
            .map_or_else(|| "as in `3600` for an hour".to_owned(), |seconds| format!("here `{seconds}`"));
        format!("write a whole number of seconds without a unit, {meant}")
    })
}

/// Reads a time to live.
pub(super) fn ttl(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|seconds| (1..=TTL_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        format!("write a whole number of seconds from 1 to {TTL_SECONDS_MAX}, as in `3600` for an hour")
    })
}

/// Checks that a text is a duration, and keeps it as it was written.
pub(super) fn span(text: &str) -> Result<String, String> {
    match duration::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("write seconds, or a number with a unit (`ms`, `s`, `m`, `h`, `d`), as in `30s`".to_owned())
        }
    }
}

/// Reads how long from now something is published.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    Delivery::parse_delay(text).map_err(|_| {
        let days = DELAY_MAX.as_secs() / 86_400;
        format!("write a duration of at most {days} days, as in `90s`, `15m` or `2h`")
    })
}

/// Reads when something is published.
pub(super) fn at(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ago_without_its_minus_is_known() {
        assert_eq!(point("-10m"), Ok("-10m".to_owned()));
        let refused = point("10m").expect_err("it has no minus");
        assert!(refused.starts_with("did you mean `-10m`? "), "{refused}");
        let refused = point("soon").expect_err("it is no time");
        assert!(refused.starts_with("is not a cursor"), "{refused}");
    }

    #[test]
    fn numbers_are_asked_for_in_plain_words() {
        assert_eq!((count("1"), ttl("3600")), (Ok(1), Ok(3_600)));
        for refused in [count("0"), count("-1"), count("x"), ttl("0"), ttl("1h"), ttl("99999999999999")] {
            let refused = refused.expect_err("it is none");
            assert!(refused.starts_with("write a whole number "), "{refused}");
        }
    }

    #[test]
    fn seconds_with_a_unit_are_answered_with_what_was_meant() {
        assert_eq!(seconds("300"), Ok(300));
        assert_eq!(
            seconds("5m"),
            Err("write a whole number of seconds without a unit, here `300`".to_owned())
        );
        for text in ["0", "-1", "soon", "200ms"] {
            let refused = seconds(text).expect_err(text);
            assert!(refused.ends_with("as in `3600` for an hour"), "{text}: {refused}");
        }
    }

    #[test]
    fn durations_stay_as_they_were_written() {
        assert_eq!((span("30"), span("200ms")), (Ok("30".to_owned()), Ok("200ms".to_owned())));
        assert!(span("soon").expect_err("it is none").starts_with("write seconds, or "));
    }
}
