//! `tidemill work`: runs a command for each message of a group.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::Duration;

use tidemill_client::{
    CONCURRENCY_MAX, ClientError, Encoding, Refusal, Stopper, WorkClient, Worker, WorkerOptions,
};
use tidemill_proto::work::{ConsumerName, GroupName, GroupUpdate};
use tidemill_proto::{Code, TopicName};

use super::CliError;
use super::client::RelayFlags;
use super::groups::absent;
use super::points::count;
use super::signals::Signals;
use crate::chance::random;
use crate::config::Environment;

mod command;
mod log;

use command::Runner;
use log::Log;

const EXAMPLES: &str = "\
Examples:
  tidemill work jobs --group workers -- ./resize          one at a time
  tidemill work jobs -g workers --concurrency 8 --create -- sh -c 'jq .url | xargs curl -sfO'
  tidemill work jobs -g sums --result -- jq -c '{sum: add}'
  tidemill work jobs -g workers --once -- cat             the next message, and no more

The command gets the payload on its standard input, and in its environment TIDEMILL_MESSAGE_ID,
TIDEMILL_DELIVERY (1, 2, …), TIDEMILL_TOPIC, TIDEMILL_GROUP, TIDEMILL_CONTENT_TYPE,
TIDEMILL_TIMESTAMP and, where the message has some, TIDEMILL_METADATA (JSON) and
TIDEMILL_ORDER_KEY. Where the topic was cancelled, TIDEMILL_CANCELLED says why. TRACEPARENT and
TRACESTATE are those of the message, where its publisher is traced.

How it ends is what becomes of the message: with status 0 it is done; with 65 it is a dead letter;
with 75, any other status, or a signal it has failed and comes again, with the last line of
standard error as the error. A message is kept for as long as the command runs, at most for the
`max_run` of the group: then the command gets SIGTERM, and SIGKILL where that does not end it.

SIGTERM or Ctrl-C ends it when what runs has ended; a second one ends it at once, and gives back
what it was working on.";

const _: () = assert!(CONCURRENCY_MAX == 1_000, "the flag says so");

/// How long a worker that was told to end at once may take.
const GOOD_BYE: Duration = Duration::from_secs(10);

/// The arguments of `tidemill work`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Work {
    /// The topic
    topic: TopicName,

    /// The group
    #[arg(long, short, value_name = "GROUP", value_parser = GroupName::parse)]
    group: GroupName,

    /// Most commands that run at a time
    #[arg(long, short, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,

    /// Who claims; each process has a name of its own [default: host, process and chance]
    #[arg(long, value_name = "NAME", value_parser = ConsumerName::parse)]
    consumer: Option<ConsumerName>,

    /// Keep the standard output of the command as the result: JSON as it is, other text as a JSON string, at most
    /// 64 KiB
    #[arg(long)]
    result: bool,

    /// Make the group if it is not there, with the settings of a new one
    #[arg(long)]
    create: bool,

    /// End after one message
    #[arg(long, conflicts_with = "max_jobs")]
    once: bool,

    /// End after so many messages; the exit status is 1 if not all of them are done
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = count)]
    max_jobs: Option<u64>,

    /// Print no line for each message
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    target: RelayFlags,

    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Work {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let result = self.work(environment).await;
        result.map_err(|error| self.target.advised(environment, error))
    }

    async fn work(&self, environment: &Environment) -> Result<(), CliError> {
        let mut signals = Signals::new()?;
        let client = self.target.live_client(environment, Encoding::Json)?.work()?;
        let worker = tokio::select! {
            worker = self.worker(&client) => worker?,
            () = signals.next() => return Ok(()),
        };
        let log = Log::new(self.quiet, std::io::stderr().is_terminal());
        let runner = Runner {
            command: &self.command,
            topic: &self.topic,
            group: &self.group,
            keeps_result: self.result,
            log: &log,
            max_run: worker.max_run(),
            unusable: RefCell::new(None),
            stopper: worker.stopper(),
        };
        let stopper = worker.stopper();
        let working = worker.run(|job| runner.run(job), |event| log.event(&event));
        let ended = tokio::select! {
            ended = working => ended,
            () = stop(&mut signals, &stopper, &log) => Ok(()),
        };
        log.end();
        if let Some(error) = runner.unusable.take() {
            let command = self.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            return Err(CliError::Usage(format!("cannot run `{command}`: {error}; nothing was done")));
        }
        ended?;
        let is_counted = self.once || self.max_jobs.is_some();
        if is_counted && !log.is_all_done() { Err(CliError::Told) } else { Ok(()) }
    }

    async fn worker(&self, client: &WorkClient) -> Result<Worker, CliError> {
        let options = WorkerOptions {
            concurrency: usize::from(self.concurrency),
            jobs_max: if self.once { Some(1) } else { self.max_jobs },
            ..WorkerOptions::default()
        };
        let consumer = self.consumer.clone().unwrap_or_else(own_name);
        let begin =
            async || client.worker(self.topic.clone(), self.group.clone(), consumer.clone(), options).await;
        let refusal = match begin().await {
            Err(ClientError::Refused(refusal)) if is_absent(&refusal) => refusal,
            other => return Ok(other?),
        };
        if self.create {
            client.put_group(&self.topic, &self.group, &GroupUpdate::default()).await?;
            return Ok(begin().await?);
        }
        let message = format!("{}; or add --create", absent(&self.topic, &self.group));
        Err(ClientError::Refused(Refusal { message, ..refusal }).into())
    }
}

fn is_absent(refusal: &Refusal) -> bool {
    matches!(refusal.code, Code::GroupNotFound | Code::TopicNotFound)
}

/// Has the worker end as the signals say, and returns where it takes too long for the second one.
async fn stop(signals: &mut Signals, stopper: &Stopper, log: &Log) {
    signals.next().await;
    if log.is_running() {
        log.tell("ending: waiting for what runs; a second signal ends it at once");
    }
    stopper.drain();
    signals.next().await;
    stopper.release();
    tokio::time::sleep(GOOD_BYE).await;
}

/// Returns a name that no other process has.
pub(super) fn own_name() -> ConsumerName {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect();
    let name = format!("{host}-{}-{:04x}", std::process::id(), random() & 0xffff);
    ConsumerName::parse(&name).expect("it has characters of a name alone, and fewer than it may")
}
