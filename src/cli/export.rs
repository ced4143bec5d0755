//! `tidemill export`: writes what a storage or a relay has to a file.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tidemill_proto::TopicSelector;

use super::CliError;
use super::copy::Telling;
use super::credentials::{self, Token};
use super::output::Output;
use super::sides::{Form, Keys, Named, Opened, Pacing, Reaching};
use super::signals;
use crate::chance::random;
use crate::clock::Clock;
use crate::config::Environment;
use crate::copying::{Copy as Copying, CopyError, Export as Exporting, Origin, Plan, Side, SideError};

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

Exit status: 0 all is in the file; 1 there is none; 2 not understood, the file is there already, or
the source has its topics under keys of the other form.";

const FROM_TOKEN_HELP: &str = "The token that says to the relay who calls. With `@PATH` it is read from a file [env: TIDEMILL_TOKEN, TIDEMILL_TOKEN_FILE]";

/// What the file cannot be.
const NOT_WRITTEN: &str = "nothing is exported; the file cannot be written";

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
        let stopped = signals::stopped()?;
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
            () = stopped => Err(CliError::Interrupted),
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
        let telling = Telling { done: "exported", output: self.form, overwrite: false, is_data };
        let mut part = None;
        let opened = &mut part;
        let begin = async || {
            let (writer, made) = target.open().map_err(not_written)?;
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
        let end = async || export.finish().await.map(drop).map_err(not_written);
        let done = telling.copy(&copy, begin, end).await;
        if let Some(failure) = export.failure() {
            return Err(not_written(failure));
        }
        done.map_err(told)?;
        part.map_or(Ok(()), |part| part.keep(self.overwrite))
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
        Some(CopyError::Failed { side: Side::Source, error: SideError::Denied(_), .. }) => {
            "nothing is exported; name a token of who may administer the relay with --from-token"
        }
        Some(_) => "nothing is exported; once that is mended, run the same command again",
    };
    CliError::Failed(advice, cause)
}

/// Where it is written to.
#[derive(Debug)]
enum Target {
    /// Standard output.
    Output,
    /// What is no file, as a pipe with a name.
    Stream(PathBuf),
    File(PathBuf),
}

impl Target {
    fn of(path: &Path, overwrite: bool) -> Result<Self, CliError> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(CliError::Usage(
                    "--output: standard output is a terminal; name a file".to_owned(),
                ));
            }
            return Ok(Self::Output);
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                Err(CliError::Usage(format!("--output: {} is a folder", path.display())))
            }
            Ok(found) if !found.is_file() => Ok(Self::Stream(path.to_owned())),
            Ok(_) if !overwrite => Err(CliError::Usage(is_there(path))),
            _ => Ok(Self::File(path.to_owned())),
        }
    }

    /// Opens it; of a file, the one that has its name later.
    fn open(&self) -> io::Result<(Box<dyn Write + Send>, Option<Part>)> {
        let (file, part) = match self {
            Self::Output => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            Self::Stream(path) => (File::options().write(true).open(path)?, None),
            Self::File(path) => {
                let part = Part::make(path)?;
                (part.file.try_clone()?, Some(part))
            }
        };
        Ok((Box::new(BufWriter::new(file)), part))
    }
}

fn is_there(path: &Path) -> String {
    format!("--output: {} is there already; to replace it, add --overwrite", path.display())
}

/// A file that is not whole. It goes when it is dropped.
#[derive(Debug)]
struct Part {
    /// What it is called once it is whole.
    path: PathBuf,
    part: PathBuf,
    file: File,
    is_kept: bool,
}

impl Part {
    fn make(path: &Path) -> io::Result<Self> {
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&part)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(format!("another export writes {}", part.display())));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // What an export has left that was killed.
        file.set_len(0)?;
        Ok(Self { path: path.to_owned(), part, file, is_kept: false })
    }

    /// Gives it its name, once it is on the disk.
    fn keep(mut self, overwrite: bool) -> Result<(), CliError> {
        if !overwrite && self.path.exists() {
            return Err(CliError::Usage(is_there(&self.path)));
        }
        let keep = || {
            self.file.sync_all()?;
            fs::rename(&self.part, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        keep().map_err(not_written)?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nobody is left to be told: the file is not whole, and its name says so.
            drop(fs::remove_file(&self.part));
        }
    }
}
