//! Workers: what they claim is worked on, kept meanwhile, settled once, and given back where they end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::value::RawValue;
use tidemill::proto::work::{
    ClaimRequest, ConsumerName, GroupDetail, GroupName, GroupUpdate, MessageStateName, SettledStatus,
};
use tidemill::proto::{Code, MessageId};
use tidemill::storage::Storage;
use tidemill_client::{ClientError, Encoding, Job, Verdict, WorkClient, Worker, WorkerEvent, WorkerOptions};
use tokio::time::{sleep, timeout};

use super::{client, on_both_backends};
use crate::support::eventually;
use crate::support::ground::topic;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay};

on_both_backends!(
    a_worker_works_through_a_group_and_its_results_are_followed,
    what_runs_for_long_is_kept_and_what_runs_for_too_long_is_told,
    a_claim_whose_answer_was_lost_is_repeated_and_nothing_is_stranded,
    an_ack_whose_answer_was_lost_counts,
    a_worker_that_is_drained_ends_what_runs_and_gives_back_the_rest,
    a_worker_goes_on_when_the_relay_is_back_and_ends_where_the_group_is_gone,
);

fn group() -> GroupName {
    GroupName::parse("workers").expect("a name")
}

fn work(port: u16) -> WorkClient {
    client(port, Encoding::Json).work().expect("the options are right")
}

async fn made(work: &WorkClient, settings: GroupUpdate) -> GroupDetail {
    work.put_group(&topic("jobs"), &group(), &settings).await.expect("it is made")
}

async fn detail(work: &WorkClient) -> GroupDetail {
    work.group(&topic("jobs"), &group()).await.expect("it is there")
}

async fn worker(work: &WorkClient, concurrency: usize) -> Worker {
    let options = WorkerOptions { concurrency, ..WorkerOptions::default() };
    let name = ConsumerName::parse("ann").expect("a name");
    work.worker(topic("jobs"), group(), name, options).await.expect("the group is there")
}

async fn publish(relay: &TestRelay, count: u64) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for number in 0..count {
        let id = relay.publish("jobs", &number.to_string()).await;
        ids.push(MessageId::parse(&id).expect("an id"));
    }
    ids
}

const DONE: Verdict = Verdict::Ack { result: None };

async fn a_worker_works_through_a_group_and_its_results_are_followed(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let work = work(relay.address.port());
    made(&work, GroupUpdate { backoff: None, max_deliveries: Some(2), ..GroupUpdate::default() }).await;
    let ids = publish(&relay, 20).await;
    let worker = worker(&work, 4).await;
    let stopper = worker.stopper();
    let (running, most) = (RefCell::new(BTreeSet::new()), RefCell::new(0));
    let handler = async |job: Job| {
        let id = job.delivered.message.message_id;
        assert!(running.borrow_mut().insert(id), "it is with one handler at a time");
        most.replace_with(|most| running.borrow().len().max(*most));
        sleep(Duration::from_millis(5)).await;
        running.borrow_mut().remove(&id);
        let number: u64 =
            job.delivered.message.payload.as_ref().expect("JSON").get().parse().expect("a number");
        match number {
            7 => Verdict::Reject { reason: "seven".to_owned() },
            8 if job.delivered.delivery == 1 => {
                Verdict::Nack { delay: Some(Duration::ZERO), error: Some("once".to_owned()) }
            }
            _ => {
                let result = RawValue::from_string(format!("[{number}.0]")).expect("JSON");
                Verdict::Ack { result: Some(result) }
            }
        }
    };
    let settled = RefCell::new(Vec::new());
    let running = worker.run(&handler, |event| {
        if let WorkerEvent::Finished(finished) = event {
            settled.borrow_mut().push(finished.settled.expect("it was told").status);
        }
    });
    let following = async {
        let wait = Duration::from_secs(20);
        let state = work.state(&topic("jobs"), &group(), ids[19], wait).await.expect("it is there");
        assert_eq!(state.state, MessageStateName::Done);
        assert_eq!(state.result.expect("a result").get(), "[19.0]");
        eventually(STUCK, async || detail(&work).await.done == 19).await;
        stopper.drain();
    };
    let (ended, ()) = timeout(STUCK, async { tokio::join!(running, following) }).await.expect("it ends");
    ended.expect("it was drained");
    let settled = settled.into_inner();
    let count = |status| settled.iter().filter(|other| **other == status).count();
    assert_eq!(
        [SettledStatus::Acked, SettledStatus::Nacked, SettledStatus::Rejected].map(count),
        [19, 1, 1],
        "{settled:?}"
    );
    assert!((2..=4).contains(&most.into_inner()), "as many at a time as it may");
    relay.stop().await;
}

