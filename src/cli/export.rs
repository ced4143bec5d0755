//! `tidemill export`: writes what a storage or a relay has to a file.

use std::io;
use std::path::PathBuf;

use tidemill_proto::TopicSelector;

use super::CliError;
use super::copy::Telling;
use super::credentials::{self, Token};
use super::output::Output;
use super::sides::{Form, Kept, Keys, Named, Opened, Pacing, Reaching};
use super::signals;
use crate::chance::random;
use crate::clock::Clock;
use crate::config::Environment;
use crate::copying::{Copy as Copying, CopyError, Export as Exporting, Origin, Plan, Side, SideError};

mod target;

use target::Target;

const EXAMPLES: &str = "\
The file has all that `tidemill copy` carries: ids, times, payloads, metadata, what topics keep and
say of themselves, groups with their positions, dead letters, what waits for later, and buckets with
their keys and logs. Users, tokens and roles are in it with --access alone. `tidemill import`
reads it.

It has what there is as each topic is read; what comes meanwhile is not in it. The file is written
as FILE.part, which only its owner can read, and has its name once it is whole.

Examples:
  tidemill export --from valkey://host:6379 --output backup.tidemill
  tidemill export --from valkey://host:6379 --access --output all.tidemill
  tidemill export --from http://host:8080 --from-token @token 'orders.*' --output orders.tidemill
  tidemill export --from valkey://host:6379 --output - | ssh other 'cat > backup.tidemill'

A relay is asked over HTTP, and needs a caller who may administer it.

What was deleted at the source before it was read is named on the last line, and left out; a topic
that was named so is an error.

Exit status: 0 all is in the file; 1 there is none, or the one before; 2 not understood, the file is
there already, or the source has its topics under keys of the other form; 3 the file is there, but
without topics or buckets that were deleted at the source meanwhile.";

const FROM_TOKEN_HELP: &str = "The token that says to the relay who calls. With `@PATH` it is read from a file [env: TIDEMILL_TOKEN, TIDEMILL_TOKEN_FILE]";

/// What the file cannot be.
const NOT_WRITTEN: &str = "nothing is exported; the file cannot be written";

/// What is said where it was stopped.
const STOPPED: &str = "nothing is exported; run the same command again";

/// What the source has not, where there would be a file with nothing in it.
const NOTHING: &str =
    "nothing is exported, and the file that is there stays as it is; to replace it, add --allow-empty";
const LOST: &str = "nothing is exported, and a file that is there stays as it is; look at the source";

/// The exit status where something was deleted at the source meanwhile, and all else is in the file.
const DELETED: u8 = 3;

/// The arguments of `tidemill export`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Export {
    /// The topics, by their names or patterns; all, and all buckets of keys, if none is named
    topics: Vec<TopicSelector>,

    /// What to export, as in `valkey://host:6379`, or a relay, as in `http://host:8080`. With `@PATH` the URL is read from
    /// a file
    #[arg(long, value_name = "URL")]
    from: String,

    /// The file to write; `-` for standard output
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Users, tokens and roles as well. Of passwords and tokens there are hashes in it. Only from a storage
    #[arg(long)]
    access: bool,

    /// How the keys are written there, as `TIDEMILL_VALKEY_KEY_FORM` of its relays says it; plain, if it is not given
    #[arg(long, value_name = "FORM", value_enum)]
    from_keys: Option<Keys>,

    /// The token for the relay
    #[arg(long, value_name = "TOKEN", help = FROM_TOKEN_HELP, value_parser = credentials::parse)]
    from_token: Option<Token>,

    /// Replace the file, if it is there already
    #[arg(long)]
    overwrite: bool,

    /// With --overwrite: replace it also where the source has nothing, or has lost all that it had
    #[arg(long, requires = "overwrite")]
    allow_empty: bool,

    #[command(flatten)]
    pacing: Pacing,

    #[command(flatten)]
    reaching: Reaching,

    /// The form of what is printed; the file has only one
    #[arg(short = 'o', long = "form", value_name = "FORM", value_enum, default_value_t)]
    form: Output,
}

