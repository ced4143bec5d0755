//! Cursors, and what is told of them.

use super::*;

const fn id(ms: u64) -> MessageId {
    MessageId::new(ms, 0)
}

const EPOCH: Epoch = Epoch::Marked(1);
const TRIMMED: Facts = Facts {
    epoch: EPOCH,
    first: Some(id(50)),
    last_given: id(90),
    born: Some(id(10)),
    given: Some(10),
    removed: Some(4),
    deleted: 0,
    last_removed: None,
    taken_out: None,
    is_deleted: false,
    deleted_behind: 0,
    deleted_in_front: 0,
    forgotten: 0,
    forgotten_behind: Some(0),
    untold: None,
    hole: None,
    is_behind_hole: false,
};
const FOREIGN: Facts = Facts { epoch: Epoch::Unmarked, born: None, ..TRIMMED };

fn verdict(facts: &Facts, cursor: MessageId, gap_check: GapCheck, behind: Behind) -> Option<Verdict> {
    let topic = TopicName::parse("t").expect("a valid name");
    let verdict = facts.judge(&topic, cursor, gap_check, behind);
    assert!(verdict.iter().all(|verdict| verdict.gap.from == cursor));
    verdict
}

/// Judges a cursor whose message is not kept, in a page that does not come to the end.
fn judged_as(
    facts: &Facts,
    cursor: MessageId,
    gap_check: GapCheck,
) -> Option<(GapReason, MessageId, Option<MessageId>)> {
    let behind = Behind { first: facts.first.filter(|first| *first > cursor), ..Behind::default() };
    let verdict = verdict(facts, cursor, gap_check, behind);
    verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.resume))
}

fn judged(facts: &Facts, cursor: MessageId) -> Option<(GapReason, MessageId, Option<MessageId>)> {
    judged_as(facts, cursor, GapCheck::Seen)
}

#[test]
fn a_cursor_before_the_oldest_message_may_have_missed_some() {
    assert_eq!(judged(&TRIMMED, id(20)), Some((GapReason::Trimmed, id(50), Some(id(20)))));
    let emptied = Facts { first: None, ..TRIMMED };
    assert_eq!(judged(&emptied, id(20)), Some((GapReason::Trimmed, MessageId::new(90, 1), Some(id(20)))));
}

#[test]
fn nothing_is_missing_where_it_can_be_proved() {
    let kept = Behind { is_kept: true, ..Behind::default() };
    assert_eq!(verdict(&TRIMMED, id(60), GapCheck::Seen, kept), None, "it is kept");
    assert_eq!(judged(&TRIMMED, MessageId::new(49, u64::MAX)), None, "the next id is kept");
    assert_eq!(judged(&TRIMMED, end_of(60)), None, "the end of a time");
    assert_eq!(judged(&Facts { first: None, ..TRIMMED }, id(90)), None, "the last id given");
    assert_eq!(judged(&Facts { last_removed: Some(id(20)), ..TRIMMED }, id(20)), None, "the newest removed");
    let whole = Facts { removed: Some(0), ..TRIMMED };
    assert_eq!(judged(&whole, end_of(20)), None, "nothing was ever removed");
}

#[test]
fn a_cursor_that_was_never_given_begins_anew() {
    let anew = Some((GapReason::Reset, id(50), None));
    assert_eq!(judged(&TRIMMED, id(60)), anew, "between kept messages nothing is trimmed");
    assert_eq!(judged(&Facts { removed: Some(0), ..TRIMMED }, id(20)), anew);
    let old = Facts { given: None, removed: None, ..FOREIGN };
    assert_eq!(judged(&old, id(60)), None, "a server that counts nothing cannot know");
}

#[test]
fn a_place_in_front_of_a_message_proves_that_this_one_is_there() {
    let in_front = |ms| id(ms).previous().expect("a place");
    let anew = Some((GapReason::Reset, id(50), None));
    let whole = Facts { removed: Some(0), born: None, ..TRIMMED };
    assert_eq!(judged(&whole, in_front(50)), None);
    for ms in [20, 49, 60, 90] {
        assert_eq!(judged(&whole, in_front(ms)), anew, "nothing was ever in front of {ms}");
    }
    assert_eq!(judged(&Facts { is_deleted: true, ..whole }, in_front(60)), None, "it was deleted on purpose");
    let trimmed = |to, ms| Some((GapReason::Trimmed, to, Some(in_front(ms))));
    assert_eq!(judged(&TRIMMED, in_front(20)), trimmed(id(50), 20), "it went from the old end");
    let emptied = Facts { first: None, removed: Some(10), ..TRIMMED };
    let end = MessageId::new(90, 1);
    assert_eq!(judged(&emptied, in_front(10)), trimmed(end, 10), "also where it was the first of all");
}

