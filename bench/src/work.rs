//! Scenario `work`: how fast workers claim and acknowledge the messages of a topic, each of which is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::BenchError;
use crate::http;
use crate::load::Load;
use crate::mark::{Mark, PAYLOAD_BYTES_MIN, PUBLISHERS_MAX, Topics};
use crate::measure::{Meter, Window};
use crate::report::{Order, Row, Run};
use crate::sender::{Mode, Sender, Shape};
use crate::target::Kind;

const EXAMPLES: &str = "\
Examples:
  tidemill bench work                                   50 workers, one message at a time
  tidemill bench work --batch 100 --workers 4           batches of 100
  tidemill bench work --messages 200000 --batch 10";

/// The group of a run.
const GROUP: &str = "bench";
/// Messages of a request with which the topic is filled.
const FILL: usize = 1_000;
/// How long filling may take.
const FILL_MAX: Duration = Duration::from_mins(5);

/// The arguments of `tidemill bench work`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Work {
    /// Workers, each with a connection of its own
    #[arg(long, short, value_name = "COUNT", default_value_t = 50)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PUBLISHERS_MAX))]
    workers: usize,

    /// Messages of a claim and of its acknowledgement
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    batch: usize,

    /// Messages that the topic is filled with first
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,

    /// Bytes of each payload
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(PAYLOAD_BYTES_MIN as u64..=1_000_000))]
    payload_bytes: usize,
}

/// What workers share.
struct Drain {
    target: crate::target::Target,
    headers: String,
    topic: String,
    batch: usize,
    /// Messages that nobody has acknowledged.
    left: AtomicU64,
    /// Which messages were acknowledged, a bit each.
    seen: Mutex<Seen>,
    meter: Meter,
}

struct Seen {
    bits: Vec<u64>,
    repeated: u64,
}

/// A claim's answer, as far as a worker reads it.
#[derive(Deserialize)]
struct Claimed<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    receipt: &'a RawValue,
}

