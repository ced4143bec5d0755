//! The rights that docs/valkey.md gives to the relay's user: enough for everything that the backend
//! does, and tested as they stand there.

use std::time::Duration;

use bytes::Bytes;
use tidemill::clock::Clock;
use tidemill::config::Settings;
use tidemill::proto::page::Order;
use tidemill::proto::topics::{TopicUpdate, WhenFull};
use tidemill::proto::work::{ClaimId, ConsumerName, GroupName, GroupSettings, Ordering};
use tidemill::proto::{
    BucketName, KeyName, LimitName, MessageId, OrderKey, SeriesName, Timestamp, TopicName,
};
use tidemill::storage::valkey::check::{Outcome, RIGHTS};
use tidemill::storage::valkey::{Target, Valkey, ValkeyOptions, check};
use tidemill::storage::{
    AccessEdit, Backend as _, Body, Claim, DeadLetter, Draw, Existing, Expected, GapCheck, GroupStart, Hint,
    Idempotency, KeyChange, KeyChanges, KeyCondition, KeyEdit, KeyValue, KeysPart, LatestRange, LimitPolicy,
    NewMessage, NewTicket, Places, Point, Range, Rate, RecordEdit, RunEnding, Selection, Settlement, Storage,
    StorageError, Take, TakeKind, TicketClaim, TopicPolicy, Trim, Unique, Unspent, Verdict, group_defaults,
};

use crate::support::ground::{Heard, followed, node};
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};

/// Returns the command of the document, in words.
fn documented_command() -> Vec<String> {
    let text = super::text_of("docs/valkey.md");
    let block = text.split("```text acl\n").nth(1).expect("the document has the command");
    let line = block.lines().next().expect("the command is one line");
    line.split_whitespace().map(str::to_owned).collect()
}

fn message(topic: &TopicName, key: Option<&str>) -> NewMessage {
    let body = Body {
        payload: Bytes::from_static(b"{}"),
        content_type: None,
        metadata: None,
        order_key: OrderKey::parse("k").ok(),
    };
    let timestamp = Timestamp::from_millis(1_770_000_000_000);
    let idempotency = key.map(|key| Idempotency { key: key.into(), fingerprint: [7; 16] });
    NewMessage {
        topic: topic.clone(),
        body,
        timestamp,
        expires_at: None,
        idempotency,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: true,
        owner: None,
        policy: TopicPolicy { age: Some(Duration::from_hours(1)), ..TopicPolicy::newest(1_000) },
    }
}

