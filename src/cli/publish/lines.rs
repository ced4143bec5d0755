//! Publishing standard input, one message a line, over one WebSocket: as many at once as the window
//! holds. No timer, so a slow producer's line is published at once, and a fast one's in full batches.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::pin::pin;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;
use tidemill_proto::content_type;
use tidemill_proto::message::{PublishResult, PublishStatus};
use tokio::sync::{mpsc, watch};

use super::{CliError, Output, Publish, output, parse};
use tidemill_client::{
    Client, ClientError, LinkState, NewMessage, Published, Publisher, PublisherOptions, Receipt,
};

/// Longest line in bytes: above the largest payload that a relay can be set to take.
const LINE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Lines that are read ahead of being published.
const LINES_AHEAD: usize = 64;

/// Most lines without a printed result: those under way, and those that wait behind one which the relay
/// has asked for again, because results are printed in order.
const UNSETTLED_MAX: usize = 4_096;

/// A line of the input.
struct Line {
    /// Counted from 1.
    number: u64,
    text: Vec<u8>,
}

/// A message that waits for its result.
struct Unconfirmed {
    number: u64,
    bytes: u64,
    receipt: Receipt,
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
    let publisher = client.publisher(PublisherOptions::default()).await?;
    let bar = if options.quiet { ProgressBar::hidden() } else { progress() };
    let (tx, rx) = mpsc::channel(LINES_AHEAD);
    // Reading cannot be interrupted, so it has a thread of its own, which ends with the process.
    std::thread::spawn(move || read(&tx));
    let state = publisher.state();
    let mut run = Run {
        options,
        prints_ids: !io::stdout().is_terminal(),
        publisher,
        state,
        key,
        metadata,
        bar,
        waiting: VecDeque::new(),
        tally: Tally::default(),
    };
    let result = run.run(rx).await;
    run.bar.finish_and_clear();
    let Tally { accepted, rejected } = run.tally;
    if let (Err(_), Some(first)) = (&result, run.waiting.front()) {
        let number = first.number;
        eprintln!(
            "no answer for line {number} and what follows; with --key {key} the same input makes no copies"
        );
    }
    if !options.quiet && (accepted + rejected > 0 || result.is_ok()) {
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

/// A run over the whole input.
struct Run<'a> {
    options: &'a Publish,
    /// For programs: to people a number says more.
    prints_ids: bool,
    publisher: Publisher,
    state: watch::Receiver<LinkState>,
    key: &'a str,
    metadata: Option<Box<RawValue>>,
    bar: ProgressBar,
    /// In the order of the lines, in which results are printed.
    waiting: VecDeque<Unconfirmed>,
    tally: Tally,
}

impl Run<'_> {
    async fn run(&mut self, mut rx: mpsc::Receiver<io::Result<Line>>) -> Result<(), CliError> {
        let mut is_open = true;
        while is_open || !self.waiting.is_empty() {
            let may_read = is_open && self.waiting.len() < UNSETTLED_MAX;
            let receipt = self.waiting.front_mut().map(|first| &mut first.receipt);
            let answer = async {
                match receipt {
                    Some(receipt) => receipt.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = answer => self.settle(answer)?,
                line = rx.recv(), if may_read => match line {
                    Some(line) => self.take(line).await?,
                    None => is_open = false,
                },
                Ok(()) = self.state.changed() => tell(&mut self.state, &self.bar),
            }
        }
        Ok(())
    }

    /// Publishes a line; one that is no payload is told and counted.
    async fn take(&mut self, line: io::Result<Line>) -> Result<(), CliError> {
        let Line { number, mut text } =
            line.map_err(|cause| CliError::Failed("cannot read the input", cause.into()))?;
        let bytes = text.len() as u64;
        // A line ends with LF or CR LF; all else is what was to be published.
        if text.pop_if(|byte| *byte == b'\n').is_some() {
            text.pop_if(|byte| *byte == b'\r');
        }
        if text.trim_ascii().is_empty() {
            self.bar.inc(bytes);
            return Ok(());
        }
        let payload = match String::from_utf8(text) {
            Ok(text) => parse(text, self.options.text)
                .map_err(|error| format!("not JSON ({error}); publish text with --text")),
            Err(_) => Err("not UTF-8".to_owned()),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(what) => {
                self.bar.inc(bytes);
                self.refuse(number, &what);
                return Ok(());
            }
        };
        let message = NewMessage::bytes(&self.options.topic, payload, content_type::JSON);
        let mut message = message.with_key(format!("{}-{number}", self.key));
        if let Some(metadata) = &self.metadata {
            message = message.with_metadata(metadata.clone());
        }
        if let Some(ttl) = self.options.ttl {
            message = message.with_ttl_seconds(ttl);
        }
        let receipt = {
            let mut publishing = pin!(self.publisher.publish(message));
            loop {
                tokio::select! {
                    receipt = &mut publishing => break receipt,
                    Ok(()) = self.state.changed() => tell(&mut self.state, &self.bar),
                }
            }
        };
        let receipt = receipt.map_err(|error| self.ended(error))?;
        self.waiting.push_back(Unconfirmed { number, bytes, receipt });
        Ok(())
    }

    /// Prints the result of the first line that waits.
    fn settle(&mut self, answer: Result<Published, ClientError>) -> Result<(), CliError> {
        let refusal = match answer {
            Ok(_) => None,
            Err(ClientError::Refused(ref refusal)) => Some(refusal.clone()),
            // It holds for all lines.
            Err(error) => return Err(self.ended(error)),
        };
        let Some(Unconfirmed { number, bytes, receipt: _ }) = self.waiting.pop_front() else { return Ok(()) };
        let result = self.result(answer);
        let print = || match (self.options.relay.output, result.message_id) {
            _ if self.options.quiet => Ok(()),
            (Output::Json, _) => output::json(&result),
            (Output::Text, Some(id)) if self.prints_ids => output::line(&id.to_string()),
            (Output::Text, _) => Ok(()),
        };
        self.bar.suspend(print)?;
        match refusal {
            None => self.tally.accepted += 1,
            Some(refusal) => self.refuse(number, &output::printable(&refusal.to_string())),
        }
        self.bar.inc(bytes);
        self.bar.set_message(format!("{} published", self.tally.accepted));
        Ok(())
    }

    /// Returns a result in the form in which the relay answers a bulk publish.
    fn result(&self, answer: Result<Published, ClientError>) -> PublishResult {
        let mut result = PublishResult {
            message_id: None,
            topic: Some(self.options.topic.to_string()),
            index: None,
            status: PublishStatus::Rejected,
            error: None,
            code: None,
            retryable: None,
            timestamp: None,
            replayed: false,
        };
        match answer {
            Ok(published) => {
                result.status = PublishStatus::Accepted;
                result.message_id = Some(published.message_id);
                result.timestamp = Some(published.timestamp);
                result.replayed = published.replayed;
            }
            Err(ClientError::Refused(refusal)) => {
                result.error = Some(refusal.message);
                result.code = Some(refusal.code);
                result.retryable = Some(refusal.retryable);
            }
            Err(error) => result.error = Some(error.to_string()),
        }
        result
    }

    fn refuse(&mut self, number: u64, what: &str) {
        self.bar.suspend(|| eprintln!("line {number}: {what}"));
        self.tally.rejected += 1;
    }

    /// Returns why the publisher has ended, which says more than that an answer is missing.
    fn ended(&self, error: ClientError) -> CliError {
        match &*self.state.borrow() {
            LinkState::Ended(error) => error.clone().into(),
            LinkState::Connected | LinkState::Away(_) => error.into(),
        }
    }
}

/// Tells that the relay is away: waiting in silence looks like hanging.
fn tell(state: &mut watch::Receiver<LinkState>, bar: &ProgressBar) {
    if let LinkState::Away(error) = &*state.borrow_and_update() {
        bar.suspend(|| eprintln!("{error}; trying again"));
    }
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
