//! Doors: connections stand behind a few of them, chosen by chance, which are closed one after the other while the node
//! drains. So those that wait for a next request are not all sent away in the same moment.
//!
//! It must not know how a connection ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::chance::random;
use crate::http::{CountedConnection, Draining};

/// How many there are: a connection more is no timer more.
const DOORS: usize = 64;

/// The doors of a node. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    doors: Arc<[CancellationToken]>,
    /// Cancelled once they are being closed.
    closing: CancellationToken,
    /// Cancelled when the node stops, and all of them with it.
    stopping: CancellationToken,
    draining: Draining,
}

/// Where a connection stands.
#[derive(Debug)]
pub(super) struct Door {
    /// Cancelled when the connection is to end, once nothing is under way on it.
    pub(super) closed: CancellationToken,
    /// Whether it came while the others were being sent away: it is answered once.
    pub(super) is_late: bool,
    /// Counts it among those that were there before.
    pub(super) counted: Option<CountedConnection>,
}

impl Doors {
    pub(super) fn new(stopping: &CancellationToken, draining: Draining) -> Self {
        let doors = (0..DOORS).map(|_| stopping.child_token()).collect();
        Self { doors, closing: stopping.child_token(), stopping: stopping.clone(), draining }
    }

    /// Returns where a connection stands that has come.
    pub(super) fn enter(&self) -> Door {
        if self.closing.is_cancelled() {
            // Probes ask until the node stops.
            return Door { closed: self.stopping.child_token(), is_late: true, counted: None };
        }
        let at = usize::try_from(random() % DOORS as u64).unwrap_or_default();
        // Its own: all connections would look at the same lock again and again.
        let closed = self.doors[at].child_token();
        Door { closed, is_late: false, counted: Some(self.draining.count()) }
    }

    /// Closes them one after the other, within this time.
    pub(super) async fn close(&self, within: Duration) {
        self.closing.cancel();
        for door in self.doors.iter() {
            door.cancel();
            sleep(within / u32::try_from(DOORS).unwrap_or(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_sent_away_one_after_the_other_and_late_ones_are_answered_once() {
        let stopping = CancellationToken::new();
        let draining = Draining::new(CancellationToken::new());
        let doors = Doors::new(&stopping, draining.clone());
        let entered: Vec<_> = (0..1_000).map(|_| doors.enter()).collect();
        assert_eq!(draining.connections(), 1_000);
        let gone = || entered.iter().filter(|door| door.closed.is_cancelled()).count();
        assert_eq!(gone(), 0);
        let half = tokio::time::timeout(Duration::from_secs(5), doors.close(Duration::from_secs(10))).await;
        assert!(half.is_err() && (300..700).contains(&gone()), "{} after half of the time", gone());
        let late = doors.enter();
        assert!(late.is_late && !late.closed.is_cancelled() && entered.iter().all(|door| !door.is_late));
        doors.close(Duration::ZERO).await;
        assert_eq!(gone(), 1_000);
        drop(entered);
        assert_eq!(draining.connections(), 0);
        stopping.cancel();
        assert!(late.closed.is_cancelled());
    }
}
