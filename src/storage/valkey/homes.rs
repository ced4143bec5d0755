//! Homes: what tells which shard has something.
//!
//! That is the slot of its keys in a cluster, which any server of it can be told to serve. Where the settings place topics on
//! several servers by their names, it is the number of the server: what has a name of its own is where the first pattern
//! says that matches it, and everything else is at the first server.

use std::sync::Arc;

use tidemill_proto::locks::Guarded;
use tidemill_proto::pattern::matches;
use tidemill_proto::{BucketName, LimitName, SeriesName, TopicName, TopicSelector};

use super::keys;
use super::slots::{slot_of, slot_of_tag};
use crate::storage::{LeaseSecret, LockId};

/// A slot, or the number of a server.
pub(super) type Home = u16;

/// What lives in one place, with everything that scripts need beside it.
pub(super) trait Lives {
    /// Returns the slot of its keys.
    fn slot(&self) -> u16;

    /// Returns the name that patterns are held against; `None`: it is where everything else is.
    fn name(&self) -> Option<&str>;
}

/// A key that is of nothing with a name.
impl Lives for str {
    fn slot(&self) -> u16 {
        slot_of(self.as_bytes())
    }

    fn name(&self) -> Option<&str> {
        None
    }
}

impl Lives for TopicName {
    fn slot(&self) -> u16 {
        slot_of_tag(self.as_str().as_bytes())
    }

    fn name(&self) -> Option<&str> {
        Some(own_name(self.as_str()))
    }
}

impl Lives for BucketName {
    fn slot(&self) -> u16 {
        TopicName::log_of(self).slot()
    }

    fn name(&self) -> Option<&str> {
        Some(own_name(self.as_str()))
    }
}

impl Lives for SeriesName {
    fn slot(&self) -> u16 {
        keys::series(self).slot()
    }

    fn name(&self) -> Option<&str> {
        Some(self.as_str())
    }
}

impl Lives for LimitName {
    fn slot(&self) -> u16 {
        keys::taken(self).slot()
    }

    fn name(&self) -> Option<&str> {
        Some(self.as_str())
    }
}

/// A lock is with what it guards.
impl Lives for LockId {
    fn slot(&self) -> u16 {
        let [held, ..] = keys::lock(self);
        held.slot()
    }

    fn name(&self) -> Option<&str> {
        match &self.guards {
            Some(Guarded::Topic(topic)) => topic.name(),
            Some(Guarded::Bucket(bucket)) => bucket.name(),
            None => Some(self.name.as_str()),
        }
    }
}

impl Lives for LeaseSecret {
    fn slot(&self) -> u16 {
        keys::lease(*self).slot()
    }

    fn name(&self) -> Option<&str> {
        None
    }
}

/// Returns what comes behind the slash where there is one, as in the names of logs of buckets and of buckets of rooms.
fn own_name(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, own)| own)
}

/// How homes are told.
#[derive(Clone, Debug, Default)]
pub(super) enum Homes {
    /// By the slot: of one server, or of a cluster.
    #[default]
    BySlot,
    /// By the name: for each server behind the first what is placed there.
    ByName(Arc<[Vec<TopicSelector>]>),
}

impl Homes {
    /// Returns the home of something.
    pub(super) fn of(&self, what: &(impl Lives + ?Sized)) -> Home {
        match self {
            Self::BySlot => what.slot(),
            Self::ByName(placed) => what.name().map_or(0, |name| placed_at(placed, name)),
        }
    }

    /// Returns how many servers have indexes of their own: those of a cluster share theirs.
    pub(super) fn indexes(&self) -> u16 {
        match self {
            Self::BySlot => 1,
            Self::ByName(placed) => u16::try_from(placed.len() + 1).unwrap_or(u16::MAX),
        }
    }

    /// Returns which of these has the index that names something.
    pub(super) fn index_of(&self, what: &impl Lives) -> Home {
        match self {
            Self::BySlot => 0,
            Self::ByName(_) => self.of(what),
        }
    }

