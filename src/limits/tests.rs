//! Limits of several nodes, with time that stands still until it is moved.

use std::net::IpAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::access::Caller;
use crate::storage::test_storage;

const ADDRESS: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

/// Returns nodes on one storage, with these options.
fn nodes<const COUNT: usize>(options: LimitOptions) -> [Limits; COUNT] {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let store = test_storage().limits;
    std::array::from_fn(|_| Limits::start(options, store.clone(), Metrics::new(), &tracker, &stop))
}

/// Returns how many messages pass until one does not.
async fn passing(meter: &Meter) -> usize {
    let mut passed = 0;
    while meter.message().await.is_ok() {
        passed += 1;
    }
    passed
}

#[tokio::test(start_paused = true)]
async fn what_a_node_does_not_spend_is_there_for_others() {
    let options = LimitOptions::none().with(Limit::PrincipalMessages, 100);
    let [one, two] = nodes(options);
    let meters = [&one, &two].map(|node| node.meter(Some(&Caller::nobody(1)), ADDRESS, Asks::Other));
    assert!(meters[0].message().await.is_ok());
    assert_eq!(passing(&meters[1]).await, 90, "a tenth is held");
    tokio::time::sleep(3 * HOLD).await;
    assert_eq!(passing(&meters[1]).await, 9, "what was not spent in time came back");
    assert_eq!(passing(&meters[0]).await, 0);
    let other = two.meter(Some(&Caller::nobody(2)), ADDRESS, Asks::Other);
    assert_eq!(passing(&other).await, 100, "another caller has its own");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_changed_holds_at_once() {
    let with = |amount| LimitOptions::none().with(Limit::PrincipalMessages, amount);
    let [node] = nodes(with(60_000));
    let meter = node.meter(Some(&Caller::nobody(1)), ADDRESS, Asks::Other);
    for _ in 0..30 {
        assert!(meter.message().await.is_ok());
    }
    node.change(&with(20));
    assert_eq!(passing(&meter).await, 0, "of what was drawn before nothing is spent");
    node.change(&with(1_000));
    assert_eq!(passing(&meter).await, 970, "what was spent counts, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_gives_back_what_it_holds() {
    let options = LimitOptions::none().with(Limit::PrincipalMessages, 100).with(Limit::Connections, 2);
    let store = test_storage().limits;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let stopping = Limits::start(options, store.clone(), Metrics::new(), &tracker, &stop);
    let (other, never) = (TaskTracker::new(), CancellationToken::new());
    let staying = Limits::start(options, store, Metrics::new(), &other, &never);
    let caller = Caller::nobody(1);
    assert!(stopping.meter(Some(&caller), ADDRESS, Asks::Other).message().await.is_ok());
    let places = [stopping.place(&caller).await, stopping.place(&caller).await];
    assert!(places.iter().all(Result::is_ok) && staying.place(&caller).await.is_err());
    drop(places);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    assert_eq!(
        passing(&staying.meter(Some(&caller), ADDRESS, Asks::Other)).await,
        99,
        "all but what was spent"
    );
    let places = [staying.place(&caller).await, staying.place(&caller).await];
    assert!(places.iter().all(Result::is_ok), "{places:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_who_is_gone() {
    let options = LimitOptions::none().with(Limit::AddressMessages, 5);
    let [node] = nodes(options);
    let inner = node.0.as_ref().expect("something is limited").clone();
    for at in 0..1_000_u32 {
        let address = Some(IpAddr::V4(std::net::Ipv4Addr::from_bits(at)));
        assert!(node.meter(None, address, Asks::Other).message().await.is_ok());
    }
    assert_eq!(inner.table.look(Instant::now()).1, 1_000);
    // The time of the rate, of the allowance, and of a part.
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(inner.table.look(Instant::now()).1, 0);
    assert!(node.meter(None, ADDRESS, Asks::Other).message().await.is_ok());
    assert_eq!(inner.table.look(Instant::now()).1, 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_counted_already_is_counted_by_what_limits_say_now() {
    let options = |amount| LimitOptions::none().with(Limit::PrincipalMessages, amount);
    let [node] = nodes(options(100));
    let (version, caller) = (node.version(), Caller::nobody(1));
    let meter = node.meter(Some(&caller), ADDRESS, Asks::Other);
    assert_eq!(passing(&meter).await, 100);
    node.change(&options(150));
    // What there is not is remembered for a moment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(passing(&meter).await, 50);
    node.change(&options(0));
    assert!(node.is_alone().is_none() && node.version() > version);
    for _ in 0..1_000 {
        assert!(meter.message().await.is_ok());
    }
    node.change(&options(20));
    assert_eq!(passing(&meter).await, 0, "what was taken before counts on");
    let other = node.meter(Some(&Caller::nobody(2)), ADDRESS, Asks::Other);
    assert_eq!(passing(&other).await, 20);
}

#[tokio::test]
async fn where_nothing_is_limited_nothing_is_counted() {
    let [node] = nodes(LimitOptions::none());
    assert!(node.on().is_none() && node.is_alone().is_none());
    let meter = node.meter(None, ADDRESS, Asks::Other);
    for _ in 0..1_000 {
        assert!(meter.message().await.is_ok() && meter.request(Asks::Other).await.is_ok());
        assert!(node.log_in(ADDRESS).await.is_ok());
    }
    // What does not concern a caller is none of its business.
    let [node] = nodes(LimitOptions::none().with(Limit::AnonymousRequests, 1));
    let meter = node.meter(Some(&Caller::anyone()), ADDRESS, Asks::Other);
    for _ in 0..10 {
        assert!(meter.message().await.is_ok() && meter.request(Asks::Other).await.is_ok());
    }
}
