//! What takes long: how the time of an operation is cut into parts, and the newest operations that took longer than is set.
//!
//! The parts are found where they arise, in the storage and wherever somebody waits, and are noted with the operation that
//! runs there: it stands beside the task ([`measured`]). Where none does, as in the tasks of a node itself, nothing is noted
//! and no clock is read. It must not know what is done, nor how it was asked for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::limits::SLOW_PAGE_MAX;
use tidemill_proto::slow::{SlowKind, SlowOperation};
use tidemill_proto::{Timestamp, TopicName};
use tokio::time::Instant;

use running::{During, Measured};

mod running;

/// Most operations that are kept: as many as are listed at one time.
pub const OPERATIONS_MAX: usize = SLOW_PAGE_MAX;
/// Most bytes of their texts.
pub const BYTES_MAX: usize = 64 * 1024;
/// Most bytes of one text.
const TEXT_BYTES_MAX: usize = 256;

/// Parts of the time of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// It waited for its turn to be sent.
    pub queue: Duration,
    /// The server had it, with the way there and back.
    pub server: Duration,
    /// It waited for what its client wants to be waited for, or for its client.
    pub waited: Duration,
}

impl Spent {
    /// Returns what was spent on something that was queued at one time, sent at another, and is answered now.
    #[must_use]
    pub fn between(queued_at: Instant, sent_at: Instant, now: Instant) -> Self {
        let queue = sent_at.saturating_duration_since(queued_at);
        Self { queue, server: now.saturating_duration_since(sent_at), waited: Duration::ZERO }
    }

    /// Returns the longer of each part: of what was done at the same time.
    #[must_use]
    pub fn longest(self, other: Self) -> Self {
        Self {
            queue: self.queue.max(other.queue),
            server: self.server.max(other.server),
            waited: self.waited.max(other.waited),
        }
    }
}

/// What is known of the operation that runs.
#[derive(Default)]
struct Running {
    spent: Cell<Spent>,
    /// What goes on now, by its [`Part`]: several things at the same time are one, as their times are not added up.
    open: [Cell<Option<Open>>; 3],
    topic: RefCell<Option<TopicName>>,
}

/// What an operation is about now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Queued,
    Served,
    Awaited,
}

/// So many things go on since then.
#[derive(Clone, Copy)]
struct Open {
    count: usize,
    since: Instant,
}

tokio::task_local! {
    static RUNNING: Running;
}

/// What was found of an operation that has run.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The parts of its time that were noted.
    pub spent: Spent,
    /// What it was about, if that was said.
    pub topic: Option<TopicName>,
}

/// Runs an operation, and returns what was noted with it.
pub fn measured<F: Future>(operation: F) -> impl Future<Output = (F::Output, Found)> {
    Measured::new(operation)
}

/// Notes what was spent on the operation that runs here, if one does.
pub fn note(spent: Spent) {
    // Nothing runs in tasks of the node itself.
    let _ = RUNNING.try_with(|running| running.add(spent));
}

impl Running {
    /// Adds to what was spent, unless it waits: then that is what it is spent on.
    fn add(&self, spent: Spent) {
        if self.open[Part::Awaited as usize].get().is_some() {
            return;
        }
        let before = self.spent.get();
        self.spent.set(Spent {
            queue: before.queue + spent.queue,
            server: before.server + spent.server,
            waited: before.waited + spent.waited,
        });
    }
}

/// Says what the operation that runs here is about.
pub fn about(topic: &TopicName) {
    let _ = RUNNING.try_with(|running| running.topic.replace(Some(topic.clone())));
}

/// Waits for a turn to send something.
pub fn queued<F: Future>(turn: F) -> impl Future<Output = F::Output> {
    During::new(Part::Queued, turn)
}

/// Waits for an answer of the server.
pub fn served<F: Future>(answer: F) -> impl Future<Output = F::Output> {
    During::new(Part::Served, answer)
}

/// Waits for what the client wants to be waited for, or for the client itself: that takes as long as it takes.
pub fn awaited<F: Future>(awaited: F) -> impl Future<Output = F::Output> {
    During::new(Part::Awaited, awaited)
}

