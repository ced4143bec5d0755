//! That no two things share a key, whatever they are called.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use tidemill_proto::limits::IDEMPOTENCY_KEY_BYTES_MAX;

use super::super::slots::slot_of;
use super::*;

const FORMS: [KeyForm; 2] = [KeyForm::Plain, KeyForm::Braces];

/// Names in which what joins names stands above all.
fn topic() -> impl Strategy<Value = TopicName> {
    "[ax]([:.]{0,2}[axy0_-]){0,4}".prop_map(|name| TopicName::parse(&name).expect("a name"))
}

/// Idempotency keys: visible ASCII, and above all what joins names, and what keys are made of.
fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[:.{}axy0]{1,8}", "[!-~]{1,12}", "(idem|stream|meta|last|deleted|ids|topic|[:{}x]){1,6}"]
}

/// Every key that a topic and an idempotency key have, with what it stands for.
fn all(keys: Keys, topic: &TopicName, key: &str) -> Vec<(String, (&'static str, TopicName, String))> {
    let of = |kind, rest: &str| (kind, topic.clone(), rest.to_owned());
    vec![
        (keys.stream(topic), of("stream", "")),
        (keys.description(topic), of("description", "")),
        (keys.last_id(topic), of("last id", "")),
        (keys.deleted(topic), of("deleted", "")),
        (keys.idempotency(topic, key), of("idempotency", key)),
    ]
}

/// The keys of all parts of all indexes.
fn indexes(keys: Keys) -> Vec<String> {
    let all = [
        IndexName::Topics,
        IndexName::Schedules,
        IndexName::Buckets,
        IndexName::Expiring,
        IndexName::Series,
        IndexName::Importing,
        IndexName::Begun,
    ];
    let of = |index| (0..keys.parts()).map(move |part| keys.index(index, part));
    all.into_iter().flat_map(of).collect()
}

/// What the server takes for the part of a key that decides on its slot.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, behind) = key.split_once('{')?;
    behind.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}

proptest! {
    #[test]
    fn no_two_things_share_a_key(pairs in prop::collection::vec((topic(), key()), 2..24)) {
        for form in FORMS {
            let keys = Keys::new(form);
            let mut meanings = BTreeMap::new();
            for (topic, key) in &pairs {
                for (name, meaning) in all(keys, topic, key) {
                    let known = meanings.entry(name).or_insert_with(|| meaning.clone());
                    prop_assert_eq!(&*known, &meaning);
                }
            }
            for own in [SWEEP_LOCK, SWEPT, LOOK].map(str::to_owned).into_iter().chain(indexes(keys)) {
                prop_assert!(!meanings.contains_key(&own));
            }
        }
    }

    #[test]
    fn a_key_is_split_in_one_way_only(one in topic(), key in key(), cut in any::<prop::sample::Index>()) {
        // Another pair whose parts, written one behind the other, read the same.
        let joined = format!("{one}:{key}");
        let colons: Vec<usize> = joined.match_indices(':').map(|(at, _)| at).collect();
        let at = *cut.get(&colons);
        let Ok(other) = TopicName::parse(&joined[..at]) else { return Ok(()) };
        let rest = &joined[at + 1..];
        for form in FORMS {
            let keys = Keys::new(form);
            let same = keys.idempotency(&one, &key) == keys.idempotency(&other, rest);
            prop_assert_eq!(same, (&one, key.as_str()) == (&other, rest));
        }
    }

    #[test]
    fn streams_and_their_channels_tell_their_topic_and_those_of_the_other_form_none(
        topic in topic(), database in 0_u32..20,
    ) {
        for form in FORMS {
            let keys = Keys::new(form);
            let stream = keys.stream(&topic);
            prop_assert_eq!(keys.stream_parts(&topic).concat(), stream.as_bytes());
            prop_assert_eq!(keys.topic_of_stream(stream.as_bytes()), Some(topic.clone()));
            prop_assert_eq!(keys.other().topic_of_stream(stream.as_bytes()), None);
            let channel = keys.changes(&topic, database);
            prop_assert_eq!(keys.topic_of_change(channel.as_bytes(), database), Some(topic.clone()));
            prop_assert_eq!(keys.topic_of_change(channel.as_bytes(), database + 1), None);
            prop_assert_eq!(keys.other().topic_of_change(channel.as_bytes(), database), None);
            prop_assert!(channel != DOORBELL);
        }
    }

    #[test]
    fn with_braces_the_keys_of_a_topic_share_a_slot(topic in topic(), key in key()) {
        for (name, _) in all(Keys::new(KeyForm::Braces), &topic, &key) {
            prop_assert_eq!(hash_tag(&name), Some(topic.as_str()));
        }
    }
}

