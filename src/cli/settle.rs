//! `tidemill ack`, `nack`, `extend`, `reject` and `release`: what is said of messages that were claimed.

use reqwest::Method;
use serde_json::value::RawValue;
use tidemill_proto::work::{RECEIPTS_MAX, Receipt, SettleRequest, Settled, SettledAll, SettledStatus};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use super::points::span;
use crate::config::Environment;

/// Receipts, and where they go.
#[derive(Debug, clap::Args)]
struct Receipts {
    /// Receipts, as `tidemill claim` prints them
    #[arg(required = true, value_name = "RECEIPT", value_parser = receipt)]
    receipts: Vec<String>,

    #[command(flatten)]
    relay: Relay,
}

/// The arguments of `tidemill ack`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tidemill ack RECEIPT                                   the message is done
  tidemill ack RECEIPT --result '{\"sum\": 7}'             and whoever follows it gets this")]
pub struct Ack {
    /// What came of it, any JSON of at most 64 KiB
    #[arg(long, value_name = "JSON", value_parser = json)]
    result: Option<Box<RawValue>>,
    #[command(flatten)]
    of: Receipts,
}

/// The arguments of `tidemill nack`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tidemill nack RECEIPT --error 'no such table'          it comes again by the group's backoff
  tidemill nack RECEIPT --delay 10m                      or after this time")]
pub struct Nack {
    /// When it comes again, as in `10m` [default: by the backoff of the group]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    delay: Option<String>,
    /// What went wrong
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    #[command(flatten)]
    of: Receipts,
}

/// The arguments of `tidemill extend`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tidemill extend RECEIPT                                for the group's time from now on
  tidemill extend RECEIPT --ack-wait 10m                 for this time")]
pub struct Extend {
    /// For how long from now on, as in `10m` [default: the time of the group]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    ack_wait: Option<String>,
    #[command(flatten)]
    of: Receipts,
}

/// The arguments of `tidemill reject`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tidemill reject RECEIPT --reason 'no such customer'    it is a dead letter")]
pub struct Reject {
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    of: Receipts,
}

/// The arguments of `tidemill release`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tidemill release RECEIPT                               it can be claimed at once; no failure")]
pub struct Release {
    #[command(flatten)]
    of: Receipts,
}

/// Checks that a text is a receipt, and keeps it as it was written.
fn receipt(text: &str) -> Result<String, String> {
    match Receipt::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("is not JSON ({error}); a text stands in quotes, as in '\"text\"'"))
}

fn of_nothing() -> SettleRequest {
    SettleRequest {
        receipts: Vec::new(),
        result: None,
        delay: None,
        error: None,
        ack_wait: None,
        reason: None,
    }
}

impl Ack {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        self.of.say(environment, "ack", SettleRequest { result: self.result, ..of_nothing() }).await
    }
}

impl Nack {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Self { delay, error, of } = self;
        of.say(environment, "nack", SettleRequest { delay, error, ..of_nothing() }).await
    }
}

impl Extend {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        self.of.say(environment, "extend", SettleRequest { ack_wait: self.ack_wait, ..of_nothing() }).await
    }
}

impl Reject {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let reason = Some(self.reason);
        self.of.say(environment, "reject", SettleRequest { reason, ..of_nothing() }).await
    }
}

impl Release {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        self.of.say(environment, "release", of_nothing()).await
    }
}

impl Receipts {
    async fn say(&self, environment: &Environment, verb: &str, what: SettleRequest) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let mut are_all_taken = true;
        for receipts in self.receipts.chunks(RECEIPTS_MAX) {
            let body = SettleRequest { receipts: receipts.to_vec(), ..what.clone() };
            let request = client.request(Method::POST, &["api", "v1", "work", verb]).json(&body);
            let all: SettledAll = client.read(&client.send(request).await?)?;
            for settled in &all.results {
                are_all_taken &= settled.status != SettledStatus::Refused;
                match self.relay.output {
                    Output::Json => output::json(settled)?,
                    Output::Text => output::line(&line(settled))?,
                }
            }
        }
        if are_all_taken { Ok(()) } else { Err(CliError::Told) }
    }
}

/// Returns what came of a receipt, for people.
fn line(settled: &Settled) -> String {
    format!("{} {}{}", status(settled.status), settled.receipt, rest(settled))
}

/// Returns the word for what came of a message.
pub(super) const fn status(status: SettledStatus) -> &'static str {
    match status {
        SettledStatus::Acked => "acked",
        SettledStatus::Nacked => "nacked",
        SettledStatus::Extended => "extended",
        SettledStatus::Rejected => "rejected",
        SettledStatus::Released => "released",
        SettledStatus::Refused => "refused",
    }
}

/// Returns what else there is to say of it.
pub(super) fn rest(settled: &Settled) -> String {
    let until = settled.until.and_then(|until| match settled.status {
        SettledStatus::Extended => Some(format!("until {until}")),
        SettledStatus::Nacked => Some(format!("again at {until}")),
        // What was given back can be claimed at once.
        SettledStatus::Acked | SettledStatus::Rejected | SettledStatus::Released | SettledStatus::Refused => {
            None
        }
    });
    let dead = settled.dead.then(|| "a dead letter now".to_owned());
    let late = settled.late.then(|| "late, and counted".to_owned());
    let error = settled.error.as_deref().map(output::printable);
    let code = settled.code.filter(|_| error.is_none()).map(|code| code.as_str().to_owned());
    let parts: Vec<_> = [until, dead, late, error, code].into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join("; ")) }
}
