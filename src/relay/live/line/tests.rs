//! What a reader does that came from storage and meets the ring: orders of events that real time gives
//! only once in many thousand runs.

use tidemill_proto::Timestamp;

use super::*;
use crate::relay::live::message::LiveMessage;
use crate::relay::live::ring::Ring;
use crate::relay::live::round::Round;
use crate::storage::{StoredMessage, Tail};

/// An outlet that notes the ids that it gets.
#[derive(Default)]
struct Ids(Vec<MessageId>);

impl Outlet for Ids {
    fn is_free(&self) -> bool {
        true
    }

    fn bytes_max(&self) -> usize {
        usize::MAX
    }

    fn deliver(&mut self, round: &Round) {
        self.0.extend(ids(round.items()));
    }
}

/// Returns the ids of messages, and the smallest there is in place of a gap.
fn ids(items: &[Item]) -> Vec<MessageId> {
    let id = |item: &Item| match item {
        Item::Message(message) => message.id(),
        Item::Gap(_) => MessageId::MIN,
    };
    items.iter().map(id).collect()
}

fn of(all: &[u64]) -> Vec<MessageId> {
    all.iter().copied().map(id).collect()
}

const fn id(ms: u64) -> MessageId {
    MessageId::new(ms, 0)
}

fn topic() -> TopicName {
    TopicName::parse("t").expect("a valid name")
}

fn message(ms: u64) -> Arc<LiveMessage> {
    let body = crate::relay::test_body("1");
    Arc::new(LiveMessage::new(
        topic(),
        StoredMessage { id: id(ms), timestamp: Timestamp::from_millis(ms), body },
    ))
}

/// A feed that nobody runs, of a topic that is not there yet: its ring is as the test has it.
fn feed() -> Arc<Feed> {
    let storage = crate::storage::test_storage();
    Arc::new(Feed::new(topic(), storage, Tail { last: None, given: None }, true))
}

fn push(feed: &Feed, all: &[u64]) {
    let mut ring = feed.ring().write();
    for ms in all {
        ring.push_message(message(*ms));
    }
}

fn line(feed: &Arc<Feed>) -> Line<Ids> {
    Line::enter(feed.clone(), Arc::default(), None, true, false)
}

/// Returns a read that has begun now, and ended with what storage had.
fn reading(line: &Line<Ids>, feed: &Feed, found: Outcome) -> Reading<Ids> {
    let ring: &Ring = &feed.ring().read();
    let (resets, end, tail) = (ring.resets(), ring.end(), ring.tail());
    Reading { bell: line.bell.clone(), resets, end, tail, state: State::Known(found) }
}

fn page(all: &[u64]) -> Arc<Page> {
    let messages: Vec<_> = all.iter().copied().map(message).collect();
    let reached = messages.last().map(|message| message.id());
    Arc::new(Page { gap: None, messages, reached, passed: None })
}

fn taken() -> Taken {
    Taken::new(Budget { items: 100, bytes: 1 << 20 })
}

/// Takes a page, and enters the ring if it is the last one.
fn read(line: &mut Line<Ids>, feed: &Feed, found: Outcome) -> Vec<MessageId> {
    let reading = reading(line, feed, found);
    let mut taken = taken();
    assert!(line.take_read(&reading, &mut taken));
    if let Standing::Behind { confirmed, .. } = line.standing {
        line.join_ring(confirmed);
    }
    ids(&taken.items)
}

/// Takes from the ring, and returns whether the line may stay there.
fn take(line: &mut Line<Ids>) -> (Vec<MessageId>, bool) {
    let (Standing::Ring(from) | Standing::Ahead(from)) = line.standing else { panic!("not in the ring") };
    let mut taken = taken();
    let stays = line.take_from_ring(from, &mut taken);
    (ids(&taken.items), stays)
}

#[test]
fn who_is_ahead_of_the_feed_goes_on_with_it_behind_its_own_message() {
    let feed = feed();
    let mut line = line(&feed);
    assert_eq!(read(&mut line, &feed, Ok(page(&[1, 2]))), of(&[1, 2]));
    assert!(matches!(line.standing, Standing::Ahead(0)));
    push(&feed, &[1]);
    assert_eq!(take(&mut line), (vec![], true));
    push(&feed, &[2, 3]);
    assert_eq!(take(&mut line), (of(&[3]), true));
    push(&feed, &[4]);
    assert_eq!(take(&mut line), (of(&[4]), true));
}

#[test]
fn a_topic_that_was_deleted_and_made_again_before_the_feed_saw_it_is_asked_about() {
    // Deleted with its third message, which this reader has not got.
    let again = [6, 7];
    for has_looked in [false, true] {
        let feed = feed();
        let mut line = line(&feed);
        let begun = reading(&line, &feed, Ok(page(&[1, 2])));
        if has_looked {
            push(&feed, &again);
        }
        assert!(line.take_read(&begun, &mut taken()));
        let Standing::Behind { confirmed, .. } = line.standing else { panic!("in the ring") };
        if line.join_ring(confirmed) {
            assert!(!has_looked, "the ring says nothing of this reader's message");
            push(&feed, &again);
            let mut outlet = Ids::default();
            assert!(!line.deliver(&mut Rounds::new(feed.ring()), &mut outlet), "the reader sees to it");
            assert_eq!((take(&mut line), outlet.0), ((vec![], false), vec![]));
        }
        let asks = matches!(line.standing, Standing::Behind { seen: true, .. });
        assert!(asks && line.cursor() == Some(id(2)), "storage is asked what became of it: {has_looked}");
    }
}

#[test]
fn the_end_of_a_topic_ahead_of_the_feed_is_not_taken_for_what_the_feed_knows() {
    let feed = feed();
    let mut line = line(&feed);
    assert_eq!(read(&mut line, &feed, Ok(page(&[1, 2]))), of(&[1, 2]));
    // Nothing more there.
    assert_eq!(read(&mut line, &feed, Ok(page(&[]))), of(&[]));
    assert!(matches!(line.standing, Standing::Ahead(0)));
    push(&feed, &[6]);
    assert_eq!(take(&mut line), (vec![], false));
}

#[test]
fn what_came_after_a_deletion_while_it_was_read_is_not_passed_over() {
    let gone = || Err(Arc::new(StorageError::NoTopic));
    let feed = feed();
    let mut line = line(&feed);
    assert_eq!(read(&mut line, &feed, Ok(page(&[1, 2]))), of(&[1, 2]));
    // Storage says that the topic is gone; it is made again, and the feed has looked, when this is taken.
    let begun = reading(&line, &feed, gone());
    push(&feed, &[6]);
    let mut told = taken();
    assert!(line.take_read(&begun, &mut told));
    assert_eq!(ids(&told.items), [MessageId::MIN], "a gap");
    assert!(matches!(line.standing, Standing::Behind { seen: true, confirmed: None }));
    // Told once, however often it is looked at.
    let begun = reading(&line, &feed, gone());
    let mut told = taken();
    assert!(line.take_read(&begun, &mut told));
    assert!(told.items.is_empty() && matches!(line.standing, Standing::Ring(1)));
}
