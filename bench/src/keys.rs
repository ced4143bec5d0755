//! Scenario `keys`: how many operations on keys, limits and locks a second, and how long each takes.

use std::sync::Arc;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::BenchError;
use crate::flags::rate;
use crate::load::{GRACE, Load};
use crate::mark::{PUBLISHERS_MAX, Topics};
use crate::measure::Meter;
use crate::pace::{self, Schedule};
use crate::publish::word;
use crate::report::{Row, Run};
use crate::sender::{FAILURES_MAX, PAUSE, tell_unsent};
use crate::target::Kind;

mod client;
mod handover;
mod operation;

use client::Client;
use operation::Operation;

const EXAMPLES: &str = "\
Examples:
  tidemill bench keys                                  put keys, 50 connections
  tidemill bench keys --workload get
  tidemill bench keys --workload session --rate 5000   at a fixed rate, stalls included
  tidemill bench keys --workload lock --connections 100
  tidemill bench keys --workload session --url redis://127.0.0.1:6379     a bare server
  tidemill bench fanout --keys --transport sse         what is put, to many who watch

To a bare server go the commands that do the same without a relay: SET, GET, INCR, GETEX.";

/// Largest value in bytes.
const VALUE_BYTES_MAX: u64 = 1024 * 1024;
/// Most keys of a run.
const KEYS_MAX: u64 = 10_000_000;
/// Connections that put the keys before a run.
const FILLERS: u64 = 16;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Put keys
    Put,
    /// Read keys
    Get,
    /// Count, each connection on any of the keys
    Increment,
    /// Take of limits that allow everything
    Take,
    /// As many puts as reads
    Basic,
    /// State of workflows: a put with a day to live, read back at once
    Checkpoint,
    /// Sessions of people: nine reads that have the key live on, and one put with half an hour to live
    Session,
    /// One lock that all connections want: from its release to the next who holds it
    Lock,
}

/// The arguments of `tidemill bench keys`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Keys {
    /// What is done
    #[arg(long, value_enum, default_value = "put")]
    workload: Workload,

    /// Connections; with lock, those who want it
    #[arg(long, short, value_name = "COUNT", default_value_t = 50)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    connections: usize,

    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=VALUE_BYTES_MAX))]
    value_bytes: usize,

    /// How many keys there are
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,

    /// Operations a second over all connections, measured from when each was due; as fast as they are answered where none
    /// is given
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// End after this many operations
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    operations: Option<u64>,
}

impl Keys {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        if load.target.kind == Kind::Plain {
            return Err(BenchError::Usage("a server that is no relay has no keys".to_owned()));
        }
        if self.workload == Workload::Lock && (load.target.kind == Kind::Server || self.rate.is_some()) {
            let rule = "--workload lock is for relays, without --rate: its pace is that of the lock";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        let bucket = Topics::of_run(1).name(0);
        load.own_bucket(&bucket, self.keys);
        let mut run = Run::new("keys", load, self);
        run.rows.push(match self.workload {
            Workload::Lock => handover::run(load, &bucket, self.connections, self.operations).await?,
            _ => self.load_with_operations(load, &bucket).await?,
        });
        Ok(run)
    }

    async fn load_with_operations(&self, load: &Load, bucket: &str) -> Result<Row, BenchError> {
        self.fill(load, bucket).await?;
        let mut clients = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let client = Client::open(&load.target, &load.headers, bucket, self.value_bytes).await;
            clients.push(client.map_err(|why| load.unreachable(why))?);
        }
        let meter = Arc::new(Meter::new(load.window(self.rate.is_some()), self.operations));
        let mut schedules = Vec::new();
        if let Some(rate) = self.rate {
            let start = meter.window.from - load.warm_up;
            let (paced, ticker) = pace::schedules(start, meter.window.until, rate, self.connections);
            ticker.start();
            schedules = paced;
        }
        let mut schedules = schedules.into_iter();
        let mut tasks = JoinSet::new();
        for (number, client) in (0..).zip(clients) {
            let (meter, schedule) = (Arc::clone(&meter), schedules.next());
            let row = operation::Row::new(self.workload, self.keys, number);
            tasks.spawn(async move { work(client, row, &meter, schedule).await });
        }
        let usage = load.drive("keys", &meter, tasks).await;
        let name = format!("{}, {} connections", word(&self.workload), self.connections);
        Ok(Row::of(name, "operations", &meter, usage))
    }

    /// Puts every key that is read before anybody has put it.
    async fn fill(&self, load: &Load, bucket: &str) -> Result<(), BenchError> {
        if !matches!(self.workload, Workload::Get | Workload::Basic | Workload::Session) {
            return Ok(());
        }
        let mut tasks = JoinSet::new();
        for first in 0..FILLERS.min(self.keys) {
            let (load, bucket, keys, bytes) = (load.clone(), bucket.to_owned(), self.keys, self.value_bytes);
            tasks.spawn(async move {
                let mut client = Client::open(&load.target, &load.headers, &bucket, bytes).await?;
                for key in (first..keys).step_by(usize::try_from(FILLERS).unwrap_or(1)) {
                    client.run(&Operation::Put { key, ttl: None }).await?;
                }
                Ok::<_, String>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or_else(|_| Err("the load generator is broken".to_owned()));
            done.map_err(|why| load.unreachable(why))?;
        }
        Ok(())
    }
}

/// Does one operation after the other until the meter or the schedule ends.
async fn work(mut client: Client, mut row: operation::Row, meter: &Meter, mut schedule: Option<Schedule>) {
    let deadline = meter.window.until + GRACE;
    let working = async {
        let mut failures = 0;
        loop {
            let at = match &mut schedule {
                Some(schedule) => match schedule.due().await {
                    Some(at) => at,
                    None => return true,
                },
                None => Instant::now(),
            };
            if !meter.goes_on(at, 1) {
                return true;
            }
            match client.run(&row.next()).await {
                Ok(()) => {
                    failures = 0;
                    meter.record(at, Instant::now(), 1);
                }
                Err(why) => {
                    meter.failed(&why);
                    failures += 1;
                    if failures == FAILURES_MAX {
                        meter.failed("a connection gave up");
                        return false;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    };
    let is_done = timeout_at(deadline, working).await;
    if is_done.is_err() {
        meter.failed("no answer when the run ended");
    }
    if is_done != Ok(true) {
        tell_unsent(meter, schedule.as_ref());
    }
}
