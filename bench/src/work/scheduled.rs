//! What messages cost that wait for a day: the processor of a node that has nothing else to do, and the time of others'
//! publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{FILL, Work};
use crate::error::BenchError;
use crate::load::{Load, SETTLE};
use crate::mark::Topics;
use crate::measure::{Meter, Window};
use crate::progress::busy;
use crate::report::{Row, Run};

/// For how long the messages wait.
const WAIT: Duration = Duration::from_hours(24);
/// Publishes a second, before the messages are there and when they are.
const RATE: f64 = 1_000.0;

impl Work {
    /// Publishes at a rate, schedules so many messages, looks at what that costs an idle node, and publishes again.
    pub(super) async fn schedule(&self, load: &Load, count: u64) -> Result<Run, BenchError> {
        let topics = Topics::of_run(1);
        load.create(&topics).await?;
        let mut run = Run::new("work", load, self);
        run.rows.push(self.paced(load, &topics, "published, nothing waits").await?);

        let delayed = Work { delay: Some(WAIT), ..self.clone() };
        let batch = FILL.min(usize::try_from(count).unwrap_or(FILL));
        let filling = busy("scheduling");
        delayed.send(load, &topics, batch, count).await?;
        drop(filling);
        sleep(SETTLE).await;
        let before = load.processes.snapshot();
        let resting = busy("idle");
        sleep(load.duration).await;
        drop(resting);
        let usage = load.processes.snapshot().since(before);
        let now = Instant::now();
        let window = Window { from: now, until: now, paced: false };
        let mut idle =
            Row::of(format!("{count} scheduled, idle"), "messages", &Meter::new(window, None), usage);
        idle.cpu_seconds_per_million = None;
        for (name, seconds) in
            [("relay_cpu_percent", usage.cpu.relay), ("server_cpu_percent", usage.cpu.server)]
        {
            if let Some(seconds) = seconds {
                idle.fact(name, seconds * 100.0 / load.duration.as_secs_f64());
            }
        }
        run.rows.push(idle);

        let what = format!("published, {count} wait");
        run.rows.push(self.paced(load, &topics, &what).await?);
        Ok(run)
    }

    /// Publishes at a rate, and measures how long each takes.
    async fn paced(&self, load: &Load, topics: &Topics, what: &str) -> Result<Row, BenchError> {
        let window = load.window(true);
        let meter = Arc::new(Meter::new(window, None));
        let mut tasks = JoinSet::new();
        for (sender, schedule) in self.paced_senders(load, topics, window, RATE).await? {
            let meter = Arc::clone(&meter);
            tasks.spawn(async move {
                sender.run(&meter, Some(schedule)).await;
            });
        }
        let usage = load.drive(what, &meter, tasks).await;
        Ok(Row::of(what.to_owned(), "messages", &meter, usage))
    }
}
