//! `tidemill drain`: has a relay let go of its clients before it is stopped.

use std::time::Duration;

use reqwest::Method;
use tidemill_proto::drain::{Drain as Told, DrainStage};
use tokio::time::sleep;

use super::CliError;
use super::client::{Client, Relay};
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
The relay is not ready from now on (`/ready` is 503). After TIDEMILL_DRAIN_NOTICE_MS it tells all
that is open to go on elsewhere, spread over TIDEMILL_DRAIN_SPREAD_MS, and gives back the messages
that connections work on. It runs on until it is stopped, and is not ready again before a restart.
It takes a token of who may administer the relay. Without --url and TIDEMILL_URL, the address in
TIDEMILL_LISTEN is asked, as by `tidemill health`.

Examples:
  tidemill drain                           tell the relay on this machine to begin
  tidemill drain --wait && systemctl stop tidemill
                                           stop it once nobody is served by it any more";

/// How often it is asked how far the relay is.
const EVERY: Duration = Duration::from_millis(250);

/// How often in a row the relay may leave that without an answer.
const UNANSWERED_MAX: u32 = 4;

/// The arguments of `tidemill drain`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Drain {
    /// Wait until nothing is under way any more, or the relay's time for that is over
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    relay: Relay,
}

impl Drain {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client_of_neighbour(environment)?;
        let path = ["api", "v1", "admin", "drain"];
        let answer = client.send(client.request(Method::POST, &path)).await?;
        let mut told: Told = client.read(&answer)?;
        if self.wait {
            told = drained(&client, &path, told).await?;
        }
        match self.relay.output {
            Output::Json => output::json(&told),
            Output::Text => output::line(&line(&told)),
        }
    }
}

/// Waits until the relay is drained.
async fn drained(client: &Client, path: &[&str], mut told: Told) -> Result<Told, CliError> {
    let (node, mut unanswered) = (told.node, 0);
    while told.stage < DrainStage::Drained {
        sleep(EVERY).await;
        match client.send(client.request(Method::GET, path)).await {
            Ok(answer) => (told, unanswered) = (client.read(&answer)?, 0),
            // It closes connections while it drains.
            Err(refusal) if refusal.is_passing && unanswered < UNANSWERED_MAX => unanswered += 1,
            Err(refusal) => return Err(refusal.into()),
        }
        if told.node != node {
            let what = format!(
                "node {node} was told to drain, and node {} answers now; name a relay by its own address",
                told.node
            );
            return Err(CliError::Usage(what));
        }
    }
    Ok(told)
}

fn line(told: &Told) -> String {
    let Told { node, stage, sessions, connections, ends_in_ms } = told;
    let open = format!(
        "{} and {} open",
        output::counted(*sessions, "session"),
        output::counted(*connections, "connection")
    );
    match stage {
        DrainStage::Drained if (*sessions, *connections) == (0, 0) => format!("drained: node {node}"),
        DrainStage::Drained => format!("drained: node {node}; the time is over, with {open} still"),
        stage => {
            let seconds = ends_in_ms.unwrap_or(0).div_ceil(1_000);
            format!("{}: node {node}, at most {seconds} s; {open}", stage.as_str())
        }
    }
}