async fn does_everything(storage: &Storage) {
    let topic = TopicName::parse("rights").expect("a valid name");
    let other = TopicName::parse("rights.other").expect("a valid name");
    let batch = vec![message(&topic, None), message(&topic, Some("k")), message(&topic, Some("k"))];
    for appended in storage.messages.append(batch).await {
        appended.expect("a message is appended");
    }
    let about = TopicUpdate {
        description: Some("d".to_owned()),
        retention_seconds: Some(60),
        ..TopicUpdate::default()
    };
    storage.topics.create(&other, about.clone(), None).await.expect("a topic is created");
    storage.topics.update(&other, about.into()).await.expect("a topic is described");
    storage.topics.update(&other, TopicUpdate::default().into()).await.expect("a description is cleared");
    assert_eq!(
        storage.topics.list(Selection::default(), None, 10).await.expect("topics are listed").topics.len(),
        2
    );
    assert_eq!(storage.topics.stats().await.expect("topics are counted").total_messages, 2);
    bounded(storage, &other).await;
    let state = storage.topics.describe(&topic).await.expect("a topic is described");
    let first = state.first_id.expect("the topic has messages");
    storage.messages.get(&topic, first).await.expect("a message is read").expect("the message is there");
    for order in [Order::Asc, Order::Desc] {
        let range = Range { order, after: None, gap_check: GapCheck::None, limit: 10, bytes_max: 1_000 };
        assert_eq!(storage.messages.read(&topic, range).await.expect("a page is read").messages.len(), 2);
    }
    let before = first.previous();
    let range =
        Range { order: Order::Asc, after: before, gap_check: GapCheck::Seen, limit: 10, bytes_max: 1_000 };
    storage.messages.read(&topic, range).await.expect("a page is read after a cursor that is not kept");
    assert_eq!(storage.messages.trim(&topic, Trim::Keep(1)).await.expect("a topic is trimmed"), 1);
    assert_eq!(storage.messages.trim(&topic, Trim::Before(first)).await.expect("a topic is trimmed"), 0);
    assert_eq!(storage.upkeep.sweep().await.expect("topics are swept").topics, 2);
    for ending in [RunEnding::Cancel("r"), RunEnding::Close] {
        storage.runs.end_run(&other, ending).await.expect("a topic is ended");
    }
    let [refused] = &storage.messages.append(vec![message(&other, None)]).await[..] else {
        panic!("an answer")
    };
    assert!(matches!(refused, Err(StorageError::Closed)), "{refused:?}");
    storage.topics.delete(&other).await.expect("a topic is deleted");
    assert!(storage.live.tail(&topic).await.expect("a tail is read").last > Some(first));
    assert_eq!(
        storage.live.poll_changes(&[followed(&topic, None)]).await.expect("changes are read").changed,
        [0]
    );
    // The hint comes when the subscription to the topic's changes stands.
    let mut heard = Heard::of(storage);
    storage.live.watch(&topic, true);
    while heard.next().await != Hint::Watched(vec![topic.clone()]) {}
    storage.live.watch(&topic, false);
    storage.live.watch_all(true);
    while heard.next().await != Hint::WatchedAll {}
    storage.live.watch_all(false);
    assert_eq!(
        storage.topics.names("rights", None, 10).await.expect("names are told"),
        std::slice::from_ref(&topic)
    );
    is_copied(storage, &topic).await;
    keys_are_copied(storage).await;
    who_may_do_what(storage).await;
    limits_and_tickets(storage).await;
    works(storage, &topic).await;
    for server in storage.upkeep.slow_commands(10).await {
        assert_eq!(server.refusal, None, "what took long is told");
    }
    let health = storage.upkeep.health().await.backend;
    assert!(health.connected && health.eviction_policy.is_some(), "{health:?}");
}

/// Takes a topic over as another one, and makes it read-only.
async fn is_copied(storage: &Storage, topic: &TopicName) {
    let copies = &storage.copies;
    let mut other = copies.copied(topic).await.expect("a topic is told");
    let messages = copies.copied_messages(topic, MessageId::MIN, 10, 1_000).await.expect("they are told");
    let deletions = copies.copied_deletions(topic).await.expect("they are told");
    let copy = TopicName::parse("copy").expect("a valid name");
    other.topic.topic_name = copy.clone();
    copies.begin_import(&other).await.expect("it is begun");
    let imported = copies.import_messages(&copy, other.epoch, MessageId::MIN, &messages).await;
    imported.expect("messages are taken over");
    copies.import_waiting(&copy, true, &[], &[]).await.expect("what waits is taken over");
    copies.import_forgotten(&copy, other.epoch, &deletions).await.expect("they are forgotten");
    copies.finish_import(&other, &deletions).await.expect("it is finished");
    for frozen in [true, false] {
        copies.freeze(&copy, frozen).await.expect("it is frozen, and is not");
        copies.refuse_new_topics(frozen).await.expect("topics are refused, and are not");
    }
    assert!(!copies.refuses_new_topics().await.expect("it is told"));
    storage.topics.delete(&copy).await.expect("a topic is deleted");
}

