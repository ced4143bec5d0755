//! The threads of live reading in any order: a feed, those who publish, and readers that park, are woken
//! and take back what they left. By each seed the threads are switched elsewhere at the locks and flags between them;
//! where nobody goes on, a wake-up was lost, and that is found.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};
use tidemill_proto::{Cursor, MessageId, Since, TopicName};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::begin::Absent;
use super::feeds::Joined;
use super::primitives::in_any_order;
use super::{FeedOptions, Feeds, Item, LiveReader, Outlet, SharedBatch, TakeLimit, run_pattern};
use crate::access::{Caller, Opening, Sessions};
use crate::relay::test_message;
use crate::relay::watching::Watching;
use crate::storage::{HintListener, Storage};

/// Messages that come while the readers are there.
const MESSAGES: u64 = 4;
const READERS: usize = 2;
/// Orders that are tried for each seed.
const ORDERS: usize = 15;
/// Stack of each thread: without optimisation, a read of the storage alone takes tens of KiB.
const STACK_BYTES: usize = 512 * 1024;
/// How often the order is changed against the threads' wishes: a fault that needs more has not been seen.
const CHANGES: usize = 3;

/// A client that does not always take everything at once.
#[derive(Debug)]
struct Client {
    got: Vec<MessageId>,
    /// After how many deliveries it is busy.
    busy_in: usize,
    is_busy: bool,
    /// Who is told when it has everything: the reader may be parked until then.
    done: Arc<Notify>,
}

impl Client {
    /// Returns the last message, once it has come.
    fn last(&self) -> Option<MessageId> {
        self.got.last().copied().filter(is_last)
    }

    fn take(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Message(message) => self.got.push(message.id()),
                Item::Gap(gap) => panic!("nothing is missing: {gap:?}"),
                Item::Closed(_) => panic!("nothing has ended"),
                Item::Bookmark(..) => panic!("no pattern is read"),
            }
        }
    }
}

impl Outlet for Client {
    fn is_free(&self) -> bool {
        !self.is_busy
    }

    fn takes(&self, _: &SharedBatch) -> bool {
        self.is_free()
    }

    fn deliver(&mut self, batch: &SharedBatch) {
        assert!(!self.is_busy, "nobody delivers to who is not free");
        self.take(batch.items());
        self.is_busy = self.busy_in == 0;
        self.busy_in = self.busy_in.saturating_sub(1);
        if self.last().is_some() {
            self.done.notify_one();
        }
    }
}

fn is_last(id: &MessageId) -> bool {
    id.seq == MESSAGES
}

fn publish(storage: &Storage, topic: &TopicName) -> MessageId {
    let message = test_message(topic);
    let result = block_on(storage.messages.append(vec![message])).pop().expect("one message, one result");
    result.expect("it is accepted").id
}

/// Reads up to the last message, and parks whenever there is nothing to do.
async fn read(mut reader: LiveReader<Client>, topic: TopicName, number: usize, frames: Arc<Notify>) {
    let since = Since::Cursor(if number == 0 { Cursor::Earliest } else { Cursor::Latest });
    let from = reader.add(&topic, since, Absent::Refuse).await.expect("the topic is there").cursor;
    if is_last(&from) {
        // It came after everything.
        return;
    }
    let mut client = Client { got: Vec::new(), busy_in: number, is_busy: false, done: frames.clone() };
    let limit = TakeLimit { items: 2, bytes: 1 << 16 };
    let last = loop {
        client.is_busy = false;
        let items = reader.take(limit);
        if items.is_empty() {
            (client, _) = reader.idle(client, frames.notified()).await;
        } else {
            client.take(&items);
        }
        if let Some(last) = client.last() {
            break last;
        }
    };
    // One after the other, each once.
    let first = from.next().expect("there are larger ids").seq;
    let all: Vec<_> = (first..=last.seq).map(|seq| MessageId::new(last.ms, seq)).collect();
    assert_eq!(client.got, all);
    assert_eq!(reader.cursor(&topic), Some(last));
}

/// One run, from the first message to the last.
fn run() {
    // Holds what nobody waits for: the hub's own tasks, which look once a second.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _context = runtime.enter();
    let storage = crate::storage::test_storage();
    let topic = TopicName::parse("t").expect("a name");
    publish(&storage, &topic);
    let token = CancellationToken::new();
    let options = FeedOptions {
        sweep_every: Duration::from_secs(1),
        linger: Duration::from_secs(10),
        topics_max: 1,
        pending_bytes_max: 1 << 20,
        ring_bytes_max: 1 << 20,
        payload_bytes_max: 1 << 20,
    };
    let feeds = Feeds::start(
        storage.clone(),
        Watching::new(storage.clone()),
        options,
        run_pattern,
        &TaskTracker::new(),
        &token,
    );
    let listener: Arc<dyn HintListener> = feeds.clone();
    storage.live.listen(Arc::downgrade(&listener));
    let sessions = Sessions::new(token.clone());
    let Joined { feed, begun: tail, .. } =
        block_on(feeds.join(&topic, Absent::Refuse)).expect("the topic is there");
    let running = shuttle::future::spawn(feed.clone().run(tail.expect("it begins now")));

    let frames: [Arc<Notify>; READERS] = std::array::from_fn(|_| Arc::default());
    let readers: Vec<_> = frames
        .iter()
        .enumerate()
        .map(|(number, frames)| {
            let reader =
                LiveReader::new(feeds.clone(), sessions.open(&Caller::anyone(), Opening::by_the_node()));
            shuttle::future::spawn(read(reader, topic.clone(), number, frames.clone()))
        })
        .collect();
    let publisher = {
        let (storage, topic) = (storage.clone(), topic.clone());
        thread::spawn(move || {
            for _ in 0..MESSAGES {
                publish(&storage, &topic);
            }
        })
    };
    // Something else to do for readers that are parked.
    let others = thread::spawn(move || frames.iter().for_each(|frames| frames.notify_one()));
    publisher.join().expect("a publisher");
    others.join().expect("somebody else");
    for reader in readers {
        block_on(reader).expect("a reader");
    }
    assert!(feed.subscribers().is_empty(), "who has left is not told");
    feed.stop();
    block_on(running).expect("the feed");
}

fn check(scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    in_any_order(|| Runner::new(scheduler, config).run(run));
}

proptest! {
    #[test]
    fn who_parks_is_told_of_everything_in_any_order(seed: u64) {
        check(RandomScheduler::new_from_seed(seed, ORDERS));
        check(PctScheduler::new_from_seed(seed, CHANGES, ORDERS));
    }
}
