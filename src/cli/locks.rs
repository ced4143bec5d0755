//! `tidemill locks`: lists, shows, releases and takes away locks.

use std::fmt::Write as _;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tidemill_proto::locks::{Guarded, ListedLock, LockState, LockToken, ReleaseRequest};
use tidemill_proto::{LockName, Timestamp};

use super::client::{Client, Relay};
use super::confirm::confirm;
use super::output::{self, Output};
use super::{CliError, pages};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill locks                                         which locks are held, and by whom
  tidemill locks show nightly                            who holds it, and who waits
  tidemill locks show writer --guards topic:orders       a lock that guards something is another one
  tidemill locks release nightly TOKEN                   by who has acquired it over HTTP
  tidemill locks delete nightly --yes                    whoever holds it does so no more

A lock is held by `tidemill lock NAME -- command` while a command runs.";

/// The arguments of `tidemill locks`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Locks {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List locks that are held
    ///
    /// No list of them is kept: all that is kept is looked through for them, part by part, and each part is printed as it
    /// comes.
    List {
        #[command(flatten)]
        relay: Relay,
    },
    /// Show who holds a lock, and who waits for it
    Show(One),
    /// Give a lock back
    Release {
        /// The lock
        #[arg(value_parser = LockName::parse)]
        name: LockName,
        /// What the one who acquired it was answered
        #[arg(value_parser = LockToken::parse)]
        #[arg(id = "lock_token", value_name = "TOKEN")]
        token: LockToken,
        #[command(flatten)]
        relay: Relay,
    },
    /// Take a lock away from whoever holds it
    Delete {
        #[command(flatten)]
        one: One,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct One {
    /// The lock
    #[arg(value_parser = LockName::parse)]
    name: LockName,

    /// What it guards
    #[arg(long, value_name = "topic:NAME|bucket:NAME", value_parser = Guarded::parse)]
    guards: Option<Guarded>,

    #[command(flatten)]
    relay: Relay,
}

impl Locks {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            None => list(&self.relay, environment).await,
            Some(Action::List { relay }) => list(&relay, environment).await,
            Some(Action::Show(one)) => {
                let state = one.fetch(&one.relay.client(environment)?).await?;
                match one.relay.output {
                    Output::Json => output::json(&state),
                    Output::Text => output::line(&told(&state)),
                }
            }
            Some(Action::Release { name, token, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "locks", name.as_str(), "release"];
                client.send(client.request(Method::POST, &path).json(&ReleaseRequest { token })).await?;
                match relay.output {
                    Output::Json => output::json(&json!({ "released": name })),
                    Output::Text => output::line(&format!("released {name}")),
                }
            }
            Some(Action::Delete { one, yes }) => one.delete(yes, environment).await,
        }
    }
}

impl One {
    fn request(&self, client: &Client, method: Method) -> RequestBuilder {
        let request = client.request(method, &["api", "v1", "locks", self.name.as_str()]);
        let guards = self.guards.as_ref().map(|guards| ("guards", guards.to_string()));
        request.query(guards.as_slice())
    }

    async fn fetch(&self, client: &Client) -> Result<LockState, CliError> {
        client.read(&client.send(self.request(client, Method::GET)).await?)
    }

    async fn delete(&self, yes: bool, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let question = async {
            let state = self.fetch(&client).await?;
            let holder = state.holder.map_or_else(|| "whoever holds it".to_owned(), |it| it.to_string());
            Ok(format!("Take {} away from {holder}?", self.name))
        };
        if !yes && !confirm("who holds the lock may be at work under it", question).await? {
            return Ok(());
        }
        client.send(self.request(&client, Method::DELETE)).await?;
        match self.relay.output {
            Output::Json => output::json(&json!({ "deleted": self.name })),
            Output::Text => output::line(&format!("deleted {}", self.name)),
        }
    }
}

/// Prints every page of the list.
async fn list(relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let heading = ["LOCK", "GUARDS", "HOLDER", "SINCE", "EXPIRES", "FENCE", "WAITING"];
    let first = client.request(Method::GET, &["api", "v1", "locks"]);
    pages::list(&client, first, relay.output, heading, row).await
}

fn row(lock: &ListedLock) -> [String; 7] {
    let ListedLock { name, guards, holder, fence, expires_at, waiting } = lock;
    [
        name.to_string(),
        guards.as_ref().map_or_else(|| "-".to_owned(), Guarded::to_string),
        holder.to_string(),
        // A fence is a time and a number.
        Timestamp::from_millis(fence.ms).to_string(),
        expires_at.to_string(),
        fence.to_string(),
        waiting.to_string(),
    ]
}

/// Returns a lock as lines for people.
fn told(state: &LockState) -> String {
    let LockState { name, guards, holder, fence, expires_at, waiting, queue } = state;
    let what = guards.as_ref().map_or_else(String::new, |guards| format!(", which guards {guards}"));
    let mut text = match (holder, fence, expires_at) {
        (Some(holder), Some(fence), Some(until)) => {
            format!("{name}{what}: held by {holder} until {until}, with fence {fence}")
        }
        _ => format!("{name}{what}: held by nobody"),
    };
    for (place, waiter) in queue.iter().enumerate() {
        let _ = write!(text, "\n  {}. {} waits", place + 1, waiter.holder);
    }
    let more = waiting.saturating_sub(queue.len() as u64);
    if more > 0 {
        let _ = write!(text, "\n  and {more} more");
    }
    text
}
