//! Whatever consumers do: no message of a group is lost, and none is with two.
//!
//! A model of what each message may be stands beside the backend; what is done to both is by chance.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidemill::proto::duration::Seconds;
use tidemill::proto::work::{ConsumerName, GroupName, GroupSettings, MessageStateName, Ordering};
use tidemill::proto::{MessageId, OrderKey, TopicName};
use tidemill::storage::{
    Body, Claim, DeadLetter, Existing, GroupStart, Outcome, Refusal, Settlement, Storage, StorageError,
    Verdict, group_defaults,
};
use tokio::time::{Instant, sleep};

use crate::support::dice::{Dice, seeds};
use crate::support::ground::{Ground, LIMITS, SOON, append_all, append_numbers, json, message};
use crate::support::length;

/// The time that consumers have: short enough to be over now and then.
const ACK_WAIT: Duration = Duration::from_millis(120);
/// Consumers.
const CONSUMERS: u64 = 5;

/// A message in the model.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The newest delivery.
    delivery: u64,
    /// How it ended.
    end: Option<MessageStateName>,
    /// Its order key.
    key: Option<OrderKey>,
}

/// A delivery that a consumer of the model has, or thinks that it has.
#[derive(Clone, Debug)]
struct Held {
    epoch: u64,
    id: MessageId,
    delivery: u64,
}

struct Model<'a> {
    ground: &'a Ground,
    topic: TopicName,
    group: GroupName,
    /// Nodes of one storage.
    nodes: Vec<Storage>,
    dice: Dice,
    messages: BTreeMap<MessageId, Known>,
    held: HashMap<u64, Vec<Held>>,
    /// Whether one message of a key is given out at a time.
    is_ordered: bool,
    /// Steps, for whoever looks at a failure.
    steps: Vec<String>,
}

pub(super) async fn whatever_consumers_do_no_message_is_lost_or_with_two(ground: &Ground) {
    let mut nodes = vec![ground.storage.clone()];
    if ground.has_server() {
        nodes.push(ground.under(LIMITS).await);
    }
    let orderings = [Ordering::None, Ordering::ByKey];
    let runs = seeds(length::pick(3, 300)).flat_map(|seed| orderings.map(|ordering| (seed, ordering)));
    for (seed, ordering) in runs {
        let (topic, group) = (ground.topic(), GroupName::parse("g").expect("a name"));
        append_numbers(&ground.storage, &topic, 1).await;
        let mut dice = Dice::from_seed(seed);
        let bound = |dice: &mut Dice| dice.chance(300).then_some(4);
        let settings = GroupSettings {
            ack_wait: Seconds(ACK_WAIT),
            max_deliveries: 3,
            max_run: dice.chance(300).then_some(Seconds(ACK_WAIT * 2)),
            backoff: vec![Seconds(Duration::from_millis(dice.roll(50)))],
            max_in_flight: bound(&mut dice),
            per_consumer_max: bound(&mut dice),
            ordering,
            ..group_defaults(&topic, &group)
        };
        ground
            .storage
            .work
            .put_group(&topic, &group, &settings, GroupStart::Latest, Existing::Replace)
            .await
            .expect("it is made");
        let model = Model {
            ground,
            topic,
            group,
            nodes: nodes.clone(),
            dice,
            messages: BTreeMap::new(),
            held: HashMap::new(),
            is_ordered: ordering == Ordering::ByKey,
            steps: Vec::new(),
        };
        model.run(length::pick(250, 1_000)).await;
    }
}

