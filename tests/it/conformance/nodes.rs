//! Nodes that share the storage.

use std::time::Duration;

use bytes::Bytes;
use tidemill::proto::NodeId;
use tidemill::storage::Storage;

use crate::support::ground::Ground;

fn node() -> NodeId {
    NodeId::new(tidemill::chance::random())
}

/// Returns what stands of the node: others belong to other tests.
async fn of(storage: &Storage, node: NodeId) -> Option<Bytes> {
    let nodes = storage.nodes.nodes().await.expect("it answers");
    assert!(nodes.is_sorted_by_key(|(node, _)| *node), "in the order of their ids");
    nodes.into_iter().find(|(other, _)| *other == node).map(|(_, document)| document)
}

pub(super) async fn a_node_is_listed_as_it_has_said_last_until_it_goes(ground: &Ground) {
    let storage = &ground.storage;
    let (one, two) = (node(), node());
    let long = Duration::from_mins(1);
    let first = Bytes::from_static("{\"a\": 1,\n \"é\": \"\\u0000\"}".as_bytes());
    assert!(storage.nodes.announce(one, first.clone(), long).await.expect("it answers"));
    assert!(storage.nodes.announce(two, Bytes::from_static(b"{}"), long).await.expect("it answers"));
    assert_eq!(of(storage, one).await, Some(first));
    let next = Bytes::from_static(b"{\"a\": 2}");
    assert!(storage.nodes.announce(one, next.clone(), long).await.expect("it answers"));
    assert_eq!(of(storage, one).await, Some(next));
    storage.nodes.retire(one).await.expect("it answers");
    storage.nodes.retire(one).await.expect("twice is once");
    assert_eq!(of(storage, one).await, None);
    assert_eq!(of(storage, two).await, Some(Bytes::from_static(b"{}")));
    storage.nodes.retire(two).await.expect("it answers");
}

pub(super) async fn a_node_that_says_nothing_more_is_forgotten(ground: &Ground) {
    let storage = &ground.storage;
    let (silent, other) = (node(), node());
    let short = Duration::from_millis(300);
    assert!(storage.nodes.announce(silent, Bytes::from_static(b"{}"), short).await.expect("it answers"));
    tokio::time::sleep(short * 2).await;
    assert_eq!(of(storage, silent).await, None, "without anybody who says something");
    assert!(storage.nodes.announce(other, Bytes::from_static(b"{}"), short).await.expect("it answers"));
    assert_eq!(of(storage, silent).await, None);
    assert!(of(storage, other).await.is_some());
}
