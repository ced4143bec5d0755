//! `tidemill publish`: one message from the command line or a file, or one per line of the input.
//!
//! Everything is published under an idempotency key, the publisher's or one made up here, so that a
//! retry makes no copy.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;
use tidemill_proto::duration::Seconds;
use tidemill_proto::locks::Fence;
use tidemill_proto::message::{Publish as Body, Unique};
use tidemill_proto::work::GroupName;
use tidemill_proto::{
    Delivery, Durability, MessageId, OrderKey, Published, Scheduled, Timestamp, TopicName, content_type,
};

use super::CliError;
use super::client::{Client, Relay};
use super::output::{self, Output};
use super::points::{at, delay, ttl};
use super::traced;
use crate::chance::random;
use crate::config::Environment;
use tidemill_client::{Encoding, Trace};

mod input;
mod keys;
mod lines;
mod progress;
mod receipts;
mod sending;
mod tally;

use keys::Keys;
use sending::send;

/// The header that says which message must be the last of the topic.
const EXPECTED_LAST: &str = "Tidemill-Expected-Last";

/// The header that carries an order key.
const ORDER_KEY: &str = "Tidemill-Order-Key";

/// The header that carries a group and a unique key.
const UNIQUE: &str = "Tidemill-Unique";

/// The header that shows that the publisher holds a lock.
pub(super) const FENCE: &str = "Tidemill-Fence";

/// The header that says how durable a message must be.
const DURABILITY: &str = "Tidemill-Durability";

const EXAMPLES: &str = "\
Examples:
  tidemill publish orders '{\"id\": 7, \"total\": 19.90}'
  tidemill publish log --text 'the tide is in'         a JSON string, without writing its quotes
  tidemill publish quakes < earthquakes.ndjson         one message a line, with a progress bar
  journalctl -f -o json | tidemill publish journal     line by line, as they come
  tidemill publish reminders --text 'call back' --delay 2h    kept, published in two hours
  tidemill publish pictures --file tide.png --content-type image/png

Prints the id of the message. Of lines it prints how many were published and refused, and, where
standard output is no terminal, the id of each; with -o json the relay's answers, one a line. With
--quiet it prints only what went wrong. What was kept and is not as durable as was asked counts as
neither; standard error says the key with which to run it again.

A payload is kept byte for byte, with the white space around it; of lines, what stands before the
line end.

A relay that cannot be reached is waited for two seconds, as it may just be starting. After that,
publishing is retried for up to a minute when the relay is busy, its storage is away for a moment,
or the topic is full, and not before the relay says; standard error tells, Ctrl-C ends it, and
--no-retry tries once. Where the relay says to come later than that, it is not retried. Every
message has an idempotency key, so that a retry is kept once. The relay remembers each for ten
minutes, and in memory no more than a bound allows, some 350,000: past it, keys that were made up
here are left out, and standard error says so. Those of --key are not: the run ends.

Lines that the relay refuses are named on standard error with their number, of one kind the first
ten, and the exit status is then 1; the others are kept. Where a refusal holds for all lines, or
does not pass, the run ends, and tells how to go on, as it does after Ctrl-C.";

/// The arguments of `tidemill publish`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Publish {
    /// The topic; its first message makes it, unless the relay is told not to
    topic: TopicName,

    /// The payload, as JSON; without it, standard input is read, one payload a line
    #[arg(allow_negative_numbers = true)]
    payload: Option<String>,

    /// Take the payload, or each line, as text: it becomes a JSON string
    #[arg(long, short)]
    text: bool,

    /// Publish what this file holds as one message
    #[arg(long, short, value_name = "PATH", conflicts_with = "payload")]
    file: Option<PathBuf>,

    /// Publish the payload, or the file, as bytes of this type, not as JSON
    #[arg(long, value_name = "TYPE", conflicts_with = "text")]
    content_type: Option<String>,

    /// A JSON object to keep with each message
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    metadata: Option<String>,

    /// How long the messages are served, as in `90s` or `2h`, ten years at most
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<u64>,

    /// Publish them so long from now, as in `90s` or `2h`, 365 days at most; prints the id of the schedule
    #[arg(long, value_name = "DURATION", value_parser = delay)]
    delay: Option<Duration>,

    /// Publish them at this time, as in `2026-01-31T12:00:00Z`, and at once where it has passed
    #[arg(long, value_name = "TIME", value_parser = at, conflicts_with = "delay")]
    at: Option<Timestamp>,

    /// The idempotency key: publishing the same again under it within ten minutes makes no copy. Of standard
    /// input each line gets `<key>/<its place from 0>`, as over HTTP. Without it, a key is made up for each run,
    /// and left out where the relay remembers as many as it may
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Publish only where this is the id of the topic's last message, `0-0` where there is none. Else
    /// nothing is kept, and the error names the real one. For one payload
    #[arg(long, value_name = "ID")]
    expected_last: Option<MessageId>,

    /// The order key of the messages: groups with `ordering: by_key` give out one of a key at a time, in their order
    #[arg(long, value_name = "KEY", value_parser = OrderKey::parse)]
    order_key: Option<OrderKey>,

    /// Publish only where no message of this key waits or is worked on in this group of the topic; else the id is that of
    /// the one that does. For one payload
    #[arg(long, value_name = "GROUP/KEY", value_parser = unique, conflicts_with_all = ["delay", "at"])]
    unique: Option<Unique>,

    /// Publish only as long as this is the fence of who holds the lock, as in `nightly=1517363399650-0`: in a command of
    /// `tidemill lock`, `"$TIDEMILL_LOCK=$TIDEMILL_FENCE"`. Each line is checked, and the first that is refused ends the run
    #[arg(long, value_name = "LOCK=FENCE", value_parser = Fence::parse, conflicts_with_all = ["delay", "at", "unique"])]
    fence: Option<Fence>,

    /// How durable each must be before it counts as published: `accepted`, `fsync`, `replicas=N` or `fsync, replicas=N`. If not
    /// given, what is set for the topic or the relay
    #[arg(long, value_name = "DURABILITY", value_parser = Durability::parse, conflicts_with_all = ["delay", "at"])]
    durability: Option<Durability>,

    /// End at the first failure, also at one that may pass, as where the topic is full. For one payload
    #[arg(long)]
    no_retry: bool,

    /// Publish without keys: what has no answer when the connection breaks is sent again, and may be there
    /// twice. For large inputs, as the relay remembers each key for ten minutes
    #[arg(long, conflicts_with = "key")]
    no_key: bool,

    /// Print neither ids nor counts, only what went wrong
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    relay: Relay,
}

