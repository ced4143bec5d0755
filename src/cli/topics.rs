//! `tidemill topics`: lists, shows, creates, changes and deletes topics.

use clap::ArgAction;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tidemill_proto::limits::TOPICS_PAGE_MAX;
use tidemill_proto::topics::{CancelRequest, Closed, RunState, Topic, TopicCreate, TopicDetail, WhenFull};
use tidemill_proto::{Code, TopicName, TopicSelector};

use super::CliError;
use super::client::{Client, Relay};
use super::confirm::confirm;
use super::output::{self, Output};
use super::points::{count, kept};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill topics                                       list all topics, each with the number of its
                                                        messages and the age of the oldest
  tidemill topics --match 'orders.*'                    those whose names begin with `orders.`
  tidemill topics show orders                           length, first and last message, age
  tidemill topics create orders --retention-seconds 3600
  tidemill topics change orders --max-messages 100000 --when-full refuse
  tidemill topics close run-17                          it takes no more messages; these stay
  tidemill topics cancel run-18 'out of budget'         the same; who publishes or reads learns why
  tidemill topics delete orders --yes                   with all its messages";

/// Topics that are described at the same time.
const ASKED_AT_ONCE: usize = 16;

/// The arguments of `tidemill topics`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Topics {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List topics
    List(List),
    /// Show a topic and what it holds
    Show {
        /// The topic
        topic: TopicName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Create a topic
    Create(Create),
    /// Change what a topic is for, and what it keeps
    Change(Change),
    /// Close a topic: it takes no messages any more, and its readers are told
    Close {
        /// The topic
        topic: TopicName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Cancel a topic: it takes no messages any more, and publishers and readers are told why
    Cancel {
        /// The topic
        topic: TopicName,
        /// Why
        reason: String,
        #[command(flatten)]
        relay: Relay,
    },
    /// Delete a topic with all its messages
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only topics whose names it matches: `*` is any run of characters
    #[arg(long = "match", value_name = "PATTERN")]
    selected: Option<TopicSelector>,
    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The topic
    topic: TopicName,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How long its messages are kept, as in `90s` or `7d`, in place of the relay's setting
    #[arg(long, value_name = "DURATION", value_parser = kept)]
    retention_seconds: Option<u64>,
    /// Messages that it keeps, about, in place of the relay's setting
    #[arg(long, value_name = "COUNT", value_parser = count)]
    max_messages: Option<u64>,
    /// Bytes that it keeps, about
    #[arg(long, value_name = "BYTES", value_parser = count)]
    max_bytes: Option<u64>,
    /// What becomes of a message for which there is no room: `drop_old` (the usual) or `refuse`
    #[arg(long, value_name = "WHAT", value_parser = when_full)]
    when_full: Option<WhenFull>,
    /// Whether messages are removed once every group has acknowledged them
    #[arg(long, value_name = "true|false", action = ArgAction::Set, num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true)]
    keep_until_acked: Option<bool>,
    /// After how long the topic is removed when nothing was done with it
    #[arg(long, value_name = "DURATION", value_parser = kept)]
    idle_seconds: Option<u64>,
    /// The field of the metadata that says which messages replace each other
    #[arg(long, value_name = "FIELD")]
    compact_by: Option<String>,
    #[command(flatten)]
    relay: Relay,
}

fn when_full(text: &str) -> Result<WhenFull, String> {
    WhenFull::named(text).ok_or_else(|| "drop_old or refuse".to_owned())
}

/// What is not named stays as it is.
#[derive(Debug, clap::Args)]
struct Change {
    /// The topic
    topic: TopicName,
    /// What it is for; nothing, if empty
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How long its messages are kept, as in `90s` or `7d`; `none` for the relay's setting
    #[arg(long, value_name = "DURATION", value_parser = kept_or_none)]
    retention_seconds: Option<Value>,
    /// Messages that it keeps, about; `none` for the relay's setting
    #[arg(long, value_name = "COUNT", value_parser = number_or_none)]
    max_messages: Option<Value>,
    /// Bytes that it keeps, about; `none` for no bound
    #[arg(long, value_name = "BYTES", value_parser = number_or_none)]
    max_bytes: Option<Value>,
    /// What becomes of a message for which there is no room: `drop_old` or `refuse`
    #[arg(long, value_name = "WHAT", value_parser = when_full)]
    when_full: Option<WhenFull>,
    /// Whether messages are removed once every group has acknowledged them
    #[arg(long, value_name = "true|false", action = ArgAction::Set, num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true)]
    keep_until_acked: Option<bool>,
    /// After how long the topic is removed when nothing was done with it; `none` for never
    #[arg(long, value_name = "DURATION", value_parser = kept_or_none)]
    idle_seconds: Option<Value>,
    /// The field of the metadata that says which messages replace each other; nothing, if empty
    #[arg(long, value_name = "FIELD")]
    compact_by: Option<String>,
    #[command(flatten)]
    relay: Relay,
}

fn number_or_none(text: &str) -> Result<Value, String> {
    or_none(text, count)
}

fn kept_or_none(text: &str) -> Result<Value, String> {
    or_none(text, kept)
}

fn or_none(text: &str, read: impl Fn(&str) -> Result<u64, String>) -> Result<Value, String> {
    match text {
        "none" => Ok(Value::Null),
        text => read(text).map(Value::from).map_err(|rule| format!("{rule}; or `none`")),
    }
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// The topic
    topic: TopicName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    relay: Relay,
}

impl Topics {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            None => self.list.run(environment).await,
            Some(Action::List(list)) => list.run(environment).await,
            Some(Action::Show { topic, relay }) => {
                let detail = fetch(&relay.client(environment)?, &topic).await?;
                show(&detail, relay.output)
            }
            Some(Action::Create(create)) => create.run(environment).await,
            Some(Action::Change(change)) => change.run(environment).await,
            Some(Action::Close { topic, relay }) => {
                let client = relay.client(environment)?;
                end(&client, &topic, "close", |request| request, relay.output).await
            }
            Some(Action::Cancel { topic, reason, relay }) => {
                let client = relay.client(environment)?;
                end(
                    &client,
                    &topic,
                    "cancel",
                    |request| request.json(&CancelRequest { reason }),
                    relay.output,
                )
                .await
            }
            Some(Action::Delete(delete)) => delete.run(environment).await,
        }
    }
}

