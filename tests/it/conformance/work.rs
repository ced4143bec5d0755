//! Groups: which messages a consumer gets, until when, and what becomes of those that it settles.
//!
//! Long because: what is promised of a message stands in one place, from its first claim to its end.

use std::time::Duration;

use bytes::Bytes;
use tidemill::proto::duration::Seconds;
use tidemill::proto::work::{ClaimId, ConsumerName, GroupName, GroupSettings, MessageStateName, Ordering};
use tidemill::proto::{MessageId, OrderKey, TopicName};
use tidemill::storage::{
    Body, Claim, Claimed, DeadLetter, Delivery, Existing, GroupChange, GroupStart, GroupsSwept, HELD_BY_MAX,
    Outcome, Refusal, Revived, Settlement, StorageError, Trim, Verdict, group_defaults,
};
use tokio::time::{Instant, sleep};

use crate::support::ground::{
    Ground, POLICY, SOON, append_all, append_numbers, append_numbers_under, expired, json, message,
};

/// A time for consumers that is over soon.
const SHORT: Duration = Duration::from_millis(250);

pub(super) fn name(text: &str) -> GroupName {
    GroupName::parse(text).expect("the name is right")
}

fn consumer(text: &str) -> ConsumerName {
    ConsumerName::parse(text).expect("the name is right")
}

/// A group of a topic, in a test.
pub(super) struct Of<'a> {
    pub(super) ground: &'a Ground,
    pub(super) topic: TopicName,
    pub(super) group: GroupName,
}

impl<'a> Of<'a> {
    /// Makes a group of a topic that has numbers as messages, and begins with the first.
    pub(super) async fn numbers(
        ground: &'a Ground,
        count: usize,
        change: impl FnOnce(&mut GroupSettings),
    ) -> (Self, Vec<MessageId>) {
        let (topic, group) = (ground.topic(), name("workers"));
        let ids = append_numbers(&ground.storage, &topic, count.max(1)).await;
        let mut settings = group_defaults(&topic, &group);
        change(&mut settings);
        let made = ground
            .storage
            .work
            .put_group(&topic, &group, &settings, GroupStart::Earliest, Existing::Replace)
            .await;
        assert!(made.expect("the group is made"));
        (Self { ground, topic, group }, ids)
    }

    /// Makes a group of a topic that has a message, and begins behind it.
    pub(super) async fn latest(ground: &'a Ground, change: impl FnOnce(&mut GroupSettings)) -> Self {
        let of = Self { ground, topic: ground.topic(), group: name("workers") };
        append_numbers(&ground.storage, &of.topic, 1).await;
        let mut settings = group_defaults(&of.topic, &of.group);
        change(&mut settings);
        let made = ground
            .storage
            .work
            .put_group(&of.topic, &of.group, &settings, GroupStart::Latest, Existing::Replace)
            .await;
        assert!(made.expect("the group is made"));
        of
    }

    pub(super) fn ask(&self, who: &str, max: usize) -> Claim {
        Claim {
            topic: self.topic.clone(),
            group: self.group.clone(),
            consumer: consumer(who),
            max,
            bytes_max: usize::MAX >> 1,
            claim_id: None,
        }
    }

    pub(super) async fn claimed(&self, claim: Claim) -> Claimed {
        let results = self.ground.storage.work.claim(vec![claim]).await;
        results.into_iter().next().expect("a result").expect("it is claimed")
    }

    pub(super) async fn claim(&self, who: &str, max: usize) -> Vec<Held> {
        let claimed = self.claimed(self.ask(who, max)).await;
        claimed.deliveries.into_iter().map(|delivery| Held { epoch: claimed.epoch, delivery }).collect()
    }

    pub(super) async fn settle(&self, held: &Held, verdict: Verdict) -> Outcome {
        self.settle_all(&[held], &verdict).await[0]
    }

    pub(super) async fn settle_all(&self, held: &[&Held], verdict: &Verdict) -> Vec<Outcome> {
        let settlements = held.iter().map(|held| held.with(verdict.clone())).collect();
        let settled = self.ground.storage.work.settle(&self.topic, &self.group, settlements).await;
        settled.expect("it is answered")
    }

    pub(super) async fn state(&self, id: MessageId) -> Option<MessageStateName> {
        let fate = self.ground.storage.work.fate(&self.topic, &self.group, id).await;
        fate.expect("it is told").map(|fate| fate.state)
    }

