//! Where cursors lie in a ring, and what it keeps.

use tidemill_proto::{Timestamp, TopicName};

use super::*;
use crate::storage::StoredMessage;

const fn id(ms: u64) -> MessageId {
    MessageId::new(ms, 0)
}

/// Returns a count with room for all of them.
fn room() -> RingBytes {
    RingBytes::new(1 << 30)
}

fn topic() -> TopicName {
    TopicName::parse("t").expect("a valid name")
}

fn push(ring: &mut Ring, ms: u64) {
    push_for(ring, ms, None);
}

fn push_for(ring: &mut Ring, ms: u64, over_ms: Option<u64>) {
    let (body, expires_at) = (crate::relay::test_body("1"), over_ms.map(Timestamp::from_millis));
    let stored = StoredMessage { id: id(ms), timestamp: Timestamp::from_millis(ms), expires_at, body };
    ring.push_message(Arc::new(LiveMessage::new(topic(), stored)));
}

#[test]
fn a_cursor_is_found_behind_its_message_and_at_both_ends() {
    let mut ring = Ring::new(Some(id(10)), Epoch::Marked(1), &room());
    assert_eq!(ring.position_of(Some(id(10))), RingPosition::At(0));
    assert_eq!(ring.position_of(Some(id(11))), RingPosition::Beyond(0));
    assert_eq!(ring.position_of(Some(id(9))), RingPosition::Elsewhere);
    assert_eq!(ring.position_of(None), RingPosition::Elsewhere);
    for ms in [20, 30, 40] {
        push(&mut ring, ms);
    }
    for (cursor, place) in [(10, 0), (20, 1), (30, 2), (40, 3)] {
        assert_eq!(ring.position_of(Some(id(cursor))), RingPosition::At(place), "{cursor}");
    }
    for cursor in [9, 15, 25, 39] {
        assert_eq!(ring.position_of(Some(id(cursor))), RingPosition::Elsewhere, "{cursor}");
    }
    assert_eq!(ring.position_of(Some(id(99))), RingPosition::Beyond(3));
    ring.skip_to(Some(id(50)));
    assert_eq!(ring.position_of(Some(id(50))), RingPosition::At(3));
    assert_eq!(ring.position_of(Some(id(45))), RingPosition::Elsewhere);
}

#[test]
fn who_was_there_before_the_first_message_stands_in_front_of_it() {
    let mut ring = Ring::new(None, Epoch::Marked(1), &room());
    push(&mut ring, 20);
    assert_eq!(ring.position_of(None), RingPosition::At(0));
    assert_eq!(ring.position_of(Some(MessageId::MIN)), RingPosition::At(0));
    assert_eq!(
        ring.position_of(Some(id(10))),
        RingPosition::Elsewhere,
        "of a topic that the feed has not seen"
    );
}

#[test]
fn what_falls_out_of_the_ring_lies_before_it() {
    let mut ring = Ring::new(None, Epoch::Marked(1), &room());
    assert_eq!(ring.position_of(None), RingPosition::At(0), "the ring knows the whole topic");
    for ms in 1..=TOPIC.items as u64 + 10 {
        push(&mut ring, ms);
    }
    assert_eq!(ring.position_of(None), RingPosition::Elsewhere);
    assert_eq!(ring.position_of(Some(id(9))), RingPosition::Elsewhere);
    assert_eq!(ring.position_of(Some(id(10))), RingPosition::At(10));
    assert!(ring.read(9, 1).is_none(), "lost");
    assert_eq!(ring.read(10, 5).map(|slots| slots.len()), Some(5));
    assert_eq!(ring.read(ring.end(), 5).map(|slots| slots.len()), Some(0));
}

#[test]
fn what_the_ring_has_given_out_since_a_cut_is_known() {
    let mut ring = Ring::new(Some(id(10)), Epoch::Marked(1), &room());
    assert_eq!(ring.cursors(), [id(10)]);
    push(&mut ring, 20);
    assert_eq!(ring.cursors(), [id(10), id(20)]);
    ring.cut(Epoch::Marked(1), Some(id(10)), true);
    push(&mut ring, 15);
    assert_eq!(ring.cursors(), [id(10), id(15)]);
    assert!(matches!(ring.read(1, 1).as_deref(), Some([Slot::Cut(_, _, Some(1))])));
    ring.forget();
    assert_eq!(ring.cursors(), [id(15)]);
    assert_eq!(Ring::new(None, Epoch::Unmarked, &room()).cursors(), []);
}

