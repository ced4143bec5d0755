//! Signs of life on a terminal, while a run says nothing else.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// How often the progress is drawn.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(200);
/// What is drawn of a run, and of what has no known end.
const BAR: &str = "{msg} {bar:40} {elapsed}, {eta} left";
const BUSY: &str = "{spinner} {msg}, {elapsed}";

/// Returns a bar of milliseconds, on a terminal.
pub(crate) fn progress(what: &str, whole: Duration) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(BAR).expect("the template is a constant, and a test makes it");
    let bar = ProgressBar::new(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX)).with_style(style);
    bar.set_message(what.to_owned());
    bar
}

/// Returns a sign of life for something of unknown length, on a terminal, until it is dropped.
pub(crate) fn busy(what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(BUSY).expect("the template is a constant, and a test makes it");
    let busy = ProgressBar::new_spinner().with_style(style).with_finish(ProgressFinish::AndClear);
    busy.set_message(what.to_owned());
    busy.enable_steady_tick(DRAW_EVERY);
    busy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_made() {
        assert!(ProgressStyle::with_template(BAR).is_ok() && ProgressStyle::with_template(BUSY).is_ok());
    }
}
