//! Checks: whether a subscriber got every message, once, in order.

use std::ops::Range;

use crate::mark::Mark;
use crate::report::Order;
use crate::sender::Sent;

/// Most ranges of missing messages that one subscriber remembers; more only count.
const RANGES_MAX: usize = 10_000;

/// Messages of one publisher that are told apart where order is not looked at: 16 MiB of bits.
const BITS_MAX: u64 = 1 << 27;

/// What one subscriber has got.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// By publisher: the sequence number that comes next.
    next: Vec<u64>,
    /// By publisher: how many came, where order is not looked at.
    seen: Vec<u64>,
    /// By publisher: which came, a bit each, where order is not looked at.
    came: Vec<Vec<u64>>,
    missing: Vec<(usize, Range<u64>)>,
    /// Missing messages beyond those in ranges.
    missing_more: u64,
    order: Order,
    /// Whether order is looked at; between topics there is none.
    ordered: bool,
}

impl Check {
    /// Returns the check of a subscriber to what so many publishers send.
    pub(crate) fn new(publishers: usize, ordered: bool) -> Self {
        Self {
            next: vec![0; publishers],
            seen: vec![0; publishers],
            came: vec![Vec::new(); publishers],
            missing: Vec::new(),
            missing_more: 0,
            order: Order::default(),
            ordered,
        }
    }

    /// Notes a message. Messages of other runs are not looked at.
    pub(crate) fn see(&mut self, mark: Mark) {
        let publisher = mark.publisher as usize;
        let Some(next) = self.next.get_mut(publisher) else { return };
        if !self.ordered {
            if is_new(&mut self.came[publisher], mark.sequence) {
                self.seen[publisher] += 1;
            } else {
                self.order.repeated += 1;
            }
            return;
        }
        if mark.sequence == *next {
            *next += 1;
            return;
        }
        if mark.sequence > *next {
            if self.missing.len() < RANGES_MAX {
                self.missing.push((publisher, *next..mark.sequence));
            } else {
                self.missing_more += mark.sequence - *next;
            }
            *next = mark.sequence + 1;
            return;
        }
        let late =
            |(of, range): &&mut (usize, Range<u64>)| *of == publisher && range.contains(&mark.sequence);
        match self.missing.iter_mut().find(late) {
            Some((_, range)) => {
                self.order.disordered += 1;
                let after = mark.sequence + 1..range.end;
                range.end = mark.sequence;
                if !after.is_empty() {
                    self.missing.push((publisher, after));
                }
            }
            None => self.order.repeated += 1,
        }
    }

    /// Notes gaps that the relay told.
    pub(crate) fn gaps(&mut self, count: u64) {
        self.order.gaps += count;
    }

    /// Returns whether everything of a publisher that was accepted has come, as far as the last
    /// message tells.
    pub(crate) fn is_complete(&self, sent: &[Sent]) -> bool {
        self.next.iter().zip(&self.seen).zip(sent).all(|((next, seen), sent)| {
            let failed: u64 = sent.failed.iter().map(|range| range.end - range.start).sum();
            if self.ordered { *next >= last(sent) } else { seen + failed >= sent.messages }
        })
    }

    /// Returns what was found, once nothing more comes.
    pub(crate) fn finish(mut self, sent: &[Sent]) -> Order {
        for (publisher, sent) in sent.iter().enumerate() {
            let failed: u64 = sent.failed.iter().map(|range| range.end - range.start).sum();
            if !self.ordered {
                // What failed and came all the same makes up for nothing.
                let came = &self.came[publisher];
                let in_failed = sent.failed.iter().cloned().flatten().filter(|sequence| has(came, *sequence));
                let seen = self.seen[publisher] - in_failed.count() as u64;
                self.order.lost += (sent.messages - failed).saturating_sub(seen);
            } else if self.next[publisher] < sent.messages {
                self.missing.push((publisher, self.next[publisher]..sent.messages));
            }
        }
        for (publisher, range) in &self.missing {
            let failed = sent.get(*publisher).map_or(&[][..], |sent| &sent.failed);
            let overlap =
                |failed: &Range<u64>| failed.end.min(range.end).saturating_sub(failed.start.max(range.start));
            let excused: u64 = failed.iter().map(overlap).sum();
            self.order.lost += (range.end - range.start).saturating_sub(excused);
        }
        self.order.lost += self.missing_more;
        self.order
    }
}

fn has(came: &[u64], sequence: u64) -> bool {
    let part = usize::try_from(sequence / 64).ok().and_then(|at| came.get(at));
    part.is_some_and(|part| part & (1 << (sequence % 64)) != 0)
}

/// Sets the bit of a message, and returns whether it was not set. Behind [`BITS_MAX`] all are new.
fn is_new(came: &mut Vec<u64>, sequence: u64) -> bool {
    let Some(at) = usize::try_from(sequence / 64).ok().filter(|_| sequence < BITS_MAX) else { return true };
    if came.len() <= at {
        came.resize(at + 1, 0);
    }
    let bit = 1 << (sequence % 64);
    let is_new = came[at] & bit == 0;
    came[at] |= bit;
    is_new
}

/// Returns the number after that of the last message whose fate is known.
fn last(sent: &Sent) -> u64 {
    let mut last = sent.messages;
    for failed in sent.failed.iter().rev() {
        if failed.end == last {
            last = failed.start;
        }
    }
    last
}

impl Order {
    /// Adds what another subscriber found.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.disordered += other.disordered;
        self.gaps += other.gaps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sequences: &[u64], sent: Sent) -> Order {
        let mut check = Check::new(1, true);
        for sequence in sequences {
            check.see(Mark { publisher: 0, sequence: *sequence, at_nanos: 0 });
        }
        check.finish(&[sent])
    }

    fn sent(messages: u64, failed: Vec<Range<u64>>) -> Sent {
        Sent { messages, failed }
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        let none = Order::default();
        assert_eq!(order(&[0, 1, 2], sent(3, vec![])), none);
        assert_eq!(order(&[0, 1], sent(3, vec![])), Order { lost: 1, ..none });
        assert_eq!(order(&[], sent(3, vec![])), Order { lost: 3, ..none });
        assert_eq!(order(&[0, 3], sent(4, vec![])), Order { lost: 2, ..none });
        assert_eq!(order(&[0, 3, 1, 2], sent(4, vec![])), Order { disordered: 2, ..none });
        assert_eq!(order(&[0, 1, 1, 2], sent(3, vec![])), Order { repeated: 1, ..none });
        assert_eq!(
            order(&[0, 3, 2, 2], sent(4, vec![])),
            Order { lost: 1, disordered: 1, repeated: 1, ..none }
        );
    }

    #[test]
    fn messages_that_were_refused_are_not_missed() {
        assert_eq!(order(&[0, 3], sent(6, vec![1..3, 4..6])), Order::default());
        let mut check = Check::new(1, true);
        check.see(Mark::default());
        assert!(check.is_complete(&[sent(3, vec![1..2, 2..3])]));
        assert!(!check.is_complete(&[sent(2, vec![])]));
    }

    #[test]
    fn between_topics_there_is_no_order_but_there_is_a_number() {
        let mut check = Check::new(1, false);
        for sequence in [2, 0, 2] {
            check.see(Mark { publisher: 0, sequence, at_nanos: 0 });
        }
        assert!(!check.is_complete(&[sent(3, vec![])]));
        let found = Order { lost: 1, repeated: 1, ..Order::default() };
        assert_eq!(check.clone().finish(&[sent(3, vec![])]), found);
        assert_eq!(check.finish(&[sent(3, std::iter::once(0..1).collect())]), found, "failed, and came");
    }
}
