//! Scenario `work`: how fast workers claim and acknowledge the messages of a topic, each of which is looked at.
//!
//! | file | owns |
//! |---|---|
//! | `tally` | which messages were acknowledged, and how long each took |
//! | `requests` | a worker over HTTP |
//! | `frames` | a worker over a WebSocket |
//! | `scheduled` | messages that wait for a day |

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::BenchError;
use crate::flags::{rate, time};
use crate::http;
use crate::load::{GRACE, Load};
use crate::mark::{PAYLOAD_BYTES_MIN, PUBLISHERS_MAX, Topics};
use crate::measure::{Meter, Window};
use crate::pace::{self, Schedule};
use crate::report::{Order, Row, Run};
use crate::sender::{Extra, Mode, Sender, Shape};
use crate::target::{Kind, Target};
use tally::Tally;

mod frames;
mod requests;
mod scheduled;
mod tally;

const EXAMPLES: &str = "\
Examples:
  tidemill bench work                                      50 workers, one message at a time
  tidemill bench work --batch 100 --workers 4              batches of 100
  tidemill bench work --batch 100 --workers 4 --transport ws-binary
  tidemill bench work --rate 2000                          how long messages wait for a worker
  tidemill bench work --rate 2000 --delay 5s               how late delayed messages are
  tidemill bench work --lose 10000                         how late comes back what a lost one had
  tidemill bench work --scheduled 1000000                  what messages cost that wait for a day
  tidemill bench work --ack-url http://127.0.0.1:8081      acknowledge at another node";

/// The group of a run.
const GROUP: &str = "bench";
/// Messages of a request with which the topic is filled.
const FILL: usize = 1_000;
/// How long filling may take.
const FILL_MAX: Duration = Duration::from_mins(5);
/// Connections that publish at a rate.
const PUBLISHERS: u32 = 8;

/// For how long a worker has messages that is lost with them.
const LOST_FOR: Duration = Duration::from_secs(2);

/// How workers are given messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    /// A claim and an acknowledgement, one request each
    Http,
    /// Frames of JSON over a WebSocket
    Ws,
    /// Binary frames over a WebSocket
    WsBinary,
}

/// The arguments of `tidemill bench work`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Work {
    /// Workers, each with a connection of its own
    #[arg(long, short, value_name = "COUNT", default_value_t = 50)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    workers: usize,

    /// Messages of a claim and of its acknowledgement; over a WebSocket a worker has as many again on their way
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=500))]
    batch: usize,

    /// How workers are given messages
    #[arg(long, value_enum, default_value = "http")]
    transport: Transport,

    /// Messages that the topic is filled with first
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,

    /// Publish so many messages a second while the workers work, in place of filling the topic; what is measured is how
    /// long each message takes to a worker
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "messages")]
    rate: Option<f64>,

    /// Publish them for so much later; what is measured is how late each message comes
    #[arg(long, value_name = "TIME", requires = "rate", value_parser = time)]
    delay: Option<Duration>,

    /// Have each message fail once: it is acknowledged at its second delivery
    #[arg(long, conflicts_with = "rate")]
    fail_once: bool,

    /// Have a worker that is lost claim so many messages first, for two seconds; what is measured is how late each comes
    /// back
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["rate", "fail_once"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    lose: Option<u64>,

    /// Work on nothing: schedule so many messages, and measure what they cost an idle node, and publishes beside them
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["rate", "fail_once", "messages", "ack_url", "lose"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    scheduled: Option<u64>,

    /// Acknowledge at another node
    #[arg(long, value_name = "URL")]
    ack_url: Option<String>,

    /// Bytes of each payload
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(PAYLOAD_BYTES_MIN as u64..=1_000_000))]
    payload_bytes: usize,
}

/// What a worker knows.
#[derive(Clone, Debug)]
struct Task {
    target: Target,
    /// Where it acknowledges.
    acks: Target,
    headers: String,
    topic: String,
    batch: usize,
    fails_once: bool,
    tally: Arc<Tally>,
}

