//! Sides of a copy that a command names by their URLs: storages, beside the settings of a relay, and relays; and the flags that
//! all such commands have.
//!
//! It must not know what a command does with them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::ValueEnum;
use secrecy::SecretString;
use tidemill_client::{Client, ClientError, ClientOptions, CopyClient};
use tidemill_proto::copy::CopyRead;
use tidemill_proto::{Code, NodeId};
use tokio::time::{Instant, sleep};

use super::credentials::{self, Token};
use super::output::{self, Output};
use super::points::{number, time};
use super::{CliError, logs};
use crate::chance::random;
use crate::clock::Clock;
use crate::config::Environment;
use crate::copying::{CopySide, Paced, SideError, Told, Write, retention, told_from, write_to};
use crate::storage::valkey::{KeyForm, Target, TargetError, Valkey, ValkeyOptions};
use crate::storage::{
    AccessStore, Backend as _, BucketStore as _, Storage, StorageError, StorageLimits, TopicStore as _,
    Upkeep as _,
};

/// How long a server may take until it can be used, for who does not wait longer.
pub(super) const READY_MAX: Duration = Duration::from_secs(10);
/// How long connecting may take, also where nobody is waited for.
const READY_MIN: Duration = Duration::from_secs(2);
/// How often it is looked whether a server refuses who connects.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For how long it must have said so: one that ends or starts in this moment may be taken for one that refuses.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// How often it is said why a server cannot be used yet.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// What to do about a server that refuses who connects.
const REFUSED: &str = "a storage refuses it; correct the user, the password or the database in its URL, or give the user the rights";
/// Longest file with a URL that is read.
const URL_BYTES_MAX: usize = 4_096;

/// How the keys of a storage are written, as `TIDEMILL_VALKEY_KEY_FORM` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Keys {
    /// `stream:topic:orders`
    #[default]
    Plain,
    /// `stream:topic:{orders}`
    Braces,
}

impl Keys {
    const fn other(self) -> Self {
        match self {
            Self::Plain => Self::Braces,
            Self::Braces => Self::Plain,
        }
    }

    /// Returns its name, as a flag has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Braces => "braces",
        }
    }
}

/// How fast a side is asked that may have clients, of the commands that read one.
#[derive(Debug, clap::Args)]
pub(super) struct Pacing {
    /// Messages a second to read at most, so that the source has time for its clients; one of more than 1 KiB counts as
    /// several. 0 is as fast as it goes
    #[arg(long, value_name = "MESSAGES", default_value_t = 150_000, value_parser = number::<u32>)]
    pub(super) rate: u32,
}

/// How sides are reached, of all commands that copy.
#[derive(Debug, clap::Args)]
pub(super) struct Reaching {
    /// How long a side may be away before it ends
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time)]
    patience: Duration,

    /// Certificates (PEM) to trust in place of the system's, for sides with TLS
    #[arg(long, value_name = "PATH")]
    pub(super) ca_cert: Option<PathBuf>,
}

impl Reaching {
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }
}

/// How something is brought to a side, and how that is told, of the commands that do so.
#[derive(Debug, clap::Args)]
pub(super) struct Bringing {
    /// Replace topics and buckets of the target that are not copies of those that are brought, or lack something of them.
    /// It says how much goes
    #[arg(long)]
    pub(super) overwrite: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Which form of keys a storage is asked for, and whether that is what was meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// The flag that names it.
    pub(super) flag: &'static str,
    /// Which, if somebody has said so.
    pub(super) given: Option<Keys>,
    /// Whether a storage that has nothing of the form that was said, and something of the other, may be meant all the same.
    pub(super) may_be_empty: bool,
}

impl Form {
    /// Returns which it is, said or not.
    pub(super) fn keys(&self) -> Keys {
        self.given.unwrap_or_default()
    }
}

/// Within which time a target removes messages of topics that say nothing of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// It keeps them, or nobody asks.
    ForEver,
    /// A relay has told that.
    For(Duration),
    /// As relays do on which nothing is set: nobody knows those of a storage.
    Perhaps,
}

/// How a side is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    /// The flag that names it.
    pub(super) flag: &'static str,
    /// Its URL; behind an `@` that of a file with it.
    pub(super) url: &'a str,
    /// How the keys of a storage are written.
    pub(super) form: Form,
    /// Certificates (PEM) to trust in place of the system's.
    pub(super) ca_cert: Option<&'a PathBuf>,
    /// The token that says to a relay who calls; what the environment has, if none is given.
    pub(super) token: Option<&'a Token>,
    pub(super) environment: &'a Environment,
}

