//! `tidemill slow`: lists what took long on a node, and what its servers have noted as slow.

use reqwest::Method;
use tidemill_proto::slow::{SlowCommand, SlowList, SlowOperation, SlowServer};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output, counted};
use super::points::count;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill slow               the newest past TIDEMILL_SLOW_MS, with the parts of their time
  tidemill slow -n 256        as many as the node keeps
  tidemill slow -o json       one JSON object

QUEUE is how long it waited on the node for its turn, SERVER how long the server had it, with the
way there and back, and WRITE how long the client took to accept the answer. What a client has the
relay wait for is in none of them. Of the servers it is told what their own SLOWLOG has.

Operations are those of the node that answers: behind a load balancer, ask each relay by its own
address.";

/// The arguments of `tidemill slow`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Slow {
    /// How many at most, of the node and of each server
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = count, default_value = "50")]
    limit: u64,
    #[command(flatten)]
    relay: Relay,
}

impl Slow {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let request = client.request(Method::GET, &["api", "v1", "admin", "slow"]);
        let list: SlowList = client.read(&client.send(request.query(&[("limit", self.limit)])).await?)?;
        match self.relay.output {
            Output::Json => output::json(&list),
            Output::Text => output::line(&told(&list)),
        }
    }
}

fn told(list: &SlowList) -> String {
    let mut parts = Vec::new();
    if !list.operations.is_empty() {
        let head = ["AT", "TOTAL", "QUEUE", "SERVER", "WRITE", "KIND", "CALLER", "TOPIC", "OPERATION"];
        let rows = list.operations.iter().map(row);
        let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
        parts.push(output::table(&rows));
    }
    parts.push(match list.threshold_ms {
        0 => format!("node {} notes nothing (TIDEMILL_SLOW_MS=0)", list.node),
        threshold => {
            let noted = counted(list.count, "operation");
            format!("{noted} past {threshold} ms on node {} since it has started", list.node)
        }
    });
    parts.extend(list.servers.iter().map(server));
    parts.join("\n")
}

fn row(operation: &SlowOperation) -> [String; 9] {
    let text =
        |text: &Option<String>| text.as_ref().map_or_else(|| "-".to_owned(), |text| output::printable(text));
    [
        operation.at.to_string(),
        ms(operation.total_ms),
        ms(operation.queue_ms),
        ms(operation.server_ms),
        operation.write_ms.map_or_else(|| "-".to_owned(), ms),
        operation.kind.as_str().to_owned(),
        text(&operation.caller),
        text(&operation.topic),
        output::printable(&operation.operation),
    ]
}

fn server(server: &SlowServer) -> String {
    let SlowServer { server, commands, refusal } = server;
    let name = output::printable(server);
    if let Some(refusal) = refusal {
        return format!("\nserver {name} does not tell what it has noted: {}", output::printable(refusal));
    }
    if commands.is_empty() {
        return format!("\nserver {name} has noted nothing");
    }
    let head = ["AT", "TOOK", "FROM", "CLIENT", "COMMAND"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(commands.iter().map(command)).collect();
    format!("\nserver {name} has noted:\n{}", output::table(&rows))
}

fn command(command: &SlowCommand) -> [String; 5] {
    let text =
        |text: &Option<String>| text.as_ref().map_or_else(|| "-".to_owned(), |text| output::printable(text));
    let key = command.key.as_ref().map_or_else(String::new, |key| format!(" {key}"));
    [
        command.at.to_string(),
        ms(command.took_ms),
        text(&command.address),
        text(&command.client),
        output::printable(&format!("{}{key}", command.command)),
    ]
}

fn ms(time: f64) -> String {
    format!("{time:.1} ms")
}
