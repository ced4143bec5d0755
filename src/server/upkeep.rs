//! What a node does on its own: sweeps of age retention, and folding metrics.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::http::{Metrics, random};
use crate::relay::Relay;

/// Time between two folds: samples take 16 bytes each until they are folded.
const FOLD_INTERVAL: Duration = Duration::from_secs(2);

/// Sweeps about every `interval` until the node stops.
pub(super) async fn sweep(relay: Relay, interval: Duration, stop: CancellationToken) {
    let mut failing = false;
    while wait(jittered(interval, random()), &stop).await {
        let swept = tokio::select! {
            swept = relay.sweep() => swept,
            () = stop.cancelled() => return,
        };
        match swept {
            Ok(swept) => {
                if failing {
                    tracing::info!("sweeps work again");
                }
                failing = false;
                tracing::debug!(topics = swept.topics, removed = swept.removed, "swept");
            }
            Err(failure) => {
                // The first of a row tells all; the others would only fill the log.
                if !failing {
                    tracing::warn!(cause = %failure.chain(), "a sweep has failed; it is tried again");
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

/// Returns three to five quarters of `interval`, so that nodes that started together spread out.
fn jittered(interval: Duration, random: u64) -> Duration {
    let share = u32::try_from(random % 513).unwrap_or_default();
    interval * 3 / 4 + interval / 1024 * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let interval = Duration::from_millis(1024);
        assert_eq!(jittered(interval, 0), Duration::from_millis(768));
        assert_eq!(jittered(interval, 512), Duration::from_millis(1280));
    }
}
