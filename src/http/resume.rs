//! Where readers resume: the ids of events, from cursors and back.
//!
//! A stream of one topic has message ids. A stream of several has ids with a cursor for each topic
//! inside: base64url of a version byte and, for each topic in the order of names, eight bytes of a
//! digest of its name, then the two parts of the cursor as varints. The names themselves would not
//! fit into a header. The cursor of a pattern stands in front, with a comma behind it where names follow. Between two streams a reader may replace a topic by another, which must not be taken
//! for the first: so many bytes that no other name has them.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use tidemill_proto::{MessageId, PatternCursor, TopicName};

use crate::relay::{TAG_BYTES, Tag, read_varint, tag, write_varint};

const VERSION: u8 = 2;
/// A tag and two varints of 64 bits.
const PLACE_BYTES_MAX: usize = TAG_BYTES + 20;

/// Most topics whose cursors an event id holds.
pub(super) const TOPICS_MAX: usize = 200;

/// Most topics beside a pattern, whose cursor travels with theirs.
pub(super) const TOPICS_BESIDE_PATTERN_MAX: usize = 100;

/// Longest text of an event id, and of the part behind a pattern's cursor.
const TEXT_BYTES_MAX: usize = text_bytes_max(TOPICS_MAX);

const fn text_bytes_max(topics: usize) -> usize {
    (1 + topics * PLACE_BYTES_MAX).div_ceil(3) * 4
}

// It must come back in one header beside the others.
const _: () = assert!(TEXT_BYTES_MAX < 8 * 1024);
const _: () = assert!(PatternCursor::BYTES_MAX + 1 + text_bytes_max(TOPICS_BESIDE_PATTERN_MAX) < 8 * 1024);

/// A text is no id of an event of several topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResumeError;

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not the id of an event of this path; leave it out to start anew")
    }
}

/// The cursors of a stream of several topics.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// In the order of names.
    places: Vec<TaggedCursor>,
    scratch: Vec<u8>,
}

#[derive(Clone, Debug)]
struct TaggedCursor {
    topic: TopicName,
    tag: Tag,
    cursor: MessageId,
}

impl Places {
    /// Returns the cursors of these topics.
    pub(super) fn new(cursors: BTreeMap<TopicName, MessageId>) -> Self {
        let place = |(topic, cursor)| TaggedCursor { tag: tag(&topic), topic, cursor };
        let places = cursors.into_iter().map(place).collect();
        Self { places, scratch: Vec::new() }
    }

    /// Notes that everything of a topic up to `id` has been written.
    pub(super) fn advance(&mut self, topic: &TopicName, id: MessageId) {
        if let Ok(at) = self.places.binary_search_by(|place| place.topic.cmp(topic)) {
            self.places[at].cursor = id;
        }
    }

    /// Appends the id that resumes all topics.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        self.scratch.clear();
        self.scratch.push(VERSION);
        for place in &self.places {
            let MessageId { ms, seq } = place.cursor;
            self.scratch.extend_from_slice(&place.tag);
            write_varint(ms, &mut self.scratch);
            write_varint(seq, &mut self.scratch);
        }
        let start = out.len();
        out.resize(start + base64::encoded_len(self.scratch.len(), false).unwrap_or(0), 0);
        let written = BASE64.encode_slice(&self.scratch, &mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
    }
}

/// The cursors of an event id: that of a pattern, and others by the tags of their topics.
#[derive(Debug)]
pub(super) struct Resume {
    /// As it was written.
    pub(super) pattern: Option<String>,
    places: Vec<(Tag, MessageId)>,
}

