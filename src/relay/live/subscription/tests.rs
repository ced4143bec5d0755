//! What a reader does that came from storage and meets the ring: orders of events that real time gives
//! only once in many thousand runs.

use tidemill_proto::{Gap, Timestamp};

use super::*;
use crate::budget::Hold;
use crate::relay::live::history::Outcome;
use crate::relay::live::ring_bytes::RingBytes;
use crate::relay::live::shared_batch::SharedBatch;
use crate::storage::{StoredMessage, Tail};

/// An outlet that notes the ids that it gets.
#[derive(Default)]
struct Ids(Vec<MessageId>);

impl Outlet for Ids {
    fn is_free(&self) -> bool {
        true
    }

    fn takes(&self, _: &SharedBatch) -> bool {
        true
    }

    fn deliver(&mut self, batch: &SharedBatch) {
        self.0.extend(ids(batch.items()));
    }
}

/// Returns the ids of messages, and that of [`GAP`] in place of a gap.
fn ids(items: &[Item]) -> Vec<MessageId> {
    let id = |item: &Item| match item {
        Item::Message(message) => message.id(),
        Item::Gap(_) => MessageId::MIN,
        Item::Closed(_) => panic!("nothing has ended"),
        Item::Bookmark(..) => panic!("no pattern is read"),
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
        StoredMessage { id: id(ms), timestamp: Timestamp::from_millis(ms), expires_at: None, body },
    ))
}

/// A feed that nobody runs, of a topic that is not there yet: its ring is as the test has it.
fn feed() -> Arc<Feed> {
    let storage = crate::storage::test_storage();
    Arc::new(Feed::new(
        topic(),
        storage,
        Tail {
            first: None,
            last: None,
            given: None,
            epoch: Epoch::Unmarked,
            born: None,
            late: None,
            ended: None,
        },
        true,
        Timestamp::from_millis(0),
        &RingBytes::new(1 << 20),
    ))
}

fn push(feed: &Feed, all: &[u64]) {
    let mut ring = feed.ring().write();
    for ms in all {
        ring.push_message(message(*ms));
    }
}

/// Returns a reader that is there since before the first message.
fn subscription(feed: &Arc<Feed>) -> Subscription<Ids> {
    begin(feed, None, feed.mark())
}

fn begin(feed: &Arc<Feed>, cursor: Option<u64>, mark: Mark) -> Subscription<Ids> {
    let begin = Begin { cursor: cursor.map(id), ..Begin::BEFORE_THE_FIRST };
    Subscription::begin(feed.clone(), Arc::default(), begin, Some(mark))
}

/// Returns a read that has begun now, and ends with what storage had.
fn reading(subscription: &Subscription<Ids>, found: Outcome) -> StorageRead<Waker<Parked<Ids>>> {
    StorageRead {
        waker: subscription.waker.clone(),
        before: subscription.feed.mark(),
        state: State::Known(found),
    }
}

fn page(all: &[u64]) -> Arc<Page> {
    let messages: Vec<_> = all.iter().copied().map(message).collect();
    let reached = messages.last().map(|message| message.id());
    Arc::new(Page { gap: None, messages, reached, passed: None, epoch: None })
}

fn gone() -> Outcome {
    Err(Arc::new(StorageError::NoTopic))
}

fn taken() -> Taken {
    Taken::new(TakeLimit { items: 2_000, bytes: 1 << 20 }, None, Hold::default())
}

/// Takes what storage had, and enters the ring if it can.
fn read(subscription: &mut Subscription<Ids>, found: Outcome) -> Vec<MessageId> {
    let reading = reading(subscription, found);
    finish(subscription, &reading)
}

fn finish(subscription: &mut Subscription<Ids>, reading: &StorageRead<Waker<Parked<Ids>>>) -> Vec<MessageId> {
    let mut taken = taken();
    assert!(subscription.take_read(reading, &mut taken));
    if let Standing::Behind { cuts, .. } = subscription.standing {
        subscription.join_ring(cuts);
    }
    ids(&taken.items)
}

