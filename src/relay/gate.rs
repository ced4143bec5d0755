//! The gate: the relay as one caller may use it. Every operation on topics is a method of it, in the
//! file of its kind (`publish`, `read`, `topics`), and asks the caller first.
//!
//! It must not know how callers are told apart: `access` does.

use std::sync::Arc;

use tidemill_proto::access::Explained;
use tidemill_proto::sessions::SessionKind;
use tidemill_proto::work::GroupName;
use tidemill_proto::{Problem, TopicName};

use super::live::{LiveReader, Outlet};
use super::owners::Owned;
use super::presence::Presence;
use super::{Failure, Inner, Relay};
use crate::access::{Caller, NamedThing, Opening, Origin, Ruling, Thing, Verb, Who, changed, explained};
use crate::limits::{Asks, Meter, Place};

/// The relay as one caller may use it. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Gate {
    relay: Relay,
    caller: Caller,
    /// What it is counted in.
    meter: Meter,
    origin: Origin,
    /// Its place among what it has open.
    place: Option<Arc<Place>>,
    /// The room in which it is as long as what it opens.
    present: Option<Arc<Presence>>,
}

impl Gate {
    pub(super) fn new(relay: Relay, caller: Caller) -> Self {
        Self { relay, caller, meter: Meter::none(), origin: Origin::default(), place: None, present: None }
    }

    /// Returns the gate for a caller who is counted in these limits.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Returns the gate for a caller who calls from there, which is told of every change.
    #[must_use]
    pub fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Returns the gate for a caller who opens something, which keeps its place.
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Self {
        Self { place: place.map(Arc::new), ..self }
    }

    /// Returns the gate for a caller who is to be in a room as long as what it opens.
    pub(super) fn with_presence(self, presence: Presence) -> Self {
        Self { present: Some(Arc::new(presence)), ..self }
    }

    /// Returns the room in which the caller is to be.
    pub(super) fn presence(&self) -> Option<&Presence> {
        self.present.as_deref()
    }

    /// Returns where the caller calls from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Tells the log what was changed, and by whom, unless everybody is let in: then nobody is anybody.
    pub(super) fn tell(&self, what: &'static str, topic: &TopicName) {
        if *self.caller.who() != Who::Anyone {
            changed!(self.caller.who(), self.origin, "topic changed", change = what, topic = topic.as_str());
        }
    }

    /// Tells the log what was done with a group, as [`tell`](Self::tell) does.
    pub(super) fn tell_group(&self, what: &'static str, topic: &TopicName, group: &GroupName) {
        if *self.caller.who() != Who::Anyone {
            let (topic, group) = (topic.as_str(), group.as_str());
            changed!(self.caller.who(), self.origin, "group changed", change = what, topic, group);
        }
    }

    /// Counts a request, or a frame that is one.
    ///
    /// # Errors
    /// There are too many.
    pub async fn admit_request(&self, asks: Asks) -> Result<(), Failure> {
        Ok(self.meter.request(asks).await?)
    }

    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns who calls.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Opens a session of this caller: a live reader of nothing yet.
    #[must_use]
    pub fn live_reader<O: Outlet>(&self, kind: SessionKind) -> LiveReader<O> {
        let relay = self.relay();
        let opening = Opening { kind, address: self.origin.address(), since: relay.clock.now() };
        let session = relay.sessions.open(&self.caller, opening);
        let session = match (&self.place, &self.present) {
            (None, None) => session,
            (place, present) => session.keeping(Arc::new((place.clone(), present.clone()))),
        };
        LiveReader::new(relay.feeds.clone(), session)
    }

    /// Checks that the caller may administer the relay.
    ///
    /// # Errors
    /// It may not.
    pub fn check_admin(&self) -> Result<(), Failure> {
        self.check_relay(Verb::Admin)
    }

    /// Checks that there may be a topic with which the caller may do this: asked before a body is read, so that nobody
    /// makes the relay read and decode what nothing can come of.
    ///
    /// # Errors
    /// There can be none.
    pub fn check_some_topic(&self, verb: Verb) -> Result<(), Failure> {
        Ok(self.caller.check_some_topic(verb)?)
    }

