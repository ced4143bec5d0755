//! Scenario `page`: how fast pages are read, at several depths of a topic.

use std::sync::Arc;

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tidemill_proto::MessageId;
use tidemill_proto::limits::PAGE_MESSAGES_MAX;
use tidemill_proto::topics::TopicDetail;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::measure::{Meter, Window};
use super::publish::Messages;
use super::report::{Row, Run};
use super::sender::{Mode, Sender, Shape, key};
use super::target::Kind;
use super::{CONNECTIONS_MAX, DURATION_MAX, GRACE, Load, http, resp};
use crate::cli::CliError;

const EXAMPLES: &str = "\
Examples:
  tidemill bench page                                    pages of 100 at three depths of 10,000 messages
  tidemill bench page --fill 10000000 --depths 0,0.5,1
  tidemill bench page --topic quakes --limit 1000        of a topic that is there

A depth is a place in the topic: 0 is the newest end, 1 the oldest.";

/// Messages in one request of filling.
const FILL_BATCH: usize = 1_000;
/// Most messages that a topic is filled with.
const FILL_MAX: u64 = 1_000_000_000;

/// The arguments of `tidemill bench page`.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Page {
    /// Messages in a page
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=PAGE_MESSAGES_MAX as u64))]
    limit: usize,

    /// Where the pages start, from 0 (newest) to 1 (oldest)
    #[arg(long, value_name = "DEPTHS", value_delimiter = ',', default_value = "0,0.5,1", value_parser = depth)]
    depths: Vec<f64>,

    /// Publish this many messages first, in thousands; nothing where a topic is named
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=FILL_MAX))]
    fill: u64,

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
    pub(super) async fn run(&self, load: &Load) -> Result<Run, CliError> {
        if load.target.kind == Kind::Plain {
            let rule = "only relays and bare servers are read by pages; leave --publish-path out";
            return Err(CliError::Usage(rule.to_owned()));
        }
        let topics = self.each.topics(1);
        if self.each.topic.is_none() {
            self.fill(load, &topics).await?;
        }
        let topic = topics.name(0);
        let (first, last) = ends(load, &topic).await.map_err(|why| load.unreachable(why))?;
        let mut run = Run::new("page", load, self);
        for depth in &self.depths {
            let request: Arc<[u8]> = self.request(load, &topic, place(first, last, *depth)).into();
            let meter = Arc::new(Meter::new(load.window(false), None));
            let mut tasks = JoinSet::new();
            for _ in 0..self.connections {
                let asker = Asker::open(load).await.map_err(|why| load.unreachable(why))?;
                let (meter, request) = (Arc::clone(&meter), Arc::clone(&request));
                tasks.spawn(asker.run(meter, request));
            }
            let name = format!("page of {}, depth {depth}", self.limit);
            let usage = load.drive(&name, &meter, tasks).await;
            run.rows.push(Row::of(name, "pages", &meter, usage));
        }
        self.each.clean(load, &topics).await;
        Ok(run)
    }

    async fn fill(&self, load: &Load, topics: &super::mark::Topics) -> Result<(), CliError> {
        let batch = usize::try_from(self.fill).unwrap_or(FILL_BATCH).min(FILL_BATCH);
        let shape = Shape {
            mode: Mode::Bulk,
            batch,
            payload_bytes: self.each.payload_bytes,
            topics: topics.clone(),
            keep: self.each.keep.max(self.fill),
        };
        let sender = Sender::open(&load.target, &load.headers, &shape, 0).await;
        let sender = sender.map_err(|why| load.unreachable(why))?;
        let now = Instant::now();
        let window = Window { from: now, until: now + DURATION_MAX, paced: false };
        let meter = Arc::new(Meter::new(window, Some(self.fill.next_multiple_of(batch as u64))));
        let bar = super::progress("fill", std::time::Duration::ZERO);
        sender.run(&meter, None).await;
        bar.finish_and_clear();
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

/// Returns the ids of the first and the last message of a topic.
async fn ends(load: &Load, topic: &str) -> Result<(MessageId, MessageId), String> {
    let empty = || format!("the topic {topic} is empty");
    match load.target.kind {
        Kind::Relay | Kind::Plain => {
            let path = format!("/api/v1/topics/{topic}");
            let (status, body) = http::ask(&load.target, &load.headers, "GET", &path).await?;
            let detail: TopicDetail =
                serde_json::from_slice(&body).map_err(|_| format!("no topic {topic}: status {status}"))?;
            detail.first_id.zip(detail.last_id).ok_or_else(empty)
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
            Ok((ids[0], ids[1]))
        }
    }
}

/// A connection that asks for the same page again and again.
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

    async fn run(mut self, meter: Arc<Meter>, request: Arc<[u8]>) {
        let asking = async {
            loop {
                let started = Instant::now();
                if !meter.goes_on(started, 1) {
                    return;
                }
                let answer = match &mut self {
                    Self::Relay(connection) => match connection.exchange(&request).await {
                        Ok(answer) if answer.status != 200 => Err(format!("status {}", answer.status)),
                        answer => answer.map(|_| ()),
                    },
                    Self::Server(connection) => connection.ask(&request).await.map(|_| ()),
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
        if timeout_at(meter.window.until + GRACE, asking).await.is_err() {
            meter.failed("no answer when the run ended");
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
