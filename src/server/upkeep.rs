//! What a node does on its own: sweeps of age retention, folding metrics, and making the first administrator.

use std::time::Duration;

use tidemill_proto::nodes::NodeInfo;
use tidemill_proto::{MessageId, NodeId};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Administration, FirstAdministrator, Refused};
use crate::chance::jittered;
use crate::metrics::{Metrics, WorkSwept};
use crate::relay::{ANNOUNCED_EVERY, ExpiriesReport, GroupsSwept, PromotionsReport, READS_TOLD_EVERY, Relay};

/// Time between two folds: samples take 16 bytes each until they are folded.
const FOLD_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time between two counts of what waits for later.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Time that a step of what is due gets to end when the node stops.
const STEP_MAX: Duration = Duration::from_millis(200);

/// Time between two tries to make the first administrator, at most.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);

/// The first administrator, to be made where nobody may administer the relay yet.
#[derive(Debug)]
pub(super) struct First {
    administration: Administration,
    wanted: FirstAdministrator,
    is_made: bool,
    /// Whether it was told that the last try has failed.
    is_told: bool,
    /// Whether it was told that there is nobody to be made.
    is_idle: bool,
}

/// What an operator should know who sets a password where somebody may administer the relay.
pub(super) const NO_EFFECT: &str = "has no effect any more: somebody may administer the relay already, as after the first start; `tidemill user password NAME` changes a password";

impl First {
    pub(super) const fn new(administration: Administration, wanted: FirstAdministrator) -> Self {
        Self { administration, wanted, is_made: false, is_told: false, is_idle: false }
    }

