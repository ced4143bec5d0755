//! Scenario `topics`: how the latency of publishing grows with the number of live topics.

use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use crate::error::BenchError;
use crate::flags::rate;
use crate::live::{self, Live};
use crate::load::Load;
use crate::mark::{PUBLISHERS_MAX, TOPICS_MAX};
use crate::publish::Messages;
use crate::reader::Transport;
use crate::report::Run;
use crate::sender::{Extra, Mode, Shape};
use crate::target::Kind;

const EXAMPLES: &str = "\
Examples:
  tidemill bench topics
  tidemill bench topics --counts 10,100000 --rate 1000

Each topic has one subscriber; the subscriptions share connections. Messages go to any of the
topics.";

/// Most topics of one connection, and of one request.
const PER_CONNECTION_MAX: u64 = 100_000;

/// The arguments of `tidemill bench topics`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Topics {
    /// How many topics, one run for each
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "10,100,1000,10000,100000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(TOPICS_MAX)))]
    counts: Vec<u32>,

    /// Messages a second over all connections
    #[arg(long, value_name = "PER_SECOND", default_value = "1000", value_parser = rate)]
    rate: f64,

    /// Connections that publish
    #[arg(long, short, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    connections: usize,

    /// Topics that one connection subscribes to
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PER_CONNECTION_MAX))]
    per_connection: usize,

    /// How subscribers read
    #[arg(long, value_enum, default_value = "ws")]
    transport: Transport,

    #[command(flatten)]
    #[serde(flatten)]
    each: Messages,
}

impl Topics {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        if load.target.kind != Kind::Relay {
            let rule = "only a relay has topics that are subscribed to together; name one, http://host:port";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        let mut run = Run::new("topics", load, self);
        for count in &self.counts {
            let topics = self.each.topics(*count);
            load.create(&topics).await?;
            let shape = Shape {
                mode: Mode::Http,
                batch: 1,
                payload_bytes: self.each.payload_bytes,
                topics: topics.clone(),
                keep: self.each.keep,
                extra: Extra::default(),
            };
            let names: Vec<String> = topics.names().collect();
            let subscribed = names.chunks(self.per_connection).map(<[String]>::to_vec).collect();
            let live = Live {
                readers: live::readers(load, self.transport, subscribed).await?,
                publishers: live::publishers(load, &shape, 1, self.connections).await?,
                ordered: false,
                rate: Some(self.rate),
                messages: None,
                awake: false,
            };
            let outcome = live.run(&format!("{count} topics"), load).await;
            let [received, published] =
                ["publish to receipt", "publish to answer"].map(|what| format!("{count} topics, {what}"));
            run.rows.extend(outcome.rows(received, published));
            load.clean().await;
        }
        Ok(run)
    }
}
