//! Operations on keys, and which of them comes next.
//!
//! It must not know how they are sent.

use super::Workload;
use crate::sender::spread;

/// How long what a workflow keeps lives, and a session, in seconds.
const CHECKPOINT_SECONDS: u32 = 86_400;
const SESSION_SECONDS: u32 = 1_800;
/// Of so many operations on a session one puts it, and the others read it.
const SESSION_ROUND: u64 = 10;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Put a key.
    Put {
        /// Its number.
        key: u64,
        /// For how many seconds it lives, where that is said.
        ttl: Option<u32>,
    },
    /// Read a key.
    Get {
        /// Its number.
        key: u64,
    },
    /// Read a key, and have it live on for so many seconds.
    Touch {
        /// Its number.
        key: u64,
        /// For how long.
        ttl: u32,
    },
    /// Add one to a key.
    Increment {
        /// Its number.
        key: u64,
    },
    /// Take one of a limit.
    Take {
        /// Its number.
        limit: u64,
    },
}

/// The operations of one connection.
#[derive(Debug)]
pub(super) struct Row {
    workload: Workload,
    keys: u64,
    connection: u64,
    number: u64,
}

impl Row {
    pub(super) fn new(workload: Workload, keys: u64, connection: u64) -> Self {
        Self { workload, keys, connection, number: 0 }
    }

    /// Returns the next operation.
    pub(super) fn next(&mut self) -> Operation {
        let number = self.number;
        self.number += 1;
        // Of a pair both are about one key.
        let is_paired = matches!(self.workload, Workload::Basic | Workload::Checkpoint);
        let turn = if is_paired { number / 2 } else { number };
        let count = u32::try_from(self.keys).unwrap_or(u32::MAX);
        let key = u64::from(spread((self.connection << 40) | turn, count));
        let is_first = number.is_multiple_of(2);
        match self.workload {
            Workload::Put => Operation::Put { key, ttl: None },
            Workload::Increment => Operation::Increment { key },
            Workload::Take => Operation::Take { limit: key },
            Workload::Basic if is_first => Operation::Put { key, ttl: None },
            Workload::Checkpoint if is_first => Operation::Put { key, ttl: Some(CHECKPOINT_SECONDS) },
            Workload::Get | Workload::Lock | Workload::Basic | Workload::Checkpoint => Operation::Get { key },
            Workload::Session if number.is_multiple_of(SESSION_ROUND) => {
                Operation::Put { key, ttl: Some(SESSION_SECONDS) }
            }
            Workload::Session => Operation::Touch { key, ttl: SESSION_SECONDS },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_what_it_says() {
        let of = |workload| {
            let mut row = Row::new(workload, 10, 3);
            (0..100).map(|_| row.next()).collect::<Vec<_>>()
        };
        let puts = |all: &[Operation]| all.iter().filter(|one| matches!(one, Operation::Put { .. })).count();
        let (basic, sessions) = (of(Workload::Basic), of(Workload::Session));
        assert_eq!((puts(&basic), puts(&sessions)), (50, 10));
        for pair in basic.chunks(2) {
            let [Operation::Put { key, .. }, Operation::Get { key: read }] = pair else {
                panic!("{pair:?}");
            };
            assert_eq!(key, read);
        }
        let keys: std::collections::BTreeSet<_> = of(Workload::Take)
            .into_iter()
            .map(|one| match one {
                Operation::Take { limit } => limit,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(keys.len() > 5 && keys.iter().all(|key| *key < 10), "{keys:?}");
    }
}