impl Publish {
    /// Returns when the messages are published, if that is not now.
    fn delivery(&self) -> Option<Delivery> {
        self.delay.map(Delivery::After).or(self.at.map(Delivery::At))
    }

    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let metadata = self.metadata.as_deref().map(object).transpose()?;
        let (client, trace) = (self.relay.client(environment)?, traced::trace(environment));
        let made_up = random_key();
        let keys = match &self.key {
            Some(key) => Keys::Own(key),
            None if self.no_key => Keys::None,
            None => Keys::MadeUp(&made_up),
        };
        let payload = match (&self.payload, &self.file) {
            (Some(payload), _) => payload.clone().into_bytes(),
            (None, Some(path)) => std::fs::read(path).map_err(|cause| {
                CliError::Usage(format!("the file {} cannot be read: {cause}", path.display()))
            })?,
            (None, None) if self.content_type.is_some() => {
                let rule = "--content-type is for one payload; give it as an argument or with --file";
                return Err(CliError::Usage(rule.to_owned()));
            }
            (None, None) if self.expected_last.is_some() => {
                let rule = "--expected-last is for one payload; give it as an argument or with --file";
                return Err(CliError::Usage(rule.to_owned()));
            }
            (None, None) if self.unique.is_some() => {
                let rule = "--unique is for one payload; give it as an argument or with --file";
                return Err(CliError::Usage(rule.to_owned()));
            }
            (None, None) if self.no_retry => {
                let rule = "--no-retry is for one payload; give it as an argument or with --file";
                return Err(CliError::Usage(rule.to_owned()));
            }
            (None, None) => {
                if io::stdin().is_terminal() {
                    eprintln!("reading from the terminal, one message a line; Ctrl-D ends");
                }
                let client = self.relay.target.live_client(environment, Encoding::Binary)?;
                let published = lines::publish(&self, &client, keys, metadata, trace).await;
                return published.map_err(|error| self.relay.target.advised(environment, error));
            }
        };
        self.publish_one(&client, keys, payload, metadata, trace).await
    }

    async fn publish_one(
        &self,
        client: &Client,
        keys: Keys<'_>,
        payload: Vec<u8>,
        metadata: Option<Box<RawValue>>,
        trace: Option<Trace>,
    ) -> Result<(), CliError> {
        let (payload, kind) = match &self.content_type {
            Some(kind) => (payload, kind.as_str()),
            None => (self.json(payload)?, content_type::JSON),
        };
        let build: Box<dyn Fn() -> RequestBuilder> = if metadata.is_none() {
            let path = ["api", "v1", "topics", self.topic.as_str(), "messages"];
            let mut query: Vec<_> = self.ttl.iter().map(|ttl| ("ttl", ttl.to_string())).collect();
            match self.delivery() {
                None => {}
                Some(Delivery::After(delay)) => query.push(("delay", format!("{}ms", delay.as_millis()))),
                Some(Delivery::At(at)) => query.push(("deliver_at", at.to_string())),
            }
            let request = move || client.request(Method::POST, &path).query(&query);
            let last = self.expected_last.map(|last| (EXPECTED_LAST, last.to_string()));
            let order = self.order_key.as_ref().map(|key| (ORDER_KEY, key.to_string()));
            let unique = self.unique.as_ref().map(|Unique { group, key }| (UNIQUE, format!("{group}/{key}")));
            let fence = self.fence.as_ref().map(|fence| (FENCE, fence.to_string()));
            let durability = self.durability.map(|durability| (DURABILITY, durability.to_string()));
            Box::new(move || {
                let request = request().header(CONTENT_TYPE, kind).body(payload.clone());
                let headers = last.iter().chain(&order).chain(&unique).chain(&fence).chain(&durability);
                headers.fold(request, |request, (name, value)| request.header(*name, value.as_bytes()))
            })
        } else {
            let body = Body {
                topic: self.topic.clone(),
                payload: None,
                payload_text: None,
                // White space around JSON would be taken for that of the body.
                payload_base64: Some(BASE64.encode(&payload)),
                content_type: Some(kind.to_owned()),
                metadata,
                ttl: self.ttl,
                delay: self.delay.map(Seconds),
                deliver_at: self.at,
                expected_last: self.expected_last,
                order_key: self.order_key.clone(),
                unique: self.unique.clone(),
                fence: self.fence.clone(),
                durability: self.durability,
                key: None,
            };
            Box::new(move || client.request(Method::POST, &["api", "v1", "messages"]).json(&body))
        };
        let build = || match &trace {
            None => build(),
            Some(Trace { traceparent, tracestate }) => {
                let request = build().header("traceparent", traceparent);
                tracestate.iter().fold(request, |request, state| request.header("tracestate", state))
            }
        };
        let (answer, attempts) = send(client, build, keys, self.no_retry).await?;
        if answer.replayed
            && self.relay.output == Output::Text
            && !self.quiet
            && let Some(why) = self.replayed(attempts)
        {
            eprintln!("{why}");
        }
        if self.delivery().is_some() {
            let scheduled: Scheduled = client.read(&answer)?;
            return match self.relay.output {
                _ if self.quiet => Ok(()),
                Output::Json => output::json(&scheduled),
                Output::Text => output::line(&scheduled.schedule_id.to_string()),
            };
        }
        let published: Published = client.read(&answer)?;
        match self.relay.output {
            _ if self.quiet => Ok(()),
            Output::Json => output::json(&published),
            Output::Text => output::line(&published.message_id.to_string()),
        }
    }

    /// Returns what is told where nothing was kept, as the relay has such a message already. Under a key that was made
    /// up here, an attempt of this command has published it.
    fn replayed(&self, attempts: u32) -> Option<String> {
        let unique = self.unique.as_ref().map(|Unique { group, key }| {
            format!("a message with the key {} waits or is worked on in {group}", output::printable(key))
        });
        let key = self.key.as_deref().map(output::printable);
        let key = key.map(|key| format!("it was published before under the idempotency key {key}"));
        let why: Vec<_> = unique.into_iter().chain(key).collect();
        // One whose answer was lost.
        let or_here = if attempts > 1 { ", perhaps an earlier attempt of this command" } else { "" };
        (!why.is_empty()).then(|| {
            format!("nothing new was kept: {}{or_here}; the id is that of the first", why.join(", or "))
        })
    }

    /// Returns the JSON that a payload is, or stands for.
    fn json(&self, payload: Vec<u8>) -> Result<Vec<u8>, CliError> {
        let name = self.file.as_ref().map_or("the payload".to_owned(), |path| path.display().to_string());
        let text = String::from_utf8(payload).map_err(|_| {
            CliError::Usage(format!(
                "{name} is not UTF-8; publish bytes with --content-type application/octet-stream"
            ))
        })?;
        parse(text, self.text).map(String::into_bytes).map_err(|error| {
            CliError::Usage(format!(
                "{name} is not JSON ({}); a string needs its own quotes, as in '\"text\"', or publish it with --text",
                json_error(&error, false)
            ))
        })
    }
}

