//! When recurring messages come: cron patterns, read in a time zone.
//!
//! Of a pattern whose hours and minutes are fixed, a time that the clock of the zone leaves out comes at the first one
//! behind it, and one that the clock shows twice comes once, the first time. A pattern with `*` or a step in its hours
//! or minutes comes as time passes.

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use tidemill_proto::{Problem, Timestamp};

use super::Failure;
use crate::storage::{Recurrence, RecurringRule};

/// Reads cron patterns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cron;

impl Cron {
    /// Checks that a rule can be read, and that its time comes.
    pub(super) fn check(cron: &str, timezone: &str, now: Timestamp) -> Result<(), Failure> {
        let pattern = parse(cron).map_err(|_| {
            let wrong = what_is_wrong(cron);
            Problem::field("cron", format_args!("is no cron pattern: {wrong}; it has five fields, as `*/5 * * * *`, or six with seconds in front"))
        })?;
        let zone = TimeZone::get(timezone).map_err(|_| {
            let rule = "is the name of no time zone; it is one of the IANA's, as `Europe/Berlin`";
            Problem::field("timezone", rule)
        })?;
        match next(&pattern, zone, now) {
            Some(_) => Ok(()),
            None => Err(Problem::field("cron", "never comes").into()),
        }
    }
}

impl Recurrence for Cron {
    fn next(&self, rule: &RecurringRule, after: Timestamp) -> Option<Timestamp> {
        let pattern = parse(&rule.cron).ok()?;
        next(&pattern, TimeZone::get(&rule.timezone).ok()?, after)
    }
}

fn parse(cron: &str) -> Result<croner::Cron, croner::errors::CronError> {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build().parse(cron)
}

/// The fields of a pattern, and what they may be.
const FIELDS: [(&str, &str); 6] = [
    ("seconds", "0 to 59"),
    ("minutes", "0 to 59"),
    ("hours", "0 to 23"),
    ("days of the month", "1 to 31"),
    ("months", "1 to 12, or JAN to DEC"),
    ("days of the week", "0 to 7, or SUN to SAT"),
];

/// Returns what is wrong with a pattern that cannot be read: the first of its fields that cannot, where there is one.
fn what_is_wrong(cron: &str) -> String {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let names = match fields.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        count => return format!("it has {count} field{}", if count == 1 { "" } else { "s" }),
    };
    let is_wrong = |at: &usize| {
        let alone = (0..fields.len()).map(|other| if other == *at { fields[other] } else { "*" });
        parse(&alone.collect::<Vec<_>>().join(" ")).is_err()
    };
    match (0..fields.len()).find(is_wrong) {
        Some(at) => {
            let (name, values) = names[at];
            format!(
                "its {name} are `{}`, and may be {values}, a list (`1,3`), a range (`1-3`), `*`, or a step (`*/2`)",
                fields[at]
            )
        }
        None => "its fields do not go together".to_owned(),
    }
}

