//! Whom the commands about users, tokens and roles ask: a relay, or the storage itself, before anything runs.
//!
//! It must not know what a command wants.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use reqwest::Method;
use secrecy::SecretString;
use serde::Serialize;
use tidemill_proto::access::{
    Explain, Explained, RoleInfo, RoleUpdate, TicketCreate, TicketCreated, TokenCreate, TokenCreated,
    TokenInfo, UserInfo, UserUpdate,
};

use super::client::{Answer, Client, Relay};
use super::credentials::ask_password;
use super::output::{self, Output};
use super::{CliError, logs};
use crate::config::{Backend, Environment, Flags, Settings, Source, known};
use crate::server::administration::{NotDone, StorageAdministration};

/// The flags of commands about users, tokens and roles.
#[derive(Debug, clap::Args)]
pub(super) struct Administered {
    #[command(flatten)]
    relay: Relay,

    /// Say with a user's name and password who calls, whatever a variable says. The password is asked for, or is a
    /// line of standard input, before all others
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    user: Option<String>,

    /// Ask the storage itself, and no relay; so it is done, too, where the settings say that messages are kept in
    /// Valkey, and nothing says which relay is meant, or who calls it
    #[arg(long, conflicts_with_all = ["url", "token", "user"])]
    storage: bool,

    #[command(flatten)]
    flags: OfStorage,
}

/// The flags of `tidemill serve` that say where the storage is.
#[derive(Debug)]
struct OfStorage(Flags);