#[test]
fn the_forms_are_these() {
    let topic = TopicName::parse("orders.eu:1").expect("a name");
    let names = |form| -> Vec<String> {
        all(Keys::new(form), &topic, "k:{1}").into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(
        names(KeyForm::Plain),
        [
            "stream:topic:orders.eu:1",
            "meta:topic:orders.eu:1",
            "last:topic:orders.eu:1",
            "deleted:{orders.eu:1}:ids",
            "idem:{orders.eu:1}:k:{1}"
        ]
    );
    assert_eq!(
        names(KeyForm::Braces),
        [
            "stream:topic:{orders.eu:1}",
            "meta:topic:{orders.eu:1}",
            "last:topic:{orders.eu:1}",
            "deleted:{orders.eu:1}:ids",
            "idem:{orders.eu:1}:k:{1}",
        ]
    );
    assert_eq!(Keys::new(KeyForm::Plain).streams(), "stream:topic:*");
    assert_eq!(Keys::new(KeyForm::Braces).streams(), "stream:topic:{*}");
}

#[test]
fn the_parts_of_an_index_are_spread_over_all_slots_and_what_one_names_lives_around_it() {
    let keys = Keys::new(KeyForm::Braces);
    let all = indexes(keys);
    assert_eq!(all.len(), 7 * 16);
    for (at, key) in all.iter().enumerate() {
        let (part, slot) = (at % 16, slot_of(key.as_bytes()));
        assert_eq!(usize::from(slot), part * 1_024 + 512, "{key}");
        assert_eq!(keys.part_of(slot), part, "{key}");
    }
    assert_eq!([0, 1_023, 1_024, SLOTS - 1].map(|slot| keys.part_of(slot)), [0, 0, 1, 15]);
    let different: HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    let plain = [
        "tidemill:topics",
        "tidemill:schedules",
        "tidemill:buckets",
        "tidemill:expiring",
        "tidemill:series",
        "tidemill:importing",
        "tidemill:importing-buckets",
    ];
    assert_eq!(indexes(Keys::new(KeyForm::Plain)), plain);
    assert_eq!(Keys::new(KeyForm::Plain).part_of(SLOTS - 1), 0);
}

#[test]
fn short_names_have_keys_of_their_own_without_exception() {
    // All texts of up to three of these characters, as far as they are names or keys.
    let texts = |alphabet: &str| -> Vec<String> {
        let mut texts = vec![String::new()];
        for at in 0.. {
            if at == texts.len() || texts[at].len() == 3 {
                break;
            }
            let more: Vec<String> = alphabet.chars().map(|letter| format!("{}{letter}", texts[at])).collect();
            texts.extend(more);
        }
        texts
    };
    let topics: Vec<TopicName> =
        texts("a:.-").iter().filter_map(|text| TopicName::parse(text).ok()).collect();
    let keys: Vec<String> = texts("a:.{}")
        .into_iter()
        .filter(|text| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()))
        .collect();
    for form in FORMS {
        let maker = Keys::new(form);
        let mut seen = HashSet::new();
        for topic in &topics {
            for name in [maker.stream(topic), maker.description(topic), maker.last_id(topic)] {
                assert!(seen.insert(name.clone()), "{name}");
            }
            for key in &keys {
                let name = maker.idempotency(topic, key);
                assert!(seen.insert(name.clone()), "{name}");
            }
        }
        assert_eq!(seen.len(), topics.len() * (3 + keys.len()));
    }
}