async fn what_runs_for_long_is_kept_and_what_runs_for_too_long_is_told(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let work = work(relay.address.port());
    let settings = GroupUpdate {
        ack_wait: Some("600ms".to_owned()),
        max_run: Some("3s".to_owned()),
        ..GroupUpdate::default()
    };
    made(&work, settings).await;
    publish(&relay, 1).await;
    let options = WorkerOptions { jobs_max: Some(1), ..WorkerOptions::default() };
    let other = ConsumerName::parse("bob").expect("a name");
    let claim = ClaimRequest { consumer: other, max: None, wait: Some("2s".to_owned()), claim_id: None };
    let name = ConsumerName::parse("ann").expect("a name");
    let one = async || {
        work.worker(topic("jobs"), group(), name.clone(), options).await.expect("the group is there")
    };
    // For longer than three times its time it is with nobody else.
    let long = one().await.run(
        async |_: Job| {
            let others = work.claim(&topic("jobs"), &group(), &claim).await.expect("an answer");
            assert!(others.is_empty(), "it is kept");
            DONE
        },
        |_| {},
    );
    timeout(STUCK, long).await.expect("it ends").expect("it has had its job");
    assert_eq!((detail(&work).await.done, detail(&work).await.failed), (1, 0));
    publish(&relay, 1).await;
    let told = RefCell::new(None);
    let since = tokio::time::Instant::now();
    let endless = one().await.run(
        async |mut job: Job| {
            told.replace(Some(job.ended().await));
            Verdict::Nack { delay: None, error: Some("too long".to_owned()) }
        },
        |_| {},
    );
    timeout(STUCK, endless).await.expect("it ends").expect("it has had its job");
    assert_eq!(told.into_inner(), Some(Code::MaxRunReached));
    assert!((2_500..4_000).contains(&since.elapsed().as_millis()), "shortly before: {:?}", since.elapsed());
    assert_eq!(detail(&work).await.failed, 1);
    relay.stop().await;
}

async fn a_claim_whose_answer_was_lost_is_repeated_and_nothing_is_stranded(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let (direct, through) = (work(relay.address.port()), work(proxy.port()));
    made(&direct, GroupUpdate { ack_wait: Some("1h".to_owned()), ..GroupUpdate::default() }).await;
    publish(&relay, 3).await;
    let worker = worker(&through, 3).await;
    let stopper = worker.stopper();
    proxy.swallow_replies_after(0);
    let deliveries = RefCell::new(Vec::new());
    let handler = async |job: Job| {
        deliveries.borrow_mut().push(job.delivered.delivery);
        DONE
    };
    let running = worker.run(&handler, |_| {});
    let breaking = async {
        eventually(STUCK, async || detail(&direct).await.in_flight == 3).await;
        proxy.heal();
        proxy.cut();
        eventually(STUCK, async || detail(&direct).await.done == 3).await;
        stopper.drain();
    };
    let (ended, ()) = timeout(STUCK, async { tokio::join!(running, breaking) }).await.expect("it ends");
    ended.expect("it was drained");
    // The same ones; or others, where the relay has noticed first that nobody got them. None waits out its hour.
    let deliveries = deliveries.into_inner();
    assert!(deliveries == [1, 1, 1] || deliveries == [2, 2, 2], "{deliveries:?}");
    assert_eq!(detail(&direct).await.failed, 0);
    relay.stop().await;
}

async fn an_ack_whose_answer_was_lost_counts(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let (direct, through) = (work(relay.address.port()), work(proxy.port()));
    made(&direct, GroupUpdate { ack_wait: Some("1h".to_owned()), ..GroupUpdate::default() }).await;
    publish(&relay, 1).await;
    let worker = worker(&through, 1).await;
    let stopper = worker.stopper();
    let settled = RefCell::new(Vec::new());
    let handler = async |_: Job| {
        proxy.swallow_replies_after(0);
        DONE
    };
    let running = worker.run(&handler, |event| {
        if let WorkerEvent::Finished(finished) = event {
            settled.borrow_mut().push(finished.settled.expect("it was told"));
        }
    });
    let breaking = async {
        eventually(STUCK, async || detail(&direct).await.done == 1).await;
        proxy.heal();
        proxy.cut();
        eventually(STUCK, async || !settled.borrow().is_empty()).await;
        stopper.drain();
    };
    let (ended, ()) = timeout(STUCK, async { tokio::join!(running, breaking) }).await.expect("it ends");
    ended.expect("it was drained");
    let settled = settled.into_inner();
    assert_eq!((settled[0].status, settled[0].code), (SettledStatus::Acked, None), "{settled:?}");
    relay.stop().await;
}