#[test]
fn who_counts_knows_what_was_missed() {
    let counts = |given| GapCheck::follows(EPOCH, Some(given));
    let missed = |facts: Facts, given| {
        verdict(&facts, id(20), counts(given), Behind::default()).map(|verdict| verdict.gap.missed)
    };
    assert_eq!(missed(TRIMMED, 1), Some(Some(3)));
    assert_eq!(missed(TRIMMED, 4), None, "the newest removed was the reader's own");
    assert_eq!(missed(Facts { removed: None, ..TRIMMED }, 4), Some(None));
    let replaced = judged_as(&TRIMMED, id(20), counts(5));
    assert_eq!(replaced, Some((GapReason::Reset, id(50), None)), "five were there, of which four are gone");
    let lost = judged_as(&TRIMMED, id(60), counts(9));
    assert_eq!(lost, Some((GapReason::Reset, id(50), None)), "it was there");
    let taken_out = Facts { removed: None, taken_out: Some(id(70)), ..TRIMMED };
    assert_eq!(judged_as(&taken_out, id(60), counts(9)), None, "somebody has taken out single messages");
    let from_nothing = |facts: Facts| {
        verdict(&facts, MessageId::MIN, GapCheck::Seen, Behind::default()).map(|it| it.gap.missed)
    };
    assert_eq!(from_nothing(TRIMMED), Some(Some(4)), "there since before the first message");
    assert_eq!(from_nothing(Facts { removed: Some(0), ..TRIMMED }), None);
}

#[test]
fn a_count_that_disagrees_at_the_end_is_told() {
    let told = |facts: Facts, given, kept| {
        let behind = Behind { is_kept: true, first: Some(id(70)), last: Some(id(90)), count: Some(kept) };
        let verdict = verdict(&facts, id(60), GapCheck::follows(EPOCH, Some(given)), behind);
        verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.gap.missed, verdict.resume))
    };
    assert_eq!(told(TRIMMED, 6, 4), None);
    let missed = (GapReason::Trimmed, id(70), Some(1), Some(id(60)));
    assert_eq!(told(TRIMMED, 6, 3), Some(missed), "one was taken out ahead");
    assert_eq!(told(Facts { deleted_behind: 1, ..TRIMMED }, 6, 3), None, "by request");
    assert_eq!(told(TRIMMED, 8, 4), Some((GapReason::Reset, id(50), None, None)), "another topic");
}

#[test]
fn what_was_taken_out_ahead_is_told_by_the_read_that_comes_by() {
    let facts = Facts { removed: None, taken_out: Some(id(70)), ..TRIMMED };
    let told = |first: Option<MessageId>, last, count| {
        let behind = Behind { is_kept: true, first, last, count };
        verdict(&facts, id(60), GapCheck::Seen, behind).map(|it| (it.gap.reason, it.gap.to, it.resume))
    };
    let gap = |to| Some((GapReason::Trimmed, to, Some(id(60))));
    assert_eq!(told(Some(id(80)), Some(id(80)), None), gap(id(80)));
    let nearer = [None, Some(1)].map(|count| told(Some(id(65)), Some(id(65)), count));
    assert_eq!(nearer, [None, None], "the hole lies behind what was read");
    assert_eq!(told(None, None, Some(0)), gap(MessageId::new(90, 1)), "and is the next");
    let own = Facts { taken_out: Some(id(60)), ..facts };
    assert_eq!(judged(&own, id(60)), None, "the reader's own message, and no later one");
    let by_request = Facts { is_deleted: true, ..TRIMMED };
    assert_eq!(judged(&by_request, id(60)), None, "it was deleted on purpose");
}

