//! How topics come to a reader, and where it starts in them.

use tidemill_proto::{BucketName, Cursor, Since, TopicName};

use super::begin::{Absent, Begin, Begun};
use super::feed::Mark;
use super::feeds::Joined;
use super::history::View;
use super::outlet::Outlet;
use super::reader::LiveReader;
use super::subscription::Subscription;
use crate::access::{Permit, Verb};
use crate::relay::Failure;

impl<O: Outlet> LiveReader<O> {
    /// Adds a topic, or moves the reader to another place in it, and returns where it starts. Where the topic
    /// does not exist, `absent` says what that means.
    ///
    /// # Errors
    /// The caller may not read the topic, the topic does not exist and that is a mistake, as many topics are
    /// read live as may be, or the storage did not answer.
    pub async fn add(&mut self, topic: &TopicName, since: Since, absent: Absent) -> Result<Begun, Failure> {
        self.add_in_view(topic, (since, View::All), absent).await
    }

    /// Adds a topic of which the reader gets the latest message of each key, where it does not get them live.
    ///
    /// # Errors
    /// As of [`add`](Self::add), and the topic is not compacted.
    pub async fn add_latest(
        &mut self,
        topic: &TopicName,
        since: Since,
        absent: Absent,
    ) -> Result<Begun, Failure> {
        self.add_in_view(topic, (since, View::Latest { goes_on: false }), absent).await
    }

    async fn add_in_view(
        &mut self,
        topic: &TopicName,
        place: (Since, View),
        absent: Absent,
    ) -> Result<Begun, Failure> {
        let permit = self.feeds.check(self.session.caller(), Verb::Read, topic).await?;
        if place.1 != View::All {
            self.feeds.check_compacted(topic).await?;
        }
        let is_owned = permit == Permit::IfOwner;
        if is_owned {
            self.feeds.note_owner(&self.session, topic);
        }
        self.begin(topic, place, absent, is_owned).await
    }

    /// Adds the log of a bucket, as [`add`](Self::add) does: whoever asks has checked what its caller may read of it.
    /// A bucket that does not exist is awaited.
    ///
    /// # Errors
    /// As many topics are read live as may be, or the storage did not answer.
    pub(in crate::relay) async fn add_log(
        &mut self,
        bucket: &BucketName,
        since: Since,
    ) -> Result<Begun, Failure> {
        self.begin(&TopicName::log_of(bucket), (since, View::All), Absent::Await, false).await
    }

    async fn begin(
        &mut self,
        topic: &TopicName,
        (since, view): (Since, View),
        absent: Absent,
        is_owned: bool,
    ) -> Result<Begun, Failure> {
        let is_tail = matches!(since, Since::Cursor(Cursor::Latest));
        // Who begins a feed is told of the tail; everybody else asks for it.
        let mut resolved = None;
        let (feed, begin, tail_of, exists) = loop {
            // Before the question: the answer says nothing of what the feed comes to meanwhile.
            let mark = if is_tail { self.feeds.mark(topic) } else { None };
            if resolved.is_none() && (!is_tail || mark.is_some()) {
                let place = self.feeds.resolve(topic, since, absent, view).await?;
                resolved = Some((place, mark));
            }
            let Joined { feed, begun, exists } = self.feeds.join(topic, absent).await?;
            // From here to the subscription nothing is waited for, so that who has joined is a subscriber.
            match resolved.or_else(|| begun.map(|tail| (tail.into(), Some(Mark::default())))) {
                Some((place, tail_of)) => break (feed, place, tail_of, exists),
                // Somebody else has begun it at this moment.
                None => self.feeds.leave(topic),
            }
        };
        self.remove(topic);
        if is_owned {
            self.owned.insert(topic.clone(), None);
        }
        let has_ended = feed.has_ended();
        let begin = Begin { view, ..begin };
        self.subscriptions.push(Subscription::begin(feed, self.parking.clone(), begin, tail_of));
        self.session.reads_more();
        self.parking.wake();
        Ok(Begun { cursor: begin.resume(), exists, has_ended })
    }
}