    /// Whether something whose name begins so may have this home.
    pub(super) fn may_have(&self, home: Home, prefix: &str) -> bool {
        let Self::ByName(placed) = self else { return true };
        let mut all = placed.iter().flatten();
        match home {
            // Unless all of them are placed elsewhere.
            0 => !all.any(|one| {
                one.as_str()
                    .strip_suffix('*')
                    .is_some_and(|all| !all.contains('*') && prefix.starts_with(all))
            }),
            home => self
                .placed_on(home)
                .iter()
                .any(|one| one.prefix().starts_with(prefix) || prefix.starts_with(one.prefix())),
        }
    }

    /// Returns what is placed on a server.
    pub(super) fn placed_on(&self, home: Home) -> &[TopicSelector] {
        match self {
            Self::ByName(placed) if home > 0 => placed.get(usize::from(home) - 1).map_or(&[], Vec::as_slice),
            Self::BySlot | Self::ByName(_) => &[],
        }
    }
}

fn placed_at(placed: &[Vec<TopicSelector>], name: &str) -> Home {
    let is_there = |there: &Vec<TopicSelector>| there.iter().any(|one| matches(one.as_str(), name));
    placed.iter().position(is_there).map_or(0, |at| u16::try_from(at + 1).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_proto::{LockName, RoomName};

    #[test]
    fn what_has_a_name_is_where_the_first_pattern_says_that_matches() {
        let selectors = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        let homes = Homes::ByName([selectors(&["eu.*", "orders"]), selectors(&["*.de", "us.*"])].into());
        let topic = |name: &str| TopicName::parse(name).expect(name);
        let bucket = |name: &str| BucketName::parse(name).expect(name);
        for (name, home) in [("eu.a", 1), ("eu.de", 1), ("orders", 1), ("orders2", 0), ("a.de", 2), ("x", 0)]
        {
            assert_eq!(homes.of(&topic(name)), home, "{name}");
            assert_eq!(homes.of(&bucket(name)), home, "{name}");
            assert_eq!(homes.of(&TopicName::log_of(&bucket(name))), home, "the log of {name}");
            let lock = |guards| LockId { name: LockName::parse("us.nightly").expect("a name"), guards };
            assert_eq!(homes.of(&lock(Some(Guarded::Topic(topic(name))))), home, "a lock of {name}");
            assert_eq!(homes.of(&lock(Some(Guarded::Bucket(bucket(name))))), home, "a lock of {name}");
            assert_eq!(homes.of(&lock(None)), 2);
        }
        assert_eq!(homes.of(&BucketName::of_room(&RoomName::parse("us.hall").expect("a name"))), 2);
        assert_eq!((homes.of(keys::ACCESS), homes.of("eu.a"), homes.of(&LeaseSecret::default())), (0, 0, 0));
        assert_eq!((homes.indexes(), homes.index_of(&topic("us.a")), homes.placed_on(0).len()), (3, 2, 0));
        assert_eq!(homes.placed_on(2).len(), 2);
    }

    #[test]
    fn servers_that_cannot_have_a_name_are_known_by_its_beginning() {
        let selectors = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        let homes = Homes::ByName([selectors(&["eu.*", "orders"]), selectors(&["us.*.de", "u*s"])].into());
        for (prefix, has) in [
            ("", [true, true, true]),
            ("e", [true, true, false]),
            ("eu.", [false, true, false]),
            ("eu.a", [false, true, false]),
            ("order", [true, true, false]),
            ("orders", [true, true, false]),
            ("us.a", [true, false, true]),
            ("x", [true, false, false]),
        ] {
            assert_eq!([0, 1, 2].map(|home| homes.may_have(home, prefix)), has, "{prefix}");
        }
        assert!(Homes::default().may_have(7, "x"));
    }

    #[test]
    fn else_the_slot_tells() {
        let topic = TopicName::parse("foo").expect("a name");
        let homes = Homes::default();
        assert_eq!((homes.of(&topic), homes.of("foo{hello}")), (12_182, 866));
        assert_eq!((homes.indexes(), homes.index_of(&topic)), (1, 0));
    }
}
