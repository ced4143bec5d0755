//! Locks: one holder at a time, in the order in which they came, and fences that grow.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tidemill::proto::locks::{Fence, Guarded};
use tidemill::proto::work::ConsumerName;
use tidemill::proto::{BucketName, LimitName, LockName, MessageId};
use tidemill::storage::{
    Hint, Idempotency, LimitPolicy, LockAnswer, LockAsked, LockHeld, LockId, LockKey, LockRenewal,
    LockSecret, LockSeen, NewMessage, PLACE_KEPT, StorageError, Take, TakeKind,
};
use tokio::time::{Instant, sleep};

use crate::support::eventually;
use crate::support::ground::{Ground, Heard, SOON, append, json, length, message};
#[cfg(feature = "valkey")]
use crate::support::length::pick;
#[cfg(feature = "valkey")]
use crate::support::resp::Reply;

pub(super) const LONG: Duration = Duration::from_mins(1);
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// Returns a lock that nobody has held.
pub(super) fn lock() -> LockId {
    static LOCKS: AtomicU64 = AtomicU64::new(0);
    let name = format!("lock-{}", LOCKS.fetch_add(1, Ordering::Relaxed));
    LockId { name: LockName::parse(&name).expect("a name"), guards: None }
}

fn name(text: &str) -> ConsumerName {
    ConsumerName::parse(text).expect("a name")
}

/// Returns who asks for a lock, with a secret of its own.
pub(super) fn asks(holder: &str, ttl: Duration, waits: bool) -> LockAsked {
    let [one, two] = [(); 2].map(|()| tidemill::chance::random().to_be_bytes());
    let secret = [one, two].concat().try_into().expect("sixteen bytes");
    LockAsked { secret, holder: name(holder), ttl, waits, again: false, key: None }
}

pub(super) async fn acquire(ground: &Ground, lock: &LockId, asked: &LockAsked) -> LockAnswer {
    ground.storage.locks.acquire_lock(lock, asked).await.expect("it answers")
}

/// Returns the fence with which a lock is granted.
pub(super) async fn granted(ground: &Ground, lock: &LockId, asked: &LockAsked) -> MessageId {
    match acquire(ground, lock, asked).await {
        LockAnswer::Granted { secret, fence, .. } if secret == asked.secret => fence,
        other => panic!("it is not granted: {other:?}"),
    }
}

/// Returns who holds a lock instead, and how many stand in front.
pub(super) async fn refused(ground: &Ground, lock: &LockId, asked: &LockAsked) -> (LockHeld, Option<u64>) {
    match acquire(ground, lock, asked).await {
        LockAnswer::Locked { held, place, .. } => (held, place),
        other => panic!("nobody holds it: {other:?}"),
    }
}

pub(super) async fn release(ground: &Ground, lock: &LockId, asked: &LockAsked) -> bool {
    ground.storage.locks.release_lock(lock, asked.secret).await.expect("it answers")
}

pub(super) async fn seen(ground: &Ground, lock: &LockId) -> LockSeen {
    ground.storage.locks.lock(lock, 10).await.expect("it answers")
}

async fn holder(ground: &Ground, lock: &LockId) -> Option<String> {
    seen(ground, lock).await.held.map(|held| held.holder.to_string())
}

async fn renew(ground: &Ground, lock: &LockId, secret: LockSecret, ttl: Duration) -> Option<MessageId> {
    let renewal = LockRenewal { lock: lock.clone(), secret, ttl };
    let kept = ground.storage.locks.renew_locks(&[renewal]).await.into_iter().next();
    kept.expect("there is an answer").expect("it answers").map(|kept| kept.fence)
}

pub(super) async fn a_lock_has_one_holder_until_it_is_released(ground: &Ground) {
    let lock = lock();
    assert_eq!(seen(ground, &lock).await, LockSeen::default());
    let (ann, bob) = (asks("ann", LONG, false), asks("bob", LONG, false));
    let fence = granted(ground, &lock, &ann).await;
    assert_eq!(granted(ground, &lock, &ann).await, fence, "who asks again has it still");
    let (held, place) = refused(ground, &lock, &bob).await;
    assert_eq!((held.holder.as_str(), held.fence, place), ("ann", fence, None));
    assert_eq!(seen(ground, &lock).await, LockSeen { held: Some(held), waiting: 0, queue: Vec::new() });
    assert_eq!(renew(ground, &lock, bob.secret, LONG).await, None, "it is not his");
    assert!(!release(ground, &lock, &bob).await);
    assert_eq!(renew(ground, &lock, ann.secret, LONG).await, Some(fence));
    assert!(release(ground, &lock, &ann).await);
    assert!(!release(ground, &lock, &ann).await, "once");
    assert_eq!(renew(ground, &lock, ann.secret, LONG).await, None);
    assert!(granted(ground, &lock, &bob).await > fence);
    // A lock that guards something is another one.
    let guards = Some(Guarded::Bucket(BucketName::parse("flows").expect("a name")));
    granted(ground, &LockId { guards, ..lock.clone() }, &ann).await;
    assert_eq!(holder(ground, &lock).await.as_deref(), Some("bob"));
}

