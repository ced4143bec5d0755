//! Expiry: what has expired is never shown, and stands in nobody's way.

use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::storage::{NewMessage, Trim};

use crate::support::eventually;
use crate::support::ground::{
    Ground, SOON, append, append_all, expired, ids, json, length, message, page, read_all, texts,
};

pub(super) async fn an_expired_message_is_never_returned(ground: &Ground) {
    let topic = ground.topic();
    let ids_of_expired = append_all(&ground.storage, vec![expired(&topic, json("1")); 3]).await;
    for order in [Order::Asc, Order::Desc] {
        let read = page(&ground.storage, &topic, order, None, 10).await;
        assert_eq!((read.messages.len(), read.next), (0, None));
    }
    for id in ids_of_expired {
        assert_eq!(ground.storage.messages.get(&topic, id).await.unwrap(), None);
    }
}

pub(super) async fn a_message_is_returned_until_it_expires(ground: &Ground) {
    let topic = ground.topic();
    let at = |duration| Some(ground.clock.now().saturating_add(duration));
    let hour = NewMessage { expires_at: at(Duration::from_hours(1)), ..message(&topic, json("\"hour\"")) };
    append(&ground.storage, hour).await.unwrap();
    let soon = NewMessage { expires_at: at(Duration::from_secs(1)), ..message(&topic, json("\"soon\"")) };
    let id = append(&ground.storage, soon).await.unwrap().id;
    assert!(ground.storage.messages.get(&topic, id).await.unwrap().is_some());
    assert_eq!(
        texts(&page(&ground.storage, &topic, Order::Asc, None, 10).await.messages),
        ["\"hour\"", "\"soon\""]
    );
    eventually(SOON, async || ground.storage.messages.get(&topic, id).await.unwrap().is_none()).await;
    assert_eq!(texts(&page(&ground.storage, &topic, Order::Asc, None, 10).await.messages), ["\"hour\""]);
}

pub(super) async fn pages_step_over_expired_messages(ground: &Ground) {
    let topic = ground.topic();
    let batch = (0..300).map(|number| {
        let body = json(number.to_string());
        if number % 3 == 0 { message(&topic, body) } else { expired(&topic, body) }
    });
    let appended = append_all(&ground.storage, batch.collect()).await;
    let mut live: Vec<_> = appended.into_iter().step_by(3).collect();
    for limit in [1, 10, 1_000] {
        assert_eq!(ids(&read_all(&ground.storage, &topic, Order::Asc, limit).await), live);
    }
    live.reverse();
    for limit in [1, 10, 1_000] {
        assert_eq!(ids(&read_all(&ground.storage, &topic, Order::Desc, limit).await), live);
    }
    let full = page(&ground.storage, &topic, Order::Desc, None, 50).await;
    assert_eq!(full.messages.len(), 50, "expired messages take no place in a page");
}

/// A read may stop inside a long run of expired messages, but says where, so that a reader comes
/// through in a few turns.
pub(super) async fn a_long_run_of_expired_messages_is_crossed(ground: &Ground) {
    let topic = ground.topic();
    let first = append(&ground.storage, message(&topic, json("\"first\""))).await.unwrap().id;
    for _ in 0..25 {
        append_all(&ground.storage, vec![expired(&topic, json("1")); 1_000]).await;
    }
    let last = append(&ground.storage, message(&topic, json("\"last\""))).await.unwrap().id;
    for (order, from, to) in [(Order::Asc, first, last), (Order::Desc, last, first)] {
        let mut after = Some(from);
        let mut turns = 0;
        loop {
            let read = page(&ground.storage, &topic, order, after, 10).await;
            if !read.messages.is_empty() {
                assert_eq!(ids(&read.messages), [to]);
                break;
            }
            assert!(read.next.is_some() && read.next != after, "a read that stops early says where");
            after = read.next;
            turns += 1;
            assert!(turns <= 25, "a read looks at more than a thousand messages");
        }
    }
}

pub(super) async fn expired_messages_count_until_they_are_removed(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_all(&ground.storage, vec![expired(&topic, json("1")); 5]).await;
    let state = ground.storage.topics.describe(&topic).await.unwrap();
    assert_eq!((state.length, state.first_id, state.last_id), (5, Some(appended[0]), Some(appended[4])));
    assert_eq!(ground.storage.messages.trim(&topic, Trim::Keep(2)).await.unwrap(), 3);
    assert_eq!(length(&ground.storage, &topic).await, 2);
}
