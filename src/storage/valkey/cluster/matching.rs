//! Which shard each primary of a map is. Numbers and addresses in, places out; it knows no connection.

use super::super::resolver::Address;
use super::super::slots::SLOTS;
use super::map::Primary;

/// The slots of shards: for each the shard that has it, or [`NOBODY`].
pub(in super::super) type Owners = Box<[u16]>;

/// Stands for no shard: no server has the slot.
pub(in super::super) const NOBODY: u16 = u16::MAX;

/// Returns a table in which no slot has a shard.
pub(in super::super) fn nobodys() -> Owners {
    vec![NOBODY; usize::from(SLOTS)].into()
}

/// Returns the shard of each primary: one that is known, or `None` where it is new. A shard is where it was; else
/// it is where the most of its slots are, if its own server has none any more: a replica has taken over.
pub(in super::super) fn shards_of(
    primaries: &[Primary],
    known: &[(u16, Address)],
    owners: &Owners,
) -> Vec<Option<u16>> {
    let mut found: Vec<Option<u16>> = primaries
        .iter()
        .map(|primary| known.iter().find(|(_, address)| *address == primary.address).map(|(shard, _)| *shard))
        .collect();
    let mut overlaps = Vec::new();
    for (place, primary) in primaries.iter().enumerate().filter(|(place, _)| found[*place].is_none()) {
        for (shard, _) in known.iter().filter(|(shard, _)| !found.contains(&Some(*shard))) {
            let of_it = |slot: &u16| owners.get(usize::from(*slot)) == Some(shard);
            let count = primary.slots.iter().cloned().flatten().filter(of_it).count();
            if count > 0 {
                overlaps.push((count, place, *shard));
            }
        }
    }
    overlaps.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
    for (_, place, shard) in overlaps {
        if found[place].is_none() && !found.contains(&Some(shard)) {
            found[place] = Some(shard);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "h".to_owned(), port }
    }

    fn primary(port: u16, slots: std::ops::RangeInclusive<u16>) -> Primary {
        Primary { address: at(port), slots: vec![slots], replicas: Vec::new() }
    }

    #[test]
    fn a_shard_outlives_its_server() {
        let known = [(0, at(1)), (1, at(2))];
        let mut owners = nobodys();
        owners[..8_000].fill(0);
        owners[8_000..].fill(1);
        let of = |primaries: &[Primary]| shards_of(primaries, &known, &owners);
        assert_eq!(of(&[primary(1, 0..=7_999), primary(2, 8_000..=16_383)]), [Some(0), Some(1)]);
        assert_eq!(
            of(&[primary(9, 0..=7_999), primary(2, 8_000..=16_383)]),
            [Some(0), Some(1)],
            "a failover"
        );
        assert_eq!(of(&[primary(9, 0..=7_999), primary(8, 8_000..=16_383)]), [Some(0), Some(1)], "two");
        assert_eq!(
            of(&[primary(1, 0..=3_999), primary(9, 4_000..=7_999), primary(2, 8_000..=16_383)]),
            [Some(0), None, Some(1)],
            "one is added"
        );
        assert_eq!(of(&[primary(1, 0..=16_383)]), [Some(0)], "one is removed");
        assert_eq!(of(&[primary(2, 0..=7_999), primary(1, 8_000..=16_383)]), [Some(1), Some(0)], "a swap");
        assert_eq!(
            of(&[primary(9, 0..=7_000), primary(8, 7_001..=16_383)]),
            [Some(0), Some(1)],
            "each is where the most of it is"
        );
        assert_eq!(shards_of(&[primary(1, 0..=16_383)], &[], &nobodys()), [None]);
    }
}