#[test]
fn who_was_passed_over_is_told_what_went_with_an_earlier_topic() {
    let judged = |facts: &Facts, epoch, by| {
        let gap_check = GapCheck::Follows { epoch, given: None, knows_of: Some(id(by)) };
        let verdict = verdict(facts, MessageId::MIN, gap_check, Behind::default());
        verdict.map(|verdict| (verdict.gap.reason, verdict.gap.missed, verdict.resume))
    };
    let start = Some(MessageId::MIN);
    assert_eq!(judged(&TRIMMED, EPOCH, 9), Some((GapReason::Deleted, None, start)));
    assert_eq!(judged(&TRIMMED, EPOCH, 60), Some((GapReason::Trimmed, Some(4), start)));
    assert_eq!(judged(&TRIMMED, EPOCH, 91), Some((GapReason::Reset, None, start)));
    let whole = Facts { removed: Some(0), ..TRIMMED };
    assert_eq!((judged(&whole, EPOCH, 10), judged(&whole, EPOCH, 90)), (None, None), "of this very topic");
    assert_eq!(judged(&whole, Epoch::Marked(2), 60), Some((GapReason::Deleted, None, start)));
    let foreign = Facts { removed: Some(0), ..FOREIGN };
    assert_eq!(judged(&foreign, EPOCH, 60), Some((GapReason::Deleted, None, start)));
    assert_eq!(judged(&foreign, Epoch::Unmarked, 50), None);
}

#[test]
fn a_cursor_of_an_earlier_topic_of_the_name_is_told() {
    assert_eq!(judged(&TRIMMED, id(9)), Some((GapReason::Deleted, id(50), None)));
    // Whom this was told stands before the first id that the topic can give, and is told no more.
    let before = id(10).previous().expect("an id");
    let empty = Facts { first: None, last_given: before, removed: Some(0), ..TRIMMED };
    assert_eq!(judged(&empty, id(9)), Some((GapReason::Deleted, id(10), None)));
    assert_eq!(judged(&empty, before), None);
    let filled = Facts { first: Some(id(20)), last_given: id(30), ..empty };
    assert_eq!(judged(&filled, before), None);
    let foreign = Facts { removed: Some(0), ..FOREIGN };
    assert_eq!(judged(&foreign, id(9)), Some((GapReason::Reset, id(50), None)));
    // Who follows knows that it is another one, also where the id is kept.
    let kept = Behind { is_kept: true, ..Behind::default() };
    let told = verdict(&TRIMMED, id(60), GapCheck::follows(Epoch::Marked(2), None), kept);
    assert_eq!(told.map(|told| (told.gap.reason, told.resume)), Some((GapReason::Reset, None)));
}

#[test]
fn a_cursor_past_the_end_is_reset() {
    assert_eq!(judged(&TRIMMED, id(91)), Some((GapReason::Reset, id(50), None)));
    assert_eq!(judged(&FOREIGN, id(91)), Some((GapReason::Reset, id(50), None)));
    // Others may have come in the place of what was lost, so what is left proves nothing.
    let follows = GapCheck::follows(EPOCH, None);
    assert_eq!(judged_as(&TRIMMED, id(91), follows), Some((GapReason::Reset, id(50), None)));
}

#[test]
fn what_was_set_back_is_told_once() {
    let (last, given) = (MessageId::new(0, 5), Some(0));
    let empty = Facts { first: None, last_given: last, given, removed: Some(0), ..TRIMMED };
    let before = id(10).previous().expect("an id");
    for gap_check in [GapCheck::Seen, GapCheck::follows(EPOCH, Some(6)), GapCheck::follows(EPOCH, None)] {
        assert_eq!(judged_as(&empty, id(60), gap_check), Some((GapReason::Reset, id(10), None)));
    }
    for gap_check in [GapCheck::Seen, GapCheck::follows(EPOCH, None)] {
        let later = Facts { first: Some(id(95)), last_given: id(95), given: Some(1), ..empty };
        for facts in [empty, later] {
            assert_eq!(judged_as(&facts, before, gap_check), None, "{gap_check:?}");
        }
        // What it gives instead has smaller ids than the topic can have.
        let own = MessageId::new(0, 6);
        let filled = Facts { first: Some(own), last_given: own, given: Some(1), ..empty };
        assert_eq!(judged_as(&filled, before, gap_check), Some((GapReason::Reset, own, None)));
        for facts in [filled, Facts { last_given: id(95), ..filled }] {
            let kept = Behind { is_kept: true, ..Behind::default() };
            assert_eq!(verdict(&facts, own, gap_check, kept), None, "{gap_check:?}");
        }
    }
}

