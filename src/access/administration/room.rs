//! Room for what anybody may begin: so much of it at one time. Where that is reached, who comes from elsewhere gets the
//! place of the oldest from the address that has most of them, so that nobody takes all places from others.
//!
//! It must not know what was begun.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tidemill_proto::{Code, Problem, Timestamp};

/// What somebody has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun<K> {
    pub(super) id: K,
    /// From which address; of IPv6, from which network of a customer.
    pub(super) from: Option<IpAddr>,
    /// When it is over by itself.
    pub(super) expires_at: Timestamp,
}

/// Returns what gives way to one that is begun from an address, if something has to.
///
/// # Errors
/// There are `most` of these things already, and no other address has more of them: `overloaded`, with when the
/// first of them is over.
pub(super) fn make_room<K: Copy>(
    things: &str,
    most: usize,
    begun: &[Begun<K>],
    from: Option<IpAddr>,
    now: Timestamp,
) -> Result<Option<K>, Box<Problem>> {
    if begun.len() < most {
        return Ok(None);
    }
    let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for one in begun {
        *counts.entry(one.from).or_default() += 1;
    }
    // With one more, it would have as many as an address that has one more now.
    let own = counts.get(&from).copied().unwrap_or(0);
    let has_more = |one: &&Begun<K>| counts.get(&one.from).is_some_and(|count| *count > own + 1);
    let count = |one: &&Begun<K>| counts.get(&one.from).copied().unwrap_or(0);
    let oldest = |one: &&Begun<K>| (std::cmp::Reverse(count(one)), one.expires_at);
    if let Some(one) = begun.iter().filter(has_more).min_by_key(oldest) {
        return Ok(Some(one.id));
    }
    let first = begun.iter().map(|one| one.expires_at).min().unwrap_or(now);
    let wait = Duration::from_millis(first.as_millis().saturating_sub(now.as_millis()));
    let seconds = wait.as_secs() + 1;
    let detail = format!(
        "there are {most} {things}, as many as may be, and {own} of them from this address; the first is over in {seconds} s"
    );
    Err(Box::new(Problem { retry_after_seconds: Some(seconds), ..Problem::new(Code::Overloaded, detail) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    /// Begins one thing after the other from addresses, and returns whose are there at the end.
    fn begin(most: usize, addresses: &[u8]) -> (Vec<u8>, usize) {
        let address = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let (mut begun, mut refused) = (Vec::<Begun<u64>>::new(), 0);
        for (id, last) in (0..).zip(addresses) {
            match make_room("things", most, &begun, address(*last), NOW) {
                Ok(gives_way) => {
                    begun.retain(|one| Some(one.id) != gives_way);
                    let expires_at = NOW.saturating_add(Duration::from_secs(id));
                    begun.push(Begun { id, from: address(*last), expires_at });
                }
                Err(problem) => {
                    assert!(problem.retry_after_seconds.is_some_and(|seconds| seconds >= 1));
                    refused += 1;
                }
            }
            assert!(begun.len() <= most);
        }
        let count = |last| begun.iter().filter(|one| one.from == address(last)).count();
        let counts = (0..=u8::MAX).flat_map(|last| std::iter::repeat_n(last, count(last)));
        (counts.collect(), refused)
    }

    #[test]
    fn nobody_takes_all_places_from_others() {
        assert_eq!(begin(4, &[1, 1, 1]), (vec![1, 1, 1], 0));
        assert_eq!(begin(4, &[1, 1, 1, 1, 1, 1]), (vec![1, 1, 1, 1], 2), "who has all of it waits");
        assert_eq!(begin(4, &[1, 1, 1, 1, 2]), (vec![1, 1, 1, 2], 0), "who has none gets a place");
        assert_eq!(begin(4, &[1, 1, 1, 1, 2, 2, 2, 1]), (vec![1, 1, 2, 2], 2), "and its share of them");
        assert_eq!(begin(4, &[1, 2, 3, 4, 5]), (vec![1, 2, 3, 4], 1), "nobody has more than another");
        assert_eq!(begin(4, &[1, 2, 2, 3, 5, 4]), (vec![1, 2, 3, 5], 1));
    }

    #[test]
    fn the_oldest_gives_way_and_who_waits_is_told_for_how_long() {
        let from = Some(IpAddr::from([192, 0, 2, 1]));
        let at = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
        let begun =
            [(7, 90), (8, 60), (9, 70)].map(|(id, seconds)| Begun { id, from, expires_at: at(seconds) });
        assert_eq!(make_room("things", 3, &begun, None, NOW).expect("room"), Some(8));
        let problem = make_room("things", 3, &begun, from, NOW).expect_err("all are its own");
        assert_eq!((problem.code, problem.retry_after_seconds), (Code::Overloaded, Some(61)));
        assert!(problem.detail.contains("3 things") && problem.detail.contains("61 s"), "{}", problem.detail);
    }
}
