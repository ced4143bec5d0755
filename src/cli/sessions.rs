//! `tidemill sessions`: lists what is open on a node, and ends one.

use reqwest::Method;
use serde_json::json;
use tidemill_proto::sessions::{SessionId, SessionInfo, SessionKind, SessionList};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use super::points::count;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill sessions list                          who has what open, and how far behind it is
  tidemill sessions end 8d3e51f0a2c44b97-17       its client is told, and may come again

Sessions are those of the node that answers: behind a load balancer, ask each relay by its own
address. To keep somebody away, revoke the token, or lock the user out.";

/// The arguments of `tidemill sessions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Sessions {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List WebSockets, streams, requests that wait, and what is watched
    List {
        /// How many at most
        #[arg(long, short = 'n', value_name = "COUNT", value_parser = count, default_value = "100")]
        limit: u64,
        /// The session behind which to go on
        #[arg(long, value_name = "SESSION", value_parser = SessionId::parse)]
        after: Option<SessionId>,
        #[command(flatten)]
        relay: Relay,
    },
    /// End a session; its client may come again
    End {
        /// The session, as it is listed
        #[arg(value_parser = SessionId::parse)]
        session: SessionId,
        #[command(flatten)]
        relay: Relay,
    },
}

impl Sessions {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::List { limit, after, relay } => {
                let client = relay.client(environment)?;
                let mut request = client.request(Method::GET, &["api", "v1", "admin", "sessions"]);
                request = request.query(&[("limit", limit)]);
                if let Some(after) = after {
                    request = request.query(&[("after", after.to_string())]);
                }
                let list: SessionList = client.read(&client.send(request).await?)?;
                match relay.output {
                    Output::Json => output::json(&list),
                    Output::Text => output::line(&told(&list)),
                }
            }
            Action::End { session, relay } => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "admin", "sessions", &session.to_string()];
                client.send(client.request(Method::DELETE, &path)).await?;
                match relay.output {
                    Output::Json => output::json(&json!({ "ended": session })),
                    Output::Text => output::line("ended"),
                }
            }
        }
    }
}

fn told(list: &SessionList) -> String {
    let head = ["SESSION", "KIND", "CALLER", "FROM", "SINCE", "TOPICS", "BEHIND"].map(str::to_owned);
    let row = |session: &SessionInfo| {
        [
            session.session.to_string(),
            kind(session.kind).to_owned(),
            output::printable(&session.caller),
            session.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            session.since.to_string(),
            session.topics.to_string(),
            if session.behind_seconds > 0.0 {
                format!("{:.1} s", session.behind_seconds)
            } else {
                "-".to_owned()
            },
        ]
    };
    let rows: Vec<_> = [head].into_iter().chain(list.sessions.iter().map(row)).collect();
    let shown = list.sessions.len() as u64;
    let more = if shown < list.count { format!(", of which {shown} are shown") } else { String::new() };
    format!(
        "{}\n{} on node {}{more}",
        output::table(&rows),
        output::counted(list.count, "session"),
        list.node
    )
}

const fn kind(kind: SessionKind) -> &'static str {
    match kind {
        SessionKind::WebSocket => "websocket",
        SessionKind::Stream => "stream",
        SessionKind::Poll => "poll",
        SessionKind::Watch => "watch",
    }
}
