//! `tidemill lock`: runs a command while a lock is held, and stops it where the lock is lost.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tidemill_client::{ClientError, Encoding, LockOptions};
use tidemill_proto::locks::{Guarded, TTL};
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{Code, LockName, duration};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::CliError;
use super::client::RelayFlags;
use super::processes::{Processes, status_of, status_of_none};
use super::signals::Signals;
use super::work::own_name;
use crate::config::Environment;

/// The exit status where another holds the lock: `EX_TEMPFAIL` of `sysexits.h`, on which `tidemill work` tries again.
const LOCKED: u8 = 75;
/// The exit status where the lock was lost before the command had ended, as `timeout` says that it has stopped one.
const LOST: u8 = 124;
/// The exit status where it could not be found out who holds the lock.
const UNDECIDED: u8 = 125;

/// The longest wait. It is more than one request may take: then it is asked for again.
const WAIT_LONGEST: Duration = Duration::from_hours(24);
/// The longest time that a command has to end.
const GRACE_MAX: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  tidemill lock nightly -- ./report                      or exit status 75, where another runs it
  tidemill lock nightly --wait 10m --ttl 1m -- ./report
  tidemill lock writer --guards topic:orders -- \\
    sh -c 'tidemill publish orders 1 --fence \"$TIDEMILL_LOCK=$TIDEMILL_FENCE\"'

The command has the name of the lock in TIDEMILL_LOCK, and in TIDEMILL_FENCE the number that shows
that it holds it: a publish that shows it is refused once another holds the lock.

The lock is renewed while the command runs. Where that fails for two thirds of --ttl, or the lock
is taken away, the command gets SIGTERM, and SIGKILL where that does not end it in time. SIGTERM and
Ctrl-C are passed on to it; a second one kills it. The lock is released when it has ended.

Exit status: that of the command (128 and the signal that has ended it), or 75 another holds the
lock, 124 the lock was lost before the command had ended, 125 no relay could be asked, or it has
refused, 126 the command cannot be run, 127 there is no such command, 2 not understood.";

/// The arguments of `tidemill lock`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Lock {
    /// The lock
    #[arg(value_parser = LockName::parse)]
    name: LockName,

    /// For how long it is held when it is not renewed any more
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = ttl)]
    ttl: Duration,

    /// How long to wait where another holds it, at most a day. Past 30 s it is asked for anew, behind all who wait
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = wait)]
    wait: Duration,

    /// What it guards: there a fence is looked at in the same step in which something is written
    #[arg(long, value_name = "topic:NAME|bucket:NAME", value_parser = Guarded::parse)]
    guards: Option<Guarded>,

    /// Who holds it, as others are told [default: host, process and chance]
    #[arg(long, value_name = "NAME", value_parser = ConsumerName::parse)]
    holder: Option<ConsumerName>,

    #[command(flatten)]
    target: RelayFlags,

    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let [least, most] = TTL;
    let ttl = duration::parse(text).ok().filter(|ttl| (least..=most).contains(ttl));
    ttl.ok_or_else(|| "write a duration from 100 ms to 24 h, as in `30s`".to_owned())
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration::parse(text).ok().filter(|wait| *wait <= WAIT_LONGEST);
    wait.ok_or_else(|| "write a duration of at most 24 h, as in `10s`".to_owned())
}

/// Returns whether a relay has refused with this code.
fn is(error: &ClientError, code: Code) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.code == code)
}

impl Lock {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.live_client(environment, Encoding::Json)?.locks()?;
        let mut signals = Signals::new()?;
        let options = LockOptions {
            ttl: self.ttl,
            wait: self.wait,
            guards: self.guards.clone(),
            ..LockOptions::new(self.holder.clone().unwrap_or_else(own_name))
        };
        let acquired = tokio::select! {
            acquired = client.acquire(&self.name, options) => acquired,
            // Who hangs up has no place in the line any more.
            () = signals.next() => return Err(CliError::Interrupted),
        };
        let lock = match acquired {
            Ok(lock) => lock,
            Err(ClientError::Usage(rule)) => return Err(CliError::Usage(rule)),
            Err(error) => {
                let status = if is(&error, Code::Locked) { LOCKED } else { UNDECIDED };
                let _ = self.target.advised(environment, error.into()).report();
                return Err(CliError::Status(status));
            }
        };
        let ended = self.hold(&lock, &mut signals).await;
        let was_held = lock.is_held();
        let is_kept = match lock.release().await {
            Ok(()) => true,
            // That was told.
            Err(_) if !was_held => false,
            Err(error) if is(&error, Code::LockLost) => {
                eprintln!("the lock {} was lost before the command had ended", self.name);
                false
            }
            Err(error) => {
                eprintln!("the lock {} ends when its time is over: {error}", self.name);
                true
            }
        };
        let status = ended?;
        match if is_kept { status } else { LOST } {
            0 => Ok(()),
            status => Err(CliError::Status(status)),
        }
    }

    /// Runs the command to its end, or to that of the lock, and returns its exit status.
    async fn hold(&self, lock: &tidemill_client::Lock, signals: &mut Signals) -> Result<u8, CliError> {
        let mut child = match self.spawn(lock) {
            Ok(child) => child,
            Err(error) => {
                let program = self.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
                eprintln!("error: cannot run `{program}`: {error}");
                return Ok(status_of_none(&error));
            }
        };
        let mut processes = Processes::of(&child);
        let (mut kill_at, mut is_asked) = (None, false);
        let grace = (self.ttl / 3).min(GRACE_MAX);
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                error = lock.lost(), if kill_at.is_none() => {
                    eprintln!("the lock {} is lost, and the command is stopped: {error}", self.name);
                    processes.signal(Signal::TERM);
                    kill_at = Some(Instant::now() + grace);
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    processes.signal(Signal::KILL);
                    break child.wait().await;
                }
                () = signals.next() => {
                    let is_second = std::mem::replace(&mut is_asked, true);
                    processes.signal(if is_second { Signal::KILL } else { Signal::TERM });
                }
            }
        };
        // What it has left running is its own, as long as nobody else may hold the lock.
        if kill_at.is_none() {
            processes.leave();
        }
        let status =
            status.map_err(|cause| CliError::Failed("the command cannot be waited for", cause.into()));
        Ok(status_of(status?))
    }

    fn spawn(&self, lock: &tidemill_client::Lock) -> std::io::Result<Child> {
        let (program, arguments) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        // Its group is not that of the terminal, which would stop it when it reads there.
        let stdin = if std::io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("TIDEMILL_LOCK", self.name.as_str())
            .env("TIDEMILL_FENCE", lock.fence().to_string())
            .process_group(0)
            .stdin(stdin);
        command.spawn()
    }
}