async fn a_worker_that_is_drained_ends_what_runs_and_gives_back_the_rest(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let work = work(relay.address.port());
    made(&work, GroupUpdate { ack_wait: Some("1h".to_owned()), ..GroupUpdate::default() }).await;
    // What runs ends; what waits is left.
    publish(&relay, 3).await;
    let drained = worker(&work, 2).await;
    let stopper = drained.stopper();
    let handler = async |_: Job| {
        stopper.drain();
        sleep(Duration::from_millis(50)).await;
        DONE
    };
    timeout(STUCK, drained.run(&handler, |_| {})).await.expect("it ends").expect("it was drained");
    let after = detail(&work).await;
    assert_eq!((after.done, after.in_flight, after.waiting, after.failed), (2, 0, Some(1), 0));
    // One that waits for messages ends at once.
    let (idle, ended) = (worker(&work, 5).await, RefCell::new(false));
    let stopper = idle.stopper();
    let running = async {
        idle.run(async |_: Job| DONE, |_| {}).await.expect("it was drained");
        ended.replace(true);
    };
    let draining = async {
        eventually(STUCK, async || detail(&work).await.done == 3).await;
        sleep(Duration::from_millis(50)).await;
        assert!(!*ended.borrow(), "it waits for more");
        stopper.drain();
        let since = tokio::time::Instant::now();
        eventually(Duration::from_secs(5), async || *ended.borrow()).await;
        since.elapsed()
    };
    let ((), took) = timeout(STUCK, async { tokio::join!(running, draining) }).await.expect("it ends");
    assert!(took < Duration::from_millis(900), "{took:?}");
    // One that is to end at once drops what runs, and somebody else gets it.
    publish(&relay, 1).await;
    let dropped = worker(&work, 2).await;
    let stopper = dropped.stopper();
    let handler = async |_: Job| {
        stopper.release();
        std::future::pending().await
    };
    timeout(STUCK, dropped.run(&handler, |_| {})).await.expect("it ends").expect("it was told to");
    let bob = ConsumerName::parse("bob").expect("a name");
    let claim = ClaimRequest { consumer: bob, max: None, wait: Some("10s".to_owned()), claim_id: None };
    let since = tokio::time::Instant::now();
    let held = work.claim(&topic("jobs"), &group(), &claim).await.expect("an answer");
    assert_eq!(held.len(), 1);
    assert!(held[0].delivery > 1 && since.elapsed() < Duration::from_secs(5), "{held:?}");
    assert_eq!(detail(&work).await.failed, 0);
    relay.stop().await;
}

async fn a_worker_goes_on_when_the_relay_is_back_and_ends_where_the_group_is_gone(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let (direct, through) = (work(relay.address.port()), work(proxy.port()));
    made(&direct, GroupUpdate::default()).await;
    let worker = worker(&through, 1).await;
    let told = RefCell::new(Vec::new());
    let running = worker.run(
        async |_: Job| DONE,
        |event| {
            told.borrow_mut().push(match event {
                WorkerEvent::Away(_) => "away",
                WorkerEvent::Back => "back",
                WorkerEvent::Finished(_) => "finished",
                WorkerEvent::Claimed(_) => "claimed",
            });
        },
    );
    let breaking = async {
        eventually(STUCK, async || proxy.open() > 0).await;
        proxy.refuse(true);
        proxy.cut();
        eventually(STUCK, async || told.borrow().contains(&"away")).await;
        proxy.refuse(false);
        publish(&relay, 1).await;
        eventually(STUCK, async || told.borrow().contains(&"finished")).await;
        let path = "/api/v1/topics/jobs/groups/workers";
        assert_eq!(relay.send("DELETE", path, &[], b"").await.status, 204);
    };
    let (ended, ()) = timeout(STUCK, async { tokio::join!(running, breaking) }).await.expect("it ends");
    let ClientError::Refused(refusal) = ended.expect_err("it cannot go on") else { panic!("it was refused") };
    assert_eq!(refusal.code, Code::GroupNotFound);
    assert_eq!(*told.borrow(), ["away", "back", "claimed", "finished"]);
    relay.stop().await;
}
