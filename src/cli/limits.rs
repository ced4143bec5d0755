//! `tidemill limits`: takes of limits of applications, looks at them, and gives back.

use reqwest::Method;
use tidemill_proto::LimitName;
use tidemill_proto::takes::{LIMIT_MAX, PolicyRequest, TakeAnswer, TakeRequest};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use super::points::span;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill limits take mail --limit 10 --per 1m && send-mail
  tidemill limits take mail --limit 10 --per 1m --burst 20 --cost 3
  tidemill limits take mail --limit 10 --per 1m --limit 100 --per 1h   both must let it pass
  tidemill limits peek mail --limit 10 --per 1m                        takes nothing
  tidemill limits refund mail --limit 10 --per 1m                      it was not sent

The same limit is counted for all who name the same policies, over all nodes.

Exit status: 0 it passes, 1 it does not, 2 it could not be found out, as where no relay answers.";

/// The arguments of `tidemill limits`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Limits {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take of a limit, if all policies let it pass
    Take(One),
    /// Tell what is left, and take nothing
    Peek(One),
    /// Give back what was taken and not used
    Refund(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The name of the limit
    #[arg(value_parser = LimitName::parse)]
    name: LimitName,

    /// How much in the time of --per; may be repeated, with --per as often
    #[arg(long, value_name = "COUNT", required = true, value_parser = number())]
    limit: Vec<u32>,

    /// In which time, as in `1m`
    #[arg(long, value_name = "DURATION", required = true, value_parser = span)]
    per: Vec<String>,

    /// How much at once, where that is not the limit; for none of them, or for each
    #[arg(long, value_name = "COUNT", value_parser = number())]
    burst: Vec<u32>,

    /// How much this is
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = number())]
    cost: u32,

    #[command(flatten)]
    relay: Relay,
}

fn number() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX))
}

impl Limits {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let (one, what) = match self.action {
            Action::Take(one) => (one, "take"),
            Action::Peek(one) => (one, "peek"),
            Action::Refund(one) => (one, "refund"),
        };
        // A failure must not pass for a no.
        let answer =
            one.ask(what, environment).await.map_err(|error| CliError::Undecided(Box::new(error)))?;
        match one.relay.output {
            Output::Json => output::json(&answer)?,
            Output::Text => output::line(&told(&answer))?,
        }
        if answer.allowed { Ok(()) } else { Err(CliError::Told) }
    }
}

impl One {
    async fn ask(&self, what: &str, environment: &Environment) -> Result<TakeAnswer, CliError> {
        let body = TakeRequest { cost: Some(self.cost), policies: self.policies()? };
        let client = self.relay.client(environment)?;
        let path = ["api", "v1", "limits", self.name.as_str(), what];
        let answer = client.send(client.request(Method::POST, &path).json(&body)).await?;
        client.read(&answer)
    }

    fn policies(&self) -> Result<Vec<PolicyRequest>, CliError> {
        let count = self.limit.len();
        if self.per.len() != count {
            return Err(CliError::Usage("write one --per for each --limit".to_owned()));
        }
        if !self.burst.is_empty() && self.burst.len() != count {
            return Err(CliError::Usage("write --burst for each --limit, or for none".to_owned()));
        }
        let policy = |at: usize| PolicyRequest {
            limit: self.limit[at],
            per: self.per[at].clone(),
            burst: self.burst.get(at).copied(),
        };
        Ok((0..count).map(policy).collect())
    }
}

/// Returns an answer as a line for people.
fn told(answer: &TakeAnswer) -> String {
    let TakeAnswer { allowed, remaining, retry_after, reset, degraded } = answer;
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs_f64());
    let word = if *allowed { "allowed" } else { "refused" };
    let retry = if *allowed { String::new() } else { format!(", again in {}", seconds(retry_after.0)) };
    let by = if *degraded { " (the relay could not ask its storage)" } else { "" };
    format!("{word}{retry}, {remaining} left, all in {}{by}", seconds(reset.0))
}