    /// Takes back what has lapsed, until that are so many.
    pub(super) async fn lapse(&self, count: u64) {
        let (mut lapsed, since) = (0, Instant::now());
        while lapsed < count {
            assert!(since.elapsed() < SOON, "{lapsed} of {count} have lapsed");
            let tended = self.ground.storage.work.tend(&self.topic, &self.group).await;
            lapsed += tended.expect("it is tended").lapsed;
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(lapsed, count, "no more have lapsed");
    }

    /// Buries what is dying; returns their ids and reasons.
    pub(super) async fn bury(&self) -> Vec<(MessageId, Box<str>)> {
        let work = &self.ground.storage.work;
        let dying = work.dying(&self.topic, &self.group, 100).await.expect("they are told");
        for one in &dying {
            let letter = DeadLetter { id: one.id, letter: Some(MessageId::new(1, 1)) };
            assert!(work.bury(&self.topic, &self.group, one.epoch, letter).await.expect("it is noted"));
            assert!(!work.bury(&self.topic, &self.group, one.epoch, letter).await.expect("once"));
        }
        dying.into_iter().map(|one| (one.id, one.reason)).collect()
    }
}

/// A delivery with its epoch.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) delivery: Delivery,
}

impl Held {
    pub(super) fn id(&self) -> MessageId {
        self.delivery.message.id
    }

    fn with(&self, verdict: Verdict) -> Settlement {
        let (epoch, id, delivery) = (self.epoch, self.id(), self.delivery.delivery);
        Settlement { epoch, id, delivery, verdict }
    }
}

pub(super) fn ids(held: &[Held]) -> Vec<MessageId> {
    held.iter().map(Held::id).collect()
}

pub(super) fn nack(delay: Duration) -> Verdict {
    Verdict::Nack(Some(delay), Some("it broke".into()))
}

