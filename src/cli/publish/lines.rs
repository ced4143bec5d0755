//! Publishing standard input, one message a line, in batches that form by themselves: while one is
//! under way, the lines that arrive gather for the next. No timer, so a slow producer's line is
//! published at once, and a fast one's in full batches.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::value::RawValue;
use tidemill_proto::Code;
use tidemill_proto::limits::BULK_MESSAGES_MAX;
use tidemill_proto::message::{Publish as Body, PublishBulk, PublishResult, PublishStatus, PublishedBulk};
use tokio::sync::mpsc;

use super::{ATTEMPTS_MAX, CliError, Client, Output, Publish, output, parse, pause, send};

/// Longest line in bytes: above the largest payload that a relay can be set to take.
const LINE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Payload bytes after which a batch is sent: well under any relay's limit on bodies, and enough that
/// requests are not what takes the time.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A line of the input.
struct Line {
    /// Counted from 1.
    number: u64,
    text: Vec<u8>,
}

/// A message that waits for its result.
struct Waiting {
    number: u64,
    body: Body,
}

/// What has been published so far.
#[derive(Default)]
struct Tally {
    accepted: u64,
    rejected: u64,
}

/// Publishes every line of standard input. Blank lines are skipped.
pub(super) async fn publish(
    options: &Publish,
    client: &Client,
    key: &str,
    metadata: Option<Box<RawValue>>,
) -> Result<(), CliError> {
    let bar = progress();
    let (tx, rx) = mpsc::channel(BULK_MESSAGES_MAX);
    // Reading cannot be interrupted, so it has a thread of its own, which ends with the process.
    std::thread::spawn(move || read(&tx));
    let mut run = Run { options, client, key, metadata, rx, bar, tally: Tally::default() };
    let result = run.run().await;
    run.bar.finish_and_clear();
    let Tally { accepted, rejected } = run.tally;
    if accepted + rejected > 0 || result.is_ok() {
        eprintln!("{accepted} published to {}, {rejected} refused", options.topic);
    }
    result?;
    if rejected == 0 { Ok(()) } else { Err(CliError::Told) }
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

/// Returns a bar on a terminal: of bytes where the input is a file, else a count that goes on.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() || io::stdin().is_terminal() {
        return ProgressBar::hidden();
    }
    bar(input_length())
}

fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:40} {bytes}/{total_bytes} {msg}, {bytes_per_sec}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg}, {bytes_per_sec}"),
    };
    let style =
        ProgressStyle::with_template(template).expect("the template is a constant, and a test makes it");
    bar.with_style(style)
}

/// Returns the length of standard input, if it is a file.
fn input_length() -> Option<u64> {
    use std::os::fd::AsFd as _;

    let input = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = std::fs::File::from(input).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

struct Run<'a> {
    options: &'a Publish,
    client: &'a Client,
    key: &'a str,
    metadata: Option<Box<RawValue>>,
    rx: mpsc::Receiver<io::Result<Line>>,
    bar: ProgressBar,
    tally: Tally,
}

impl Run<'_> {
    async fn run(&mut self) -> Result<(), CliError> {
        while let Some(first) = self.rx.recv().await {
            let mut next = Some(first);
            let (mut batch, mut bytes, mut read) = (Vec::new(), 0, 0);
            while let Some(line) = next.take() {
                let line = line.map_err(|cause| CliError::Failed("cannot read the input", cause.into()))?;
                read += line.text.len() as u64;
                if let Some(waiting) = self.prepare(line) {
                    bytes += waiting.body.payload.get().len();
                    batch.push(waiting);
                }
                if batch.len() < BULK_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
                    next = self.rx.try_recv().ok();
                }
            }
            self.publish(batch).await?;
            self.bar.inc(read);
            self.bar.set_message(format!("{} published", self.tally.accepted));
        }
        Ok(())
    }

    /// Returns the message of a line; a line that is no payload is told and counted.
    fn prepare(&mut self, line: Line) -> Option<Waiting> {
        let Line { number, mut text } = line;
        while text.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {}
        if text.trim_ascii().is_empty() {
            return None;
        }
        let payload = match String::from_utf8(text) {
            Ok(text) => parse(&text, self.options.text)
                .map_err(|error| format!("not JSON ({error}); publish text with --text")),
            Err(_) => Err("not UTF-8".to_owned()),
        };
        match payload {
            Ok(payload) => {
                let body = Body {
                    topic: self.options.topic.clone(),
                    payload,
                    metadata: self.metadata.clone(),
                    ttl: self.options.ttl,
                    key: Some(format!("{}-{number}", self.key)),
                };
                Some(Waiting { number, body })
            }
            Err(what) => {
                self.refuse(number, &what);
                None
            }
        }
    }

    /// Publishes a batch, and those of its messages again that the relay could not take just now.
    async fn publish(&mut self, mut batch: Vec<Waiting>) -> Result<(), CliError> {
        let mut attempt = 1;
        while !batch.is_empty() {
            let (numbers, messages): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.number, waiting.body)).unzip();
            let bulk = PublishBulk { messages };
            let path = ["api", "v1", "messages", "bulk"];
            let was_there = self.tally.accepted > 0 || attempt > 1;
            let build = || self.client.request(Method::POST, &path).json(&bulk);
            let tell = |note: &str| self.bar.suspend(|| eprintln!("{note}"));
            let answer = send(self.client, build, was_there, tell).await?;
            let published: PublishedBulk = self.client.read(&answer)?;
            if published.results.len() != numbers.len() {
                let what = "the number of results is not the number of messages".to_owned();
                return Err(CliError::NotARelay { url: self.client.name(), what });
            }
            batch = Vec::new();
            for ((number, body), result) in numbers.into_iter().zip(bulk.messages).zip(&published.results) {
                if attempt < ATTEMPTS_MAX && is_passing(result) {
                    batch.push(Waiting { number, body });
                } else {
                    self.settle(number, result)?;
                }
            }
            if !batch.is_empty() {
                tokio::time::sleep(pause(attempt, None)).await;
                attempt += 1;
            }
        }
        Ok(())
    }

    fn settle(&mut self, number: u64, result: &PublishResult) -> Result<(), CliError> {
        let print = || match (self.options.relay.output, result.message_id) {
            (Output::Json, _) => output::json(result),
            (Output::Text, Some(id)) => output::line(&id.to_string()),
            (Output::Text, None) => Ok(()),
        };
        self.bar.suspend(print)?;
        if result.status == PublishStatus::Accepted {
            self.tally.accepted += 1;
            return Ok(());
        }
        let code = result.code.map_or("unknown", Code::as_str);
        let what = result.error.as_deref().unwrap_or("refused");
        self.refuse(number, &format!("{} (code {code})", output::printable(what)));
        Ok(())
    }

    fn refuse(&mut self, number: u64, what: &str) {
        self.bar.suspend(|| eprintln!("line {number}: {what}"));
        self.tally.rejected += 1;
    }
}

/// Returns whether the same message, sent again, can be kept. Under its key an unknown outcome can be
/// asked for again.
fn is_passing(result: &PublishResult) -> bool {
    let may_pass = result.retryable == Some(true) || result.code == Some(Code::OutcomeUnknown);
    result.status == PublishStatus::Rejected && may_pass
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