/// Takes from the ring, and returns whether the subscription may stay there.
fn take(subscription: &mut Subscription<Ids>) -> (Vec<MessageId>, bool) {
    let (Standing::Ring(from) | Standing::Ahead(from)) = subscription.standing else {
        panic!("not in the ring")
    };
    let mut taken = taken();
    let stays = subscription.take_from_ring(from, &mut taken);
    (ids(&taken.items), stays)
}

/// Whether storage is asked what lies behind the cursor.
fn asks(subscription: &Subscription<Ids>) -> bool {
    matches!(subscription.standing, Standing::Behind { seen: true, .. })
}

fn gap(from: u64, to: u64, reason: GapReason) -> Gap {
    Gap { topic: topic(), from: id(from), to: id(to), reason, missed: None }
}

fn cut(feed: &Feed, epoch: u64, resume: Option<u64>, is_loss: bool) {
    feed.ring().write().cut(Epoch::Marked(epoch), resume.map(id), is_loss);
}

/// Has the feed find its topic gone, as one that was there.
fn go(feed: &Feed) {
    feed.ring().write().cut(Epoch::Unmarked, None, false);
}

/// Whether the reader waits for the feed to come to another topic.
fn waits(subscription: &mut Subscription<Ids>) -> bool {
    let Standing::Waiting { cuts } = subscription.standing else { return false };
    subscription.waits(cuts)
}

/// Returns what storage has behind a gap, in a topic of this epoch.
fn told(gap: Gap, all: &[u64], epoch: u64) -> Arc<Page> {
    let messages: Vec<_> = all.iter().copied().map(message).collect();
    let reached = messages.last().map(|message| message.id());
    let epoch = Some(Epoch::Marked(epoch));
    Arc::new(Page { gap: Some(Arc::new(gap)), messages, reached, passed: None, epoch })
}

const GAP: u64 = 0;

#[test]
fn who_is_ahead_of_the_feed_goes_on_with_it_behind_its_own_message() {
    let feed = feed();
    let mut subscription = subscription(&feed);
    assert_eq!(read(&mut subscription, Ok(page(&[1, 2]))), of(&[1, 2]));
    assert!(matches!(subscription.standing, Standing::Ahead(0)));
    push(&feed, &[1]);
    assert_eq!(take(&mut subscription), (vec![], true));
    push(&feed, &[2, 3]);
    assert_eq!(take(&mut subscription), (of(&[3]), true));
    push(&feed, &[4]);
    let mut outlet = Ids::default();
    assert!(
        subscription.deliver(&mut SharedBatches::new(feed.ring()), &mut outlet, &Pending::new(1 << 20)),
        "as one that was never ahead"
    );
    assert_eq!(outlet.0, of(&[4]));
}

#[test]
fn a_topic_that_was_deleted_and_made_again_before_the_feed_saw_it_is_asked_about() {
    // Deleted with its third message, which this reader has not got.
    let again = [6, 7];
    for has_looked in [false, true] {
        let feed = feed();
        let mut subscription = subscription(&feed);
        let begun = reading(&subscription, Ok(page(&[1, 2])));
        if has_looked {
            push(&feed, &again);
        }
        assert_eq!(finish(&mut subscription, &begun), of(&[1, 2]));
        assert_eq!(
            subscription.is_up_to_date(),
            !has_looked,
            "the ring says nothing of this reader's message"
        );
        if !has_looked {
            push(&feed, &again);
            let mut outlet = Ids::default();
            assert!(
                !subscription.deliver(
                    &mut SharedBatches::new(feed.ring()),
                    &mut outlet,
                    &Pending::new(1 << 20)
                ),
                "the reader sees to it"
            );
            assert_eq!((take(&mut subscription), outlet.0), ((vec![], false), vec![]));
        }
        assert!(asks(&subscription) && subscription.cursor() == Some(id(2)), "{has_looked}");
    }
}