/// Makes a bucket read-only, and takes it over anew.
async fn keys_are_copied(storage: &Storage) {
    let (copies, bucket) = (&storage.bucket_copies, &BucketName::parse("copied").expect("a valid name"));
    let value = KeyValue { bytes: Bytes::from_static(b"1"), content_type: None };
    let ttl = Some(Duration::from_mins(1));
    let edit = KeyEdit::Put { value, ttl, fresh: None, owner: KeyName::parse("ada").ok() };
    let key = KeyName::parse("a").expect("a valid name");
    let changes = KeyChanges {
        bucket: bucket.clone(),
        changes: vec![KeyChange { key, condition: KeyCondition::Anything, edit }],
        idempotency: None,
        fence: None,
        create_bucket: true,
        timestamp: storage.upkeep.now(),
    };
    storage.buckets.change_keys(changes).await.expect("a key is put");
    copies.freeze_bucket(bucket, true).await.expect("it is frozen");
    let other = copies.copied_bucket(bucket).await.expect("a bucket is told");
    let keys = copies.copied_keys(bucket, None, 10, 1_000).await.expect("they are told").keys;
    let names: Vec<_> = keys.iter().map(|copied| copied.entry.key.clone()).collect();
    let some = copies.copied_some(bucket, &names, 1_000).await.expect("they are told");
    assert_eq!(some.len(), names.len());
    let ends = copies.copied_ends(bucket, None, 10).await.expect("they are told");
    let changes = copies.copied_changes(bucket, MessageId::MIN, 10, 1_000).await.expect("they are told");
    storage.buckets.delete_bucket(bucket).await.expect("a bucket is deleted");
    copies.begin_bucket(&other).await.expect("it is begun");
    copies.import_keys(bucket, other.epoch, KeysPart::Last(keys)).await.expect("keys are taken over");
    copies.import_ends(bucket, other.epoch, &ends).await.expect("ends are taken over");
    let imported = copies.import_changes(bucket, other.epoch, MessageId::MIN, &changes).await;
    imported.expect("changes are taken over");
    copies.finish_bucket(&other).await.expect("it is finished");
}

/// Does what a topic needs that says itself what it keeps.
async fn bounded(storage: &Storage, topic: &TopicName) {
    let about = TopicUpdate {
        max_messages: Some(1),
        max_bytes: Some(1_000_000),
        when_full: Some(WhenFull::Refuse),
        keep_until_acked: Some(true),
        idle_seconds: Some(3_600),
        compact_by: Some("key".to_owned()),
        ..TopicUpdate::default()
    };
    storage.topics.update(topic, about.into()).await.expect("a topic is described");
    let latest =
        LatestRange { after: None, gap_check: GapCheck::None, goes_on: false, limit: 1, bytes_max: 1 };
    storage.messages.latest(topic, latest).await.expect("the latest messages are told");
    let batch = [None, Some("k"), None].map(|key| message(topic, key));
    let mut results = storage.messages.append(batch.into()).await.into_iter();
    assert!(results.next().expect("a result").is_ok());
    for refused in results {
        assert!(matches!(refused, Err(StorageError::TopicFull)), "{refused:?}");
    }
    let group = GroupName::parse("b").expect("a valid name");
    let settings = group_defaults(topic, &group);
    storage
        .work
        .put_group(topic, &group, &settings, GroupStart::Latest, Existing::Replace)
        .await
        .expect("a group is made");
    let [appended] = &storage.messages.append(vec![message(topic, Some("k"))]).await[..] else {
        panic!("an answer")
    };
    appended.as_ref().expect("what the group is done with makes room");
}

