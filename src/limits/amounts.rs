//! How much each limit lets through now. An operator may change that while the node runs; who is counted already is
//! counted by the new amounts from then on.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{Limit, LimitOptions, WhenAway};
use crate::storage::Rate;

/// What the limits of a node let through now.
#[derive(Debug)]
pub(super) struct Amounts {
    /// In the order of [`Limit::ALL`]; 0 is without limit.
    amounts: [AtomicU32; Limit::ALL.len()],
    /// Whether anything is limited.
    is_on: AtomicBool,
    refuses_while_away: AtomicBool,
    quotas_max: AtomicUsize,
    /// How often they were changed.
    version: AtomicU64,
}

impl Amounts {
    pub(super) fn new(options: &LimitOptions) -> Self {
        let amounts = Self {
            amounts: std::array::from_fn(|_| AtomicU32::new(0)),
            is_on: AtomicBool::new(false),
            refuses_while_away: AtomicBool::new(false),
            quotas_max: AtomicUsize::new(0),
            version: AtomicU64::new(0),
        };
        amounts.change(options);
        amounts
    }

    /// Lets through from now on what these options say.
    pub(super) fn change(&self, options: &LimitOptions) {
        for (amount, new) in self.amounts.iter().zip(options.amounts) {
            amount.store(new, Ordering::Relaxed);
        }
        let is_on = options.amounts.iter().any(|amount| *amount != 0);
        self.refuses_while_away.store(options.when_away == WhenAway::Refuse, Ordering::Relaxed);
        self.quotas_max.store(options.quotas_max, Ordering::Relaxed);
        self.is_on.store(is_on, Ordering::Relaxed);
        // Behind all others: who sees the new version sees them.
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns how much may be done, if there is a limit.
    pub(super) fn rate(&self, limit: Limit) -> Option<Rate> {
        match self.amounts[limit as usize].load(Ordering::Relaxed) {
            0 => None,
            amount => Some(Rate { amount, within: limit.within() }),
        }
    }

    pub(super) fn when_away(&self) -> WhenAway {
        if self.refuses_while_away.load(Ordering::Relaxed) { WhenAway::Refuse } else { WhenAway::CountAlone }
    }

    pub(super) fn quotas_max(&self) -> usize {
        self.quotas_max.load(Ordering::Relaxed)
    }
}
