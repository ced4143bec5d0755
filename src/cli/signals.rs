//! The signals that ask a command to end, which it then does in its own way. It must not know commands.

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
        Ok(Self {
            interrupt: waited_for(SignalKind::interrupt())?,
            terminate: waited_for(SignalKind::terminate())?,
        })
    }

    /// Waits until the user, or the system, asks to stop.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Begins to wait for one of them.
fn waited_for(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|cause| CliError::Failed("cannot wait for signals", cause.into()))
}

/// Returns what ends when the user, or the system, asks to stop.
pub(super) fn stopped() -> Result<impl Future<Output = ()>, CliError> {
    let mut signals = Signals::new()?;
    Ok(async move { signals.next().await })
}

/// Returns the same of a command that leaves nothing behind, also where its terminal goes away; under `nohup` it goes on.
#[cfg(feature = "valkey")]
pub(super) fn stopped_or_hung_up() -> Result<impl Future<Output = ()>, CliError> {
    let mut signals = Signals::new()?;
    let mut hangup = if ignores_hangups() { None } else { Some(waited_for(SignalKind::hangup())?) };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => _ = hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signals.next() => {}
            () = hung_up => {}
        }
    })
}

/// Whether whoever has started this process has it ignore hangups, or nobody can tell: a handler would end that.
#[cfg(feature = "valkey")]
fn ignores_hangups() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The first signal is SIGHUP.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}
