//! Publishing: the rules of a message, and the way to storage.

use std::time::Duration;

use tidemill_proto::duration::WholeSecondsError;
use tidemill_proto::limits::{IDEMPOTENCY_KEY_BYTES_MAX, METADATA_BYTES_MAX, TTL_SECONDS_MAX};
use tidemill_proto::locks::Fence;
use tidemill_proto::work::GroupName;
use tidemill_proto::{
    Delivery, Durability, DurabilityTold, MessageId, OrderKey, Problem, Timestamp, TopicName, duration,
};

use super::fingerprint::fingerprint;
use super::payload::{BytesRule, Payload, check_readable};
use super::{Appended, Failure, Gate, JsonText, Scheduled, Trace};
use crate::access::Verb;
use crate::features::Feature;
use crate::storage::{Body, Idempotency, NewMessage, NewSchedule, Pledge, StorageError, Unique};

pub(crate) use traced::{begin_published, end_published};

mod traced;

/// A message as a publisher sent it: its parts are well-formed, the rules are not yet checked.
#[derive(Debug)]
pub struct Draft {
    /// The topic.
    pub topic: TopicName,
    /// The payload.
    pub payload: Payload,
    /// The publisher's own JSON object.
    pub metadata: Option<JsonText>,
    /// How long the message is served.
    pub ttl: Option<TimeToLive>,
    /// Makes repeats return the first answer.
    pub key: Option<IdempotencyKey>,
    /// When it is published; `None` for now.
    pub delivery: Option<Delivery>,
    /// The message that must be the last of the topic.
    pub expected_last: Option<MessageId>,
    /// Of messages of one key, a group that asks for it gives out one at a time.
    pub order_key: Option<OrderKey>,
    /// The key of which one message at a time may wait or be worked on in a group.
    pub unique: Option<UniqueKey>,
    /// What shows that the publisher holds a lock.
    pub fence: Option<Fence>,
    /// How durable it must be before its publisher is answered; `None` for what is set for its topic.
    pub durability: Option<Durability>,
    /// The trace of the request, for metadata without one.
    pub trace: Option<Box<Trace>>,
}

/// A group, and a key of which one message at a time may wait or be worked on in it: as an [`IdempotencyKey`], 1 to
/// [`IDEMPOTENCY_KEY_BYTES_MAX`] visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey(Unique);

impl UniqueKey {
    /// Parses both; `field` is what the publisher called them.
    ///
    /// # Errors
    /// The group's name or the key is none.
    pub fn parse(field: &str, group: &str, key: &[u8]) -> Result<Self, Failure> {
        let group = GroupName::parse(group)
            .map_err(|error| Problem::field(field, format_args!("has a group that {error}")))?;
        let IdempotencyKey(key) = IdempotencyKey::parse(&format!("{field}.key"), key)?;
        Ok(Self(Unique { group, key }))
    }

    /// Returns that of the message at `index` of a request that has this one as a whole.
    #[must_use]
    pub fn derive(&self, index: usize) -> Self {
        let Unique { group, key } = &self.0;
        Self(Unique { group: group.clone(), key: format!("{key}/{index}").into() })
    }
}

/// Parses the id of the message that must be the last of a topic, `0-0` for none; `field` is what the publisher
/// called it.
///
/// # Errors
/// The text is no message id.
pub fn parse_last(field: &str, text: &str) -> Result<MessageId, Failure> {
    MessageId::parse(text).map_err(|error| {
        Problem::field(field, format_args!("{error}; `0-0` is for a topic without messages")).into()
    })
}

/// Parses an order key; `field` is what the publisher called it.
///
/// # Errors
/// It is none.
pub fn parse_order_key(field: &str, bytes: &[u8]) -> Result<OrderKey, Failure> {
    OrderKey::parse_bytes(bytes).map_err(|error| Problem::field(field, error).into())
}

