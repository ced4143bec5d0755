//! Several servers that topics are placed on by their names: each has what the settings say, and one that is away or hangs
//! takes nothing else along.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemill::clock::Clock;
use tidemill::proto::health::HealthStatus;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{Delivery, Durability, TopicName, TopicSelector};
use tidemill::storage::valkey::check::{self, Outcome};
use tidemill::storage::valkey::{DurabilityRule, Placed, Target, Valkey, ValkeyOptions};
use tidemill::storage::{Backend as _, Selection};
use tokio::time::Instant;

use super::shards::{NOISE, measured, p99};
use super::working::{ask, claim, fill, told};
use super::{DEADLINE, Node};
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::ground::{LIMITS, SOON, append_all, json as body, message, node, topic};
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};
use crate::support::ws::{Got, WsClient};
use tidemill::storage::NewSchedule;

/// Returns a server that has the topics of some names.
fn placed(names: &[&str], port: u16) -> Placed {
    Placed {
        topics: names.iter().map(|name| TopicSelector::parse(name).expect(name)).collect(),
        target: Target::parse(&format!("valkey://127.0.0.1:{port}")).expect("the URL is right"),
        password_file: None,
        sentinel_tls: false,
    }
}

/// Two servers, of which the second has `eu.*`, and `*.dead`.
struct Two {
    first: Server,
    second: Server,
}

impl Two {
    async fn start() -> Option<Self> {
        let first = Server::start(Kind::Valkey, &[]).await?;
        Some(Self { first, second: Server::start(Kind::Valkey, &[]).await? })
    }

    fn change(&self, options: &mut ValkeyOptions) {
        options.placed = vec![placed(&["eu.*", "*.dead"], self.second.port())];
        options.sweep_interval = Duration::from_millis(50);
    }

    async fn node(&self) -> Node {
        let node = Node::start_with(self.first.port(), |options, _| self.change(options)).await;
        node.is_ready_within(SOON).await;
        assert!(node.valkey.ready(SOON).await);
        node
    }

