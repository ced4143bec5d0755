//! Leases: how long they last, what is under them, and keys that are given time where they have their revision.

use std::time::Duration;

use futures_util::StreamExt as _;
use tidemill::chance::random;
use tidemill::proto::locks::Guarded;
use tidemill::proto::{BucketName, KeyName, LockName, MessageId, RoomName, TopicName};
#[cfg(feature = "valkey")]
use tidemill::storage::StorageError;
use tidemill::storage::{
    KeyChange, KeyChanges, KeyCondition, KeyEdit, KeyValue, KeysChanged, LEASED_MAX, LeaseFacts, LeaseSecret,
    Leased, LockId, PutUnder,
};
use tokio::time::{Instant, sleep};

use crate::support::eventually;
use crate::support::ground::{Ground, SOON};
use crate::support::length::pick;
#[cfg(feature = "valkey")]
use crate::support::resp::Reply;

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(400);

fn secret() -> LeaseSecret {
    u128::to_be_bytes((u128::from(random()) << 64) | u128::from(random()))
}

fn name(text: &str) -> KeyName {
    KeyName::parse(text).expect("a name")
}

fn bucket() -> BucketName {
    BucketName::parse(&format!("bucket-{:x}", random())).expect("a name")
}

fn key(bucket: &BucketName, key: &str, ms: u64) -> Leased {
    Leased::Key { bucket: bucket.clone(), key: name(key), revision: MessageId::new(ms, 0) }
}

fn lock(text: &str, guards: Option<Guarded>, secret: u8) -> Leased {
    let lock = LockId { name: LockName::parse(text).expect("a name"), guards };
    Leased::Lock { lock, secret: [secret; 16] }
}

async fn make(ground: &Ground, ttl: Duration) -> (LeaseSecret, LeaseFacts) {
    let secret = secret();
    (secret, ground.storage.leases.make_lease(secret, ttl).await.expect("it is made"))
}

async fn put(ground: &Ground, lease: LeaseSecret, thing: &Leased) -> PutUnder {
    ground.storage.leases.put_under(lease, thing).await.expect("it answers")
}

async fn things(ground: &Ground, lease: LeaseSecret) -> Option<Vec<Leased>> {
    let seen = ground.storage.leases.leased(lease).await.expect("it answers");
    seen.map(|(facts, things)| {
        assert_eq!(facts.count, things.len());
        things
    })
}

pub(super) async fn a_lease_lasts_until_it_is_ended_or_not_renewed_in_time(ground: &Ground) {
    let leases = &ground.storage.leases;
    assert_eq!(leases.lease(secret()).await.unwrap(), None);
    assert_eq!(leases.renew_lease(secret()).await.unwrap(), None);
    assert_eq!(leases.end_lease(secret()).await.unwrap(), None);
    let began = Instant::now();
    let (short, made) = make(ground, SHORT).await;
    let (long, facts) = make(ground, LONG).await;
    assert_eq!((made.ttl, facts.ttl, facts.count), (SHORT, LONG, 0));
    let kept = key(&bucket(), "k", 1);
    assert!(matches!(put(ground, short, &kept).await, PutUnder::Kept(facts) if facts.count == 1));
    // It lasts for longer than its time, as long as it is renewed.
    let mut before = made.expires_at;
    while began.elapsed() < SHORT * 2 {
        sleep(SHORT / 8).await;
        let (facts, things) = leases.renew_lease(short).await.unwrap().expect("it lasts");
        assert!(facts.expires_at > before, "{facts:?} behind {before}");
        assert!(facts.left <= SHORT && facts.left + Duration::from_millis(20) > SHORT, "{facts:?}");
        assert_eq!((facts.ttl, things.as_slice()), (SHORT, std::slice::from_ref(&kept)));
        before = facts.expires_at;
    }
    let renewed = Instant::now();
    eventually(SOON, async || leases.lease(short).await.unwrap().is_none()).await;
    let late = renewed.elapsed();
    assert!(late + Duration::from_millis(100) > SHORT, "it was there for {late:?} more");
    assert_eq!(things(ground, short).await, None);
    assert_eq!(leases.renew_lease(short).await.unwrap(), None, "nothing brings it back");
    assert_eq!(put(ground, short, &kept).await, PutUnder::NoLease);
    assert_eq!(leases.end_lease(short).await.unwrap(), None);
    put(ground, long, &kept).await;
    assert_eq!(leases.end_lease(long).await.unwrap(), Some(vec![kept.clone()]));
    assert_eq!(leases.lease(long).await.unwrap(), None);
    assert_eq!(put(ground, long, &kept).await, PutUnder::NoLease);
}

