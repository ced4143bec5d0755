//! What a group is told of messages that were gone before it was done with them.

use std::time::Duration;

use tidemill::proto::work::{ConsumerName, GroupDetail, GroupName};
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{
    Claim, Claimed, Delivery, Existing, GroupStart, Settlement, Storage, Trim, Verdict, group_defaults,
};

use crate::support::ground::{Ground, append_numbers};

/// A group of a topic.
struct Of<'a> {
    storage: &'a Storage,
    topic: TopicName,
    group: GroupName,
}

impl<'a> Of<'a> {
    async fn of(storage: &'a Storage, topic: &TopicName, name: &str, start: GroupStart) -> Self {
        let group = GroupName::parse(name).expect("a name");
        let settings = group_defaults(topic, &group);
        storage.work.put_group(topic, &group, &settings, start, Existing::Replace).await.expect("a group");
        Self { storage, topic: topic.clone(), group }
    }

    async fn claim(&self, max: usize) -> Claimed {
        let claim = Claim {
            topic: self.topic.clone(),
            group: self.group.clone(),
            consumer: ConsumerName::parse("c").expect("a name"),
            max,
            bytes_max: usize::MAX >> 1,
            claim_id: None,
        };
        self.storage.work.claim(vec![claim]).await.pop().expect("a result").expect("it is claimed")
    }

    /// Claims and acknowledges up to so many; returns how many that were, and how many were found to be gone.
    async fn work(&self, max: usize) -> (usize, u64) {
        let claimed = self.claim(max).await;
        for delivery in &claimed.deliveries {
            self.settle(claimed.epoch, delivery, Verdict::Ack(None)).await;
        }
        (claimed.deliveries.len(), claimed.gone)
    }

    async fn settle(&self, epoch: u64, of: &Delivery, verdict: Verdict) {
        let settlement = Settlement { epoch, id: of.message.id, delivery: of.delivery, verdict };
        self.storage.work.settle(&self.topic, &self.group, vec![settlement]).await.expect("it is settled");
    }

    async fn detail(&self) -> GroupDetail {
        self.storage.work.group(&self.topic, &self.group).await.expect("it is described")
    }

    /// Returns how many are gone, and how many wait.
    async fn gone(&self) -> (u64, Option<u64>) {
        let detail = self.detail().await;
        (detail.gone, detail.waiting)
    }
}

async fn trim(storage: &Storage, topic: &TopicName, keep: u64) {
    storage.messages.trim(topic, Trim::Keep(keep)).await.expect("it is trimmed");
}

pub(super) async fn what_is_trimmed_before_a_group_got_it_is_counted(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 10).await;
    let (all, one) = (
        Of::of(storage, &topic, "all", GroupStart::Earliest).await,
        Of::of(storage, &topic, "one", GroupStart::Earliest).await,
    );
    assert_eq!(all.work(2).await, (2, 0));
    trim(storage, &topic, 3).await;
    // Whether or not anybody claims.
    assert_eq!(all.gone().await, (5, Some(3)));
    assert_eq!(one.gone().await, (7, Some(3)));
    assert_eq!(all.work(1).await, (1, 5));
    assert_eq!(one.work(100).await, (3, 7));
    assert_eq!((all.gone().await, one.gone().await), ((5, Some(2)), (7, Some(0))));
    // Once, however often that comes; and what a group is done with is nothing to it.
    append_numbers(storage, &topic, 10).await;
    trim(storage, &topic, 5).await;
    assert_eq!((all.gone().await, one.gone().await), ((12, Some(5)), (12, Some(5))));
    trim(storage, &topic, 0).await;
    assert_eq!((all.gone().await, one.gone().await), ((17, Some(0)), (17, Some(0))));
    assert_eq!((all.work(9).await, one.work(9).await), ((0, 12), (0, 10)));
    append_numbers(storage, &topic, 1).await;
    assert_eq!((all.work(9).await, one.work(9).await), ((1, 0), (1, 0)));
    assert_eq!((all.gone().await, one.gone().await), ((17, Some(0)), (17, Some(0))));
}

pub(super) async fn what_was_given_out_and_is_gone_is_counted_when_it_should_come_again(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 4).await;
    let group = Of::of(storage, &topic, "workers", GroupStart::Earliest).await;
    let claimed = group.claim(4).await;
    trim(storage, &topic, 0).await;
    group.settle(claimed.epoch, &claimed.deliveries[0], Verdict::Ack(None)).await;
    for delivery in &claimed.deliveries[1..3] {
        group.settle(claimed.epoch, delivery, Verdict::Nack(Some(Duration::ZERO), None)).await;
    }
    assert_eq!(group.work(4).await.0, 0);
    let detail = group.detail().await;
    assert_eq!(
        (detail.done, detail.gone, detail.in_flight),
        (1, 2, 1),
        "who has it can still be done with it"
    );
}

pub(super) async fn messages_deleted_ahead_of_a_group_are_counted(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let ids = append_numbers(storage, &topic, 10).await;
    let group = Of::of(storage, &topic, "workers", GroupStart::Earliest).await;
    assert_eq!(group.work(2).await, (2, 0));
    for at in [0, 4, 5, 9] {
        assert!(storage.messages.remove(&topic, ids[at]).await.expect("it is removed"));
    }
    let (mut done, mut gone) = (0, 0);
    for _ in 0..4 {
        let (count, found) = group.work(2).await;
        (done, gone) = (done + count, gone + found);
    }
    assert_eq!((done, gone), (5, 3), "one was done before it was deleted");
    assert_eq!(group.detail().await.gone, 3);
}