pub(super) fn settled(outcome: Outcome) -> (bool, bool) {
    match outcome {
        Outcome::Settled { late, dying, .. } => (late, dying),
        Outcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

pub(super) fn short(settings: &mut GroupSettings) {
    settings.ack_wait = Seconds(SHORT);
}

/// Holds deliveries against each other. A server whose clock goes on within a script may tell a deadline a little later.
fn assert_same(one: &[Delivery], other: &[Delivery]) {
    let told = |all: &[Delivery]| {
        let told = all.iter().map(|delivery| (delivery.message.clone(), delivery.delivery));
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(one), told(other));
    for (one, other) in one.iter().zip(other) {
        assert!(one.deadline.as_millis().abs_diff(other.deadline.as_millis()) <= 5, "{one:?} {other:?}");
    }
}

pub(super) async fn a_group_begins_where_it_is_told_and_is_described(ground: &Ground) {
    let (topic, work) = (ground.topic(), &ground.storage.work);
    let (group, start) = (name("g"), GroupStart::Latest);
    let missing =
        work.put_group(&topic, &group, &group_defaults(&topic, &group), start, Existing::Replace).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
    let sent = append_numbers(&ground.storage, &topic, 5).await;
    let settings = |group: &str| GroupSettings { max_deliveries: 7, ..group_defaults(&topic, &name(group)) };
    for (group, start, waiting) in [
        ("all", GroupStart::Earliest, 5),
        ("behind", GroupStart::After(sent[2]), 2),
        ("new", GroupStart::Latest, 0),
    ] {
        assert!(
            work.put_group(&topic, &name(group), &settings(group), start, Existing::Replace).await.unwrap(),
            "{group}"
        );
        assert!(
            !work.put_group(&topic, &name(group), &settings(group), start, Existing::Replace).await.unwrap(),
            "{group}"
        );
        assert!(
            !work.put_group(&topic, &name(group), &settings(group), start, Existing::Keep).await.unwrap(),
            "{group}"
        );
        let told = work.group(&topic, &name(group)).await.unwrap();
        assert_eq!(told.settings, settings(group));
        let of = Of { ground, topic: topic.clone(), group: name(group) };
        let first = of.claim("ann", 100).await;
        assert_eq!(ids(&first), sent[5 - waiting..], "{group}");
        let told = work.group(&topic, &name(group)).await.unwrap();
        assert_eq!((told.waiting, told.in_flight), (Some(0), waiting as u64), "{group}");
    }
    let more = append_numbers(&ground.storage, &topic, 1).await;
    let of = Of { ground, topic: topic.clone(), group: name("new") };
    assert_eq!(ids(&of.claim("ann", 100).await), more);
    let named: Vec<String> =
        work.groups(&topic).await.unwrap().iter().map(|group| group.group.to_string()).collect();
    assert_eq!(named, ["all", "behind", "new"]);
    assert!(matches!(work.group(&topic, &name("none")).await, Err(StorageError::NoGroup)));
    let claim = Claim { group: name("none"), ..of.ask("ann", 1) };
    assert!(matches!(work.claim(vec![claim]).await[0], Err(StorageError::NoGroup)));
    let claim = Claim { topic: ground.topic(), ..of.ask("ann", 1) };
    assert!(matches!(work.claim(vec![claim]).await[0], Err(StorageError::NoTopic)));
    work.delete_group(&topic, &name("new")).await.unwrap();
    assert!(matches!(work.delete_group(&topic, &name("new")).await, Err(StorageError::NoGroup)));
    assert_eq!(work.groups(&topic).await.unwrap().len(), 2);
    ground.storage.topics.delete(&topic).await.unwrap();
    append_numbers(&ground.storage, &topic, 1).await;
    assert_eq!(work.groups(&topic).await.unwrap().len(), 0, "groups are gone with their topic");
}

pub(super) async fn each_message_is_with_one_consumer_at_a_time(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 500, |_| {}).await;
    let claims = (0..50).map(|who| of.ask(&format!("w{who}"), 7)).collect();
    let claimed = ground.storage.work.claim(claims).await;
    let mut got = Vec::new();
    for claimed in claimed {
        let claimed = claimed.expect("it is claimed");
        assert_eq!(claimed.deliveries.len(), 7);
        assert!(claimed.deliveries.iter().all(|delivery| delivery.delivery == 1));
        got.extend(claimed.deliveries.into_iter().map(|delivery| delivery.message.id));
    }
    got.sort_unstable();
    assert_eq!(got, sent[..350]);
    // Another group has them all for itself.
    let other = Of { ground, topic: of.topic.clone(), group: name("others") };
    let settings = group_defaults(&of.topic, &other.group);
    ground
        .storage
        .work
        .put_group(&of.topic, &other.group, &settings, GroupStart::Earliest, Existing::Replace)
        .await
        .unwrap();
    assert_eq!(ids(&other.claim("w1", 1_000).await), sent);
    assert_eq!(of.state(sent[0]).await, Some(MessageStateName::InFlight));
    assert_eq!(of.state(sent[499]).await, Some(MessageStateName::Waiting));
    assert_eq!(of.state(MessageId::new(1, 1)).await, None);
}

pub(super) async fn who_has_most_messages_is_told_with_how_many(ground: &Ground) {
    let (of, _) = Of::numbers(ground, 120, |_| {}).await;
    let claims = (0..105).map(|who| of.ask(&format!("w{who:03}"), 1)).collect();
    let first = ground.storage.work.claim(claims).await;
    of.claim("w104", 2).await;
    let held = of.claim("ann", 5).await;
    let told = async || {
        let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
        let by = told.held_by.into_iter().map(|of| (of.consumer, of.in_flight)).collect::<Vec<_>>();
        (told.consumers, by)
    };
    let (consumers, by) = told().await;
    let counted = |(consumer, count): (&str, u64)| (consumer.to_owned(), count);
    assert_eq!((consumers, by.len()), (106, HELD_BY_MAX));
    assert_eq!(by[..4], [("ann", 5), ("w104", 3), ("w000", 1), ("w001", 1)].map(counted));
    // Who has given everything back has none, and what waits for later is with nobody.
    for claimed in &held {
        settled(of.settle(claimed, nack(Duration::from_mins(10))).await);
    }
    let (consumers, by) = told().await;
    assert_eq!((consumers, &by[0]), (105, &counted(("w104", 3))));
    assert!(first.into_iter().all(|claimed| claimed.is_ok()));
    let listed = ground.storage.work.groups(&of.topic).await.unwrap();
    assert!(listed.iter().all(|group| group.consumers == 105 && group.held_by.is_empty()), "{listed:?}");
}

pub(super) async fn what_is_acknowledged_is_done_with_its_result(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 3, |_| {}).await;
    let held = of.claim("ann", 2).await;
    let result = Bytes::from_static(br#"{"sum":3}"#);
    assert_eq!(settled(of.settle(&held[0], Verdict::Ack(Some(result.clone()))).await), (false, false));
    assert_eq!(
        of.settle(&held[0], Verdict::Ack(None)).await,
        Outcome::Refused(Refusal::SettledBefore),
        "once"
    );
    let fate = ground.storage.work.fate(&of.topic, &of.group, sent[0]).await.unwrap().expect("it is known");
    assert_eq!((fate.state, fate.result), (MessageStateName::Done, Some(result)));
    settled(of.settle(&held[1], Verdict::Ack(None)).await);
    assert_eq!(of.state(sent[1]).await, Some(MessageStateName::Done));
    assert_eq!(ids(&of.claim("ann", 10).await), sent[2..]);
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.done, told.failed, told.in_flight, told.waiting), (2, 0, 1, Some(0)));
    assert_eq!(told.minutes.iter().map(|minute| minute.done).sum::<u64>(), 2);
}