impl Export {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let stopped = signals::stopped_or_hung_up()?;
        let from = Opened::open(Named {
            flag: "from",
            url: &self.from,
            form: Form { flag: "from-keys", given: self.from_keys, may_be_empty: false },
            ca_cert: self.reaching.ca_cert.as_ref(),
            token: self.from_token.as_ref(),
            environment,
        })?;
        let target = Target::of(&self.output, self.overwrite)?;
        let act = async {
            from.ready(self.reaching.patience()).await?;
            self.export(&from, target).await
        };
        let done = tokio::select! {
            done = act => done,
            () = stopped => Err(CliError::Kept(Box::new(CliError::Interrupted), STOPPED.to_owned())),
        };
        from.close().await;
        done
    }

    async fn export(&self, from: &Opened, target: Target) -> Result<(), CliError> {
        let plan = Plan {
            topics: self.topics.clone(),
            follow: false,
            switch: false,
            overwrite: false,
            patience: self.reaching.patience(),
        };
        let store = self.access.then(|| from.access("from")).transpose()?;
        let export = Exporting::default();
        let copy = Copying::new(export.source(from.paced(self.pacing.rate)), export.target(), plan);
        let is_data = matches!(target, Target::Output);
        let replaces = target.replaced().is_some();
        let (output, kept) = (self.form, Kept::ForEver);
        let telling = Telling { done: "exported", output, overwrite: false, is_data, kept };
        let mut part = None;
        let opened = &mut part;
        let begin = async || {
            let (writer, made) = target.open().await.map_err(not_written)?;
            *opened = made;
            let program = env!("CARGO_PKG_VERSION");
            let origin = Origin { id: random(), program, written_at: Clock::system().now() };
            let access = match &store {
                None => None,
                Some(store) => {
                    let there = store.documents(None).await;
                    let there =
                        there.map_err(|error| CliError::Failed("nothing is exported", error.into()))?;
                    Some(there.unwrap_or_default().documents)
                }
            };
            let begun = export.begin(&*from.side, writer, &origin, access).await;
            begun.map_err(|error| CliError::Failed("nothing is exported", error.into()))
        };
        let progress = copy.progress();
        let end = async || {
            if progress.source_is_empty() && !self.allow_empty {
                let why = "the source has lost all that it had while it was read";
                return Err(CliError::Failed(LOST, why.into()));
            }
            let counts = export.finish().await.map_err(not_written)?;
            let is_empty = counts.topics + counts.buckets == 0 && store.is_none();
            if replaces && is_empty && !self.allow_empty {
                let why = "the source has no topics and no buckets";
                return Err(CliError::Failed(NOTHING, why.into()));
            }
            Ok(())
        };
        let done = telling.copy(&copy, begin, end).await;
        if let Some(failure) = export.failure() {
            return Err(not_written(failure));
        }
        done.map_err(told)?;
        part.map_or(Ok(()), |part| part.keep(self.overwrite))?;
        if progress.reached().gone.is_empty() { Ok(()) } else { Err(CliError::Status(DELETED)) }
    }
}

fn not_written(cause: io::Error) -> CliError {
    CliError::Failed(NOT_WRITTEN, cause.into())
}

/// Returns an error of a copy as one of an export, which leaves nothing to go on with.
fn told(error: CliError) -> CliError {
    let CliError::Failed(advice, cause) = error else { return error };
    let advice = match cause.downcast_ref() {
        None => advice,
        Some(CopyError::Missing(_)) => "nothing is exported; leave it out, or correct its name",
        Some(CopyError::Deleted(_)) => "nothing is exported; leave it out, and run the command again",
        Some(CopyError::Failed { side: Side::Source, error, .. }) if error.is_full() => {
            "nothing is exported; a topic that no relay has seen yet gets its mark first, and the source has no room for that: raise its maxmemory (`CONFIG SET maxmemory`), or name the other topics"
        }
        Some(CopyError::Failed { side: Side::Source, error: SideError::Denied(_), .. }) => {
            "nothing is exported; name a token of who may administer the relay with --from-token"
        }
        Some(_) => "nothing is exported; once that is mended, run the same command again",
    };
    CliError::Failed(advice, cause)
}
