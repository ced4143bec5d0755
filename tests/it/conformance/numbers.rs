//! Numbers in buckets: increments are exact, keep their bounds, and lose nothing.

use std::time::Duration;

use tidemill::storage::{BucketSettings, KeyEdit, KeyRefusal, KeyValue};
use tokio::task::JoinSet;

use super::buckets::{
    agree, bucket, change, get, increment, log, make, make_one, nodes, put, put_for, put_of, refusal, set,
    text,
};
use crate::support::ground::Ground;

pub(super) async fn increments_are_exact_to_the_last_number(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let edge = [
        (i64::MAX, 0, Some(i64::MAX)),
        (i64::MAX, 1, None),
        (i64::MAX - 1, 1, Some(i64::MAX)),
        (i64::MAX, i64::MIN, Some(-1)),
        (i64::MAX, -i64::MAX, Some(0)),
        (i64::MIN, -1, None),
        (i64::MIN, i64::MAX, Some(-1)),
        (i64::MIN, i64::MIN, None),
        (i64::MIN + 1, -1, Some(i64::MIN)),
        (0, i64::MIN, Some(i64::MIN)),
        // Neighbours that a number with a fraction cannot tell apart.
        ((1 << 53) + 1, 0, Some((1 << 53) + 1)),
        (9_007_199_254_740_993, 2, Some(9_007_199_254_740_995)),
        (-1, 1, Some(0)),
    ];
    for (number, by, sum) in edge {
        make(storage, &bucket, vec![put("n", &number.to_string())]).await;
        let logged = log(storage, &bucket).await.len();
        let one = increment("n", by, None, None);
        let Some(sum) = sum else {
            assert_eq!(refusal(storage, &bucket, vec![one]).await, (0, KeyRefusal::OutOfRange(number)));
            assert_eq!(text(storage, &bucket, "n").await, Some(number.to_string()));
            assert_eq!(log(storage, &bucket).await.len(), logged);
            continue;
        };
        let changed = make(storage, &bucket, vec![one]).await;
        assert_eq!((changed[0].number, changed[0].is_new), (Some(sum), false), "{number} and {by}");
        assert_eq!(text(storage, &bucket, "n").await, Some(sum.to_string()));
    }
    let first = make(storage, &bucket, vec![increment("new", -7, None, None)]).await;
    assert_eq!((first[0].number, first[0].is_new), (Some(-7), true));
    let entry = get(storage, &bucket, "new").await.unwrap();
    assert_eq!(entry.value, Some(KeyValue { bytes: "-7".into(), content_type: None }));
    agree(storage, &bucket).await;
}

pub(super) async fn increments_keep_their_bounds(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    // By how much, the bounds, and what comes out.
    let steps = [
        (5, Some(0), Some(10), Some(5)),
        (5, Some(0), Some(10), Some(10)),
        (1, Some(0), Some(10), None),
        (-10, Some(0), Some(10), Some(0)),
        (-1, Some(0), None, None),
        (-3, None, Some(-3), Some(-3)),
        (1, Some(-3), Some(-3), None),
        (0, Some(-3), Some(-3), Some(-3)),
        (-20, Some(-23), None, Some(-23)),
        (-80, Some(-103), Some(-100), Some(-103)),
        (3, Some(-99), None, None),
        (i64::MAX, Some(i64::MIN), Some(i64::MAX), Some(i64::MAX - 103)),
        (103, Some(i64::MAX), Some(i64::MAX), Some(i64::MAX)),
        (i64::MIN, Some(0), None, None),
        (i64::MIN, Some(-1), Some(-1), Some(-1)),
    ];
    let mut number = 0;
    for (by, min, max, sum) in steps {
        let one = increment("n", by, min, max);
        if let Some(sum) = sum {
            assert_eq!(make(storage, &bucket, vec![one]).await[0].number, Some(sum), "{by} {min:?} {max:?}");
            number = sum;
        } else {
            let refused = refusal(storage, &bucket, vec![one]).await;
            assert_eq!(refused, (0, KeyRefusal::OutOfRange(number)), "{by} {min:?} {max:?}");
        }
    }
    // Where there is none it is 0, and nothing comes to be by a refusal.
    let refused = refusal(storage, &bucket, vec![increment("none", 3, None, Some(2))]).await;
    assert_eq!((refused, get(storage, &bucket, "none").await), ((0, KeyRefusal::OutOfRange(0)), None));
    agree(storage, &bucket).await;
}

