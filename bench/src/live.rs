//! Publishing and subscribing at once: what `fanout`, `latency` and `topics` have in common.

use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{StreamExt as _, iter};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::check::Check;
use crate::error::BenchError;
use crate::flow::Flow;
use crate::load::{GRACE, Load};
use crate::measure::Meter;
use crate::pace::{Schedule, Ticker, schedules};
use crate::process::Usage;
use crate::progress::{DRAW_EVERY, busy};
use crate::reader::{self, Reader, Transport};
use crate::report::{Order, Row};
use crate::sender::{Mode, Sender, Sent, Shape, unstamp};

/// Connections that are opened at the same time.
const OPENING: usize = 64;

/// A connection that publishes, of either kind.
#[derive(Debug)]
pub(crate) enum Publisher {
    /// One request at a time.
    Sender(Box<Sender>),
    /// A window of messages.
    Flow(Box<Flow>),
}

impl Publisher {
    pub(crate) async fn run(self, meter: &Meter, schedule: Option<Schedule>) -> Sent {
        match self {
            Self::Sender(sender) => sender.run(meter, schedule).await,
            Self::Flow(flow) => flow.run(meter, schedule).await,
        }
    }
}

/// Opens connections that publish.
pub(crate) async fn publishers(
    load: &Load,
    shape: &Shape,
    window: usize,
    count: usize,
) -> Result<Vec<Publisher>, BenchError> {
    let open = async |number: u32| match shape.mode {
        Mode::Http | Mode::Bulk | Mode::Ndjson => {
            let sender = Sender::open(&load.target, &load.headers, shape, number).await;
            sender.map(|sender| Publisher::Sender(Box::new(sender)))
        }
        Mode::Ws | Mode::WsBinary => {
            let flow = Flow::open(&load.target, &load.headers, shape, window, number).await;
            flow.map(|flow| Publisher::Flow(Box::new(flow)))
        }
    };
    let mut opened = Vec::with_capacity(count);
    for number in (0..).take(count) {
        opened.push(open(number).await.map_err(|why| load.unreachable(why))?);
    }
    load.own(&shape.topics);
    Ok(opened)
}

/// Opens subscribers, each to one of `topics`.
pub(crate) async fn readers(
    load: &Load,
    transport: Transport,
    topics: Vec<Vec<String>>,
) -> Result<Vec<Reader>, BenchError> {
    let _busy = busy("subscribing");
    let open = |(number, topics): (usize, Vec<String>)| async move {
        let deadline = Instant::now() + GRACE;
        let opening = Reader::open(&load.target, &load.headers, transport, &topics, number);
        timeout_at(deadline, opening).await.unwrap_or_else(|_| Err("no answer to a subscription".to_owned()))
    };
    let mut opening = iter(topics.into_iter().enumerate().map(open)).buffer_unordered(OPENING);
    let mut opened = Vec::new();
    while let Some(reader) = opening.next().await {
        opened.push(reader.map_err(|why| load.unreachable(why))?);
    }
    Ok(opened)
}

/// What is run.
#[derive(Debug)]
pub(crate) struct Live {
    /// Who publishes.
    pub(crate) publishers: Vec<Publisher>,
    /// Who reads.
    pub(crate) readers: Vec<Reader>,
    /// Whether each reader reads all messages, in one order; else all readers together read them.
    pub(crate) ordered: bool,
    /// Requests a second, if they are paced.
    pub(crate) rate: Option<f64>,
    /// Messages after which to end.
    pub(crate) messages: Option<u64>,
    /// Whether the threads of the load stay awake while nothing comes. Else a receipt carries the time
    /// that waking them takes, and what they are told by costs the sender more.
    pub(crate) awake: bool,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    publish: Arc<Meter>,
    receive: Arc<Meter>,
    order: Order,
    usage: Usage,
}

impl Outcome {
    /// Returns a row for what was received, and one for what was published.
    pub(crate) fn rows(self, received: String, published: String) -> [Row; 2] {
        let mut receive = Row::of(received, "deliveries", &self.receive, self.usage);
        receive.order = Some(self.order);
        [receive, Row::of(published, "messages", &self.publish, self.usage)]
    }
}

/// Keeps a thread of the load from sleeping, and wakes who is to send. Whoever else wants the processor
/// has it as soon as nothing more is received: else a relay or a reader on the same one would wait until
/// the thread has had its share.
async fn stay_awake(mut ticker: Option<Ticker>) {
    let mut before = 0;
    loop {
        if let Some(ticker) = &mut ticker {
            ticker.tick();
        }
        let reads = reader::reads();
        if reads == before {
            std::thread::yield_now();
        }
        before = reads;
        tokio::task::yield_now().await;
    }
}

type Ended = watch::Receiver<Option<Arc<Vec<Sent>>>>;

