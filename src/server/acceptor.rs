//! The acceptor: takes in the connections of a listener, as far as they are admitted.

use std::io;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::connection::{self, Connections};
use super::listener::{Accepted, Bound, Listener};
use crate::limits::Peer;

/// How long accepting rests when the machine has no more file descriptors or memory for sockets.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Takes connections in, each with a task of its own on `tracker`, for ever.
pub(super) async fn accept_all(
    listener: Box<dyn Listener>,
    admission: Admission,
    connections: Connections,
    tracker: TaskTracker,
) {
    loop {
        match listener.accept().await {
            Ok(Accepted { transport, from }) => match admission.admit(from) {
                Ok(permit) => drop(tracker.spawn(connections.serve(transport, Peer(from), permit))),
                Err(refusal) => connection::refuse(&*transport, refusal),
            },
            Err(error) => rest_after(&error, listener.bound()).await,
        }
    }
}

/// Waits where accepting again at once would only fail again.
async fn rest_after(error: &io::Error, bound: &Bound) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    // The client went away between its handshake and the accept.
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::error!(%error, listener = %bound, "cannot accept connections; resting");
    tokio::time::sleep(ACCEPT_REST).await;
}
