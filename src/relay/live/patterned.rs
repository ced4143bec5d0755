//! The patterns of a reader: how they are added and taken away.

use tidemill_proto::pattern_cursor::PatternCursorError;
use tidemill_proto::{Cursor, PatternCursor, Problem, Since, TopicPattern};

use super::bookmark::{Bookmark, Gathering};
use super::following::{At, Following, Origin};
use super::outlet::Outlet;
use super::pattern_reader::PatternReader;
use super::reader::LiveReader;
use super::turn::Turn;
use crate::access::Verb;
use crate::relay::Failure;

/// Where a reader of a pattern starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// In every topic where these words say; in one that is made later before its first message.
    Since(Since),
    /// Where this cursor stands.
    Cursor(PatternCursor),
}

impl StartAt {
    /// Parses the cursor of a pattern.
    ///
    /// # Errors
    /// The text is none; the problem names the field.
    pub fn parse_cursor(field: &str, text: &str) -> Result<Self, Failure> {
        let cursor = PatternCursor::parse(text).ok().filter(|cursor| Bookmark::read(cursor).is_some());
        cursor.map(Self::Cursor).ok_or_else(|| Problem::field(field, PatternCursorError).into())
    }
}

impl<O: Outlet> LiveReader<O> {
    /// Adds the topics that a pattern covers and the caller may read, those that are made later among them, or moves the reader to
    /// another place in them. Returns the cursor where it starts.
    ///
    /// # Errors
    /// The caller may read no topic at all, the cursor is none, as many patterns or topics are read
    /// live as may be, or the storage did not answer.
    pub async fn add_pattern(
        &mut self,
        pattern: &TopicPattern,
        from: &StartAt,
    ) -> Result<PatternCursor, Failure> {
        self.session.caller().check_some_topic(Verb::Read)?;
        let scope = self.session.caller().read_scope();
        let start = match from {
            StartAt::Since(since) => match since.at(self.feeds.now()) {
                Cursor::Latest => None,
                Cursor::Earliest => Some((Origin::Cursor(None), Bookmark::default())),
                Cursor::After(id) => {
                    let base = id.next().unwrap_or(id).ms;
                    Some((Origin::Cursor(Some(id)), Gathering::default().at(base)))
                }
            },
            StartAt::Cursor(cursor) => {
                let bookmark = Bookmark::read(cursor)
                    .ok_or_else(|| Failure::from(Problem::field("cursor", PatternCursorError)))?;
                Some((Origin::Bookmark, bookmark))
            }
        };
        let reader = PatternReader::join(&self.feeds, pattern, scope).await?;
        self.remove_pattern(pattern);
        let mut following = Following::begin(reader, self.parking.clone());
        if let Some((origin, bookmark)) = start {
            following.start_at(origin, bookmark);
        }
        let cursor = following.bookmark.to_cursor();
        self.following.push(following);
        self.session.reads_more();
        self.parking.wake();
        Ok(cursor)
    }

    /// Takes a pattern away; returns whether it was there.
    pub fn remove_pattern(&mut self, pattern: &TopicPattern) -> bool {
        let Some(at) = self.following.iter().position(|following| following.pattern() == pattern) else {
            return false;
        };
        self.end_topics_of(pattern);
        self.following.swap_remove(at).end();
        self.session.reads_less();
        if !self.following.iter().any(|following| matches!(following.at, At::Behind(_))) {
            // Nobody of this reader waits for room any more.
            self.turn_by_topic = Turn::None;
        }
        true
    }

    /// Ends the subscriptions of a pattern's topics.
    pub(super) fn end_topics_of(&mut self, pattern: &TopicPattern) {
        while let Some(at) = self.subscriptions.iter().position(|it| it.covered_by.as_ref() == Some(pattern))
        {
            self.end_subscription(at);
        }
    }

    /// Returns the cursor of each pattern.
    #[must_use]
    pub fn pattern_cursors(&self) -> Vec<(TopicPattern, PatternCursor)> {
        let cursor = |following: &Following<_>| (following.pattern().clone(), following.bookmark.to_cursor());
        self.following.iter().map(cursor).collect()
    }

    /// Returns a pattern that cannot be read on, if there is one, with what has ended it.
    #[must_use]
    pub fn ended(&self) -> Option<(TopicPattern, Failure)> {
        let is_ended = |following: &Following<_>| {
            let problem = following.feed().ended()?;
            Some((following.pattern().clone(), Failure::from(*problem)))
        };
        self.following.iter().find_map(is_ended)
    }
}
