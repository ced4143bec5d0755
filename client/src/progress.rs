//! How far a subscription has come in all that it reads.
//!
//! A topic that is read by its name has a position of its own. The topics of a pattern have the cursor that the
//! relay tells: going on from there may bring messages again, which are known by their ids. It must not know
//! connections.

use std::collections::{BTreeMap, HashMap};

use tidemill_proto::{
    Cursor, Gap, GapReason, MessageId, PatternCursor, Since, TopicName, TopicPattern, TopicSelector,
};

use crate::error::ClientError;
use crate::position::Position;
use crate::start::Start;

/// Most topics of patterns in which the newest message is remembered: some megabytes.
const REMEMBERED_TOPICS_MAX: usize = 10_000;

/// How far a subscription has come.
#[derive(Debug)]
pub(crate) struct Progress {
    named: BTreeMap<TopicName, Named>,
    patterns: BTreeMap<TopicPattern, Start>,
    /// What was passed on of topics that patterns alone cover.
    remembered: Remembered,
}

impl Progress {
    /// Returns that of a subscription which has not begun.
    ///
    /// # Errors
    /// A topic is to start where a pattern alone can, or a pattern where a topic alone can.
    pub(crate) fn new(starts: Vec<(TopicSelector, Start)>) -> Result<Self, ClientError> {
        let usage = |text: String| Err(ClientError::Usage(text));
        let (mut named, mut patterns) = (BTreeMap::new(), BTreeMap::<TopicPattern, Start>::new());
        for (selector, start) in starts {
            match (selector, start) {
                (TopicSelector::Topic(topic), Start::Since(since)) => {
                    named.insert(topic, since);
                }
                (TopicSelector::Topic(topic), Start::Cursor(_)) => {
                    return usage(format!(
                        "the topic {topic} cannot start at the cursor of a pattern; give it a message id, `earliest`, `latest` or a time"
                    ));
                }
                (TopicSelector::Pattern(pattern), Start::Since(Since::Cursor(Cursor::After(id)))) => {
                    return usage(format!(
                        "the pattern {pattern} cannot start at the message id {id}, which is of one topic; give it a cursor of the pattern, `earliest`, `latest` or a time"
                    ));
                }
                (TopicSelector::Pattern(pattern), start) => {
                    patterns.insert(pattern, start);
                }
            }
        }
        let begin = |(topic, since): (TopicName, Since)| {
            let is_covered = patterns.keys().any(|pattern| pattern.matches(&topic));
            let named =
                if is_covered { Named::Shared(Shared::new(since)) } else { Named::Own(Position::new(since)) };
            (topic, named)
        };
        let named = named.into_iter().map(begin).collect();
        Ok(Self { named, patterns, remembered: Remembered::default() })
    }

    /// Returns where another subscription goes on.
    pub(crate) fn starts(&self) -> Vec<(TopicSelector, Start)> {
        let named = self.named.iter().map(|(topic, named)| {
            let since = match named {
                Named::Own(position) => position.since(),
                Named::Shared(shared) => shared.since,
            };
            (topic.clone().into(), since.into())
        });
        let patterns = self.patterns.iter().map(|(pattern, start)| (pattern.clone().into(), start.clone()));
        named.chain(patterns).collect()
    }

    /// Takes over where the relay says that reading starts.
    pub(crate) fn start(
        &mut self,
        topics: &[(TopicName, MessageId)],
        patterns: Vec<(TopicPattern, PatternCursor)>,
    ) {
        for (topic, cursor) in topics {
            match self.named.get_mut(topic) {
                Some(Named::Own(position)) => position.start(*cursor),
                Some(Named::Shared(shared)) => shared.start(*cursor),
                None => {}
            }
        }
        for (pattern, cursor) in patterns {
            self.keep(&pattern, cursor);
        }
    }

    /// Keeps the cursor of a pattern, which is behind everything that was passed on.
    pub(crate) fn keep(&mut self, pattern: &TopicPattern, cursor: PatternCursor) {
        if let Some(start) = self.patterns.get_mut(pattern) {
            *start = Start::Cursor(cursor);
        }
    }

