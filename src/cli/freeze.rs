//! `tidemill freeze`: makes a storage read-only, ends that, or says whether it is.

use std::path::PathBuf;

use serde::Serialize;
use tidemill_proto::{TopicName, TopicSelector};

use super::CliError;
use super::copy::some_of;
use super::credentials::TokenFlag;
use super::output::{self, Output, counted};
use super::sides::{Form, Keys, Named, Opened, READY_MAX};
use crate::config::Environment;
use crate::copying::{CopySide, FreezeError, Frozen, FrozenState, SideError, freeze_or_undo, frozen};

const EXAMPLES: &str = "\
A publish to a topic that is read-only is refused with the problem `read_only`, by every relay on
that storage, from the moment on at which it is made so; reading and working go on. Without topics
all are made read-only, and all buckets of keys, and no more are made. Topics that are closed or
cancelled take no message anyway: they stay as they are, and are not counted. Where a server fails
meanwhile, what was done is undone, and what could not be is told. Where a topic that was named is
not there, or a pattern matches none, nothing is done.

Examples:
  tidemill freeze --storage valkey://old:6379           so that `tidemill copy --follow` can end
  tidemill freeze --storage valkey://old:6379 --undo    publishing goes on there
  tidemill freeze --storage http://old:8080             a relay, with all that share its storage
  tidemill freeze --storage valkey://old:6379 --status  whether it is read-only; nothing is changed

/health and `tidemill doctor` say of a storage that it is read-only as a whole, and the metric
tidemill_backend_read_only is 1 then.

Exit status: 0 done, 1 failed, 2 not understood.";

/// The arguments of `tidemill freeze`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Freeze {
    /// The topics, by their names or patterns; all, if none is named
    topics: Vec<TopicSelector>,

    /// The storage, as in `valkey://host:6379`, or a relay on it, as in `http://host:8080`. With `@PATH` the URL is read
    /// from a file
    #[arg(long, value_name = "URL")]
    storage: String,

    /// How its keys are written, as `TIDEMILL_VALKEY_KEY_FORM` of its relays says it; plain, if it is not given
    #[arg(long, value_name = "FORM", value_enum)]
    keys: Option<Keys>,

    /// Have the topics take messages again
    #[arg(long)]
    undo: bool,

    /// Say what is read-only, and change nothing
    #[arg(long, conflicts_with = "undo")]
    status: bool,

    /// Certificates (PEM) to trust in place of the system's, for TLS
    #[arg(long, value_name = "PATH")]
    ca_cert: Option<PathBuf>,

    /// Who calls, where a relay is asked.
    #[command(flatten)]
    token: TokenFlag,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Output,
}

const DENIED: &str = "the storage did not do it; name a token of who may administer the relay with --token";

/// What is said where marks have no room.
const NO_ROOM: &str = "it is as it was; what is read-only is marked, and the storage has no room for that: raise its maxmemory (`CONFIG SET maxmemory`), or trim topics, then give the command again";

/// What is said where not all is there that was named.
const MISSING: &str = "nothing was changed; leave it out, or correct its name";

/// What is said where a storage is used again that may have been moved.
const UNDONE: &str =
    "where it was copied to another storage, what comes from now on is not there, until it is copied again";

/// What is printed.
#[derive(Debug, Serialize)]
struct Done {
    read_only: bool,
    topics: usize,
    buckets: usize,
    /// How many of these were so before, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    unchanged_topics: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unchanged_buckets: Option<usize>,
}

