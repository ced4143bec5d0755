//! The signals that ask a command to end, which it then does in its own way. It must not know commands.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::CliError;

/// Returns what ends when the user, or the system, asks to stop.
pub(super) fn stopped() -> Result<impl Future<Output = ()>, CliError> {
    let failed = |cause: io::Error| CliError::Failed("cannot wait for signals", cause.into());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