#[test]
fn the_end_of_a_topic_ahead_of_the_feed_is_not_taken_for_what_the_feed_knows() {
    let feed = feed();
    let mut subscription = subscription(&feed);
    read(&mut subscription, Ok(page(&[1, 2])));
    // Nothing more there.
    read(&mut subscription, Ok(page(&[])));
    assert!(matches!(subscription.standing, Standing::Ahead(0)));
    push(&feed, &[6]);
    assert_eq!(take(&mut subscription), (vec![], false));
}

#[test]
fn a_topic_that_the_feed_finds_gone_and_never_saw_is_asked_about_once() {
    let feed = feed();
    let mut subscription = subscription(&feed);
    assert!(!feed.find_gone(), "nobody has seen it there");
    read(&mut subscription, Ok(page(&[1, 2])));
    assert_eq!(take(&mut subscription), (vec![], true), "the feed has not looked");
    assert!(feed.find_gone() && !feed.find_gone(), "a reader has seen it, once");
    assert_eq!(take(&mut subscription), (vec![], false));
    assert!(asks(&subscription));
    // It is there again, empty.
    read(&mut subscription, Ok(page(&[])));
    assert_eq!(take(&mut subscription), (vec![], true));
}

#[test]
fn what_came_after_a_deletion_while_it_was_read_is_not_passed_over() {
    let feed = feed();
    let mut subscription = subscription(&feed);
    read(&mut subscription, Ok(page(&[1, 2])));
    // Storage says that the topic is gone; it is made again, and the feed has looked, when this is taken.
    let begun = reading(&subscription, gone());
    push(&feed, &[6]);
    assert_eq!(finish(&mut subscription, &begun), of(&[GAP]));
    assert!(asks(&subscription));
    // Told once, however often it is looked at.
    assert_eq!(read(&mut subscription, gone()), []);
    assert!(waits(&mut subscription), "the feed has not seen that it is gone");
    assert!(feed.find_gone());
    assert!(!waits(&mut subscription) && asks(&subscription));
    assert_eq!(read(&mut subscription, gone()), []);
    assert!(matches!(subscription.standing, Standing::Ring(2)));
}

#[test]
fn who_found_no_topic_asks_for_one_that_the_feed_has_come_to_since() {
    let feed = feed();
    let nothing = Begin { epoch: Some(Epoch::Unmarked), ..Begin::BEFORE_THE_FIRST };
    let mut subscription =
        Subscription::<Ids>::begin(feed.clone(), Arc::default(), nothing, Some(feed.mark()));
    // It is made, and the feed reads it, before the reader has its first turn.
    feed.ring().write().mark(Epoch::Marked(1));
    push(&feed, &[1]);
    assert!(!subscription.join_ring(Some(0)) && asks(&subscription), "{:?}", subscription.standing);
    let page = Page {
        gap: None,
        messages: vec![message(1)],
        reached: Some(id(1)),
        passed: None,
        epoch: Some(Epoch::Marked(1)),
    };
    assert_eq!(read(&mut subscription, Ok(Arc::new(page))), of(&[1]));
    push(&feed, &[2]);
    assert_eq!(take(&mut subscription), (of(&[2]), true));
}

#[test]
fn a_cursor_from_before_a_cut_is_not_looked_for_among_the_ids_after_it() {
    let feed = feed();
    let mut subscription = subscription(&feed);
    push(&feed, &[5_000]);
    subscription.join_ring(Some(0));
    assert_eq!(take(&mut subscription), (of(&[5_000]), true));
    // More than a ring holds comes while the client takes nothing, and the topic goes.
    push(&feed, &(5_001..7_000).collect::<Vec<_>>());
    go(&feed);
    assert_eq!(take(&mut subscription), (vec![], false));
    assert!(!subscription.join_ring(None) && asks(&subscription) && subscription.cursor() == Some(id(5_000)));
    assert_eq!(read(&mut subscription, gone()), of(&[GAP]));
}