impl Model<'_> {
    fn node(&mut self) -> Storage {
        let at = self.dice.roll(self.nodes.len() as u64);
        self.nodes[usize::try_from(at).expect("an index")].clone()
    }

    async fn run(mut self, steps: usize) {
        for _ in 0..steps {
            self.step().await;
        }
        // Everybody is gone: what is left comes back, and is done or dead in the end.
        self.held.clear();
        let since = Instant::now();
        while self.messages.values().any(|known| known.end.is_none()) {
            assert!(since.elapsed() < SOON, "some never end: {:?}\n{:#?}", self.messages, self.steps);
            self.tend().await;
            self.bury().await;
            self.claim(0).await;
            for held in self.held.remove(&0).unwrap_or_default() {
                self.settle(&held, Verdict::Ack(None)).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let told = self.nodes[0].work.group(&self.topic, &self.group).await.expect("it is told");
        let count = |state| self.messages.values().filter(|known| known.end == Some(state)).count() as u64;
        let numbers = (told.done, told.dead, told.in_flight, told.in_backoff, told.waiting);
        let expected = (count(MessageStateName::Done), count(MessageStateName::Dead), 0, 0, Some(0));
        assert_eq!(numbers, expected, "{:#?}", self.steps);
        assert!(told.exact, "{told:?}: {:#?}", self.steps);
    }

    async fn step(&mut self) {
        let consumer = self.dice.roll(CONSUMERS);
        match self.dice.roll(100) {
            0..15 => {
                let count = usize::try_from(1 + self.dice.roll(4)).expect("a few");
                self.publish(count).await;
            }
            15..45 => self.claim(consumer).await,
            45..80 => {
                let held = self.held.entry(consumer).or_default();
                if held.is_empty() {
                    return;
                }
                let at = usize::try_from(self.dice.roll(held.len() as u64)).expect("an index");
                let held = held[at].clone();
                let verdict = match self.dice.roll(10) {
                    0..4 => Verdict::Ack(None),
                    4..6 => Verdict::Nack(self.dice.chance(500).then_some(Duration::ZERO), None),
                    6 => Verdict::Nack(Some(self.dice.up_to_ms(100)), Some("e".into())),
                    7 => Verdict::Extend(self.dice.chance(500).then_some(ACK_WAIT * 2)),
                    8 if self.dice.chance(500) => Verdict::Release,
                    8 => Verdict::Lost { charged: self.dice.chance(500) },
                    _ => Verdict::Reject("r".into()),
                };
                self.settle(&held, verdict).await;
            }
            80..88 => self.tend().await,
            88..92 => self.bury().await,
            92..95 => {
                // It is lost with all that it has.
                self.held.remove(&consumer);
            }
            95..97 => sleep(ACK_WAIT + Duration::from_millis(10)).await,
            97 => self.restart().await,
            _ => self.look().await,
        }
    }

    /// A node is gone with all that it had in mind, and another takes its place.
    async fn restart(&mut self) {
        if self.ground.has_server() {
            let at = usize::try_from(self.dice.roll(self.nodes.len() as u64)).expect("an index");
            self.nodes[at] = self.ground.under(LIMITS).await;
            self.steps.push(format!("node {at} is another"));
        }
    }

    async fn publish(&mut self, count: usize) {
        let node = self.node();
        // Few keys, so that messages of one meet, and none now and then.
        let keys: Vec<_> = (0..count)
            .map(|_| {
                OrderKey::parse(&format!("k{}", self.dice.roll(3))).ok().filter(|_| !self.dice.chance(200))
            })
            .collect();
        let body = |order_key: &Option<OrderKey>| Body { order_key: order_key.clone(), ..json("1") };
        let messages = keys.iter().map(|key| message(&self.topic, body(key))).collect();
        for (id, key) in append_all(&node, messages).await.into_iter().zip(keys) {
            self.steps.push(format!("{id} has key {key:?}"));
            self.messages.insert(id, Known { key, ..Known::default() });
        }
    }

    /// Checks that a message which was given out is the one whose turn it is among those of its key.
    async fn is_in_turn(&self, id: MessageId) {
        let key = &self.messages[&id].key;
        if !self.is_ordered || key.is_none() {
            return;
        }
        let others = self.messages.iter().filter(|(other, known)| **other != id && known.key == *key);
        for (other, known) in others {
            if *other > id {
                assert_eq!(known.delivery, 0, "{other} came before {id}: {:#?}", self.steps);
            } else if known.end.is_none() {
                // It may be dying, which nobody has been told.
                let fate = self.nodes[0].work.fate(&self.topic, &self.group, *other).await;
                let state = fate.expect("it is told").map(|fate| fate.state);
                assert_eq!(state, Some(MessageStateName::Dead), "{other}, {id}: {:#?}", self.steps);
            }
        }
    }

    async fn claim(&mut self, who: u64) {
        let max = usize::try_from(1 + self.dice.roll(6)).expect("a few");
        let claim = Claim {
            topic: self.topic.clone(),
            group: self.group.clone(),
            consumer: ConsumerName::parse(&format!("c{who}")).expect("a name"),
            max,
            bytes_max: usize::MAX >> 1,
            claim_id: None,
        };
        let claimed = self.node().work.claim(vec![claim]).await.pop().expect("a result");
        let claimed = claimed.expect("it is claimed");
        assert!(claimed.deliveries.len() <= max);
        for delivery in claimed.deliveries {
            let id = delivery.message.id;
            self.steps.push(format!("c{who} has {id} ({})", delivery.delivery));
            let known = self.messages.get_mut(&id).unwrap_or_else(|| panic!("{id} was never published"));
            assert_eq!(known.end, None, "{id} was over: {:#?}", self.steps);
            assert_eq!(known.delivery + 1, delivery.delivery, "{id}: {:#?}", self.steps);
            known.delivery = delivery.delivery;
            self.is_in_turn(id).await;
            let held = Held { epoch: claimed.epoch, id, delivery: delivery.delivery };
            self.held.entry(who).or_default().push(held);
        }
    }

    async fn settle(&mut self, held: &Held, verdict: Verdict) {
        let settlement =
            Settlement { epoch: held.epoch, id: held.id, delivery: held.delivery, verdict: verdict.clone() };
        let node = self.node();
        let outcome = node.work.settle(&self.topic, &self.group, vec![settlement]).await;
        let outcome = outcome.expect("it is answered")[0];
        self.steps.push(format!("{} ({}) {verdict:?}: {outcome:?}", held.id, held.delivery));
        let known = self.messages.get_mut(&held.id).expect("it was published");
        match outcome {
            Outcome::Settled { dying, .. } => {
                assert_eq!(known.delivery, held.delivery, "another has it: {:#?}", self.steps);
                assert_eq!(known.end, None, "it was over: {:#?}", self.steps);
                if matches!(verdict, Verdict::Ack(_)) {
                    known.end = Some(MessageStateName::Done);
                }
                assert!(
                    !dying
                        || matches!(
                            verdict,
                            Verdict::Nack(..) | Verdict::Reject(_) | Verdict::Lost { charged: true }
                        )
                );
            }
            Outcome::Refused(Refusal::DeliveredAgain) => {
                assert!(known.delivery > held.delivery, "nobody else has it: {:#?}", self.steps);
            }
            Outcome::Refused(Refusal::SettledBefore | Refusal::MaxRun) => {}
            Outcome::Refused(Refusal::Void) => panic!("nobody has set it: {:#?}", self.steps),
        }
    }

    async fn tend(&mut self) {
        self.node().work.tend(&self.topic, &self.group).await.expect("it is tended");
    }

    /// Buries what is dying, perhaps twice, and not always all of it.
    async fn bury(&mut self) {
        let node = self.node();
        for dying in node.work.dying(&self.topic, &self.group, 10).await.expect("it is told") {
            if self.dice.chance(200) {
                continue;
            }
            let dead = DeadLetter { id: dying.id, letter: Some(MessageId::new(1, 1)) };
            let is_first = node.work.bury(&self.topic, &self.group, dying.epoch, dead).await.expect("noted");
            assert!(is_first);
            self.steps.push(format!("{} is dead: {}", dying.id, dying.reason));
            let known = self.messages.get_mut(&dying.id).expect("it was published");
            assert_eq!(known.end.replace(MessageStateName::Dead), None, "{:#?}", self.steps);
        }
    }

    /// Holds what the backend tells of each message against the model.
    async fn look(&mut self) {
        let node = self.node();
        let told = node.work.group(&self.topic, &self.group).await.expect("it is told");
        assert!(told.exact, "{told:?}: {:#?}", self.steps);
        for (id, known) in &self.messages {
            let fate = match node.work.fate(&self.topic, &self.group, *id).await {
                Ok(fate) => fate.unwrap_or_else(|| panic!("{id} is lost: {:#?}", self.steps)),
                Err(error @ (StorageError::NoGroup | StorageError::NoTopic)) => panic!("{error}"),
                Err(error) => panic!("{error:?}"),
            };
            match known.end {
                Some(end) => assert_eq!(fate.state, end, "{id}: {:#?}", self.steps),
                // It may be dying.
                None => assert_ne!(fate.state, MessageStateName::Done, "{id}: {:#?}", self.steps),
            }
            if let Some(deliveries) = fate.deliveries {
                assert_eq!(deliveries, known.delivery, "{id}: {:#?}", self.steps);
            }
        }
    }
}