pub(super) async fn a_lock_is_held_for_its_time_and_no_longer(ground: &Ground) {
    let lock = lock();
    let (ann, bob) = (asks("ann", SHORT, false), asks("bob", LONG, false));
    let fence = granted(ground, &lock, &ann).await;
    assert_eq!(renew(ground, &lock, ann.secret, SHORT * 2).await, Some(fence));
    sleep(SHORT).await;
    assert_eq!(holder(ground, &lock).await.as_deref(), Some("ann"), "it was renewed");
    eventually(SOON, async || seen(ground, &lock).await.held.is_none()).await;
    assert_eq!(renew(ground, &lock, ann.secret, LONG).await, None, "it is too late");
    assert!(!release(ground, &lock, &ann).await);
    assert!(granted(ground, &lock, &bob).await > fence);
    assert_eq!(renew(ground, &lock, ann.secret, LONG).await, None);
}

pub(super) async fn who_came_first_has_it_next_in_the_step_that_gives_it_back(ground: &Ground) {
    let lock = lock();
    let mut heard = Heard::of(&ground.storage);
    ground.storage.locks.watch_locks(true);
    if ground.has_server() {
        while heard.next().await != Hint::WatchedLocks {}
    }
    let first = asks("first", LONG, false);
    let mut last_fence = granted(ground, &lock, &first).await;
    let names = ["a", "b", "c", "d"];
    let mut waiting = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let mut asked = asks(name, LONG, true);
        assert_eq!(refused(ground, &lock, &asked).await.1, Some(place as u64));
        asked.again = true;
        assert_eq!(refused(ground, &lock, &asked).await.1, Some(place as u64), "it keeps its place");
        waiting.push(asked);
    }
    let now = seen(ground, &lock).await;
    let queue: Vec<&str> = now.queue.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((now.waiting, queue), (4, names.to_vec()));
    // One that goes out of the line is passed over.
    assert!(!release(ground, &lock, &waiting.remove(1)).await);
    let mut before = first;
    for next in waiting {
        assert!(release(ground, &lock, &before).await);
        let held = seen(ground, &lock).await.held.expect("it is handed over in the same step");
        assert_eq!(held.holder, next.holder);
        loop {
            if heard.next().await == Hint::Lock(next.secret) {
                break;
            }
        }
        let newcomer = asks("newcomer", LONG, false);
        assert_eq!(refused(ground, &lock, &newcomer).await.0.holder, next.holder, "nobody comes between");
        let fence = granted(ground, &lock, &next).await;
        assert!(fence > last_fence);
        last_fence = fence;
        before = next;
    }
    assert!(release(ground, &lock, &before).await);
    assert_eq!(seen(ground, &lock).await, LockSeen::default());
    ground.storage.locks.watch_locks(false);
}

pub(super) async fn who_waits_has_it_when_the_time_of_the_holder_is_over(ground: &Ground) {
    let lock = lock();
    let fence = granted(ground, &lock, &asks("ann", SHORT, false)).await;
    let (mut bob, mut eve) = (asks("bob", LONG, true), asks("eve", LONG, true));
    refused(ground, &lock, &bob).await;
    refused(ground, &lock, &eve).await;
    (bob.again, eve.again) = (true, true);
    // It is for whoever looks, and goes to who is first.
    eventually(SOON, async || refused(ground, &lock, &eve).await.0.holder == bob.holder).await;
    assert!(granted(ground, &lock, &bob).await > fence);
    let held = refused(ground, &lock, &eve).await.0;
    let left = held.expires_at.as_millis().saturating_sub(ground.clock.now().as_millis());
    assert!(left > 30_000, "its time begins when it comes for it: {left}");
}