    /// Returns whether a message is to be passed on, and stands behind it if so.
    pub(crate) fn pass(&mut self, topic: &TopicName, id: MessageId) -> bool {
        match self.named.get_mut(topic) {
            Some(Named::Own(position)) => position.pass(id),
            Some(Named::Shared(shared)) => {
                shared.pass(id);
                true
            }
            None => match self.remembered.of(topic, &self.patterns) {
                Covered::Once(position) => position.pass(id),
                Covered::Often => true,
                Covered::Not => false,
            },
        }
    }

    /// Returns whether a gap is to be passed on, and stands behind it if so.
    pub(crate) fn pass_gap(&mut self, gap: &Gap) -> bool {
        match self.named.get_mut(&gap.topic) {
            Some(Named::Own(position)) => position.pass_gap(gap),
            Some(Named::Shared(shared)) => {
                shared.pass_gap(gap);
                true
            }
            None => match self.remembered.of(&gap.topic, &self.patterns) {
                Covered::Once(position) => position.pass_gap(gap),
                Covered::Often => true,
                Covered::Not => false,
            },
        }
    }
}

/// Where a subscription stands in a topic that it names.
#[derive(Debug)]
enum Named {
    /// Nothing else brings its messages.
    Own(Position),
    /// A pattern of the subscription covers it, too.
    Shared(Shared),
}

/// Where a reader stands in a topic that it reads by its name and by a pattern: each message comes once for
/// either, and nothing says for which.
#[derive(Debug)]
struct Shared {
    /// The words to subscribe with: never behind what came by the name.
    since: Since,
    /// The newest message of the topic that came.
    newest: Option<MessageId>,
}

impl Shared {
    const fn new(since: Since) -> Self {
        Self { since, newest: None }
    }

    fn start(&mut self, cursor: MessageId) {
        let mut position = Position::new(self.since);
        position.start(cursor);
        *self = Self::new(position.since());
    }

    /// Stands behind a message that came both ways. Each way is in order: one that is not newer than all
    /// others comes by the slower way, so that the other has brought it before.
    fn pass(&mut self, id: MessageId) {
        if self.newest.is_none_or(|newest| newest < id) {
            self.newest = Some(id);
            return;
        }
        let is_behind = match self.since {
            Since::Cursor(Cursor::After(after)) => after < id,
            Since::Cursor(Cursor::Earliest | Cursor::Latest) | Since::Time(_) | Since::Ago(_) => true,
        };
        if is_behind {
            self.since = Since::Cursor(Cursor::After(id));
        }
    }

    fn pass_gap(&mut self, gap: &Gap) {
        match gap.reason {
            GapReason::Trimmed | GapReason::Compacted => {}
            // Ids start anew.
            GapReason::Deleted | GapReason::Reset => *self = Self::new(Since::Cursor(Cursor::Earliest)),
        }
    }
}

/// What was passed on of a topic, by how many of the patterns cover it.
enum Covered<'a> {
    /// None: the topic is not subscribed to.
    Not,
    /// One.
    Once(&'a mut Position),
    /// Several, each of which brings its messages, in no order between them.
    Often,
}

/// What was passed on of topics, as far as it is remembered: of those that something came of last.
#[derive(Debug, Default)]
struct Remembered {
    /// At most half of [`REMEMBERED_TOPICS_MAX`]; `None` where several patterns cover the topic.
    new: HashMap<TopicName, Option<Position>>,
    /// As many, in which nothing came since `new` was empty. They are forgotten when it is full.
    old: HashMap<TopicName, Option<Position>>,
}

impl Remembered {
    fn of(&mut self, topic: &TopicName, patterns: &BTreeMap<TopicPattern, Start>) -> Covered<'_> {
        if !self.new.contains_key(topic) {
            let position = if let Some(position) = self.old.remove(topic) {
                position
            } else {
                match patterns.keys().filter(|pattern| pattern.matches(topic)).count() {
                    0 => return Covered::Not,
                    1 => Some(Position::new(Since::Cursor(Cursor::Earliest))),
                    _ => None,
                }
            };
            if self.new.len() >= REMEMBERED_TOPICS_MAX / 2 {
                self.old = std::mem::take(&mut self.new);
            }
            self.new.insert(topic.clone(), position);
        }
        match self.new.get_mut(topic) {
            Some(Some(position)) => Covered::Once(position),
            Some(None) => Covered::Often,
            None => Covered::Not,
        }
    }
}

#[cfg(test)]
mod tests;
