//! What the storage did, and what everybody was told of it, held against each other.

use std::collections::{HashMap, HashSet};

use tidemill::proto::page::Order;
use tidemill::proto::{MessageId, TopicName};

use super::publishers::{Attempt, Outcome};
use super::readers::{From, Reading};
use super::{DEADLINE, END};
use crate::support::faulty::{Deed, Faulty};
use crate::support::ground::{ids, is_strictly_increasing, read_all};
use crate::support::ws::Got;

/// What became of a topic.
#[derive(Debug, Default)]
struct Story {
    /// Everything that was ever appended, in order.
    messages: Vec<(MessageId, String)>,
    places: HashMap<MessageId, usize>,
    /// How many messages there had been each time the topic was deleted.
    deletions: Vec<usize>,
    /// What is still there.
    kept: HashSet<MessageId>,
}

/// What became of all topics.
#[derive(Debug)]
pub(super) struct Truth(HashMap<TopicName, Story>);

impl Truth {
    /// Returns what a storage has done, and still has.
    pub(super) async fn of(faulty: &Faulty, topics: &[TopicName]) -> Self {
        let mut stories: HashMap<_, Story> = HashMap::new();
        for deed in faulty.deeds() {
            match deed {
                Deed::Appended { topic, id, payload } => {
                    let story = stories.entry(topic).or_default();
                    story.places.insert(id, story.messages.len());
                    story.messages.push((id, payload));
                }
                Deed::Deleted { topic } => {
                    let story = stories.entry(topic).or_default();
                    story.deletions.push(story.messages.len());
                }
            }
        }
        for topic in topics {
            let kept = ids(&read_all(faulty.inner(), topic, Order::Asc, 1_000).await);
            let story = stories.entry(topic.clone()).or_default();
            let all: Vec<_> = story.messages.iter().map(|(id, _)| *id).collect();
            assert!(is_strictly_increasing(&all), "ids grow");
            // What is trimmed goes from the old end.
            assert!(all.ends_with(&kept), "{topic} has what was appended, up to the end");
            story.kept = kept.into_iter().collect();
        }
        Self(stories)
    }

    /// Checks what publishers were told.
    pub(super) fn check_published(&self, attempts: &[Attempt]) {
        let mut sent: HashMap<(&TopicName, &str), Vec<&Attempt>> = HashMap::new();
        for attempt in attempts {
            assert!(attempt.took <= DEADLINE, "I7: {attempt:?}");
            sent.entry((&attempt.topic, attempt.payload.as_str())).or_default().push(attempt);
        }
        let mut copies: HashMap<(&TopicName, &str), Vec<usize>> = HashMap::new();
        for (topic, story) in &self.0 {
            for (place, (_, payload)) in
                story.messages.iter().enumerate().filter(|(_, (_, text))| text != END)
            {
                copies.entry((topic, payload.as_str())).or_default().push(place);
            }
        }
        for message in copies.keys() {
            assert!(sent.contains_key(message), "I4: nobody sent {message:?}");
        }
        for (message, attempts) in sent {
            let (story, found) = (&self.0[message.0], copies.remove(&message).unwrap_or_default());
            for attempt in &attempts {
                if let Outcome::Kept { id, .. } = attempt.outcome {
                    let kept = story.places.get(&id).map(|place| story.messages[*place].1.as_str());
                    assert_eq!(kept, Some(message.1), "I1: {attempt:?}");
                }
            }
            let may_be_kept = attempts.iter().any(|attempt| !matches!(attempt.outcome, Outcome::Refused));
            assert!(may_be_kept || found.is_empty(), "refused, and kept: {attempts:?}");
            if attempts[0].keyed {
                // A topic that is made again knows no keys of its predecessor.
                let topics: HashSet<_> = found.iter().map(|place| story.incarnation(*place)).collect();
                assert_eq!(topics.len(), found.len(), "I5: copies of {message:?} at {found:?}: {attempts:?}");
            } else {
                assert!(attempts.len() == 1 && found.len() <= 1, "one attempt, {found:?}: {attempts:?}");
            }
        }
    }

    /// Checks what a reader got.
    pub(super) fn check_read(&self, reading: &Reading) {
        if let Err(fault) = self.0[&reading.topic].find_fault(reading) {
            panic!("{fault}: {reading:#?}");
        }
    }
}

impl Story {
    /// Returns which topic of the name a message was of.
    fn incarnation(&self, place: usize) -> usize {
        self.deletions.partition_point(|deletion| *deletion <= place)
    }

    fn find_fault(&self, reading: &Reading) -> Result<(), String> {
        // The place of the message to come; unknown for who begins now.
        let mut next = match reading.from {
            From::Earliest => Some(0),
            From::Latest => None,
            From::After(id) => Some(self.places[&id] + 1),
        };
        // Who asks for what there is is told of no gap in front of it.
        let mut may_be_silent = reading.from == From::Earliest;
        let mut gaps = 0;
        for got in &reading.got {
            let (id, payload) = match got {
                Got::Gap(_) => {
                    gaps += 1;
                    continue;
                }
                Got::Lost => {
                    // Who comes again from the same place is told again what is gone, if it still is.
                    gaps = 0;
                    continue;
                }
                Got::Message(id, payload) => (id, payload),
                Got::End | Got::Close(_) => return Err(format!("{got:?} is not news")),
            };
            let place = *self.places.get(id).ok_or_else(|| format!("I4: nobody appended {id}"))?;
            if self.messages[place].1.as_bytes() != payload {
                return Err(format!("I4: {id} is not {}", String::from_utf8_lossy(payload)));
            }
            if let Some(next) = next {
                if place < next {
                    return Err(format!("I2: {id} is the message {place}, and {next} was to come"));
                }
                let missed = &self.messages[next..place];
                if let Some((missed, _)) = missed.iter().find(|(id, _)| self.kept.contains(id)) {
                    return Err(format!("I3: {missed} is there, and was not given before {id}"));
                }
                if !missed.is_empty() && gaps == 0 && !may_be_silent {
                    return Err(format!("I3: {} are missing before {id}, without a gap", missed.len()));
                }
                let is_of_another = self.deletions.iter().any(|deletion| (next..=place).contains(deletion));
                if missed.is_empty() && gaps > 0 && !is_of_another {
                    return Err(format!("a gap before {id}, where nothing is missing"));
                }
            }
            (next, gaps, may_be_silent) = (Some(place + 1), 0, false);
        }
        if next != Some(self.messages.len()) {
            return Err(format!("I8: {next:?} was to come, and there are {}", self.messages.len()));
        }
        Ok(())
    }
}