/// A side that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) side: Arc<dyn CopySide>,
    /// What it is called where a command speaks of it.
    pub(super) name: String,
    /// How the keys of a storage are written.
    pub(super) form: Form,
    backend: Option<Arc<Valkey>>,
}

impl Opened {
    /// Opens the side that a flag names. A storage is connected to meanwhile.
    pub(super) fn open(named: Named<'_>) -> Result<Self, CliError> {
        let Named { flag, url, form, ca_cert, token, environment } = named;
        let wrong = |rule: String| CliError::Usage(format!("--{flag}: {rule}"));
        let url = match url.strip_prefix('@') {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| wrong(format!("{path} cannot be read: {cause}")))?;
                if text.len() > URL_BYTES_MAX {
                    return Err(wrong(format!("{path} has more than a URL")));
                }
                text.trim().to_owned()
            }
            None => url.to_owned(),
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|cause| {
                CliError::Usage(format!("--ca-cert: {} cannot be read: {cause}", path.display()))
            })
        };
        let ca_pem = ca_cert.map(read).transpose()?;
        if url.starts_with("http://") || url.starts_with("https://") {
            return Self::relay(&url, form, credentials::token(token, environment)?, ca_pem);
        }
        let target = Target::parse(&url).map_err(|error| {
            let relays = match error {
                TargetError::NoScheme => "; or `http://host:8080` of a relay, or `https://`",
                TargetError::Scheme => "; those of a relay are http and https",
                _ => "",
            };
            wrong(format!("{error}{relays}"))
        })?;
        Ok(Self::storage(target, form, ca_pem))
    }

    /// Waits until it can be used, and says now and then why it cannot; then looks whether it has what is looked for. A relay
    /// is not asked.
    ///
    /// # Errors
    /// It cannot be used for so long, or refuses the login, which does not pass. It has topics or buckets under keys of the
    /// other form, and nobody has said that this one is meant, or it has none of this one.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), CliError> {
        let Some(backend) = &self.backend else { return Ok(()) };
        self.connected(backend, patience).await?;
        self.check_form(backend, patience).await
    }

    async fn connected(&self, backend: &Valkey, patience: Duration) -> Result<(), CliError> {
        let began = Instant::now();
        let (name, until, mut told_at) = (&self.name, began + patience.max(READY_MIN), began + TOLD_EVERY);
        let mut refused_since: Option<Instant> = None;
        loop {
            if backend.ready(LOOK_EVERY.min(until - Instant::now())).await {
                return Ok(());
            }
            match backend.refusal() {
                None => refused_since = None,
                Some(why) if refused_since.get_or_insert_with(Instant::now).elapsed() >= REFUSED_FOR => {
                    let why = format!("{name}: {why}; `tidemill doctor` tells more");
                    return Err(CliError::Failed(REFUSED, why.into()));
                }
                Some(_) => {}
            }
            if Instant::now() < until.min(told_at) {
                continue;
            }
            told_at += TOLD_EVERY;
            let why = backend.health().await.backend.warnings.into_iter().next().unwrap_or_default();
            if until <= Instant::now() {
                let why = format!("{name}: {why}; `tidemill doctor` tells more");
                return Err(CliError::Failed("a storage cannot be used", why.into()));
            }
            eprintln!("waiting for {name}: {}", output::printable(&why));
        }
    }

    /// Checks that a storage has what is looked for under keys of this form: else nothing is found there, and that is taken
    /// for all that there is.
    async fn check_form(&self, backend: &Valkey, patience: Duration) -> Result<(), CliError> {
        let Form { flag, given, may_be_empty } = self.form;
        let (keys, is_told) = (self.form.keys(), given.is_some());
        if is_told && may_be_empty {
            return Ok(());
        }
        let until = Instant::now() + patience;
        let look = async || {
            let Some(hidden) = backend.hidden().await? else { return Ok(None) };
            let is_empty = backend.names("", None, 1).await?.is_empty()
                && backend.bucket_names(None, 1).await?.is_empty();
            Ok((!is_told || is_empty).then_some(hidden))
        };
        let hidden = loop {
            match look().await {
                Ok(None) => return Ok(()),
                Ok(Some(hidden)) => break hidden,
                Err(StorageError::Unavailable(_)) if Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(error) => return Err(CliError::Failed("a storage cannot be used", error.into())),
            }
        };
        let what = hidden
            .bucket()
            .map_or_else(|| format!("the topic `{hidden}`"), |bucket| format!("the bucket `{bucket}`"));
        let (name, here, other) = (&self.name, keys.name(), keys.other().name());
        let or = if is_told { String::new() } else { format!("; --{flag} {here} leaves that out") };
        Err(CliError::Usage(format!(
            "{name} has topics or buckets under keys of the form `{other}`, as {what}, and with `{here}` they are not seen; nothing was done; add --{flag} {other} where they are meant{or}"
        )))
    }

    fn relay(
        url: &str,
        form: Form,
        token: Option<SecretString>,
        roots_pem: Option<Vec<u8>>,
    ) -> Result<Self, CliError> {
        let client_id = Some(concat!("tidemill/", env!("CARGO_PKG_VERSION")).to_owned());
        let options = ClientOptions { token, roots_pem, client_id, ..ClientOptions::default() };
        let client = Client::new(url, options)?;
        let (name, side) = (client.name().to_owned(), Arc::new(Relay(client.copies()?)));
        Ok(Self { side, name, form, backend: None })
    }

    fn storage(target: Target, form: Form, ca_pem: Option<Vec<u8>>) -> Self {
        let name = target.to_string();
        let options = ValkeyOptions {
            ca_pem,
            key_form: match form.keys() {
                Keys::Plain => KeyForm::Plain,
                Keys::Braces => KeyForm::Braces,
            },
            ..ValkeyOptions::new(target)
        };
        // What is there is copied, however much it is.
        let limits = StorageLimits {
            retention: None,
            topics_max: u64::from(u32::MAX),
            idempotency_window: Duration::from_mins(10),
            schedules_max: u64::from(u32::MAX),
            topic_schedules_max: u64::from(u32::MAX),
            buckets_max: u64::from(u32::MAX),
        };
        logs::start_silent();
        let backend = Valkey::connect(NodeId::new(random()), options, limits, Clock::system());
        Self { side: Arc::new(Storage::new(backend.clone())), name, form, backend: Some(backend) }
    }

    /// Returns what keeps users, tokens and roles of a storage.
    ///
    /// # Errors
    /// It is a relay, which does not give their hashes away.
    pub(super) fn access(&self, flag: &str) -> Result<Arc<dyn AccessStore>, CliError> {
        match &self.backend {
            Some(backend) => Ok(backend.clone()),
            None => Err(CliError::Usage(format!(
                "--{flag}: {} is a relay, which gives no hashes of passwords and tokens away, and takes none; name its storage, as in `valkey://host:6379`",
                self.name
            ))),
        }
    }

    /// Returns within which time it removes messages, as far as that is known. A relay that does not tell it is none of today.
    pub(super) async fn kept(&self) -> Kept {
        match (&self.backend, retention(&*self.side).await) {
            (Some(_), _) | (None, Err(_)) => Kept::Perhaps,
            (None, Ok(None)) => Kept::ForEver,
            (None, Ok(Some(age))) => Kept::For(age),
        }
    }

    /// Returns it as a side that is asked for so many messages a second; 0 is as fast as it goes.
    pub(super) fn paced(&self, rate: u32) -> Arc<dyn CopySide> {
        if rate == 0 { self.side.clone() } else { Arc::new(Paced::new(self.side.clone(), rate)) }
    }

    /// Lets go of it.
    pub(super) async fn close(self) {
        if let Some(backend) = self.backend {
            backend.close().await;
        }
    }
}

