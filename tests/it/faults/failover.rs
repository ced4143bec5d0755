//! R8, R9 in a cluster: primaries are killed in turn and their replicas take over, under load and with readers, through
//! two nodes. What is published meanwhile is refused, and is not two seconds after the promotion; what was accepted and
//! is gone with a primary is told to who has not read it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill::proto::page::Order;
use tidemill::proto::{Durability, MessageId, TopicName};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::support::cluster::{Cluster, slot_of};
use crate::support::eventually;
use crate::support::ground::{read_all, texts, topic};
use crate::support::length;
use crate::support::relay::{Answer, STUCK, try_send};
use crate::support::server::Kind;
use crate::support::ws::{Got, WsClient};

/// A moment, before one who was cut off or refused tries again.
const REST: Duration = Duration::from_millis(10);
/// After which time publishing works behind a promotion.
const WORKS_WITHIN: Duration = Duration::from_secs(2);
/// What is published last, so that a reader knows that it has everything.
const END: &str = "\"end\"";

/// What a publisher was told, in the order of its numbers.
#[derive(Debug, Default)]
pub(super) struct Told {
    accepted: Vec<u64>,
    pub(super) refused: u64,
    unknown: u64,
    last_accepted: Option<Instant>,
}

impl Told {
    /// Takes an answer; returns whether the number is done with.
    fn take(&mut self, number: u64, answer: &Answer) -> bool {
        match answer.status {
            200 | 201 => {
                self.accepted.push(number);
                self.last_accepted = Some(Instant::now());
            }
            503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                self.refused += 1;
            }
            504 => self.unknown += 1,
            _ => panic!("{answer:?}"),
        }
        answer.status != 503
    }
}

/// Publishes numbers, each until it is not refused any more.
async fn publish(
    node: SocketAddr,
    topic: TopicName,
    durability: Durability,
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
) {
    let path = format!("/api/v1/topics/{topic}/messages");
    let durability = durability.to_string();
    let headers = [("content-type", "application/json"), ("tidemill-durability", &durability)];
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        let answer = try_send(node, "POST", &path, &headers, number.to_string().as_bytes()).await;
        let answer = answer.expect("the relay answers");
        number += u64::from(told.lock().take(number, &answer));
        if answer.status >= 500 {
            sleep(REST).await;
        }
    }
}

/// What a reader was told: a number, or that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Number(u64),
    Gap,
}

/// Reads a topic to its end, from where it was cut off.
async fn read(node: SocketAddr, topic: TopicName) -> (TopicName, Vec<Read>) {
    let (mut all, mut last): (_, Option<MessageId>) = (Vec::new(), None);
    loop {
        let cursor = last.map_or_else(|| "earliest".to_owned(), |id| id.to_string());
        let Ok(mut client) = WsClient::try_connect(node).await else { continue };
        if client.try_subscribe(topic.as_str(), &cursor).await {
            loop {
                match client.got().await {
                    Got::Message(_, payload) if payload == END.as_bytes() => return (topic, all),
                    Got::Message(id, payload) => {
                        let number = std::str::from_utf8(&payload).expect("text").parse().expect("a number");
                        all.push(Read::Number(number));
                        last = Some(id);
                    }
                    Got::Gap(_) => all.push(Read::Gap),
                    Got::End | Got::Close(_) | Got::Lost => break,
                }
            }
        }
        sleep(REST).await;
    }
}

/// Checks that whatever was accepted was read, or stands where something was told to be missing.
fn nothing_is_missing_silently(topic: &TopicName, accepted: &[u64], read: &[Read]) {
    let seen: BTreeSet<u64> = read
        .iter()
        .filter_map(|read| match read {
            Read::Number(number) => Some(*number),
            Read::Gap => None,
        })
        .collect();
    let mut told: BTreeSet<u64> = BTreeSet::new();
    // Behind the greatest number in front of a gap, up to the first behind it.
    for (at, _) in read.iter().enumerate().filter(|(_, read)| **read == Read::Gap) {
        let number = |read: &&Read| **read != Read::Gap;
        let before = read[..at].iter().rfind(number).map_or(0, |read| match read {
            Read::Number(number) => number + 1,
            Read::Gap => 0,
        });
        let behind = read[at..].iter().find(number).map_or(u64::MAX, |read| match read {
            Read::Number(number) => *number,
            Read::Gap => 0,
        });
        told.extend(accepted.iter().filter(|number| (before..behind).contains(*number)).copied());
    }
    for number in accepted {
        assert!(
            seen.contains(number) || told.contains(number),
            "{topic}: {number} is missing, and nobody said so"
        );
    }
}

/// Returns a topic of each primary.
async fn topics_of(cluster: &Cluster) -> Vec<TopicName> {
    let mut topics = Vec::new();
    for primary in cluster.primaries().await {
        let has = |topic: &TopicName| {
            let slot = slot_of(topic.as_str().as_bytes());
            primary.slots.iter().any(|range| range.contains(&slot))
        };
        topics.extend((0..10_000).map(|number| topic(&format!("of-{}-{number}", primary.index))).find(has));
    }
    topics
}

