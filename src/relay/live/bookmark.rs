//! Bookmarks: cursors of readers of a pattern. Whatever a pattern covers, its cursor has few bytes: a time
//! that speaks for nearly all of its topics, and cursors of those that stand apart.
//!
//! The base says: whoever has this bookmark has had every message that came before this time, by the clock that
//! makes ids, in every topic that does not stand apart; and none of these topics gives an id from before it any
//! more. So what they give from the base on is to be read, and some of it may come again.
//!
//! Its text: `p1.`, and base64url of the base as a varint, then for each topic that stands apart the tag of its
//! name and the two parts of its cursor.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use tidemill_proto::{MessageId, PatternCursor, Timestamp, TopicName};

use crate::relay::compact::{TAG_BYTES, Tag, read_varint, tag, write_varint};

/// Bytes behind the base, so that a text never has more than [`PatternCursor::BYTES_MAX`].
const PLACES_BYTES_MAX: usize = (PatternCursor::BYTES_MAX - PatternCursor::PREFIX.len()) / 4 * 3 - 10;

/// Where a reader of a pattern stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bookmark {
    base_ms: u64,
    apart: Vec<(Tag, MessageId)>,
}

/// Gathers a bookmark, as far as there is room.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    apart: Vec<(Tag, MessageId)>,
    bytes: usize,
}

impl Gathering {
    /// Adds a topic that stands apart. Returns whether there was room for it.
    pub(super) fn add(&mut self, topic: &TopicName, cursor: MessageId) -> bool {
        let mut number = Vec::with_capacity(20);
        write_varint(cursor.ms, &mut number);
        write_varint(cursor.seq, &mut number);
        let bytes = self.bytes + TAG_BYTES + number.len();
        let has_room = bytes <= PLACES_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.apart.push((tag(topic), cursor));
        }
        has_room
    }

    /// Returns the bookmark with this base.
    pub(super) fn at(self, base_ms: u64) -> Bookmark {
        Bookmark { base_ms, apart: self.apart }
    }
}

impl Bookmark {
    pub(super) const fn base_ms(&self) -> u64 {
        self.base_ms
    }

    /// Returns about how many bytes it takes.
    pub(super) fn len_bytes(&self) -> usize {
        self.apart.len() * size_of::<(Tag, MessageId)>()
    }

    /// Returns the cursor of a topic that stands apart.
    pub(super) fn place_of(&self, topic: &TopicName) -> Option<MessageId> {
        let tag = tag(topic);
        self.apart.iter().find(|(of, _)| *of == tag).map(|(_, cursor)| *cursor)
    }

    /// Returns it as a client keeps it.
    pub(super) fn to_cursor(&self) -> PatternCursor {
        let mut bytes = Vec::with_capacity(10 + self.apart.len() * (TAG_BYTES + 10));
        write_varint(self.base_ms, &mut bytes);
        for (tag, cursor) in &self.apart {
            bytes.extend_from_slice(tag);
            write_varint(cursor.ms, &mut bytes);
            write_varint(cursor.seq, &mut bytes);
        }
        let text = format!("{}{}", PatternCursor::PREFIX, BASE64.encode(bytes));
        PatternCursor::parse(&text).expect("it is bounded, and of these characters")
    }

    /// Reads what a client has kept; `None` if it is no bookmark.
    pub(super) fn read(cursor: &PatternCursor) -> Option<Self> {
        let bytes = BASE64.decode(cursor.as_str().strip_prefix(PatternCursor::PREFIX)?).ok()?;
        let mut rest = bytes.as_slice();
        let base_ms = read_varint(&mut rest)?;
        if base_ms > Timestamp::MAX.as_millis() {
            return None;
        }
        let mut apart = Vec::new();
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk::<TAG_BYTES>()?;
            rest = after;
            apart.push((*tag, MessageId::new(read_varint(&mut rest)?, read_varint(&mut rest)?)));
        }
        Some(Self { base_ms, apart })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bookmark_comes_back_and_is_bounded(
            base_ms in 0..=Timestamp::MAX.as_millis(),
            places in prop::collection::vec((any::<u64>(), any::<u64>()), 0..400),
        ) {
            let mut gathering = Gathering::default();
            let mut kept = Vec::new();
            for (number, (ms, seq)) in places.into_iter().enumerate() {
                let topic = TopicName::parse(&format!("t.{number}")).expect("a name");
                if gathering.add(&topic, MessageId::new(ms, seq)) {
                    kept.push((topic, MessageId::new(ms, seq)));
                }
            }
            let bookmark = gathering.at(base_ms);
            let cursor = bookmark.to_cursor();
            prop_assert!(cursor.as_str().len() <= PatternCursor::BYTES_MAX);
            let read = Bookmark::read(&cursor).expect("what is written can be read");
            prop_assert_eq!(&read, &bookmark);
            for (topic, id) in kept {
                prop_assert_eq!(read.place_of(&topic), Some(id));
            }
            prop_assert_eq!(read.place_of(&TopicName::parse("other").expect("a name")), None);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "p1\\.[A-Za-z0-9_-]{0,60}") {
            if let Ok(cursor) = PatternCursor::parse(&text) {
                let _ = Bookmark::read(&cursor);
            }
        }
    }

    #[test]
    fn there_is_room_for_more_than_a_hundred_and_fifty_topics() {
        let mut gathering = Gathering::default();
        let id = MessageId::new(1_795_716_642_656, 3);
        let topics = (0..).map(|number| TopicName::parse(&format!("t.{number}")).expect("a name"));
        let room = topics.take_while(|topic| gathering.add(topic, id)).count();
        assert!((150..250).contains(&room), "{room}");
    }
}