impl Work {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        if load.target.kind != Kind::Relay {
            return Err(load.unreachable("only a relay gives work".to_owned()));
        }
        let topics = Topics::of_run(1);
        load.own(&topics);
        let topic = topics.name(0);
        self.fill(load, &topics).await?;
        let now = Instant::now();
        let window =
            Window { from: now, until: now + load.duration.max(Duration::from_mins(10)), paced: false };
        let drain = Arc::new(Drain {
            target: load.target.clone(),
            headers: load.headers.clone(),
            topic,
            batch: self.batch,
            left: AtomicU64::new(self.messages),
            seen: Mutex::new(Seen {
                bits: vec![0; usize::try_from(self.messages.div_ceil(64)).unwrap_or(usize::MAX)],
                repeated: 0,
            }),
            meter: Meter::new(window, None),
        });
        let before = load.processes.snapshot();
        let mut tasks = JoinSet::new();
        for worker in 0..self.workers {
            let drain = Arc::clone(&drain);
            tasks.spawn(async move {
                if let Err(why) = drain.work(worker).await {
                    drain.meter.failed(&why);
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        let usage = load.processes.snapshot().since(before);
        let name = format!("work, {} workers, batches of {}", self.workers, self.batch);
        let mut row = Row::of(name, "jobs", &drain.meter, usage);
        let measured = drain.meter.measured();
        row.seconds = (measured.last - drain.meter.window.from).as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 things")]
        let count = row.count as f64;
        row.per_second = count / row.seconds;
        let lost = drain.left.load(Ordering::Relaxed);
        let repeated = drain.seen.lock().repeated;
        row.order = Some(Order { lost, repeated, ..Order::default() });
        let mut run = Run::new("work", load, self);
        run.rows.push(row);
        Ok(run)
    }

    /// Makes the group, and fills the topic.
    async fn fill(&self, load: &Load, topics: &Topics) -> Result<(), BenchError> {
        let path = format!("/api/v1/topics/{}/groups/{GROUP}", topics.name(0));
        let made = ask(load, "PUT", &path, "{}").await.map_err(|why| load.unreachable(why))?;
        if made != 201 {
            return Err(load.unreachable(format!("the group cannot be made: status {made}")));
        }
        let batch = FILL.min(usize::try_from(self.messages).unwrap_or(FILL));
        let shape = Shape {
            mode: Mode::Ndjson,
            batch,
            payload_bytes: self.payload_bytes,
            topics: topics.clone(),
            keep: u64::MAX >> 1,
        };
        let sender = Sender::open(&load.target, &load.headers, &shape, 0).await;
        let sender = sender.map_err(|why| load.unreachable(why))?;
        let now = Instant::now();
        let window = Window { from: now, until: now + FILL_MAX, paced: false };
        // Whole requests: the rest is never looked for.
        let meter = Meter::new(window, Some(self.messages));
        sender.run(&meter, None).await;
        let filled = meter.measured().count;
        if filled < self.messages {
            return Err(load.unreachable(format!("the topic has {filled} of {} messages", self.messages)));
        }
        Ok(())
    }
}

async fn ask(load: &Load, method: &str, path: &str, body: &str) -> Result<u16, String> {
    let mut connection = http::Connection::open(&load.target).await?;
    let length = body.len();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{}", load.headers);
    let mut request = http::request(&load.target, &headers, method, path);
    request.extend_from_slice(body.as_bytes());
    Ok(connection.exchange(&request).await?.status)
}

impl Drain {
    fn request(&self, path: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        let headers =
            format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{}", self.headers);
        let mut request = http::request(&self.target, &headers, "POST", path);
        request.extend_from_slice(body.as_bytes());
        request
    }

    async fn work(&self, worker: usize) -> Result<(), String> {
        let mut connection = http::Connection::open(&self.target).await?;
        let path = format!("/api/v1/topics/{}/groups/{GROUP}/claim", self.topic);
        let body = format!(r#"{{"consumer":"worker-{worker}","max":{},"wait":"200ms"}}"#, self.batch);
        let claim = self.request(&path, &body);
        let mut sequences = Vec::with_capacity(self.batch);
        while self.left.load(Ordering::Relaxed) > 0 {
            let started = Instant::now();
            let answer = connection.exchange(&claim).await?;
            if answer.status != 200 {
                return Err(format!("a claim: status {}", answer.status));
            }
            sequences.clear();
            Mark::each(answer.body, |mark| sequences.push(mark.sequence));
            let claimed: Claimed<'_> =
                serde_json::from_slice(answer.body).map_err(|error| format!("a claim: {error}"))?;
            if claimed.messages.is_empty() {
                continue;
            }
            let mut body = String::with_capacity(32 + claimed.messages.len() * 128);
            body.push_str(r#"{"receipts":["#);
            for (at, message) in claimed.messages.iter().enumerate() {
                if at > 0 {
                    body.push(',');
                }
                body.push_str(message.receipt.get());
            }
            body.push_str("]}");
            let count = claimed.messages.len();
            let ack = self.request("/api/v1/work/ack", &body);
            let answer = connection.exchange(&ack).await?;
            let acked = memchr::memmem::find_iter(answer.body, br#""status":"acked""#).count();
            if answer.status != 200 || acked != count {
                return Err(format!("an ack: status {}, {acked} of {count}", answer.status));
            }
            self.meter.record(started, Instant::now(), count);
            self.note(&sequences);
        }
        Ok(())
    }

    fn note(&self, sequences: &[u64]) {
        let mut seen = self.seen.lock();
        for sequence in sequences {
            let (place, bit) =
                (usize::try_from(sequence / 64).unwrap_or(usize::MAX), 1_u64 << (sequence % 64));
            match seen.bits.get_mut(place) {
                Some(bits) if *bits & bit == 0 => {
                    *bits |= bit;
                    self.left.fetch_sub(1, Ordering::Relaxed);
                }
                _ => seen.repeated += 1,
            }
        }
    }
}
