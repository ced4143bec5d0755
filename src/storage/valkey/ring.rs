//! A ring of the doorbell as text: the signature of the node that rings, and the names of topics, with
//! blanks between them.
//!
//! It knows neither who rings nor who listens. A signature has no blank and is no name of a topic, and
//! names have no blanks, so a ring can be read in one way only.

use tidemill_proto::TopicName;

/// Most bytes of a ring: well below what nodes take for a message.
const RING_BYTES_MAX: usize = 16 * 1024;

/// Returns what the doorbell is rung with for some topics: each is named once, in as many rings as are
/// needed.
pub(super) fn rings<'a>(signature: &str, topics: impl Iterator<Item = &'a TopicName>) -> Vec<String> {
    let mut names: Vec<&str> = topics.map(TopicName::as_str).collect();
    // Most pipelines are of one topic, and then there is nothing to sort.
    names.dedup();
    names.sort_unstable();
    names.dedup();
    let mut rings: Vec<String> = Vec::with_capacity(1);
    for name in names {
        match rings.last_mut() {
            Some(ring) if ring.len() + 1 + name.len() <= RING_BYTES_MAX => {
                ring.push(' ');
                ring.push_str(name);
            }
            _ => rings.push(format!("{signature} {name}")),
        }
    }
    rings
}

/// Returns the signature of a ring, and the topics that it names. Where somebody rings without one, all
/// words are names.
pub(super) fn read(text: &str) -> (&str, impl Iterator<Item = TopicName>) {
    let words = text.split(' ');
    (words.clone().next().unwrap_or_default(), words.filter_map(|word| TopicName::parse(word).ok()))
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
            for ring in rings("$node:1", topics.iter()) {
                prop_assert!(ring.len() <= RING_BYTES_MAX);
                let (signature, named) = read(&ring);
                prop_assert_eq!(signature, "$node:1");
                heard.extend(named);
            }
            let rung: Vec<TopicName> = topics.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(heard, rung);
        }

        #[test]
        fn any_text_is_heard_or_passed_over(text in ".{0,64}") {
            let (_, named) = read(&text);
            named.for_each(drop);
        }
    }

    #[test]
    fn rings_name_each_topic_once_and_are_bounded() {
        let names: Vec<TopicName> = (0..600)
            .map(|number| TopicName::parse(&format!("{:0>200}", number % 300)).expect("a name"))
            .collect();
        let signature = "$node:1";
        let all = rings(signature, names.iter());
        assert!(all.iter().all(|ring| ring.len() <= RING_BYTES_MAX && read(ring).0 == signature));
        let heard: BTreeSet<TopicName> = all.iter().flat_map(|ring| read(ring).1).collect();
        assert_eq!((all.len(), heard.len()), (4, 300));
        assert_eq!(all.iter().map(|ring| read(ring).1.count()).sum::<usize>(), 300);
        assert_eq!(rings(signature, names[..1].iter()), [format!("$node:1 {}", names[0])]);
        assert_eq!((read("").0, read("").1.count()), ("", 0));
        assert_eq!(read("a b").1.count(), 2);
    }
}
