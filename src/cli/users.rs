//! `tidemill user`: makes, lists, changes and removes users.

use secrecy::ExposeSecret as _;
use tidemill_proto::Code;
use tidemill_proto::access::{UserInfo, UserUpdate};

use super::CliError;
use super::administer::{Administered, Asked};
use super::credentials::ask_new_password;
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
The password is asked for on the terminal, which does not show it, or is a line of standard input.
With --user that is the second line: the first is the password of the user who calls.
Without --url and a token, and with settings that name a Valkey server, users are made in the
storage itself, so that the first can be made before any relay runs.

Examples:
  STORAGE_BACKEND=valkey tidemill user add ann --role admin
  tidemill user add bob --role write < password.txt
  tidemill user change bob --role read --role crew
  tidemill user list";

/// The arguments of `tidemill user`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a user
    ///
    /// Its password is asked for on the terminal, which does not show it, or is a line of standard input. With
    /// --user two lines are read: first the password of the user who calls, then that of the new one.
    Add(Add),
    /// List users
    List {
        #[command(flatten)]
        administered: Administered,
    },
    /// Change the roles of a user, its address of mail, or whether it may come in
    Change(Change),
    /// Give a user a new password
    ///
    /// It is asked for on the terminal, which does not show it, or is a line of standard input. With --user two
    /// lines are read: first the password of the user who calls, then the new one.
    Password {
        /// The user
        name: String,
        #[command(flatten)]
        administered: Administered,
    },
    /// Remove a user, and the tokens that it has made
    Remove {
        /// The user
        name: String,
        #[command(flatten)]
        administered: Administered,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Its name
    name: String,
    /// A role, as `admin`, `write` or `read`; may be repeated
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// Where mail reaches it
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Without a password, so that it cannot log in with one
    #[arg(long)]
    no_password: bool,
    #[command(flatten)]
    administered: Administered,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["role", "no_roles", "email", "active"])))]
struct Change {
    /// The user
    name: String,
    /// A role that it has from now on, in place of all others; may be repeated
    #[arg(long, value_name = "ROLE")]
    role: Option<Vec<String>>,
    /// Take all its roles away, so that it has no right
    #[arg(long, conflicts_with = "role")]
    no_roles: bool,
    /// Where mail reaches it
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Whether it may come in
    #[arg(long, value_name = "BOOL")]
    active: Option<bool>,
    #[command(flatten)]
    administered: Administered,
}

impl User {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Add(add) => add.run(environment).await,
            Action::List { administered } => {
                let users = administered.ask(environment, async |asked| asked.users().await).await?;
                list(&users, administered.output())
            }
            Action::Change(change) => {
                let Change { name, role, no_roles, email, active: is_active, administered } = change;
                let roles = if no_roles { Some(Vec::new()) } else { role };
                let update = UserUpdate { password: None, roles, email, is_active };
                let change = async |asked: &Asked| {
                    asked.user(&name).await?;
                    asked.put_user(&name, update).await
                };
                let done = administered.ask(environment, change).await?;
                told(&done, administered.output(), "changed")
            }
            Action::Password { name, administered } => {
                // Whoever asks says first who it is.
                let set = async |asked: &Asked| set_password(asked, &name, administered.user()).await;
                let done = administered.ask(environment, set).await?;
                told(&done, administered.output(), "changed the password of")
            }
            Action::Remove { name, administered } => {
                let remove = async |asked: &Asked| {
                    let user = asked.user(&name).await?;
                    asked.delete_user(&name).await?;
                    Ok(user)
                };
                let UserInfo { issuer, .. } = administered.ask(environment, remove).await?;
                administered.tell_gone("removed", &name)?;
                if let Some(issuer) = issuer {
                    let issuer = output::printable(&issuer);
                    eprintln!(
                        "who signs in with {issuer} again is a new user; to keep somebody out, `tidemill user change NAME --active false`"
                    );
                }
                Ok(())
            }
        }
    }
}

impl Add {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let done = self.administered.ask(environment, async |asked| self.add(asked).await).await?;
        told(&done, self.administered.output(), "made")
    }

    async fn add(&self, asked: &Asked) -> Result<UserInfo, CliError> {
        let name = &self.name;
        match asked.user(name).await {
            Err(CliError::Problem(problem)) if problem.code == Code::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {
                let rule = format!(
                    "there is a user {name} already; see `tidemill user change` and `tidemill user password`"
                );
                return Err(CliError::Usage(rule));
            }
        }
        let password = if self.no_password {
            None
        } else {
            Some(ask_new_password(name, self.administered.user())?.expose_secret().to_owned())
        };
        let roles = Some(self.role.clone());
        let update = UserUpdate { password, roles, email: self.email.clone(), is_active: None };
        asked.put_user(name, update).await
    }
}

async fn set_password(asked: &Asked, name: &str, caller: Option<&str>) -> Result<UserInfo, CliError> {
    // Who is not there is not made by it.
    asked.user(name).await?;
    let password = Some(ask_new_password(name, caller)?.expose_secret().to_owned());
    asked.put_user(name, UserUpdate { password, ..UserUpdate::default() }).await
}

fn told(user: &UserInfo, form: Output, verb: &str) -> Result<(), CliError> {
    match form {
        Output::Json => output::json(user),
        Output::Text if user.roles.is_empty() => {
            output::line(&format!("{verb} {}, which has no role and so no right", user.name))
        }
        Output::Text => output::line(&format!("{verb} {} ({})", user.name, user.roles.join(", "))),
    }
}

fn list(users: &[UserInfo], form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return users.iter().try_for_each(output::json);
    }
    let mut rows = vec![["USER", "ROLES", "ACTIVE", "PASSWORD", "CREATED", "EMAIL"].map(str::to_owned)];
    let said = |is: bool| if is { "yes" } else { "no" }.to_owned();
    rows.extend(users.iter().map(|user| {
        let roles = if user.roles.is_empty() { "-".to_owned() } else { user.roles.join(",") };
        let email = user.email.as_deref().map_or_else(|| "-".to_owned(), output::printable);
        let created = user.created_at.to_string();
        [user.name.clone(), roles, said(user.is_active), said(user.has_password), created, email]
    }));
    output::line(&output::table(&rows))
}
