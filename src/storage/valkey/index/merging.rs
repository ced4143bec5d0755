//! Puts the names of the parts of an index in order. It asks nobody.

use std::collections::VecDeque;

use super::Named;

/// What has come of a part, and where the rest of it begins.
#[derive(Debug)]
pub(super) struct Run<T> {
    part: usize,
    names: VecDeque<T>,
    /// A bound of `ZRANGE … BYLEX`.
    from: Vec<u8>,
    is_end: bool,
}

impl<T: Named> Run<T> {
    /// Returns one of which nothing has come from this bound on.
    pub(super) fn new(part: usize, from: &str) -> Self {
        Self { part, names: VecDeque::new(), from: from.into(), is_end: false }
    }

    /// Returns of which part it is.
    pub(super) fn part(&self) -> usize {
        self.part
    }

    /// Returns whether it is not known which name comes next.
    pub(super) fn is_open(&self) -> bool {
        self.names.is_empty() && !self.is_end
    }

    /// Returns from which bound on to ask for more.
    pub(super) fn from(&self) -> &[u8] {
        &self.from
    }

    /// Takes the members that have come where so many were asked for, of which it has those that it is to have.
    pub(super) fn take_in<'a>(
        &mut self,
        members: impl Iterator<Item = &'a [u8]>,
        asked: usize,
        is_of_it: impl Fn(&T) -> bool,
    ) {
        let (mut count, mut last) = (0, None);
        for member in members {
            let name = std::str::from_utf8(member).ok().and_then(T::of_member);
            self.names.extend(name.filter(&is_of_it));
            (count, last) = (count + 1, Some(member));
        }
        if let Some(last) = last {
            self.from = [b"(", last].concat();
        }
        self.is_end = count < asked;
    }
}

/// Moves names in order, as far as it is known that none comes before, up to `limit`.
pub(super) fn merge<T: Named>(runs: &mut [Run<T>], names: &mut Vec<T>, limit: usize) {
    while names.len() < limit && !runs.iter().any(Run::is_open) {
        let begun = runs.iter_mut().filter(|run| !run.names.is_empty());
        let first = begun.min_by(|one, other| one.names.front().cmp(&other.names.front()));
        let Some(name) = first.and_then(|run| run.names.pop_front()) else { return };
        names.push(name);
    }
}