    /// Tries once. The first of several failures in a row is told.
    pub(super) async fn make(&mut self) {
        let made = self.administration.make_first(&self.wanted).await;
        let was_told = std::mem::replace(&mut self.is_told, made.is_err());
        // Where there was somebody at the first try that the storage has answered.
        if !self.is_made && !self.is_idle && matches!(made, Ok(false)) {
            self.is_idle = true;
            tracing::info!(name = self.wanted.name, "the password of the first administrator {NO_EFFECT}");
        }
        self.is_made |= made.is_ok();
        match made {
            Err(Refused::Problem(problem)) if !was_told => {
                tracing::error!("the first administrator is not made: {}; it is tried again", problem.detail);
            }
            Err(Refused::Read(error) | Refused::Change(error)) if !was_told => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the first administrator cannot be made yet; it is tried again");
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// Makes the first administrator where nobody may administer the relay, until the node stops: at its start, and
/// later where a storage has come back empty. Where there is none to be made, it is told that nobody is left.
pub(super) async fn keep_administered(mut first: Option<First>, access: Access, stop: CancellationToken) {
    let mut was_administered = false;
    while wait(jittered(FIRST_INTERVAL), &stop).await {
        let is_administered = access.has_administrator();
        if first.is_none() && was_administered && is_administered == Some(false) {
            tracing::warn!(
                "nobody may administer the relay any more; make an administrator with `tidemill user add NAME --role admin`, beside the storage"
            );
        }
        was_administered = is_administered.unwrap_or(was_administered);
        let is_due = |first: &&mut First| is_administered.map_or(!first.is_made, |is_it| !is_it);
        if let Some(first) = first.as_mut().filter(is_due)
            && stop.run_until_cancelled(first.make()).await.is_none()
        {
            return;
        }
    }
}

/// Returns what groups have, as it is measured.
fn work_of(relay: &Relay, groups: GroupsSwept) -> WorkSwept {
    let GroupsSwept { waiting, pending, dead, oldest, unattended } = groups;
    let age = |oldest: MessageId| relay.now().as_millis().saturating_sub(oldest.ms);
    WorkSwept { waiting, pending, dead, oldest: Duration::from_millis(oldest.map_or(0, age)), unattended }
}

/// Sweeps again and again until the node stops, after a half of `interval` to the whole of it.
pub(super) async fn sweep(
    relay: Relay,
    node: NodeId,
    interval: Duration,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut failing = false;
    while wait(jittered(interval), &stop).await {
        let swept = tokio::select! {
            swept = relay.sweep() => swept,
            () = stop.cancelled() => return,
        };
        match swept {
            Ok(swept) => {
                if failing {
                    tracing::info!(%node, "sweeps work again");
                }
                failing = false;
                if let Some(found) = swept.found {
                    metrics.node().swept(found.topics, &work_of(&relay, found.groups));
                }
                tracing::debug!(%node, topics = swept.topics, removed = swept.removed, "swept");
            }
            Err(failure) => {
                // The first of a row tells all; the others would only fill the log.
                if !failing {
                    tracing::warn!(%node, cause = %failure.chain(), "a sweep has failed; it is tried again");
                }
                failing = true;
            }
        }
    }
}

/// Publishes messages that are due until the node stops. What is under way then is finished.
pub(super) async fn promote(relay: Relay, node: NodeId, metrics: Metrics, stop: CancellationToken) {
    let mut promotions = relay.promotions();
    let mut failing = false;
    while !stop.is_cancelled() {
        let PromotionsReport { late, failures } = tokio::select! {
            report = promotions.step() => report,
            () = stopped(&stop) => return,
        };
        metrics.schedules().promoted(&late);
        if let Some(failure) = failures.first() {
            metrics.schedules().failed(failures.len());
            // The first of a row tells all.
            if !failing {
                let (detail, cause) = (&failure.problem().detail, failure.chain());
                tracing::warn!(%node, %detail, %cause, "what is due is not published; it is tried again");
            }
            failing = true;
        } else if failing && !late.is_empty() {
            tracing::info!(%node, "what is due is published again");
            failing = false;
        }
    }
}

/// Has keys expire that are due until the node stops. What is under way then is finished.
pub(super) async fn expire(relay: Relay, node: NodeId, metrics: Metrics, stop: CancellationToken) {
    let mut expiries = relay.expiries();
    let mut failing = false;
    while !stop.is_cancelled() {
        let ExpiriesReport { expired, failures } = tokio::select! {
            report = expiries.step() => report,
            () = stopped(&stop) => return,
        };
        metrics.keys().expired(expired);
        if let Some(failure) = failures.first() {
            metrics.keys().failed(failures.len());
            // The first of a row tells all.
            if !failing {
                let (detail, cause) = (&failure.problem().detail, failure.chain());
                tracing::warn!(%node, %detail, %cause, "keys that are due do not expire; it is tried again");
            }
            failing = true;
        } else if failing && expired > 0 {
            tracing::info!(%node, "keys that are due expire again");
            failing = false;
        }
    }
}

/// Tells the storage now and then how often keys are read, until the node stops, and then once more.
pub(super) async fn tell_reads(relay: Relay, node: NodeId, stop: CancellationToken) {
    let mut failing = false;
    let mut goes_on = true;
    while goes_on {
        goes_on = wait(jittered(READS_TOLD_EVERY), &stop).await;
        let failures = tokio::select! {
            failures = relay.tell_reads() => failures,
            () = stopped(&stop) => return,
        };
        // The first of a row tells all.
        if let Some(failure) = failures.first().filter(|_| !failing) {
            let (detail, cause) = (&failure.problem().detail, failure.chain());
            tracing::warn!(%node, %detail, %cause, "how often keys are read is not counted; it goes on with later reads");
        }
        failing = !failures.is_empty();
    }
}

/// Returns a while after the node is told to stop: a step that was begun ends within that time.
async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STEP_MAX).await;
}

/// Counts what waits for later until the node stops.
pub(super) async fn count_waiting(relay: Relay, metrics: Metrics, stop: CancellationToken) {
    while wait(jittered(COUNT_INTERVAL), &stop).await {
        if let Ok(count) = relay.count_waiting().await {
            metrics.schedules().waiting(count);
        }
    }
}

/// Says to all nodes that this one is there until it is `over`, at once when it was told to stop, and at last that it is
/// there no more.
pub(super) async fn announce(
    relay: Relay,
    node: NodeId,
    listening: Vec<String>,
    leaving: CancellationToken,
    over: CancellationToken,
) {
    let since = relay.clock().now();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut failing = false;
    loop {
        let stopping = leaving.is_cancelled();
        let about = NodeInfo {
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host.clone(),
            listening: listening.clone(),
            since,
            stopping,
            sessions: relay.sessions().count() as u64,
            told_at: relay.clock().now(),
        };
        let Some(told) = over.run_until_cancelled(relay.announce(&about)).await else { break };
        let is_told = matches!(told, Ok(true));
        match told {
            Ok(true) if failing => tracing::info!(%node, "is in the list of nodes again"),
            // The first of a row tells all.
            Ok(false) if !failing => tracing::warn!(%node, "is not in the list of nodes: there are too many"),
            Err(failure) if !failing => {
                let cause = failure.chain();
                tracing::warn!(%node, %cause, "cannot tell other nodes that it is there; it is tried again");
            }
            Ok(_) | Err(_) => {}
        }
        failing = !is_told;
        tokio::select! {
            () = tokio::time::sleep(jittered(ANNOUNCED_EVERY)) => {}
            () = leaving.cancelled(), if !stopping => {}
            () = over.cancelled() => break,
        }
    }
    // Without it the node is forgotten all the same, in a while.
    let _ = tokio::time::timeout(STEP_MAX, relay.retire(node)).await;
}

/// Folds metrics until the node stops.
pub(super) async fn fold_metrics(metrics: Metrics, stop: CancellationToken) {
    while wait(FOLD_INTERVAL, &stop).await {
        metrics.upkeep();
    }
}

/// Waits, and returns whether to go on.
async fn wait(time: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(time, stop.cancelled()).await.is_err()
}
