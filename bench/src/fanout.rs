//! Scenarios `fanout` and `latency`: messages of one topic to subscribers, as fast as they can be
//! published, or at a fixed rate.

use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use crate::error::BenchError;
use crate::flags::rate;
use crate::live::{self, Live};
use crate::load::{CONNECTIONS_MAX, Load};
use crate::mark::{PUBLISHERS_MAX, Topics};
use crate::process::cores;
use crate::publish::{Messages, word};
use crate::reader::{BUCKET, Transport};
use crate::report::Run;
use crate::sender::{Extra, Mode, Shape};
use crate::target::Kind;

const FANOUT_EXAMPLES: &str = "\
Examples:
  tidemill bench fanout --subscribers 100 --connections 4
  tidemill bench fanout --subscribers 1000 --transport sse
  tidemill bench fanout --keys --transport sse              what is put, to many who watch
  tidemill bench fanout --url redis://127.0.0.1:6379        XREAD BLOCK, on a bare server

Every subscriber must get every message once and in order; what is lost, repeated or out of order is
told, and the exit status is then 1.";

const LATENCY_EXAMPLES: &str = "\
Examples:
  tidemill bench latency --rate 200 --subscribers 100
  tidemill bench latency --rate 5000 --transport ndjson

Times start when a message was to be sent, not when it was: what waits behind a stall has waited
too.";

/// The arguments of `tidemill bench fanout`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = FANOUT_EXAMPLES)]
pub(crate) struct Fanout {
    /// Subscribers
    #[arg(long, short, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONNECTIONS_MAX))]
    subscribers: usize,

    /// Connections that publish
    #[arg(long, short, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    connections: usize,

    /// Messages a second over all connections; as fast as they are answered where none is given
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// End after this many messages
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,

    #[command(flatten)]
    #[serde(flatten)]
    how: How,
}

/// The arguments of `tidemill bench latency`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = LATENCY_EXAMPLES)]
pub(crate) struct Latency {
    /// Messages a second over all connections
    #[arg(long, value_name = "PER_SECOND", default_value = "200", value_parser = rate)]
    rate: f64,

    /// Subscribers
    #[arg(long, short, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONNECTIONS_MAX))]
    subscribers: usize,

    /// Connections that publish
    #[arg(long, short, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    connections: usize,

    /// Let the threads of the load sleep between messages; receipts then carry the time of waking them.
    /// Without this they stay awake, where there are more processors than threads
    #[arg(long)]
    sleep: bool,

    #[command(flatten)]
    #[serde(flatten)]
    how: How,
}

/// How messages travel.
#[derive(Clone, Debug, clap::Args, Serialize)]
struct How {
    /// How subscribers read; from a bare server it is always XREAD
    #[arg(long, value_enum, default_value = "ws")]
    transport: Transport,

    /// How messages are published
    #[arg(long, value_enum, default_value = "http")]
    mode: Mode,

    /// Messages in a request, with bulk and ndjson
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    batch: usize,

    /// Messages of a connection that may wait for their answers, with ws and ws-binary
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    window: usize,

    /// Put what is sent as a key of a bucket that the subscribers watch, with http, and sse or ndjson
    #[arg(long)]
    keys: bool,

    #[command(flatten)]
    #[serde(flatten)]
    each: Messages,
}

/// How many of each, how fast.
struct Size {
    subscribers: usize,
    connections: usize,
    rate: Option<f64>,
    messages: Option<u64>,
    awake: bool,
}

impl Fanout {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        let mut run = Run::new("fanout", load, self);
        let Self { subscribers, connections, rate, messages, .. } = *self;
        let names = [
            format!("{subscribers} subscribers, {}", word(&self.how.transport)),
            format!("publish {}, {connections} connections", word(&self.how.mode)),
        ];
        let size = Size { subscribers, connections, rate, messages, awake: false };
        self.how.run(load, "fanout", &size, names, &mut run).await?;
        Ok(run)
    }
}

impl Latency {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        let mut run = Run::new("latency", load, self);
        let Self { subscribers, connections, rate, .. } = *self;
        let awake = !self.sleep && load.threads < cores();
        let size = Size { subscribers, connections, rate: Some(rate), messages: None, awake };
        let names = [
            format!("publish to receipt, {}", word(&self.how.transport)),
            format!("publish to answer, {}", word(&self.how.mode)),
        ];
        self.how.run(load, "latency", &size, names, &mut run).await?;
        Ok(run)
    }
}

impl How {
    async fn run(
        &self,
        load: &Load,
        what: &str,
        size: &Size,
        [received, published]: [String; 2],
        run: &mut Run,
    ) -> Result<(), BenchError> {
        let is_lines = matches!(self.transport, Transport::Sse | Transport::Ndjson);
        if self.keys && !(self.mode == Mode::Http && is_lines && load.target.kind == Kind::Relay) {
            let rule = "--keys goes with --mode http and --transport sse or ndjson, to a relay";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        // Nobody's topic: it is deleted as a bucket.
        let topics = if self.keys { Topics::new(Topics::of_run(1).name(0), 1) } else { self.each.topics(1) };
        if self.keys {
            load.create_bucket(&topics.name(0)).await?;
        } else {
            load.create(&topics).await?;
        }
        let shape = Shape {
            mode: self.mode,
            batch: self.batch,
            payload_bytes: self.each.payload_bytes,
            topics: topics.clone(),
            keep: self.each.keep,
            extra: Extra { put: self.keys, ..Extra::default() },
        };
        let messages = u32::try_from(shape.messages()).map_or(1.0, f64::from);
        let place = if self.keys { format!("{BUCKET}{}", topics.name(0)) } else { topics.name(0) };
        let subscribed = vec![vec![place]; size.subscribers];
        let live = Live {
            readers: live::readers(load, self.transport, subscribed).await?,
            publishers: live::publishers(load, &shape, self.window, size.connections).await?,
            ordered: true,
            // A request may have several messages.
            rate: size.rate.map(|rate| rate / messages),
            messages: size.messages,
            awake: size.awake,
        };
        run.rows.extend(live.run(what, load).await.rows(received, published));
        Ok(())
    }
}