pub(super) async fn what_is_handed_to_somebody_who_has_gone_passes_on(ground: &Ground) {
    let lock = lock();
    let ann = asks("ann", LONG, false);
    granted(ground, &lock, &ann).await;
    // Nobody comes for it.
    let gone = asks("gone", LONG, true);
    refused(ground, &lock, &gone).await;
    let mut bob = asks("bob", LONG, true);
    refused(ground, &lock, &bob).await;
    bob.again = true;
    assert!(release(ground, &lock, &ann).await);
    assert_eq!(holder(ground, &lock).await.as_deref(), Some("gone"));
    let began = Instant::now();
    let has_it = async || matches!(acquire(ground, &lock, &bob).await, LockAnswer::Granted { .. });
    eventually(SOON, has_it).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(release(ground, &lock, &bob).await);
    // A place that nobody asks for any more counts for a while.
    granted(ground, &lock, &ann).await;
    refused(ground, &lock, &asks("gone", LONG, true)).await;
    assert_eq!(seen(ground, &lock).await.waiting, 1);
    sleep(PLACE_KEPT + SHORT).await;
    assert_eq!(seen(ground, &lock).await.waiting, 0);
    assert!(release(ground, &lock, &ann).await);
    assert_eq!(seen(ground, &lock).await, LockSeen::default());
}

pub(super) async fn a_key_finds_what_was_granted_under_it(ground: &Ground) {
    let lock = lock();
    let key = |key: u8, fingerprint: u8| Some(LockKey { key: [key; 16], fingerprint: [fingerprint; 16] });
    let ann = LockAsked { key: key(1, 1), ..asks("ann", LONG, false) };
    let fence = granted(ground, &lock, &ann).await;
    let again = LockAsked { key: key(1, 1), ..asks("ann", LONG, false) };
    match acquire(ground, &lock, &again).await {
        LockAnswer::Granted { secret, fence: found, .. } => assert_eq!((secret, found), (ann.secret, fence)),
        other => panic!("it is found: {other:?}"),
    }
    let other = LockAsked { key: key(1, 2), ..asks("bob", LONG, false) };
    let refusal = ground.storage.locks.acquire_lock(&lock, &other).await;
    assert!(matches!(refusal, Err(StorageError::KeyReused)), "{refusal:?}");
    // The place in the line goes to who has asked last.
    let mut bob = LockAsked { key: key(2, 1), ..asks("bob", LONG, true) };
    assert_eq!(refused(ground, &lock, &bob).await.1, Some(0));
    refused(ground, &lock, &asks("eve", LONG, true)).await;
    let bob_again = LockAsked { key: key(2, 1), ..asks("bob", LONG, true) };
    assert_eq!(refused(ground, &lock, &bob_again).await.1, Some(0), "in front of who came later");
    bob.again = true;
    assert_eq!(acquire(ground, &lock, &bob).await, LockAnswer::Replaced);
    assert_eq!(seen(ground, &lock).await.waiting, 2);
    assert!(release(ground, &lock, &ann).await);
    assert!(granted(ground, &lock, &bob_again).await > fence);
    // What is over is not found any more.
    let ann_again = LockAsked { key: key(1, 1), ..asks("ann", LONG, false) };
    assert_eq!(refused(ground, &lock, &ann_again).await.0.holder.as_str(), "bob");
}

pub(super) async fn a_lock_is_taken_away_from_who_holds_it(ground: &Ground) {
    let lock = lock();
    assert_eq!(ground.storage.locks.take_lock(&lock).await.expect("it answers"), None);
    let (ann, bob) = (asks("ann", LONG, false), asks("bob", LONG, true));
    let fence = granted(ground, &lock, &ann).await;
    refused(ground, &lock, &bob).await;
    let taken = ground.storage.locks.take_lock(&lock).await.expect("it answers").expect("somebody held it");
    assert_eq!((taken.holder.as_str(), taken.fence), ("ann", fence));
    assert_eq!(renew(ground, &lock, ann.secret, LONG).await, None);
    assert!(granted(ground, &lock, &bob).await > fence);
}

