//! `tidemill presence`: lists rooms, lists and watches who is in one, and is in one.

use std::ffi::OsString;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;
use tidemill_proto::limits::TOPICS_PAGE_MAX;
use tidemill_proto::presence::{Member, Members, Room};
use tidemill_proto::{MemberName, MessageId, RoomName, duration};
use tokio::process::Command;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, Relay};
use super::output::{self, Output};
use super::signals::stopped;
use super::watch::Watched;
use super::{CliError, pages};
use crate::config::Environment;

/// How long a member stays without saying so again.
const TTL_DEFAULT: &str = "30s";
/// It says so that often in this time.
const RENEWED: u32 = 3;
/// How long it waits before it says so again where that has failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long it takes at most to leave.
const LEAVE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  tidemill presence                                       in which rooms somebody is
  tidemill presence list lobby                            who is there
  tidemill presence watch lobby                           who is there, who joins, who leaves
  tidemill presence join lobby ann --data '{\"role\": \"pilot\"}'
                                                          is there until Ctrl-C
  tidemill presence join workers \"$HOSTNAME\" -- ./work    is there as long as the command runs
  tidemill presence leave lobby ann                       somebody is not there any more

Who is killed in a room leaves when its --ttl is over.";

/// The arguments of `tidemill presence`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Presence {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List rooms in which somebody is
    Rooms {
        #[command(flatten)]
        relay: Relay,
    },
    /// List the members of a room
    List {
        /// The room
        room: RoomName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Print the members of a room, and who joins and leaves from there on
    ///
    /// Connects again by itself and goes on where it was. With -o json each line is a frame as the relay sends it: at
    /// `synced`, who was not named since the begin, or since `reset`, is not there. Ctrl-C ends, and tells how to go on.
    Watch {
        /// The room
        room: RoomName,
        /// Go on behind this change, without who is there
        #[arg(long, value_name = "REVISION")]
        after: Option<MessageId>,
        #[command(flatten)]
        relay: Relay,
    },
    /// Be in a room until Ctrl-C, or as long as a command runs
    Join(Join),
    /// Have somebody leave a room
    Leave {
        /// The room
        room: RoomName,
        /// Who
        member: MemberName,
        #[command(flatten)]
        relay: Relay,
    },
}

#[derive(Debug, clap::Args)]
struct Join {
    /// The room
    room: RoomName,
    /// As whom
    member: MemberName,
    /// What the member says of itself, as JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// How long it is there when this command does not say any more that it is
    #[arg(long, value_name = "DURATION", default_value = TTL_DEFAULT, value_parser = ttl)]
    ttl: Duration,
    /// Run this meanwhile, and leave when it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    relay: Relay,
}

/// Reads how long a member stays.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration::parse(text).ok().filter(|ttl| *ttl >= Duration::from_secs(1));
    ttl.ok_or_else(|| "write a duration of 1 s or more, as in `30s`".to_owned())
}

fn path<'a>(room: &'a RoomName, member: &'a MemberName) -> [&'a str; 5] {
    ["api", "v1", "presence", room.as_str(), member.as_str()]
}

impl Presence {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Some(action) = self.action else { return rooms(&self.relay, environment).await };
        match action {
            Action::Rooms { relay } => rooms(&relay, environment).await,
            Action::List { room, relay } => list(&room, &relay, environment).await,
            Action::Watch { room, after, relay } => {
                let path = ["api", "v1", "presence", room.as_str()];
                let again = vec!["tidemill presence watch".to_owned(), room.to_string()];
                Watched { path: &path, query: Vec::new(), after, again }.follow(&relay, environment).await
            }
            Action::Join(join) => join.run(environment).await,
            Action::Leave { room, member, relay } => {
                let client = relay.client(environment)?;
                client.send(client.request(Method::DELETE, &path(&room, &member))).await?;
                Ok(())
            }
        }
    }
}

