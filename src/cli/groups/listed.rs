//! `tidemill groups list`: the groups of a topic, or of all topics, each with what it has.

use reqwest::Method;
use tidemill_proto::TopicName;
use tidemill_proto::work::GroupDetail;

use super::super::client::Relay;
use super::super::output::{self, Output};
use super::super::{CliError, pages};
use super::{State, fetch_all, number};
use crate::config::Environment;

/// What stands above the columns; the topic only in a list of all.
const HEADING: [&str; 10] =
    ["TOPIC", "GROUP", "WAITING", "IN FLIGHT", "BACKOFF", "DEAD", "DONE", "FAILED", "OLDEST", "STATE"];

/// The arguments of `tidemill groups list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// The topic; those of all topics if it is absent
    topic: Option<TopicName>,

    /// Only groups that are not done, and of which nobody has asked for messages for a minute
    #[arg(long, conflicts_with = "topic")]
    unattended: bool,

    #[command(flatten)]
    relay: Relay,
}

impl List {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.topic {
            Some(topic) => of_topic(&topic, &self.relay, environment).await,
            None => of_all(&self.relay, environment, self.unattended).await,
        }
    }
}

async fn of_topic(topic: &TopicName, relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let groups = fetch_all(&relay.client(environment)?, topic).await?;
    if relay.output == Output::Json {
        return groups.iter().try_for_each(output::json);
    }
    let [_, heading @ ..] = HEADING.map(str::to_owned);
    let row = |group| {
        let [_, row @ ..] = row(group);
        row
    };
    let rows: Vec<[String; 9]> = std::iter::once(heading).chain(groups.iter().map(row)).collect();
    output::line(&output::table(&rows))
}

/// Prints the groups of all topics, page by page.
pub(super) async fn of_all(
    relay: &Relay,
    environment: &Environment,
    unattended: bool,
) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let first = client.request(Method::GET, &["api", "v1", "groups"]);
    let first = first.query(if unattended { &[("unattended", "true")][..] } else { &[] });
    pages::list(&client, first, relay.output, HEADING, row).await
}

fn row(group: &GroupDetail) -> [String; 10] {
    [
        group.topic.to_string(),
        group.group.to_string(),
        number(group.waiting),
        group.in_flight.to_string(),
        group.in_backoff.to_string(),
        group.dead.to_string(),
        group.done.to_string(),
        group.failed.to_string(),
        group.oldest_waiting_seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.0} s")),
        State::of(group).word().to_owned(),
    ]
}