/// Parses a durability; `field` is what the publisher called it.
///
/// # Errors
/// It is none.
pub fn parse_durability(field: &str, text: &str) -> Result<Durability, Failure> {
    Durability::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// How long a message is served, in seconds: 1 to [`TTL_SECONDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive(u64);

impl TimeToLive {
    /// Returns how long that is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// Parses a duration of whole seconds.
    ///
    /// # Errors
    /// The text is none, or it is out of bounds.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        Self::read(duration::whole_seconds(text, TTL_SECONDS_MAX))
    }

    /// Parses a duration of whole seconds as JSON.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_json(json: &str) -> Result<Self, Failure> {
        Self::read(duration::whole_seconds_json(json, TTL_SECONDS_MAX))
    }

    /// Takes a number of seconds.
    ///
    /// # Errors
    /// It is out of bounds.
    pub fn of_seconds(seconds: u64) -> Result<Self, Failure> {
        let is_within = (1..=TTL_SECONDS_MAX).contains(&seconds);
        Self::read(is_within.then_some(seconds).ok_or(WholeSecondsError { max: TTL_SECONDS_MAX }))
    }

    fn read(seconds: Result<u64, WholeSecondsError>) -> Result<Self, Failure> {
        seconds.map(Self).map_err(|error| Problem::field("ttl", error).into())
    }
}

/// An idempotency key: 1 to [`IDEMPOTENCY_KEY_BYTES_MAX`] visible ASCII characters, with room for the
/// index of a message in its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub(super) Box<str>);

impl IdempotencyKey {
    /// Parses a key; `field` is what the publisher called it.
    ///
    /// # Errors
    /// The text is empty, too long, or has other characters.
    pub fn parse(field: &str, text: &[u8]) -> Result<Self, Failure> {
        let allowed =
            (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(text) {
            Ok(text) if allowed => Ok(Self(text.into())),
            _ => Err(Problem::field(
                field,
                format_args!("must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"),
            )
            .into()),
        }
    }

    /// Returns the text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key of the message at `index` of a request that has this key as a whole.
    #[must_use]
    pub fn derive(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0).into())
    }
}

/// A message that keeps every rule, of a caller that may publish it.
#[derive(Debug)]
pub struct Checked {
    message: NewMessage,
    /// When it is published, if that is not now, and how long it is then served.
    later: Option<(Delivery, Option<Duration>)>,
    durability: Durability,
}

impl Checked {
    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.message.topic
    }

    /// Returns the bytes of payload, content type and metadata.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.message.body.len_bytes()
    }

    /// Returns whether it is to be published later.
    #[must_use]
    pub const fn is_for_later(&self) -> bool {
        self.later.is_some()
    }
}

/// What became of a publish.
#[derive(Clone, Debug)]
pub enum Answered {
    /// The message is kept; how durable it is, where more was asked for than that the storage has confirmed it.
    Published(Appended, Option<DurabilityTold>),
    /// The message will be published.
    Scheduled(Scheduled),
}

impl Answered {
    /// Returns whether the idempotency key had been used, so that this is the first answer again.
    #[must_use]
    pub const fn is_replayed(&self) -> bool {
        match self {
            Self::Published(appended, _) => appended.replayed,
            Self::Scheduled(scheduled) => scheduled.replayed,
        }
    }
}

/// A message that keeps every rule and is within the limits of its caller.
#[derive(Debug)]
pub struct Admitted(Checked, Option<Pledge>);

impl Admitted {
    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        self.0.topic()
    }

    /// Returns the bytes of payload, content type and metadata.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes()
    }
}

