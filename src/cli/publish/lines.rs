//! Publishing standard input, one message a line, over one WebSocket: as many at once as the window
//! holds. No timer, so a slow producer's line is published at once, and a fast one's in full batches.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use tidemill_proto::message::{PublishResult, PublishStatus};
use tidemill_proto::{Code, content_type};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::input::{self, Line, Lines};
use super::keys::{KEYS_LEFT_OUT, Keys};
use super::output::quoted;
use super::progress::Bar;
use super::receipts::{LineReceipt, Taken, hand_over};
use super::sending::{GIVE_UP_AFTER, once_listening, waits};
use super::tally::{Tally, is_about_message, is_for_good};
use super::{CliError, Output, Publish, json_error, output, parse};
use crate::cli::signals::stopped;
use tidemill_client::{
    Client, ClientError, LinkState, NewMessage, Publisher, PublisherOptions, Refusal, Trace,
};

/// Most lines without a printed result: those under way, and those that wait behind one which the relay
/// has asked for again, because results are printed in order.
const UNSETTLED_MAX: usize = 4_096;

/// Bytes after which what is printed is written, also while more is there to print.
const WRITE_BYTES: usize = 64 * 1024;

/// A message that waits for its result.
struct Unconfirmed {
    number: u64,
    bytes: u64,
    receipt: LineReceipt,
}

/// Publishes every line of standard input. Blank lines are skipped.
pub(super) async fn publish(
    options: &Publish,
    client: &Client,
    keys: Keys<'_>,
    metadata: Option<Box<RawValue>>,
    trace: Option<Trace>,
) -> Result<(), CliError> {
    let stop = stopped()?;
    // Every line has the key that is due to it here.
    let publisher = PublisherOptions {
        make_keys: false,
        repeat_unkeyed: true,
        give_up_after: GIVE_UP_AFTER,
        ..PublisherOptions::default()
    };
    let is_absent = |error: &ClientError| matches!(error, ClientError::Away { .. });
    let publisher = once_listening(is_absent, async || client.publisher(publisher).await).await?;
    let prints = Prints::of(options);
    let is_shown = !options.quiet && (prints == Prints::Nothing || !io::stdout().is_terminal());
    let bar = if is_shown { Bar::of_input() } else { Bar::hidden() };
    let mut rx = input::lines();
    let mut run = Run {
        options,
        prints,
        state: publisher.state(),
        without_keys: publisher.goes_without_keys(),
        waits: publisher.waits(),
        publisher,
        keys,
        left_out_keys: matches!(keys, Keys::None),
        metadata,
        trace,
        bar,
        out: Vec::new(),
        waiting: VecDeque::new(),
        next: 1,
        unsent: None,
        is_at_end: false,
        index: 0,
        stopped_at: None,
        denial: None,
        tally: Tally::default(),
    };
    let result = tokio::select! {
        result = run.run(&mut rx) => result,
        () = stop => Err(CliError::Interrupted),
    };
    run.end(result).await
}

/// What is printed on standard output of each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prints {
    Nothing,
    /// For programs: to people a number says more.
    Ids,
    Results,
}

impl Prints {
    fn of(options: &Publish) -> Self {
        match options.relay.output {
            _ if options.quiet => Self::Nothing,
            Output::Json => Self::Results,
            Output::Text if io::stdout().is_terminal() => Self::Nothing,
            Output::Text => Self::Ids,
        }
    }
}

/// A run over the whole input.
struct Run<'a> {
    options: &'a Publish,
    prints: Prints,
    publisher: Publisher,
    state: watch::Receiver<LinkState>,
    without_keys: watch::Receiver<bool>,
    waits: watch::Receiver<Option<Refusal>>,
    keys: Keys<'a>,
    /// Whether lines were published without a key, so that the same input can make copies.
    left_out_keys: bool,
    metadata: Option<Box<RawValue>>,
    trace: Option<Trace>,
    bar: Bar,
    /// What is to be printed.
    out: Vec<u8>,
    /// In the order of the lines, in which results are printed.
    waiting: VecDeque<Unconfirmed>,
    /// The number of the line behind those that were taken.
    next: u64,
    /// The number of a line that was taken and not handed over.
    unsent: Option<u64>,
    /// Whether all lines were taken.
    is_at_end: bool,
    /// The place among the lines that are not blank of the one that is taken next, from 0.
    index: u64,
    /// The number of the line that was refused for a reason that holds for those behind it, too.
    stopped_at: Option<u64>,
    /// The refusal of it, where that does not pass.
    denial: Option<Refusal>,
    tally: Tally,
}

