//! W7: relays are lost that were to write dead letters, or to have them worked on again.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::work::{ConsumerName, GroupName};
use tidemill::storage::{Claim, Settlement, Verdict};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Node;
use super::working::{ask, claim, fill, told};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::length;
use crate::support::process::Relay;
use crate::support::server::{Kind, Server};

/// W7: a relay is gone before it has written the dead letters that it was to write, and nobody claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_a_lost_relay_are_written_by_another() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let topic = crate::support::ground::topic("left");
    let group = GroupName::parse("g").expect("a name");
    fill(node.relay.address, "left", &json!({}), 1).await;
    let claim = Claim {
        topic: topic.clone(),
        group: group.clone(),
        consumer: ConsumerName::parse("c").expect("a name"),
        max: 1,
        bytes_max: 1_000,
        claim_id: None,
    };
    let work = &node.storage.work;
    let claimed = work.claim(vec![claim]).await.pop().expect("a result").expect("it is claimed");
    let verdict = Verdict::Reject("bad".into());
    let id = claimed.deliveries[0].message.id;
    let rejected = Settlement { epoch: claimed.epoch, id, delivery: 1, verdict };
    work.settle(&topic, &group, vec![rejected]).await.expect("it is settled");
    node.stop().await;
    let url = format!("redis://127.0.0.1:{}", server.port());
    let started = spawn_blocking(move || {
        let settings = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url.as_str())];
        Relay::start(&settings, &["--sweep-interval-ms=200"])
    });
    let relay = started.await.expect("it starts");
    let path = "/api/v1/topics/left.g.dead/messages";
    eventually(SOON, async || {
        let answer = ask(relay.address(), "GET", path, &json!({})).await;
        let letters = answer.filter(|answer| answer.status == 200).map(|answer| answer.json());
        letters.is_some_and(|page| page["messages"].as_array().is_some_and(|letters| letters.len() == 1))
    })
    .await;
    spawn_blocking(move || drop(relay)).await.expect("it ends");
}

/// W7: a relay is killed while it redrives: whatever it has come to, the next one finishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_is_cut_leaves_no_letter_behind() {
    const JOBS: usize = 400;
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let (address, url) = (node.relay.address, format!("redis://127.0.0.1:{}", server.port()));
    fill(address, "cut", &json!({"ack_wait": "10m"}), JOBS).await;
    let redrive = "/api/v1/topics/cut/groups/g/redrive";
    let all = json!({"all": true});
    let mut cut = 0;
    for round in 0..length::pick(3, 40) {
        let held = claim(address, "cut", "c", 1_000, "5s").await.expect("it is claimed");
        assert_eq!(held.len(), JOBS, "{round}");
        let receipts: Vec<&Value> = held.iter().map(|held| &held["receipt"]).collect();
        let body = json!({"receipts": receipts, "reason": "r"});
        assert_eq!(ask(address, "POST", "/api/v1/work/reject", &body).await.expect("an answer").status, 200);
        // It is a letter each before anybody redrives.
        let letters = async || {
            let answer =
                ask(address, "GET", "/api/v1/topics/cut.g.dead", &json!({})).await.expect("an answer");
            answer.json()["length"].as_u64()
        };
        eventually(SOON, async || letters().await == Some(JOBS as u64)).await;
        let url = url.clone();
        let lost =
            spawn_blocking(move || Relay::start(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], &[]));
        let lost = lost.await.expect("it starts");
        let other = lost.address();
        eventually(SOON, async || {
            ask(other, "GET", "/ready", &json!({})).await.is_some_and(|answer| answer.status == 200)
        })
        .await;
        let killed = async {
            sleep(Duration::from_millis(15 + 15 * (round % 5))).await;
            spawn_blocking(move || drop(lost)).await.expect("it is killed");
        };
        let (answer, ()) = tokio::join!(ask(other, "POST", redrive, &all), killed);
        cut += u32::from(answer.is_none());
        let rest = ask(address, "POST", redrive, &all).await.expect("an answer").json();
        assert_eq!((&rest["gone"], &rest["unknown"]), (&json!(0), &json!(0)), "{round}");
        let told = told(address, "cut").await;
        assert_eq!((&told["dead"], &told["waiting"]), (&json!(0), &json!(JOBS)), "{round}");
        assert_eq!(letters().await, Some(0), "{round}: no letter stays");
    }
    length::tell(format_args!("{cut} redrives were cut"));
    node.stop().await;
}