fn next(pattern: &croner::Cron, zone: TimeZone, after: Timestamp) -> Option<Timestamp> {
    let after = jiff::Timestamp::from_millisecond(i64::try_from(after.as_millis()).ok()?).ok()?;
    let next = pattern.find_next_occurrence(&after.to_zoned(zone), false).ok()?.timestamp();
    // Of a second that has begun, the next is behind it.
    let next = Timestamp::from_millis(u64::try_from(next.as_millisecond()).ok()?);
    Some(next).filter(|next| next.as_millis() > u64::try_from(after.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_named_in_our_words() {
        for (cron, expected) in [
            ("", "it has 0 fields"),
            ("soon", "it has 1 field"),
            ("0 0 1 1 1 1 2030", "it has 7 fields"),
            ("61 * * * *", "its minutes are `61`, and may be 0 to 59"),
            ("0 25 * * *", "its hours are `25`, and may be 0 to 23"),
            ("0 0 1 13 *", "its months are `13`, and may be 1 to 12"),
            ("0 0 * * 9", "its days of the week are `9`, and may be 0 to 7"),
            ("60 * * * * *", "its seconds are `60`, and may be 0 to 59"),
            ("* * * * x", "its days of the week are `x`"),
        ] {
            let refused = Cron::check(cron, "UTC", Timestamp::from_millis(0)).expect_err(cron);
            let detail = &refused.problem().detail;
            assert!(detail.contains(expected), "{cron}: {detail}");
            assert!(!detail.contains("omponent") && !detail.contains(";;"), "{detail}");
        }
    }

    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let rule = RecurringRule { cron: cron.into(), timezone: zone.into() };
        let mut at = Timestamp::parse(from).expect(from);
        let mut times = Vec::new();
        for _ in 0..count {
            at = Cron.next(&rule, at).expect("it comes again");
            times.push(at.to_string().replace(":00.000Z", "Z"));
        }
        times
    }

    #[test]
    fn a_time_that_does_not_exist_comes_once_at_the_next_and_one_that_exists_twice_comes_once() {
        for (cron, zone, from, expected) in [
            // Berlin, 29 March 2026: 02:00 to 03:00 is left out.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                &["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"][..],
            ),
            (
                "0 3 * * *",
                "Europe/Berlin",
                "2026-03-28T03:00:00Z",
                &["2026-03-29T01:00Z", "2026-03-30T01:00Z"],
            ),
            // Berlin, 25 October 2026: 02:00 to 03:00 comes twice.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-24T12:00:00Z",
                &["2026-10-25T00:30Z", "2026-10-26T01:30Z"],
            ),
            // As time passes: each quarter of an hour once, in both of the hours that have one name.
            (
                "*/15 * * * *",
                "Europe/Berlin",
                "2026-10-25T00:40:00Z",
                &["2026-10-25T00:45Z", "2026-10-25T01:00Z", "2026-10-25T01:15Z", "2026-10-25T01:30Z"],
            ),
            (
                "*/30 * * * *",
                "Europe/Berlin",
                "2026-03-29T00:40:00Z",
                &["2026-03-29T01:00Z", "2026-03-29T01:30Z"],
            ),
            // New York, 8 March and 1 November 2026.
            (
                "15 2 * * *",
                "America/New_York",
                "2026-03-07T12:00:00Z",
                &["2026-03-08T07:00Z", "2026-03-09T06:15Z"],
            ),
            (
                "15 1 * * *",
                "America/New_York",
                "2026-10-31T12:00:00Z",
                &["2026-11-01T05:15Z", "2026-11-02T06:15Z"],
            ),
            // Lord Howe's clock goes by half an hour: 4 October 2026, 02:00 to 02:30 is left out.
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T00:00:00Z",
                &["2026-10-03T15:30Z", "2026-10-04T15:15Z"],
            ),
            ("30 2 * * *", "UTC", "2026-03-28T12:00:00Z", &["2026-03-29T02:30Z", "2026-03-30T02:30Z"]),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
            ("@daily", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-01T18:30Z", "2026-01-02T18:30Z"]),
        ] {
            assert_eq!(times(cron, zone, from, expected.len()), expected, "{cron} in {zone} from {from}");
        }
    }

    #[test]
    fn seconds_may_stand_in_front_and_the_next_is_always_later() {
        let rule = RecurringRule { cron: "*/10 * * * * *".into(), timezone: "UTC".into() };
        for (after, next) in [(0, 10_000), (1, 10_000), (9_999, 10_000), (10_000, 20_000), (10_001, 20_000)] {
            let found = Cron.next(&rule, Timestamp::from_millis(after));
            assert_eq!(found, Some(Timestamp::from_millis(next)), "after {after}");
        }
    }

    #[test]
    fn nonsense_names_its_field() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").expect("a time");
        for (cron, timezone, field) in [
            ("", "UTC", "cron"),
            ("* * * *", "UTC", "cron"),
            ("60 * * * *", "UTC", "cron"),
            ("* * * * * * *", "UTC", "cron"),
            ("every minute", "UTC", "cron"),
            ("0 0 30 2 *", "UTC", "cron"),
            ("* * * * *", "Mars/Olympus", "timezone"),
            ("* * * * *", "", "timezone"),
            ("* * * * *", "../../etc/passwd", "timezone"),
        ] {
            let failure = Cron::check(cron, timezone, now).expect_err(cron);
            assert_eq!(failure.problem().field.as_deref(), Some(field), "{cron} {timezone}");
        }
    }
}
