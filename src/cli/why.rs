//! `tidemill why`: what became of a message in each group of its topic, in a sentence.

use reqwest::Method;
use serde::Serialize;
use tidemill_proto::work::{GroupDetail, GroupName, MessageState, MessageStateName};
use tidemill_proto::{Code, Message, MessageId, ScheduleId, TopicName};

use super::CliError;
use super::client::{Client, Relay};
use super::groups::{advised, fetch, fetch_all};
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill why jobs 1517363399650-0                      what became of it in each group
  tidemill why jobs 1517363399650-0 --group workers      in this one
  tidemill why jobs 1517363399650-0 -o json              the same for programs

Exit status: 0 it is told, 1 there is no such message, or it cannot be told.

It needs `read` for the topic, and `work`, with which the groups are found; with --group it does
without the latter.";

/// The arguments of `tidemill why`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Why {
    /// The topic
    topic: TopicName,

    /// The id of the message
    #[arg(value_parser = message_id)]
    id: MessageId,

    /// Only this group
    #[arg(long, short, value_name = "GROUP", value_parser = GroupName::parse)]
    group: Option<GroupName>,

    #[command(flatten)]
    relay: Relay,
}

/// What is known of the message itself.
enum Published {
    /// The topic has it.
    There(Box<Message>),
    /// The topic does not have it.
    Absent,
    /// The caller may not read the topic.
    Untold,
}

/// Reads the id of a message. That of one that waits for later is the most frequent mistake.
fn message_id(text: &str) -> Result<MessageId, String> {
    let mut parts = text.split('-').skip(1);
    let is_padded = parts.next().is_some_and(|second| second.len() > 1 && second.starts_with('0'));
    if ScheduleId::parse(text).is_ok() && (is_padded || parts.next().is_some()) {
        let rule = "is the id of a scheduled message, which `tidemill schedule list TOPIC` shows while it waits; the message gets an id of its own when it is published";
        return Err(rule.to_owned());
    }
    MessageId::parse(text).map_err(|error| error.to_string())
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
        let groups = self.groups(&client).await?;
        let published = self.published(&client).await?;
        if self.relay.output == Output::Text {
            self.head(&published)?;
            if groups.is_empty() {
                output::line("no group works on the topic; make one with `tidemill groups create`")?;
            }
        }
        let (mut is_all_told, mut is_known) = (true, matches!(published, Published::There(_)));
        for (group, detail) in &groups {
            let state = match self.state(&client, group).await {
                Ok(state) => state,
                Err(error) if is_forbidden(&error) && detail.is_some() => {
                    is_all_told = false;
                    eprintln!("{group}: {error}");
                    continue;
                }
                Err(error) => return Err(advised(error, &self.topic, group)),
            };
            is_known |= state.is_some();
            let why = match &state {
                Some(state) => sentence(state, detail.as_ref()),
                None => self.unknown(&published, detail.as_ref()).to_owned(),
            };
            match self.relay.output {
                Output::Text => output::line(&format!("{group}: {why}"))?,
                Output::Json => output::json(&Told { group, why, state })?,
            }
        }
        // Where the topic may not be read and no group is asked, nobody says that there is no such message.
        let is_absent = matches!(published, Published::Absent) || !groups.is_empty();
        if is_all_told && (is_known || !is_absent) { Ok(()) } else { Err(CliError::Told) }
    }

    /// Returns the groups that are asked about, each with what it has, where the caller may know that: who publishes
    /// may follow its messages, and not look at groups.
    async fn groups(&self, client: &Client) -> Result<Vec<(GroupName, Option<GroupDetail>)>, CliError> {
        let Some(group) = &self.group else {
            let all = fetch_all(client, &self.topic).await.map_err(narrowed)?;
            return Ok(all.into_iter().map(|detail| (detail.group.clone(), Some(detail))).collect());
        };
        match fetch(client, &self.topic, group).await {
            Ok(detail) => Ok(vec![(group.clone(), Some(detail))]),
            Err(error) if is_forbidden(&error) => Ok(vec![(group.clone(), None)]),
            Err(error) => Err(error),
        }
    }

    /// Prints what is known of the message itself.
    fn head(&self, published: &Published) -> Result<(), CliError> {
        let Self { id, topic, .. } = self;
        match published {
            Published::There(message) => {
                output::line(&format!("{id} of {topic}: published at {}", message.timestamp))
            }
            Published::Absent => output::line(&format!(
                "{id} of {topic}: not in the topic; trimmed, deleted, expired, or never there"
            )),
            Published::Untold => {
                eprintln!("who calls may not read {topic}: when the message was published is left out");
                Ok(())
            }
        }
    }

    /// Returns what is said of a message that the group knows nothing of.
    fn unknown(&self, published: &Published, group: Option<&GroupDetail>) -> &'static str {
        match (published, group) {
            (Published::There(_), _) => "is not the group's: it lies before where the group began",
            (_, Some(group)) if self.id > group.last_delivered => {
                "was never given to the group: it is gone from the topic, or was never there"
            }
            (_, Some(_)) => "is gone from the topic, and the group remembers nothing of it",
            (_, None) => "is unknown to the group: it is gone from the topic, or was never there",
        }
    }

    async fn published(&self, client: &Client) -> Result<Published, CliError> {
        let id = self.id.to_string();
        let path = ["api", "v1", "topics", self.topic.as_str(), "messages", &id];
        match known(client.send(client.request(Method::GET, &path)).await.map_err(CliError::from)) {
            Ok(Some(answer)) => Ok(Published::There(Box::new(client.read(&answer)?))),
            Ok(None) => Ok(Published::Absent),
            Err(error) if is_forbidden(&error) => Ok(Published::Untold),
            Err(error) => Err(error),
        }
    }

    async fn state(&self, client: &Client, group: &GroupName) -> Result<Option<MessageState>, CliError> {
        let id = self.id.to_string();
        let path = ["api", "v1", "topics", self.topic.as_str(), "groups", group.as_str(), "messages", &id];
        known(client.send(client.request(Method::GET, &path)).await.map_err(CliError::from))?
            .map(|answer| client.read(&answer))
            .transpose()
    }
}