pub(super) async fn what_has_failed_comes_again_in_its_time_and_then_dies(ground: &Ground) {
    let settings = |settings: &mut GroupSettings| {
        settings.max_deliveries = 3;
        settings.backoff = vec![Seconds(Duration::ZERO), Seconds(Duration::from_mins(10))];
    };
    let (of, sent) = Of::numbers(ground, 1, settings).await;
    let held = of.claim("ann", 1).await;
    // By the group's backoff: at once after the first failure.
    settled(of.settle(&held[0], Verdict::Nack(None, None)).await);
    assert_eq!(of.settle(&held[0], nack(SHORT)).await, Outcome::Refused(Refusal::SettledBefore));
    let again = of.claim("bob", 1).await;
    assert_eq!((again[0].id(), again[0].delivery.delivery), (sent[0], 2));
    assert_eq!(of.settle(&held[0], Verdict::Ack(None)).await, Outcome::Refused(Refusal::DeliveredAgain));
    // By what the consumer says.
    let Outcome::Settled { until: Some(until), .. } = of.settle(&again[0], nack(SHORT)).await else {
        panic!("it is settled");
    };
    assert!(until > again[0].delivery.message.timestamp);
    assert_eq!(of.state(sent[0]).await, Some(MessageStateName::Backoff));
    assert!(of.claim("bob", 1).await.is_empty(), "it waits");
    let since = Instant::now();
    let third = loop {
        let held = of.claim("bob", 1).await;
        if !held.is_empty() {
            break held;
        }
        assert!(since.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(third[0].delivery.delivery, 3);
    assert_eq!(settled(of.settle(&third[0], nack(SHORT)).await), (false, true), "as often as it may");
    assert_eq!(of.state(sent[0]).await, Some(MessageStateName::Dead));
    assert!(of.claim("bob", 1).await.is_empty());
    let dying = ground.storage.work.dying(&of.topic, &of.group, 10).await.unwrap();
    assert_eq!((dying[0].deliveries, dying[0].failures, dying[0].error.as_deref()), (3, 3, Some("it broke")));
    assert_eq!(dying[0].message.as_ref().map(|message| message.body.payload.clone()), Some("0".into()));
    assert_eq!(of.bury().await, [(sent[0], "failed".into())]);
    assert_eq!(of.state(sent[0]).await, Some(MessageStateName::Dead));
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.dead, told.failed, told.redelivered, told.done), (1, 3, 2, 0));
}

pub(super) async fn what_is_rejected_dies_and_can_be_brought_back(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 3, |_| {}).await;
    let held = of.claim("ann", 3).await;
    for held in &held {
        assert_eq!(settled(of.settle(held, Verdict::Reject("no such order".into())).await), (false, true));
    }
    assert_eq!(of.bury().await.len(), 3);
    let work = &ground.storage.work;
    let dead = work.dead(&of.topic, &of.group, None, 2).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.id).collect::<Vec<_>>(), sent[..2]);
    assert_eq!(dead[0].letter, Some(MessageId::new(1, 1)));
    let rest = work.dead(&of.topic, &of.group, Some(sent[1]), 2).await.unwrap();
    assert_eq!(rest.iter().map(|dead| dead.id).collect::<Vec<_>>(), sent[2..]);
    ground.storage.messages.remove(&of.topic, sent[1]).await.unwrap();
    let asked = [sent[0], sent[1], MessageId::new(1, 1)].map(|id| (id, Duration::ZERO));
    let revived = work.revive(&of.topic, &of.group, &asked, true).await.unwrap();
    assert_eq!(revived, [Revived::Waits, Revived::Gone, Revived::Unknown]);
    assert_eq!(
        work.revive(&of.topic, &of.group, &[(sent[2], Duration::ZERO)], false).await.unwrap(),
        [Revived::Gone]
    );
    assert_eq!(work.group(&of.topic, &of.group).await.unwrap().dead, 0);
    let again = of.claim("ann", 10).await;
    assert_eq!(ids(&again), sent[..1]);
    assert_eq!(again[0].delivery.delivery, 2, "a receipt is of one delivery for ever");
    assert_eq!(of.settle(&held[0], Verdict::Ack(None)).await, Outcome::Refused(Refusal::DeliveredAgain));
    settled(of.settle(&again[0], Verdict::Ack(None)).await);
    assert_eq!(of.state(sent[0]).await, Some(MessageStateName::Done));
}

pub(super) async fn a_lost_consumer_is_charged_with_the_oldest_alone(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 5, short).await;
    for round in 1..=3 {
        let held = of.claim("ann", 10).await;
        assert_eq!(ids(&held), sent, "{round}");
        assert!(held.iter().all(|held| held.delivery.delivery == round));
        of.lapse(5).await;
    }
    assert_eq!(of.bury().await, [(sent[0], "crashed".into())]);
    let held = of.claim("bob", 10).await;
    assert_eq!(ids(&held), sent[1..]);
    // Of those on which it had begun, that one.
    let until = of.settle(&held[2], Verdict::Extend(Some(SHORT * 2))).await;
    assert!(matches!(until, Outcome::Settled { late: false, until: Some(_), .. }), "{until:?}");
    of.lapse(3).await;
    assert_eq!(of.state(held[2].id()).await, Some(MessageStateName::InFlight));
    of.lapse(1).await;
    let dying = ground.storage.work.dying(&of.topic, &of.group, 10).await.unwrap();
    assert!(dying.is_empty(), "{dying:?}");
    let held = of.claim("bob", 10).await;
    assert_eq!(held.len(), 4);
    // A failure more: each that was charged with none has one left until the last.
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!(told.failed, 4, "three of the first, and one of the one that was begun");
}