async fn works(storage: &Storage, topic: &TopicName) {
    let (work, group) = (&storage.work, GroupName::parse("g").expect("a valid name"));
    let settings = GroupSettings { ordering: Ordering::ByKey, ..group_defaults(topic, &group) };
    assert!(
        work.put_group(topic, &group, &settings, GroupStart::Earliest, Existing::Replace)
            .await
            .expect("a group is made")
    );
    let claim = |id: Option<&str>| Claim {
        topic: topic.clone(),
        group: group.clone(),
        consumer: ConsumerName::parse("c").expect("a valid name"),
        max: 1,
        bytes_max: 1_000,
        claim_id: id.map(|id| ClaimId::parse(id).expect("a valid id")),
    };
    let claimed = work.claim(vec![claim(Some("1"))]).await.pop().expect("a result").expect("it is claimed");
    let delivery = claimed.deliveries.first().expect("there is a message");
    let settle = async |verdict: Verdict, delivery: u64| {
        let id = claimed.deliveries[0].message.id;
        let settlement = Settlement { epoch: claimed.epoch, id, delivery, verdict };
        work.settle(topic, &group, vec![settlement]).await.expect("it is settled")
    };
    settle(Verdict::Extend(Some(Duration::from_mins(1))), 1).await;
    settle(Verdict::Nack(Some(Duration::ZERO), Some("e".into())), 1).await;
    work.tend(topic, &group).await.expect("it is tended");
    work.claim(vec![claim(None)]).await.pop().expect("a result").expect("it is claimed");
    settle(Verdict::Reject("r".into()), 2).await;
    assert_eq!(work.dying(topic, &group, 10).await.expect("it is told").len(), 1);
    let dead = DeadLetter { id: delivery.message.id, letter: None };
    assert!(work.bury(topic, &group, claimed.epoch, dead).await.expect("it is buried"));
    assert_eq!(work.dead(topic, &group, None, 10).await.expect("they are told"), [dead]);
    work.revive(topic, &group, &[(dead.id, Duration::ZERO)], true).await.expect("it is revived");
    work.claim(vec![claim(None)]).await.pop().expect("a result").expect("it is claimed");
    settle(Verdict::Ack(Some(Bytes::from_static(b"1"))), 3).await;
    let fate = work.fate(topic, &group, dead.id).await.expect("it is told").expect("it is known");
    assert_eq!(fate.result, Some(Bytes::from_static(b"1")));
    work.seek(topic, &group, GroupStart::Latest).await.expect("it is set");
    assert_eq!(work.groups(topic).await.expect("they are told").len(), 1);
    work.group(topic, &group).await.expect("it is told");
    for replayed in [false, true] {
        let unique = Some(Unique { group: group.clone(), key: "k".into() });
        let message = NewMessage { unique, ..message(topic, None) };
        let appended = storage.messages.append(vec![message]).await.pop().expect("a result");
        assert_eq!(appended.expect("it is answered").replayed, replayed);
    }
    work.delete_group(topic, &group).await.expect("it is deleted");
}

async fn who_may_do_what(storage: &Storage) {
    let document = Some(Bytes::from_static(b"{}"));
    for (known, document) in [(0, document.clone()), (1, None)] {
        let edits = vec![AccessEdit { name: "user/ann".into(), document }];
        let changed = storage.access.change_documents(known, known + 1, edits).await;
        assert!(changed.expect("a document is changed"));
    }
    assert!(storage.access.documents(Some(1)).await.expect("documents are told").is_some());
    for (next, record) in [(1, document), (2, None)] {
        let edit = RecordEdit { name: "log_in/x".into(), expected: Expected::Anything, record };
        assert!(storage.records.change_records(next, vec![edit]).await.expect("a record is changed"));
    }
    for known in [None, Some(1), Some(2)] {
        storage.records.records(known).await.expect("records are told");
    }
}