pub(super) async fn of_many_who_ask_at_one_time_each_has_it_once_alone(ground: &Ground) {
    const MANY: usize = 30;
    let lock = lock();
    let held = AtomicU64::new(0);
    let worker = |number: usize| {
        let (lock, held) = (&lock, &held);
        async move {
            let mut asked = asks(&format!("worker-{number}"), LONG, true);
            loop {
                if let LockAnswer::Granted { fence, .. } = acquire(ground, lock, &asked).await {
                    assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0, "another holds it");
                    tokio::task::yield_now().await;
                    held.fetch_sub(1, Ordering::SeqCst);
                    assert!(release(ground, lock, &asked).await);
                    return fence;
                }
                asked.again = true;
                sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let fences = futures_util::future::join_all((0..MANY).map(worker)).await;
    assert_eq!(fences.iter().collect::<BTreeSet<_>>().len(), MANY, "each has a fence of its own");
    assert_eq!(seen(ground, &lock).await, LockSeen::default());
}

fn fenced(message: NewMessage, lock: &LockId, fence: MessageId) -> NewMessage {
    NewMessage { fence: Some(Fence { lock: lock.name.clone(), fence }), ..message }
}

pub(super) async fn a_lock_that_guards_a_topic_lets_its_holder_alone_append(ground: &Ground) {
    let topic = ground.topic();
    let guarding = LockId { guards: Some(Guarded::Topic(topic.clone())), ..lock() };
    let ann = asks("ann", SHORT, false);
    let old = granted(ground, &guarding, &ann).await;
    let says = |text: &'static str, fence| fenced(message(&topic, json(text)), &guarding, fence);
    let key = Some(Idempotency { key: "k".into(), fingerprint: [7; 16] });
    let keyed = NewMessage { idempotency: key, ..says("1", old) };
    let first = append(&ground.storage, keyed.clone()).await.expect("she holds it");
    eventually(SOON, async || seen(ground, &guarding).await.held.is_none()).await;
    // Nobody has it since: she is late all the same.
    let late = append(&ground.storage, says("2", old)).await;
    assert!(matches!(late, Err(StorageError::Fenced(None))), "{late:?}");
    assert_eq!(append(&ground.storage, keyed).await.expect("it is there").id, first.id, "a used key wins");
    let new = granted(ground, &guarding, &asks("bob", LONG, false)).await;
    let late = append(&ground.storage, says("2", old)).await;
    assert!(matches!(late, Err(StorageError::Fenced(Some(against))) if against == new), "{late:?}");
    append(&ground.storage, says("3", new)).await.expect("he holds it");
    // The fence wins over what is expected, and everything else holds as before.
    let behind = |fence, last| NewMessage { expected_last: Some(last), ..says("4", fence) };
    let late = append(&ground.storage, behind(old, first.id)).await;
    assert!(matches!(late, Err(StorageError::Fenced(Some(_)))), "{late:?}");
    let other = append(&ground.storage, behind(new, first.id)).await;
    assert!(matches!(other, Err(StorageError::NotLast(_))), "{other:?}");
    // It guards this topic and no other, and makes none.
    let elsewhere = ground.topic();
    let stray = append(&ground.storage, fenced(message(&elsewhere, json("1")), &guarding, new)).await;
    assert!(matches!(stray, Err(StorageError::Fenced(None))), "{stray:?}");
    let none = ground.storage.topics.describe(&elsewhere).await;
    assert!(matches!(none, Err(StorageError::NoTopic)), "{none:?}");
    assert_eq!(length(&ground.storage, &topic).await, 2);
}

pub(super) async fn of_a_lock_that_guards_nothing_the_greatest_fence_counts(ground: &Ground) {
    let (topic, lock) = (ground.topic(), lock());
    let ann = asks("ann", LONG, false);
    let old = granted(ground, &lock, &ann).await;
    assert!(release(ground, &lock, &ann).await);
    let new = granted(ground, &lock, &asks("bob", LONG, false)).await;
    let says = |fence| fenced(message(&topic, json("1")), &lock, fence);
    append(&ground.storage, says(old)).await.expect("nobody has shown the new one here");
    append(&ground.storage, says(new)).await.expect("it is greater");
    append(&ground.storage, says(new)).await.expect("it is the same");
    let late = append(&ground.storage, says(old)).await;
    assert!(matches!(late, Err(StorageError::Fenced(Some(against))) if against == new), "{late:?}");
    // Of another lock, and in another topic, nothing is known.
    let other = LockId { name: LockName::parse("another").expect("a name"), guards: None };
    append(&ground.storage, fenced(message(&topic, json("1")), &other, old))
        .await
        .expect("it is another lock");
    append(&ground.storage, fenced(message(&ground.topic(), json("1")), &lock, old))
        .await
        .expect("another topic");
}

#[cfg(feature = "valkey")]
/// For backends with a server: nothing is left of what has come and gone.
pub(super) async fn nothing_is_left_of_locks_and_limits_that_have_gone(ground: &Ground) {
    let many = pick(20_000, 100_000);
    let size = async || match ground.server().command(&["DBSIZE"]).await {
        Reply::Integer(size) => size,
        other => panic!("no size: {other:?}"),
    };
    let before = size().await;
    let policy = LimitPolicy::new(100, Duration::from_secs(1), 100).expect("within bounds");
    let come_and_go = (0..many).map(|number| async move {
        if number % 4 == 3 {
            let name = LimitName::parse(&format!("limit-{number}")).expect("a name");
            let take = Take { name, policies: vec![policy], cost: 10, kind: TakeKind::Take };
            assert!(ground.storage.takes.take(&take).await.expect("it answers").allowed);
            return;
        }
        // A third is released, of a third the one who is next does not come, and the time of the rest is over.
        let lock = lock();
        let asked = asks("ann", SHORT, false);
        acquire(ground, &lock, &asked).await;
        if number % 4 == 1 {
            acquire(ground, &lock, &asks("bob", SHORT, true)).await;
        }
        if number % 4 != 2 {
            release(ground, &lock, &asked).await;
        }
    });
    futures_util::stream::iter(come_and_go).for_each_concurrent(200, |one| one).await;
    let last_fences = 16;
    let left = async || size().await - before;
    eventually(SOON, async || left().await <= last_fences).await;
}

/// Goes through all parts of the list, and returns the locks of all, and how many parts there were.
async fn listed(ground: &Ground) -> (BTreeSet<LockId>, usize) {
    let (mut all, mut after, mut parts) = (BTreeSet::new(), None, 0);
    loop {
        let part = ground.storage.locks.lock_ids(after.as_deref()).await.expect("it answers");
        let part = part.expect("it goes on where the part before has ended");
        parts += 1;
        all.extend(part.locks);
        let Some(next) = part.next else { return (all, parts) };
        assert!(next.len() <= 512 && next.bytes().all(|byte| byte.is_ascii_graphic()), "{next}");
        assert!(!next.contains(['&', '<', '>', '%', '+', '#']), "{next}");
        after = Some(next);
    }
}

pub(super) async fn every_lock_that_is_held_is_in_some_part_of_the_list(ground: &Ground) {
    const MANY: usize = 2_500;
    let topic = || Some(Guarded::Topic("orders.eu:1".parse().expect("a name")));
    let bucket = || Some(Guarded::Bucket(BucketName::parse("flows").expect("a name")));
    let mut held = BTreeSet::new();
    let asked = asks("ann", LONG, false);
    // Of one name, and what they guard tells them apart.
    for guards in [None, topic(), bucket()] {
        let lock = LockId { name: LockName::parse("held:nightly").expect("a name"), guards };
        granted(ground, &lock, &asks("ann", LONG, false)).await;
        held.insert(lock);
    }
    let many: Vec<LockId> = (0..MANY).map(|_| lock()).collect();
    let mut asking = futures_util::stream::iter(&many).map(|lock| acquire(ground, lock, &asked)).buffered(64);
    while asking.next().await.is_some() {}
    held.extend(many.iter().cloned());
    // One that is over, one that was released, and one for which somebody waits.
    let (over, released, waited) = (lock(), lock(), lock());
    granted(ground, &over, &asks("ann", SHORT, false)).await;
    let gone = asks("ann", LONG, false);
    granted(ground, &released, &gone).await;
    assert!(release(ground, &released, &gone).await);
    granted(ground, &waited, &asks("ann", LONG, false)).await;
    refused(ground, &waited, &asks("bob", LONG, true)).await;
    held.insert(waited.clone());
    sleep(SHORT).await;
    // Topics are no locks.
    append(&ground.storage, message(&ground.topic(), json("1"))).await.expect("it is kept");

    let (all, parts) = listed(ground).await;
    let missing: Vec<_> = held.difference(&all).collect();
    assert!(missing.is_empty() && parts > 1, "{} of {}: {missing:?}", missing.len(), held.len());
    let mut more = all.difference(&held);
    assert!(more.all(|lock| *lock == over), "and no others");
    assert!(!all.contains(&released));
    let seen = ground.storage.locks.lock(&waited, 0).await.expect("it answers");
    assert_eq!((seen.waiting, seen.queue.len()), (1, 0));
    for wrong in ["", "a b", "../..", "held:nightly@room:a", "@", "é", "0-0@"] {
        let part = ground.storage.locks.lock_ids(Some(wrong)).await.expect("it answers");
        assert_eq!(part, None, "{wrong}");
    }
}
