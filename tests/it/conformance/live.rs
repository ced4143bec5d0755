//! What live readers need: the newest end of a topic, changes of many, and how far a read has looked.

use std::collections::HashSet;

use futures_util::FutureExt as _;
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{Changes, Epoch, Followed, Hint, StorageError, Tail, Trim};

use crate::support::eventually;
use crate::support::ground::{
    Ground, Heard, SOON, append_all, append_numbers, expired, followed, json, message, page,
};

pub(super) async fn a_tail_tells_the_newest_end(ground: &Ground) {
    let topic = ground.topic();
    let refused = ground.storage.live.tail(&topic).await;
    assert!(matches!(refused, Err(StorageError::NoTopic)), "{refused:?}");
    ground.storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
    let empty = ground.storage.live.tail(&topic).await.unwrap();
    assert_eq!((empty.last, empty.given, empty.late), (None, Some(0), None));
    assert_ne!(empty.epoch, Epoch::Unmarked);
    for round in 1..=3 {
        let appended = append_numbers(&ground.storage, &topic, 7).await;
        let tail = ground.storage.live.tail(&topic).await.unwrap();
        let first = tail.first;
        assert_eq!(tail, Tail { first, last: Some(appended[6]), given: Some(round * 7), ..empty.clone() });
        assert_eq!(first, ground.storage.topics.describe(&topic).await.unwrap().first_id);
    }
}

pub(super) async fn a_tail_survives_what_removes_messages(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 7).await;
    let whole = ground.storage.live.tail(&topic).await.unwrap();
    assert_eq!((whole.last, whole.given), (Some(appended[6]), Some(7)));
    for (keep, first) in [(3, Some(appended[4])), (0, None)] {
        ground.storage.messages.trim(&topic, Trim::Keep(keep)).await.unwrap();
        assert_eq!(ground.storage.live.tail(&topic).await.unwrap(), Tail { first, ..whole.clone() });
    }
    ground.storage.topics.delete(&topic).await.unwrap();
    let again = append_numbers(&ground.storage, &topic, 1).await;
    let tail = ground.storage.live.tail(&topic).await.unwrap();
    assert_eq!((tail.last, tail.given), (Some(again[0]), Some(1)), "another topic of the same name");
    assert!(!whole.epoch.may_be(tail.epoch));
}

/// The server of a test runs on this machine, so its clock is this one.
pub(super) async fn a_tail_tells_from_which_id_on_its_topic_gives_them(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    let mut last = MessageId::MIN;
    // Several lives of the topic fit into a millisecond.
    for life in 0..20 {
        let made_after = ground.clock.now().as_millis();
        if life % 2 == 0 {
            storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
        } else {
            append_numbers(storage, &topic, 1).await;
        }
        let born = storage.live.tail(&topic).await.unwrap().born.expect("the relay has made the topic");
        assert!(born.ms >= made_after, "life {life}: {born}, and made after {made_after}");
        assert!(born > last, "life {life}: {born} after {last}");
        let given = append_numbers(storage, &topic, 2).await;
        let first = storage.topics.describe(&topic).await.unwrap().first_id;
        assert!(first >= Some(born), "life {life}: {first:?} of a topic that begins at {born}");
        storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
        assert_eq!(storage.live.tail(&topic).await.unwrap().born, Some(born), "life {life}");
        last = given[1];
        storage.topics.delete(&topic).await.unwrap();
    }
}

