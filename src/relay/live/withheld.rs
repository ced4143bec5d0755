//! What a reader keeps back: of topics that it reads because its caller owns them, what came after they may have become
//! somebody else's, until that is known.
//!
//! It must not know what is done with what is given out.

use tidemill_proto::TopicName;

use super::doubt::Doubt;
use super::following::Following;
use super::item::Item;
use super::outlet::Outlet;
use super::reader::LiveReader;
use super::subscription::Parked;
use crate::access::Within;
use crate::storage::Epoch;

impl<O: Outlet> LiveReader<O> {
    /// Returns what was kept back, once it is known that it may be given out.
    pub(super) fn given_out(&mut self, doubt: Box<Doubt>) -> Vec<Item> {
        match doubt.into_items() {
            Ok((items, topic, epochs)) => {
                self.owned.insert(topic, Some(epochs));
                // Of another topic it may not be known yet.
                self.withhold(items)
            }
            Err(doubt) => {
                self.doubt = Some(doubt);
                Vec::new()
            }
        }
    }

    /// Keeps what was taken where a topic in it may be somebody else's by now, until it is known whose it is.
    pub(super) fn withhold(&mut self, items: Vec<Item>) -> Vec<Item> {
        let asks = |it: &Following<Parked<O>>| it.feed().scope().asks_for_owner();
        if items.is_empty() || (self.owned.is_empty() && !self.following.iter().any(asks)) {
            return items;
        }
        let mut topics = items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(message.topic()),
            Item::Gap(gap) => Some(&gap.topic),
            Item::Closed(closed) => Some(&closed.topic),
            Item::Bookmark(..) => None,
        });
        let Some((topic, epochs, is_named)) = topics.find_map(|topic| self.doubtful(topic)) else {
            return items;
        };
        let (feeds, owner) = (self.feeds.clone(), self.session.caller().owner().unwrap_or_default());
        self.doubt = Some(Box::new(Doubt::new(feeds, owner, (topic, epochs, is_named), items)));
        self.parking.wake();
        Vec::new()
    }

    /// Returns a topic that is read because the caller owns it, if it is not the one of which that was asked last.
    fn doubtful(&self, topic: &TopicName) -> Option<(TopicName, [Epoch; 2], bool)> {
        let is_owned = |pattern| {
            let mut following =
                self.following.iter().filter(|following| following.feed().pattern() == pattern);
            following.any(|it| matches!(it.feed().scope().has(topic), Within::IfOwnedBy(_)))
        };
        let known = self.owned.get(topic);
        let mut all = self.subscriptions.iter().filter(|it| it.topic() == topic);
        all.find_map(|subscription| {
            let is_named = subscription.covered_by.is_none();
            let reads_as_owner = match &subscription.covered_by {
                None => known.is_some(),
                Some(pattern) => is_owned(pattern),
            };
            // Which it was that it has read, and which the feed has.
            let epochs = [subscription.epoch.unwrap_or_default(), subscription.feed.ring().read().epoch()];
            let is_doubtful = reads_as_owner && known.copied().flatten() != Some(epochs);
            is_doubtful.then(|| (topic.clone(), epochs, is_named))
        })
    }
}
