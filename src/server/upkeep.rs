//! What a node does on its own: sweeps of age retention, folding metrics, and making the first administrator.

use std::time::Duration;

use tidemill_proto::NodeId;
use tokio_util::sync::CancellationToken;

use crate::access::{Administration, FirstAdministrator, Refused};
use crate::chance::jittered;
use crate::metrics::Metrics;
use crate::relay::Relay;

/// Time between two folds: samples take 16 bytes each until they are folded.
const FOLD_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two tries to make the first administrator, at most.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);

/// The first administrator, to be made where nobody may administer the relay yet.
#[derive(Debug)]
pub(super) struct First {
    administration: Administration,
    wanted: FirstAdministrator,
    is_told: bool,
}

impl First {
    pub(super) const fn new(administration: Administration, wanted: FirstAdministrator) -> Self {
        Self { administration, wanted, is_told: false }
    }

    /// Tries once, and returns whether there is nothing more to do.
    pub(super) async fn make(&mut self) -> bool {
        match self.administration.make_first(&self.wanted).await {
            Ok(_) => true,
            Err(Refused::Problem(problem)) => {
                tracing::error!("the first administrator is not made: {}", problem.detail);
                !problem.retryable
            }
            Err(Refused::Read(error) | Refused::Change(error)) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the first administrator cannot be made yet; it is tried again");
                }
                false
            }
        }
    }
}

/// Tries to make the first administrator until that is done, or the node stops.
pub(super) async fn make_first(mut first: First, stop: CancellationToken) {
    while wait(jittered(FIRST_INTERVAL), &stop).await {
        let is_done = stop.run_until_cancelled(first.make()).await;
        if is_done != Some(false) {
            return;
        }
    }
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
                // None where another node did the work.
                if swept.topics > 0 {
                    metrics.node().swept(swept.topics);
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