async fn limits_and_tickets(storage: &Storage) {
    let rate = Rate { amount: 10, within: Duration::from_mins(1) };
    let draw = Draw { quota: [1; 16], rate, slices: 60, hold: Duration::ZERO, most: 1, back: None };
    let drawn = storage.limits.draw(&draw).await.expect("an allowance is drawn");
    let back = Some(Unspent { slice: drawn.slice, amount: drawn.granted });
    storage.limits.draw(&Draw { most: 0, back, ..draw }).await.expect("an allowance comes back");
    for count in [1, 0] {
        let places = Places { quota: [1; 16], node: 1, count, most: 1, lease: Duration::from_secs(1) };
        assert!(storage.limits.hold(&places).await.expect("a place is held, and left"));
    }
    for kind in [TakeKind::Take, TakeKind::Peek, TakeKind::Refund] {
        let policies = vec![LimitPolicy::new(1, Duration::from_mins(1), 1).expect("a policy")];
        let take = Take { name: LimitName::parse("rights").expect("a name"), policies, cost: 1, kind };
        let taken = storage.takes.take(&take).await.expect("a limit is taken, looked at, and given back");
        assert_eq!(taken.allowed, kind != TakeKind::Peek);
    }
    let series = SeriesName::parse("rights").expect("a name");
    let point = Point::new(1.0, 1, None).expect("a point");
    let added = storage.series.add_points(&series, &[point]).await.expect("a point is added");
    let read = storage.series.read_series(&series, Duration::from_mins(5)).await.expect("a series is read");
    assert_eq!(added, [Some(read[0])]);
    storage.series.delete_series(&series).await.expect("a series is forgotten");
    // One more than a maker may have, so that its oldest goes.
    for at in 0..=1_000 {
        let ticket = NewTicket {
            id: format!("{at:016}").into(),
            maker: [1; 16],
            hash: [1; 32],
            document: Bytes::from_static(b"{}"),
            opens_within: Duration::from_mins(1),
        };
        assert!(storage.access.put_ticket(ticket).await.expect("a ticket is kept"));
    }
    let id: Box<str> = format!("{:016}", 1_000).into();
    let claim = TicketClaim {
        id: id.clone(),
        hash: [1; 32],
        place: [1; 16],
        resumes: false,
        holder: 1,
        kept_for: Duration::from_mins(1),
    };
    storage.access.claim_ticket(&claim).await.expect("a ticket is taken").expect("it is there");
    assert_eq!(storage.access.ticket_holders(&[id]).await.expect("holders are told"), [Some(1)]);
}

async fn are_enough(kind: Kind) {
    let Some(server) = Server::start(kind, &["--maxmemory-policy", "noeviction"]).await else { return };
    let mut command = documented_command();
    if kind == Kind::Redis {
        command.retain(|word| word != "+client|setinfo");
    }
    assert_eq!(server.command(&command).await, Reply::Simple("OK".to_owned()));

    let url = format!("valkey://tidemill:change-me@127.0.0.1:{}", server.port());
    let options = ValkeyOptions::new(Target::parse(&url).expect("a valid URL"));
    let report = Box::pin(check::run(&options)).await;
    for line in &report.lines {
        assert_ne!(line.outcome, Outcome::Fail, "{line:?}");
    }
    assert_eq!(server.command(&["DBSIZE"]).await.integer(), 0, "the check leaves nothing behind");

    let backend = Valkey::connect(node(), options, Settings::default().storage_limits(), Clock::system());
    assert!(backend.ready(Duration::from_secs(10)).await, "the backend does not connect");
    does_everything(&Storage::new(backend.clone())).await;
    backend.close().await;

    // Also what a client library asks for on the way and does without.
    let denied = server.command(&["ACL", "LOG"]).await;
    assert_eq!(denied.array().len(), 0, "the server has denied something: {denied:?}");
}

/// Gives the documented user these rights instead, and returns what the check finds wrong, or lacking where the relay can do
/// without (`rights`).
async fn found_wrong(server: &Server, rights: &[&str]) -> Vec<&'static str> {
    let command = [&["ACL", "SETUSER", "tidemill", "reset", "on", ">change-me"], rights].concat();
    assert_eq!(server.command(&command).await, Reply::Simple("OK".to_owned()));
    let url = format!("valkey://tidemill:change-me@127.0.0.1:{}", server.port());
    let options = ValkeyOptions::new(Target::parse(&url).expect("a valid URL"));
    let report = Box::pin(check::run(&options)).await;
    let is_wrong = |line: &&check::CheckLine| match line.outcome {
        Outcome::Fail => true,
        Outcome::Warn => line.name == "rights",
        Outcome::Pass => false,
    };
    let failed: Vec<_> = report.lines.iter().filter(is_wrong).collect();
    for line in &failed {
        assert!(line.advice.as_ref().is_some_and(|advice| advice.ends_with(RIGHTS)), "{line:?}");
    }
    failed.iter().map(|line| line.name).collect()
}

