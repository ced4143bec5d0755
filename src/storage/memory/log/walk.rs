//! Going by all messages of a log.

use super::Log;
use crate::storage::StoredMessage;

impl Log {
    /// Hands out all messages, from old to new.
    pub(in crate::storage::memory) fn for_each(&self, mut take: impl FnMut(StoredMessage)) {
        let mut found = Vec::with_capacity(1);
        for (at, segment) in self.segments.iter().enumerate() {
            let first = if at == 0 { self.trimmed } else { 0 };
            for entry in &segment.entries()[first..] {
                segment.collect(&[entry], &mut found);
                found.drain(..).for_each(&mut take);
            }
        }
    }
}