/// Returns an error with what to do where the groups of a topic may not be looked at.
fn narrowed(error: CliError) -> CliError {
    match error {
        CliError::Problem(mut problem) if problem.code == Code::Forbidden => {
            problem.detail.push_str("; --group GROUP asks about one group without it");
            CliError::Problem(problem)
        }
        error => error,
    }
}

/// Returns whether an error says that the caller may not.
fn is_forbidden(error: &CliError) -> bool {
    matches!(error, CliError::Problem(problem) if problem.code == Code::Forbidden)
}

/// Returns an answer, or none where there is no such message.
fn known<T>(answer: Result<T, CliError>) -> Result<Option<T>, CliError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CliError::Problem(problem)) if problem.code == Code::MessageNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what became of a message in a sentence, with what the group's settings add to it, where they are known.
fn sentence(state: &MessageState, detail: Option<&GroupDetail>) -> String {
    let deliveries = match state.deliveries {
        Some(1) => ", after 1 delivery".to_owned(),
        Some(deliveries) if deliveries > 0 => format!(", after {deliveries} deliveries"),
        _ => String::new(),
    };
    let deliveries = match state.crashes {
        Some(1) => format!("{deliveries}, one consumer was lost with it"),
        Some(crashes) => format!("{deliveries}, {crashes} consumers were lost with it"),
        None => deliveries,
    };
    let error = state.error.as_deref().map(|error| format!(": {}", output::printable(error)));
    let error = error.unwrap_or_default();
    match state.state {
        MessageStateName::Waiting if detail.is_some_and(|detail| detail.settings.paused) => {
            format!("waits: the group is paused{deliveries}; `tidemill groups resume` gives it out")
        }
        MessageStateName::Waiting => {
            let waiting = detail.and_then(|detail| detail.waiting);
            let waiting = waiting.map_or_else(String::new, |waiting| format!(", of {waiting} that wait"));
            let what = match state.behind {
                Some(first) => format!("waits behind {first}, which holds its order key"),
                None => format!("waits to be claimed{waiting}"),
            };
            format!("{what}{deliveries}{error}{}", detail.map(who_asks).unwrap_or_default())
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
            let has_failed = state.failures.is_some() || state.crashes.is_some();
            let failed = if has_failed { "has failed, and " } else { "" };
            format!("{failed}waits{until}{deliveries}{error}")
        }
        MessageStateName::Done => {
            let result = state.result.as_ref().map(|_| ", with a result").unwrap_or_default();
            format!("is done{deliveries}{result}")
        }
        MessageStateName::Dead => {
            let letters = detail.map(|detail| format!(" in {}", detail.settings.dead_letter));
            format!("is a dead letter{}{deliveries}{error}", letters.unwrap_or_default())
        }
    }
}

/// Returns why nobody gets what waits, as far as the group tells.
fn who_asks(detail: &GroupDetail) -> String {
    if detail.settings.max_in_flight.is_some_and(|max| detail.in_flight >= u64::from(max)) {
        return format!("; {} are in flight, which is all that may be (`max_in_flight`)", detail.in_flight);
    }
    match detail.last_claim {
        Some(at) => format!("; a consumer last asked for messages at {at}"),
        None => "; no consumer has ever asked for messages".to_owned(),
    }
}