impl Resume {
    /// Parses an event id.
    pub(super) fn parse(text: &str) -> Result<Self, ResumeError> {
        let (pattern, text) = match text.split_once(',') {
            Some((pattern, text)) => (Some(pattern.to_owned()), text),
            None if text.starts_with(PatternCursor::PREFIX) => {
                return Ok(Self { pattern: Some(text.to_owned()), places: Vec::new() });
            }
            None => (None, text),
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(ResumeError);
        }
        let bytes = BASE64.decode(text).map_err(|_| ResumeError)?;
        let Some((&VERSION, mut rest)) = bytes.split_first() else { return Err(ResumeError) };
        let mut places = Vec::new();
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk().ok_or(ResumeError)?;
            rest = after;
            let ms = read_varint(&mut rest).ok_or(ResumeError)?;
            let seq = read_varint(&mut rest).ok_or(ResumeError)?;
            places.push((*tag, MessageId::new(ms, seq)));
        }
        if places.len() > TOPICS_MAX { Err(ResumeError) } else { Ok(Self { pattern, places }) }
    }

    /// Takes the cursor of a topic out, where there is one. Topics are asked for in the order of names,
    /// so that two with the same tag get each its own.
    pub(super) fn take(&mut self, topic: &TopicName) -> Option<MessageId> {
        let tag = tag(topic);
        let at = self.places.iter().position(|(of, _)| *of == tag)?;
        Some(self.places.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: usize) -> TopicName {
        TopicName::parse(&format!("topic-{number}")).expect("a valid name")
    }

    fn written(places: &mut Places) -> String {
        let mut out = Vec::new();
        places.write(&mut out);
        String::from_utf8(out).expect("base64")
    }

    proptest! {
        #[test]
        fn cursors_come_back(
            cursors in prop::collection::vec((any::<u64>(), any::<u64>()), 0..=TOPICS_MAX),
        ) {
            let cursors: BTreeMap<_, _> = cursors
                .into_iter()
                .enumerate()
                .map(|(at, (ms, seq))| (topic(at), MessageId::new(ms, seq)))
                .collect();
            let text = written(&mut Places::new(cursors.clone()));
            prop_assert!(text.len() <= TEXT_BYTES_MAX);
            let mut resume = Resume::parse(&text).expect("what is written can be read");
            for (topic, cursor) in cursors {
                prop_assert_eq!(resume.take(&topic), Some(cursor));
            }
        }

        #[test]
        fn each_topic_of_another_set_gets_its_own_cursor_or_none(
            before in prop::collection::btree_map("[ax]([:.]{0,2}[axy0_-]){0,3}", any::<u64>(), 1..20),
            after in prop::collection::btree_set("[ax]([:.]{0,2}[axy0_-]){0,3}", 1..20),
        ) {
            let name = |text: &String| TopicName::parse(text).expect("a valid name");
            let cursors = before.iter().map(|(text, ms)| (name(text), MessageId::new(*ms, 0))).collect();
            let mut resume = Resume::parse(&written(&mut Places::new(cursors))).expect("an id");
            for text in &after {
                let own = before.get(text).map(|ms| MessageId::new(*ms, 0));
                prop_assert_eq!(resume.take(&name(text)), own);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = Resume::parse(&text);
        }
    }

    #[test]
    fn the_form_is_this_one() {
        let cursors = [(topic(2), MessageId::MIN), (topic(1), MessageId::new(1_517_363_399_650, 3))];
        let mut places = Places::new(cursors.into());
        let text = written(&mut places);
        assert_eq!(text, "AvnSBRMejGNy4pegz5QsA7e6oarvtFf0AAA");
        places.advance(&topic(2), MessageId::new(7, 0));
        let mut resume = Resume::parse(&written(&mut places)).expect("an id");
        assert_eq!(resume.take(&topic(2)), Some(MessageId::new(7, 0)));
        assert_eq!(resume.take(&topic(3)), None, "a topic that was added since");
    }

    #[test]
    fn a_topic_in_place_of_another_does_not_take_its_cursor() {
        // The digests of each pair begin with the same four bytes.
        for (one, other) in [("t-20240", "t-26369"), ("t-41211", "t-44215"), ("t-49777", "t-70131")] {
            let [one, other] = [one, other].map(|name| TopicName::parse(name).expect("a valid name"));
            assert_eq!(tag(&one)[..4], tag(&other)[..4]);
            let cursors = [&one, &other].map(|topic| BTreeMap::from([(topic.clone(), MessageId::new(7, 0))]));
            for (cursors, stranger) in cursors.into_iter().zip([&other, &one]) {
                let mut resume = Resume::parse(&written(&mut Places::new(cursors))).expect("an id");
                assert_eq!(resume.take(stranger), None);
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "1-0", "Ag==", "AQ", "Aw", "AgAA", "latest", "AgAAAAAAAAAA________________", "\u{e9}"]
        {
            assert!(Resume::parse(text).is_err(), "{text}");
        }
        assert!(Resume::parse(&"A".repeat(TEXT_BYTES_MAX + 1)).is_err());
        assert!(Resume::parse("Ag").is_ok(), "of no topics");
    }
}
