//! How far the publishing of standard input has come, for eyes. It must not know what is published.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often the progress bar is drawn at most.
const DRAWS_PER_SECOND_MAX: u8 = 10;
const DRAWN_EVERY: Duration = Duration::from_millis(1_000 / DRAWS_PER_SECOND_MAX as u64);

/// A progress bar that is drawn no more often than an eye can follow, however fast lines are published.
pub(super) struct Bar {
    bar: ProgressBar,
    bytes: u64,
    drawn_at: Option<Instant>,
}

impl Bar {
    /// Returns a bar on a terminal: of bytes where the input is a file, else a count that goes on.
    pub(super) fn of_input() -> Self {
        if io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Self::hidden();
        }
        Self::new(bar(input_length()))
    }

    /// Returns one that is never drawn.
    pub(super) fn hidden() -> Self {
        Self::new(ProgressBar::hidden())
    }

    fn new(bar: ProgressBar) -> Self {
        Self { bar, bytes: 0, drawn_at: None }
    }

    /// Goes on by so many bytes of the input.
    pub(super) fn advance(&mut self, bytes: u64, accepted: u64) {
        self.bytes += bytes;
        if self.bar.is_hidden() || self.drawn_at.is_some_and(|at| at.elapsed() < DRAWN_EVERY) {
            return;
        }
        self.drawn_at = Some(Instant::now());
        self.bar.set_position(self.bytes);
        self.bar.set_message(format!("{accepted} published"));
    }

    /// Prints a line on standard error, above the bar.
    pub(super) fn tell(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes it off the terminal.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        // As wide as the terminal, whatever it is.
        Some(length) => (ProgressBar::new(length), "{wide_bar} {percent:>3}%, {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}, {bytes_per_sec}"),
    };
    let style =
        ProgressStyle::with_template(template).expect("the template is a constant, and a test makes it");
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND_MAX));
    bar.with_style(style)
}

/// Returns the length of standard input, if it is a file.
fn input_length() -> Option<u64> {
    use std::os::fd::AsFd as _;

    let input = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = std::fs::File::from(input).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_both_kinds_can_be_made() {
        assert_eq!(bar(Some(7)).length(), Some(7));
        assert_eq!(bar(None).length(), None);
    }
}
