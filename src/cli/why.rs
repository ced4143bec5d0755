//! `tidemill why`: what became of a message in each group of its topic, in a sentence.

use reqwest::Method;
use serde::Serialize;
use tidemill_proto::work::{GroupDetail, GroupName, MessageState, MessageStateName};
use tidemill_proto::{Code, Message, MessageId, TopicName};

use super::CliError;
use super::client::{Client, Relay};
use super::groups::{fetch, fetch_all};
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill why jobs 1517363399650-0                      what became of it in each group
  tidemill why jobs 1517363399650-0 --group workers      in this one
  tidemill why jobs 1517363399650-0 -o json              the same for programs";

/// The arguments of `tidemill why`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Why {
    /// The topic
    topic: TopicName,

    /// The id of the message
    #[arg(value_parser = MessageId::parse)]
    id: MessageId,

    /// Only this group
    #[arg(long, short, value_name = "GROUP", value_parser = GroupName::parse)]
    group: Option<GroupName>,

    #[command(flatten)]
    relay: Relay,
}

/// What became of a message in a group.
#[derive(Serialize)]
struct Told<'a> {
    group: &'a GroupName,
    /// The sentence.
    why: String,
    #[serde(flatten)]
    state: Option<MessageState>,
}

impl Why {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let groups = match &self.group {
            Some(group) => vec![fetch(&client, &self.topic, group).await?],
            None => fetch_all(&client, &self.topic).await?,
        };
        let published = self.published(&client).await?;
        if self.relay.output == Output::Text {
            output::line(&match &published {
                Some(message) => format!("{} of {}: published at {}", self.id, self.topic, message.timestamp),
                None => format!(
                    "{} of {}: not in the topic; trimmed, deleted, expired, or never there",
                    self.id, self.topic
                ),
            })?;
            if groups.is_empty() {
                output::line("no group works on the topic; make one with `tidemill groups create`")?;
            }
        }
        for group in &groups {
            let state = self.state(&client, &group.group).await?;
            let why = match &state {
                Some(state) => sentence(state, group),
                None if published.is_some() => {
                    "is not the group's: it lies before where the group began".to_owned()
                }
                None if self.id > group.last_delivered => {
                    "is unknown: the group has not come to it, and it is not in the topic".to_owned()
                }
                None => "is gone from the topic, and the group remembers nothing of it".to_owned(),
            };
            match self.relay.output {
                Output::Text => output::line(&format!("{}: {why}", group.group))?,
                Output::Json => output::json(&Told { group: &group.group, why, state })?,
            }
        }
        Ok(())
    }

    /// Returns the message, if the topic has it and may be read.
    async fn published(&self, client: &Client) -> Result<Option<Message>, CliError> {
        let id = self.id.to_string();
        let path = ["api", "v1", "topics", self.topic.as_str(), "messages", &id];
        known(client.send(client.request(Method::GET, &path)).await.map_err(CliError::from))?
            .map(|answer| client.read(&answer))
            .transpose()
    }

    async fn state(&self, client: &Client, group: &GroupName) -> Result<Option<MessageState>, CliError> {
        let id = self.id.to_string();
        let path = ["api", "v1", "topics", self.topic.as_str(), "groups", group.as_str(), "messages", &id];
        known(client.send(client.request(Method::GET, &path)).await.map_err(CliError::from))?
            .map(|answer| client.read(&answer))
            .transpose()
    }
}

/// Returns an answer, or none where there is no such message.
fn known<T>(answer: Result<T, CliError>) -> Result<Option<T>, CliError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CliError::Problem(problem)) if problem.code == Code::MessageNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn sentence(state: &MessageState, group: &GroupDetail) -> String {
    let deliveries = match state.deliveries {
        Some(1) => ", after 1 delivery".to_owned(),
        Some(deliveries) if deliveries > 0 => format!(", after {deliveries} deliveries"),
        _ => String::new(),
    };
    let error = state.error.as_deref().map(|error| format!(": {}", output::printable(error)));
    let error = error.unwrap_or_default();
    match state.state {
        MessageStateName::Waiting if group.settings.paused => {
            format!("waits: the group is paused{deliveries}; `tidemill groups resume` gives it out")
        }
        MessageStateName::Waiting => {
            let waiting =
                group.waiting.map_or_else(String::new, |waiting| format!(", of {waiting} that wait"));
            format!("waits to be claimed{waiting}{deliveries}{error}")
        }
        MessageStateName::InFlight => {
            let who = state.consumer.as_deref().map_or("somebody".to_owned(), output::printable);
            let since = state.started_at.map(|at| format!(" since {at}")).unwrap_or_default();
            let until = state.until.map(|at| format!(", until {at} unless it extends that"));
            let which =
                state.deliveries.map(|delivery| format!(" (delivery {delivery})")).unwrap_or_default();
            format!("is with {who}{since}{}{which}", until.unwrap_or_default())
        }
        MessageStateName::Backoff => {
            let until = state.until.map(|at| format!(" until {at}")).unwrap_or_default();
            format!("has failed, and waits{until}{deliveries}{error}")
        }
        MessageStateName::Done => {
            let result = state.result.as_ref().map(|_| ", with a result").unwrap_or_default();
            format!("is done{deliveries}{result}")
        }
        MessageStateName::Dead => {
            format!("is a dead letter in {}{deliveries}{error}", group.settings.dead_letter)
        }
    }
}
