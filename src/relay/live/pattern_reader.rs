//! The way of a reader to the feed of a pattern, and out of it.

use std::fmt;
use std::sync::Arc;

use tidemill_proto::{Code, Problem, TopicPattern};

use super::feeds::Feeds;
use super::pattern_feed::PatternFeed;
use super::patterns::JoinedPattern;
use crate::access::ReadScope;
use crate::relay::Failure;

/// A reader of a pattern's feed, which leaves when dropped.
pub(super) struct PatternReader {
    feeds: Arc<Feeds>,
    feed: Arc<PatternFeed>,
}

impl fmt::Debug for PatternReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PatternReader").field(self.feed.pattern()).finish()
    }
}

impl PatternReader {
    /// Joins the feed of a pattern, as far as its reader may read, and returns once that has found out what it covers.
    ///
    /// # Errors
    /// There are as many patterns, or live topics, as may be, or the storage did not answer.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn join(
        feeds: &Arc<Feeds>,
        pattern: &TopicPattern,
        scope: ReadScope,
    ) -> Result<Self, Failure> {
        let joined = feeds.patterns().join(pattern, scope, |watch| feeds.watch_all(watch));
        let (feed, is_new) = match joined {
            JoinedPattern::There(feed) => (feed, false),
            JoinedPattern::New(feed) => (feed, true),
            JoinedPattern::Full(max) => {
                let detail = format!(
                    "{max} patterns are read live on this node, as many as may be; try again when readers have gone"
                );
                return Err(Problem::new(Code::Overloaded, detail).into());
            }
        };
        let reader = Self { feeds: feeds.clone(), feed };
        if is_new {
            feeds.run_pattern(reader.feed.clone());
        }
        reader.feed.begun().await.map_err(|problem| Failure::from(*problem))?;
        Ok(reader)
    }

    pub(super) fn feed(&self) -> &Arc<PatternFeed> {
        &self.feed
    }
}

impl Drop for PatternReader {
    fn drop(&mut self) {
        if self.feeds.patterns().leave(&self.feed) {
            let (feeds, feed) = (self.feeds.clone(), self.feed.clone());
            self.feeds.after_lingering(move || {
                feeds.patterns().end_if_idle(&feed, |watch| feeds.watch_all(watch));
            });
        }
    }
}