pub(super) async fn a_thing_is_under_a_lease_once_and_leaves_it_as_it_is_named(ground: &Ground) {
    let leases = &ground.storage.leases;
    let ((lease, _), bucket) = (make(ground, LONG).await, bucket());
    let room = BucketName::of_room(&RoomName::parse("lobby").expect("a name"));
    let guards = Some(Guarded::Topic(TopicName::parse("orders").expect("a name")));
    let all = [
        key(&bucket, "a.b:c", 5),
        key(&room, "ann", 7),
        lock("nightly", None, 1),
        lock("nightly", guards.clone(), 2),
    ];
    for thing in all.iter().rev() {
        put(ground, lease, thing).await;
    }
    let mut expected = all.to_vec();
    expected.sort_by_key(Leased::name);
    assert_eq!(things(ground, lease).await, Some(expected.clone()), "they come in the order of their names");
    // An earlier revision does not take the place of a later one, also where it has more digits than fit a number.
    for (ms, stays) in [(4, 5), (5, 5), (10, 10), (9, 10), (u64::MAX, u64::MAX), (u64::MAX - 1, u64::MAX)] {
        put(ground, lease, &key(&bucket, "a.b:c", ms)).await;
        let there = things(ground, lease).await.expect("it lasts");
        assert!(there.contains(&key(&bucket, "a.b:c", stays)), "{ms}");
        assert_eq!(there.len(), all.len());
    }
    // A lock that was acquired anew has another secret, whichever that is.
    for secret in [9, 3] {
        put(ground, lease, &lock("nightly", None, secret)).await;
        assert!(things(ground, lease).await.expect("it lasts").contains(&lock("nightly", None, secret)));
    }
    // What has changed meanwhile stays.
    let gone =
        [lock("nightly", None, 9), lock("nightly", guards, 2), key(&room, "bob", 7), key(&room, "ann", 8)];
    leases.let_go(lease, &gone).await.unwrap();
    let left = [key(&bucket, "a.b:c", u64::MAX), key(&room, "ann", 7), lock("nightly", None, 3)];
    let mut left = left.to_vec();
    left.sort_by_key(Leased::name);
    assert_eq!(things(ground, lease).await, Some(left.clone()));
    leases.let_go(lease, &left).await.unwrap();
    assert_eq!(things(ground, lease).await, Some(Vec::new()), "it lasts without them");
    leases.let_go(secret(), &left).await.expect("of no lease there is nothing to be let go");
}

pub(super) async fn a_lease_keeps_so_many_things_and_no_more(ground: &Ground) {
    let ((lease, _), bucket) = (make(ground, LONG).await, bucket());
    let of = |number: usize| key(&bucket, &format!("k-{number}"), 1);
    let put_all = futures_util::stream::iter(0..LEASED_MAX).map(|number| {
        let thing = of(number);
        async move { put(ground, lease, &thing).await }
    });
    let put_all: Vec<_> = put_all.buffer_unordered(200).collect().await;
    assert!(put_all.iter().all(|put| matches!(put, PutUnder::Kept(_))));
    assert_eq!(put(ground, lease, &of(LEASED_MAX)).await, PutUnder::Crowded);
    assert!(matches!(put(ground, lease, &of(7)).await, PutUnder::Kept(facts) if facts.count == LEASED_MAX));
    let (facts, things) = ground.storage.leases.renew_lease(lease).await.unwrap().expect("it lasts");
    assert_eq!((facts.count, things.len()), (LEASED_MAX, LEASED_MAX));
    ground.storage.leases.let_go(lease, &things[..700]).await.unwrap();
    assert!(matches!(put(ground, lease, &of(LEASED_MAX)).await, PutUnder::Kept(_)), "there is room again");
    let ended = ground.storage.leases.end_lease(lease).await.unwrap().expect("it lasts");
    assert_eq!(ended.len(), LEASED_MAX - 700 + 1);
}