pub(super) async fn a_late_answer_counts_as_long_as_nobody_else_has_the_message(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 4, short).await;
    let held = of.claim("ann", 4).await;
    of.lapse(4).await;
    assert_eq!(of.state(sent[0]).await, Some(MessageStateName::Waiting));
    assert_eq!(settled(of.settle(&held[0], Verdict::Ack(None)).await), (true, false));
    let until = of.settle(&held[1], Verdict::Extend(Some(Duration::from_mins(1)))).await;
    assert!(matches!(until, Outcome::Settled { late: true, .. }), "{until:?}");
    assert_eq!(of.state(sent[1]).await, Some(MessageStateName::InFlight));
    assert_eq!(settled(of.settle(&held[2], nack(Duration::from_mins(1))).await), (true, false));
    let again = of.claim("bob", 4).await;
    assert_eq!(ids(&again), sent[3..]);
    assert_eq!(of.settle(&held[3], Verdict::Ack(None)).await, Outcome::Refused(Refusal::DeliveredAgain));
    settled(of.settle(&held[1], Verdict::Ack(None)).await);
    // Before anybody has looked, it is late as well.
    sleep(SHORT).await;
    assert_eq!(settled(of.settle(&again[0], Verdict::Ack(None)).await), (true, false));
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.done, told.in_backoff, told.in_flight), (3, 1, 0));
}

pub(super) async fn a_consumer_has_a_message_for_as_long_as_it_may(ground: &Ground) {
    let settings = |settings: &mut GroupSettings| {
        settings.ack_wait = Seconds(Duration::from_secs(30));
        settings.max_run = Some(Seconds(SHORT));
    };
    let (of, sent) = Of::numbers(ground, 1, settings).await;
    let held = of.claim("ann", 1).await;
    let Outcome::Settled { until: Some(until), .. } = of.settle(&held[0], Verdict::Extend(None)).await else {
        panic!("it is extended");
    };
    let deadline = held[0].delivery.deadline;
    assert!(until < deadline, "no longer than it may: {until} {deadline}");
    of.lapse(1).await;
    assert_eq!(of.settle(&held[0], Verdict::Extend(None)).await, Outcome::Refused(Refusal::MaxRun));
    assert_eq!(ids(&of.claim("bob", 1).await), sent);
}

pub(super) async fn what_is_given_back_has_not_failed(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 2, |settings| settings.max_deliveries = 1).await;
    for round in 1..=10 {
        let held = of.claim("ann", 2).await;
        assert_eq!(ids(&held), sent);
        assert_eq!(held[0].delivery.delivery, round);
        let outcomes = of.settle_all(&[&held[0], &held[1]], &Verdict::Release).await;
        assert!(outcomes.into_iter().map(settled).all(|settled| settled == (false, false)));
    }
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.failed, told.waiting, told.in_flight), (0, Some(2), 0));
}

pub(super) async fn a_consumer_that_is_said_to_be_lost_may_still_answer(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 4, |settings| settings.max_deliveries = 2).await;
    let held = of.claim("ann", 4).await;
    for (at, held) in held.iter().enumerate() {
        let lost = Verdict::Lost { charged: at == 0 };
        assert_eq!(settled(of.settle(held, lost.clone()).await), (false, false));
        assert_eq!(of.settle(held, lost).await, Outcome::Refused(Refusal::SettledBefore), "once");
    }
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.failed, told.waiting, told.in_flight), (1, Some(4), 0));
    assert_eq!(settled(of.settle(&held[1], Verdict::Ack(None)).await), (true, false));
    // It is there, so that it is charged with nothing.
    let until = of.settle(&held[0], Verdict::Extend(None)).await;
    assert!(matches!(until, Outcome::Settled { late: true, .. }), "{until:?}");
    assert_eq!(settled(of.settle(&held[0], nack(Duration::ZERO)).await), (false, false));
    let again = of.claim("bob", 4).await;
    let mut all = ids(&again);
    all.sort_unstable();
    assert_eq!(all, [sent[0], sent[2], sent[3]]);
    assert_eq!(of.settle(&held[2], Verdict::Ack(None)).await, Outcome::Refused(Refusal::DeliveredAgain));
    let lost: Vec<_> = again.iter().filter(|held| held.id() != sent[2]).collect();
    let outcomes = of.settle_all(&lost, &Verdict::Lost { charged: true }).await;
    // The one that had failed before dies of it.
    for (held, outcome) in lost.iter().zip(outcomes) {
        assert_eq!(settled(outcome), (false, held.id() == sent[0]), "{held:?}");
    }
    assert_eq!(of.bury().await, [(sent[0], "crashed".into())]);
}