impl List {
    /// Prints every page of the list. Each page is a table of its own width, so that the first lines do
    /// not wait for the last topic. A page without topics may have others behind it.
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let selected = self.selected.map(|selected| ("match", selected));
        let first =
            client.request(Method::GET, &["api", "v1", "topics"]).query(&[("limit", TOPICS_PAGE_MAX)]);
        let mut answer = client.send(first.query(selected.as_slice())).await?;
        let mut heading =
            Some(["TOPIC", "LENGTH", "AGE", "CREATED", "RETENTION", "DESCRIPTION"].map(str::to_owned));
        loop {
            let topics: Vec<Topic> = client.read(&answer)?;
            let details = stream::iter(topics).map(|topic| detail(&client, topic)).buffered(ASKED_AT_ONCE);
            let topics: Vec<_> = details.try_collect().await?;
            match self.relay.output {
                Output::Json => topics.iter().try_for_each(|(topic, detail)| match detail {
                    Some(detail) => output::json(detail),
                    None => output::json(topic),
                })?,
                Output::Text if topics.is_empty() && (answer.next.is_some() || heading.is_none()) => {}
                Output::Text => {
                    let rows: Vec<_> = heading.take().into_iter().chain(topics.iter().map(row)).collect();
                    output::line(&output::table(&rows))?;
                }
            }
            let Some(next) = answer.next else { break };
            answer = client.send(client.follow(&next)?).await?;
        }
        if client.is_unsaid() && is_closed(&client).await {
            eprintln!("as anonymous; topics that it may not read are not shown");
        }
        Ok(())
    }
}

