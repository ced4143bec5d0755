//! The acceptor: takes in the connections of a listener, as far as they are admitted.

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::connection::{self, Connections};
use super::listener::{Accepted, Listener};
use crate::limits::Peer;

/// How long accepting rests when the machine has no more file descriptors or memory for sockets.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often the log is told, at most, that nothing can be accepted.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// Takes connections in, each with a task of its own on `tracker`, for ever.
pub(super) async fn accept_all(
    listener: Box<dyn Listener>,
    admission: Admission,
    connections: Connections,
    tracker: TaskTracker,
) {
    let mut failures = Failures::default();
    loop {
        match listener.accept().await {
            Ok(Accepted { transport, from }) => match admission.admit(from) {
                Ok(permit) => drop(tracker.spawn(connections.serve(transport, Peer(from), permit))),
                Err(refusal) => connection::refuse(&*transport, refusal),
            },
            Err(error) if went_away(&error) => {}
            Err(error) => {
                admission.metrics().requests().accept_failed();
                if let Some(attempts) = failures.note(Instant::now()) {
                    tracing::error!(
                        %error, listener = %listener.bound(), attempts,
                        "cannot accept connections; clients wait until it can"
                    );
                }
                // Accepting again at once would only fail again.
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Returns whether the client went away between its handshake and the accept.
fn went_away(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What failed since that was told.
#[derive(Debug, Default)]
struct Failures {
    told_at: Option<Instant>,
    since: u64,
}

impl Failures {
    /// Notes one; returns how many are to be told now, if any.
    fn note(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.told_at.is_some_and(|told_at| now.duration_since(told_at) < TOLD_EVERY) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_and_then_each_minute_how_many() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        assert_eq!(failures.note(start), Some(1));
        let of_a_minute = (1..600).map(|n| failures.note(start + ACCEPT_REST * n));
        assert_eq!(of_a_minute.collect::<Vec<_>>(), vec![None; 599]);
        assert_eq!(failures.note(start + TOLD_EVERY), Some(600));
    }
}