pub(super) async fn a_repeated_claim_returns_what_is_held(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 6, |_| {}).await;
    let with =
        |id: &str, who: &str| Claim { claim_id: Some(ClaimId::parse(id).expect("an id")), ..of.ask(who, 2) };
    let first = of.claimed(with("c1", "ann")).await;
    let again = of.claimed(with("c1", "ann")).await;
    assert!(again.replayed && !first.replayed);
    assert_same(&again.deliveries, &first.deliveries);
    let others = of.claimed(with("c1", "bob")).await;
    assert_eq!(others.deliveries[0].message.id, sent[2], "a claim is its consumer's");
    let held = Held { epoch: first.epoch, delivery: first.deliveries[0].clone() };
    settled(of.settle(&held, Verdict::Ack(None)).await);
    let rest = of.claimed(with("c1", "ann")).await;
    assert_same(&rest.deliveries, &first.deliveries[1..]);
    let held = Held { epoch: first.epoch, delivery: first.deliveries[1].clone() };
    settled(of.settle(&held, Verdict::Ack(None)).await);
    let new = of.claimed(with("c1", "ann")).await;
    assert_eq!((new.replayed, new.deliveries[0].message.id), (false, sent[4]), "nothing of it is held");
}

pub(super) async fn no_more_are_held_than_may_be_and_none_while_it_is_paused(ground: &Ground) {
    let settings = |settings: &mut GroupSettings| {
        settings.max_in_flight = Some(5);
        settings.per_consumer_max = Some(3);
    };
    let (of, sent) = Of::numbers(ground, 10, settings).await;
    let ann = of.claim("ann", 10).await;
    assert_eq!(ids(&ann), sent[..3]);
    assert!(of.claim("ann", 10).await.is_empty());
    assert_eq!(ids(&of.claim("bob", 10).await), sent[3..5]);
    assert!(of.claim("cid", 10).await.is_empty());
    settled(of.settle(&ann[0], nack(Duration::from_mins(1))).await);
    assert_eq!(ids(&of.claim("cid", 10).await), sent[5..6]);
    let work = &ground.storage.work;
    let known = work.group(&of.topic, &of.group).await.unwrap().settings;
    let next = GroupSettings { paused: true, max_in_flight: None, ..known.clone() };
    let change = GroupChange { known: Some(known), next: next.clone() };
    assert!(work.change_group(&of.topic, &of.group, &change).await.unwrap());
    assert!(!work.change_group(&of.topic, &of.group, &change).await.unwrap(), "it was changed since");
    let claimed = of.claimed(of.ask("dan", 10)).await;
    assert!(claimed.paused && claimed.deliveries.is_empty());
    settled(of.settle(&ann[1], Verdict::Ack(None)).await);
    let change = GroupChange { known: None, next: GroupSettings { paused: false, ..next } };
    assert!(work.change_group(&of.topic, &of.group, &change).await.unwrap());
    assert_eq!(ids(&of.claim("dan", 10).await), sent[6..9]);
}

pub(super) async fn a_seek_makes_all_earlier_deliveries_void(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 4, |_| {}).await;
    let held = of.claim("ann", 3).await;
    settled(of.settle(&held[0], Verdict::Ack(None)).await);
    ground.storage.work.seek(&of.topic, &of.group, GroupStart::Earliest).await.unwrap();
    for verdict in [Verdict::Ack(None), nack(SHORT), Verdict::Extend(None), Verdict::Release] {
        assert_eq!(of.settle(&held[1], verdict).await, Outcome::Refused(Refusal::Void));
    }
    let again = of.claim("bob", 10).await;
    assert_eq!(ids(&again), sent);
    assert_eq!(of.settle(&held[1], Verdict::Ack(None)).await, Outcome::Refused(Refusal::Void));
    settled(of.settle(&again[1], Verdict::Ack(None)).await);
    ground.storage.work.seek(&of.topic, &of.group, GroupStart::Latest).await.unwrap();
    assert!(of.claim("bob", 10).await.is_empty());
    assert_eq!(of.state(sent[3]).await, None, "it lies before the start");
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.done, told.waiting, told.in_flight), (2, Some(0), 0));
    let missing = ground.storage.work.seek(&of.topic, &name("none"), GroupStart::Latest).await;
    assert!(matches!(missing, Err(StorageError::NoGroup)), "{missing:?}");
}