#[test]
fn who_has_got_nothing_yet_is_told_of_a_topic_that_is_gone_with_what_it_was_passed_over_by() {
    let flood: Vec<_> = (1..2_000).collect();
    for feed_knows in [false, true] {
        let feed = feed();
        let mut subscription = subscription(&feed);
        subscription.join_ring(Some(0));
        push(&feed, &flood);
        if feed_knows {
            go(&feed);
        }
        assert_eq!(take(&mut subscription), (vec![], false));
        assert_eq!(read(&mut subscription, gone()), of(&[GAP]));
        if !feed_knows {
            go(&feed);
            assert!(!waits(&mut subscription));
        }
        assert_eq!(read(&mut subscription, gone()), [], "once");
        assert_eq!(take(&mut subscription), (vec![], true));
    }
    // Made again, and the feed has seen it, or has not: storage is told of a message of the earlier one.
    for feed_knows in [false, true] {
        let feed = self::feed();
        feed.ring().write().mark(Epoch::Marked(1));
        let mut subscription = self::subscription(&feed);
        subscription.join_ring(Some(0));
        push(&feed, &flood);
        if feed_knows {
            cut(&feed, 2, Some(2_499), false);
            push(&feed, &[2_500]);
        }
        assert_eq!(take(&mut subscription), (vec![], false));
        assert!(subscription.knows_of.is_some());
        assert_eq!(subscription.epoch, (!feed_knows).then_some(Epoch::Marked(1)));
        let found = told(gap(0, 2_500, GapReason::Deleted), &[2_500], 2);
        assert_eq!(read(&mut subscription, Ok(found)), of(&[GAP, 2_500]));
        assert!(subscription.knows_of.is_none(), "once");
    }
    // Told of the deletion by storage, while the next topic comes with more than a ring holds.
    let feed = self::feed();
    let mut subscription = self::subscription(&feed);
    push(&feed, &[1]);
    read(&mut subscription, Ok(page(&[1])));
    assert_eq!(read(&mut subscription, gone()), of(&[GAP]));
    cut(&feed, 2, None, false);
    push(&feed, &flood);
    assert!(
        !waits(&mut subscription) && asks(&subscription) && subscription.cursor() == Some(MessageId::MIN)
    );
    // Still there: nothing was missed.
    let feed = self::feed();
    let mut subscription = self::subscription(&feed);
    subscription.join_ring(Some(0));
    push(&feed, &flood);
    take(&mut subscription);
    assert_eq!(read(&mut subscription, Ok(page(&[1, 2]))), of(&[1, 2]));
}

#[test]
fn what_a_topic_has_lost_that_was_made_again_is_told_also_to_who_knows_of_the_deletion() {
    let feed = feed();
    let mut subscription = subscription(&feed);
    push(&feed, &[1]);
    read(&mut subscription, Ok(page(&[1])));
    assert_eq!(read(&mut subscription, gone()), of(&[GAP]));
    // The feed has not seen it gone; of the next topic the messages before 9 are trimmed already.
    cut(&feed, 2, Some(8), false);
    push(&feed, &[9]);
    assert!(!waits(&mut subscription));
    assert!(
        asks(&subscription) && subscription.cursor() == Some(MessageId::MIN),
        "storage tells what was trimmed"
    );
}

#[test]
fn ids_that_start_anew_repeat_nothing_for_who_has_them_from_storage() {
    let feed = feed();
    feed.ring().write().mark(Epoch::Marked(1));
    push(&feed, &[100]);
    let mut subscription = subscription(&feed);
    // Storage has told of the other topic already.
    let found = told(gap(100, 1, GapReason::Reset), &[1, 2], 2);
    assert_eq!(read(&mut subscription, Ok(found)), of(&[GAP, 1, 2]));
    assert!(waits(&mut subscription), "the ring's ids say nothing to it");
    push(&feed, &[101]);
    assert!(!subscription.deliver(
        &mut SharedBatches::new(feed.ring()),
        &mut Ids::default(),
        &Pending::new(1 << 20)
    ));
    assert!(waits(&mut subscription));
    cut(&feed, 2, None, false);
    push(&feed, &[1, 2, 3]);
    assert!(!waits(&mut subscription) && subscription.join_ring(None));
    assert_eq!(take(&mut subscription), (of(&[3]), true));
}

