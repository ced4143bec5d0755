//! A cluster that its operators reshape under load: roles change by command, nodes come and go, all are restarted in turn,
//! and one is cut off for a while. Two nodes publish and read throughout.

use std::time::Duration;

use tidemill::proto::Durability;
use tokio::time::sleep;

use super::failover::Load;
use crate::support::cluster::{Cluster, NODE_TIMEOUT, slot_of};
use crate::support::server::Kind;

/// How long a primary is cut off beyond the time after which it is taken for gone.
const CUT_OFF: Duration = Duration::from_secs(3);

/// Has the replica of each primary take over, by command, which loses nothing.
async fn roles_change_by_command(kind: Kind) {
    let Some(cluster) = Cluster::start(kind, 3, 1).await else { return };
    let load = Load::begin(&cluster, Durability::ACCEPTED).await;
    for (at, topic) in load.topics.iter().enumerate() {
        load.goes_on(at).await;
        let primary = cluster.primary_of(slot_of(topic.as_str().as_bytes())).await;
        let replica = cluster.replicas_of(primary).await[0];
        cluster.failover(replica).await;
        cluster.settled().await;
        load.goes_on(at).await;
    }
    load.end(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_roles_change_by_command_nothing_is_lost_on_valkey() {
    roles_change_by_command(Kind::Valkey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_roles_change_by_command_nothing_is_lost_on_redis() {
    roles_change_by_command(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_and_goes_again_costs_nothing() {
    let Some(mut cluster) = Cluster::start(Kind::Valkey, 3, 0).await else { return };
    let load = Load::begin(&cluster, Durability::ACCEPTED).await;
    let slot = slot_of(load.topics[0].as_str().as_bytes());
    let before = cluster.primary_of(slot).await;
    let added = cluster.add_primary().await;
    cluster.move_slots(slot..=slot, before, added).await;
    load.goes_on(0).await;
    assert_eq!(cluster.primary_of(slot).await, added);
    cluster.migrate_slots(slot..=slot, added, before).await;
    load.goes_on(0).await;
    cluster.remove(added).await;
    cluster.settled().await;
    for at in 0..load.topics.len() {
        load.goes_on(at).await;
    }
    load.end(true).await;
}

/// As an operator restarts them: the replica first, and a primary once its replica has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn all_servers_of_a_cluster_are_restarted_in_turn_and_nothing_is_lost() {
    let Some(mut cluster) = Cluster::start(Kind::Valkey, 3, 1).await else { return };
    let load = Load::begin(&cluster, Durability::ACCEPTED).await;
    for (at, topic) in load.topics.iter().enumerate() {
        let primary = cluster.primary_of(slot_of(topic.as_str().as_bytes())).await;
        let replica = cluster.replicas_of(primary).await[0];
        cluster.kill(replica);
        cluster.restart(replica).await;
        cluster.settled().await;
        cluster.failover(replica).await;
        cluster.settled().await;
        cluster.kill(primary);
        cluster.restart(primary).await;
        cluster.settled().await;
        load.goes_on(at).await;
    }
    load.end(true).await;
}

/// It comes back believing that it is the primary still.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_cut_off_and_comes_back_hides_nothing() {
    let Some(cluster) = Cluster::start(Kind::Valkey, 3, 1).await else { return };
    let load = Load::begin(&cluster, Durability::ACCEPTED).await;
    load.goes_on(0).await;
    let primary = cluster.primary_of(slot_of(load.topics[0].as_str().as_bytes())).await;
    let replica = cluster.replicas_of(primary).await[0];
    cluster.stop(primary);
    cluster.promoted(replica).await;
    sleep(NODE_TIMEOUT + CUT_OFF).await;
    load.goes_on(0).await;
    cluster.cont(primary);
    cluster.settled().await;
    for at in 0..load.topics.len() {
        load.goes_on(at).await;
    }
    load.end(false).await;
}
