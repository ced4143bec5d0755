//! `tidemill import`: brings what is in a file of `tidemill export` into a storage or a relay.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::TopicSelector;
use tokio::task::spawn_blocking;
use tokio::time::interval;

use super::CliError;
use super::copy::access::{self, Nothing, Users};
use super::copy::{IN_THE_WAY, Telling};
use super::credentials::{self, Token};
use super::output::{self, Output, counted};
use super::points::number;
use super::sides::{Bringing, Form, Keys, Named, Opened, Reaching};
use super::signals;
use crate::config::Environment;
use crate::copying::{Copy as Copying, CopyError, ExportedFile, FileError, Plan};

const EXAMPLES: &str = "\
The file is read once and checked before anything is changed: one that is cut off or damaged, or
tells what cannot be, is refused, and the error says where. Then it is copied as `tidemill copy`
does it: a topic takes messages once it is whole, what is whole is left alone, and an import that is
broken off is gone on with by the same command. Nothing at the target is replaced that is something
else, unless --overwrite says so.

What the target has and of which it lacks messages, groups or keys of the file, as they were removed
there since, stays without them; --overwrite puts what the file has in its place. What has gone on
since and has all of the file stays as it is, --overwrite or not.

It says first how many messages are older than the target keeps them (PERSISTENT_TIER_RETENTION),
and looks at the end whether the target has what it was given.

Users, tokens and roles that the target has not and others are there may have been removed, and come
with --overwrite alone.

Examples:
  tidemill import --to valkey://host:6379 backup.tidemill --dry-run
  tidemill import --to valkey://host:6379 backup.tidemill
  tidemill import --to http://host:8080 --to-token @token backup.tidemill 'orders.*'
  ssh other 'cat backup.tidemill' | tidemill import --to valkey://host:6379 -

From standard input it is kept in a temporary file first (TMPDIR).

--dry-run says what would be done, as that of `tidemill copy` does.

Exit status: 0 all is there, or can be; 1 not all; 2 not understood, or the target has its topics
under keys of the other form; 3 --dry-run has found something in the way.";

const TO_TOKEN_HELP: &str = "The token that says to the relay who calls. With `@PATH` it is read from a file [env: TIDEMILL_TOKEN, TIDEMILL_TOKEN_FILE]";

/// What is said where there is nobody to bring.
const NO_ACCESS: &str = "the file has no users, tokens and roles: it was exported without --access";

/// What is said where nobody is brought, and nothing.
const NOTHING: Nothing = Nothing {
    is_done: "nothing is imported",
    is_replaced: "nothing is imported; --overwrite brings what the file has in its place, and with --no-topics that alone",
};

/// What can be done about an import that was broken off.
const GOES_ON: &str = "not all is imported; the same command goes on from here";

/// How often it is said that the file is being checked.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The arguments of `tidemill import`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Import {
    /// The file; `-` for standard input
    file: PathBuf,

    /// The topics, by their names or patterns; all, and all buckets of keys, if none is named
    topics: Vec<TopicSelector>,

    /// Where to bring it, as in `valkey://host:6379`, or a relay, as in `http://host:8080`. With `@PATH` the URL is read
    /// from a file
    #[arg(long, value_name = "URL")]
    to: String,

    #[command(flatten)]
    users: Users,

    /// How the keys are written there, as `TIDEMILL_VALKEY_KEY_FORM` of its relays says it; plain, if it is not given
    #[arg(long, value_name = "FORM", value_enum)]
    to_keys: Option<Keys>,

    /// The token for the relay
    #[arg(long, value_name = "TOKEN", help = TO_TOKEN_HELP, value_parser = credentials::parse)]
    to_token: Option<Token>,

    /// Messages a second to write at most, so that the target has time for its clients; one of more than 1 KiB counts as
    /// several. 0 is as fast as it goes
    #[arg(long, value_name = "MESSAGES", default_value_t = 0, value_parser = number::<u32>)]
    rate: u32,

    #[command(flatten)]
    bringing: Bringing,

    #[command(flatten)]
    reaching: Reaching,
}

