//! `tidemill token`: makes, lists and revokes tokens.

use tidemill_proto::access::{TokenCreate, TokenInfo};

use super::CliError;
use super::administer::Administered;
use super::output::{self, Output};
use super::points::life;
use crate::config::Environment;

const EXAMPLES: &str = "\
A token can do what its rules allow, and never more than whoever makes it. Its text is printed once,
alone on standard output, and can be shown to nobody again.

Examples:
  tidemill token new till-7 --rule 'allow publish,read orders.*' --expires-in 30d
  tidemill token new ops --rule 'allow admin *' --user ann > token.txt
  tidemill token list
  tidemill token revoke 1m9q2zj6r8k4w7tc";

/// The arguments of `tidemill token`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a token, and print it
    New(New),
    /// List the tokens that the caller has made, or all for an administrator
    List {
        #[command(flatten)]
        administered: Administered,
    },
    /// Revoke a token, and those that it has made
    Revoke {
        /// The id of the token: the part between its two `_`
        id: String,
        #[command(flatten)]
        administered: Administered,
    },
}

#[derive(Debug, clap::Args)]
struct New {
    /// What it is for; it stands for `{name}` in its rules
    name: String,
    /// A rule, as in `allow publish,read orders.*`; may be repeated
    #[arg(long = "rule", value_name = "RULE", required = true)]
    rules: Vec<String>,
    /// When it ends, as in `90s`, `90m`, `12h` or `30d`; it does not end, if not given
    #[arg(long, value_name = "DURATION", value_parser = life)]
    expires_in: Option<u64>,
    #[command(flatten)]
    administered: Administered,
}

impl Token {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::New(new) => new.run(environment).await,
            Action::List { administered } => {
                let tokens = administered.ask(environment, async |asked| asked.tokens().await).await?;
                list(&tokens, administered.output())
            }
            Action::Revoke { id, administered } => {
                // Whoever has the text of a token means it.
                let id = id.split('_').nth(1).unwrap_or(&id);
                administered.ask(environment, async |asked| asked.revoke_token(id).await).await?;
                administered.tell_gone("revoked", id)
            }
        }
    }
}

impl New {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Self { name, rules, expires_in, administered } = self;
        let wanted = TokenCreate { name, rules, expires_in };
        let made = administered.ask(environment, async |asked| asked.create_token(&wanted).await).await?;
        for rule in &made.beyond_maker {
            let rule = output::printable(rule);
            eprintln!("warning: `{rule}` gives nothing: whoever makes this token may do nothing of it");
        }
        if administered.output() == Output::Json {
            return output::json(&made);
        }
        let end = made.info.expires_at.map_or_else(|| "does not end".to_owned(), |at| format!("ends {at}"));
        eprintln!(
            "made token {} ({}), which {end}; it is shown this once:",
            made.info.token_id, made.info.name
        );
        output::line(&made.token)
    }
}

fn list(tokens: &[TokenInfo], form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return tokens.iter().try_for_each(output::json);
    }
    let mut rows = vec![["TOKEN", "NAME", "MAKER", "LAST USED", "EXPIRES", "RULES"].map(str::to_owned)];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    rows.extend(tokens.iter().map(|token| {
        [
            token.token_id.clone(),
            token.name.clone(),
            or_dash(token.maker.clone()),
            or_dash(token.last_used_at.map(|at| at.to_string())),
            or_dash(token.expires_at.map(|at| at.to_string())),
            token.rules.join("; "),
        ]
    }));
    output::line(&output::table(&rows))
}