pub(super) async fn what_lies_before_the_start_of_a_group_is_not_gone_for_it(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let ids = append_numbers(storage, &topic, 10).await;
    assert!(storage.messages.remove(&topic, ids[8]).await.expect("it is removed"));
    trim(storage, &topic, 8).await;
    let earliest = Of::of(storage, &topic, "earliest", GroupStart::Earliest).await;
    let latest = Of::of(storage, &topic, "latest", GroupStart::Latest).await;
    let middle = Of::of(storage, &topic, "middle", GroupStart::After(ids[5])).await;
    trim(storage, &topic, 2).await;
    append_numbers(storage, &topic, 1).await;
    for (group, done, gone) in [(&earliest, 3, 6), (&latest, 1, 0), (&middle, 3, 1)] {
        assert_eq!(group.work(20).await, (done, gone), "{}", group.group);
        assert_eq!(group.detail().await.gone, gone, "{}", group.group);
    }
    // Set back, it is not told of what was gone by then.
    storage.work.seek(&topic, &latest.group, GroupStart::After(MessageId::MIN)).await.expect("it is set");
    assert_eq!(latest.work(20).await, (3, 0));
}

pub(super) async fn a_claim_that_leaves_nothing_says_so(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 3).await;
    let group = Of::of(storage, &topic, "workers", GroupStart::Earliest).await;
    let claimed = group.claim(1).await;
    assert!(!claimed.drained);
    let delivery = &claimed.deliveries[0];
    assert!(group.claim(2).await.drained, "the last ones");
    assert!(group.claim(1).await.drained);
    // What comes back, and what comes, can be claimed.
    group.settle(claimed.epoch, delivery, Verdict::Nack(Some(Duration::ZERO), None)).await;
    append_numbers(storage, &topic, 1).await;
    assert!(!group.claim(1).await.drained);
    assert!(group.claim(1).await.drained);
    // Also where messages are gone between.
    append_numbers(storage, &topic, 3).await;
    trim(storage, &topic, 2).await;
    assert!(!group.claim(1).await.drained);
    assert!(group.claim(1).await.drained);
}

/// What other programs trim and delete is counted as well.
#[cfg(feature = "valkey")]
pub(super) async fn what_others_trim_and_delete_is_counted(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let ids = append_numbers(storage, &topic, 300).await;
    let group = Of::of(storage, &topic, "workers", GroupStart::Earliest).await;
    assert_eq!(group.work(10).await, (10, 0));
    let key = format!("stream:topic:{topic}");
    let id = |at: usize| ids[at].to_string();
    ground.server().command(&["XDEL", &key, &id(9), &id(20), &id(21)]).await;
    ground.server().command(&["XTRIM", &key, "MAXLEN", "=", "100"]).await;
    // Ten are done, of which one was deleted; the two others and 188 were not.
    assert_eq!(group.gone().await, (190, Some(100)));
    assert_eq!(group.work(1).await, (1, 190));
    ground.server().command(&["XDEL", &key, &id(250), &id(299)]).await;
    let (done, gone) = group.work(1_000).await;
    assert_eq!((done, gone), (97, 2));
    let detail = group.detail().await;
    assert_eq!((detail.gone, detail.exact), (192, true));
}

/// What another program reads for a group is with its consumer, and not gone.
#[cfg(feature = "valkey")]
pub(super) async fn what_others_read_for_a_group_is_not_gone(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 10).await;
    let group = Of::of(storage, &topic, "workers", GroupStart::Earliest).await;
    let key = format!("stream:topic:{topic}");
    assert_eq!(group.work(2).await, (2, 0));
    let read = ["XREADGROUP", "GROUP", "workers", "other", "COUNT", "3", "STREAMS", &key, ">"];
    ground.server().command(&read).await;
    let detail = group.detail().await;
    assert_eq!((detail.gone, detail.exact), (0, false), "nobody knows yet how many the other has read");
    assert_eq!(group.work(2).await, (2, 0));
    assert_eq!(group.work(9).await, (3, 0));
    let detail = group.detail().await;
    assert_eq!((detail.done, detail.in_flight, detail.exact), (7, 3, true), "it has three");
    let held = ground.server().command(&["XPENDING", &key, "workers", "-", "+", "2"]).await;
    for held in held.array() {
        ground.server().command(&["XACK", &key, "workers", &held.array()[0].text()]).await;
    }
    let detail = group.detail().await;
    assert_eq!((detail.done, detail.in_flight, detail.exact), (7, 1, false), "two were done elsewhere");
    trim(storage, &topic, 0).await;
    append_numbers(storage, &topic, 2).await;
    trim(storage, &topic, 1).await;
    assert_eq!(group.work(9).await, (1, 1));
    // Set anew, it counts anew.
    storage.work.seek(&topic, &group.group, GroupStart::Earliest).await.expect("it is set");
    assert!(group.detail().await.exact);
    assert_eq!(group.work(9).await, (1, 0));
    assert!(group.detail().await.exact);
}