/// Returns the payload that a text stands for: itself if it is JSON, or a JSON string of it.
fn parse(text: String, is_text: bool) -> Result<String, serde_json::Error> {
    if is_text {
        return serde_json::to_string(&text);
    }
    serde_json::from_str::<&RawValue>(&text)?;
    Ok(text)
}

/// Reads a group and a key in it.
fn unique(text: &str) -> Result<Unique, String> {
    let (group, key) = text.split_once('/').ok_or("write a group and a key, as in workers/invoice-7")?;
    let group = GroupName::parse(group).map_err(|error| format!("the group {error}"))?;
    Ok(Unique { group, key: key.to_owned() })
}

fn object(text: &str) -> Result<Box<RawValue>, CliError> {
    let usage =
        |what: &str| CliError::Usage(format!("--metadata {what}; write it as in '{{\"source\": \"web\"}}'"));
    let value: &RawValue =
        serde_json::from_str(text).map_err(|error| usage(&format!("is not JSON ({error})")))?;
    if value.get().starts_with('{') { Ok(value.to_owned()) } else { Err(usage("is not a JSON object")) }
}

/// Returns what is wrong with JSON, and where. That of one line has no number of a line: who reads it has its own.
fn json_error(error: &serde_json::Error, is_one_line: bool) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) if is_one_line => format!("{what} at column {}", error.column()),
        _ => text,
    }
}

/// Returns a key that nobody else uses.
fn random_key() -> String {
    // Two make 128 bits.
    format!("cli-{:016x}{:016x}", random(), random())
}
