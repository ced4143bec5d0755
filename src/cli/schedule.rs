//! `tidemill schedule`: lists, cancels and publishes messages that wait for later, and sets recurring ones.

use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use tidemill_proto::limits::SCHEDULES_PAGE_MAX;
use tidemill_proto::schedule::{Recurring, RecurringUpdate, ScheduledMessage};
use tidemill_proto::{OrderKey, RecurringName, ScheduleId, TopicName};

use super::client::Relay;
use super::output::{self, Output};
use super::points::ttl;
use super::{CliError, pages};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill publish reminders --text 'call back' --delay 2h   prints the id of the schedule
  tidemill schedule list reminders                           what waits, what is due first in front
  tidemill schedule cancel reminders ID
  tidemill schedule now reminders ID                         publish it now
  tidemill schedule recurring put jobs nightly '0 3 * * *' '{\"do\": \"sum\"}' --timezone Europe/Berlin
  tidemill schedule recurring list jobs                      each with the time when it comes next
  tidemill schedule recurring delete jobs nightly";

/// The arguments of `tidemill schedule`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Schedule {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the messages of a topic that wait for later
    List {
        /// The topic
        topic: TopicName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Cancel a message that waits
    Cancel(One),
    /// Publish a message that waits now, and print its id
    Now(One),
    /// Messages that come again and again
    #[command(subcommand)]
    Recurring(RecurringAction),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The topic
    topic: TopicName,
    /// What the publish was answered
    #[arg(value_parser = ScheduleId::parse)]
    id: ScheduleId,
    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Subcommand)]
enum RecurringAction {
    /// List the recurring messages of a topic
    List {
        /// The topic
        topic: TopicName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Set a recurring message, in place of the one of its name
    Put(Put),
    /// Remove a recurring message
    Delete {
        /// The topic
        topic: TopicName,
        /// The name of the recurring message
        #[arg(value_parser = RecurringName::parse)]
        name: RecurringName,
        #[command(flatten)]
        relay: Relay,
    },
}

#[derive(Debug, clap::Args)]
struct Put {
    /// The topic
    topic: TopicName,
    /// The name of the recurring message: letters, digits, `_` and `-`
    #[arg(value_parser = RecurringName::parse)]
    name: RecurringName,
    /// When it comes: five fields, as in `*/5 * * * *`, or six with seconds in front
    cron: String,
    /// The payload, as JSON
    #[arg(allow_negative_numbers = true)]
    payload: String,
    /// The time zone in which the pattern is read; `UTC` without it
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Take the payload as text
    #[arg(long, short)]
    text: bool,
    /// How long each message is served, as in `90s` or `2h`, ten years at most
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<u64>,
    /// The order key of each message: groups with `ordering: by_key` give out one of a key at a time
    #[arg(long, value_name = "KEY", value_parser = OrderKey::parse)]
    order_key: Option<OrderKey>,
    #[command(flatten)]
    relay: Relay,
}

/// What a message is answered that is published before its time.
#[derive(serde::Deserialize, Serialize)]
struct PublishedNow {
    message_id: String,
    topic: String,
}

impl Schedule {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::List { topic, relay } => list(&topic, &relay, environment).await,
            Action::Cancel(One { topic, id, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "topics", topic.as_str(), "scheduled", id.as_str()];
                client.send(client.request(Method::DELETE, &path)).await?;
                match relay.output {
                    Output::Json => output::json(&serde_json::json!({ "cancelled": id })),
                    Output::Text => output::line(&format!("cancelled {id}")),
                }
            }
            Action::Now(One { topic, id, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "topics", topic.as_str(), "scheduled", id.as_str(), "now"];
                let answer = client.send(client.request(Method::POST, &path)).await?;
                let published: PublishedNow = client.read(&answer)?;
                match relay.output {
                    Output::Json => output::json(&published),
                    Output::Text => output::line(&published.message_id),
                }
            }
            Action::Recurring(action) => action.run(environment).await,
        }
    }
}

async fn list(topic: &TopicName, relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let path = ["api", "v1", "topics", topic.as_str(), "scheduled"];
    let first = client.request(Method::GET, &path).query(&[("limit", SCHEDULES_PAGE_MAX)]);
    let row = |message: &ScheduledMessage| {
        let id = message.schedule_id.to_string();
        [id, message.deliver_at.to_string(), payload(message)]
    };
    pages::list(&client, first, relay.output, ["ID", "DUE", "PAYLOAD"], row).await
}

/// Returns a payload as a table shows it.
fn payload(message: &ScheduledMessage) -> String {
    const SHOWN: usize = 60;

    let ScheduledMessage { payload, payload_text, payload_base64, .. } = message;
    let text = payload.as_ref().map(|json| json.get()).or(payload_text.as_deref());
    let text = text.or(payload_base64.as_deref()).unwrap_or("null");
    let short: String = output::printable(text).chars().take(SHOWN).collect();
    if text.chars().count() > SHOWN { format!("{short}…") } else { short }
}

impl RecurringAction {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self {
            Self::List { topic, relay } => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "topics", topic.as_str(), "recurring"];
                let answer = client.send(client.request(Method::GET, &path)).await?;
                let all: Vec<Recurring> = client.read(&answer)?;
                match relay.output {
                    Output::Json => all.iter().try_for_each(output::json),
                    Output::Text => {
                        let heading = ["NAME", "NEXT", "CRON", "TIMEZONE"].map(str::to_owned);
                        let rows: Vec<_> = std::iter::once(heading).chain(all.iter().map(row)).collect();
                        output::line(&output::table(&rows))
                    }
                }
            }
            Self::Put(put) => put.run(environment).await,
            Self::Delete { topic, name, relay } => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "topics", topic.as_str(), "recurring", name.as_str()];
                client.send(client.request(Method::DELETE, &path)).await?;
                match relay.output {
                    Output::Json => output::json(&serde_json::json!({ "deleted": name })),
                    Output::Text => output::line(&format!("deleted {name}")),
                }
            }
        }
    }
}

fn row(one: &Recurring) -> [String; 4] {
    let next = one.next_at.map_or_else(|| "never".to_owned(), |next| next.to_string());
    [one.name.to_string(), next, output::printable(&one.cron), output::printable(&one.timezone)]
}

impl Put {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let payload = if self.text {
            None
        } else {
            let not_json = |error| {
                CliError::Usage(format!(
                    "the payload is not JSON ({error}); a string needs its own quotes, as in '\"text\"', or set it with --text"
                ))
            };
            Some(serde_json::from_str::<Box<RawValue>>(&self.payload).map_err(not_json)?)
        };
        let body = RecurringUpdate {
            cron: self.cron,
            timezone: self.timezone,
            payload_text: payload.is_none().then_some(self.payload),
            payload,
            payload_base64: None,
            content_type: None,
            metadata: None,
            ttl: self.ttl,
            order_key: self.order_key,
        };
        let path = ["api", "v1", "topics", self.topic.as_str(), "recurring", self.name.as_str()];
        let answer = client.send(client.request(Method::PUT, &path).json(&body)).await?;
        let recurring: Recurring = client.read(&answer)?;
        match self.relay.output {
            Output::Json => output::json(&recurring),
            Output::Text => {
                let next = recurring.next_at.map_or_else(|| "never".to_owned(), |next| next.to_string());
                output::line(&format!("{} comes next at {next}", recurring.name))
            }
        }
    }
}
