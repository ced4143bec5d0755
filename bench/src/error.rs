//! Why a run came to nothing, told by what the caller may do next.

use std::io;

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The flags do not fit each other or the target. Change them; nothing was loaded.
    #[error("{0}")]
    Usage(String),
    /// The target's host has no address. Name another.
    #[error("{host} cannot be looked up ({why})")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// The target does not answer, or not as it should. Look at it, and run again.
    #[error("no answer from {url} ({why})")]
    NoAnswer {
        /// The URL of the target, without a password.
        url: String,
        /// Why.
        why: String,
    },
    /// The runtime of the load cannot start.
    #[error("the runtime cannot start")]
    Runtime(#[source] io::Error),
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}
