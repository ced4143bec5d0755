//! Reads of history for readers behind the ring: a bounded number at one time, and one for all that
//! ask for the same meanwhile, as those do who come back together after a restart.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use tidemill_proto::page::Order;
use tidemill_proto::{Gap, MessageId, TopicName};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use super::message::LiveMessage;
use super::primitives::{Mutex, driven};
use crate::storage::{Epoch, GapCheck, LatestRange, Range, Storage, StorageError};

/// Most reads at one time: enough to keep a server busy, few enough that the feeds' own reads, on the
/// same connection, do not wait for all of them.
const READS_MAX: usize = 64;
/// Bytes that reads may bring at one time. Where payloads can be so large that fewer reads come to it, there
/// are fewer: what a read has brought lies in memory before anybody can count it.
const READS_BYTES: usize = 8 * 1024 * 1024;
/// But so many at least.
const READS_MIN: usize = 4;

/// Time between two reads of the same: where a crowd comes with the same cursors, a quick server would
/// else be asked nearly once for each. Nobody waits who is the first to ask.
const GATHER: Duration = Duration::from_millis(200);
/// Reads of which it is remembered when they began. Past it, no read waits for another.
const RECENT_MAX: usize = 1_024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReadKey {
    pub(super) topic: TopicName,
    pub(super) after: Option<MessageId>,
    pub(super) gap_check: GapCheck,
    pub(super) limit: usize,
    pub(super) bytes_max: usize,
    pub(super) view: View,
}

/// Which messages are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum View {
    /// All.
    All,
    /// The latest of each key.
    Latest {
        /// Whether the reader has begun to read them already.
        goes_on: bool,
    },
}

/// What storage has behind a cursor.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) gap: Option<Arc<Gap>>,
    pub(super) messages: Vec<Arc<LiveMessage>>,
    /// How far it looked; `None` if there is nothing.
    pub(super) reached: Option<MessageId>,
    /// Where there is nothing for a reader from anywhere: what the topic had given before that was
    /// found, none of which is this reader's.
    pub(super) passed: Option<MessageId>,
    /// Which topic it is, where the read has looked.
    pub(super) epoch: Option<Epoch>,
}

pub(super) type Outcome = Result<Arc<Page>, Arc<StorageError>>;
type Read = Pin<Box<dyn Future<Output = Outcome> + Send>>;

type WaitingReads = Mutex<HashMap<ReadKey, WeakShared<Read>>>;

/// The reads under way, and those that wait for their turn.
pub(super) struct History {
    storage: Storage,
    turns: Arc<Semaphore>,
    waiting: Arc<WaitingReads>,
    recent: Arc<Recent>,
    tracker: TaskTracker,
}

/// When reads began lately.
#[derive(Default)]
struct Recent(Mutex<HashMap<ReadKey, Instant>>);

/// The entry of a read that waits, taken out when dropped.
struct WaitingRead {
    asked: ReadKey,
    waiting: Arc<WaitingReads>,
}

impl Drop for WaitingRead {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.asked);
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl History {
    /// Returns none yet; they run on `tracker`.
    pub(super) fn new(storage: Storage, payload_bytes_max: usize, tracker: TaskTracker) -> Self {
        let reads = (READS_BYTES / payload_bytes_max.max(1)).clamp(READS_MIN, READS_MAX);
        Self {
            storage,
            turns: Arc::new(Semaphore::new(reads)),
            waiting: Arc::default(),
            recent: Arc::default(),
            tracker,
        }
    }

    /// Reads a page, or shares in a read of the same that has not begun. It begins when there is a turn, and
    /// some time after the last of the same has begun.
    pub(super) fn read(&self, asked: ReadKey) -> Shared<Read> {
        let mut waiting = self.waiting.lock();
        if let Some(read) = waiting.get(&asked).and_then(WeakShared::upgrade) {
            return read;
        }
        let (storage, turns, recent) = (self.storage.clone(), self.turns.clone(), self.recent.clone());
        let due = recent.due(&asked);
        let entry = WaitingRead { asked: asked.clone(), waiting: self.waiting.clone() };
        let read: Read = Box::pin(async move {
            if let Some(due) = due {
                sleep_until(due).await;
            }
            let _turn = turns.acquire().await;
            let asked = entry.asked.clone();
            recent.note(&asked);
            // From here on it may miss what the next one to ask must find.
            drop(entry);
            page(&storage, asked).await
        });
        let read = driven(&self.tracker, read).shared();
        if let Some(weak) = read.downgrade() {
            waiting.insert(asked, weak);
        }
        read
    }
}

impl Recent {
    /// Returns when a read may begin, if not at once.
    fn due(&self, asked: &ReadKey) -> Option<Instant> {
        let began = *self.0.lock().get(asked)?;
        Some(began + GATHER).filter(|due| *due > Instant::now())
    }