pub(super) async fn messages_that_are_gone_are_passed_over_and_counted(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let messages = [
        message(&topic, json("0")),
        expired(&topic, json("1")),
        message(&topic, json("2")),
        message(&topic, json("3")),
    ];
    let sent = append_all(storage, messages.to_vec()).await;
    let group = name("workers");
    let settings = GroupSettings { ack_wait: Seconds(SHORT), ..group_defaults(&topic, &group) };
    storage.work.put_group(&topic, &group, &settings, GroupStart::Earliest, Existing::Replace).await.unwrap();
    let of = Of { ground, topic: topic.clone(), group: group.clone() };
    let held = of.claim("ann", 3).await;
    assert_eq!(ids(&held), [sent[0], sent[2], sent[3]]);
    assert_eq!(storage.work.group(&topic, &group).await.unwrap().gone, 1);
    storage.messages.remove(&topic, sent[2]).await.unwrap();
    of.lapse(3).await;
    storage.messages.trim(&topic, Trim::Keep(1)).await.unwrap();
    assert_eq!(ids(&of.claim("bob", 3).await), sent[3..]);
    assert_eq!(storage.work.group(&topic, &group).await.unwrap().gone, 3);
    // An answer for what is gone from the topic counts.
    let more = append_numbers_under(POLICY, storage, &topic, 1).await;
    let held = of.claim("cid", 3).await;
    assert_eq!(ids(&held), more);
    storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    settled(of.settle(&held[0], Verdict::Ack(None)).await);
    assert_eq!(storage.work.group(&topic, &group).await.unwrap().done, 1);
}

pub(super) async fn an_expired_lease_is_found_among_many_that_live(ground: &Ground) {
    let (of, sent) = Of::numbers(ground, 3_000, short).await;
    let held = of.claim("ann", 1_000).await;
    for part in held.chunks(100) {
        let part: Vec<&Held> = part.iter().collect();
        for outcome in of.settle_all(&part, &Verdict::Extend(Some(Duration::from_mins(5)))).await {
            settled(outcome);
        }
    }
    let one = of.claim("ann", 1).await;
    of.lapse(1).await;
    assert_eq!(ids(&of.claim("bob", 1).await), ids(&one));
    assert_eq!(one[0].id(), sent[1_000]);
}

pub(super) async fn what_weighs_much_comes_in_several_claims(ground: &Ground) {
    let (topic, group) = (ground.topic(), name("workers"));
    let large = format!("\"{}\"", "x".repeat(300_000));
    let sent = append_all(&ground.storage, vec![message(&topic, json(large)); 20]).await;
    let settings = group_defaults(&topic, &group);
    ground
        .storage
        .work
        .put_group(&topic, &group, &settings, GroupStart::Earliest, Existing::Replace)
        .await
        .unwrap();
    let of = Of { ground, topic, group };
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let claimed = of.claimed(Claim { bytes_max: 500_000, ..of.ask("ann", 100) }).await;
        // What was asked for in one step with the last that had room may come as well.
        assert!((1..=9).contains(&claimed.deliveries.len()), "{}", claimed.deliveries.len());
        got.extend(claimed.deliveries.iter().map(|delivery| delivery.message.id));
    }
    assert_eq!(got, sent);
}

