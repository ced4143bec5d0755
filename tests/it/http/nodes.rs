//! The nodes that share a storage, as each says of itself.

use std::time::Duration;

use serde_json::Value;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::eventually;
use crate::support::process::{Relay, run};
use crate::support::relay::{STUCK, TestRelay};
use crate::support::ws::WsClient;

on_every_backend![nodes_are_listed_while_they_serve];

/// Returns what `asked` is told of the node that listens there: others belong to other tests.
async fn told(asked: &TestRelay, about: &TestRelay) -> Option<Value> {
    let list = asked.get("/api/v1/admin/nodes").await;
    assert_eq!(list.status, 200, "{list:?}");
    let listens = |node: &Value| {
        let listening = node["listening"].as_array().expect("a list");
        listening.iter().any(|at| at.as_str().is_some_and(|at| at.contains(&about.address.to_string())))
    };
    list.json()["nodes"].as_array().expect("a list").iter().find(|node| listens(node)).cloned()
}

async fn nodes_are_listed_while_they_serve(storage: Storage) {
    let first = TestRelay::start(storage.clone()).await;
    let second =
        TestRelay::start_with(storage, |options| options.drain_notice = Duration::from_secs(2)).await;
    for (asked, about) in [(&first, &second), (&second, &first), (&first, &first)] {
        eventually(STUCK, async || told(asked, about).await.is_some()).await;
        let node = told(asked, about).await.expect("it is there");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"), "{node}");
        assert_eq!(node["stopping"], false, "{node}");
    }
    let answered = first.get("/api/v1/admin/nodes").await.json()["node"].clone();
    assert_eq!(answered, told(&second, &first).await.expect("it is there")["node"]);

    // One that was told to stop says so at once, and is gone from the list when it has.
    let mut socket = WsClient::connect(second.address).await;
    socket.subscribe("t", "latest").await;
    second.begin_stop();
    eventually(STUCK, async || {
        let node = told(&first, &second).await;
        node.is_some_and(|node| node["stopping"] == true && node["sessions"] == 1)
    })
    .await;
    let address = second.address;
    second.stop().await;
    let list = first.get("/api/v1/admin/nodes").await.text().to_owned();
    assert!(!list.contains(&address.to_string()), "{list}");
}

#[test]
fn the_command_shows_them() {
    let relay = Relay::start(&[], &[]);
    let ended = relay.run(&["nodes"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let shown = ended.lines().join("\n");
    assert!(shown.contains("serves, has answered"), "{shown}");
    assert!(shown.ends_with("1 node"), "{shown}");
    let refused = run(&[], &["nodes", "--url", "http://127.0.0.1:1"], "");
    assert_ne!(refused.code, Some(0), "{refused:?}");
}