/// Returns whether who does not say who calls is told so: on a relay that is open to everybody it is no matter.
async fn is_closed(client: &Client) -> bool {
    let answer = client.send(client.request(Method::GET, &["auth", "me"])).await.map_err(CliError::from);
    matches!(answer, Err(CliError::Problem(problem)) if problem.code == Code::Unauthenticated)
}

impl Create {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let body = TopicCreate {
            topic_name: self.topic,
            description: self.description,
            retention_seconds: self.retention_seconds,
            max_messages: self.max_messages,
            max_bytes: self.max_bytes,
            when_full: self.when_full,
            keep_until_acked: self.keep_until_acked,
            idle_seconds: self.idle_seconds,
            compact_by: self.compact_by,
        };
        let request = client.request(Method::POST, &["api", "v1", "topics"]).json(&body);
        let topic: Topic = client.read(&client.send(request).await?)?;
        match self.relay.output {
            Output::Json => output::json(&topic),
            Output::Text => output::line(&format!("created {}", topic.topic_name)),
        }
    }
}

impl Change {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let text =
            |text: Option<String>| text.map(|text| if text.is_empty() { Value::Null } else { text.into() });
        let parts = [
            ("description", text(self.description)),
            ("retention_seconds", self.retention_seconds),
            ("max_messages", self.max_messages),
            ("max_bytes", self.max_bytes),
            ("when_full", self.when_full.map(|what| what.as_str().into())),
            ("keep_until_acked", self.keep_until_acked.map(Value::Bool)),
            ("idle_seconds", self.idle_seconds),
            ("compact_by", text(self.compact_by)),
        ];
        let named = parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let body = Value::Object(named.collect());
        let request = client.request(Method::PATCH, &path(&self.topic)).json(&body);
        let topic: Topic = client.read(&client.send(request).await?)?;
        match self.relay.output {
            Output::Json => output::json(&topic),
            Output::Text => output::line(&format!("changed {}: {}", topic.topic_name, keeps(&topic))),
        }
    }
}

impl Delete {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let question = async {
            let detail = fetch(&client, &self.topic).await?;
            Ok(format!("Delete {} with its {}?", self.topic, output::counted(detail.length, "message")))
        };
        if !self.yes && !confirm("deleting a topic deletes its messages", question).await? {
            return Ok(());
        }
        client.send(client.request(Method::DELETE, &path(&self.topic))).await?;
        match self.relay.output {
            Output::Json => output::json(&serde_json::json!({ "deleted": self.topic })),
            Output::Text => output::line(&format!("deleted {}", self.topic)),
        }
    }
}

/// Ends a topic.
async fn end(
    client: &Client,
    topic: &TopicName,
    how: &str,
    with_body: impl FnOnce(RequestBuilder) -> RequestBuilder,
    form: Output,
) -> Result<(), CliError> {
    let request = client.request(Method::POST, &["api", "v1", "topics", topic.as_str(), how]);
    let closed: Closed = client.read(&client.send(with_body(request)).await?)?;
    match form {
        Output::Json => output::json(&closed),
        Output::Text => output::line(&format!("{} {}", closed.state.as_str(), closed.topic)),
    }
}

fn path(topic: &TopicName) -> [&str; 4] {
    ["api", "v1", "topics", topic.as_str()]
}

async fn fetch(client: &Client, topic: &TopicName) -> Result<TopicDetail, CliError> {
    let answer = client.send(client.request(Method::GET, &path(topic))).await?;
    client.read(&answer)
}

