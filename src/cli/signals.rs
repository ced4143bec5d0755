//! The signals that ask a command to end, which it then does in its own way. It must not know commands.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;

/// The signals, one after the other.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to wait for them: from here on none ends the process.
    pub(super) fn new() -> Result<Self, CliError> {
        let failed = |cause: io::Error| CliError::Failed("cannot wait for signals", cause.into());
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Self { interrupt, terminate })
    }

    /// Waits until the user, or the system, asks to stop.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Returns what ends when the user, or the system, asks to stop.
pub(super) fn stopped() -> Result<impl Future<Output = ()>, CliError> {
    let mut signals = Signals::new()?;
    Ok(async move { signals.next().await })
}