impl Work {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        if load.target.kind != Kind::Relay {
            return Err(load.unreachable("only a relay gives work".to_owned()));
        }
        if let Some(count) = self.scheduled {
            return self.schedule(load, count).await;
        }
        let acks = match &self.ack_url {
            None => load.target.clone(),
            Some(url) => Target::parse(url, None, !load.target.address.ip().is_loopback())?,
        };
        let topics = Topics::of_run(1);
        load.own(&topics);
        self.make_group(load, &topics).await?;
        let (tally, publishers) = match self.rate {
            None => (self.fill(load, &topics).await?, JoinSet::new()),
            Some(rate) => self.publish(load, &topics, rate).await?,
        };
        let task = Task {
            target: load.target.clone(),
            acks,
            headers: load.headers.clone(),
            topic: topics.name(0),
            batch: self.batch,
            fails_once: self.fail_once,
            tally: Arc::clone(&tally),
        };
        if let Some(count) = self.lose {
            requests::lose(&task, count).await.map_err(|why| load.unreachable(why))?;
        }
        let before = load.processes.snapshot();
        self.work(&task, publishers).await;
        let usage = load.processes.snapshot().since(before);
        let lost = self.lose.map(|count| format!(", one was lost with {count}")).unwrap_or_default();
        let name = format!("work, {} workers, batches of {}{lost}", self.workers, self.batch);
        let mut row = Row::of(name, "messages", &tally.meter, usage);
        if self.rate.is_none() && self.lose.is_none() {
            let measured = tally.meter.measured();
            row.seconds = (measured.last - tally.meter.window.from).as_secs_f64().max(1e-9);
            #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 things")]
            let count = row.count as f64;
            row.per_second = count / row.seconds;
        }
        let (lost, repeated) = tally.told();
        row.order = Some(Order { lost, repeated, ..Order::default() });
        let mut run = Run::new("work", load, self);
        run.rows.push(row);
        Ok(run)
    }

    /// Has workers work until all is done.
    async fn work(&self, task: &Task, mut publishers: JoinSet<u64>) {
        let mut workers = JoinSet::new();
        for worker in 0..self.workers {
            let (task, transport) = (task.clone(), self.transport);
            workers.spawn(async move {
                let worked = match transport {
                    Transport::Http => requests::work(&task, worker).await,
                    Transport::Ws => frames::work(&task, worker, false).await,
                    Transport::WsBinary => frames::work(&task, worker, true).await,
                };
                if let Err(why) = worked {
                    task.tally.meter.failed(&why);
                }
            });
        }
        if !publishers.is_empty() {
            let mut sent = 0;
            while let Some(of_one) = publishers.join_next().await {
                sent += of_one.unwrap_or_default();
            }
            task.tally.expect(sent);
        }
        while workers.join_next().await.is_some() {}
    }

    async fn make_group(&self, load: &Load, topics: &Topics) -> Result<(), BenchError> {
        let path = format!("/api/v1/topics/{}/groups/{GROUP}", topics.name(0));
        let ack_wait = if self.lose.is_some() { LOST_FOR } else { Duration::from_secs(30) };
        let body = format!(r#"{{"backoff":[0],"ack_wait":{}}}"#, ack_wait.as_secs());
        let headers =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n{}", body.len(), load.headers);
        let made = async {
            let mut connection = http::Connection::open(&load.target).await?;
            let mut request = http::request(&load.target, &headers, "PUT", &path);
            request.extend_from_slice(body.as_bytes());
            Ok(connection.exchange(&request).await?.status)
        };
        match made.await {
            Ok(201) => Ok(()),
            Ok(status) => Err(load.unreachable(format!("the group cannot be made: status {status}"))),
            Err(why) => Err(load.unreachable(why)),
        }
    }

    fn shape(&self, topics: &Topics, mode: Mode, batch: usize) -> Shape {
        let (payload_bytes, topics, keep) = (self.payload_bytes, topics.clone(), u64::MAX >> 1);
        let extra = Extra { delay: self.delay, ..Extra::default() };
        Shape { mode, batch, payload_bytes, topics, keep, extra }
    }

    /// Fills the topic, and returns what its messages are counted in.
    async fn fill(&self, load: &Load, topics: &Topics) -> Result<Arc<Tally>, BenchError> {
        let batch = FILL.min(usize::try_from(self.messages).unwrap_or(FILL));
        self.send(load, topics, batch, self.messages).await?;
        let now = Instant::now();
        let window =
            Window { from: now, until: now + load.duration.max(Duration::from_mins(10)), paced: false };
        Ok(Arc::new(Tally::of_drain(window, self.messages, self.lose.map(|_| LOST_FOR))))
    }

    /// Publishes so many messages at once.
    async fn send(
        &self,
        load: &Load,
        topics: &Topics,
        batch: usize,
        messages: u64,
    ) -> Result<(), BenchError> {
        let shape = self.shape(topics, Mode::Ndjson, batch);
        let sender = Sender::open(&load.target, &load.headers, &shape, 0).await;
        let sender = sender.map_err(|why| load.unreachable(why))?;
        let now = Instant::now();
        let window = Window { from: now, until: now + FILL_MAX, paced: false };
        // Whole requests: the rest is never looked for.
        let meter = Meter::new(window, Some(messages));
        sender.run(&meter, None).await;
        let measured = meter.measured();
        if measured.count < messages {
            let why = measured.errors.0.keys().next().cloned().unwrap_or_default();
            let filled = measured.count;
            return Err(load.unreachable(format!("the topic has {filled} of {messages} messages; {why}")));
        }
        Ok(())
    }

    /// Begins to publish at a rate; each task ends with how many messages it has sent.
    async fn publish(
        &self,
        load: &Load,
        topics: &Topics,
        rate: f64,
    ) -> Result<(Arc<Tally>, JoinSet<u64>), BenchError> {
        let window = load.window(true);
        let delay = self.delay.unwrap_or_default();
        let tally = Arc::new(Tally::of_rate(window, PUBLISHERS, delay, delay + GRACE));
        let mut tasks = JoinSet::new();
        for (sender, schedule) in self.paced_senders(load, topics, window, rate).await? {
            tasks.spawn(async move { sender.run(&Meter::new(window, None), Some(schedule)).await.messages });
        }
        Ok((tally, tasks))
    }

    /// Returns who publishes at a rate, each with its times, which begin now.
    async fn paced_senders(
        &self,
        load: &Load,
        topics: &Topics,
        window: Window,
        rate: f64,
    ) -> Result<Vec<(Sender, Schedule)>, BenchError> {
        let shape = self.shape(topics, Mode::Http, 1);
        let mut senders = Vec::new();
        for publisher in 0..PUBLISHERS {
            let sender = Sender::open(&load.target, &load.headers, &shape, publisher).await;
            senders.push(sender.map_err(|why| load.unreachable(why))?);
        }
        let start = window.from - load.warm_up;
        let (schedules, ticker) = pace::schedules(start, window.until, rate, senders.len());
        ticker.start();
        Ok(senders.into_iter().zip(schedules).collect())
    }
}