    /// Says what decides whether the caller may do this with a topic, or with what is no topic, as rules name it;
    /// `admin` is about the relay as a whole, whatever is named.
    ///
    /// # Errors
    /// Something has to be named, what is named is nothing of the kind, or the storage did not tell who owns a topic.
    pub async fn explain(&self, verb: Verb, named: Option<&str>) -> Result<Explained, Failure> {
        const FIELD: &str = "topic";
        if verb == Verb::Admin {
            return Ok(explained(&self.caller, verb, Thing::Relay, false));
        }
        let named =
            named.ok_or_else(|| Problem::field(FIELD, "is missing: only `admin` is about no topic"))?;
        if NamedThing::is_meant(named) {
            let thing = NamedThing::parse(FIELD, named)?;
            return Ok(explained(&self.caller, verb, thing.thing(), false));
        }
        let topic = &TopicName::parse(named).map_err(|error| Problem::field(FIELD, error))?;
        let thing = Thing::Topic(topic);
        let is_owner = match self.caller.rule_on(verb, thing) {
            Ruling::Unsaid => self.relay().feeds.owned(self.caller.owner(), topic).await? == Owned::Yes,
            Ruling::Open | Ruling::Allowed(_) | Ruling::Denied(_) | Ruling::BeyondMaker(_) => false,
        };
        Ok(explained(&self.caller, verb, thing, is_owner))
    }

    pub(super) fn relay(&self) -> &Inner {
        &self.relay.0
    }

    /// Checks that the caller may do this with a topic, because a rule says so or because it owns the topic.
    pub(super) async fn check_topic(&self, verb: Verb, topic: &TopicName) -> Result<(), Failure> {
        self.relay().feeds.check(&self.caller, verb, topic).await.map(drop)
    }

