//! Scenario `publish`: how many messages a second are accepted, and how long each takes.

use std::sync::Arc;

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tidemill_proto::TopicName;
use tidemill_proto::limits::BULK_MESSAGES_MAX;
use tokio::task::JoinSet;

use crate::error::BenchError;
use crate::flags::rate;
use crate::load::Load;
use crate::mark::{PAYLOAD_BYTES_MIN, PUBLISHERS_MAX, TOPICS_MAX, Topics};
use crate::measure::Meter;
use crate::report::{Row, Run};
use crate::sender::{Extra, Mode, Shape};
use crate::{live, pace};

const EXAMPLES: &str = "\
Examples:
  tidemill bench publish                                    one message a request, 50 connections
  tidemill bench publish --connections 1                    the latency of one at a time
  tidemill bench publish --mode ndjson --batch 1000 --connections 4
  tidemill bench publish --mode ws --window 1024 --connections 1
  tidemill bench publish --rate 5000                        at a fixed rate, stalls included
  tidemill bench publish --mode bulk --batch 128 --url redis://127.0.0.1:6379";

/// Largest payload in bytes.
const PAYLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a message is, and where it goes.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub(crate) struct Messages {
    /// Bytes of each payload
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX))]
    pub(crate) payload_bytes: usize,

    /// The topic; one that is made for the run and deleted after it, where none is named
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<TopicName>,

    /// To a bare server: keep about this many messages of each topic, as a relay would
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keep: u64,
}

impl Messages {
    /// Returns the topics of a run.
    pub(crate) fn topics(&self, count: u32) -> Topics {
        match &self.topic {
            Some(topic) => Topics::new(topic.as_str().to_owned(), count),
            None => Topics::of_run(count),
        }
    }
}

/// The arguments of `tidemill bench publish`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Publish {
    /// How messages are sent
    #[arg(long, value_enum, default_value = "http")]
    mode: Mode,

    /// Connections
    #[arg(long, short, value_name = "COUNT", default_value_t = 50)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    connections: usize,

    /// Messages in a request, with bulk and ndjson
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=BULK_MESSAGES_MAX as u64))]
    batch: usize,

    /// Messages of a connection that may wait for their answers, with ws and ws-binary
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    window: usize,

    /// Requests a second over all connections, measured from when each was due; as fast as they are
    /// answered where none is given
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// Give each message an idempotency key of its own, with http and bulk
    #[arg(long)]
    keyed: bool,

    /// End after this many messages
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,

    /// Spread the messages over this many topics
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(TOPICS_MAX)))]
    topics: u32,

    #[command(flatten)]
    #[serde(flatten)]
    each: Messages,
}

impl Publish {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        if self.keyed && !matches!(self.mode, Mode::Http | Mode::Bulk) {
            return Err(BenchError::Usage("--keyed goes with --mode http and bulk".to_owned()));
        }
        let topics = self.each.topics(self.topics);
        let shape = Shape {
            mode: self.mode,
            batch: self.batch,
            payload_bytes: self.each.payload_bytes,
            topics: topics.clone(),
            keep: self.each.keep,
            extra: Extra { keyed: self.keyed, ..Extra::default() },
        };
        let publishers = live::publishers(load, &shape, self.window, self.connections).await?;
        let meter = Arc::new(Meter::new(load.window(self.rate.is_some()), self.messages));
        let mut schedules = self.schedules(load, &meter).into_iter();
        let mut tasks = JoinSet::new();
        for publisher in publishers {
            let (meter, schedule) = (Arc::clone(&meter), schedules.next());
            tasks.spawn(async move {
                publisher.run(&meter, schedule).await;
            });
        }
        let usage = load.drive("publish", &meter, tasks).await;
        let name = format!("publish {}, {} connections", word(&self.mode), self.connections);
        let mut run = Run::new("publish", load, self);
        run.rows.push(Row::of(name, "messages", &meter, usage));
        Ok(run)
    }

    fn schedules(&self, load: &Load, meter: &Meter) -> Vec<pace::Schedule> {
        let start = meter.window.from - load.warm_up;
        let Some(rate) = self.rate else { return Vec::new() };
        let (schedules, ticker) = pace::schedules(start, meter.window.until, rate, self.connections);
        ticker.start();
        schedules
    }
}

/// Returns the word for a mode, as on the command line.
pub(crate) fn word(mode: &impl clap::ValueEnum) -> String {
    mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