#[test]
fn what_was_deleted_by_request_in_front_of_the_oldest_is_not_missing() {
    let facts = Facts { first: Some(MessageId::new(50, 3)), ..TRIMMED };
    let told = |seq, deleted_in_front| {
        judged(&Facts { deleted_in_front, ..facts }, MessageId::new(50, seq)).is_some()
    };
    assert_eq!((told(0, 2), told(1, 1), told(2, 0)), (false, false, false));
    assert_eq!((told(0, 1), told(0, 0), told(1, 0)), (true, true, true));
    assert!(judged(&Facts { deleted_in_front: 3, ..facts }, id(49)).is_some(), "nobody knows how many");
}

#[test]
fn what_is_gone_from_a_compacted_topic_is_told_as_such_where_its_latest_are_kept() {
    let told = |newest: Option<u64>, keyless: Option<u64>, cursor| {
        let untold = Some(Untold { newest: newest.map(id), keyless: keyless.map(id) });
        judged(&Facts { untold, ..TRIMMED }, cursor).map(|told| told.0)
    };
    assert_eq!(told(None, None, id(20)), Some(GapReason::Compacted));
    assert_eq!(told(Some(20), Some(20), id(20)), Some(GapReason::Compacted));
    assert_eq!(told(Some(21), None, id(20)), Some(GapReason::Trimmed), "gone without a trace");
    assert_eq!(told(None, Some(60), id(20)), Some(GapReason::Trimmed), "it may be gone, and has no key");
    assert_eq!(told(None, None, id(91)), Some(GapReason::Reset));
}

#[test]
fn a_hole_is_told_where_a_reader_comes_to_it() {
    let hole = Hole { from: id(60), to: id(70) };
    let holed = Facts { hole: Some(hole), ..TRIMMED };
    let told = Some((GapReason::Reset, MessageId::new(70, 1), Some(id(70))));
    let at = |cursor, first| {
        let behind = Behind { is_kept: true, first, ..Behind::default() };
        let verdict = verdict(&holed, cursor, GapCheck::Seen, behind);
        verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.resume))
    };
    assert_eq!(at(id(60), None), told);
    assert_eq!(at(id(60), Some(id(80))), told);
    assert_eq!(at(id(65), Some(id(80))), told, "a part of it was read");
    assert_eq!(at(id(55), Some(id(60))), None, "what is left in front of it comes first");
    assert_eq!(at(id(55), Some(id(80))), told, "nothing is left in front of it");
    let start = |facts: Facts| {
        let behind = Behind { first: facts.first, ..Behind::default() };
        verdict(&facts, MessageId::MIN, GapCheck::Seen, behind).map(|verdict| verdict.gap.reason)
    };
    let whole = Facts { removed: Some(0), ..holed };
    assert_eq!(start(Facts { first: Some(id(80)), ..whole }), Some(GapReason::Reset));
    assert_eq!(start(whole), None);
}

#[test]
fn who_has_got_what_was_lost_goes_on_behind_it() {
    let behind_it = Facts { is_behind_hole: true, removed: Some(0), ..TRIMMED };
    assert_eq!(judged(&behind_it, id(70)), None, "its message was lost");
    let counted = GapCheck::follows(EPOCH, Some(12));
    let behind = Behind { count: Some(0), ..Behind::default() };
    let told = verdict(&behind_it, id(70), counted, behind);
    let told = told.map(|verdict| (verdict.gap.reason, verdict.resume));
    assert_eq!(told, Some((GapReason::Reset, Some(id(70)))), "it has got more than were given");
}

#[test]
fn what_was_deleted_by_request_and_forgotten_is_missed_by_nobody() {
    // Four were trimmed, and three deleted.
    let forgotten = Forgotten { count: 3, from: id(20), to: id(40) };
    let told = |cursor, given| {
        let facts = Facts { forgotten: 3, forgotten_behind: forgotten.behind(id(cursor)), ..TRIMMED };
        let gap_check = GapCheck::follows(EPOCH, Some(given));
        verdict(&facts, id(cursor), gap_check, Behind::default()).map(|verdict| verdict.gap.missed)
    };
    assert_eq!(told(15, 1), Some(Some(3)), "all lie behind it");
    assert_eq!(told(15, 4), None);
    assert_eq!(told(45, 5), Some(Some(2)), "none does");
    assert_eq!(told(45, 7), None);
    assert_eq!(told(30, 3), Some(None), "nobody knows how many do");
    assert_eq!(Forgotten::NONE.behind(id(1)), Some(0));
}