impl Args for OfStorage {
    fn augment_args(command: Command) -> Command {
        let all = Flags::augment_args(Command::new("tidemill"));
        let is_wanted = |id: &str| {
            let is_of_server = known().iter().any(|setting| setting.id == id && setting.heading == "Valkey");
            is_of_server || ["config", "storage_backend"].contains(&id)
        };
        // They are explained at `tidemill doctor`.
        let wanted = all.get_arguments().filter(|arg| is_wanted(arg.get_id().as_str()));
        wanted.fold(command, |command, arg| command.arg(arg.clone().hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OfStorage {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Flags::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Who is asked.
#[derive(Debug)]
pub(super) enum Asked {
    /// A relay.
    Relay(Client),
    /// The storage itself.
    Storage(Box<StorageAdministration>),
}

impl From<NotDone> for CliError {
    fn from(error: NotDone) -> Self {
        match error {
            NotDone::Problem(problem) => Self::Problem(problem),
            NotDone::Storage(cause) => Self::Failed("the storage did not do it", cause),
        }
    }
}

impl Administered {
    /// Returns the form of what is printed.
    pub(super) const fn output(&self) -> Output {
        self.relay.output
    }

    /// Returns the user who calls, where the flag names one.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Asks for something, and lets go of what was asked, whatever came of it.
    pub(super) async fn ask<T>(
        &self,
        environment: &Environment,
        act: impl AsyncFnOnce(&Asked) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let asked = self.open(environment).await?;
        let done = act(&asked).await;
        asked.close().await;
        done
    }

    /// Tells what has become of something, which is gone now.
    pub(super) fn tell_gone(&self, became: &str, name: &str) -> Result<(), CliError> {
        match self.output() {
            Output::Json => output::json(&serde_json::json!({ became: name })),
            Output::Text => output::line(&format!("{became} {name}")),
        }
    }

    async fn open(&self, environment: &Environment) -> Result<Asked, CliError> {
        if let Some(name) = &self.user {
            let password: SecretString = ask_password(&format!("password of {name}"))?;
            return Ok(Asked::Relay(self.relay.target.client_as(environment, name, &password)?));
        }
        if !self.storage && self.relay.target.is_named(environment)? {
            return self.relay(environment);
        }
        let settings = Settings::load(&self.flags.0, environment)?;
        if settings.storage_backend == Backend::Memory {
            if self.storage {
                let from = match settings.source("storage_backend") {
                    Source::Default => "because nothing says otherwise".to_owned(),
                    source => format!("from {source}"),
                };
                let rule = format!(
                    "--storage: users and tokens are kept in the memory of the relay ({from}), and only it can be asked; its first administrator comes from TIDEMILL_ADMIN_PASSWORD"
                );
                return Err(CliError::Usage(rule));
            }
            return self.relay(environment);
        }
        logs::start_silent();
        let opened = StorageAdministration::open(&settings).await;
        let opened =
            opened.map_err(|cause| CliError::Failed("the storage cannot be used", Box::new(cause)))?;
        Ok(Asked::Storage(Box::new(opened)))
    }

    fn relay(&self, environment: &Environment) -> Result<Asked, CliError> {
        Ok(Asked::Relay(self.relay.client(environment)?.or_as_user()))
    }
}

/// Sends a request with a body, where there is one.
async fn send<B: Serialize>(
    client: &Client,
    method: Method,
    path: &[&str],
    body: Option<&B>,
) -> Result<Answer, CliError> {
    let request = client.request(method, &[&["api", "v1"], path].concat());
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    Ok(client.send(request).await?)
}

/// Asks a relay without a body.
async fn ask(client: &Client, method: Method, path: &[&str]) -> Result<Answer, CliError> {
    send::<()>(client, method, path, None).await
}

impl Asked {
    pub(super) async fn users(&self) -> Result<Vec<UserInfo>, CliError> {
        match self {
            Self::Relay(relay) => relay.read(&ask(relay, Method::GET, &["users"]).await?),
            Self::Storage(storage) => Ok(storage.run(async |all| all.users().await).await?),
        }
    }

    pub(super) async fn user(&self, name: &str) -> Result<UserInfo, CliError> {
        match self {
            Self::Relay(relay) => relay.read(&ask(relay, Method::GET, &["users", name]).await?),
            Self::Storage(storage) => Ok(storage.run(async |all| all.user(name).await).await?),
        }
    }

    pub(super) async fn put_user(&self, name: &str, update: UserUpdate) -> Result<UserInfo, CliError> {
        match self {
            Self::Relay(relay) => {
                relay.read(&send(relay, Method::PUT, &["users", name], Some(&update)).await?)
            }
            Self::Storage(storage) => Ok(storage.run(async |all| all.put_user(name, update).await).await?.0),
        }
    }

    pub(super) async fn delete_user(&self, name: &str) -> Result<(), CliError> {
        match self {
            Self::Relay(relay) => ask(relay, Method::DELETE, &["users", name]).await.map(drop),
            Self::Storage(storage) => Ok(storage.run(async |all| all.delete_user(name).await).await?),
        }
    }

    pub(super) async fn tokens(&self) -> Result<Vec<TokenInfo>, CliError> {
        match self {
            Self::Relay(relay) => relay.read(&ask(relay, Method::GET, &["tokens"]).await?),
            Self::Storage(storage) => Ok(storage.run(async |all| all.tokens().await).await?),
        }
    }

    pub(super) async fn create_token(&self, wanted: &TokenCreate) -> Result<TokenCreated, CliError> {
        match self {
            Self::Relay(relay) => relay.read(&send(relay, Method::POST, &["tokens"], Some(wanted)).await?),
            Self::Storage(storage) => Ok(storage.run(async |all| all.create_token(wanted).await).await?),
        }
    }

    pub(super) async fn create_ticket(&self, wanted: &TicketCreate) -> Result<TicketCreated, CliError> {
        match self {
            Self::Relay(relay) => relay.read(&send(relay, Method::POST, &["tickets"], Some(wanted)).await?),
            Self::Storage(_) => {
                let rule = "a ticket is made by a relay; name one with --url or TIDEMILL_URL";
                Err(CliError::Usage(rule.to_owned()))
            }
        }
    }

    pub(super) async fn revoke_token(&self, id: &str) -> Result<(), CliError> {
        match self {
            Self::Relay(relay) => ask(relay, Method::DELETE, &["tokens", id]).await.map(drop),
            Self::Storage(storage) => Ok(storage.run(async |all| all.revoke_token(id).await).await?),
        }
    }

    pub(super) async fn roles(&self) -> Result<Vec<RoleInfo>, CliError> {
        match self {
            Self::Relay(relay) => relay.read(&ask(relay, Method::GET, &["roles"]).await?),
            Self::Storage(storage) => Ok(storage.run(async |all| all.roles().await).await?),
        }
    }

    /// Writes a role, and returns it with whether it is new.
    pub(super) async fn put_role(
        &self,
        name: &str,
        update: &RoleUpdate,
    ) -> Result<(RoleInfo, bool), CliError> {
        match self {
            Self::Relay(relay) => {
                let answer = send(relay, Method::PUT, &["roles", name], Some(update)).await?;
                Ok((relay.read(&answer)?, answer.status == 201))
            }
            Self::Storage(storage) => {
                Ok(storage.run(async |all| all.put_role(name, &update.rules).await).await?)
            }
        }
    }

    pub(super) async fn delete_role(&self, name: &str) -> Result<(), CliError> {
        match self {
            Self::Relay(relay) => ask(relay, Method::DELETE, &["roles", name]).await.map(drop),
            Self::Storage(storage) => Ok(storage.run(async |all| all.delete_role(name).await).await?),
        }
    }

    pub(super) async fn explain(&self, asked: &Explain) -> Result<Explained, CliError> {
        match self {
            Self::Relay(relay) => {
                relay.read(&send(relay, Method::POST, &["access", "explain"], Some(asked)).await?)
            }
            Self::Storage(storage) => Ok(storage.explain(asked).await?),
        }
    }

    /// Lets go of a storage.
    async fn close(self) {
        match self {
            Self::Relay(_) => {}
            Self::Storage(storage) => storage.close().await,
        }
    }
}