pub(super) async fn what_is_no_number_is_not_added_to(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let values = [
        "1.5",
        "\"1\"",
        "null",
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "01",
        "-0",
        "-",
        "0x1",
        "1e3",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999999",
        "{}",
    ];
    for value in values {
        let typed = KeyValue { bytes: value.into(), content_type: Some("text/plain".into()) };
        let edit = KeyEdit::Put { value: typed, ttl: None, fresh: None, owner: None };
        make(storage, &bucket, vec![change("n", edit)]).await;
        let refused = refusal(storage, &bucket, vec![increment("n", 1, None, None)]).await;
        assert_eq!(refused, (0, KeyRefusal::NotANumber), "{value:?}");
        assert_eq!(text(storage, &bucket, "n").await.as_deref(), Some(value));
    }
    agree(storage, &bucket).await;
}

pub(super) async fn increments_of_many_add_up(ground: &Ground) {
    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (storage, bucket) = (storages[task % storages.len()].clone(), bucket.clone());
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..25 {
                let changed = make(&storage, &bucket, vec![increment("n", 3, None, None)]).await;
                numbers.push(changed[0].number.unwrap());
            }
            numbers
        });
    }
    let mut numbers = tasks.join_all().await.concat();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).map(|number| number * 3).collect::<Vec<_>>());
    assert_eq!(text(&ground.storage, &bucket, "n").await.as_deref(), Some("600"));
    agree(&ground.storage, &bucket).await;
}

pub(super) async fn an_increment_leaves_a_key_what_it_has_besides(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let far = Duration::from_hours(5);
    set(storage, &bucket, BucketSettings { history: 2, ..BucketSettings::default() }).await;
    let typed = KeyValue { bytes: "1".into(), content_type: Some("text/plain".into()) };
    let owner = put_of("x", "1", "ann").edit;
    let KeyEdit::Put { owner, .. } = owner else { panic!("it is a put") };
    let edit = KeyEdit::Put { value: typed.clone(), ttl: Some(far), fresh: None, owner };
    let first = make_one(storage, &bucket, change("n", edit)).await;
    let before = get(storage, &bucket, "n").await.unwrap();
    let by = |ttl| KeyEdit::Increment { by: 1, min: None, max: None, ttl };
    let added = make(storage, &bucket, vec![change("n", by(Some(Duration::from_hours(1))))]).await;
    assert_eq!(added[0].expires_at, before.expires_at, "it is told until when it lives");
    let after = get(storage, &bucket, "n").await.unwrap();
    assert_eq!(after.value, Some(KeyValue { bytes: "2".into(), ..typed }));
    assert_eq!((&after.owner, after.expires_at), (&before.owner, before.expires_at));
    assert_eq!(after.created_at, before.created_at);
    let kept = storage.buckets.key_history(&bucket, &after.key).await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [after.revision, first]);
    // Its own time counts from when it comes to be.
    make(storage, &bucket, vec![change("new", by(Some(far)))]).await;
    let new = get(storage, &bucket, "new").await.unwrap();
    assert_eq!(new.expires_at, Some(new.created_at.saturating_add(far)));
    make(storage, &bucket, vec![change("new", by(Some(Duration::from_secs(1))))]).await;
    assert_eq!(get(storage, &bucket, "new").await.unwrap().expires_at, new.expires_at);
    make(storage, &bucket, vec![put_for("over", "5", Duration::from_millis(1))]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let anew = make(storage, &bucket, vec![change("over", by(None))]).await;
    assert_eq!((anew[0].number, anew[0].is_new), (Some(1), true), "it was not there any more");
    agree(storage, &bucket).await;
}
