//! Scenario `idle`: how much memory of the relay a subscriber takes that gets nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::BenchError;
use crate::live;
use crate::load::{CONNECTIONS_MAX, GRACE, Load, SETTLE};
use crate::measure::{Meter, Window};
use crate::process::resident_bytes;
use crate::progress::busy;
use crate::publish::{Messages, word};
use crate::reader::Transport;
use crate::report::{Order, Row, Run};
use crate::sender::{Extra, Mode, Sender, Shape};

const EXAMPLES: &str = "\
Examples:
  tidemill bench idle --subscribers 10000
  tidemill bench idle --subscribers 10000 --transport sse --duration 30s

The resident memory of the relay's process is read before the subscribers come and, after they have
been idle for the duration, again. Then one message is published, which each of them must get.";

/// The fact that the scenario is about.
pub(crate) const BYTES: &str = "bytes_per_subscriber";

/// The arguments of `tidemill bench idle`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Idle {
    /// Subscribers
    #[arg(long, short, value_name = "COUNT", default_value_t = 1_000)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONNECTIONS_MAX))]
    subscribers: usize,

    /// How subscribers read
    #[arg(long, value_enum, default_value = "ws")]
    transport: Transport,

    #[command(flatten)]
    #[serde(flatten)]
    each: Messages,
}

impl Idle {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        let Some(pid) = load.processes.relay else {
            let rule = "the process that listens there is not seen; name it with --pid";
            return Err(BenchError::Usage(rule.to_owned()));
        };
        let cannot = || load.unreachable(format!("the memory of process {pid} cannot be read"));
        if load.open_files_max.is_some_and(|files| files < self.subscribers as u64 + 64) {
            let rule = "this process may not open so many connections; raise the limit (ulimit -Hn)";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        let topics = self.each.topics(1);
        load.create(&topics).await?;
        let shape = Shape {
            mode: Mode::Http,
            batch: 1,
            payload_bytes: self.each.payload_bytes,
            topics: topics.clone(),
            keep: self.each.keep,
            extra: Extra::default(),
        };
        let sender = Sender::open(&load.target, &load.headers, &shape, 0).await;
        let sender = sender.map_err(|why| load.unreachable(why))?;
        load.own(&topics);
        sleep(SETTLE).await;
        let before = resident_bytes(pid).ok_or_else(cannot)?;
        let subscribed = vec![vec![topics.name(0)]; self.subscribers];
        let readers = live::readers(load, self.transport, subscribed).await?;
        let busy = busy("idle");
        sleep(load.duration).await;
        drop(busy);
        let after = resident_bytes(pid).ok_or_else(cannot)?;

        let now = Instant::now();
        let window = Window { from: now, until: now + GRACE, paced: false };
        // Nothing more may start: the rate is that from the publish to the last delivery.
        let meter = Arc::new(Meter::new(window, Some(0)));
        let got = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for mut reader in readers {
            let (meter, got) = (Arc::clone(&meter), Arc::clone(&got));
            tasks.spawn(async move {
                let mut any = false;
                while !any {
                    match timeout_at(meter.window.until, reader.next(|_| any = true)).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(why)) => return meter.failed(&why),
                        Err(_) => return,
                    }
                }
                got.fetch_add(1, Ordering::Relaxed);
                meter.record(now, Instant::now(), 1);
            });
        }
        let publish = Arc::new(Meter::new(window, Some(1)));
        sender.run(&publish, None).await;
        let usage = load.drive("idle", &meter, tasks).await;

        let name = format!("{} idle subscribers, {}", self.subscribers, word(&self.transport));
        let mut row = Row::of(name, "deliveries", &meter, usage);
        // A single message has no price.
        row.cpu_seconds_per_million = None;
        for (what, times) in publish.measured().errors.0 {
            row.errors.add(&what, times);
        }
        let lost = self.subscribers.saturating_sub(got.load(Ordering::Relaxed)) as u64;
        row.order = Some(Order { lost, ..Order::default() });
        match after.saturating_sub(before) / self.subscribers as u64 {
            // A figure of zero would say that they cost nothing.
            0 => row
                .fact("memory", "did not grow: the process had some free; measure one that was just started"),
            bytes => row.fact(BYTES, bytes),
        }
        row.fact("resident_bytes_before", before);
        row.fact("resident_bytes_after", after);
        let mut run = Run::new("idle", load, self);
        run.rows.push(row);
        Ok(run)
    }
}
