//! A map of topics that can be walked a part at a time.
//!
//! There may be very many: whoever copied all of them at once would keep everybody else waiting.

use std::collections::HashMap;

use tidemill_proto::TopicName;

/// A map of topics.
#[derive(Debug)]
pub(super) struct TopicMap<V> {
    places: HashMap<TopicName, usize>,
    entries: Vec<(TopicName, V)>,
}

impl<V> Default for TopicMap<V> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new() }
    }
}

impl<V> TopicMap<V> {
    /// Returns what a topic has.
    pub(super) fn get(&self, topic: &TopicName) -> Option<&V> {
        self.places.get(topic).map(|place| &self.entries[*place].1)
    }

    /// Returns what a topic has.
    pub(super) fn get_mut(&mut self, topic: &TopicName) -> Option<&mut V> {
        self.places.get(topic).map(|place| &mut self.entries[*place].1)
    }

    /// Gives a topic what it has from now on.
    pub(super) fn insert(&mut self, topic: TopicName, value: V) {
        if let Some(old) = self.get_mut(&topic) {
            *old = value;
            return;
        }
        self.places.insert(topic.clone(), self.entries.len());
        self.entries.push((topic, value));
    }

    /// Takes a topic out, and returns what it had.
    pub(super) fn remove(&mut self, topic: &TopicName) -> Option<V> {
        let place = self.places.remove(topic)?;
        let (_, value) = self.entries.swap_remove(place);
        if let Some((moved, _)) = self.entries.get(place)
            && let Some(its) = self.places.get_mut(moved)
        {
            *its = place;
        }
        Some(value)
    }

    /// Returns up to `count` topics that are in front of `place`, and the place in front of them. Who walks
    /// from the end to the front passes over none that was there when the walk began and still is: where
    /// one is taken out, the last takes its place.
    pub(super) fn part(&self, place: usize, count: usize) -> (&[(TopicName, V)], usize) {
        let end = place.min(self.entries.len());
        let start = end.saturating_sub(count);
        (&self.entries[start..end], start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn topic(number: u8) -> TopicName {
        TopicName::parse(&format!("t{number}")).expect("a name")
    }

    proptest! {
        /// Topics come and go between the parts of a walk.
        #[test]
        fn a_walk_passes_over_none_that_stays(
            count in 0..60_u8,
            part in 1..9_usize,
            changes in proptest::collection::vec((0..80_u8, any::<bool>()), 0..60),
        ) {
            let mut map = TopicMap::default();
            for number in 0..count {
                map.insert(topic(number), number);
            }
            let mut kept: HashSet<u8> = (0..count).collect();
            let mut to_meet = kept.clone();
            let mut changes = changes.into_iter();
            let mut place = usize::MAX;
            while place > 0 {
                let (found, before) = map.part(place, part);
                place = before;
                for (name, number) in found {
                    prop_assert_eq!(name, &topic(*number));
                    to_meet.remove(number);
                }
                for (number, comes) in changes.by_ref().take(3) {
                    if comes {
                        map.insert(topic(number), number);
                        kept.insert(number);
                    } else {
                        let was_there = kept.remove(&number);
                        prop_assert_eq!(map.remove(&topic(number)), was_there.then_some(number));
                        to_meet.remove(&number);
                    }
                }
            }
            prop_assert!(to_meet.is_empty(), "passed over: {:?}", to_meet);
            for number in 0..80 {
                prop_assert_eq!(map.get(&topic(number)).copied(), kept.contains(&number).then_some(number));
            }
        }
    }
}
