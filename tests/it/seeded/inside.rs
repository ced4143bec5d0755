//! The room of the relay itself: publishing, reading and changes without any transport, and a client that
//! takes what it can from an outlet.

use std::sync::Arc;
use std::time::Duration;

use tidemill::proto::sessions::SessionKind;
use tidemill::proto::{Cursor, Since, TopicName};
use tidemill::relay::{
    Absent, Answered, Draft, Failure, IdempotencyKey, Item, JsonText, Outlet, Payload, SharedBatch,
    TakeLimit, TrimTo,
};
use tidemill::storage::TopicPolicy;
use tokio::time::sleep;

use super::publishers::{Outcome, Sent};
use super::readers::{From, Reading};
use crate::live::Live;
use crate::support::dice::Dice;
use crate::support::faulty::Faulty;
use crate::support::ws::Got;

/// A relay whose feeds end with it.
pub(super) struct Inside(Live);

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Inside").field(&self.0.relay).finish()
    }
}

impl Inside {
    pub(super) fn on(faulty: &Arc<Faulty>, policy: TopicPolicy) -> Self {
        Self(Live::under(policy, &faulty.storage()))
    }

    pub(super) async fn publish(&self, batch: &[Sent]) -> Vec<Outcome> {
        let draft = |sent: &Sent| {
            let text = sent.payload.clone().into();
            let payload = Payload::Json(JsonText::parse(&text, &text).expect("JSON"), None);
            let key = sent.key.as_deref().map(|key| IdempotencyKey::parse("key", key.as_bytes()));
            let key = key.transpose().expect("a key");
            Draft {
                trace: None,
                durability: None,
                topic: sent.topic.clone(),
                payload,
                metadata: None,
                ttl: None,
                key,
                delivery: None,
                expected_last: None,
                order_key: None,
                unique: None,
                fence: None,
            }
        };
        let mut checked = Vec::new();
        for draft in batch.iter().map(draft) {
            let message = self.0.relay.check(draft).await.expect("it keeps every rule");
            checked.push(self.0.relay.admit(message).await.expect("nothing is limited"));
        }
        let results = self.0.relay.publish_all(checked).await;
        let outcome = |result: Result<_, Failure>| match result {
            Ok(Answered::Published(appended, _)) => {
                Outcome::Kept { id: appended.id, replayed: appended.replayed }
            }
            Ok(Answered::Scheduled(_)) => panic!("nothing is for later"),
            Err(failure) => Outcome::of(failure.code()),
        };
        results.into_iter().map(outcome).collect()
    }

    pub(super) async fn trim(&self, topic: &TopicName, keep: u64) {
        may_fail(self.0.relay.trim_topic(topic, TrimTo::Newest(keep)).await);
    }

    pub(super) async fn delete(&self, topic: &TopicName) {
        may_fail(self.0.relay.delete_topic(topic).await);
    }

    pub(super) async fn look_at(&self, topic: &TopicName) {
        may_fail(self.0.relay.describe_topic(topic).await);
    }

    /// Attaches a reader, and reads until it leaves or has all.
    pub(super) async fn attach(&self, reading: &mut Reading, dice: &mut Dice) {
        let mut reader = self.0.relay.live_reader::<Basket>(SessionKind::Stream);
        let since = match reading.place() {
            From::Earliest => Since::Cursor(Cursor::Earliest),
            From::Latest => Since::Cursor(Cursor::Latest),
            From::After(id) => Since::Cursor(Cursor::After(id)),
        };
        let absent = if dice.roll(3) == 0 { Absent::Await } else { Absent::Refuse };
        if may_fail(reader.add(&reading.topic, since, absent).await).is_none() {
            return;
        }
        let mut basket = Basket { got: Vec::new(), taken: 0, is_busy: false, dice: dice.of(1) };
        loop {
            // By what it has got, not by how often it was woken: that is left to chance.
            let mut dice = basket.dice.of(basket.taken);
            if basket.is_busy {
                sleep(dice.up_to_ms(10)).await;
                basket.is_busy = false;
            }
            let budget =
                TakeLimit { items: 1 + usize::try_from(dice.roll(20)).expect("a count"), bytes: 1 << 20 };
            let items = reader.take(budget);
            if items.is_empty() {
                (basket, _) = reader.idle(basket, sleep(Duration::from_millis(1 + dice.roll(200)))).await;
            } else {
                basket.put(&items);
            }
            for got in basket.got.drain(..) {
                if reading.take(got) {
                    return;
                }
            }
        }
    }
}

/// Returns what came of it; a failure must be one that the storage may cause.
fn may_fail<T>(result: Result<T, Failure>) -> Option<T> {
    result.map_err(|failure| assert!(matches!(failure.problem().status, 404 | 503 | 504), "{failure:?}")).ok()
}

/// A client that does not always take everything at once.
#[derive(Debug)]
struct Basket {
    got: Vec<Got>,
    /// How much it has got, in all.
    taken: u64,
    is_busy: bool,
    dice: Dice,
}

impl Basket {
    fn put(&mut self, items: &[Item]) {
        self.taken += items.len() as u64;
        self.got.extend(items.iter().map(|item| match item {
            Item::Message(message) => {
                let stored = message.stored();
                Got::Message(stored.id, stored.body.payload.to_vec())
            }
            Item::Closed(_) => panic!("nothing has ended"),
            Item::Bookmark(..) => panic!("no pattern is read"),
            Item::Gap(gap) => Got::Gap(gap.reason.as_str().to_owned()),
        }));
    }
}

impl Outlet for Basket {
    fn is_free(&self) -> bool {
        !self.is_busy
    }

    fn takes(&self, batch: &SharedBatch) -> bool {
        self.is_free() && batch.len_bytes() <= 1 << 16
    }

    fn deliver(&mut self, batch: &SharedBatch) {
        self.put(batch.items());
        self.is_busy = self.dice.of(self.taken).roll(4) == 0;
    }
}
