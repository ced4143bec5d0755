//! What is passed on, and where to go on, without a connection.

use super::*;

fn selector(text: &str) -> TopicSelector {
    TopicSelector::parse(text).expect("a name or a pattern")
}

fn topic(text: &str) -> TopicName {
    TopicName::parse(text).expect("a valid name")
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).expect("a valid pattern")
}

fn cursor(text: &str) -> PatternCursor {
    PatternCursor::parse(text).expect("a cursor")
}

const fn id(ms: u64) -> MessageId {
    MessageId::new(ms, 0)
}

fn progress(starts: &[(&str, &str)]) -> Result<Progress, ClientError> {
    let start = |(topic, start): &(&str, &str)| (selector(topic), start.parse().expect("a start"));
    Progress::new(starts.iter().map(start).collect())
}

fn texts(progress: &Progress) -> Vec<String> {
    progress.starts().into_iter().map(|(topic, start)| format!("{topic}={start}")).collect()
}

fn gap(name: &str, from: u64, to: u64, reason: GapReason) -> Gap {
    Gap { topic: topic(name), from: id(from), to: id(to), reason, missed: None }
}

#[test]
fn a_pattern_goes_on_from_the_cursor_that_was_told_last() {
    let mut progress = progress(&[("a", "earliest"), ("b.*", "latest"), ("c*", "p1.C")]).expect("it starts");
    assert_eq!(texts(&progress), ["a=earliest", "b.*=latest", "c*=p1.C"]);
    progress.start(&[(topic("a"), MessageId::MIN)], vec![(pattern("b.*"), cursor("p1.B"))]);
    assert!(progress.pass(&topic("b.1"), id(5)));
    assert_eq!(texts(&progress), ["a=0-0", "b.*=p1.B", "c*=p1.C"], "the id of a message is no place");
    progress.keep(&pattern("b.*"), cursor("p1.B2"));
    progress.keep(&pattern("other*"), cursor("p1.D"));
    assert_eq!(texts(&progress), ["a=0-0", "b.*=p1.B2", "c*=p1.C"]);
}

#[test]
fn what_comes_again_is_passed_over_in_each_topic_of_a_pattern() {
    let mut progress = progress(&[("*", "latest")]).expect("it starts");
    let [a, b] = ["a", "b"].map(topic);
    assert!(progress.pass(&a, id(5)) && progress.pass(&b, id(3)) && progress.pass(&a, id(7)));
    for (topic, ms) in [(&a, 5), (&b, 3), (&a, 7)] {
        assert!(!progress.pass(topic, id(ms)), "{topic} {ms}");
    }
    assert!(progress.pass(&b, id(4)) && progress.pass(&a, id(8)));
}

#[test]
fn gaps_follow_the_rules_of_a_topic_that_is_named() {
    let mut progress = progress(&[("*", "latest")]).expect("it starts");
    let a = topic("a");
    assert!(progress.pass(&a, id(50)));
    let trimmed = gap("a", 50, 60, GapReason::Trimmed);
    assert!(progress.pass_gap(&trimmed) && !progress.pass_gap(&trimmed), "it is told once");
    assert!(!progress.pass(&a, id(55)) && progress.pass(&a, id(60)));
    assert!(!progress.pass_gap(&trimmed), "nor once more after a break");
    assert!(progress.pass_gap(&gap("a", 60, 5, GapReason::Reset)));
    assert!(progress.pass(&a, id(5)), "ids start anew");
    let after = id(5).next().expect("there is one");
    assert!(progress.pass_gap(&Gap { to: after, ..gap("a", 5, 0, GapReason::Deleted) }));
    assert!(progress.pass(&a, id(2)), "ids start anew");
}

#[test]
fn what_is_not_subscribed_to_is_not_passed_on() {
    let mut progress = progress(&[("a", "latest"), ("b.*", "latest")]).expect("it starts");
    assert!(!progress.pass(&topic("c"), id(1)) && !progress.pass(&topic("b"), id(1)));
    assert!(!progress.pass_gap(&gap("c", 1, 2, GapReason::Trimmed)));
    assert!(progress.pass(&topic("b.1"), id(1)));
}

