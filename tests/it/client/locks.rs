//! Locks: held as long as somebody has them, found again, told when they are lost.

use std::time::Duration;

use serde_json::Value;
use tidemill::proto::work::ConsumerName;
use tidemill::proto::{Code, Delivery, LockName};
use tidemill::storage::Storage;
use tidemill_client::{ClientError, Encoding, Lock, LockClient, LockOptions, PublisherOptions};
use tokio::time::{Instant, sleep, timeout};

use super::{ENCODINGS, client, numbered, on_both_backends};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay};

on_both_backends!(
    a_lock_is_renewed_as_long_as_it_is_there_and_then_given_back,
    a_lock_that_was_waited_for_is_held,
    a_lock_that_is_taken_away_is_told,
    a_lock_outlives_a_short_break_and_is_told_in_time_in_a_long_one,
    a_lock_whose_answer_was_lost_is_found,
    who_has_lost_a_lock_is_told_by_its_publisher,
);

const TTL: Duration = Duration::from_secs(3);

fn locks(port: u16) -> LockClient {
    client(port, Encoding::Json).locks().expect("the options are right")
}

fn name() -> LockName {
    LockName::parse("a").expect("a name")
}

fn options(wait: Duration) -> LockOptions {
    let holder = ConsumerName::parse("ann").expect("a name");
    LockOptions { ttl: TTL, wait, ..LockOptions::new(holder) }
}

async fn acquire(locks: &LockClient, wait: Duration) -> Lock {
    let name = name();
    let acquiring = locks.acquire(&name, options(wait));
    timeout(STUCK, acquiring).await.expect("it ends").expect("it is granted")
}

async fn shown(relay: &TestRelay) -> Value {
    relay.get("/api/v1/locks/a").await.json()
}

fn code(error: &ClientError) -> Option<Code> {
    if let ClientError::Refused(refusal) = error { Some(refusal.code) } else { None }
}

async fn a_lock_is_renewed_as_long_as_it_is_there_and_then_given_back(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let locks = locks(relay.address.port());
    let first = acquire(&locks, Duration::ZERO).await;
    let since = Instant::now();
    while since.elapsed() < TTL * 2 {
        assert_eq!(shown(&relay).await["fence"], first.fence().to_string());
        assert!(first.is_held());
        sleep(Duration::from_millis(100)).await;
    }
    let refused = locks.acquire(&name(), options(Duration::ZERO)).await.expect_err("another holds it");
    assert_eq!(code(&refused), Some(Code::Locked));
    let fence = first.fence();
    first.release().await.expect("it was held");
    assert_eq!(shown(&relay).await.get("holder"), None);
    let second = acquire(&locks, Duration::ZERO).await;
    assert!(second.fence() > fence);
    drop(second);
    // Before its time is over.
    eventually(TTL / 2, async || shown(&relay).await.get("holder").is_none()).await;
    relay.stop().await;
}

/// Also where it was waited for longer than it is held.
async fn a_lock_that_was_waited_for_is_held(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let locks = locks(relay.address.port());
    let first = acquire(&locks, Duration::ZERO).await;
    let fence = first.fence();
    let release = async {
        sleep(TTL * 3 / 2).await;
        first.release().await.expect("it was held");
    };
    let (second, ()) = tokio::join!(acquire(&locks, STUCK), release);
    assert!(second.is_held() && second.fence() > fence);
    sleep(TTL * 3 / 2).await;
    assert!(second.is_held());
    second.release().await.expect("it was held");
    relay.stop().await;
}

async fn a_lock_that_is_taken_away_is_told(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let lock = acquire(&locks(relay.address.port()), Duration::ZERO).await;
    assert_eq!(relay.send("DELETE", "/api/v1/locks/a", &[], b"").await.status, 204);
    let lost = timeout(TTL, lock.lost()).await.expect("it is told before its time is over");
    assert_eq!((code(&lost), lock.is_held()), (Some(Code::LockLost), false));
    assert_eq!(code(&lock.release().await.expect_err("it was lost")), Some(Code::LockLost));
    relay.stop().await;
}

async fn a_lock_outlives_a_short_break_and_is_told_in_time_in_a_long_one(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let locks = locks(proxy.port());
    let wanted = LockOptions { ttl: TTL * 2, ..options(Duration::ZERO) };
    let lock = locks.acquire(&name(), wanted).await.expect("it is granted");
    proxy.refuse(true);
    proxy.cut();
    sleep(TTL * 5 / 6).await;
    proxy.refuse(false);
    sleep(TTL * 2).await;
    assert!(lock.is_held(), "it was renewed again");
    proxy.refuse(true);
    proxy.cut();
    timeout(TTL * 2, lock.lost()).await.expect("it is told before its time is over");
    assert!(!lock.is_held());
    assert_eq!(shown(&relay).await["holder"], "ann", "there is time left in which to stop");
    lock.release().await.expect_err("it was lost");
    relay.stop().await;
}

async fn a_lock_whose_answer_was_lost_is_found(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let locks = locks(proxy.port());
    proxy.swallow_replies_after(0);
    let wanted = LockOptions { ttl: STUCK, ..options(STUCK) };
    let (name, acquiring) = (name(), async || shown(&relay).await["holder"] == "ann");
    let breaking = async {
        eventually(STUCK, acquiring).await;
        proxy.heal();
        proxy.cut();
    };
    let (lock, ()) = tokio::join!(locks.acquire(&name, wanted), breaking);
    let lock = lock.expect("it is found");
    assert_eq!(shown(&relay).await["fence"], lock.fence().to_string());
    lock.release().await.expect("it was held");
    relay.stop().await;
}

/// The publisher does not send again what was refused so, and goes on.
async fn who_has_lost_a_lock_is_told_by_its_publisher(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let locks = locks(relay.address.port());
    for (encoding, kept) in ENCODINGS.into_iter().zip([2, 4]) {
        let client = client(relay.address.port(), encoding);
        let publisher = client.publisher(PublisherOptions::default()).await.expect("it connects");
        let publish = async |lock: &Lock, number| {
            let message = numbered("t", number).with_fence(lock.named_fence());
            timeout(STUCK, publisher.publish(message).await.expect("it is sent")).await.expect("an answer")
        };
        let first = acquire(&locks, Duration::ZERO).await;
        publish(&first, 1).await.expect("the lock is held");
        assert_eq!(relay.send("DELETE", "/api/v1/locks/a", &[], b"").await.status, 204);
        let second = acquire(&locks, STUCK).await;
        publish(&second, 2).await.expect("the lock is held");
        let asked = Instant::now();
        let Err(ClientError::Refused(refusal)) = publish(&first, 3).await else { panic!("it is refused") };
        assert!(asked.elapsed() < Duration::from_secs(5), "it is told at once");
        assert_eq!((refusal.code, refusal.retryable), (Code::Fenced, false));
        assert_eq!(refusal.fence.as_deref(), Some(&second.fence()));
        let later = Delivery::After(Duration::from_mins(1));
        let scheduled = publisher.schedule(numbered("t", 4).with_fence(second.named_fence()), later).await;
        let Err(ClientError::Refused(refusal)) = scheduled.expect("it is sent").await else {
            panic!("it is refused")
        };
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidField, Some("fence")));
        publisher.close().await;
        assert_eq!(relay.get("/api/v1/topics/t/messages").await.json()["total"], kept);
        drop(first);
        second.release().await.expect("it was held");
    }
    relay.stop().await;
}