/// Something that an operation is about; noted when it is dropped. Where none runs, it is nothing.
struct GoingOn(Option<Part>);

impl GoingOn {
    fn begin(part: Part) -> Self {
        let begun = RUNNING.try_with(|running| {
            let open = &running.open[part as usize];
            let before = open.get();
            let since = before.map_or_else(Instant::now, |open| open.since);
            open.set(Some(Open { count: before.map_or(0, |open| open.count) + 1, since }));
        });
        Self(begun.is_ok().then_some(part))
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        let Some(part) = self.0 else { return };
        let _ = RUNNING.try_with(|running| {
            let open = &running.open[part as usize];
            let Some(Open { count, since }) = open.take() else { return };
            if count > 1 {
                return open.set(Some(Open { count: count - 1, since }));
            }
            let (took, none) = (since.elapsed(), Spent::default());
            running.add(match part {
                Part::Queued => Spent { queue: took, ..none },
                Part::Served => Spent { server: took, ..none },
                Part::Awaited => Spent { waited: took, ..none },
            });
        });
    }
}

/// An operation that took long.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What it was.
    pub kind: SlowKind,
    /// How it was asked for.
    pub operation: String,
    /// The topic.
    pub topic: Option<TopicName>,
    /// Who asked for it.
    pub caller: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The status of the answer.
    pub status: Option<u16>,
}

/// How long an operation took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it ended.
    pub now: Timestamp,
    /// On the whole, without what was waited for.
    pub total: Duration,
    /// The parts of that.
    pub spent: Spent,
    /// How long its client took to accept the answer.
    pub write: Option<Duration>,
}

/// The operations of a node that took longer than is set. Clones are the same.
#[derive(Clone)]
pub struct Slow(Arc<Inner>);

struct Inner {
    /// In microseconds; `u64::MAX` where nothing is noted.
    threshold_us: AtomicU64,
    counts: [AtomicU64; SlowKind::ALL.len()],
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    newest: VecDeque<SlowOperation>,
    bytes: usize,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow").field("threshold", &self.threshold()).finish_non_exhaustive()
    }
}

impl Slow {
    /// Returns a log of operations that take longer than this; of none where it is zero.
    #[must_use]
    pub fn new(threshold: Duration) -> Self {
        let inner =
            Inner { threshold_us: AtomicU64::new(0), counts: Default::default(), kept: Mutex::default() };
        let slow = Self(Arc::new(inner));
        slow.change(threshold);
        slow
    }

    /// Notes what takes longer than this from now on; nothing where it is zero.
    pub fn change(&self, threshold: Duration) {
        let us = u64::try_from(threshold.as_micros()).unwrap_or(u64::MAX);
        self.0.threshold_us.store(if us == 0 { u64::MAX } else { us }, Ordering::Relaxed);
    }

    /// Returns past which time operations are noted; zero where none is.
    #[must_use]
    pub fn threshold(&self) -> Duration {
        match self.0.threshold_us.load(Ordering::Relaxed) {
            u64::MAX => Duration::ZERO,
            us => Duration::from_micros(us),
        }
    }

    /// Returns whether an operation that took so long is to be noted.
    #[must_use]
    pub fn is_slow(&self, took: Duration) -> bool {
        took.as_micros() > u128::from(self.0.threshold_us.load(Ordering::Relaxed))
    }

    /// Notes an operation, and forgets the oldest where there is no room.
    pub fn keep(&self, operation: Operation, times: Times) {
        let Operation { kind, operation, topic, caller, request_id, status } = operation;
        self.0.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
        let Times { now, total, spent, write } = times;
        // What was done in several calls at the same time counts no more than it took.
        let queue = spent.queue.min(total);
        let server = spent.server.min(total.saturating_sub(queue));
        let total_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        let noted = SlowOperation {
            kind,
            operation: cut(operation),
            topic: topic.map(|topic| cut(topic.as_str().to_owned())),
            caller: caller.map(cut),
            request_id: request_id.map(cut),
            status,
            at: Timestamp::from_millis(now.as_millis().saturating_sub(total_ms)),
            total_ms: millis(total),
            queue_ms: millis(queue),
            server_ms: millis(server),
            write_ms: write.map(millis),
        };
        let mut kept = self.0.kept.lock();
        kept.bytes += bytes_of(&noted);
        kept.newest.push_front(noted);
        while kept.newest.len() > OPERATIONS_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.newest.pop_back() else { break };
            kept.bytes -= bytes_of(&oldest);
        }
    }

    /// Returns how many were noted, of each kind in the order of [`SlowKind::ALL`].
    #[must_use]
    pub fn counts(&self) -> [u64; SlowKind::ALL.len()] {
        self.0.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Returns the newest, at most so many.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<SlowOperation> {
        self.0.kept.lock().newest.iter().take(limit).cloned().collect()
    }
}