impl Gate {
    /// Checks a message against every rule. It waits, and asks the storage, only where a user may publish to the
    /// topic if it is its own.
    ///
    /// # Errors
    /// The caller may not publish to the topic; or the message breaks a rule: the problem names the field.
    pub async fn check(&self, draft: Draft) -> Result<Checked, Failure> {
        self.check_topic(Verb::Publish, &draft.topic).await?;
        let relay = self.relay();
        let now = relay.clock.now();
        let rule = BytesRule::of_payload(relay.options.payload_bytes_max);
        let (payload, content_type) = draft.payload.check(rule)?;
        if let Some(metadata) = &draft.metadata {
            check_metadata(metadata)?;
        }
        let metadata = draft.metadata.map(JsonText::into_bytes);
        let mut body = Body { payload, content_type, metadata, order_key: draft.order_key };
        let ttl_seconds = draft.ttl.map(|ttl| ttl.0);
        let later = match draft.delivery {
            None => None,
            Some(_) if draft.expected_last.is_some() => {
                let rule =
                    "cannot stand beside `delay` and `deliver_at`: what is the last by then is not known";
                return Err(Problem::field("expected_last", rule).into());
            }
            Some(delivery) => {
                self.check_delivery(delivery)?;
                Some((delivery, draft.ttl.map(TimeToLive::duration)))
            }
        };
        let durability = match draft.durability {
            Some(_) if later.is_some() => {
                let rule = "cannot stand beside `delay` and `deliver_at`: what waits for later is kept as the storage confirms it";
                return Err(Problem::field("durability", rule).into());
            }
            Some(asked) => asked,
            None if later.is_some() => Durability::ACCEPTED,
            None => relay.options.durability.of(&draft.topic),
        };
        if let Some(fence) = &draft.fence {
            self.check_fence_of_message(fence, later.is_some(), draft.unique.is_some())?;
        }
        let unique = match draft.unique {
            Some(_) if later.is_some() => {
                let rule = "cannot stand beside `delay` and `deliver_at`: what waits for later waits in no group yet";
                return Err(Problem::field("unique", rule).into());
            }
            Some(_) if !relay.options.features.has(Feature::Groups) => {
                let rule = "is switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `groups`)";
                return Err(Problem::field("unique", rule).into());
            }
            unique => unique.map(|unique| unique.0),
        };
        let idempotency = draft.key.map(|key| Idempotency {
            key: key.0,
            fingerprint: fingerprint(&draft.topic, &body, ttl_seconds, draft.delivery, unique.as_ref()),
        });
        // Behind the fingerprint: it is the same message in whichever span it is sent again.
        if let Some(trace) = &draft.trace {
            body.metadata = trace.note(body.metadata.take());
        }
        let message = NewMessage {
            topic: draft.topic,
            body,
            timestamp: now,
            expires_at: ttl_seconds.filter(|_| later.is_none()).map(|seconds| expiry(now, seconds)),
            idempotency,
            expected_last: draft.expected_last,
            unique,
            fence: draft.fence,
            create_topic: relay.options.topic_auto_create,
            owner: self.caller().owner().map(Into::into),
            policy: relay.options.policy,
        };
        Ok(Checked { message, later, durability })
    }

    /// Counts a message among what its caller may publish, and its topic among those that it may make, where it is
    /// new. It waits only where the storage has to be asked what is left, whether the topic is there, or how durable the
    /// message can be.
    ///
    /// # Errors
    /// The storage cannot make the message as durable as was asked: `durability_unsupported`, or now: `too_few_replicas`
    /// (but where a message was kept under its key, which is found again then);
    /// the caller has published too much, or made too many topics: `rate_limited`; or its topic keeps as many bytes as it
    /// may, with others: `storage_full`.
    pub async fn admit(&self, message: Checked) -> Result<Admitted, Failure> {
        self.relay().kept.check(message.topic())?;
        self.meter().message().await?;
        if message.message.create_topic && self.meter().counts_topics() {
            self.admit_topic(message.topic()).await?;
        }
        let pledge = if message.durability.is_accepted() {
            None
        } else {
            let (topic, key) = (message.topic(), message.message.idempotency.as_ref());
            let pledge = self.relay().storage.durable.pledge(topic, message.durability, key).await;
            Some(pledge.map_err(|error| Failure::publish(error, key.is_some(), topic))?)
        };
        Ok(Admitted(message, pledge))
    }

    /// Counts a topic that is about to be made, if it is not there.
    pub(super) async fn admit_topic(&self, topic: &TopicName) -> Result<(), Failure> {
        let relay = self.relay();
        if relay.known.is_new(&relay.storage, topic).await? {
            self.meter().topic().await?;
            // Messages behind this one make no other.
            relay.known.note(topic);
        }
        Ok(())
    }