#[tokio::test]
async fn check_finds_every_right_that_is_missing() {
    assert_eq!(documented_command().join(" "), RIGHTS);
    let Some(server) = Server::start(Kind::Valkey, &["--maxmemory-policy", "noeviction"]).await else {
        return;
    };
    let left = async || server.command(&["DBSIZE"]).await.integer();
    let wrong = found_wrong(&server, &["~tidemill:*", "+@all"]).await;
    assert_eq!(wrong, ["streams", "scripts", "groups", "doorbell", "rights"]);
    assert_eq!(left().await, 0);
    assert_eq!(found_wrong(&server, &["~*", "+@all"]).await, ["doorbell", "rights"]);
    assert_eq!(left().await, 0);
    let no_changes = found_wrong(&server, &["~*", "+@all", "&tidemill:doorbell"]).await;
    assert_eq!(no_changes, ["rights"], "the relay can do without");

    // Each right by itself is missed, and nothing is left behind for long.
    let command = documented_command();
    let rights: Vec<&str> = command[5..].iter().map(String::as_str).collect();
    for right in rights.iter().filter(|right| right.starts_with('~') || right.starts_with('&')) {
        let others: Vec<&str> = rights.iter().filter(|other| other != &right).copied().collect();
        assert!(!found_wrong(&server, &others).await.is_empty(), "{right} is not missed");
        assert_eq!(left().await, 0, "without {right}");
    }
    for right in [
        "+unlink",
        "+del",
        "+hdel",
        "+xsetid",
        "+xgroup|destroy",
        "+xdel",
        "+xinfo|groups",
        "+multi",
        "+exec",
        "+zadd",
        "+hmget",
        "+hincrby",
        "+hlen",
        "+hkeys",
        "+hscan",
        "+hexists",
        "+hrandfield",
        "+pttl",
        "+pexpire",
        "+pexpireat",
        "+zrank",
        "+sadd",
        "+srem",
        "+smembers",
        "+zcount",
        "+xreadgroup",
        "+xclaim",
        "+xack",
        "+xpending",
        "+xinfo|consumers",
        "+xgroup|create",
        "+xgroup|destroy",
        "+xgroup|delconsumer",
        "+zscore",
        "+zlexcount",
        "+zrangebylex",
        "+zremrangebylex",
        "+zremrangebyrank",
        "+script|load",
        "+publish",
    ] {
        let others: Vec<&str> = rights.iter().filter(|other| **other != right).copied().collect();
        assert!(!found_wrong(&server, &others).await.is_empty(), "{right} is not missed");
        let Reply::Array(keys) = server.command(&["KEYS", "*"]).await else { panic!("not a list") };
        for key in keys {
            let ttl = server.command(&["TTL", &key.text()]).await.integer();
            assert!((0..=60).contains(&ttl), "without {right} {key:?} stays");
        }
        server.command(&["FLUSHALL"]).await;
    }
    // What it can do without is told, and fails nothing.
    for right in ["+unsubscribe", "+memory|usage", "+slowlog|get"] {
        let others: Vec<&str> = rights.iter().filter(|other| **other != right).copied().collect();
        assert_eq!(found_wrong(&server, &others).await, ["rights"], "{right}");
    }
}

#[tokio::test]
async fn documented_rights_are_enough_for_valkey() {
    Box::pin(are_enough(Kind::Valkey)).await;
}

#[tokio::test]
async fn documented_rights_are_enough_for_redis() {
    Box::pin(are_enough(Kind::Redis)).await;
}