/// Returns a time in milliseconds, to the microsecond.
#[must_use]
pub fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn bytes_of(operation: &SlowOperation) -> usize {
    let texts = [&operation.topic, &operation.caller, &operation.request_id];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    size_of::<SlowOperation>() + operation.operation.len() + texts
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, pause};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn keep(slow: &Slow, kind: SlowKind, caller: &str) {
        let operation = Operation {
            kind,
            operation: "POST /api/v1/messages".to_owned(),
            topic: TopicName::parse("t").ok(),
            caller: Some(caller.to_owned()),
            request_id: None,
            status: None,
        };
        let (now, spent) = (Timestamp::from_millis(1_000), Spent { server: MS, ..Spent::default() });
        slow.keep(operation, Times { now, total: 2 * MS, spent, write: None });
    }

    #[tokio::test]
    async fn parts_are_of_the_operation_that_runs() {
        pause();
        let topic = TopicName::parse("orders").expect("a name");
        let (output, found) = measured(async {
            about(&topic);
            queued(advance(MS)).await;
            served(advance(2 * MS)).await;
            served(advance(3 * MS)).await;
            // What the server does meanwhile is a part of the waiting.
            awaited(async {
                served(advance(4 * MS)).await;
                awaited(advance(5 * MS)).await;
            })
            .await;
            note(Spent { queue: MS, ..Spent::default() });
            // At the same time.
            tokio::join!(served(advance(MS)), served(advance(MS)));
            let ((), other) = measured(served(advance(MS))).await;
            assert_eq!(other.spent.server, MS);
            7
        })
        .await;
        assert_eq!((output, found.topic), (7, Some(topic)));
        assert_eq!(found.spent, Spent { queue: 2 * MS, server: 7 * MS, waited: 9 * MS });
        // Nothing runs here.
        served(async {}).await;
        awaited(async {}).await;
        note(Spent::default());
    }

    #[test]
    fn the_newest_are_kept_within_bounds() {
        let slow = Slow::new(100 * MS);
        assert!(!slow.is_slow(100 * MS) && slow.is_slow(101 * MS));
        for number in 0..OPERATIONS_MAX + 3 {
            keep(&slow, SlowKind::Read, &number.to_string());
        }
        keep(&slow, SlowKind::Publish, "last");
        let newest = slow.newest(usize::MAX);
        assert!(newest.len() <= OPERATIONS_MAX && newest.len() > 100, "{}", newest.len());
        let SlowOperation { caller, at, total_ms, server_ms, .. } = &newest[0];
        assert_eq!((caller.as_deref(), at.as_millis(), *total_ms, *server_ms), (Some("last"), 998, 2.0, 1.0));
        assert_eq!(slow.newest(2).len(), 2);
        assert_eq!(slow.counts(), [1, OPERATIONS_MAX as u64 + 3, 0]);
        for _ in 0..OPERATIONS_MAX {
            keep(&slow, SlowKind::Command, &"ä".repeat(10_000));
        }
        let newest = slow.newest(usize::MAX);
        assert_eq!(newest[0].caller.as_ref().map(String::len), Some(TEXT_BYTES_MAX));
        assert!(newest.iter().map(bytes_of).sum::<usize>() <= BYTES_MAX);
        slow.change(Duration::ZERO);
        assert!(!slow.is_slow(Duration::from_hours(1)) && slow.threshold().is_zero());
    }
}