pub(super) async fn keys_are_given_time_where_they_have_their_revision(ground: &Ground) {
    let (storage, bucket) = (&ground.storage, bucket());
    let none = storage.buckets.touch_revisions(&bucket, &[(name("a"), MessageId::new(1, 0))], LONG).await;
    assert_eq!(none.unwrap(), [false], "there is no such bucket");
    let put = async |key: &str| {
        let value = KeyValue { bytes: "1".into(), content_type: None };
        let edit = KeyEdit::Put { value, ttl: Some(LONG), fresh: None, owner: None };
        let change = KeyChange { key: name(key), condition: KeyCondition::Anything, edit };
        let changes = KeyChanges {
            bucket: bucket.clone(),
            changes: vec![change],
            idempotency: None,
            fence: None,
            create_bucket: true,
            timestamp: storage.upkeep.now(),
        };
        match storage.buckets.change_keys(changes).await.expect("it is put") {
            KeysChanged::Made { changed, .. } => changed[0].revision.expect("a put has a revision"),
            KeysChanged::Refused { .. } => panic!("it is refused"),
        }
    };
    let until = async |key: &str| {
        let found = storage.buckets.key(&bucket, &name(key), false).await.unwrap();
        found.map(|found| (found.revision, found.expires_at.expect("it has a time")))
    };
    let [first, b, c] = [put("a").await, put("b").await, put("c").await];
    let a = put("a").await;
    let before = [until("a").await, until("b").await];
    let asked = [(name("a"), first), (name("b"), b), (name("none"), b)];
    let touched = storage.buckets.touch_revisions(&bucket, &asked, LONG * 2).await.unwrap();
    assert_eq!(touched, [false, true, false]);
    assert_eq!(until("a").await, before[0], "it was put anew, and is not touched");
    let (revision, end) = until("b").await.expect("it is there");
    assert_eq!(revision, b, "no revision, and nobody is told");
    assert!(
        before[1].is_some_and(|(_, before)| before.saturating_add(LONG / 2) < end),
        "it lives for longer"
    );
    // Of no time at all: they are over at once, and expire.
    let asked = [(name("c"), c), (name("a"), a)];
    let touched = storage.buckets.touch_revisions(&bucket, &asked, Duration::ZERO).await.unwrap();
    assert_eq!(touched, [true, true]);
    assert_eq!((until("a").await, until("c").await), (None, None));
    let again = storage.buckets.touch_revisions(&bucket, &asked, LONG).await.unwrap();
    assert_eq!(again, [false, false], "a touch brings nothing back");
    let expired = storage.buckets.expire_keys(std::slice::from_ref(&bucket)).await.remove(0).unwrap();
    assert_eq!(expired.count, 2);
    assert!(until("b").await.is_some());
}

#[cfg(feature = "valkey")]
async fn size(ground: &Ground) -> i64 {
    match ground.server().command(&["DBSIZE"]).await {
        Reply::Integer(size) => size,
        other => panic!("no size: {other:?}"),
    }
}

#[cfg(feature = "valkey")]
/// For backends with a server: nothing is left of what has come and gone.
pub(super) async fn nothing_is_left_of_leases_that_have_gone(ground: &Ground) {
    let many = pick(10_000, 100_000);
    let (before, bucket) = (size(ground).await, bucket());
    let come_and_go = (0..many).map(|number| {
        let thing = key(&bucket, "k", 1);
        async move {
            let (lease, _) = make(ground, Duration::from_secs(2)).await;
            put(ground, lease, &thing).await;
            match number % 3 {
                0 => drop(ground.storage.leases.end_lease(lease).await.unwrap()),
                1 => drop(ground.storage.leases.renew_lease(lease).await.unwrap()),
                _ => {}
            }
        }
    });
    futures_util::stream::iter(come_and_go).for_each_concurrent(200, |one| one).await;
    eventually(SOON, async || size(ground).await <= before).await;
}

#[cfg(feature = "valkey")]
/// For backends with a server: what another program has under the key of a lease is named, and left alone.
pub(super) async fn a_key_of_another_program_is_not_a_lease(ground: &Ground) {
    let (secret, leases) = ([7; 16], &ground.storage.leases);
    let server_key = format!("tidemill:lease:{}", "07".repeat(16));
    ground.server().command(&["SET", &server_key, "mine"]).await;
    let thing = key(&bucket(), "k", 1);
    let foreign = |error: StorageError| matches!(error, StorageError::ForeignKey(of) if *of == *server_key);
    assert!(foreign(leases.make_lease(secret, LONG).await.unwrap_err()));
    assert!(foreign(leases.lease(secret).await.unwrap_err()));
    assert!(foreign(leases.leased(secret).await.unwrap_err()));
    assert!(foreign(leases.put_under(secret, &thing).await.unwrap_err()));
    assert!(foreign(leases.let_go(secret, &[thing]).await.unwrap_err()));
    assert!(foreign(leases.renew_lease(secret).await.unwrap_err()));
    assert!(foreign(leases.end_lease(secret).await.unwrap_err()));
    assert_eq!(ground.server().command(&["GET", &server_key]).await, Reply::Bulk(b"mine".to_vec()));
}
