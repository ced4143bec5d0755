//! R11: a primary of a cluster that hangs delays what lives there, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use tidemill::storage::Backend as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{DEADLINE, Node};
use crate::support::cluster::{Cluster, slot_of};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::relay::try_send;
use crate::support::server::Kind;

/// How long each part is measured, and with how many publishers.
const MEASURED: Duration = Duration::from_secs(2);
const PUBLISHERS: usize = 4;
/// What a machine that does other things adds to the slowest of a hundred.
pub(super) const NOISE: Duration = Duration::from_millis(5);

/// Publishes to topics for a while, and returns how long each publish took, the shortest first.
pub(super) async fn measured(node: SocketAddr, topics: &[String]) -> Vec<Duration> {
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        let path = format!("/api/v1/topics/{}/messages", topics[number % topics.len()]);
        publishers.spawn(async move {
            let mut took = Vec::new();
            let end = Instant::now() + MEASURED;
            while Instant::now() < end {
                let began = Instant::now();
                let answer =
                    try_send(node, "POST", &path, &[("content-type", "application/json")], b"1").await;
                assert_eq!(answer.expect("an answer").status, 201);
                took.push(began.elapsed());
            }
            took
        });
    }
    let mut all: Vec<Duration> = publishers.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

pub(super) fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_delays_only_its_own_topics() {
    let Some(cluster) = Cluster::start_with(Kind::Valkey, 3, 0, &["--cluster-node-timeout", "60000"]).await
    else {
        return;
    };
    let node = Node::start(cluster.ports()[1]).await;
    // It is ready with one of them.
    assert!(node.valkey.ready(SOON).await);
    let address = node.relay.address;
    let of = |primary: u16| {
        let is_of = |name: &String| slot_of(name.as_bytes()) / 5_462 == primary;
        (0..10_000).map(|number| format!("of-{primary}-{number}")).find(is_of).expect("there is one")
    };
    let (hangs, others) = (of(0), [of(1), of(2)]);
    assert_eq!(node.publish(&hangs, "1", None).await.status, 201);
    let before = measured(address, &others).await;
    cluster.stop(0);
    let asked = Instant::now();
    let (refused, during) = tokio::join!(
        async {
            let answer = node.publish(&hangs, "2", None).await;
            (answer.status, asked.elapsed())
        },
        measured(address, &others)
    );
    assert!(matches!(refused.0, 503 | 504) && refused.1 < DEADLINE, "{refused:?}");
    // It is known to hang by then, or is found out.
    let later = measured(address, &others).await;
    let refused = node.publish(&hangs, "3", None).await.status;
    assert!(matches!(refused, 503 | 504), "{refused}");
    assert_eq!(node.relay.get("/ready").await.status, 200, "it serves the others");
    cluster.cont(0);
    eventually(SOON, async || node.publish(&hangs, "4", None).await.status == 201).await;
    let [before, during, later] = [before, during, later].map(|sorted| (sorted.len(), p99(&sorted)));
    eprintln!(
        "publishes and their p99: {before:?} before, {during:?} as it hangs, {later:?} once that is known"
    );
    for (_, slow) in [during, later] {
        assert!(slow <= 2 * before.1.max(NOISE), "{slow:?}, before {before:?}");
    }
    node.stop().await;
}