#[test]
fn who_begins_at_the_tail_is_told_what_happens_to_it_meanwhile() {
    // What follows the tail is trimmed before the feed has seen it.
    let feed = feed();
    push(&feed, &[4, 5]);
    let mark = feed.mark();
    feed.ring().write().push_gap(gap(5, 9, GapReason::Trimmed), Some(id(8)));
    push(&feed, &[9]);
    let mut subscription = begin(&feed, Some(5), mark);
    assert!(subscription.join_ring(Some(0)));
    assert_eq!(take(&mut subscription), (of(&[GAP, 9]), true));
    // Ids start anew: storage tells of it.
    let feed = self::feed();
    push(&feed, &[4, 5]);
    let mark = feed.mark();
    cut(&feed, 2, None, false);
    push(&feed, &[3]);
    let subscription = &mut begin(&feed, Some(5), mark);
    let Standing::Behind { cuts, .. } = subscription.standing else { panic!("in the ring") };
    assert!(!subscription.join_ring(cuts) && asks(subscription) && subscription.cursor() == Some(id(5)));
}

#[test]
fn who_reads_on_behind_what_the_backend_has_lost_is_told_once() {
    let feed = feed();
    feed.ring().write().mark(Epoch::Marked(1));
    let mut behind = subscription(&feed);
    let mut beside = subscription(&feed);
    push(&feed, &[1, 2]);
    for subscription in [&mut behind, &mut beside] {
        assert!(subscription.join_ring(Some(0)));
        assert_eq!(take(subscription), (of(&[1, 2]), true));
    }
    push(&feed, &(3..=2_000).collect::<Vec<_>>());
    assert_eq!(take(&mut behind), (vec![], false), "it takes too little");
    beside.cursor = Some(id(2_000));
    beside.standing = Standing::Ring(feed.mark().end);
    // A failover leaves the first 1,500.
    cut(&feed, 1, Some(1_500), true);
    assert_eq!(take(&mut beside), (of(&[GAP]), true));
    assert_eq!(beside.cursor(), Some(id(1_500)));
    read(&mut behind, Ok(page(&(3..=1_500).collect::<Vec<_>>())));
    assert!(behind.is_up_to_date(), "storage finds nothing wrong with its cursor");
    assert_eq!(take(&mut behind), (of(&[GAP]), true));
    push(&feed, &[2_001]);
    for subscription in [&mut behind, &mut beside] {
        assert_eq!(take(subscription), (of(&[2_001]), true), "once");
    }
    // Who comes later has lost nothing.
    let mut later = begin(&feed, Some(2_001), feed.mark());
    assert!(later.join_ring(Some(1)));
    assert_eq!(take(&mut later), (vec![], true));
}

#[test]
fn a_loss_behind_which_ids_go_on_is_told_once() {
    let feed = feed();
    feed.ring().write().mark(Epoch::Marked(1));
    let mut subscription = subscription(&feed);
    push(&feed, &[1]);
    assert!(subscription.join_ring(Some(0)));
    assert_eq!(take(&mut subscription), (of(&[1]), true));
    cut(&feed, 1, Some(1), true);
    push(&feed, &[5]);
    assert_eq!(take(&mut subscription), (of(&[GAP, 5]), true));
    assert_eq!(subscription.losses, feed.mark().losses, "and the next one is told as well");
    // Storage told of it where the feed had counted it already, and where it had not.
    for feed_knows in [true, false] {
        let feed = self::feed();
        push(&feed, &[100]);
        if feed_knows {
            cut(&feed, 1, Some(0), true);
        }
        let mut subscription = self::subscription(&feed);
        read(&mut subscription, Ok(told(gap(90, 1, GapReason::Reset), &[], 1)));
        assert_eq!(subscription.losses, 1);
    }
}
