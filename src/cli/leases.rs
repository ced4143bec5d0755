//! `tidemill leases`: creates, renews, shows and ends leases.

use reqwest::Method;
use tidemill_proto::leases::{
    LeaseCreated, LeaseId, LeaseRenewed, LeaseRequest, LeaseState, LeasedKind, LeasedThing,
};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use super::points::span;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  lease=$(tidemill leases create --ttl 30s)
  tidemill leases renew \"$lease\"     it lasts 30 s from now on, and so does what it keeps
  tidemill leases show \"$lease\"      when it ends, and what it keeps
  tidemill leases end \"$lease\"       what it keeps ends with it

Locks, keys and members are put under a lease where they are made: `lease` in place of `ttl`.
A lease is a secret: whoever has it can renew and end it.

Exit status: 0 success, 1 failure, as where there is no such lease, and where a renewal finds
something lost.";

/// The arguments of `tidemill leases`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Leases {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a lease, and print it
    Create {
        /// How long it lasts without being renewed, as in `30s`; 1 s to 24 h
        #[arg(long, value_name = "DURATION", value_parser = span)]
        ttl: String,
        #[command(flatten)]
        relay: Relay,
    },
    /// Have a lease last for its whole time from now on, and print what it keeps no more
    Renew(One),
    /// Print when a lease ends, and what it keeps
    Show(One),
    /// End a lease, and what it keeps
    End(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The lease
    #[arg(value_parser = LeaseId::parse)]
    lease: LeaseId,
    #[command(flatten)]
    relay: Relay,
}

impl Leases {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Create { ttl, relay } => {
                let client = relay.client(environment)?;
                let request = client.request(Method::POST, &["api", "v1", "leases"]);
                let created: LeaseCreated =
                    client.read(&client.send(request.json(&LeaseRequest { ttl })).await?)?;
                match relay.output {
                    Output::Json => output::json(&created),
                    Output::Text => output::line(&created.lease.to_string()),
                }
            }
            Action::Renew(one) => one.renew(environment).await,
            Action::Show(one) => one.show(environment).await,
            Action::End(One { lease, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "leases", &lease.to_string()];
                client.send(client.request(Method::DELETE, &path)).await?;
                Ok(())
            }
        }
    }
}

impl One {
    async fn renew(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let path = ["api", "v1", "leases", &self.lease.to_string(), "renew"];
        let renewed: LeaseRenewed = client.read(&client.send(client.request(Method::POST, &path)).await?)?;
        match self.relay.output {
            Output::Json => output::json(&renewed)?,
            Output::Text => {
                output::line(&format!("lasts until {}", renewed.expires_at))?;
                for lost in &renewed.lost {
                    let why = lost.error.as_deref().map(output::printable).unwrap_or_default();
                    output::line(&format!("lost: {} ({why})", named(lost)))?;
                }
            }
        }
        if renewed.lost.is_empty() { Ok(()) } else { Err(CliError::Told) }
    }

    async fn show(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let path = ["api", "v1", "leases", &self.lease.to_string()];
        let state: LeaseState = client.read(&client.send(client.request(Method::GET, &path)).await?)?;
        match self.relay.output {
            Output::Json => output::json(&state),
            Output::Text => {
                let ttl = state.ttl.0.as_secs_f64();
                output::line(&format!("lasts {ttl} s, until {} unless it is renewed", state.expires_at))?;
                state.keeps.iter().try_for_each(|thing| output::line(&format!("keeps {}", named(thing))))
            }
        }
    }
}

/// Returns a thing as rules name it.
fn named(thing: &LeasedThing) -> String {
    let text = |name: Option<String>| name.unwrap_or_default();
    match thing.kind {
        LeasedKind::Lock => {
            let guards = thing.guards.as_ref().map_or_else(String::new, |guards| format!(" of {guards}"));
            format!("locks/{}{guards}", text(thing.name.as_ref().map(ToString::to_string)))
        }
        LeasedKind::Key => {
            let (bucket, key) = (thing.bucket.as_ref(), thing.key.as_ref());
            let (bucket, key) = (bucket.map(ToString::to_string), key.map(ToString::to_string));
            format!("keys/{}/{}", text(bucket), text(key))
        }
        LeasedKind::Member => {
            let (room, member) = (thing.room.as_ref(), thing.member.as_ref());
            let (room, member) = (room.map(ToString::to_string), member.map(ToString::to_string));
            format!("presence/{}/{}", text(room), text(member))
        }
    }
}
