//! Keys that many ask for or change at once: each is answered for itself.

use tidemill::storage::{BucketSettings, KeyCondition, KeyEdit, KeyRefusal, KeysChanged};
use tokio::task::JoinSet;

use super::buckets::{agree, ask, bucket, change, delete, get, make, put, set, text, where_it};
use crate::support::ground::Ground;

pub(super) async fn who_asks_at_once_is_answered_each_for_itself(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let bounded = BucketSettings { max_keys: Some(25), max_bytes: Some(3_000), ..BucketSettings::default() };
    set(storage, &bucket, bounded).await;
    make(storage, &bucket, vec![put("count", "0"), put("text", "\"text\""), put("there", "1")]).await;
    let count = |name: &str, max| change(name, KeyEdit::Increment { by: 1, min: None, max, ttl: None });
    let absent = |name: &str, value: &str| where_it(KeyCondition::Absent, put(name, value));
    let asked = |round: usize| match round % 8 {
        0 => vec![put(&format!("own-{round}"), "1")],
        1 => vec![absent("won", &round.to_string())],
        2 => vec![count("count", None)],
        3 => vec![put("not", "1"), count("text", None)],
        4 => vec![put("not", "1"), absent("there", "2")],
        5 => vec![put("not", "1"), count("few", Some(3))],
        6 => vec![delete("never"), put("pair-1", &round.to_string()), put("pair-2", &round.to_string())],
        _ => vec![put("not", &format!("\"{}\"", "v".repeat(3_000)))],
    };
    let mut tasks = JoinSet::new();
    for round in 0..400 {
        let (storage, bucket, all) = (storage.clone(), bucket.clone(), asked(round));
        tasks.spawn(async move { (round, ask(&storage, &bucket, all).await) });
    }
    let mut all = tasks.join_all().await;
    all.sort_by_key(|(round, _)| *round);
    let (mut own, mut won, mut counted, mut few) = (0, 0, Vec::new(), 0);
    for (round, answer) in &all {
        match (round % 8, answer) {
            (0, KeysChanged::Made { .. }) => own += 1,
            (0, KeysChanged::Refused { at: 0, refusal: KeyRefusal::TooManyKeys })
            | (1, KeysChanged::Refused { at: 0, refusal: KeyRefusal::Condition(Some(_)) })
            | (3, KeysChanged::Refused { at: 1, refusal: KeyRefusal::NotANumber })
            | (4, KeysChanged::Refused { at: 1, refusal: KeyRefusal::Condition(Some(_)) })
            | (5, KeysChanged::Refused { at: 1, refusal: KeyRefusal::OutOfRange(3) })
            | (7, KeysChanged::Refused { at: 0, refusal: KeyRefusal::TooManyBytes })
            // They are more keys, as long as there are none.
            | (5..=7, KeysChanged::Refused { refusal: KeyRefusal::TooManyKeys, .. }) => {}
            (1, KeysChanged::Made { .. }) => won += 1,
            (2, KeysChanged::Made { changed, .. }) => counted.extend(changed[0].number),
            (5, KeysChanged::Made { .. }) => few += 1,
            (6, KeysChanged::Made { changed, .. }) => assert_eq!(changed[0].revision, None),
            other => panic!("{other:?}"),
        }
    }
    counted.sort_unstable();
    assert_eq!(counted, (1..=50).collect::<Vec<i64>>(), "no count is lost, and none is twice");
    assert!(won <= 1 && few <= 3 && own >= 25 - 8, "{won} {few} {own}");
    assert_eq!(text(storage, &bucket, "pair-1").await, text(storage, &bucket, "pair-2").await);
    assert_eq!(storage.buckets.bucket(&bucket).await.expect("it exists").keys, 25);
    agree(storage, &bucket).await;
}

pub(super) async fn large_values_that_are_read_at_once_all_come(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let value = |at: usize| format!("\"{}\"", at.to_string().repeat(100_000));
    for at in 10..40 {
        make(storage, &bucket, vec![put(&format!("k-{at}"), &value(at))]).await;
    }
    let mut tasks = JoinSet::new();
    for at in 10..60 {
        let (storage, bucket) = (storage.clone(), bucket.clone());
        tasks.spawn(async move { (at, get(&storage, &bucket, &format!("k-{at}")).await) });
    }
    for (at, entry) in tasks.join_all().await {
        let found = entry.map(|entry| entry.value.expect("it was asked for").bytes);
        assert!(found == (at < 40).then(|| value(at).into()), "{at}");
    }
}
