//! `tidemill explain`: which rule decides whether somebody may do something.

use tidemill_proto::access::Explain as Question;

use super::CliError;
use super::administer::Administered;
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill explain read orders.eu                      whoever asks
  tidemill explain publish orders.eu --principal ann   a user, the id of a token, or `anonymous`
  tidemill explain read keys/flows/a                   a key; `keys/flows` for its bucket
  tidemill explain admin --principal ann
  tidemill explain admin --principal token:1m9q2zj6r8k4w7tc   where a user has that name, too

Exit status: 0 it is allowed, 1 it is not, 2 it could not be found out, as where no relay answers
or nobody is called so.";

/// The arguments of `tidemill explain`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Explain {
    /// What is to be done: `publish`, `read`, `work`, `manage` or `admin`
    verb: String,
    /// With which topic, or with what is no topic, as rules name it: `keys/BUCKET/KEY`, `locks/NAME`, `limits/NAME`,
    /// `presence/ROOM/MEMBER`, `series/NAME`; `admin` is about the relay as a whole
    topic: Option<String>,
    /// By whom: a user, the id of a token, or `anonymous`; `user:NAME` or `token:ID`, where it could be both
    #[arg(long, value_name = "WHO")]
    principal: Option<String>,
    #[command(flatten)]
    administered: Administered,
}

impl Explain {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Self { verb, topic, principal, administered } = self;
        let question = Question { verb, topic, principal };
        let told = administered.ask(environment, async |asked| asked.explain(&question).await).await;
        // A failure must not pass for a no.
        let told = told.map_err(|error| CliError::Undecided(Box::new(error)))?;
        match administered.output() {
            Output::Json => output::json(&told)?,
            Output::Text => {
                let rule = told.rule.as_deref().unwrap_or("no rule says anything, which is no");
                let word = if told.allowed { "allowed" } else { "denied" };
                let text = format!("{word} to {}: {rule}", told.principal);
                output::line(&output::printable(&text))?;
            }
        }
        if told.allowed { Ok(()) } else { Err(CliError::Told) }
    }
}