#[test]
fn across_a_cut_ids_place_nobody() {
    let mut ring = Ring::new(Some(id(10)), Epoch::Marked(1), &room());
    push(&mut ring, 20);
    ring.cut(Epoch::Marked(2), None, true);
    push(&mut ring, 1);
    push(&mut ring, 15);
    assert_eq!(ring.position_of(None), RingPosition::At(2));
    assert_eq!(ring.position_of(Some(id(1))), RingPosition::At(3));
    assert_eq!(ring.position_of(Some(id(15))), RingPosition::At(4));
    // A cursor of the old topic cannot be told from one of the new by its id; that is why it must
    // have been confirmed since.
    assert_eq!(ring.position_of(Some(id(20))), RingPosition::Beyond(4));
    assert_eq!(ring.place_behind(id(20)), None);
    assert_eq!(ring.place_behind(id(1)), Some(3));
    assert_eq!((ring.tail(), ring.cuts(), ring.losses()), (Some(id(15)), 1, 1));
    assert_eq!(ring.epoch(), Epoch::Marked(2));
}

#[test]
fn all_rings_together_hold_no_more_than_they_may() {
    let all = RingBytes::new(10_000);
    let mut rings: Vec<_> = (0..3).map(|_| Ring::new(Some(id(10)), Epoch::Marked(1), &all)).collect();
    for (number, ring) in rings.iter_mut().enumerate() {
        for ms in 20..60 {
            push(ring, ms);
            assert!(all.held() <= 10_000, "{}", all.held());
            assert_eq!(ring.end(), ms - 19, "what is not kept is counted all the same");
        }
        assert_eq!(ring.slots.is_empty(), number > 0, "who finds no room keeps nothing");
        assert_eq!(
            ring.position_of(Some(id(59))),
            RingPosition::At(40),
            "and its readers know where they are"
        );
        assert!(ring.read(0, 1).is_none());
    }
    assert!(all.is_tight());
    rings[0].ease();
    assert!(rings[0].slots.len() > 1, "somebody has added to it");
    rings[0].ease();
    assert_eq!((rings[0].slots.len(), all.held()), (0, 0));
    push(&mut rings[1], 60);
    assert_eq!(rings[1].slots.len(), 1, "there is room again");
    rings[1].ease();
    rings[1].ease();
    assert_eq!(rings[1].slots.len(), 1, "nobody needs it");
    drop(rings);
    assert_eq!(all.held(), 0);
}

#[test]
fn bookmarks_and_holes_weigh_something() {
    let all = room();
    let mut ring = Ring::of_pattern(&all);
    for _ in 0..2 * PATTERN.items {
        ring.push_bookmark(Arc::default());
    }
    assert_eq!(ring.slots.len(), PATTERN.items);
    let bookmarks = all.held();
    assert!(bookmarks >= PATTERN.items as u64 * 100, "{bookmarks}");
    ring.cut(Epoch::Unmarked, None, false);
    assert_eq!(all.held(), bookmarks);
    ring.forget();
    assert_eq!(all.held(), 0);
}

#[test]
fn what_is_over_goes_with_all_in_front_of_it() {
    let mut ring = Ring::new(Some(id(10)), Epoch::Marked(1), &room());
    for (ms, over) in [(20, Some(900)), (30, None), (40, Some(100)), (50, None), (60, Some(500))] {
        push_for(&mut ring, ms, over);
    }
    let now = Timestamp::from_millis;
    assert_eq!(ring.next_expiry(), Some(now(100)));
    ring.expire(now(99));
    assert_eq!(ring.first(), 0);
    ring.expire(now(100));
    assert_eq!((ring.first(), ring.next_expiry()), (3, Some(now(500))));
    assert!(ring.read(0, 9).is_none(), "who has not got them asks storage");
    assert_eq!(ring.position_of(Some(id(30))), RingPosition::Elsewhere);
    assert_eq!(ring.position_of(Some(id(40))), RingPosition::At(3));
    ring.expire(now(2_000));
    assert_eq!((ring.first(), ring.end(), ring.next_expiry()), (5, 5, None));
    assert_eq!((ring.tail(), ring.position_of(Some(id(60)))), (Some(id(60)), RingPosition::At(5)));
    push(&mut ring, 70);
    assert_eq!(ring.position_of(Some(id(60))), RingPosition::At(5));
}

#[test]
fn what_is_remembered_of_times_is_bounded() {
    let mut ring = Ring::new(Some(id(10)), Epoch::Marked(1), &room());
    for ms in 0..100_000 {
        push_for(&mut ring, 20 + ms, Some(u64::MAX - ms));
    }
    assert!(ring.expiring.len() <= 2 * 1_024 + 1, "{}", ring.expiring.len());
    ring.forget();
    assert_eq!(ring.next_expiry(), None);
}