    /// Notes that a read begins now.
    fn note(&self, asked: &ReadKey) {
        let now = Instant::now();
        let mut recent = self.0.lock();
        if recent.len() >= RECENT_MAX {
            recent.retain(|_, began| *began + GATHER > now);
        }
        if recent.len() < RECENT_MAX {
            recent.insert(asked.clone(), now);
        }
    }
}

async fn page(storage: &Storage, asked: ReadKey) -> Outcome {
    let ReadKey { ref topic, after, gap_check, limit, bytes_max, view } = asked;
    let read = || async move {
        match view {
            View::All => {
                let range = Range { order: Order::Asc, after, gap_check, limit, bytes_max };
                storage.messages.read(topic, range).await
            }
            View::Latest { goes_on } => {
                let range = LatestRange { after, gap_check, goes_on, limit, bytes_max };
                storage.messages.latest(topic, range).await
            }
        }
    };
    let mut batch = read().await.map_err(Arc::new)?;
    let mut passed = None;
    if gap_check == GapCheck::Epoch && batch.reached.is_none() && batch.gap.is_none() {
        // The tail first, so that whatever comes after it is found by the read or missed by somebody
        // who stands at the tail.
        passed = storage.live.tail(topic).await.map_err(Arc::new)?.last;
        batch = read().await.map_err(Arc::new)?;
        passed = passed.filter(|_| batch.reached.is_none());
    }
    let messages = batch.messages.into_iter();
    Ok(Arc::new(Page {
        gap: batch.gap.map(Arc::new),
        messages: messages.map(|stored| Arc::new(LiveMessage::new(topic.clone(), stored))).collect(),
        reached: batch.reached,
        passed,
        epoch: batch.epoch,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::test_message;
    use crate::storage::test_storage;

    fn topic() -> TopicName {
        TopicName::parse("t").expect("a name")
    }

    fn asked(seq: u64) -> ReadKey {
        let after = Some(MessageId::new(0, seq));
        let (gap_check, view) = (GapCheck::Seen, View::All);
        ReadKey { topic: topic(), after, gap_check, limit: 10, bytes_max: 1 << 16, view }
    }

    async fn append(history: &History) {
        let results = history.storage.messages.append(vec![test_message(&topic())]).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Reads, and returns what was found with how long it took.
    async fn read(history: &History, asked: ReadKey) -> (usize, Duration) {
        let began = Instant::now();
        let page = history.read(asked).await.expect("a page");
        (page.messages.len(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_before_a_read_begins_shares_in_it() {
        let history = History::new(test_storage(), 1, TaskTracker::new());
        append(&history).await;
        let one = history.read(asked(1));
        assert!(one.ptr_eq(&history.read(asked(1))));
        assert!(!one.ptr_eq(&history.read(asked(2))));
        let all = history.turns.acquire_many(64).await;
        assert_eq!(history.turns.available_permits(), 0, "that is all of them");
        assert!(one.clone().now_or_never().is_none(), "nobody reads without a turn");
        drop(all);
        assert_eq!(one.await.expect("a page").messages.len(), 1);
        assert!(history.waiting.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_read_of_the_same_waits_and_finds_what_came_meanwhile() {
        let history = History::new(test_storage(), 1, TaskTracker::new());
        append(&history).await;
        assert_eq!(read(&history, asked(1)).await, (1, Duration::ZERO), "the first waits for nobody");
        append(&history).await;
        assert_eq!(read(&history, asked(2)).await, (2, Duration::ZERO), "another cursor is another read");
        let (found, after) = read(&history, asked(1)).await;
        assert_eq!(found, 2);
        // The timer counts whole milliseconds.
        assert!(after >= GATHER && after <= GATHER + Duration::from_millis(1), "{after:?}");
        tokio::time::advance(GATHER).await;
        assert_eq!(read(&history, asked(1)).await, (2, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_reads_is_bounded() {
        let history = History::new(test_storage(), 1, TaskTracker::new());
        append(&history).await;
        let many = RECENT_MAX as u64 + 10;
        for seq in 1..=many {
            assert_eq!(read(&history, asked(seq)).await.1, Duration::ZERO);
        }
        assert_eq!(history.recent.0.lock().len(), RECENT_MAX);
        assert_eq!(
            read(&history, asked(many)).await.1,
            Duration::ZERO,
            "not remembered, so it need not wait"
        );
        tokio::time::advance(GATHER).await;
        assert_eq!(read(&history, asked(many)).await.1, Duration::ZERO);
        assert_eq!(history.recent.0.lock().len(), 1, "those that are over are forgotten");
    }
}