pub(super) async fn news_names_the_topics_with_later_messages(ground: &Ground) {
    let storage = &ground.storage;
    let [whole, part, unread, empty, missing] = [(); 5].map(|()| ground.topic());
    let seen = append_numbers(storage, &whole, 3).await[2];
    let behind = append_numbers(storage, &part, 3).await[1];
    append_numbers(storage, &unread, 3).await;
    storage.topics.create(&empty, TopicUpdate::default(), None).await.unwrap();
    let known = async |topic: &TopicName, seen| {
        let epoch = storage.live.tail(topic).await.unwrap().epoch;
        Followed { epoch, ..followed(topic, seen) }
    };
    let asked = [
        known(&whole, Some(seen)).await,
        known(&part, Some(behind)).await,
        known(&unread, None).await,
        known(&empty, None).await,
        followed(&missing, None),
        // Nobody is told again of what is known.
        Followed { exists: false, ..followed(&missing, None) },
    ];
    let changes = storage.live.poll_changes(&asked).await.unwrap();
    assert_eq!(changes, Changes { changed: vec![1, 2], gone: vec![4] });
    append_numbers(storage, &empty, 1).await;
    append_numbers(storage, &whole, 1).await;
    let changes = storage.live.poll_changes(&asked).await.unwrap();
    assert_eq!(changes, Changes { changed: vec![0, 1, 2, 3], gone: vec![4] });
    // Where none of them existed, all that there is to know is what is new.
    let waiting = [&whole, &missing].map(|topic| Followed { exists: false, ..followed(topic, None) });
    let changes = storage.live.poll_changes(&waiting).await.unwrap();
    assert_eq!(changes, Changes { changed: vec![0], gone: vec![] });
    assert_eq!(storage.live.poll_changes(&[]).await.unwrap(), Changes::default());
    // Another topic of the name, of which nothing is new.
    storage.topics.delete(&empty).await.unwrap();
    storage.topics.create(&empty, TopicUpdate::default(), None).await.unwrap();
    let changes = storage.live.poll_changes(&asked[3..4]).await.unwrap();
    assert_eq!(changes, Changes { changed: vec![0], gone: vec![] });
    let described = storage.topics.describe(&missing).await;
    assert!(matches!(described, Err(StorageError::NoTopic)), "asking makes no topic: {described:?}");
}

pub(super) async fn a_read_tells_how_far_it_looked(ground: &Ground) {
    let topic = ground.topic();
    let batch = (0..300).map(|number| {
        let body = json(number.to_string());
        if number % 3 == 0 { message(&topic, body) } else { expired(&topic, body) }
    });
    let appended = append_all(&ground.storage, batch.collect()).await;
    let read = page(&ground.storage, &topic, Order::Asc, None, 10).await;
    assert_eq!((read.reached, read.looked_at), (Some(appended[27]), 28), "up to the last message");
    assert_eq!(read.next, read.reached);
    let rest = page(&ground.storage, &topic, Order::Asc, read.next, 1_000).await;
    assert_eq!((rest.messages.len(), rest.looked_at), (90, 272));
    assert_eq!(rest.reached, Some(appended[299]), "the expired ones at the end included");
    let end = page(&ground.storage, &topic, Order::Asc, rest.reached, 10).await;
    assert_eq!((end.reached, end.looked_at), (None, 0));
}

pub(super) async fn what_a_node_changes_itself_is_told_before_it_is_answered(ground: &Ground) {
    let storage = &ground.storage;
    let [one, two] = [(); 2].map(|()| ground.topic());
    let mut heard = Heard::of(storage);
    append_all(storage, [&one, &two, &one].map(|topic| message(topic, json("1"))).to_vec()).await;
    let told: HashSet<_> = std::iter::from_fn(|| heard.told()).collect();
    assert_eq!(told, HashSet::from([one.clone(), two.clone()]));
    let bare = ground.topic();
    storage.topics.create(&bare, TopicUpdate::default(), None).await.unwrap();
    assert_eq!((heard.told(), heard.told()), (Some(bare.clone()), None), "without a message");
    let refused = storage.topics.create(&bare, TopicUpdate::default(), None).await;
    assert!(matches!(refused, Err(StorageError::TopicExists)), "{refused:?}");
    assert_eq!(heard.told(), None, "nothing was created");
    storage.topics.delete(&two).await.unwrap();
    assert_eq!(heard.told(), Some(two));
    // Also where nobody waits for the answer any more.
    let _ = storage.messages.append(vec![message(&one, json("2"))]).now_or_never();
    eventually(SOON, async || storage.live.tail(&one).await.unwrap().given == Some(3)).await;
    // The line of hints of others may come up meanwhile, and tells of everything.
    let topic = loop {
        match heard.next().await {
            Hint::Topic(topic) => break topic,
            Hint::Watched(_) | Hint::WatchedAll | Hint::Lock(_) | Hint::WatchedLocks | Hint::Everything => {}
        }
    };
    assert_eq!(topic, one);
    while heard.told().is_some() {}
    let _ = storage.topics.delete(&one).now_or_never();
    assert_eq!(heard.told(), Some(one));
    let new = ground.topic();
    let _ = storage.topics.create(&new, TopicUpdate::default(), None).now_or_never();
    assert_eq!(heard.told(), Some(new));
}
