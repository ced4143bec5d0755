//! What the log of a bucket has had, and what the bucket was at any place of it.

use std::collections::{BTreeMap, HashMap};

use tidemill::proto::MessageId;
use tidemill::storage::LoggedKind;

/// A change, as the log has it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: MessageId,
    pub(super) key: String,
    pub(super) kind: LoggedKind,
    pub(super) more: bool,
}

/// The whole log.
pub(super) struct Log {
    changes: Vec<Change>,
    /// Where the changes of each key are among them.
    of_keys: HashMap<String, Vec<usize>>,
}

impl Log {
    pub(super) fn of(changes: Vec<Change>) -> Self {
        assert!(changes.windows(2).all(|two| two[0].id < two[1].id), "a log is in order");
        let mut of_keys = HashMap::<_, Vec<_>>::new();
        for (at, change) in changes.iter().enumerate() {
            of_keys.entry(change.key.clone()).or_default().push(at);
        }
        Self { changes, of_keys }
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns the change with this id.
    pub(super) fn get(&self, id: MessageId) -> Option<&Change> {
        let at = self.changes.binary_search_by_key(&id, |change| change.id).ok()?;
        Some(&self.changes[at])
    }

    /// Returns the changes behind one id, up to another.
    pub(super) fn between(&self, after: MessageId, up_to: MessageId) -> &[Change] {
        let from = self.changes.partition_point(|change| change.id <= after);
        let to = self.changes.partition_point(|change| change.id <= up_to);
        &self.changes[from..to.max(from)]
    }

    /// Returns what keys there were at an id, with their revisions, and whether they may have been over already: their
    /// next change is that they have expired.
    pub(super) fn at(&self, id: MessageId) -> BTreeMap<&str, (MessageId, bool)> {
        let place = self.changes.partition_point(|change| change.id <= id);
        let of_key = |places: &Vec<usize>| {
            let next = places.partition_point(|at| *at < place);
            let last = &self.changes[places[next.checked_sub(1)?]];
            let expires = places.get(next).is_some_and(|at| self.changes[*at].kind == LoggedKind::Expired);
            (last.kind == LoggedKind::Put).then_some((last.id, expires))
        };
        self.of_keys.iter().filter_map(|(key, places)| Some((key.as_str(), of_key(places)?))).collect()
    }
}
