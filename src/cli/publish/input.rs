//! Standard input, line by line. It must not know what lines are for.

use std::io::{self, BufRead as _, Read as _};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest line in bytes: above the largest payload that a relay can be set to take.
const LINE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Lines that are read ahead of being published.
const LINES_AHEAD: usize = 64;

/// How long the next line is waited for, to know whether there is one.
const NEXT_LINE: Duration = Duration::from_millis(100);

/// A line of the input.
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// With its end.
    pub(super) text: Vec<u8>,
}

/// Lines as they are read; the last may be an error.
pub(super) type Lines = mpsc::Receiver<io::Result<Line>>;

/// Begins to read.
pub(super) fn lines() -> Lines {
    let (tx, rx) = mpsc::channel(LINES_AHEAD);
    // Reading cannot be interrupted, so it has a thread of its own, which ends with the process.
    std::thread::spawn(move || read(&tx));
    rx
}

/// Reads lines until the input ends or nobody wants them.
fn read(tx: &mpsc::Sender<io::Result<Line>>) {
    let mut input = io::stdin().lock();
    for number in 1.. {
        let mut text = Vec::new();
        let line = match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text) {
            Ok(0) => return,
            Ok(_) => Ok(Line { number, text }),
            Err(error) => Err(error),
        };
        let is_last = line.is_err();
        if tx.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

/// Finds out whether no line follows but blank ones. Where the next takes long, one may follow.
pub(super) async fn is_over(lines: &mut Lines) -> bool {
    let is_blank = |line: io::Result<Line>| line.is_ok_and(|line| line.text.trim_ascii().is_empty());
    let is_over = async {
        while let Some(line) = lines.recv().await {
            if !is_blank(line) {
                return false;
            }
        }
        true
    };
    timeout(NEXT_LINE, is_over).await.unwrap_or(false)
}
