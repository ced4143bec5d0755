//! `tidemill ticket`: makes a ticket, for what can send no header.

use tidemill_proto::access::TicketCreate;

use super::CliError;
use super::administer::Administered;
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
A ticket stands in the URL of one stream or WebSocket, opens that within 30 seconds, and then
resumes it. It can do no more than whoever makes it.

Examples:
  url=${TIDEMILL_URL:-http://127.0.0.1:8080}
  curl -N \"$url/api/v1/stream?topics=orders&ticket=$(tidemill ticket orders)\"
  tidemill ticket --rule 'allow publish,read orders.*'";

/// The arguments of `tidemill ticket`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Ticket {
    /// Topics that are read with it, by name or by pattern
    #[arg(value_name = "TOPIC", required_unless_present = "rules")]
    topics: Vec<String>,
    /// A rule in place of topics, as in `allow publish,read orders.*`; may be repeated
    #[arg(long = "rule", value_name = "RULE", conflicts_with = "topics")]
    rules: Vec<String>,
    #[command(flatten)]
    administered: Administered,
}

impl Ticket {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Self { topics, rules, administered } = self;
        let parse = |text: &String| {
            let parsed = tidemill_proto::TopicSelector::parse(text);
            parsed.map_err(|error| CliError::Usage(format!("{text:?} {error}")))
        };
        let wanted = if rules.is_empty() {
            let topics = topics.iter().map(parse).collect::<Result<_, _>>()?;
            TicketCreate { topics: Some(topics), rules: None }
        } else {
            TicketCreate { topics: None, rules: Some(rules) }
        };
        let made = administered.ask(environment, async |asked| asked.create_ticket(&wanted).await).await?;
        if administered.output() == Output::Json {
            return output::json(&made);
        }
        eprintln!("made a ticket; it opens one stream or WebSocket until {}:", made.expires_at);
        output::line(&made.ticket)
    }
}
