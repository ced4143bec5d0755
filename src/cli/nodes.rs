//! `tidemill nodes`: which relays share the storage.

use reqwest::Method;
use tidemill_proto::nodes::{NodeInfo, NodeList};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill nodes                          which relays there are, and their versions
  tidemill nodes -o json                  the same as JSON

Each node says every few seconds that it is there; one that has ended without a word is listed
for 30 seconds more.";

/// The arguments of `tidemill nodes`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Nodes {
    #[command(flatten)]
    relay: Relay,
}

impl Nodes {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let request = client.request(Method::GET, &["api", "v1", "admin", "nodes"]);
        let list: NodeList = client.read(&client.send(request).await?)?;
        match self.relay.output {
            Output::Json => output::json(&list),
            Output::Text => output::line(&told(&list)),
        }
    }
}

fn told(list: &NodeList) -> String {
    let head = ["NODE", "VERSION", "HOST", "LISTENING", "SINCE", "SESSIONS", "STATE"].map(str::to_owned);
    let row = |about: &NodeInfo| {
        let state = if about.stopping { "is stopping" } else { "serves" };
        let answers = if about.node == list.node { ", has answered" } else { "" };
        [
            about.node.to_string(),
            output::printable(&about.version),
            output::printable(&about.host),
            output::printable(&about.listening.join(", ")),
            about.since.to_string(),
            about.sessions.to_string(),
            format!("{state}{answers}"),
        ]
    };
    let rows: Vec<_> = [head].into_iter().chain(list.nodes.iter().map(row)).collect();
    let versions: std::collections::BTreeSet<_> = list.nodes.iter().map(|about| &about.version).collect();
    let count = output::counted(list.nodes.len() as u64, "node");
    let of = if versions.len() > 1 { format!(" of {} versions", versions.len()) } else { String::new() };
    format!("{}\n{count}{of}", output::table(&rows))
}
