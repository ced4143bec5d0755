//! `tidemill role`: writes, lists and removes roles.

use tidemill_proto::access::{RoleInfo, RoleUpdate};

use super::CliError;
use super::administer::{Administered, Asked};
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
A role is a list of rules. `admin`, `write`, `read` and `anonymous` (who does not say who calls,
with no rules) are there from the start, and can be written anew.

Examples:
  tidemill role set crew 'allow publish,read orders.*' 'deny publish orders.audit'
  tidemill role set anonymous 'allow read public.*'
  tidemill role set crew --no-rules
  tidemill role list
  tidemill role remove crew";

/// As people write it: what is made up of the group has the role behind its rules.
const SET_USAGE: &str = "\
tidemill role set [OPTIONS] <ROLE> <RULE>...
       tidemill role set [OPTIONS] <ROLE> --no-rules";

/// The arguments of `tidemill role`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Role {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write the rules of a role, all of them
    #[command(group(clap::ArgGroup::new("what").required(true).args(["rules", "no_rules"])))]
    #[command(override_usage = SET_USAGE)]
    Set {
        /// The role
        role: String,
        /// Its rules, as in `allow publish,read orders.*`: those that it had are gone
        #[arg(value_name = "RULE")]
        rules: Vec<String>,
        /// Leave it without any rule, so that it gives no right
        #[arg(long)]
        no_rules: bool,
        #[command(flatten)]
        administered: Administered,
    },
    /// List roles with their rules
    List {
        #[command(flatten)]
        administered: Administered,
    },
    /// Remove a role; one that is there from the start stays, and gets back its ready-made rules
    Remove {
        /// The role
        role: String,
        #[command(flatten)]
        administered: Administered,
    },
}

impl Role {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Set { role, rules, no_rules: _, administered } => {
                let update = RoleUpdate { rules };
                let put = async |asked: &Asked| asked.put_role(&role, &update).await;
                let (written, is_new) = administered.ask(environment, put).await?;
                let became = if is_new { "made" } else { "changed" };
                match administered.output() {
                    Output::Json => output::json(&written),
                    Output::Text => {
                        let rules = output::counted(written.rules.len() as u64, "rule");
                        output::line(&format!("{became} {role} ({rules})"))
                    }
                }
            }
            Action::List { administered } => {
                let roles = administered.ask(environment, async |asked| asked.roles().await).await?;
                list(&roles, administered.output())
            }
            Action::Remove { role, administered } => {
                let remove = async |asked: &Asked| {
                    let is_it = |one: &RoleInfo| one.role == role && one.is_ready_made;
                    let is_ready_made = asked.roles().await?.iter().any(is_it);
                    asked.delete_role(&role).await.map(|()| is_ready_made)
                };
                if !administered.ask(environment, remove).await? {
                    return administered.tell_gone("removed", &role);
                }
                match administered.output() {
                    Output::Json => output::json(&serde_json::json!({ "reset": role })),
                    Output::Text => output::line(&format!("{role} is back to its ready-made rules")),
                }
            }
        }
    }
}

fn list(roles: &[RoleInfo], form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return roles.iter().try_for_each(output::json);
    }
    let mut rows = vec![["ROLE", "RULES"].map(str::to_owned)];
    rows.extend(roles.iter().flat_map(|role| {
        let first = [role.role.clone(), role.rules.first().map_or("-", String::as_str).to_owned()];
        let rest = role.rules.iter().skip(1).map(|rule| [String::new(), rule.clone()]);
        std::iter::once(first).chain(rest)
    }));
    output::line(&output::table(&rows))
}
