//! Leaving on demand: the node is told to drain, takes leave of its clients, and goes on until it is stopped.
//!
//! It owns the order of that. It must not know who has told it, nor what a session is.

use std::time::Duration;

use tidemill_proto::NodeId;
use tidemill_proto::drain::DrainStage;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::doors::Doors;
use super::options::ServerOptions;
use crate::access::Sessions;
use crate::http::Draining;

/// How often it is looked at what is open still.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a node takes leave with.
pub(super) struct Leaving<'a> {
    pub(super) node: NodeId,
    pub(super) options: &'a ServerOptions,
    pub(super) draining: &'a Draining,
    pub(super) sessions: &'a Sessions,
    pub(super) doors: &'a Doors,
    /// Cancelled when sessions are to end.
    pub(super) parting: &'a CancellationToken,
}

impl Leaving<'_> {
    /// Says that the node is not ready any more, and waits until load balancers have looked, but for what of that time
    /// has gone by since it was `told`.
    pub(super) async fn give_notice(&self, told: Instant) {
        let ServerOptions { drain_notice: notice, drain_spread: spread, drain, .. } = self.options;
        self.draining.note(DrainStage::Notice, told + *notice + *spread + *drain);
        if !notice.is_zero() {
            tracing::info!(node = %self.node, notice_ms = milliseconds(*notice), "not ready any more");
            sleep_until(told + *notice).await;
        }
    }

    /// Sends all clients away, and waits until nothing is under way any more, or the time for that is over; then for
    /// ever.
    pub(super) async fn take_leave(&self, told: Instant) -> std::convert::Infallible {
        self.give_notice(told).await;
        let spread = self.options.drain_spread;
        let ends_at = Instant::now() + spread + self.options.drain;
        self.draining.note(DrainStage::Leaving, ends_at);
        tracing::info!(node = %self.node, spread_ms = milliseconds(spread), "sending clients away");
        self.sessions.spread_over(spread);
        self.parting.cancel();
        let open = || (self.sessions.count(), self.draining.connections());
        let all_gone = async {
            while open() != (0, 0) {
                sleep(LOOK_EVERY).await;
            }
        };
        let sent_away = async {
            tokio::select! {
                () = all_gone => {}
                // What is busy when its door closes ends with its answer.
                () = async { self.doors.close(spread).await; std::future::pending().await } => {}
            }
        };
        let _ = timeout_at(ends_at, sent_away).await;
        let (sessions, connections) = open();
        self.draining.note(DrainStage::Drained, ends_at);
        tracing::info!(node = %self.node, sessions, connections, "drained; to be stopped");
        std::future::pending().await
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
