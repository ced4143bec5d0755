//! `tidemill trim`: removes old messages of a topic, or a single one.

use reqwest::Method;
use tidemill_proto::topics::{TrimRequest, Trimmed};
use tidemill_proto::{MessageId, TopicName};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use super::points::{number, point};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill trim orders --keep 1000                     keep the newest 1,000 messages
  tidemill trim orders --before 2026-01-31T12:00:00Z   remove what is older than this time
  tidemill trim orders --before=-7d                    remove what is older than seven days
  tidemill trim orders --before 1517363399650-0        remove what lies before this message
  tidemill trim orders --message 1517363399650-0       remove this message alone, without a gap";

/// The arguments of `tidemill trim`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["keep", "before", "message"])))]
pub struct Trim {
    /// The topic
    topic: TopicName,

    /// Keep the newest so many messages
    #[arg(long, value_name = "COUNT", value_parser = number::<u64>)]
    keep: Option<u64>,

    /// Remove what lies before this message id, RFC 3339 time, or time ago (`-10m`)
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, value_parser = point)]
    before: Option<String>,

    /// Remove the message with this id alone; readers are told of no gap
    #[arg(long, value_name = "ID", value_parser = MessageId::parse)]
    message: Option<MessageId>,

    #[command(flatten)]
    relay: Relay,
}

impl Trim {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let trimmed = if let Some(id) = self.message {
            let id = id.to_string();
            let path = ["api", "v1", "topics", self.topic.as_str(), "messages", &id];
            client.send(client.request(Method::DELETE, &path)).await?;
            Trimmed { removed: 1 }
        } else {
            let body = TrimRequest { keep: self.keep, before: self.before };
            let path = ["api", "v1", "topics", self.topic.as_str(), "trim"];
            let answer = client.send(client.request(Method::POST, &path).json(&body)).await?;
            client.read(&answer)?
        };
        match self.relay.output {
            Output::Json => output::json(&trimmed),
            Output::Text => output::line(&format!("removed {}", output::counted(trimmed.removed, "message"))),
        }
    }
}