/// Returns a topic with what it holds, unless it has gone since it was listed. One that is called `stats`
/// cannot be described: its path is that of the counts.
async fn detail(client: &Client, topic: Topic) -> Result<(Topic, Option<TopicDetail>), CliError> {
    if topic.topic_name.as_str() == "stats" {
        return Ok((topic, None));
    }
    match fetch(client, &topic.topic_name).await {
        Ok(detail) => Ok((topic, Some(detail))),
        Err(CliError::Problem(problem)) if problem.code == Code::TopicNotFound => Ok((topic, None)),
        Err(error) => Err(error),
    }
}

fn row((topic, detail): &(Topic, Option<TopicDetail>)) -> [String; 6] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        topic.topic_name.to_string(),
        or_dash(detail.as_ref().map(|detail| detail.length.to_string())),
        or_dash(detail.as_ref().and_then(|detail| detail.oldest_age_seconds).map(age)),
        or_dash(topic.created_at.map(|time| time.to_string())),
        or_dash(topic.retention_seconds.map(|seconds| format!("{seconds} s"))),
        output::printable(topic.description.as_deref().unwrap_or_default()),
    ]
}

/// Returns an age in the largest unit of which it has two.
fn age(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= 2 * unit).unwrap_or((1, "s"));
    format!("{} {name}", seconds / unit)
}

fn show(detail: &TopicDetail, form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return output::json(detail);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let topic = &detail.topic;
    let rows = [
        ("topic", topic.topic_name.to_string()),
        ("description", or_dash(topic.description.as_deref().map(output::printable))),
        ("owner", or_dash(topic.owner_id.as_deref().map(output::printable))),
        ("created", or_dash(topic.created_at.map(|time| time.to_string()))),
        (
            "retention",
            topic.retention_seconds.map_or("the relay's".to_owned(), |seconds| format!("{seconds} s")),
        ),
        ("keeps", keeps(topic)),
        ("unused", idle(topic)),
        ("state", state(detail)),
        ("messages", detail.length.to_string()),
        ("bytes", or_dash(detail.bytes.map(|bytes| bytes.to_string()))),
        ("given", or_dash(detail.given.map(|given| output::counted(given, "message")))),
        ("readers", format!("{} on this node", detail.readers)),
        ("first", or_dash(detail.first_id.map(|id| id.to_string()))),
        ("last", or_dash(detail.last_id.map(|id| id.to_string()))),
        ("oldest", or_dash(detail.oldest_age_seconds.map(|seconds| format!("{seconds} s ago")))),
    ];
    output::line(&output::table(&rows.map(|(name, value)| [name.to_owned(), value])))
}

/// Returns what a topic keeps.
fn keeps(topic: &Topic) -> String {
    let messages = topic
        .max_messages
        .map_or("the relay's number of messages".to_owned(), |max| output::counted(max, "message"));
    let mut parts = vec![messages];
    parts.extend(topic.max_bytes.map(|max| output::counted(max, "byte")));
    parts.extend((topic.when_full == WhenFull::Refuse).then(|| "refuses more".to_owned()));
    parts.extend(topic.keep_until_acked.then(|| "until they are acknowledged".to_owned()));
    parts
        .extend(topic.compact_by.as_ref().map(|field| format!("the latest by {}", output::printable(field))));
    parts.join(", ")
}

/// Returns after which time a topic is removed that is not used.
fn idle(topic: &Topic) -> String {
    topic.idle_seconds.map_or("stays".to_owned(), |seconds| format!("removed after {seconds} s"))
}

/// Returns whether a topic takes messages, and why not.
fn state(detail: &TopicDetail) -> String {
    match detail.reason.as_deref().filter(|_| detail.state == RunState::Cancelled) {
        Some(reason) => format!("cancelled: {}", output::printable(reason)),
        None => detail.state.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit_that_fits() {
        for (seconds, text) in
            [(0, "0 s"), (119, "119 s"), (120, "2 m"), (7_199, "119 m"), (7_200, "2 h"), (172_800, "2 d")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