impl Import {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let stopped = signals::stopped()?;
        let to = Opened::open(Named {
            flag: "to",
            url: &self.to,
            form: Form { flag: "to-keys", given: self.to_keys, may_be_empty: true },
            ca_cert: self.reaching.ca_cert.as_ref(),
            token: self.to_token.as_ref(),
            environment,
        })?;
        let act = async {
            let file = self.open().await?;
            to.ready(self.reaching.patience()).await?;
            self.import(file, &to).await
        };
        let done = tokio::select! {
            done = act => done,
            () = stopped => Err(CliError::Interrupted),
        };
        to.close().await;
        match done {
            Err(CliError::Interrupted) if !self.bringing.dry_run => {
                Err(CliError::Kept(Box::new(CliError::Interrupted), GOES_ON.to_owned()))
            }
            done => done,
        }
    }

    /// Opens the file, and checks it.
    async fn open(&self) -> Result<ExportedFile, CliError> {
        let is_input = self.file == Path::new("-");
        if is_input && io::stdin().is_terminal() {
            return Err(CliError::Usage("standard input is a terminal; name a file".to_owned()));
        }
        let path = self.file.clone();
        let open = move || {
            if is_input {
                return ExportedFile::take(&mut io::stdin().lock());
            }
            let mut file = File::open(path)?;
            if file.metadata()?.is_file() { ExportedFile::open(file) } else { ExportedFile::take(&mut file) }
        };
        let name = if is_input { "standard input".into() } else { self.file.to_string_lossy() };
        let name = output::printable(&name);
        let mut told = interval(TOLD_EVERY);
        told.tick().await;
        let mut opening = spawn_blocking(open);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                _ = told.tick() => eprintln!("checking {name}"),
            }
        };
        let opened = opened.map_err(|ended| CliError::Failed("the file cannot be read", ended.into()))?;
        let file = opened.map_err(|error| match error {
            FileError::Unreadable(cause) => CliError::Failed(
                "nothing is imported; the file cannot be read",
                format!("{name}: {cause}").into(),
            ),
            error => CliError::Failed("nothing is imported", format!("{name}: {error}").into()),
        })?;
        if self.bringing.output == Output::Text {
            let (header, counts) = (file.header(), file.counts());
            eprintln!(
                "{name}: written at {} by Tidemill {}; {} with {}, {} with {}",
                header.written_at,
                output::printable(&header.program),
                counted(counts.topics, "topic"),
                counted(counts.messages, "message"),
                counted(counts.buckets, "bucket"),
                counted(counts.keys, "key"),
            );
        }
        Ok(file)
    }

    async fn import(&self, file: ExportedFile, to: &Opened) -> Result<(), CliError> {
        let Bringing { overwrite, dry_run, output } = self.bringing;
        let users = if self.users.access {
            let Some(documents) = file.access() else { return Err(CliError::Usage(NO_ACCESS.to_owned())) };
            Some((to.access("to")?, documents.clone()))
        } else {
            if file.access().is_some() {
                eprintln!("users, tokens and roles of the file are left out; --access brings them");
            }
            None
        };
        let bring = async || match &users {
            Some((store, documents)) => access::bring(&**store, documents, &self.bringing, NOTHING).await,
            None => Ok(false),
        };
        if self.users.no_topics {
            return if bring().await? { Err(CliError::Status(IN_THE_WAY)) } else { Ok(()) };
        }
        let plan = Plan {
            topics: self.topics.clone(),
            follow: false,
            switch: false,
            overwrite,
            patience: self.reaching.patience(),
        };
        let copy = Copying::new(Arc::new(file), to.paced(self.rate), plan.clone());
        let kept = to.kept().await;
        let telling = Telling { done: "imported", output, overwrite, is_data: false, kept };
        if dry_run {
            let is_in_the_way = bring().await?;
            telling.plan(&copy, &plan).await.map_err(told)?;
            return if is_in_the_way { Err(CliError::Status(IN_THE_WAY)) } else { Ok(()) };
        }
        // Names are looked at before, and what is in the way.
        telling.copy(&copy, async || bring().await.map(drop), async || Ok(())).await.map_err(told)
    }
}

/// Returns an error of a copy as one of an import.
fn told(error: CliError) -> CliError {
    let CliError::Failed(advice, cause) = error else { return error };
    match cause.downcast_ref() {
        Some(CopyError::Missing(topic)) => CliError::Failed(
            "nothing is imported; leave it out, or correct its name",
            format!("the file has no topic `{topic}`").into(),
        ),
        _ => CliError::Failed(advice, cause),
    }
}
