//! Allowances: how much may be done in a time, counted for all nodes of a backend together.
//!
//! A node draws an allowance before it needs it, and spends it without asking anybody. What it has not spent it
//! gives back. It must not be known here what is counted, nor for whom.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;

use super::StorageError;

/// A part of what there is to be had is granted at one time, so that what one node holds is not missed by
/// others.
const SHARE: u32 = 10;

/// How much may be done in a time, whenever that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much; at least 1.
    pub amount: u32,
    /// In this time.
    pub within: Duration,
}

/// What is counted together: the digest of its name, so that no text of a client's is kept.
pub type QuotaId = [u8; 16];

/// What a node asks of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The quota.
    pub quota: QuotaId,
    /// What it lets through; its time is the same in each draw.
    pub rate: Rate,
    /// Parts of the rate's time in which is counted, at least 1, the same in each draw: what was granted counts
    /// until a whole part is over.
    pub slices: u32,
    /// How long what is granted may be spent, the same in each draw.
    pub hold: Duration,
    /// How much is of use at the most; 0 gives back alone.
    pub most: u32,
    /// What was granted before and is not spent.
    pub back: Option<Unspent>,
}

/// A part of what was granted at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unspent {
    /// When it was granted, as the grant said.
    pub slice: u64,
    /// How much.
    pub amount: u32,
}

/// What a draw came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// How much may be spent: a tenth of what there is, at least 1 where there is something.
    pub granted: u32,
    /// Says when that was, for what comes back.
    pub slice: u64,
    /// How much is left beside it.
    pub left: u32,
    /// How long it takes until there is something, where there is nothing; else zero.
    pub wait: Duration,
}

/// What a node holds of something that may be held so many times at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// What is held.
    pub quota: QuotaId,
    /// Tells the node from others.
    pub node: u64,
    /// How many it holds from now on.
    pub count: u32,
    /// How many all nodes may hold together.
    pub most: u32,
    /// How long that counts, unless it is told again.
    pub lease: Duration,
}

/// Allowances that all nodes share.
#[async_trait]
pub trait LimitStore: std::fmt::Debug + Send + Sync {
    /// Draws from a quota, in one step and by one clock for all nodes. However many nodes draw, what is spent in
    /// time is never more than the rate allows, in whatever stretch of that length: what was granted counts for
    /// as long as it may still be spent, and the time of the rate beyond it. A quota that nobody draws from is
    /// forgotten when nothing of it counts any more.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError>;

    /// Tells how many places a node holds from now on, and returns whether it may: where all nodes together would
    /// hold more than they may, and this one more than before, nothing changes.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn hold(&self, places: &Places) -> Result<bool, StorageError>;
}

impl Draw {
    /// Returns the milliseconds of a part of the time.
    #[must_use]
    pub fn width_ms(&self) -> u64 {
        (millis(self.rate.within) / u64::from(self.slices.max(1))).max(1)
    }