impl Live {
    /// Publishes and reads until the run ends and every subscriber has got everything, or has waited
    /// for it long enough.
    pub(crate) async fn run(self, what: &str, load: &Load) -> Outcome {
        let window = load.window(self.rate.is_some());
        let publish = Arc::new(Meter::new(window, self.messages));
        let receive = Arc::new(Meter::new(window, None));
        let order = Arc::new(Mutex::new(Order::default()));
        let (tx, rx) = watch::channel(None);
        let publishers = self.publishers.len();
        let shared = (!self.ordered).then(|| Arc::new(Mutex::new(Check::new(publishers, false))));
        let mut tasks = JoinSet::new();
        for reader in self.readers {
            let (meter, order, ended) = (Arc::clone(&receive), Arc::clone(&order), rx.clone());
            match shared.clone() {
                Some(shared) => tasks.spawn(read_shared(reader, shared, meter, ended)),
                None => tasks.spawn(async move {
                    let found = read(reader, Check::new(publishers, true), &meter, ended).await;
                    order.lock().add(found);
                }),
            };
        }
        let start = window.from - load.warm_up;
        let paced = |rate| schedules(start, window.until, rate, publishers);
        let (schedules, mut ticker) = self.rate.map(paced).unzip();
        let mut schedules = schedules.into_iter().flatten();
        let mut publishing = JoinSet::new();
        for (number, publisher) in self.publishers.into_iter().enumerate() {
            let (meter, schedule) = (Arc::clone(&publish), schedules.next());
            publishing.spawn(async move { (number, publisher.run(&meter, schedule).await) });
        }
        tasks.spawn(async move {
            let mut sent = publishing.join_all().await;
            sent.sort_by_key(|(number, _)| *number);
            let sent = sent.into_iter().map(|(_, sent)| sent).collect();
            // Without readers nobody waits for it.
            let _ = tx.send(Some(Arc::new(sent)));
        });
        let mut awake = JoinSet::new();
        for _ in 0..if self.awake { load.threads } else { 0 } {
            awake.spawn(stay_awake(ticker.take()));
        }
        if let Some(ticker) = ticker {
            ticker.start();
        }
        let usage = load.drive(what, &receive, tasks).await;
        awake.abort_all();
        let mut order = *order.lock();
        if let (Some(shared), Some(sent)) = (shared, rx.borrow().clone()) {
            order.add(shared.lock().clone().finish(&sent));
        }
        Outcome { publish, receive, order, usage }
    }
}

/// Reads one subscriber's messages to the end.
async fn read(mut reader: Reader, mut check: Check, meter: &Meter, mut ended: Ended) -> Order {
    let deadline = meter.window.until + GRACE;
    let mut starts = Vec::new();
    let reading = async {
        let mut ending = pin!(ended.wait_for(Option::is_some));
        let mut sent: Option<Arc<Vec<Sent>>> = None;
        loop {
            if sent.as_ref().is_some_and(|sent| check.is_complete(sent)) {
                return;
            }
            let next = reader.next(|mark| {
                check.see(mark);
                starts.extend(unstamp(mark.at_nanos, meter.window.from));
            });
            let gaps = tokio::select! {
                biased;
                gaps = next => gaps,
                ended = &mut ending, if sent.is_none() => {
                    sent = Some(ended.ok().and_then(|sent| sent.clone()).unwrap_or_default());
                    Ok(0)
                }
            };
            meter.record_all(Instant::now(), 1, starts.drain(..));
            match gaps {
                Ok(gaps) => check.gaps(gaps),
                Err(why) => {
                    meter.failed(&why);
                    return;
                }
            }
        }
    };
    // Whatever has not come by then is lost, which the check finds.
    let _ = timeout_at(deadline, reading).await;
    let sent = match timeout_at(deadline + GRACE, ended.wait_for(Option::is_some)).await {
        Ok(Ok(sent)) => sent.clone().unwrap_or_default(),
        _ => Arc::default(),
    };
    check.finish(&sent)
}

/// Reads messages that all readers get together.
async fn read_shared(mut reader: Reader, shared: Arc<Mutex<Check>>, meter: Arc<Meter>, mut ended: Ended) {
    let deadline = meter.window.until + GRACE;
    let mut marks = Vec::new();
    let reading = async {
        loop {
            let sent = ended.borrow_and_update().clone();
            if sent.is_some_and(|sent| shared.lock().is_complete(&sent)) {
                return;
            }
            let gaps = tokio::select! {
                gaps = reader.next(|mark| marks.push(mark)) => gaps,
                _ = ended.changed() => Ok(0),
                // Others may have got the last one.
                () = tokio::time::sleep(DRAW_EVERY) => Ok(0),
            };
            let now = Instant::now();
            let mut check = shared.lock();
            let starts = marks.drain(..).filter_map(|mark| {
                check.see(mark);
                unstamp(mark.at_nanos, meter.window.from)
            });
            meter.record_all(now, 1, starts);
            match gaps {
                Ok(gaps) => check.gaps(gaps),
                Err(why) => {
                    meter.failed(&why);
                    return;
                }
            }
        }
    };
    let _ = timeout_at(deadline, reading).await;
}
