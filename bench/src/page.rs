//! Scenario `page`: how fast pages are read, at several depths of a topic.

use std::sync::Arc;

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tidemill_proto::MessageId;
use tidemill_proto::limits::PAGE_MESSAGES_MAX;
use tidemill_proto::topics::TopicDetail;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::error::BenchError;
use crate::flags::DURATION_MAX;
use crate::load::{CONNECTIONS_MAX, GRACE, Load};
use crate::mark::{Topics, key};
use crate::measure::{Meter, Window};
use crate::progress::busy;
use crate::publish::Messages;
use crate::report::{Row, Run};
use crate::sender::{Extra, Mode, Sender, Shape};
use crate::target::Kind;
use crate::{http, resp};

const EXAMPLES: &str = "\
Examples:
  tidemill bench page                          pages of 100 at three depths of 10,000 messages
  tidemill bench page --fill 10000,10000000 --depths 0,0.5,1
  tidemill bench page --topic quakes --limit 1000        of a topic that is there

A depth is a place in the topic: 0 is the newest end, 1 the oldest. Topics of several sizes are
read in turn, a page of each: what else the machine does touches all of them alike.";

/// Messages in one request of filling.
const FILL_BATCH: usize = 1_000;
/// Most messages that a topic is filled with.
const FILL_MAX: u64 = 1_000_000_000;

/// The arguments of `tidemill bench page`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Page {
    /// Messages in a page
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PAGE_MESSAGES_MAX as u64))]
    limit: usize,

    /// Where the pages start, from 0 (newest) to 1 (oldest)
    #[arg(long, value_name = "DEPTHS", value_delimiter = ',', default_value = "0,0.5,1", value_parser = depth)]
    depths: Vec<f64>,

    /// Publish this many messages first, to a topic for each number; above 1,000 rounded up to whole
    /// thousands. Nothing where a topic is named
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "10000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=FILL_MAX))]
    fill: Vec<u64>,

    /// Connections
    #[arg(long, short, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONNECTIONS_MAX))]
    connections: usize,

    #[command(flatten)]
    #[serde(flatten)]
    each: Messages,
}

fn depth(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(depth) if (0.0..=1.0).contains(&depth) => Ok(depth),
        _ => Err("write a number from 0 (newest) to 1 (oldest)".to_owned()),
    }
}

impl Page {
    pub(crate) async fn run(&self, load: &Load) -> Result<Run, BenchError> {
        if load.target.kind == Kind::Plain {
            let rule = "only relays and bare servers are read by pages; leave --publish-path out";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        let is_named = self.each.topic.is_some();
        let count = if is_named { 1 } else { u32::try_from(self.fill.len()).unwrap_or(u32::MAX) };
        let topics = self.each.topics(count);
        let mut sources = Vec::new();
        for (topic, fill) in topics.names().zip(&self.fill) {
            if !is_named {
                self.fill(load, &topics, &topic, *fill).await?;
            }
            let Extent { length, first, last } =
                extent(load, &topic).await.map_err(|why| load.unreachable(why))?;
            if !is_named && length < *fill {
                let kept = format!(
                    "the topic keeps {length} of {fill} messages: give the target room for them (MAX_MESSAGES_PER_TOPIC, TIDEMILL_MEMORY_BYTES_MAX; --keep for a bare server)"
                );
                return Err(BenchError::Usage(kept));
            }
            let size = if count == 1 { String::new() } else { format!(" of {length}") };
            sources.push((topic, size, (first, last)));
        }
        let mut run = Run::new("page", load, self);
        for depth in &self.depths {
            let window = load.window(false);
            let read = |(topic, size, (first, last)): &(String, String, _)| {
                let request = self.request(load, topic, place(*first, *last, *depth));
                let name = format!("page of {}{size}, depth {depth}", self.limit);
                (name, Pages { request: request.into(), meter: Arc::new(Meter::new(window, None)) })
            };
            let (names, pages): (Vec<_>, Vec<_>) = sources.iter().map(read).unzip();
            let mut tasks = JoinSet::new();
            for _ in 0..self.connections {
                let asker = Asker::open(load).await.map_err(|why| load.unreachable(why))?;
                tasks.spawn(asker.run(pages.clone()));
            }
            let usage = load.drive(&format!("depth {depth}"), &pages[0].meter, tasks).await;
            for (name, pages) in names.into_iter().zip(pages) {
                let mut row = Row::of(name, "pages", &pages.meter, usage);
                if count > 1 {
                    // It was used for all of them together.
                    row.cpu_seconds_per_million = None;
                }
                run.rows.push(row);
            }
        }
        Ok(run)
    }

    async fn fill(&self, load: &Load, all: &Topics, topic: &str, count: u64) -> Result<(), BenchError> {
        let batch = usize::try_from(count).unwrap_or(FILL_BATCH).min(FILL_BATCH);
        let shape = Shape {
            mode: Mode::Bulk,
            batch,
            payload_bytes: self.each.payload_bytes,
            topics: Topics::new(topic.to_owned(), 1),
            keep: self.each.keep.max(count),
            extra: Extra::default(),
        };
        let sender = Sender::open(&load.target, &load.headers, &shape, 0).await;
        let sender = sender.map_err(|why| load.unreachable(why))?;
        load.own(all);
        let now = Instant::now();
        let window = Window { from: now, until: now + DURATION_MAX, paced: false };
        let meter = Arc::new(Meter::new(window, Some(count.next_multiple_of(batch as u64))));
        let _busy = busy("filling the topic");
        sender.run(&meter, None).await;
        let measured = meter.measured();
        match measured.errors.0.keys().next() {
            Some(why) => Err(load.unreachable(format!("the topic cannot be filled: {why}"))),
            None => Ok(()),
        }
    }

    /// Returns the request for a page whose messages are older than `place`; the newest without one.
    fn request(&self, load: &Load, topic: &str, place: Option<MessageId>) -> Vec<u8> {
        let limit = self.limit;
        match (load.target.kind, place) {
            (Kind::Relay | Kind::Plain, None) => {
                let path = format!("/api/v1/topics/{topic}/messages?limit={limit}");
                http::request(&load.target, &load.headers, "GET", &path)
            }
            (Kind::Relay | Kind::Plain, Some(place)) => {
                let path = format!("/api/v1/topics/{topic}/messages?limit={limit}&order=asc&cursor={place}");
                http::request(&load.target, &load.headers, "GET", &path)
            }
            (Kind::Server, None) => {
                resp::command(&["XREVRANGE", &key(topic), "+", "-", "COUNT", &limit.to_string()])
            }
            (Kind::Server, Some(place)) => {
                let (from, limit) = (format!("({place}"), limit.to_string());
                resp::command(&["XRANGE", &key(topic), &from, "+", "COUNT", &limit])
            }
        }
    }
}

/// Returns the id behind which a page at this depth starts; ids are spread over time as messages are.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a topic need not be exact"
)]
fn place(first: MessageId, last: MessageId, depth: f64) -> Option<MessageId> {
    if depth <= 0.0 {
        return None;
    }
    let span = last.ms.saturating_sub(first.ms) as f64;
    Some(MessageId::new(first.ms + (span * (1.0 - depth)) as u64, 0))
}

