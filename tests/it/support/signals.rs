//! Signals to processes that a test has started.
//!
//! It must not know what they are sent to.

use std::process::Child;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Sends a child a signal. One that freezes it is waited for: its threads stop one by one, on a busy machine some
/// time after `kill` returns, and until then they go on with what they do.
///
/// # Panics
/// The child has ended.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("it runs");
    if signal == Signal::STOP {
        // Reported once the last of its threads has stopped.
        let stopped = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).expect("it is a child");
        assert!(stopped.is_some_and(|status| status.stopped()), "it has ended");
    }
}
