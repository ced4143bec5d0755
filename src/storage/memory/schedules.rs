//! What waits for later in one topic: messages, and recurring ones.
//!
//! It owns their order and their memory. It must not know the topic, nor how much memory all may take.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::{MessageId, RecurringName, ScheduleId, Timestamp};

use crate::storage::{
    Body, DuePlace, NewRecurring, RecurringRule, StoredRecurring, WaitingMessage, WaitingPage, WaitingRange,
};

/// What a body costs beside its bytes: the headers and the rounding of its three allocations.
const BODY_BYTES: usize = 3 * 48;
/// What a message costs beside its body: its slots in two trees whose nodes are half full at worst.
const ONCE_BYTES: usize =
    2 * (size_of::<(MessageId, Once)>() + size_of::<(Timestamp, Member)>()) + BODY_BYTES;
/// The same of a recurring message, beside its texts.
const AGAIN_BYTES: usize =
    2 * (size_of::<(RecurringName, Again)>() + size_of::<(Timestamp, Member)>()) + BODY_BYTES + 4 * 32;
/// What the first of a topic costs besides.
const SCHEDULES_BYTES: usize = size_of::<Schedules>() + 48;

/// What is due. The numbers of messages are in the order in which they were scheduled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Member {
    Once(MessageId),
    Again(RecurringName),
}

/// A message that waits.
#[derive(Debug)]
struct Once {
    due: Timestamp,
    body: Body,
    ttl: Option<Duration>,
}

/// A recurring message.
#[derive(Debug)]
struct Again {
    rule: RecurringRule,
    body: Body,
    ttl: Option<Duration>,
    next: Option<Timestamp>,
}

/// What waits in a topic.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    due: BTreeSet<(Timestamp, Member)>,
    once: BTreeMap<MessageId, Once>,
    again: BTreeMap<RecurringName, Again>,
    bytes: usize,
}

/// Returns the id of a schedule that has this number.
pub(super) fn id_of(number: MessageId) -> ScheduleId {
    ScheduleId::parse(&format!("{:013}-{:06}", number.ms, number.seq)).expect("digits and a dash")
}

/// Returns the number that an id stands for, if it is one of these.
pub(super) fn number_of(id: &ScheduleId) -> Option<MessageId> {
    MessageId::parse(id.as_str()).ok().filter(|number| id_of(*number) == *id)
}

/// Returns a body that keeps nothing alive but itself.
fn copied(body: &Body) -> Body {
    Body {
        payload: Bytes::copy_from_slice(&body.payload),
        content_type: body.content_type.clone(),
        metadata: body.metadata.as_deref().map(Bytes::copy_from_slice),
        order_key: body.order_key.clone(),
    }
}

impl Schedules {
    /// Returns the bytes that they hold.
    pub(super) fn bytes(&self) -> usize {
        SCHEDULES_BYTES + self.bytes
    }

    /// Returns by how much the bytes grow with a message.
    pub(super) fn growth(schedules: Option<&Self>, body: &Body) -> usize {
        let first = if schedules.is_none() { SCHEDULES_BYTES } else { 0 };
        first + ONCE_BYTES + body.len_bytes()
    }

    /// Returns by how much the bytes grow at most with a recurring message.
    pub(super) fn growth_again(schedules: Option<&Self>, new: &NewRecurring) -> usize {
        let first = if schedules.is_none() { SCHEDULES_BYTES } else { 0 };
        first + again_bytes(&new.name, &new.rule, &new.message.body)
    }

    /// Returns how many wait, recurring ones among them.
    pub(super) fn count(&self) -> u64 {
        self.due.len() as u64
    }

    /// Returns how many messages wait, recurring ones apart.
    pub(super) fn count_once(&self) -> u64 {
        self.once.len() as u64
    }

    /// Returns how many recurring messages there are beside the one of this name.
    pub(super) fn others(&self, name: &RecurringName) -> usize {
        self.again.len() - usize::from(self.again.contains_key(name))
    }

    /// Returns when the next is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Keeps a message under a number that comes behind all others.
    pub(super) fn add(&mut self, number: MessageId, due: Timestamp, body: &Body, ttl: Option<Duration>) {
        self.insert(number, Once { due, body: copied(body), ttl });
    }

    fn insert(&mut self, number: MessageId, once: Once) {
        self.bytes += ONCE_BYTES + once.body.len_bytes();
        self.due.insert((once.due, Member::Once(number)));
        self.once.insert(number, once);
    }

    /// Takes a message out.
    pub(super) fn take(&mut self, number: MessageId) -> Option<(Body, Option<Duration>)> {
        let Once { due, body, ttl } = self.once.remove(&number)?;
        self.due.remove(&(due, Member::Once(number)));
        self.bytes -= ONCE_BYTES + body.len_bytes();
        Some((body, ttl))
    }

