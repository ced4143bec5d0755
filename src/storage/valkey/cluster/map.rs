//! What a server says of who has which slots: the replies to `CLUSTER SLOTS` and `CLUSTER INFO` (Valkey's documentation
//! of these commands). It does no I/O.

use std::ops::RangeInclusive;

use super::super::resolver::Address;
use super::super::resp::{Parts, Reply};
use super::super::slots::SLOTS;

/// A primary, with what it has, and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Primary {
    pub(in super::super) address: Address,
    pub(in super::super) slots: Vec<RangeInclusive<u16>>,
    pub(in super::super) replicas: Vec<Address>,
}

/// The map that a server has of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct SlotMap {
    /// The greatest epoch that the server has seen: of two maps, that of the greater is the later.
    pub(in super::super) epoch: u64,
    /// Whether the server takes the cluster for one that works.
    pub(in super::super) is_ok: bool,
    /// Those that have slots, in the order of their first.
    pub(in super::super) primaries: Vec<Primary>,
}

impl SlotMap {
    /// Reads the replies to `CLUSTER INFO` and `CLUSTER SLOTS` of the server at this address. The first may be refused:
    /// not every hosted server has it.
    pub(in super::super) fn read<'a>(
        asked: &Address,
        mut replies: impl Iterator<Item = Reply<'a>>,
    ) -> Result<Self, String> {
        let info = replies.next();
        let info = info.as_ref().and_then(Reply::bytes).map(String::from_utf8_lossy).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
        };
        let epoch = field("cluster_current_epoch").and_then(|text| text.parse().ok()).unwrap_or(0);
        let is_ok = field("cluster_state").is_none_or(|state| state == "ok");
        let ranges = match replies.next() {
            Some(Reply::Array(ranges)) => ranges,
            Some(Reply::Error(text)) => return Err(String::from_utf8_lossy(text).into_owned()),
            _ => return Err("CLUSTER SLOTS was answered in a form that is not known".to_owned()),
        };
        let mut map = Self { epoch, is_ok, primaries: Vec::new() };
        for range in ranges {
            let Reply::Array(parts) = range else { continue };
            map.add(asked, parts).ok_or("CLUSTER SLOTS has a range in a form that is not known")?;
        }
        map.primaries.sort_by_key(|primary| primary.slots.first().map(|range| *range.start()));
        Ok(map)
    }

    fn add(&mut self, asked: &Address, mut parts: Parts<'_>) -> Option<()> {
        let mut slot = || u16::try_from(parts.next()?.integer()?).ok().filter(|slot| *slot < SLOTS);
        let slots = slot()?..=slot()?;
        let address = address_of(asked, parts.next()?)?;
        let replicas: Vec<Address> = parts.filter_map(|node| address_of(asked, node)).collect();
        match self.primaries.iter_mut().find(|primary| primary.address == address) {
            Some(primary) => primary.slots.push(slots),
            None => self.primaries.push(Primary { address, slots: vec![slots], replicas }),
        }
        Some(())
    }
}

/// Reads where a node listens. A server that does not know, or is told not to say, means its own host.
fn address_of(asked: &Address, node: Reply<'_>) -> Option<Address> {
    let Reply::Array(mut parts) = node else { return None };
    let host = parts.next()?;
    let host = host.bytes().map(String::from_utf8_lossy).unwrap_or_default();
    let host = if matches!(&*host, "" | "?") { asked.host.clone() } else { host.into_owned() };
    Some(Address { host, port: u16::try_from(parts.next()?.integer()?).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: &str, slots: &str) -> Result<SlotMap, String> {
        let asked = Address { host: "seed".to_owned(), port: 7000 };
        let info = format!("={}\r\ntxt:{info}\r\n", info.len() + 4);
        let replies = [Reply::read(info.as_bytes()), Reply::read(slots.as_bytes())];
        SlotMap::read(&asked, replies.into_iter().flatten())
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn primaries_have_their_ranges_and_replicas() {
        let node = |host: &str, port: u16| format!("*3\r\n{host}:{port}\r\n$1\r\nx\r\n");
        let range = |from: u16, to: u16, nodes: &[String]| {
            format!("*{}\r\n:{from}\r\n:{to}\r\n{}", 2 + nodes.len(), nodes.concat())
        };
        let one = node("$9\r\n10.0.0.10\r\n", 1);
        let nameless = node("_\r\n", 2);
        let unknown = node("$1\r\n?\r\n", 3);
        let slots = [
            range(5_000, 16_383, &[nameless, unknown]),
            range(0, 10, std::slice::from_ref(&one)),
            range(12, 4_999, &[one]),
        ];
        let map =
            read("cluster_state:ok\r\ncluster_current_epoch:7\r\n", &format!("*3\r\n{}", slots.concat()));
        let first =
            Primary { address: at("10.0.0.10", 1), slots: vec![0..=10, 12..=4_999], replicas: vec![] };
        let second =
            Primary { address: at("seed", 2), slots: vec![5_000..=16_383], replicas: vec![at("seed", 3)] };
        assert_eq!(map, Ok(SlotMap { epoch: 7, is_ok: true, primaries: vec![first, second] }));
        assert_eq!(
            read("cluster_state:fail\r\n", "*0\r\n"),
            Ok(SlotMap { epoch: 0, is_ok: false, primaries: vec![] })
        );
    }

    #[test]
    fn what_has_another_form_is_told() {
        for slots in
            ["-ERR This instance has cluster support disabled\r\n", ":1\r\n", "*1\r\n*2\r\n:1\r\n:99999\r\n"]
        {
            assert!(read("", slots).is_err(), "{slots}");
        }
    }
}
