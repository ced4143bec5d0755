//! `tidemill topics`: lists, shows, creates and deletes topics.

use std::io::{self, IsTerminal as _, Write as _};

use reqwest::Method;
use tidemill_proto::TopicName;
use tidemill_proto::limits::TOPICS_PAGE_MAX;
use tidemill_proto::topics::{Topic, TopicCreate, TopicDetail};

use super::CliError;
use super::client::{Client, Relay};
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill topics                                       list all topics
  tidemill topics show orders                           length, first and last message, age
  tidemill topics create orders --retention-seconds 3600
  tidemill topics delete orders --yes                   with all its messages";

/// The arguments of `tidemill topics`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Topics {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all topics
    List {
        #[command(flatten)]
        relay: Relay,
    },
    /// Show a topic and what it holds
    Show {
        /// The topic
        topic: TopicName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Create a topic
    Create(Create),
    /// Delete a topic with all its messages
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The topic
    topic: TopicName,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Seconds after which its messages are removed, in place of the relay's setting
    #[arg(long, value_name = "SECONDS")]
    retention_seconds: Option<u64>,
    #[command(flatten)]
    relay: Relay,
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
            None => list(&self.relay, environment).await,
            Some(Action::List { relay }) => list(&relay, environment).await,
            Some(Action::Show { topic, relay }) => {
                let detail = fetch(&relay.client(environment)?, &topic).await?;
                show(&detail, relay.output)
            }
            Some(Action::Create(create)) => create.run(environment).await,
            Some(Action::Delete(delete)) => delete.run(environment).await,
        }
    }
}

impl Create {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let body = TopicCreate {
            topic_name: self.topic,
            description: self.description,
            retention_seconds: self.retention_seconds,
        };
        let request = client.request(Method::POST, &["api", "v1", "topics"]).json(&body);
        let topic: Topic = client.read(&client.send(request).await?)?;
        match self.relay.output {
            Output::Json => output::json(&topic),
            Output::Text => output::line(&format!("created {}", topic.topic_name)),
        }
    }
}

impl Delete {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        if !self.yes {
            if !io::stdin().is_terminal() {
                let rule = "deleting a topic deletes its messages; add --yes to do it without being asked";
                return Err(CliError::Usage(rule.to_owned()));
            }
            let detail = fetch(&client, &self.topic).await?;
            if !confirm(&format!("Delete {} with its {} messages?", self.topic, detail.length))? {
                eprintln!("kept");
                return Ok(());
            }
        }
        client.send(client.request(Method::DELETE, &path(&self.topic))).await?;
        match self.relay.output {
            Output::Json => output::json(&serde_json::json!({ "deleted": self.topic })),
            Output::Text => output::line(&format!("deleted {}", self.topic)),
        }
    }
}

fn path(topic: &TopicName) -> [&str; 4] {
    ["api", "v1", "topics", topic.as_str()]
}

async fn fetch(client: &Client, topic: &TopicName) -> Result<TopicDetail, CliError> {
    let answer = client.send(client.request(Method::GET, &path(topic))).await?;
    client.read(&answer)
}

/// Prints every page of the list. Each page is a table of its own width, so that the first lines do
/// not wait for the last topic.
async fn list(relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let first = client.request(Method::GET, &["api", "v1", "topics"]);
    let mut answer = client.send(first.query(&[("limit", TOPICS_PAGE_MAX)])).await?;
    let mut heading = Some(["TOPIC", "CREATED", "RETENTION", "DESCRIPTION"].map(str::to_owned));
    loop {
        let topics: Vec<Topic> = client.read(&answer)?;
        match relay.output {
            Output::Json => topics.iter().try_for_each(output::json)?,
            Output::Text => {
                let rows: Vec<_> = heading.take().into_iter().chain(topics.iter().map(row)).collect();
                output::line(&output::table(&rows))?;
            }
        }
        let Some(next) = answer.next.filter(|_| !topics.is_empty()) else { return Ok(()) };
        answer = client.send(client.follow(&next)?).await?;
    }
}

fn row(topic: &Topic) -> [String; 4] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        topic.topic_name.to_string(),
        or_dash(topic.created_at.map(|time| time.to_string())),
        or_dash(topic.retention_seconds.map(|seconds| format!("{seconds} s"))),
        output::printable(topic.description.as_deref().unwrap_or_default()),
    ]
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
        ("messages", detail.length.to_string()),
        ("first", or_dash(detail.first_id.map(|id| id.to_string()))),
        ("last", or_dash(detail.last_id.map(|id| id.to_string()))),
        ("oldest", or_dash(detail.oldest_age_seconds.map(|seconds| format!("{seconds} s ago")))),
    ];
    output::line(&output::table(&rows.map(|(name, value)| [name.to_owned(), value])))
}

fn confirm(question: &str) -> Result<bool, CliError> {
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