    /// Returns on which of the servers a key is.
    async fn has(&self, key: &str) -> [bool; 2] {
        let mut has = [false; 2];
        for (server, has) in [&self.first, &self.second].into_iter().zip(&mut has) {
            *has = server.command(&["EXISTS", key]).await.integer() == 1;
        }
        has
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_name_is_where_that_says_and_lists_are_of_all() {
    let Some(two) = Two::start().await else { return };
    let (node, other) = (two.node().await, two.node().await);
    let names = ["a", "eu.b", "eu.c", "f", "eu.z", "zz"];
    let all: Vec<TopicName> = names.iter().map(|name| topic(name)).collect();
    append_all(&node.storage, all.iter().map(|topic| message(topic, body("1"))).collect()).await;
    for name in names {
        let is_second = name.starts_with("eu.");
        assert_eq!(two.has(&format!("stream:topic:{name}")).await, [!is_second, is_second], "{name}");
        assert_eq!(two.has(&format!("meta:topic:{name}")).await, [!is_second, is_second], "{name}");
    }
    for storage in [&node.storage, &other.storage] {
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(storage.topics.names("", None, 10).await.unwrap(), sorted);
        assert_eq!(storage.topics.names("", Some(&topic("eu.b")), 2).await.unwrap(), sorted[2..4]);
        assert_eq!(storage.topics.names("eu.", None, 10).await.unwrap(), sorted[1..4]);
        let page = storage.topics.list(Selection::default(), Some(&topic("a")), 3).await.unwrap();
        let listed: Vec<_> = page.topics.into_iter().map(|topic| topic.topic_name).collect();
        assert_eq!(listed, sorted[1..4]);
        let stats = storage.topics.stats().await.unwrap();
        assert_eq!((stats.total_topics, stats.total_messages), (6, 6));
    }
    // What is beside a topic is with it, and what has another kind of name where that says.
    let relay = &node.relay;
    for (path, is_second) in [("keys/flows/k", false), ("keys/eu.flows/k", true)] {
        let kind = [("content-type", "application/json")];
        let put = relay.send("PUT", &format!("/api/v1/{path}"), &kind, b"1").await;
        assert!(matches!(put.status, 200 | 201), "{}", put.text());
        let bucket = path.split('/').nth(1).expect("a bucket");
        assert_eq!(two.has(&format!("bucket:{{keys/{bucket}}}:values")).await, [!is_second, is_second]);
    }
    let take = r#"{"policies": [{"limit": 5, "per": "1m"}]}"#;
    let take = relay.post("/api/v1/limits/eu.calls/take", take).await;
    assert_eq!(take.status, 200, "{}", take.text());
    assert_eq!(two.has("tidemill:taken:eu.calls").await, [false, true]);
    for name in ["a", "eu.b"] {
        let far = Delivery::After(Duration::from_hours(1));
        let new = NewSchedule { message: message(&topic(name), body("2")), delivery: far, ttl: None };
        node.storage.schedules.schedule(vec![new]).await.pop().expect("a result").unwrap();
        let is_second = name == "eu.b";
        assert_eq!(two.has(&format!("schedule:{{{name}}}:due")).await, [!is_second, is_second]);
    }
    assert_eq!(node.storage.schedules.count_waiting().await.unwrap(), 2);
    assert_eq!(two.has("tidemill:schedules").await, [true, true]);
    let deleted = node.storage.topics.delete(&topic("eu.z")).await;
    assert!(deleted.is_ok());
    assert_eq!(other.storage.topics.names("eu.", None, 10).await.unwrap(), ["eu.b", "eu.c"].map(topic));
    node.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_may_live_elsewhere_and_come_back() {
    let Some(two) = Two::start().await else { return };
    let node = two.node().await;
    let address = node.relay.address;
    fill(address, "jobs", &json!({}), 1).await;
    let held = claim(address, "jobs", "c", 1, "0s").await.expect("a claim");
    let reject = json!({"receipts": [held[0]["receipt"]], "reason": "bad"});
    assert_eq!(ask(address, "POST", "/api/v1/work/reject", &reject).await.expect("an answer").status, 200);
    eventually(SOON, async || two.has("stream:topic:jobs.g.dead").await == [false, true]).await;
    let redriven = ask(address, "POST", "/api/v1/topics/jobs/groups/g/redrive", &json!({"all": true})).await;
    assert_eq!(redriven.expect("an answer").status, 200);
    let again = claim(address, "jobs", "c", 1, "5s").await.expect("a claim");
    assert_eq!(again[0]["id"], held[0]["id"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_another_node_hear_of_every_server() {
    let Some(two) = Two::start().await else { return };
    let (node, other) = (two.node().await, two.node().await);
    let topics = ["us.a", "eu.a"];
    for name in topics {
        assert_eq!(node.publish(name, "0", None).await.status, 201);
    }
    for name in topics {
        let mut reader = WsClient::connect(other.relay.address).await;
        reader.subscribe(name, "earliest").await;
        assert!(matches!(reader.got().await, Got::Message(..)), "{name}: what was there");
        // The first may come before the doorbell is listened to.
        let mut took = Vec::new();
        for number in 1..=20 {
            let began = Instant::now();
            assert_eq!(node.publish(name, &number.to_string(), None).await.status, 201);
            assert!(matches!(reader.got().await, Got::Message(..)), "{name}: {number}");
            took.push(began.elapsed());
        }
        took.sort_unstable();
        assert!(took[10] < Duration::from_millis(200), "{name}: a doorbell is heard: {took:?}");
        reader.close().await;
    }
    let mut reader = WsClient::connect(other.relay.address).await;
    reader.subscribe("*.a", "latest").await;
    for name in ["us.a", "eu.a", "eu.new.a", "us.new.a"] {
        assert_eq!(node.publish(name, "21", None).await.status, 201);
        assert!(matches!(reader.got().await, Got::Message(..)), "{name}: read by a pattern");
    }
    node.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_delays_only_its_own_topics() {
    let Some(two) = Two::start().await else { return };
    let node = two.node().await;
    let (address, others) = (node.relay.address, ["us.a".to_owned(), "us.b".to_owned()]);
    assert_eq!(node.publish("eu.a", "1", None).await.status, 201);
    let before = measured(address, &others).await;
    two.second.sigstop();
    let asked = Instant::now();
    let (refused, during) = tokio::join!(
        async { (node.publish("eu.a", "2", None).await.status, asked.elapsed()) },
        measured(address, &others)
    );
    assert!(matches!(refused.0, 503 | 504) && refused.1 < DEADLINE, "{refused:?}");
    // New topics elsewhere need nothing of it.
    let later = measured(address, &["us.c".to_owned()]).await;
    assert_eq!(node.relay.get("/ready").await.status, 200, "it serves the others");
    two.second.sigcont();
    eventually(SOON, async || node.publish("eu.a", "4", None).await.status == 201).await;
    let [before, during, later] = [before, during, later].map(|sorted| p99(&sorted));
    eprintln!("p99 of publishes: {before:?} before, {during:?} as it hangs, {later:?} once that is known");
    for slow in [during, later] {
        assert!(slow <= 2 * before.max(NOISE), "{slow:?}, before {before:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_named_and_the_others_serve() {
    let Some(mut two) = Two::start().await else { return };
    let node = two.node().await;
    assert_eq!(node.publish("eu.a", "1", None).await.status, 201);
    let [first, second] = [two.first.port(), two.second.port()].map(|port| format!("127.0.0.1:{port}"));
    let health = node.storage.upkeep.health().await;
    assert_eq!(health.status, HealthStatus::Healthy);
    let told: Vec<_> =
        health.backend.servers.iter().map(|server| (&server.address, server.topics.len())).collect();
    assert_eq!(told, [(&first, 0), (&second, 2)]);
    assert!(health.backend.servers.iter().all(|server| server.connected && server.slots.is_none()));
    let alike: Vec<_> =
        health.backend.warnings.iter().filter(|warning| warning.contains("append-only")).collect();
    assert!(matches!(&alike[..], [one] if one.starts_with("every server: ")), "{alike:?}");
    two.second.kill9();
    eventually(SOON, async || node.relay.get("/ready").await.json()["away"] == json!([second])).await;
    assert_eq!(node.relay.get("/ready").await.status, 200);
    assert_eq!(node.publish("us.a", "1", None).await.status, 201);
    assert_eq!(node.publish("eu.a", "2", None).await.status, 503);
    let health = node.storage.upkeep.health().await;
    assert_eq!((health.status, health.backend.connected), (HealthStatus::Degraded, false));
    let warnings = &health.backend.warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with(&format!("{second}: no connection"))));
    assert_eq!((health.backend.host, health.backend.port), (None, None), "there are several");
    assert_eq!(health.backend.server.as_deref(), Some("valkey"));
    let listed = node.storage.topics.list(Selection::default(), None, 10).await.expect_err("it is of all");
    let cause = std::error::Error::source(&listed).expect("there is a cause").to_string();
    assert!(cause.contains(&second), "{cause}");
    let metrics = node.relay.get("/metrics").await;
    let up = |server: &str, is: u8| format!("tidemill_server_up{{server=\"{server}\"}} {is}");
    for line in [up(&first, 1), up(&second, 0)] {
        assert!(metrics.text().lines().any(|told| told == line), "{line}");
    }
    assert!(!metrics.text().contains("tidemill_server_slots{"));
    two.second.restart().await;
    eventually(SOON, async || node.publish("eu.a", "3", None).await.status == 201).await;

    two.first.kill9();
    eventually(SOON, async || node.relay.get("/ready").await.json()["away"] == json!([first])).await;
    for name in ["eu.a", "eu.new"] {
        assert_eq!(node.publish(name, "4", None).await.status, 201, "{name}");
    }
    let page = node.relay.get("/api/v1/topics?match=eu.*").await;
    assert_eq!((page.status, page.json().as_array().map(Vec::len)), (200, Some(2)), "{}", page.text());
    assert_eq!(node.relay.get("/api/v1/topics").await.status, 503);
    // Of those that are there, it is told what they are.
    let server = async || node.storage.upkeep.health().await.backend.server;
    eventually(SOON, async || server().await.as_deref() == Some("valkey")).await;
    two.second.command(&["ZADD", "tidemill:topics", "0", "eu.ghost"]).await;
    let is_mended = async || {
        assert!(node.storage.upkeep.sweep().await.is_err(), "one cannot be swept");
        two.second.command(&["ZRANK", "tidemill:topics", "eu.ghost"]).await == Reply::Null
    };
    eventually(SOON, is_mended).await;
    two.first.restart().await;
    eventually(SOON, async || node.publish("us.a", "5", None).await.status == 201).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_groups_those_that_are_there_are_worked_on_and_read() {
    let Some(mut two) = Two::start().await else { return };
    let node = two.node().await;
    let address = node.relay.address;
    for topic in ["eu.jobs", "us.jobs"] {
        fill(address, topic, &json!({}), 8).await;
    }
    let claim_from = async |order: &str, topics: [&str; 2], max: usize| {
        let from = topics.map(|topic| json!({"topic": topic, "group": "g"}));
        let claim = json!({"consumer": "c", "from": from, "order": order, "max": max});
        ask(address, "POST", "/api/v1/work/claim", &claim).await.expect("an answer")
    };
    let mut reader = WsClient::connect(address).await;
    for topic in ["eu.jobs", "us.jobs"] {
        reader.subscribe(topic, "latest").await;
    }
    two.second.kill9();
    let second = format!("127.0.0.1:{}", two.second.port());
    eventually(SOON, async || node.relay.get("/ready").await.json()["away"] == json!([second])).await;
    let (away_first, away_last) = (["eu.jobs", "us.jobs"], ["us.jobs", "eu.jobs"]);
    let claims = [("strict", away_first, 2), ("weighted", away_first, 2), ("weighted", away_last, 2)];
    // The last one asks for more than there is.
    for (order, topics, max) in claims.into_iter().chain([("strict", away_last, 5)]) {
        let claimed = claim_from(order, topics, max).await;
        assert_eq!(claimed.status, 200, "{order} of {topics:?}: {}", claimed.text());
        let claimed = claimed.json();
        let messages = claimed["messages"].as_array().expect("messages");
        assert_eq!(messages.len(), 2, "{order} of {topics:?}");
        assert!(messages.iter().all(|message| message["delivery"] == 1), "{messages:?}");
    }
    for order in ["strict", "weighted"] {
        assert_eq!(claim_from(order, away_last, 2).await.status, 503, "nothing is there, and one is away");
    }
    let group = told(address, "us.jobs").await;
    assert_eq!((&group["in_flight"], &group["redelivered"]), (&json!(8), &json!(0)), "{group}");
    assert_eq!(node.publish("us.jobs", "9", None).await.status, 201);
    assert!(matches!(reader.got().await, Got::Message(..)), "what is read goes on");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_elsewhere_before_is_told_and_left_alone() {
    let Some(two) = Two::start().await else { return };
    // From before `eu.*` was placed.
    let alone = Node::start(two.first.port()).await;
    for name in ["eu.old", "us.old"] {
        assert_eq!(alone.publish(name, "1", None).await.status, 201);
    }
    let due = Delivery::At(alone.storage.upkeep.now());
    let new = NewSchedule { message: message(&topic("eu.old"), body("2")), delivery: due, ttl: None };
    alone.relay.stop().await;
    alone.storage.schedules.schedule(vec![new]).await.pop().expect("a result").unwrap();
    alone.valkey.close().await;
    let node = two.node().await;
    let warnings = node.valkey.examine(false).await.expect("they can be used");
    let first = format!("127.0.0.1:{}: ", two.first.port());
    let told: Vec<_> = warnings.iter().filter(|warning| warning.contains("VALKEY_PLACEMENT")).collect();
    assert!(
        matches!(&told[..], [one] if one.starts_with(&first) && one.contains("`eu.old`")),
        "{warnings:?}"
    );
    for _ in 0..3 {
        node.storage.upkeep.sweep().await.unwrap();
        assert_eq!(node.storage.topics.names("", None, 10).await.unwrap(), [topic("us.old")]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let listed = node.storage.topics.list(Selection::default(), None, 10).await.unwrap();
    assert_eq!(listed.topics.len(), 1);
    let rank = two.first.command(&["ZRANK", "tidemill:schedules", "eu.old"]).await;
    assert_eq!(rank, Reply::Null, "what is due there stands in front of nothing");
    let rank = two.first.command(&["ZRANK", "tidemill:topics", "eu.old"]).await;
    assert_ne!(rank, Reply::Null, "who copies it from there by a pattern finds it");
    assert_eq!(two.has("schedule:{eu.old}:due").await, [true, false]);
    assert_eq!(two.has("stream:topic:eu.old").await, [true, false]);
    node.storage.topics.create(&topic("eu.old"), TopicUpdate::default(), None).await.unwrap();
    assert_eq!(two.has("stream:topic:eu.old").await, [true, true]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_two_names_is_refused() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = |host: &str, database: u32| format!("valkey://{host}:{}/{database}", first.port());
    for (database, is_refused) in [(0, true), (1, false)] {
        let target = Target::parse(&url("127.0.0.1", 0)).expect("the URL is right");
        let beside = Target::parse(&url("localhost", database)).expect("the URL is right");
        let beside = Placed { target: beside, ..placed(&["eu.*"], 1) };
        let options = ValkeyOptions { placed: vec![beside], ..ValkeyOptions::new(target) };
        let valkey = Valkey::connect(node(), options, LIMITS, Clock::system());
        assert!(valkey.ready(SOON).await);
        let unfit = valkey.examine(false).await.err().map(|unfit| unfit.to_string());
        let told =
            unfit.as_ref().is_some_and(|unfit| unfit.contains("one server and database under two names"));
        assert_eq!(told, is_refused, "{unfit:?}");
        valkey.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_held_against_the_durability_of_what_lives_there() {
    let Some(two) = Two::start().await else { return };
    let rule = |topics: &str| DurabilityRule {
        topics: Some(TopicSelector::parse(topics).expect(topics)),
        durability: Durability { fsync: true, replicas: 0 },
    };
    let [first, second] = [two.first.port(), two.second.port()].map(|port| format!("127.0.0.1:{port}: "));
    let url = format!("valkey://127.0.0.1:{}", two.first.port());
    // The pattern is that of `us.x.dead`, too.
    let both = "every server: ".to_owned();
    for (topics, server) in [("eu.a", &second), ("us.a", &first), ("eu.b*", &second), ("us.*", &both)] {
        let mut options = ValkeyOptions::new(Target::parse(&url).expect("the URL is right"));
        two.change(&mut options);
        options.durabilities = Arc::new([rule(topics)]);
        let report = Box::pin(check::run(&options)).await;
        let checked = report.lines.into_iter().filter(|line| line.name == "durability");
        let checked: Vec<String> = checked.map(|line| line.detail).collect();
        let valkey = Valkey::connect(node(), options, LIMITS, Clock::system());
        assert!(valkey.ready(SOON).await);
        let warnings = valkey.examine(false).await.expect("they can be used");
        let warned: Vec<String> = warnings.into_iter().filter(|told| told.contains("DURABILITY")).collect();
        valkey.close().await;
        for told in [checked, warned] {
            assert!(matches!(&told[..], [told] if told.starts_with(server)), "{topics}: {told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_cluster_is_refused() {
    let Some(cluster) = Cluster::start(Kind::Valkey, 1, 0).await else { return };
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let target = Target::parse(&format!("valkey://127.0.0.1:{}", first.port())).expect("the URL is right");
    let beside = vec![placed(&["eu.*"], cluster.ports()[0])];
    let options = ValkeyOptions { placed: beside, ..ValkeyOptions::new(target) };
    let valkey = Valkey::connect(node(), options.clone(), LIMITS, Clock::system());
    valkey.ready(SOON).await;
    let unfit = valkey.examine(false).await.expect_err("it is part of a cluster").to_string();
    assert!(
        unfit.starts_with(&format!("127.0.0.1:{}: it is part of a cluster", cluster.ports()[0])),
        "{unfit}"
    );
    valkey.close().await;
    let report = Box::pin(check::run(&options)).await;
    let failed: Vec<_> = report.lines.iter().filter(|line| line.outcome == Outcome::Fail).collect();
    assert!(failed.iter().any(|line| line.name == "placement"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_names_of_one_server_are_refused_by_a_check_as_well() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let target = Target::parse(&format!("valkey://localhost:{}", server.port())).expect("the URL is right");
    let options =
        ValkeyOptions { placed: vec![placed(&["eu.*"], server.port())], ..ValkeyOptions::new(target) };
    let valkey = Valkey::connect(node(), options.clone(), LIMITS, Clock::system());
    assert!(valkey.ready(SOON).await);
    let unfit = valkey.examine(false).await.expect_err("it is one server").to_string();
    valkey.close().await;
    let report = Box::pin(check::run(&options)).await;
    let failed: Vec<_> = report.lines.iter().filter(|line| line.outcome == Outcome::Fail).collect();
    assert!(matches!(&failed[..], [line] if line.name == "placement" && line.detail == unfit), "{failed:?}");
    assert!(unfit.contains("are one server and database under two names"), "{unfit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_several_servers_is_checked_and_what_is_alike_said_once() {
    let Some(mut two) = Two::start().await else { return };
    let url = format!("valkey://127.0.0.1:{}", two.first.port());
    let mut options = ValkeyOptions::new(Target::parse(&url).expect("the URL is right"));
    two.change(&mut options);
    let [first, second] = [two.first.port(), two.second.port()].map(|port| format!("127.0.0.1:{port}"));
    let report = Box::pin(check::run(&options)).await;
    assert!(report.passed(), "{report:?}");
    let of = |name: &str| report.lines.iter().filter(|line| line.name == name).collect::<Vec<_>>();
    let placement = format!("`eu.*`, `*.dead` at {second}, everything else at {first}");
    assert_eq!(of("placement").iter().map(|line| &line.detail).collect::<Vec<_>>(), [&placement]);
    // How long a ping took may be alike, too.
    let connected = of("connect");
    assert!(
        matches!(&connected[..], [one, other] if one.detail.contains(&first) && other.detail.contains(&second))
    );
    for name in ["keys", "streams", "scripts", "groups", "doorbell", "persistence", "eviction"] {
        let lines = of(name);
        assert!(matches!(&lines[..], [line] if line.detail.starts_with("every server: ")), "{lines:?}");
    }
    for server in [&two.first, &two.second] {
        assert_eq!(server.command(&["DBSIZE"]).await.integer(), 0, "the check leaves nothing behind");
    }
    two.second.kill9();
    let report = Box::pin(check::run(&options)).await;
    let failed: Vec<_> = report.lines.iter().filter(|line| line.outcome == Outcome::Fail).collect();
    assert!(matches!(&failed[..], [line] if line.name == "connect" && line.detail.contains(&second)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_primary_of_a_cluster_is_checked() {
    let Some(cluster) = Cluster::start(Kind::Valkey, 3, 0).await else { return };
    let url = format!("valkey://127.0.0.1:{}", cluster.ports()[0]);
    let report =
        Box::pin(check::run(&ValkeyOptions::new(Target::parse(&url).expect("the URL is right")))).await;
    assert!(report.passed(), "{report:?}");
    let of = |name: &str| report.lines.iter().filter(|line| line.name == name).collect::<Vec<_>>();
    assert!(of("cluster")[0].detail.starts_with("3 primaries have 16384 of 16384 slots"), "{report:?}");
    let connected = of("connect");
    for (port, line) in cluster.ports().iter().zip(&connected) {
        assert!(line.detail.contains(&format!("127.0.0.1:{port}")), "{connected:?}");
    }
    assert_eq!((connected.len(), of("streams").len(), of("persistence").len()), (3, 1, 1));
    for port in cluster.ports() {
        let mut primary = crate::support::resp::Connection::open(port).await.expect("it listens");
        assert_eq!(primary.command(&["DBSIZE"]).await.expect("a reply").integer(), 0, "nothing is left");
    }
}
