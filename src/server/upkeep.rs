//! What a node does on its own: sweeps of age retention, and folding metrics.

use std::time::Duration;

use tidemill_proto::NodeId;
use tokio_util::sync::CancellationToken;

use crate::chance::jittered;
use crate::metrics::Metrics;
use crate::relay::Relay;

/// Time between two folds: samples take 16 bytes each until they are folded.
const FOLD_INTERVAL: Duration = Duration::from_secs(2);

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