/// What a topic has.
struct Extent {
    length: u64,
    first: MessageId,
    last: MessageId,
}

/// Returns the extent of a topic, which must not be empty.
async fn extent(load: &Load, topic: &str) -> Result<Extent, String> {
    let empty = || format!("the topic {topic} is empty");
    match load.target.kind {
        Kind::Relay | Kind::Plain => {
            let path = format!("/api/v1/topics/{topic}");
            let (status, body) = http::ask(&load.target, &load.headers, "GET", &path).await?;
            let detail: TopicDetail =
                serde_json::from_slice(&body).map_err(|_| format!("no topic {topic}: status {status}"))?;
            let (first, last) = detail.first_id.zip(detail.last_id).ok_or_else(empty)?;
            Ok(Extent { length: detail.length, first, last })
        }
        Kind::Server => {
            let mut connection = resp::Connection::open(&load.target, 0).await?;
            let key = key(topic);
            let mut ids = Vec::new();
            for ask in [["XRANGE", &key, "-", "+", "COUNT", "1"], ["XREVRANGE", &key, "+", "-", "COUNT", "1"]]
            {
                let reply = connection.ask(&resp::command(&ask)).await?;
                let id = resp::last_entry(reply).ok_or_else(empty)?;
                ids.push(id.parse::<MessageId>().map_err(|error| error.to_string())?);
            }
            let length = resp::integer(connection.ask(&resp::command(&["XLEN", &key])).await?)?;
            Ok(Extent { length, first: ids[0], last: ids[1] })
        }
    }
}

/// A page that is asked for again and again.
#[derive(Clone)]
struct Pages {
    request: Arc<[u8]>,
    meter: Arc<Meter>,
}

/// A connection that asks for pages in turn.
enum Asker {
    Relay(http::Connection),
    Server(resp::Connection),
}

impl Asker {
    async fn open(load: &Load) -> Result<Self, String> {
        Ok(match load.target.kind {
            Kind::Relay | Kind::Plain => Self::Relay(http::Connection::open(&load.target).await?),
            Kind::Server => Self::Server(resp::Connection::open(&load.target, 0).await?),
        })
    }

    /// Asks until the run ends; `pages` has one at least.
    async fn run(mut self, pages: Vec<Pages>) {
        let deadline = pages[0].meter.window.until + GRACE;
        let asking = async {
            for Pages { request, meter } in pages.iter().cycle() {
                let started = Instant::now();
                if !meter.goes_on(started, 1) {
                    return;
                }
                let answer = match &mut self {
                    Self::Relay(connection) => match connection.exchange(request).await {
                        Ok(answer) if answer.status != 200 => Err(format!("status {}", answer.status)),
                        answer => answer.map(|_| ()),
                    },
                    Self::Server(connection) => connection.ask(request).await.map(|_| ()),
                };
                match answer {
                    Ok(()) => meter.record(started, Instant::now(), 1),
                    Err(why) => {
                        meter.failed(&why);
                        return;
                    }
                }
            }
        };
        if timeout_at(deadline, asking).await.is_err() {
            pages[0].meter.failed("no answer when the run ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_places_between_the_ends() {
        let (first, last) = (MessageId::new(1_000, 5), MessageId::new(2_000, 0));
        assert_eq!(place(first, last, 0.0), None);
        assert_eq!(place(first, last, 0.25), Some(MessageId::new(1_750, 0)));
        assert_eq!(place(first, last, 1.0), Some(MessageId::new(1_000, 0)));
    }
}
