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
use tidemill_proto::limits::TTL_SECONDS_MAX;
use tidemill_proto::message::Publish as Body;
use tidemill_proto::{Published, TopicName, content_type};

use super::CliError;
use super::client::{Answer, Client, Relay};
use super::output::{self, Output};
use crate::chance::random;
use crate::config::Environment;
use tidemill_client::Encoding;

mod lines;

/// Most times that a request is sent.
const ATTEMPTS_MAX: u32 = 6;

/// Longest wait between two attempts, whatever the relay asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// First wait between two attempts, where the relay asks for none; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  tidemill publish orders '{\"id\": 7, \"total\": 19.90}'
  tidemill publish log --text 'the tide is in'         a JSON string, without writing its quotes
  tidemill publish quakes < earthquakes.ndjson         one message a line, with a progress bar
  journalctl -f -o json | tidemill publish journal     line by line, as they come
  tidemill publish pictures --file tide.png --content-type image/png

Prints the id of the message. Of lines it prints how many were published and refused, and, where
standard output is no terminal, the id of each; with -o json the relay's answers, one a line. With
--quiet it prints only what went wrong.

A payload is kept byte for byte, with the white space around it; of lines, what stands before the line
end.

Publishing is retried when the relay is busy or its storage is away for a moment. Every message has
an idempotency key, so that a retry is kept once. Lines that the relay refuses are named on standard
error with their number, and the exit status is then 1; the others are kept.";

/// The arguments of `tidemill publish`.
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

    /// Seconds after which the messages are no longer served
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=TTL_SECONDS_MAX))]
    ttl: Option<u64>,

    /// The idempotency key: publishing the same again under it makes no copy. Of standard input each
    /// line gets `<key>-<line number>`. Without it, a key is made up for each run
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Print neither ids nor counts, only what went wrong
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    relay: Relay,
}

impl Publish {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let metadata = self.metadata.as_deref().map(object).transpose()?;
        let client = self.relay.client(environment)?;
        let key = self.key.clone().unwrap_or_else(random_key);
        let payload = match (&self.payload, &self.file) {
            (Some(payload), _) => payload.clone().into_bytes(),
            (None, Some(path)) => std::fs::read(path).map_err(|cause| {
                CliError::Usage(format!("the file {} cannot be read: {cause}", path.display()))
            })?,
            (None, None) if self.content_type.is_some() => {
                let rule = "--content-type is for one payload; give it as an argument or with --file";
                return Err(CliError::Usage(rule.to_owned()));
            }
            (None, None) => {
                if io::stdin().is_terminal() {
                    eprintln!("reading from the terminal, one message a line; Ctrl-D ends");
                }
                let client = self.relay.target.live_client(environment, Encoding::Binary)?;
                return lines::publish(&self, &client, &key, metadata).await;
            }
        };
        self.publish_one(&client, &key, payload, metadata).await
    }

    async fn publish_one(
        &self,
        client: &Client,
        key: &str,
        payload: Vec<u8>,
        metadata: Option<Box<RawValue>>,
    ) -> Result<(), CliError> {
        let (payload, kind) = match &self.content_type {
            Some(kind) => (payload, kind.as_str()),
            None => (self.json(payload)?, content_type::JSON),
        };
        let build: Box<dyn Fn() -> RequestBuilder> = if metadata.is_none() {
            let path = ["api", "v1", "topics", self.topic.as_str(), "messages"];
            let ttl: Vec<_> = self.ttl.iter().map(|ttl| ("ttl", ttl)).collect();
            let request = move || client.request(Method::POST, &path).query(&ttl);
            Box::new(move || request().header(CONTENT_TYPE, kind).body(payload.clone()))
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
                key: None,
            };
            Box::new(move || client.request(Method::POST, &["api", "v1", "messages"]).json(&body))
        };
        let build = || build().header("Idempotency-Key", key);
        let answer = send(client, build, false, |note| eprintln!("{note}")).await?;
        let published: Published = client.read(&answer)?;
        match self.relay.output {
            _ if self.quiet => Ok(()),
            Output::Json => output::json(&published),
            Output::Text => output::line(&published.message_id.to_string()),
        }
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
                "{name} is not JSON ({error}); a string needs its own quotes, as in '\"text\"', or publish it with --text"
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

fn object(text: &str) -> Result<Box<RawValue>, CliError> {
    let usage =
        |what: &str| CliError::Usage(format!("--metadata {what}; write it as in '{{\"source\": \"web\"}}'"));
    let value: &RawValue =
        serde_json::from_str(text).map_err(|error| usage(&format!("is not JSON ({error})")))?;
    if value.get().starts_with('{') { Ok(value.to_owned()) } else { Err(usage("is not a JSON object")) }
}

/// Returns a key that nobody else uses.
fn random_key() -> String {
    // Two make 128 bits.
    format!("cli-{:016x}{:016x}", random(), random())
}

/// Sends a request until it succeeds, fails for good, or has been sent often enough.
///
/// The request must carry idempotency keys: also an unknown outcome is retried. A relay that cannot be
/// reached is waited for only if it `was_there` before; else the URL is probably wrong. The first
/// failure is told through `tell`: waiting in silence looks like hanging.
async fn send(
    client: &Client,
    build: impl Fn() -> RequestBuilder,
    was_there: bool,
    tell: impl Fn(&str),
) -> Result<Answer, CliError> {
    let mut attempt = 1;
    loop {
        let refusal = match client.send(build()).await {
            Ok(answer) => return Ok(answer),
            Err(refusal) => refusal,
        };
        let is_hopeless = !refusal.is_passing || (refusal.is_unreachable && !was_there);
        if is_hopeless || attempt == ATTEMPTS_MAX {
            return Err(refusal.error);
        }
        if attempt == 1 {
            tell(&format!("{}; trying again", refusal.error));
        }
        tokio::time::sleep(pause(attempt, refusal.retry_after)).await;
        attempt += 1;
    }
}

/// Returns how long to wait after the attempt with this number.
fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or(PAUSE_FIRST * 2_u32.pow(attempt - 1)).min(PAUSE_MAX)
}