#[tokio::test(flavor = "multi_thread")]
async fn primaries_that_are_killed_in_turn_are_replaced_and_nothing_is_missing_silently() {
    primaries_are_killed_in_turn(Kind::Valkey, Durability::ACCEPTED, length::pick(3, 50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn primaries_of_redis_that_are_killed_in_turn_are_replaced_and_nothing_is_missing_silently() {
    primaries_are_killed_in_turn(Kind::Redis, Durability::ACCEPTED, length::pick(3, 20)).await;
}

/// Each has one replica, which has what was acknowledged then.
#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_replica_has_received_nothing_is_lost_with_primaries_that_are_killed_in_turn() {
    let durability = Durability { fsync: false, replicas: 1 };
    primaries_are_killed_in_turn(Kind::Valkey, durability, length::pick(3, 50)).await;
}

async fn primaries_are_killed_in_turn(kind: Kind, durability: Durability, rounds: usize) {
    let Some(mut cluster) = Cluster::start(kind, 3, 1).await else { return };
    let load = Load::begin(&cluster, durability).await;
    for round in 0..rounds {
        let at = round % load.topics.len();
        load.goes_on(at).await;
        let primary = cluster.primary_of(slot_of(load.topics[at].as_str().as_bytes())).await;
        let replica = cluster.replicas_of(primary).await[0];
        // Every other time the replica has not got the last of it.
        if round % 2 == 1 {
            cluster.stop(replica);
            sleep(Duration::from_millis(100)).await;
        }
        cluster.kill(primary);
        if round % 2 == 1 {
            cluster.cont(replica);
        }
        cluster.promoted(replica).await;
        // What is to reach a replica is kept once there is one again.
        if durability.is_accepted() {
            let promoted = Instant::now();
            let works = async || load.told[at].lock().last_accepted.is_some_and(|at| at > promoted);
            eventually(STUCK, works).await;
            let took = promoted.elapsed();
            eprintln!("round {round}: published again {took:?} after the promotion");
            assert!(took < WORKS_WITHIN, "{took:?}");
        }
        cluster.restart(primary).await;
        cluster.settled().await;
    }
    for told in load.end(!durability.is_accepted()).await {
        assert!(told.refused > 0, "there was nobody to publish to");
    }
}

/// Publishers and readers of a topic of each primary, through two nodes.
pub(super) struct Load {
    nodes: [Node; 2],
    pub(super) topics: Vec<TopicName>,
    told: Vec<Arc<Mutex<Told>>>,
    stop: CancellationToken,
    publishers: JoinSet<()>,
    readers: JoinSet<(TopicName, Vec<Read>)>,
}

impl Load {
    /// Begins to publish and to read.
    pub(super) async fn begin(cluster: &Cluster, durability: Durability) -> Self {
        let ports = cluster.ports();
        let nodes = [Node::start(ports[0]).await, Node::start(ports[ports.len() - 2]).await];
        let addresses = [nodes[0].relay.address, nodes[1].relay.address];
        let topics = topics_of(cluster).await;
        let stop = CancellationToken::new();
        let (mut publishers, mut readers) = (JoinSet::new(), JoinSet::new());
        let told: Vec<Arc<Mutex<Told>>> = topics.iter().map(|_| Arc::default()).collect();
        for (at, topic) in topics.iter().enumerate() {
            let (node, told) = (addresses[at % 2], told[at].clone());
            publishers.spawn(publish(node, topic.clone(), durability, told, stop.clone()));
            for node in addresses {
                readers.spawn(read(node, topic.clone()));
            }
        }
        Self { nodes, topics, told, stop, publishers, readers }
    }

    /// Waits until some more of a topic were accepted.
    pub(super) async fn goes_on(&self, at: usize) {
        let accepted = || self.told[at].lock().accepted.len();
        let before = accepted();
        eventually(STUCK, async || accepted() >= before + 50).await;
    }

    /// Ends it, and checks that nothing is missing silently, or nothing at all. Returns what publishers were told.
    pub(super) async fn end(self, is_whole: bool) -> Vec<Told> {
        let Self { nodes, topics, told, stop, publishers, readers } = self;
        stop.cancel();
        publishers.join_all().await;
        for topic in &topics {
            eventually(STUCK, async || nodes[0].publish(topic.as_str(), END, None).await.status == 201).await;
        }
        for (name, read) in timeout(STUCK, readers.join_all()).await.expect("all come to the end") {
            let at = topics.iter().position(|topic| *topic == name).expect("it is one of them");
            nothing_is_missing_silently(&name, &told[at].lock().accepted, &read);
        }
        let mut all = Vec::new();
        for (topic, told) in topics.iter().zip(told) {
            let kept: BTreeSet<String> =
                texts(&read_all(&nodes[1].storage, topic, Order::Asc, 1_000).await).into_iter().collect();
            let told = std::mem::take(&mut *told.lock());
            let lost = told.accepted.iter().filter(|number| !kept.contains(&number.to_string())).count();
            let accepted = told.accepted.len();
            eprintln!(
                "{topic}: {accepted} accepted, of which {lost} are gone, {} refused, {} unknown",
                told.refused, told.unknown
            );
            assert!(!is_whole || lost == 0, "{topic}: {lost} of {accepted} are lost");
            all.push(told);
        }
        for node in nodes {
            node.stop().await;
        }
        all
    }
}