    /// Checks that the caller may do this with the relay as a whole.
    pub(super) fn check_relay(&self, verb: Verb) -> Result<(), Failure> {
        Ok(self.caller.check_relay(verb)?)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemill_proto::copy::{CopyRead, CopyWrite};
    use tidemill_proto::page::Order;
    use tidemill_proto::topics::TopicUpdate;
    use tidemill_proto::{
        BucketName, Code, Cursor, KeyName, MessageId, NodeId, RecurringName, ScheduleId, Since,
    };
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::access::{Rule, Rules, Sessions};
    use crate::clock::Clock;
    use crate::features::Features;
    use crate::limits::Kept;
    use crate::relay::{
        Absent, Answered, BucketSettings, Draft, Durabilities, JsonText, KeyChangeDraft, KeyCondition,
        KeyDraft, NoOutlet, PageRequest, Payload, PresenceOptions, RecurringDraft, RelayOptions, Start,
        TakesAway, TrimTo, test_policy,
    };
    use crate::storage::test_storage;

    fn relay() -> Relay {
        let options = RelayOptions {
            payload_bytes_max: 1_000,
            value_bytes_max: 1_000,
            pending_bytes_max: 1 << 20,
            live_bytes_max: 1 << 20,
            live_topics_max: 100,
            topic_auto_create: true,
            durability: Durabilities::default(),
            policy: test_policy(),
            retention: None,
            features: Features::all(),
            presence: PresenceOptions::usual(NodeId::new(0)),
            takes_away: TakesAway::CountAlone,
            slow_after: std::time::Duration::ZERO,
        };
        let token = CancellationToken::new();
        let sessions = Sessions::new(token.child_token());
        Relay::start(
            test_storage(),
            Clock::system(),
            options,
            Kept::unbounded(),
            sessions,
            &TaskTracker::new(),
            &token,
        )
    }

    fn draft(topic: &TopicName) -> Draft {
        let body = Bytes::from_static(b"1");
        let payload = Payload::Json(JsonText::parse(&body, &body).expect("a number"), None);
        Draft {
            trace: None,
            durability: None,
            topic: topic.clone(),
            payload,
            metadata: None,
            ttl: None,
            key: None,
            delivery: None,
            expected_last: None,
            order_key: None,
            unique: None,
            fence: None,
        }
    }

    fn schedule_id() -> ScheduleId {
        ScheduleId::parse("1-0").expect("an id")
    }

    fn recurring(topic: &TopicName) -> RecurringDraft {
        let name = RecurringName::parse("n").expect("a name");
        let draft = draft(topic);
        RecurringDraft { name, cron: "* * * * *".to_owned(), timezone: None, draft }
    }

    /// That there is no such schedule is told to who may ask.
    fn missing(code: Option<Code>) -> Option<Code> {
        code.filter(|code| *code != Code::ScheduleNotFound)
    }

    /// Every operation of the gate, with what came of it.
    async fn all_operations(gate: &Gate) -> Vec<(&'static str, Option<Code>)> {
        fn code<T>(result: Result<T, Failure>) -> Option<Code> {
            result.err().map(|failure| failure.code())
        }
        let topic = TopicName::parse("t").expect("a name");
        let latest = Since::Cursor(Cursor::Latest);
        let reading = PageRequest { order: Order::Asc, start: Start::End, limit: 1 };
        let mut reader = gate.live_reader::<NoOutlet>(SessionKind::Stream);
        let message = match gate.check(draft(&topic)).await {
            Ok(checked) => {
                let admitted = gate.admit(checked).await.expect("nothing is limited");
                gate.publish(admitted).await.map(|taken| match taken {
                    Answered::Published(appended, _) => appended.id,
                    Answered::Scheduled(_) => panic!("it is not for later"),
                })
            }
            Err(failure) => Err(failure),
        };
        let id = message.as_ref().copied().unwrap_or(MessageId::MIN);
        let about = TopicUpdate::default;
        let other = TopicName::parse("other").expect("a name");
        let bucket = BucketName::parse("b").expect("a name");
        let key = KeyName::parse("k").expect("a name");
        let change = |edit| KeyChangeDraft { key: key.clone(), condition: KeyCondition::Anything, edit };
        let put = || KeyDraft::Put { value: draft(&topic).payload, ttl: None, fresh: None, owner: None };
        let add = KeyDraft::Increment { by: 1, min: None, max: None, ttl: None };
        vec![
            ("publish", code(message)),
            ("read", code(gate.read(&topic, reading).await)),
            ("message", code(gate.message(&topic, id).await)),
            ("add", code(reader.add(&topic, latest, Absent::Refuse).await)),
            ("add awaited", code(reader.add(&topic, latest, Absent::Await).await)),
            ("create_topic", code(gate.create_topic(&other, about()).await)),
            ("list_topics", code(gate.list_topics(None, None, 1).await)),
            ("describe_topic", code(gate.describe_topic(&topic).await)),
            ("update_topic", code(gate.update_topic(&topic, about().into()).await)),
            ("delete_message", code(gate.delete_message(&topic, id).await)),
            ("trim_topic", code(gate.trim_topic(&topic, TrimTo::Newest(0)).await)),
            ("scheduled", code(gate.scheduled(&topic, None, 1).await)),
            ("cancel_scheduled", missing(code(gate.cancel_scheduled(&topic, &schedule_id()).await))),
            ("publish_scheduled_now", missing(code(gate.publish_scheduled(&topic, &schedule_id()).await))),
            ("put_recurring", code(gate.put_recurring(recurring(&topic)).await)),
            ("recurring", code(gate.recurring(&topic).await)),
            ("delete_recurring", code(gate.delete_recurring(&topic, &recurring(&topic).name).await)),
            ("put_bucket", code(gate.put_bucket(&bucket, BucketSettings::default()).await)),
            ("change_keys", code(gate.change_keys(&bucket, vec![change(put())], None, None, false).await)),
            ("increment", code(gate.change_keys(&bucket, vec![change(add)], None, None, true).await)),
            ("key", code(gate.key(&bucket, &key, true).await)),
            ("key_history", code(gate.key_history(&bucket, &key).await)),
            ("touch_key", code(gate.touch_key(&bucket, &key, None, true).await)),
            ("list_keys", code(gate.list_keys(&bucket, "".into(), None, 1, false).await)),
            ("bucket", code(gate.bucket(&bucket).await)),
            ("list_buckets", code(gate.list_buckets(None, 1).await)),
            ("revoke_keys", code(gate.revoke_keys(&bucket, &key).await)),
            (
                "delete_key",
                code(gate.change_keys(&bucket, vec![change(KeyDraft::Delete)], None, None, false).await),
            ),
            ("delete_bucket", code(gate.delete_bucket(&bucket).await)),
            ("read_copy", code(gate.read_copy(&CopyRead::RefusesNew).await)),
            (
                "write_copy",
                code(gate.write_copy(CopyWrite::Freeze { topic: topic.clone(), frozen: false }).await),
            ),
            ("topics_stats", code(gate.topics_stats().await)),
            ("delete_topic", code(gate.delete_topic(&topic).await)),
        ]
    }

    #[tokio::test]
    async fn whoever_may_do_nothing_is_refused_everything_and_changes_nothing() {
        let relay = relay();
        for (operation, code) in all_operations(&relay.as_caller(Caller::nobody(1))).await {
            assert_eq!(code, Some(Code::Forbidden), "{operation}");
        }
        let stats = relay.as_caller(Caller::anyone()).topics_stats().await.expect("the counts");
        assert_eq!((stats.total_topics, stats.total_messages), (0, 0));
        let buckets = relay.as_caller(Caller::anyone()).list_buckets(None, 1).await.expect("a page");
        assert!(buckets.buckets.is_empty(), "{buckets:?}");
        for (operation, code) in all_operations(&relay.as_caller(Caller::anyone())).await {
            assert_eq!(code, None, "{operation}");
        }
    }

    #[tokio::test]
    async fn a_live_reader_is_a_session_of_its_caller() {
        let relay = relay();
        let reader = relay.as_caller(Caller::nobody(1)).live_reader::<NoOutlet>(SessionKind::Stream);
        assert_eq!(relay.sessions().count(), 1);
        assert_eq!(relay.sessions().end(&Caller::anyone()), 0);
        assert_eq!(relay.sessions().end(&Caller::nobody(1)), 1);
        drop(reader);
        assert_eq!(relay.sessions().count(), 0);
    }

    #[tokio::test]
    async fn users_own_what_they_make_and_tokens_own_nothing() {
        let relay = relay();
        let rules = |who: &Who| {
            let rules =
                ["allow publish,read *", "deny manage kept"].map(|rule| Rule::parse(rule).expect(rule));
            Rules::of(&rules, who.name())
        };
        let user = |name: &str, owner: &str| {
            let bound = rules(&Who::User(name.into()));
            relay.as_caller(Caller::user(name, owner.into(), bound))
        };
        let (ann, bob) = (user("ann", "ann/1"), user("bob", "bob/1"));
        // Who has the name of somebody who is gone.
        let other_ann = user("ann", "ann/2");
        let token = Who::Token { id: "i".into(), name: "ann".into() };
        let bound = rules(&token);
        let token = relay.as_caller(Caller::new(token, bound, None, None));
        let publish = async |gate: &Gate, topic: &TopicName| {
            let checked = gate.check(draft(topic)).await.expect("it may");
            let admitted = gate.admit(checked).await.expect("nothing is limited");
            gate.publish(admitted).await.expect("it is kept")
        };
        let topic = |name: &str| TopicName::parse(name).expect(name);
        let (hers, its, kept) = (topic("hers"), topic("its"), topic("kept"));
        for (gate, topic, owner) in
            [(&ann, &hers, Some("ann")), (&token, &its, None), (&ann, &kept, Some("ann"))]
        {
            publish(gate, topic).await;
            publish(&bob, topic).await;
            let described = gate.describe_topic(topic).await.expect("it is there");
            assert_eq!(described.topic.owner_id.as_deref(), owner);
        }
        let code = |result: Result<u64, Failure>| result.err().map(|failure| failure.code());
        let all = || TrimTo::Newest(0);
        for (gate, topic, expected) in [
            (&bob, &hers, Some(Code::Forbidden)),
            (&other_ann, &hers, Some(Code::Forbidden)),
            (&token, &its, Some(Code::Forbidden)),
            (&ann, &its, Some(Code::Forbidden)),
            // A rule is stronger.
            (&ann, &kept, Some(Code::Forbidden)),
            (&ann, &hers, None),
        ] {
            assert_eq!(code(gate.trim_topic(topic, all()).await), expected, "{:?} {topic}", gate.caller());
        }
        // Whoever makes a topic by publishing may make it without a message, too.
        for (gate, name, expected) in [
            (&ann, "empty", None),
            (&token, "other", Some(Code::Forbidden)),
            (&bob, "empty", Some(Code::TopicExists)),
        ] {
            let created = gate.create_topic(&topic(name), TopicUpdate::default()).await;
            assert_eq!(created.err().map(|failure| failure.code()), expected, "{:?} {name}", gate.caller());
        }
        let denied = bob.create_topic(&topic("kept"), TopicUpdate::default()).await;
        assert_eq!(denied.err().map(|failure| failure.code()), Some(Code::Forbidden));
        let told = ann.explain(Verb::Manage, Some("hers")).await.expect("it is told");
        assert_eq!((told.allowed, told.rule.as_deref()), (true, Some("the topic is its own")));
        assert!(!bob.explain(Verb::Manage, Some("hers")).await.expect("it is told").allowed);
        assert!(ann.explain(Verb::Manage, None).await.is_err(), "a topic has to be named");
    }

    #[tokio::test]
    async fn a_key_is_changed_and_read_by_whom_a_rule_lets() {
        let relay = relay();
        let token = |rules: &[&str]| {
            let who = Who::Token { id: rules.concat().into(), name: "t".into() };
            let rules: Vec<_> = rules.iter().map(|rule| Rule::parse(rule).expect(rule)).collect();
            relay.as_caller(Caller::new(who, Rules::of(&rules, "t"), None, None))
        };
        let bucket = BucketName::parse("b").expect("a name");
        let name = |text: &str| KeyName::parse(text).expect("a name");
        let delete = |key| KeyChangeDraft {
            key: name(key),
            condition: KeyCondition::Anything,
            edit: KeyDraft::Delete,
        };
        let code = |result: Result<(), Failure>| result.err().map(|failure| failure.code());
        let some = token(&["allow publish,read keys/b/mine.*", "deny read keys/b/mine.secret"]);
        assert_eq!(code(some.key(&bucket, &name("mine.a"), true).await.map(drop)), Some(Code::KeyNotFound));
        assert_eq!(code(some.key(&bucket, &name("other"), true).await.map(drop)), Some(Code::Forbidden));
        let both = vec![delete("mine.a"), delete("other")];
        assert_eq!(
            code(some.change_keys(&bucket, both, None, None, true).await.map(drop)),
            Some(Code::Forbidden)
        );
        let list = async |gate: &Gate, prefix: &str| {
            code(gate.list_keys(&bucket, prefix.into(), None, 1, true).await.map(drop))
        };
        assert_eq!(list(&some, "mine.").await, Some(Code::Forbidden), "one of them may not be read");
        assert_eq!(list(&some, "mine.a").await, Some(Code::BucketNotFound));
        assert_eq!(list(&some, "").await, Some(Code::Forbidden));
        // What is to be had back must be readable.
        let blind = token(&["allow publish keys/b/*"]);
        let touched = async |value| code(blind.touch_key(&bucket, &name("k"), None, value).await.map(drop));
        assert_eq!(
            (touched(true).await, touched(false).await),
            (Some(Code::Forbidden), Some(Code::KeyNotFound))
        );
        // Whoever may do anything with a key may not manage its bucket, and the other way round.
        let all = token(&["allow publish,read keys/*"]);
        assert_eq!(code(all.delete_bucket(&bucket).await), Some(Code::Forbidden));
        assert_eq!(code(all.revoke_keys(&bucket, &name("ann")).await.map(drop)), Some(Code::Forbidden));
        let manager = token(&["allow manage keys/b/*"]);
        assert_eq!(code(manager.delete_bucket(&bucket).await), Some(Code::BucketNotFound));
        assert_eq!(code(manager.bucket(&bucket).await.map(drop)), Some(Code::Forbidden));
        // Rules on topics are about topics.
        let reader = token(&["allow publish,read,manage *"]);
        assert_eq!(code(reader.list_buckets(None, 1).await.map(drop)), Some(Code::Forbidden));
        let told = async |named: &str| some.explain(Verb::Read, Some(named)).await.expect("it is told");
        assert!(told("keys/b/mine.a").await.allowed);
        assert_eq!(told("keys/b/mine.*").await.rule.as_deref(), Some("deny read keys/b/mine.secret"));
        assert!(!told("keys/b").await.allowed);
        assert!(some.explain(Verb::Read, Some("keys/")).await.is_err());
    }
}