    /// Puts a message back that was taken out.
    pub(super) fn put_back(&mut self, number: MessageId, due: Timestamp, body: Body, ttl: Option<Duration>) {
        self.insert(number, Once { due, body, ttl });
    }

    /// Returns when a message is due.
    pub(super) fn due_of(&self, number: MessageId) -> Option<Timestamp> {
        self.once.get(&number).map(|once| once.due)
    }

    /// Returns what is due first, if it is due by now.
    pub(super) fn first_due(&self, now: Timestamp) -> Option<(Timestamp, Member)> {
        self.due.first().filter(|(due, _)| *due <= now).cloned()
    }

    /// Returns what a recurring message publishes, and its rule.
    pub(super) fn again(&self, name: &RecurringName) -> Option<(Body, Option<Duration>, RecurringRule)> {
        self.again.get(name).map(|again| (again.body.clone(), again.ttl, again.rule.clone()))
    }

    /// Plants a recurring message at its next time.
    pub(super) fn plant(&mut self, name: &RecurringName, next: Option<Timestamp>) {
        let Some(again) = self.again.get_mut(name) else { return };
        if let Some(due) = again.next {
            self.due.remove(&(due, Member::Again(name.clone())));
        }
        again.next = next;
        if let Some(due) = next {
            self.due.insert((due, Member::Again(name.clone())));
        }
    }

    /// Returns when the recurring message of this name is due next, if it has this rule.
    pub(super) fn next_of(&self, name: &RecurringName, rule: &RecurringRule) -> Option<Timestamp> {
        self.again.get(name).filter(|again| again.rule == *rule).and_then(|again| again.next)
    }

    /// Keeps a recurring message in place of the one of its name.
    pub(super) fn put_again(&mut self, new: &NewRecurring, next: Option<Timestamp>) {
        let NewRecurring { name, rule, message, ttl } = new;
        let (name, rule, body) = (name.clone(), rule.clone(), message.body.clone());
        self.take_over_again(&StoredRecurring { name, rule, body, ttl: *ttl, next });
    }

    /// Keeps a recurring message that was another storage's, in place of the one of its name.
    pub(super) fn take_over_again(&mut self, stored: &StoredRecurring) {
        let StoredRecurring { name, rule, body, ttl, next } = stored;
        self.remove_again(name);
        self.bytes += again_bytes(name, rule, body);
        let again = Again { rule: rule.clone(), body: copied(body), ttl: *ttl, next: None };
        self.again.insert(name.clone(), again);
        self.plant(name, *next);
    }

    /// Removes a recurring message, and returns whether it was there.
    pub(super) fn remove_again(&mut self, name: &RecurringName) -> bool {
        self.plant(name, None);
        let Some(again) = self.again.remove(name) else { return false };
        self.bytes -= again_bytes(name, &again.rule, &again.body);
        true
    }

    /// Returns the recurring messages.
    pub(super) fn all_again(&self) -> Vec<StoredRecurring> {
        let stored = |(name, again): (&RecurringName, &Again)| StoredRecurring {
            name: name.clone(),
            rule: again.rule.clone(),
            body: again.body.clone(),
            ttl: again.ttl,
            next: again.next,
        };
        self.again.iter().map(stored).collect()
    }

    /// Returns a page of the messages that wait.
    pub(super) fn page(&self, range: &WaitingRange) -> WaitingPage {
        let after = match &range.after {
            None => Bound::Unbounded,
            Some(DuePlace { due, id }) => match number_of(id) {
                Some(number) => Bound::Excluded((*due, Member::Once(number))),
                // It is none of these, so wherever it would stand is as good as another place.
                None => Bound::Included((*due, Member::Once(MessageId::MIN))),
            },
        };
        let mut page = WaitingPage::default();
        let mut bytes = 0;
        for (due, member) in self.due.range((after, Bound::Unbounded)) {
            let Member::Once(number) = member else { continue };
            let Some(once) = self.once.get(number) else { continue };
            let is_full = page.messages.len() >= range.limit || bytes > range.bytes_max;
            bytes += once.body.len_bytes();
            if is_full || !page.messages.is_empty() && bytes > range.bytes_max {
                let last = page.messages.last();
                page.next = last.map(|last| DuePlace { due: last.due, id: last.id.clone() });
                break;
            }
            page.messages.push(WaitingMessage {
                id: id_of(*number),
                due: *due,
                body: once.body.clone(),
                ttl: once.ttl,
            });
        }
        page
    }
}

fn again_bytes(name: &RecurringName, rule: &RecurringRule, body: &Body) -> usize {
    let texts = 3 * name.as_str().len() + rule.cron.len() + rule.timezone.len();
    AGAIN_BYTES + texts + body.len_bytes()
}