    /// Counts a recurring message as one that is published, and returns it.
    pub(super) async fn admit_recurring(&self, message: Checked) -> Result<NewMessage, Failure> {
        let Admitted(checked, _) = self.admit(message).await?;
        Ok(checked.message)
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// The storage refused it or did not answer; an unknown outcome is told as such.
    ///
    /// # Panics
    /// The backend breaks its contract.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the message may have been kept.
    pub async fn publish(&self, Admitted(message, pledge): Admitted) -> Result<Answered, Failure> {
        let Checked { message, later, .. } = message;
        let topic = message.topic.clone();
        let keyed = message.idempotency.is_some();
        let result = match later {
            None => {
                let results = self.relay().storage.messages.append(vec![message]).await;
                results
                    .into_iter()
                    .next()
                    .expect("an append answers for each message")
                    .map(|appended| Answered::Published(appended, None))
            }
            Some((delivery, ttl)) => {
                let results = self.schedule(vec![NewSchedule { message, delivery, ttl }]).await;
                results
                    .into_iter()
                    .next()
                    .expect("there is an answer for each message")
                    .map(Answered::Scheduled)
            }
        };
        let mut result = [result.map_err(|error| Failure::publish(error, keyed, &topic))];
        if let Some(pledge) = pledge {
            self.reach(&mut result, vec![(0, keyed, pledge)]).await;
        }
        let [result] = result;
        traced::note_published(&topic, &result);
        result
    }

    /// Waits until those of messages with pledges, each with its place, are as durable as was asked, and says that of them;
    /// what is not in time is a failure.
    async fn reach(&self, results: &mut [Result<Answered, Failure>], pledges: Vec<(usize, bool, Pledge)>) {
        let (mut kept, mut asked) = (Vec::with_capacity(pledges.len()), Vec::with_capacity(pledges.len()));
        for (place, keyed, pledge) in pledges {
            if results[place].is_ok() {
                kept.push((place, keyed));
                asked.push(pledge);
            }
        }
        let reached = self.relay().storage.durable.reach(&asked).await;
        for (((place, keyed), pledge), reached) in kept.into_iter().zip(asked).zip(reached) {
            let Ok(Answered::Published(appended, told)) = &mut results[place] else { continue };
            let durability = DurabilityTold { asked: pledge.asked, reached };
            if durability.is_reached() {
                *told = Some(durability);
            } else {
                results[place] = Err(Failure::not_reached(appended.id, durability, keyed));
            }
        }
    }

    /// Publishes messages, in this order, and returns a result for each. Each succeeds or fails alone.
    ///
    /// # Panics
    /// The backend breaks its contract.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, any of the messages may have been kept.
    pub async fn publish_all(&self, messages: Vec<Admitted>) -> Vec<Result<Answered, Failure>> {
        let asked: Vec<_> = messages
            .iter()
            .map(|Admitted(Checked { message, later, .. }, _)| {
                (message.topic.clone(), message.idempotency.is_some(), later.is_some())
            })
            .collect();
        let (mut now, mut later) = (Vec::with_capacity(messages.len()), Vec::new());
        let mut pledges = Vec::new();
        for (place, Admitted(checked, pledge)) in messages.into_iter().enumerate() {
            let keyed = checked.message.idempotency.is_some();
            pledges.extend(pledge.map(|pledge| (place, keyed, pledge)));
            match checked.later {
                None => now.push(checked.message),
                Some((delivery, ttl)) => {
                    later.push(NewSchedule { message: checked.message, delivery, ttl });
                }
            }
        }
        let (for_now, for_later) = (now.len(), later.len());
        let append = self.relay().storage.messages.append(now);
        let (published, waiting) = if later.is_empty() {
            (append.await, Vec::new())
        } else {
            futures_util::future::join(append, self.schedule(later)).await
        };
        assert_eq!((published.len(), waiting.len()), (for_now, for_later), "there is an answer for each");
        let (mut published, mut waiting) = (published.into_iter(), waiting.into_iter());
        let explain = |(topic, keyed, is_for_later): (TopicName, bool, bool)| {
            let result: Option<Result<Answered, StorageError>> = if is_for_later {
                waiting.next().map(|result| result.map(Answered::Scheduled))
            } else {
                published.next().map(|result| result.map(|appended| Answered::Published(appended, None)))
            };
            let result = result.expect("there are as many as were asked");
            result.map_err(|error| Failure::publish(error, keyed, &topic))
        };
        let mut results: Vec<_> = asked.into_iter().map(explain).collect();
        if !pledges.is_empty() {
            self.reach(&mut results, pledges).await;
        }
        traced::note_all(&results);
        results
    }
}

fn expiry(now: Timestamp, ttl_seconds: u64) -> Timestamp {
    now.saturating_add(Duration::from_secs(ttl_seconds))
}

fn check_metadata(metadata: &JsonText) -> Result<(), Failure> {
    if !metadata.is_object() {
        return Err(Problem::field("metadata", "must be a JSON object").into());
    }
    let len = metadata.as_bytes().len();
    if len > METADATA_BYTES_MAX {
        return Err(Problem::field(
            "metadata",
            format_args!("has {len} bytes; metadata has at most {METADATA_BYTES_MAX}"),
        )
        .into());
    }
    check_readable("metadata", metadata)
}
