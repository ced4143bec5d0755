//! A notice of the doorbell as text: the signature of the node that sends it, and the names of topics, with
//! blanks between them.
//!
//! It knows neither who sends it nor who listens. A signature has no blank and is no name of a topic, and
//! names have no blanks, so a notice can be read in one way only.

use tidemill_proto::TopicName;

/// Most bytes of a notice: well below what nodes take for a message.
const NOTICE_BYTES_MAX: usize = 16 * 1024;

/// Returns notices of some topics: each is named once, in as many notices as are
/// needed.
pub(super) fn notices<'a>(signature: &str, topics: impl Iterator<Item = &'a TopicName>) -> Vec<String> {
    let mut names: Vec<&str> = topics.map(TopicName::as_str).collect();
    // Most pipelines are of one topic, and then there is nothing to sort.
    names.dedup();
    names.sort_unstable();
    names.dedup();
    let mut notices: Vec<String> = Vec::with_capacity(1);
    for name in names {
        match notices.last_mut() {
            Some(notice) if notice.len() + 1 + name.len() <= NOTICE_BYTES_MAX => {
                notice.push(' ');
                notice.push_str(name);
            }
            _ => notices.push(format!("{signature} {name}")),
        }
    }
    notices
}

/// Returns the signature of a notice, and the topics that it names. Where somebody sends one without, all
/// words are names.
pub(super) fn read(text: &str) -> (&str, impl Iterator<Item = TopicName>) {
    let words = text.split(' ');
    (words.clone().next().unwrap_or_default(), words.filter_map(TopicName::parse_kept))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_rung_is_heard(
            names in prop::collection::vec("[ax]([:.]{0,2}[axy0_-]){0,4}|[a-z0-9._:-]{200,255}x", 1..200),
        ) {
            let topics: Vec<TopicName> = names.iter().filter_map(|name| TopicName::parse(name).ok()).collect();
            let mut heard = Vec::new();
            for notice in notices("$node:1", topics.iter()) {
                prop_assert!(notice.len() <= NOTICE_BYTES_MAX);
                let (signature, named) = read(&notice);
                prop_assert_eq!(signature, "$node:1");
                heard.extend(named);
            }
            let told: Vec<TopicName> = topics.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(heard, told);
        }

        #[test]
        fn any_text_is_heard_or_passed_over(text in ".{0,64}") {
            let (_, named) = read(&text);
            named.for_each(drop);
        }
    }

    #[test]
    fn logs_of_buckets_are_named_as_topics_are() {
        let bucket = tidemill_proto::BucketName::parse("flows").expect("a name");
        let log = TopicName::log_of(&bucket);
        let notice = notices("$node:1", [&log].into_iter()).remove(0);
        assert_eq!(read(&notice).1.collect::<Vec<_>>(), [log]);
    }

    #[test]
    fn rings_name_each_topic_once_and_are_bounded() {
        let names: Vec<TopicName> = (0..600)
            .map(|number| TopicName::parse(&format!("{:0>200}", number % 300)).expect("a name"))
            .collect();
        let signature = "$node:1";
        let all = notices(signature, names.iter());
        assert!(all.iter().all(|notice| notice.len() <= NOTICE_BYTES_MAX && read(notice).0 == signature));
        let heard: BTreeSet<TopicName> = all.iter().flat_map(|notice| read(notice).1).collect();
        assert_eq!((all.len(), heard.len()), (4, 300));
        assert_eq!(all.iter().map(|notice| read(notice).1.count()).sum::<usize>(), 300);
        assert_eq!(notices(signature, names[..1].iter()), [format!("$node:1 {}", names[0])]);
        assert_eq!((read("").0, read("").1.count()), ("", 0));
        assert_eq!(read("a b").1.count(), 2);
    }
}
