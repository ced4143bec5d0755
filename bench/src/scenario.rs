//! The scenarios, as commands, and what each run of one has in common: it leaves no topic behind, however
//! it ends.

use tokio::time::sleep;

use crate::error::BenchError;
use crate::load::{Load, SETTLE};
use crate::report::Run;
use crate::{fanout, idle, keys, page, publish, topics, work};

/// A scenario.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Scenario {
    /// Publish as fast as connections can, or at a fixed rate
    Publish(publish::Publish),
    /// Deliver every message to many subscribers
    Fanout(fanout::Fanout),
    /// Publish at a fixed rate, and measure the time to the receipt
    Latency(fanout::Latency),
    /// Read pages at several depths of a topic
    Page(page::Page),
    /// Measure the memory of the relay for subscribers that get nothing
    Idle(idle::Idle),
    /// Measure how latency grows with the number of live topics
    Topics(topics::Topics),
    /// Put, read and count keys, take of limits, hand over locks
    Keys(keys::Keys),
    /// Claim and acknowledge the messages of a topic
    Work(work::Work),
}

impl Scenario {
    /// Runs the scenario, and leaves no topic behind, however it ends.
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        let stop = || async { drop(tokio::signal::ctrl_c().await) };
        let outcome = tokio::select! {
            outcome = Box::pin(self.measure(load)) => outcome,
            () = stop() => Err(BenchError::Interrupted),
        };
        let clean = async {
            if !outcome.as_ref().is_ok_and(Run::is_clean) {
                // A publish that is still under way would make its topic again.
                sleep(SETTLE).await;
            }
            load.clean().await;
        };
        tokio::select! {
            () = clean => {}
            () = stop() => load.tell_left("interrupted"),
        }
        outcome
    }

    async fn measure(&self, load: &Load) -> Result<Run, BenchError> {
        match self {
            Self::Publish(publish) => publish.run(load).await,
            Self::Fanout(fanout) => fanout.run(load).await,
            Self::Latency(latency) => latency.run(load).await,
            Self::Page(page) => page.run(load).await,
            Self::Idle(idle) => idle.run(load).await,
            Self::Topics(topics) => topics.run(load).await,
            Self::Keys(keys) => keys.run(load).await,
            Self::Work(work) => work.run(load).await,
        }
    }
}
