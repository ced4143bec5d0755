//! What a worker says for people: a line for each message, and on a terminal a count that goes on below them. It must
//! not know how messages are worked on.

use std::cell::RefCell;
use std::io::{self, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidemill_client::{Finished, Verdict, WorkerEvent};
use tidemill_proto::work::{Settled, SettledStatus};

use super::super::output::printable;
use super::super::settle::{rest, status};

/// How often the count is drawn at most.
const DRAWS_PER_SECOND_MAX: u8 = 10;

/// How many messages came to which end.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    running: usize,
    acked: u64,
    nacked: u64,
    rejected: u64,
    other: u64,
}

/// Prints what happens.
#[derive(Debug)]
pub(super) struct Log {
    bar: ProgressBar,
    is_quiet: bool,
    tally: RefCell<Tally>,
}

impl Log {
    pub(super) fn new(is_quiet: bool, is_terminal: bool) -> Self {
        let bar = if is_terminal && !is_quiet { counter() } else { ProgressBar::hidden() };
        Self { bar, is_quiet, tally: RefCell::new(Tally::default()) }
    }

    /// Prints a line above the count.
    pub(super) fn tell(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Passes on what a command writes to its standard output.
    pub(super) fn pass_on(&self, bytes: &[u8]) {
        self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            // Whoever read it may have seen enough; the messages are worked on all the same.
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        });
    }

    /// Passes on what a command writes to its standard error.
    pub(super) fn pass_on_error(&self, bytes: &[u8]) {
        self.bar.suspend(|| drop(io::stderr().lock().write_all(bytes)));
    }

    /// Tells what a worker tells.
    pub(super) fn event(&self, event: &WorkerEvent) {
        match event {
            WorkerEvent::Claimed(count) => self.tally.borrow_mut().running += count,
            WorkerEvent::Finished(finished) => self.finished(finished),
            WorkerEvent::Away(error) => self.tell(&format!("{error}; trying again")),
            WorkerEvent::Back => self.tell("messages can be claimed again"),
        }
        let Tally { running, acked, nacked, rejected, other } = *self.tally.borrow();
        let other = if other > 0 { format!(", {other} not counted") } else { String::new() };
        self.bar.set_message(format!(
            "{running} running, {acked} acked, {nacked} nacked, {rejected} rejected{other}"
        ));
        self.bar.tick();
    }

    fn finished(&self, finished: &Finished) {
        {
            let mut tally = self.tally.borrow_mut();
            tally.running = tally.running.saturating_sub(1);
            match finished.settled.as_ref().map(|settled| settled.status) {
                Ok(SettledStatus::Acked) => tally.acked += 1,
                Ok(SettledStatus::Nacked) => tally.nacked += 1,
                Ok(SettledStatus::Rejected) => tally.rejected += 1,
                Ok(SettledStatus::Extended | SettledStatus::Released | SettledStatus::Refused) | Err(_) => {
                    tally.other += 1;
                }
            }
        }
        if !self.is_quiet {
            self.tell(&line(finished));
        }
    }

    /// Returns whether a message is worked on.
    pub(super) fn is_running(&self) -> bool {
        self.tally.borrow().running > 0
    }

    /// Returns whether every message was acknowledged.
    pub(super) fn is_all_done(&self) -> bool {
        let Tally { nacked, rejected, other, .. } = *self.tally.borrow();
        nacked + rejected + other == 0
    }

    /// Takes the count off the terminal.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn counter() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}");
    let style = style.expect("the template is a constant, and a test makes it");
    let bar = ProgressBar::new_spinner().with_style(style).with_message("waiting for messages");
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND_MAX));
    bar.tick();
    bar
}

/// Returns how the message of a job ended.
fn line(finished: &Finished) -> String {
    let Finished { message_id, delivery, took, verdict, settled } = finished;
    let which = if *delivery > 1 { format!(" (delivery {delivery})") } else { String::new() };
    let how = match verdict {
        Verdict::Nack { error: Some(error), .. } => format!(": {}", printable(error)),
        Verdict::Reject { reason } => format!(": {}", printable(reason)),
        Verdict::Nack { error: None, .. } | Verdict::Ack { .. } | Verdict::Release => String::new(),
    };
    let (word, rest) = match settled {
        Ok(settled @ Settled { status: it, .. }) => (status(*it), rest(settled)),
        Err(error) => ("not told", format!("; {error}; it comes again")),
    };
    format!("{word} {message_id}{which} in {:.2} s{how}{rest}", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_can_be_made() {
        assert!(counter().length().is_none());
    }
}
