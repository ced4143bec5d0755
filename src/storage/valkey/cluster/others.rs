//! Others: what a shard knows of the shards beside it, where there are several.

use std::sync::{Arc, Weak};

use tidemill_proto::TopicSelector;

use super::super::Shard;
use super::super::failure::{Failure, Redirect};
use super::super::homes::{Home, Homes, Lives};
use super::seat::{Cluster, Groups, Seat};
use crate::storage::StorageError;

/// Which of several a shard is.
#[derive(Clone, Debug)]
pub(in super::super) enum Own {
    /// One of a cluster, which is served here now.
    Seat(Arc<Seat>),
    /// The server of this number, of those that the settings name.
    Server(Home),
}

/// All shards, as one of them asks them.
#[derive(Clone, Debug)]
pub(in super::super) struct Others {
    pub(super) all: Weak<dyn Cluster>,
    pub(super) homes: Homes,
    pub(super) own: Own,
}

impl Others {
    /// Returns where the shard is served, in a cluster.
    pub(in super::super) fn seat(&self) -> Option<&Arc<Seat>> {
        match &self.own {
            Own::Seat(seat) => Some(seat),
            Own::Server(_) => None,
        }
    }

    pub(in super::super) fn own(&self) -> &Own {
        &self.own
    }

    pub(in super::super) fn homes(&self) -> &Homes {
        &self.homes
    }

    /// Returns what is placed on its server.
    pub(in super::super) fn placed(&self) -> &[TopicSelector] {
        match &self.own {
            Own::Seat(_) => &[],
            Own::Server(number) => self.homes.placed_on(*number),
        }
    }

    /// Whether something lives at the shard itself.
    pub(in super::super) fn is_own(&self, what: &impl Lives) -> bool {
        match &self.own {
            Own::Seat(seat) => seat.has(what.slot()),
            Own::Server(number) => self.homes.of(what) == *number,
        }
    }

    /// Whether topics that are named so may live at the shard.
    pub(in super::super) fn may_have(&self, topics: &TopicSelector) -> bool {
        match (&self.own, topics) {
            (_, TopicSelector::Topic(topic)) => self.is_own(topic),
            (Own::Seat(_), TopicSelector::Pattern(_)) => true,
            (Own::Server(number), TopicSelector::Pattern(_)) => self.homes.may_have(*number, topics.prefix()),
        }
    }

    /// Returns all shards.
    pub(in super::super) fn shards(&self) -> Vec<Arc<Shard>> {
        self.all.upgrade().map_or_else(Vec::new, |shards| shards.shards())
    }

    /// Returns the shards of some things, each with the places of those that it has.
    pub(in super::super) fn groups<'a, T: Lives + 'a>(
        &self,
        all: impl Iterator<Item = &'a T>,
    ) -> Result<Groups, StorageError> {
        let homes: Vec<Home> = all.map(|what| self.homes.of(what)).collect();
        self.all.upgrade().map_or_else(|| Ok(Vec::new()), |shards| shards.groups(&homes))
    }

    /// Returns the shard that something lives at.
    pub(in super::super) fn owner_of(&self, home: Home) -> Result<Arc<Shard>, StorageError> {
        let unserved = || Err(StorageError::Unavailable(Failure::Unserved.into()));
        self.all.upgrade().map_or_else(unserved, |shards| shards.owner_of(home))
    }

    /// Notes what a server has said.
    pub(in super::super) fn heed(&self, redirect: &Redirect) {
        if let Some(shards) = self.all.upgrade() {
            shards.heed(redirect);
        }
    }
}