impl Join {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        if let Some(data) = &self.data {
            serde_json::from_str::<&RawValue>(data)
                .map_err(|error| CliError::Usage(format!("--data is not JSON ({error})")))?;
        }
        let client = self.relay.client(environment)?;
        let mut stop = pin!(stopped()?);
        let joined: Member = client.read(&client.send(self.request(&client)).await?)?;
        match self.relay.output {
            Output::Json => output::json(&joined)?,
            // A command speaks for itself.
            Output::Text if !self.command.is_empty() => {}
            Output::Text => eprintln!("{} is in {}", self.member, self.room),
        }
        let ended = tokio::select! {
            never = self.stay(&client) => match never {},
            ended = self.meanwhile(stop.as_mut()) => ended,
        };
        // Where it cannot be said, its time is over soon.
        let leaving =
            client.send(client.request(Method::DELETE, &path(&self.room, &self.member)).timeout(LEAVE));
        if let Err(refusal) = leaving.await {
            eprintln!("{} leaves when its time is over: {}", self.member, refusal.error);
        }
        ended
    }

    fn request(&self, client: &Client) -> RequestBuilder {
        let request = client.request(Method::PUT, &path(&self.room, &self.member));
        let request = request.query(&[("ttl", format!("{}ms", self.ttl.as_millis()))]);
        match &self.data {
            Some(data) => request.header("content-type", "application/json").body(data.clone()),
            None => request,
        }
    }

    /// Says again and again that the member is there.
    async fn stay(&self, client: &Client) -> std::convert::Infallible {
        let mut next = Instant::now() + self.ttl / RENEWED;
        let mut is_told = false;
        loop {
            sleep_until(next).await;
            match client.send(self.request(client).timeout(self.ttl)).await {
                Ok(_) => {
                    if std::mem::take(&mut is_told) {
                        eprintln!("{} is in {} again", self.member, self.room);
                    }
                    next = Instant::now() + self.ttl / RENEWED;
                }
                Err(refusal) => {
                    if !std::mem::replace(&mut is_told, true) {
                        eprintln!("{}; trying again", refusal.error);
                    }
                    next = Instant::now() + refusal.retry_after.unwrap_or(RETRY).min(self.ttl / RENEWED);
                }
            }
        }
    }

    /// Waits for the end of the command, or, without one, for the user.
    async fn meanwhile(&self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<(), CliError> {
        let Some((program, arguments)) = self.command.split_first() else {
            stop.await;
            return Ok(());
        };
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        let failed = |cause: std::io::Error| CliError::Failed("the command cannot be run", cause.into());
        let mut child = command.spawn().map_err(failed)?;
        let ended = tokio::select! {
            status = child.wait() => Some(status),
            () = &mut stop => None,
        };
        let status = if let Some(status) = ended {
            status
        } else {
            // It ends in its own way.
            terminate(&child);
            child.wait().await
        };
        told(status.map_err(failed)?)
    }
}

/// Asks a command to end.
fn terminate(child: &tokio::process::Child) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Returns how a command ended.
fn told(status: ExitStatus) -> Result<(), CliError> {
    if status.success() {
        return Ok(());
    }
    eprintln!("the command has ended with {status}");
    Err(CliError::Told)
}

/// Prints every page of the list of rooms.
async fn rooms(relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let row = |room: &Room| [room.room.to_string(), room.count.to_string()];
    let first = client.request(Method::GET, &["api", "v1", "presence"]).query(&[("limit", TOPICS_PAGE_MAX)]);
    pages::list(&client, first, relay.output, ["ROOM", "MEMBERS"], row).await
}

async fn list(room: &RoomName, relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let request = client.request(Method::GET, &["api", "v1", "presence", room.as_str()]);
    let mut answer = client.send(request.query(&[("limit", TOPICS_PAGE_MAX)])).await?;
    let mut heading = Some(["MEMBER", "SINCE", "EXPIRES", "ADDRESS", "DATA"].map(str::to_owned));
    loop {
        let page: Members = client.read(&answer)?;
        match relay.output {
            Output::Json => page.members.iter().try_for_each(output::json)?,
            Output::Text => {
                let rows: Vec<_> = heading.take().into_iter().chain(page.members.iter().map(row)).collect();
                if !rows.is_empty() {
                    output::line(&output::table(&rows))?;
                }
            }
        }
        let Some(next) = answer.next else { return Ok(()) };
        answer = client.send(client.follow(&next)?).await?;
    }
}

fn row(member: &Member) -> [String; 5] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        member.member.to_string(),
        member.since.to_string(),
        or_none(member.expires_at.map(|at| at.to_string())),
        or_none(member.address.as_deref().map(output::printable)),
        member.data.as_ref().map_or_else(String::new, |data| output::payload(data.get().as_bytes(), None)),
    ]
}