    /// Returns how long after a part of the time has ended what was granted in it still counts.
    #[must_use]
    pub fn counts_for(&self) -> Duration {
        self.rate.within + self.hold
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The grants of a quota that still count, for whoever counts in this process: one for each part of the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grants(VecDeque<(u64, u32)>);

impl Grants {
    /// Draws at a time in milliseconds.
    pub(crate) fn draw(&mut self, draw: &Draw, now_ms: u64) -> Drawn {
        let (width, counts) = (draw.width_ms(), millis(draw.counts_for()));
        let (slice, first) = (now_ms / width, now_ms.saturating_sub(counts) / width);
        // Those of later are there where the clock went back: nobody knows when they were.
        self.0.retain(|(of, _)| (first..=slice).contains(of));
        if let Some(Unspent { slice, amount }) = draw.back
            && let Some((_, granted)) = self.0.iter_mut().find(|(of, _)| *of == slice)
        {
            *granted = granted.saturating_sub(amount);
        }
        self.0.retain(|(_, granted)| *granted > 0);
        let used: u64 = self.0.iter().map(|(_, granted)| u64::from(*granted)).sum();
        let room = u32::try_from(u64::from(draw.rate.amount).saturating_sub(used)).unwrap_or(u32::MAX);
        let granted = draw.most.min((room / SHARE).max(1)).min(room);
        if granted > 0 {
            match self.0.back_mut() {
                Some((of, all)) if *of == slice => *all += granted,
                Some(_) | None => self.0.push_back((slice, granted)),
            }
        }
        let oldest = self.0.front().map_or(slice, |(of, _)| *of);
        let wait_ms =
            if room > 0 { 0 } else { ((oldest + 1) * width + counts).saturating_sub(now_ms).max(1) };
        Drawn { granted, slice, left: room - granted, wait: Duration::from_millis(wait_ms) }
    }

    /// Returns when nothing of it counts any more, in milliseconds.
    pub(crate) fn over_ms(&self, draw: &Draw) -> u64 {
        let end = |(slice, _): &(u64, u32)| (slice + 1) * draw.width_ms() + millis(draw.counts_for());
        self.0.back().map_or(0, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn draw(most: u32, back: Option<Unspent>) -> Draw {
        let rate = Rate { amount: 100, within: MINUTE };
        Draw { quota: [0; 16], rate, slices: 60, hold: Duration::from_secs(5), most, back }
    }

    #[test]
    fn grants_get_smaller_as_there_is_less_and_end_at_the_rate() {
        let (mut grants, mut granted) = (Grants::default(), Vec::new());
        loop {
            let drawn = grants.draw(&draw(50, None), 1_000_000);
            if drawn.granted == 0 {
                // The part of a second in which they were, the time of the rate, and for which they may be spent.
                assert_eq!(drawn.wait, Duration::from_secs(66));
                break;
            }
            granted.push(drawn.granted);
        }
        assert_eq!(granted.iter().sum::<u32>(), 100);
        assert_eq!((granted[0], granted.last()), (10, Some(&1)));
        assert_eq!(grants.draw(&draw(1, None), 1_000_000 + 65_999).granted, 0);
        assert_eq!(grants.draw(&draw(1, None), 1_000_000 + 66_000).granted, 1);
    }

    #[test]
    fn what_comes_back_is_there_for_others_and_once() {
        let mut grants = Grants::default();
        let first = grants.draw(&draw(10, None), 0);
        assert_eq!((first.granted, first.left), (10, 90));
        let back = Some(Unspent { slice: first.slice, amount: 10 });
        assert_eq!(grants.draw(&draw(0, back), 100).left, 100);
        assert_eq!(grants.draw(&draw(0, back), 100).left, 100, "more than there was is not given back");
        assert_eq!(grants.over_ms(&draw(0, None)), 0, "nothing is left of it");
        let late = Some(Unspent { slice: 999, amount: 10 });
        grants.draw(&draw(10, None), 100);
        assert_eq!(grants.draw(&draw(0, late), 100).left, 90, "what is not known does not come back");
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let mut grants = Grants::default();
        while grants.draw(&draw(10, None), 10_000_000).granted > 0 {}
        assert_eq!(grants.draw(&draw(1, None), 5_000_000).granted, 1);
    }

    #[test]
    fn in_no_stretch_of_the_time_more_passes_than_the_rate() {
        // By a seed: draws at odd moments, each spent as late as it may be.
        let mut state = 7_u64;
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let (mut grants, mut spent, mut now) = (Grants::default(), Vec::new(), 0);
        while now < 600_000 {
            now += chance() % 700;
            let drawn = grants.draw(&draw(u32::try_from(chance() % 20).expect("small"), None), now);
            let at = now + if chance() % 2 == 0 { 0 } else { 5_000 };
            spent.extend((0..drawn.granted).map(|_| at));
        }
        spent.sort_unstable();
        for (first, last) in spent.iter().zip(spent.iter().skip(100)) {
            assert!(last - first >= 60_000, "101 between {first} and {last}");
        }
        assert!(spent.len() > 700, "{} in ten minutes", spent.len());
    }
}
