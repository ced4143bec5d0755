//! Numbers and places in a topic, as they are written on the command line, and what to write instead of what is
//! wrong. It must not know commands.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tidemill_proto::access::LIFE_SECONDS_MAX;
use tidemill_proto::limits::{RETENTION_SECONDS_MAX, TTL_SECONDS_MAX};
use tidemill_proto::schedule::DELAY_MAX;
use tidemill_proto::{Delivery, Since, Timestamp, duration};

/// How a duration is written.
const IN_WORDS: &str = "write seconds, or a number with a unit (`ms`, `s`, `m`, `h`, `d`), as in `30s`";

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

/// Reads a number that may be 0.
pub(super) fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "write a whole number from 0 on".to_owned())
}

/// Reads a time to live.
pub(super) fn ttl(text: &str) -> Result<u64, String> {
    seconds(text, TTL_SECONDS_MAX)
}

/// Reads how long something is kept.
pub(super) fn kept(text: &str) -> Result<u64, String> {
    seconds(text, RETENTION_SECONDS_MAX)
}

/// Reads after how long something ends.
pub(super) fn life(text: &str) -> Result<u64, String> {
    seconds(text, LIFE_SECONDS_MAX)
}

fn seconds(text: &str, max: u64) -> Result<u64, String> {
    duration::whole_seconds(text, max).map_err(|_| {
        let days = max / 86_400;
        format!("write whole seconds, or a number with a unit (`s`, `m`, `h`, `d`), as in `90m`; {days} days at most")
    })
}

/// Reads a duration.
#[cfg(feature = "valkey")]
pub(super) fn time(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|_| IN_WORDS.to_owned())
}

/// Checks that a text is a duration, and keeps it as it was written.
pub(super) fn span(text: &str) -> Result<String, String> {
    match duration::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(IN_WORDS.to_owned()),
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
        assert_eq!((count("1"), number::<u32>("0")), (Ok(1), Ok(0)));
        for refused in [count("0"), count("-1"), count("x"), number("x"), number("-1")] {
            let refused = refused.expect_err("it is none");
            assert!(refused.starts_with("write a whole number "), "{refused}");
        }
    }

    #[test]
    fn whole_seconds_may_have_a_unit() {
        assert_eq!(
            (ttl("3600"), ttl("1h"), kept("5m"), life("30d")),
            (Ok(3_600), Ok(3_600), Ok(300), Ok(2_592_000))
        );
        for refused in [ttl("0"), ttl("soon"), ttl("1.5"), ttl("4000d"), kept("-1s"), life("")] {
            let refused = refused.expect_err("it is none");
            assert!(refused.starts_with("write whole seconds, or a number with a unit "), "{refused}");
        }
    }

    #[cfg(feature = "valkey")]
    #[test]
    fn a_duration_is_of_seconds_or_has_a_unit() {
        assert_eq!(time("300"), time("5m"));
        assert!(time("soon").is_err());
    }

    #[test]
    fn durations_stay_as_they_were_written() {
        assert_eq!((span("30"), span("200ms")), (Ok("30".to_owned()), Ok("200ms".to_owned())));
        assert!(span("soon").expect_err("it is none").starts_with("write seconds, or "));
    }
}
