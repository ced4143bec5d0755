//! `tidemill health`: how a relay is, as the exit status that a container's health check looks at.

use reqwest::Method;
use tidemill_proto::health::{Health as Report, HealthStatus, KeptHealth, Ready};

use super::CliError;
use super::client::{Client, Relay};
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
Without --url and TIDEMILL_URL, the address in TIDEMILL_LISTEN is asked, so that a container's
health check needs no arguments; where TIDEMILL_TLS_CERT names a certificate, the relay is known
by it.

Examples:
  tidemill health            exit status 0 while the process lives
  tidemill health --ready    exit status 0 while messages can be published";

/// The arguments of `tidemill health`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Health {
    /// Ask whether messages can be published, not just whether the process lives
    #[arg(long)]
    ready: bool,

    #[command(flatten)]
    relay: Relay,
}

impl Health {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client_of_neighbour(environment)?;
        if self.ready { self.ask_ready(&client).await } else { self.ask_health(&client).await }
    }

    async fn ask_health(&self, client: &Client) -> Result<(), CliError> {
        let answer = client.send(client.request(Method::GET, &["health"])).await?;
        let report: Report = client.read(&answer)?;
        if self.relay.output == Output::Json {
            return output::json(&report);
        }
        let status = match report.status {
            HealthStatus::Healthy => "healthy",
            HealthStatus::Degraded => "degraded",
        };
        let Some(details) = report.details else {
            return output::line(&format!("{status}: at {}", client.address()));
        };
        let backend = output::printable(&details.backend.kind);
        let version = output::printable(&details.version);
        output::line(&format!(
            "{status}: version {version}, backend {backend}, up {} s, at {}",
            details.uptime_seconds,
            client.address()
        ))?;
        for KeptHealth { topics, bytes_max, is_reached, .. } in &details.kept {
            if *is_reached {
                output::line(&format!(
                    "! the topics of {} keep the {bytes_max} bytes that they may: publishing to them is refused",
                    output::printable(topics.as_str())
                ))?;
            }
        }
        if details.backend.taken_over > 0 {
            output::line(&format!(
                "! {} of topics and buckets that are a part of a copy, and take no changes until they are whole; `tidemill doctor` names some",
                details.backend.taken_over
            ))?;
        }
        details
            .backend
            .warnings
            .iter()
            .try_for_each(|warning| output::line(&format!("! {}", output::printable(warning))))
    }

    async fn ask_ready(&self, client: &Client) -> Result<(), CliError> {
        let answer = client.ask(client.request(Method::GET, &["ready"]), &[503]).await?;
        let ready: Ready = client.read(&answer)?;
        if self.relay.output == Output::Json {
            output::json(&ready)?;
        } else {
            let status = if ready.ready { "ready" } else { "not ready" };
            output::line(&format!("{status}: at {}", client.address()))?;
            ready
                .reasons
                .iter()
                .try_for_each(|reason| output::line(&format!("! {}", output::printable(reason))))?;
        }
        if ready.ready && answer.status == 200 { Ok(()) } else { Err(CliError::Told) }
    }
}