impl Run<'_> {
    /// Publishes all lines, or as many as it may.
    async fn run(&mut self, rx: &mut Lines) -> Result<(), CliError> {
        let result = self.publish_all(rx).await;
        if !self.is_at_end {
            self.is_at_end = input::is_over(rx).await;
        }
        result
    }

    async fn publish_all(&mut self, rx: &mut Lines) -> Result<(), CliError> {
        loop {
            self.settle_ready()?;
            self.write().await?;
            let may_take = !self.is_at_end && self.stopped_at.is_none();
            if self.waiting.is_empty() && !may_take {
                return Ok(());
            }
            let may_read = may_take && self.waiting.len() < UNSETTLED_MAX;
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
                    None => self.is_at_end = true,
                },
                Ok(()) = self.state.changed() => {
                    tell(&mut self.state, &self.bar);
                    // Those that wait for their answers are told by them.
                    if self.waiting.is_empty() && let LinkState::Ended(error) = &*self.state.borrow() {
                        return Err(error.clone().into());
                    }
                }
                Ok(()) = self.waits.changed() => tell_wait(&mut self.waits, &self.bar),
                Ok(()) = self.without_keys.changed() => self.note_keys(),
            }
        }
    }

    /// Takes in the results that are there already, so that what is printed of them is written together.
    fn settle_ready(&mut self) -> Result<(), CliError> {
        while self.out.len() < WRITE_BYTES
            && let Some(first) = self.waiting.front_mut()
            && let Some(answer) = (&mut first.receipt).now_or_never()
        {
            self.settle(answer)?;
        }
        Ok(())
    }

    /// Writes what is to be printed. It waits without standing in the way: whoever reads it may have stopped, and
    /// Ctrl-C ends the run all the same.
    async fn write(&mut self) -> Result<(), CliError> {
        if !self.out.is_empty() {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(&self.out).await?;
            stdout.flush().await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Tells how the run went, and how to go on where it did not come to its end.
    async fn end(mut self, result: Result<(), CliError>) -> Result<(), CliError> {
        self.note_keys();
        self.bar.clear();
        self.tally.tell_more();
        let is_unread =
            matches!(&result, Err(CliError::Output(cause)) if cause.kind() == io::ErrorKind::BrokenPipe);
        if is_unread {
            eprintln!("standard output was closed");
        }
        if let Some((first, what)) = self.missing(result.is_err()) {
            let how = match self.keys {
                Keys::Own(key) | Keys::MadeUp(key) if !self.left_out_keys => format!(
                    "go on with the same input and --key {}, under which nothing is kept twice as long as the relay remembers it",
                    quoted(key)
                ),
                Keys::None | Keys::Own(_) | Keys::MadeUp(_) => {
                    format!(
                        "go on from there, as with `tail -n +{first}`; what was under way may be there twice then"
                    )
                }
            };
            eprintln!("{what}; {how}");
        }
        if !self.options.quiet && (!self.tally.is_empty() || result.is_ok()) {
            let least = if result.is_err() { "at least " } else { "" };
            eprintln!("{least}{}", self.tally.told(&self.options.topic));
        }
        let is_clean = self.tally.is_clean();
        match result {
            Ok(()) => self.publisher.close().await,
            Err(_) if is_unread => return Err(CliError::Told),
            Err(error) => return Err(error),
        }
        match self.denial {
            Some(denial) => Err(ClientError::Refused(denial).into()),
            None if is_clean => Ok(()),
            None => Err(CliError::Told),
        }
    }

    /// Returns the first line of which it is not known that it was kept, though it may have to be, and says so; `None`
    /// where there is none.
    fn missing(&self, is_cut: bool) -> Option<(u64, String)> {
        let is_open = !self.waiting.is_empty() || self.unsent.is_some() || !self.is_at_end;
        match self.stopped_at {
            // Where all were refused for good, there is nothing to go on with.
            Some(first) if is_open || self.tally.accepted > 0 || self.denial.is_none() => {
                let what = match self.tally.undurable {
                    0 => "lines may be missing",
                    _ => "lines may be missing, or not as durable as was asked",
                };
                Some((first, format!("from line {first} on, {what}")))
            }
            None if is_cut && is_open => {
                let first = self.waiting.front().map(|first| first.number).or(self.unsent);
                let first = first.unwrap_or(self.next);
                Some((first, format!("no answer for line {first} and what follows")))
            }
            Some(_) | None => None,
        }
    }

    /// Tells once that keys are left out.
    fn note_keys(&mut self) {
        if *self.without_keys.borrow_and_update() && !std::mem::replace(&mut self.left_out_keys, true) {
            self.bar.tell(KEYS_LEFT_OUT);
        }
    }

    /// Publishes a line; one that is no payload is told and counted.
    async fn take(&mut self, line: io::Result<Line>) -> Result<(), CliError> {
        let Line { number, mut text } =
            line.map_err(|cause| CliError::Failed("cannot read the input", cause.into()))?;
        self.next = number + 1;
        let bytes = text.len() as u64;
        // A line ends with LF or CR LF; all else is what was to be published.
        if text.pop_if(|byte| *byte == b'\n').is_some() {
            text.pop_if(|byte| *byte == b'\r');
        }
        if text.trim_ascii().is_empty() {
            self.bar.advance(bytes, self.tally.accepted);
            return Ok(());
        }
        let index = self.index;
        self.index += 1;
        let payload = match String::from_utf8(text) {
            Ok(text) => parse(text, self.options.text).map_err(|error| {
                ("not JSON", format!("not JSON ({}); publish text with --text", json_error(&error, true)))
            }),
            Err(_) => Err(("not UTF-8", "not UTF-8".to_owned())),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err((kind, what)) => {
                self.bar.advance(bytes, self.tally.accepted);
                self.refuse(number, kind, &what);
                return Ok(());
            }
        };
        let message = self.message(payload, index);
        let receipt = {
            let mut publishing = pin!(hand_over(&self.publisher, message, self.options.delivery()));
            loop {
                tokio::select! {
                    receipt = &mut publishing => break receipt,
                    Ok(()) = self.state.changed() => tell(&mut self.state, &self.bar),
                    Ok(()) = self.waits.changed() => tell_wait(&mut self.waits, &self.bar),
                }
            }
        };
        let receipt = receipt.map_err(|error| {
            self.unsent = Some(number);
            self.ended(error)
        })?;
        self.waiting.push_back(Unconfirmed { number, bytes, receipt });
        Ok(())
    }

    /// Returns the message of the line at this place, counted from 0 among those that are not blank: its key is
    /// the one that the relay derives where the lines come in one request.
    fn message(&self, payload: String, index: u64) -> NewMessage {
        let mut message = NewMessage::bytes(&self.options.topic, payload, content_type::JSON);
        message = match self.keys {
            Keys::None => message,
            Keys::Own(key) => message.with_key(format!("{key}/{index}")),
            Keys::MadeUp(key) => message.with_optional_key(format!("{key}/{index}")),
        };
        if let Some(metadata) = &self.metadata {
            message = message.with_metadata(metadata.clone());
        }
        if let Some(trace) = &self.trace {
            message = message.with_trace(trace);
        }
        if let Some(ttl) = self.options.ttl {
            message = message.with_ttl_seconds(ttl);
        }
        if let Some(durability) = self.options.durability {
            message = message.with_durability(durability);
        }
        if let Some(key) = &self.options.order_key {
            message = message.with_order_key(key.clone());
        }
        if let Some(fence) = &self.options.fence {
            message = message.with_fence(fence.clone());
        }
        message
    }

    /// Prints the result of the first line that waits.
    fn settle(&mut self, answer: Result<Taken, ClientError>) -> Result<(), CliError> {
        let refusal = match answer {
            Ok(_) => None,
            Err(ClientError::Refused(ref refusal)) => Some(refusal.clone()),
            Err(error) => return Err(self.ended(error)), // It holds for all lines.
        };
        let Some(Unconfirmed { number, bytes, receipt: _ }) = self.waiting.pop_front() else { return Ok(()) };
        match refusal {
            None => self.tally.accepted += 1,
            Some(refusal) => {
                if !is_about_message(refusal.code) {
                    self.stopped_at.get_or_insert(number);
                }
                if refusal.code == Code::DurabilityNotReached {
                    self.tally.undurable += 1;
                    self.name(number, refusal.code.as_str(), &output::printable(&refusal.to_string()));
                } else if is_for_good(refusal.code) {
                    // Told once, at the end.
                    self.tally.rejected += 1;
                    self.denial.get_or_insert(refusal);
                } else {
                    self.refuse(number, refusal.code.as_str(), &output::printable(&refusal.to_string()));
                }
            }
        }
        let result = self.result(answer);
        let id = result.schedule_id.as_ref().map(ToString::to_string);
        // What is kept and not as durable as was asked has an id, too, and is none of those that were accepted.
        let is_accepted = result.status != PublishStatus::Rejected;
        let id = id.or_else(|| result.message_id.map(|id| id.to_string())).filter(|_| is_accepted);
        match (self.prints, id) {
            (Prints::Results, _) => {
                let encode = |cause: serde_json::Error| CliError::Failed("cannot encode", cause.into());
                serde_json::to_writer(&mut self.out, &result).map_err(encode)?;
                self.out.push(b'\n');
            }
            (Prints::Ids, Some(id)) => self.out.extend_from_slice(format!("{id}\n").as_bytes()),
            (Prints::Nothing | Prints::Ids, _) => {}
        }
        self.bar.advance(bytes, self.tally.accepted);
        Ok(())
    }

    /// Returns a result in the form in which the relay answers a bulk publish.
    fn result(&self, answer: Result<Taken, ClientError>) -> PublishResult {
        let mut result = PublishResult::new(Some(self.options.topic.to_string()), PublishStatus::Rejected);
        match answer {
            Ok(Taken::Scheduled(scheduled)) => {
                result.status = PublishStatus::Scheduled;
                result.schedule_id = Some(scheduled.schedule_id);
                result.deliver_at = Some(scheduled.deliver_at);
                result.replayed = scheduled.replayed;
            }
            Ok(Taken::Published(published)) => {
                result.status = PublishStatus::Accepted;
                result.message_id = Some(published.message_id);
                result.timestamp = Some(published.timestamp);
                result.replayed = published.replayed;
                result.durability = published.durability;
            }
            Err(ClientError::Refused(refusal)) => {
                result.message_id = refusal.message_id.map(|id| *id);
                result.durability = refusal.durability;
                result.error = Some(refusal.message);
                result.code = Some(refusal.code);
                result.retryable = Some(refusal.retryable);
                result.field = refusal.field.map(Into::into);
                result.last_id = refusal.last_id.map(|id| *id);
                result.fence = refusal.fence.map(|fence| *fence);
                result.reason = refusal.reason.map(Into::into);
            }
            Err(error) => result.error = Some(error.to_string()),
        }
        result
    }

    /// Counts a line that was refused, and tells of it.
    fn refuse(&mut self, number: u64, kind: &str, what: &str) {
        self.tally.rejected += 1;
        self.name(number, kind, what);
    }

    /// Tells what came of a line, of the first ones of its kind.
    fn name(&mut self, number: u64, kind: &str, what: &str) {
        if self.tally.is_named(kind) {
            self.bar.tell(&format!("line {number}: {what}"));
        }
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
fn tell(state: &mut watch::Receiver<LinkState>, bar: &Bar) {
    if let LinkState::Away(error) = &*state.borrow_and_update() {
        bar.tell(&waits(error, Duration::ZERO));
    }
}

/// Tells once that messages wait, and for what.
fn tell_wait(waits_of: &mut watch::Receiver<Option<Refusal>>, bar: &Bar) {
    if let Some(refusal) = &*waits_of.borrow_and_update() {
        let pause = Duration::from_secs(refusal.retry_after_seconds.unwrap_or_default());
        bar.tell(&output::printable(&waits(refusal, pause)));
    }
}
