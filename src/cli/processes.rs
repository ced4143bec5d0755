//! The processes of a command that another one runs: a group of their own, which is told to end as a whole. It must not
//! know why.

use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// The processes of a command that was started in a group of its own. Dropping it kills them.
pub(super) struct Processes(Option<Pid>);

impl Processes {
    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, signal);
        }
    }

    /// The command has ended: what it has left running is its own.
    pub(super) fn leave(&mut self) {
        self.0 = None;
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Returns what shells say of a command that could not be started.
pub(super) fn status_of_none(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Returns the exit status of a command, as shells say it: that of one which a signal has ended is 128 and the signal.
pub(super) fn status_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;

    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