impl Freeze {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let opened = Opened::open(Named {
            flag: "storage",
            url: &self.storage,
            form: Form { flag: "keys", given: self.keys, may_be_empty: self.undo },
            ca_cert: self.ca_cert.as_ref(),
            token: self.token.given(),
            environment,
        })?;
        let done = async {
            opened.ready(READY_MAX).await?;
            if self.status { self.tell(&*opened.side).await } else { self.freeze(&*opened.side).await }
        };
        let missing = done.await;
        opened.close().await;
        let missing = missing?;
        if missing.is_empty() {
            return Ok(());
        }
        let why = if self.status { "not all that was named is there" } else { MISSING };
        Err(CliError::Failed(why, format!("no topic {}", some_of(&missing)).into()))
    }

    /// Makes topics read-only, or ends that; returns what was named and is not there, and then nothing is done.
    async fn freeze(&self, side: &dyn CopySide) -> Result<Vec<String>, CliError> {
        let Frozen { topics, buckets, unchanged, missing, unmatched } =
            freeze_or_undo(side, &self.topics, !self.undo)
                .await
                .map_err(|error| not_done(error, self.undo))?;
        let missing = all_missing(&missing, &unmatched);
        if !missing.is_empty() {
            return Ok(missing);
        }
        let [unchanged_topics, unchanged_buckets] = unchanged;
        match self.output {
            Output::Json => {
                let read_only = !self.undo;
                let [unchanged_topics, unchanged_buckets] =
                    unchanged.map(|count| (count > 0).then_some(count));
                output::json(&Done { read_only, topics, buckets, unchanged_topics, unchanged_buckets })?;
            }
            Output::Text => {
                let now = if self.undo { "taking changes again" } else { "read-only now" };
                let mut line = format!("{now}: {}", both(topics, buckets));
                if unchanged_topics + unchanged_buckets > 0 {
                    let before = both(unchanged_topics, unchanged_buckets);
                    line = format!("{line}; that was so before of {before}");
                }
                output::line(&line)?;
                if self.undo {
                    eprintln!("{UNDONE}");
                }
            }
        }
        Ok(missing)
    }

    /// Tells what is read-only; returns what was named and is not there.
    async fn tell(&self, side: &dyn CopySide) -> Result<Vec<String>, CliError> {
        let state = frozen(side, &self.topics).await.map_err(failed)?;
        let FrozenState {
            refuses_new, topics: [topics, topics_open], buckets: [buckets, buckets_open], ..
        } = state;
        let is_open = topics_open + buckets_open > 0 || (self.topics.is_empty() && !refuses_new);
        let status = Status {
            read_only: !is_open,
            refuses_new,
            topics,
            topics_open,
            buckets,
            buckets_open,
            taken_over: state.taken_over,
        };
        match self.output {
            Output::Json => output::json(&status)?,
            Output::Text => output::line(&status.told())?,
        }
        Ok(all_missing(&state.missing, &state.unmatched))
    }
}

/// What is printed of how much is read-only.
#[derive(Debug, Serialize)]
struct Status {
    /// All that was asked about.
    read_only: bool,
    refuses_new: bool,
    topics: usize,
    topics_open: usize,
    buckets: usize,
    buckets_open: usize,
    taken_over: usize,
}

impl Status {
    fn told(&self) -> String {
        let mut text = format!("read-only: {}", both(self.topics, self.buckets));
        if !self.read_only {
            text = format!("{text}; taking changes: {}", both(self.topics_open, self.buckets_open));
        }
        if self.taken_over > 0 {
            text = format!("{text}; being copied from elsewhere: {}", self.taken_over);
        }
        if self.refuses_new {
            text.push_str("; no more are made");
        }
        text
    }
}

fn both(topics: usize, buckets: usize) -> String {
    format!("{}, {}", counted(topics as u64, "topic"), counted(buckets as u64, "bucket"))
}

/// Returns names that are not there, and patterns that match nothing, as they are told.
fn all_missing(missing: &[TopicName], unmatched: &[TopicSelector]) -> Vec<String> {
    let names = missing.iter().map(|topic| format!("`{topic}`"));
    names.chain(unmatched.iter().map(|pattern| format!("that matches `{pattern}`"))).collect()
}

/// Says what stands where not all was done.
fn not_done(error: FreezeError, undo: bool) -> CliError {
    let advice = match (&error, undo) {
        (FreezeError::Nothing(SideError::Denied(_)), _) => DENIED,
        (FreezeError::Nothing(error) | FreezeError::Undone(error), _) if error.is_full() => NO_ROOM,
        (FreezeError::Nothing(_) | FreezeError::Undone(_), _) => {
            "it is as it was; once the storage can be reached, with all of its servers, give the command again"
        }
        (FreezeError::Left { .. }, false) => {
            "once the storage can be reached, with all of its servers, give the command again, or with --undo"
        }
        (FreezeError::Left { .. }, true) => {
            "once the storage can be reached, with all of its servers, give the command again, or without --undo"
        }
    };
    CliError::Failed(advice, error.into())
}

fn failed(error: SideError) -> CliError {
    let advice = match error {
        SideError::Denied(_) => DENIED,
        _ => "the storage did not do it",
    };
    CliError::Failed(advice, error.into())
}