pub(super) async fn a_sweep_tells_what_groups_have_and_where_messages_are_dying(ground: &Ground) {
    let swept = async || {
        let since = Instant::now();
        loop {
            // One of several nodes sweeps at a time.
            let swept = ground.storage.upkeep.sweep().await.expect("a sweep");
            if swept.topics > 0 {
                return swept;
            }
            assert!(since.elapsed() < SOON, "it never sweeps");
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (of, ids) = Of::numbers(ground, 3, |_| {}).await;
    let expected = (of.topic.clone(), of.group.clone());
    let told = async || {
        let swept = swept().await;
        let GroupsSwept { waiting, pending, dead, oldest, unattended } =
            swept.found.expect("it has swept").groups;
        ((waiting, pending, dead), oldest, unattended, swept.dying.contains(&expected))
    };
    assert_eq!(told().await, ((3, 0, 0), Some(ids[0]), 1, false), "nobody has asked");
    let held = of.claim("a", 2).await;
    assert_eq!(told().await, ((1, 2, 0), Some(ids[0]), 0, false));
    of.settle(&held[0], Verdict::Ack(None)).await;
    of.settle(&held[1], Verdict::Reject("bad".into())).await;
    let ((waiting, pending, dead), _, unattended, is_dying) = told().await;
    assert_eq!((waiting, pending, dead, unattended, is_dying), (1, 0, 1, 0, true));
    of.bury().await;
    assert_eq!(told().await, ((1, 0, 1), Some(ids[2]), 0, false));
    let held = of.claim("a", 2).await;
    of.settle(&held[0], Verdict::Ack(None)).await;
    assert_eq!(told().await, ((0, 0, 1), None, 0, false));
}

pub(super) async fn what_the_groups_of_several_topics_have_is_told_at_once(ground: &Ground) {
    let work = &ground.storage.work;
    // As many that several steps are needed, where there are steps.
    let topics: Vec<TopicName> = (0..130).map(|_| ground.topic()).collect();
    let [first, bare, last] = [&topics[3], &topics[70], &topics[129]];
    for topic in [first, bare, last] {
        append_all(&ground.storage, vec![message(topic, json("1"))]).await;
    }
    for (topic, group) in [(last, "b"), (last, "a"), (first, "c")] {
        let (group, existing) = (name(group), Existing::Replace);
        let settings = group_defaults(topic, &group);
        let put = work.put_group(topic, &group, &settings, GroupStart::Earliest, existing).await;
        assert!(put.expect("it is made"));
    }
    let of = Of { ground, topic: last.clone(), group: name("a") };
    assert_eq!(of.claim("c", 1).await.len(), 1);
    let told = work.grouped(&topics).await.expect("it is told");
    let told: Vec<_> = told
        .iter()
        .map(|(topic, group, has)| (topic, group.as_str(), (has.waiting, has.pending, has.unattended)))
        .collect();
    assert_eq!(told, [(first, "c", (1, 0, 1)), (last, "a", (0, 1, 0)), (last, "b", (1, 0, 1))]);
    assert_eq!(work.grouped(&[]).await.expect("it is told"), []);
}

pub(super) async fn what_is_dying_can_be_brought_back_or_forgotten(ground: &Ground) {
    let (of, ids) = Of::numbers(ground, 3, |_| {}).await;
    let work = &ground.storage.work;
    for held in of.claim("a", 3).await {
        of.settle(&held, Verdict::Reject("bad".into())).await;
    }
    let revive = async |id, wait| {
        let revived = work.revive(&of.topic, &of.group, &[(id, Duration::ZERO)], wait).await;
        revived.expect("it is answered")[0]
    };
    assert_eq!(revive(ids[0], true).await, Revived::Waits);
    assert_eq!(revive(ids[1], false).await, Revived::Gone);
    assert_eq!(
        (revive(ids[0], true).await, revive(ids[1], true).await),
        (Revived::Unknown, Revived::Unknown)
    );
    // No letter is written of them.
    let dying = work.dying(&of.topic, &of.group, 10).await.expect("they are told");
    assert_eq!(dying.iter().map(|dying| dying.id).collect::<Vec<_>>(), [ids[2]]);
    let again = of.claim("a", 3).await;
    assert_eq!(again.iter().map(|held| held.delivery.message.id).collect::<Vec<_>>(), [ids[0]]);
    of.settle(&again[0], Verdict::Ack(None)).await;
    of.bury().await;
    let detail = work.group(&of.topic, &of.group).await.expect("it is told");
    assert_eq!((detail.done, detail.dead, detail.in_flight, detail.waiting), (1, 1, 0, Some(0)));
    assert!(detail.exact);
}

pub(super) async fn it_is_told_why_a_message_waits(ground: &Ground) {
    let of = Of::latest(ground, |settings| {
        settings.ordering = Ordering::ByKey;
        settings.ack_wait = Seconds(SHORT);
        settings.backoff = vec![Seconds(Duration::from_mins(10))];
    })
    .await;
    let work = &ground.storage.work;
    let detail = async || work.group(&of.topic, &of.group).await.expect("it is told");
    assert_eq!(detail().await.last_claim, None);
    let keyed = || message(&of.topic, Body { order_key: OrderKey::parse("k").ok(), ..json("1") });
    let ids = append_all(&ground.storage, vec![keyed(), keyed(), message(&of.topic, json("1"))]).await;
    let fate =
        async |id| work.fate(&of.topic, &of.group, id).await.expect("it is told").expect("it is known");
    let before = ground.clock.now();
    let held = of.claim("a", 1).await;
    let last = detail().await.last_claim.expect("somebody has asked");
    assert!(before <= last && last <= ground.clock.now(), "{before} {last}");
    assert_eq!(
        (fate(ids[0]).await.behind, fate(ids[1]).await.behind),
        (None, Some(ids[0])),
        "not come to yet"
    );
    // Two consumers are lost with it, one says that it has failed.
    of.lapse(1).await;
    assert_eq!(fate(ids[0]).await.crashes, Some(1));
    let again = of.claim("b", 2).await;
    assert_eq!(again.iter().map(|held| held.delivery.message.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert_eq!(of.settle(&held[0], Verdict::Ack(None)).await, Outcome::Refused(Refusal::DeliveredAgain));
    of.settle(&again[0], Verdict::Nack(None, Some("e".into()))).await;
    let told = fate(ids[0]).await;
    assert_eq!((told.state, told.failures, told.crashes), (MessageStateName::Backoff, Some(1), Some(1)));
    let told = fate(ids[1]).await;
    assert_eq!((told.state, told.behind, told.failures), (MessageStateName::Waiting, Some(ids[0]), None));
    assert_eq!(fate(ids[2]).await.behind, None);
}