#[test]
fn what_several_patterns_cover_is_passed_on_as_it_comes() {
    let mut progress = progress(&[("a.*", "latest"), ("*.b", "earliest")]).expect("it starts");
    let (shared, own) = (topic("a.b"), topic("a.c"));
    // The older pattern brings what was there, the other what comes now.
    for ms in [9, 1, 2, 9] {
        assert!(progress.pass(&shared, id(ms)), "{ms}");
    }
    assert!(progress.pass(&own, id(9)) && !progress.pass(&own, id(1)));
}

/// Whichever of the two ways brings a message first, nothing that comes by the name alone is passed over.
#[test]
fn a_topic_that_is_named_and_covered_goes_on_where_both_ways_have_been() {
    let begin = |start| {
        let mut progress = progress(&[("a", start), ("*", "p1.A")]).expect("it starts");
        let told = if start == "earliest" { MessageId::MIN } else { id(2) };
        progress.start(&[(topic("a"), told)], Vec::new());
        progress
    };
    for (start, coming, expected) in [
        // By the pattern what is new, by the name what was there.
        ("earliest", &[9, 1, 2, 3][..], "3-0"),
        ("earliest", &[9, 10], "0-0"),
        ("earliest", &[9, 1, 10, 2, 3], "3-0"),
        // Each twice.
        ("latest", &[3, 3, 4, 4, 5], "4-0"),
        ("latest", &[], "2-0"),
        // By the pattern what was there, by the name what is new.
        ("latest", &[9, 1], "2-0"),
    ] {
        let mut progress = begin(start);
        for ms in coming {
            assert!(progress.pass(&topic("a"), id(*ms)), "{ms} is passed on as it comes");
        }
        assert_eq!(texts(&progress)[0], format!("a={expected}"), "{start} {coming:?}");
    }
    let mut progress = begin("latest");
    assert!(progress.pass(&topic("a"), id(9)) && progress.pass(&topic("a"), id(9)));
    assert!(progress.pass_gap(&gap("a", 9, 5, GapReason::Reset)));
    assert_eq!(texts(&progress)[0], "a=earliest");
    assert!(progress.pass(&topic("a"), id(5)));
    assert_eq!(texts(&progress)[0], "a=earliest");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut progress = progress(&[("*", "latest")]).expect("it starts");
    let name = |number: usize| topic(&format!("t{number}"));
    for number in 0..3 * REMEMBERED_TOPICS_MAX {
        assert!(progress.pass(&name(number), id(5)));
        assert!(!progress.pass(&name(0), id(5)), "what comes again and again is remembered");
        let held = progress.remembered.new.len() + progress.remembered.old.len();
        assert!(held <= REMEMBERED_TOPICS_MAX, "{held} are remembered");
    }
    let newest = 3 * REMEMBERED_TOPICS_MAX - REMEMBERED_TOPICS_MAX / 2 + 1;
    for number in newest..3 * REMEMBERED_TOPICS_MAX {
        assert!(!progress.pass(&name(number), id(5)), "{number}");
    }
    assert!(progress.pass(&name(1), id(5)), "a message may come twice past the bound");
}

#[test]
fn a_place_of_the_other_kind_is_refused() {
    let refused = |starts| match progress(starts) {
        Err(ClientError::Usage(rule)) => rule,
        other => panic!("not refused: {other:?}"),
    };
    let rule = refused(&[("a", "p1.A")]);
    assert!(rule.starts_with("the topic a cannot start at the cursor of a pattern"), "{rule}");
    let rule = refused(&[("a", "5-0"), ("b*", "5-0")]);
    assert!(rule.starts_with("the pattern b* cannot start at the message id 5-0"), "{rule}");
}