/// A relay as a side.
#[derive(Debug)]
struct Relay(CopyClient);

#[async_trait]
impl CopySide for Relay {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        let told = self.0.read(asked).await.map_err(of_relay)?;
        told_from(told).map_err(|problem| {
            SideError::Refused(format!("what the relay tells cannot be used: {}", problem.detail).into())
        })
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        self.0.write(write_to(write)).await.map_err(of_relay)
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        None
    }
}

/// Returns what an error of a relay means to a copy.
fn of_relay(error: ClientError) -> SideError {
    let ClientError::Refused(refusal) = &error else {
        return match error {
            ClientError::Away { .. } | ClientError::NoAnswer { .. } | ClientError::Unknown => {
                SideError::Passing(error.into())
            }
            ClientError::Usage(_)
            | ClientError::Refused(_)
            | ClientError::Stopped { .. }
            | ClientError::NotARelay { .. } => SideError::Refused(error.into()),
        };
    };
    match refusal.code {
        Code::TopicNotFound | Code::BucketNotFound | Code::GroupNotFound => SideError::Missing,
        Code::TopicExists | Code::BucketExists => SideError::Exists,
        Code::LastMismatch => SideError::NotLast,
        Code::ReadOnly => SideError::ReadOnly,
        Code::Unauthenticated | Code::Forbidden => SideError::Denied(error.into()),
        Code::OutcomeUnknown => SideError::Passing(error.into()),
        // As of a storage: nobody is waited for to make room.
        Code::StorageFull => SideError::Refused(error.into()),
        _ if refusal.retryable => SideError::Passing(error.into()),
        _ => SideError::Refused(error.into()),
    }
}
