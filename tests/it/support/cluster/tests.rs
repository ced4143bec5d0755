//! Whether the cluster is one, and does what tests ask of it.

use std::collections::HashMap;

use super::*;

/// Returns a key of each slot of a range.
fn keys_of(slots: RangeInclusive<u16>) -> Vec<String> {
    let mut found = HashMap::new();
    for number in 0_u32.. {
        let key = format!("{{{number}}}");
        let slot = slot_of(key.as_bytes());
        if slots.contains(&slot) {
            found.entry(slot).or_insert(key);
        }
        if found.len() == slots.clone().count() {
            break;
        }
    }
    found.into_values().collect()
}

async fn serves(cluster: &Cluster, index: usize, slots: RangeInclusive<u16>) {
    cluster.settled().await;
    for slot in [*slots.start(), *slots.end()] {
        assert_eq!(cluster.primary_of(slot).await, index, "slot {slot}");
    }
}

async fn is_a_cluster(kind: Kind) {
    let began = Instant::now();
    let Some(mut cluster) = Cluster::start(kind, 3, 1).await else { return };
    eprintln!("formed in {:?}", began.elapsed());
    let primaries = cluster.primaries().await;
    let slots: Vec<_> = primaries.iter().map(|primary| primary.slots.clone()).collect();
    assert_eq!(slots, [[0..=5460], [5461..=10_921], [10_922..=16_383]].map(Vec::from));
    assert_eq!(primaries.iter().map(|primary| primary.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(cluster.replicas_of(1).await, [4]);
    assert_eq!((cluster.len(), cluster.ports()[1]), (6, primaries[1].port));
    assert_eq!(cluster.node(1).command(&["CLUSTER", "MYID"]).await.text(), cluster.id(1));
    for key in ["foo", "stream:topic:{orders}", "{}x", "{user1000}.following"] {
        let told = cluster.node(0).command(&["CLUSTER", "KEYSLOT", key]).await.integer();
        assert_eq!(i64::from(slot_of(key.as_bytes())), told, "{key}");
    }

    // By command, and back.
    cluster.failover(3).await;
    serves(&cluster, 3, 0..=5460).await;
    assert_eq!(cluster.replicas_of(3).await, [0]);
    cluster.failover(0).await;
    serves(&cluster, 0, 0..=5460).await;

    // Keys go along, the old way and the new one.
    let keys = keys_of(5461..=5464);
    for key in &keys {
        assert_eq!(cluster.node(1).command(&["SET", key, "kept"]).await.text(), "OK");
    }
    cluster.move_slots(5461..=5464, 1, 2).await;
    serves(&cluster, 2, 5461..=5464).await;
    let mut at = 2;
    if kind == Kind::Valkey {
        cluster.migrate_slots(5461..=5464, 2, 0).await;
        serves(&cluster, 0, 5461..=5464).await;
        at = 0;
    }
    for key in &keys {
        assert_eq!(cluster.node(at).command(&["GET", key]).await.text(), "kept");
    }

    // A node more, and less.
    let added = cluster.add_primary().await;
    assert_eq!(added, 6);
    cluster.move_slots(5461..=5462, at, added).await;
    serves(&cluster, added, 5461..=5462).await;
    cluster.move_slots(5461..=5462, added, at).await;
    serves(&cluster, at, 5461..=5462).await;
    cluster.remove(added).await;

    // A frozen primary is replaced, and serves its replacement when it comes back.
    cluster.stop(2);
    cluster.promoted(5).await;
    cluster.cont(2);
    serves(&cluster, 5, 16_000..=16_001).await;
    assert_eq!(cluster.replicas_of(5).await, [2]);

    // One that is killed too.
    let began = Instant::now();
    cluster.kill(1);
    cluster.promoted(4).await;
    eprintln!("promoted {:?} after the primary was killed", began.elapsed());
    serves(&cluster, 4, 8_000..=8_001).await;
    cluster.restart(1).await;
    serves(&cluster, 4, 8_000..=8_001).await;
    assert_eq!(cluster.replicas_of(4).await, [1]);
}

#[tokio::test]
async fn valkey_is_a_cluster() {
    is_a_cluster(Kind::Valkey).await;
}

#[tokio::test]
async fn redis_is_a_cluster() {
    is_a_cluster(Kind::Redis).await;
}
