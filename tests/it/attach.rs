//! R1 in full: ten thousand readers on every transport (in the full form, a hundred thousand) attach at any moment and at any cursor, while
//! messages are published as fast as the relay takes them and trimmed under the readers. What each one
//! gets is held against what was published.
//!
//! Most connect anew, read some tens of messages and leave; who starts near the end reads on until it
//! has come from history to what was published after it came. Half of them read from memory, half from
//! Valkey, there over two nodes of which one has buffers that are soon full.

#[cfg(feature = "valkey")]
mod herd;
mod published;
mod reading;
mod transports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tidemill::proto::page::Order;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::published::Track;
use self::reading::{From, Reading};
use self::transports::{Readings, Socket, Transport};
use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, ids, read_all, topic};
use crate::support::length;
use crate::support::relay::{STUCK, TestRelay};

/// Returns the number of attaches on each transport and each of two backends.
fn attaches() -> usize {
    length::pick(5_000, 50_000)
}

/// Readers at one time.
const AT_ONCE: usize = 32;

/// Topics, each with a publisher.
const TOPICS: u64 = 3;

/// Returns how long all of it may take on a busy machine.
fn long() -> Duration {
    length::pick(Duration::from_secs(200), Duration::from_mins(40))
}

/// What all readers of a test share.
#[derive(Debug)]
struct World {
    transport: Transport,
    relays: Vec<SocketAddr>,
    tracks: Vec<Arc<Track>>,
    dice: Dice,
    /// Readers that have begun.
    begun: AtomicU64,
    attaches: AtomicUsize,
    messages: AtomicUsize,
    gaps: AtomicUsize,
    crossings: AtomicUsize,
}

impl World {
    /// Reads as one client after the other, until there were enough attaches.
    async fn read(self: Arc<Self>) {
        while self.attaches.load(Ordering::SeqCst) < attaches() {
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            let mut dice = self.dice.of(number);
            let track = &self.tracks[usize::try_from(dice.roll(TOPICS)).expect("an index")];
            // At once, or right when a publish is confirmed.
            if dice.roll(2) == 0 {
                track.until(track.confirmed() + 1).await;
            }
            let from = From::roll(&mut dice, track);
            let read = match self.transport {
                Transport::WebSocketJson => self.on_a_socket(false, track, from, &mut dice).await,
                Transport::WebSocketBinary => self.on_a_socket(true, track, from, &mut dice).await,
                _ => self.on_a_request(track, from, &mut dice).await,
            };
            read.unwrap_or_else(|error| panic!("reader {number} from {from:?}: {error}"));
        }
    }

    async fn on_a_request(&self, track: &Arc<Track>, from: From, dice: &mut Dice) -> std::io::Result<()> {
        let several = match self.transport {
            Transport::EventsOfSeveral => true,
            Transport::Poll => dice.roll(5) == 0,
            _ => false,
        };
        let polls = self.transport == Transport::Poll;
        // A stream of several topics has one cursor for all, and an id is one of its topic alone.
        let is_id = matches!(from, From::After(..));
        let from = if several && !polls && is_id { From::Ago(dice.roll(200)) } else { from };
        let mut readings = Readings(vec![Reading::new(track.clone(), from, dice)]);
        for other in self.tracks.iter().filter(|other| several && other.place != track.place) {
            let from = if polls { From::roll(dice, other) } else { from };
            readings.0.push(Reading::new(other.clone(), from, dice));
        }
        let attaches = match self.transport {
            Transport::Lines => transports::by_lines(&self.relays, &mut readings, dice).await?,
            Transport::Wait => transports::by_waiting(&self.relays, &mut readings, dice).await?,
            Transport::Poll => transports::by_polling(&self.relays, &mut readings, dice).await?,
            _ => transports::by_events(&self.relays, &mut readings, dice).await?,
        };
        self.attaches.fetch_add(attaches, Ordering::SeqCst);
        for reading in &readings.0 {
            self.check(reading).await;
        }
        Ok(())
    }

    /// One reader in four attaches several times on its connection.
    async fn on_a_socket(
        &self,
        is_binary: bool,
        track: &Arc<Track>,
        from: From,
        dice: &mut Dice,
    ) -> std::io::Result<()> {
        let mut socket = Socket::connect(dice.pick(&self.relays), is_binary).await?;
        let mut reading = Reading::new(track.clone(), from, dice);
        socket.read(&mut reading, from, None).await?;
        self.attaches.fetch_add(1, Ordering::SeqCst);
        let again = if dice.roll(4) == 0 { 1 + dice.roll(2) } else { 0 };
        for _ in 0..again {
            let mut next = From::roll(dice, track);
            if dice.roll(2) == 0 {
                let cursor = socket.leave(&mut reading).await?;
                if dice.roll(2) == 0 && Some(cursor) == reading.last() {
                    // Where it was: the next one goes on without a hole.
                    track.until(reading.next()).await;
                    next = From::After(reading.next() - 1, cursor);
                }
                self.check(&reading).await;
                reading = Reading::new(track.clone(), next, dice);
                socket.read(&mut reading, next, None).await?;
            } else {
                // Subscribing again moves the reader.
                let mut moved = Reading::new(track.clone(), next, dice);
                socket.read(&mut moved, next, Some(&mut reading)).await?;
                self.check(&reading).await;
                reading = moved;
            }
            self.attaches.fetch_add(1, Ordering::SeqCst);
        }
        self.check(&reading).await;
        Ok(())
    }

    async fn check(&self, reading: &Reading) {
        reading.check().await;
        self.messages.fetch_add(reading.messages(), Ordering::SeqCst);
        self.gaps.fetch_add(reading.gaps(), Ordering::SeqCst);
        self.crossings.fetch_add(usize::from(reading.has_crossed()), Ordering::SeqCst);
    }

    fn tell(&self, took: Duration) {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        length::tell(format_args!(
            "{:?}: {} attaches by {} readers, {} of which came from history to live, {} messages, {} gaps; {} published; {took:.1?}",
            self.transport,
            count(&self.attaches),
            self.begun.load(Ordering::SeqCst),
            count(&self.crossings),
            count(&self.messages),
            count(&self.gaps),
            self.tracks.iter().map(|track| track.sent()).sum::<u64>(),
        ));
    }
}

/// Nothing of the readers is left.
async fn is_quiet(relay: &TestRelay) -> bool {
    let metrics = relay.get("/metrics").await;
    let stats = relay.get("/messages/poll/stats").await;
    metrics.text().contains("\ntidemill_http_connections 1\n")
        && !metrics
            .text()
            .lines()
            .any(|line| line.strip_prefix("tidemill_ws_sessions ").is_some_and(|count| count != "0"))
        && stats.json()["active_waiters"] == 0
}

async fn ten_thousand_attach(ground: &Ground, transport: Transport) {
    let mut relays = vec![TestRelay::start(ground.storage.clone()).await];
    if ground.has_server() {
        let other = ground.under(LIMITS).await;
        relays.push(
            TestRelay::start_with(other, |options| {
                options.http.subscriber_bytes_max = 4 * 1024;
                options.ws.buffer_bytes_max = 4 * 1024;
            })
            .await,
        );
    }
    let world = Arc::new(World {
        transport,
        relays: relays.iter().map(|relay| relay.address).collect(),
        tracks: (0..TOPICS).map(Track::new).collect(),
        dice: Dice::cast(),
        begun: AtomicU64::new(0),
        attaches: AtomicUsize::new(0),
        messages: AtomicUsize::new(0),
        gaps: AtomicUsize::new(0),
        crossings: AtomicUsize::new(0),
    });
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let mut publishers = JoinSet::new();
    for track in &world.tracks {
        let relay = world.relays[usize::try_from(track.place).expect("an index") % relays.len()];
        publishers.spawn(track.clone().publish(relay, world.dice.of(u64::MAX - track.place), stop.clone()));
        track.until(1).await;
    }
    let mut readers = JoinSet::new();
    for _ in 0..AT_ONCE {
        readers.spawn(world.clone().read());
    }
    let all = async {
        loop {
            tokio::select! {
                reader = readers.join_next() => match reader {
                    Some(reader) => reader.expect("a reader"),
                    None => return,
                },
                Some(publisher) = publishers.join_next() => publisher.expect("a publisher"),
            }
        }
    };
    if timeout(long(), all).await.is_err() {
        world.tell(began.elapsed());
        panic!("they do not come to the end");
    }
    world.tell(began.elapsed());
    stop.cancel();
    while let Some(publisher) = publishers.join_next().await {
        publisher.expect("a publisher");
    }
    // I1: what was confirmed and not trimmed is there, in its order, and nothing else is.
    for track in &world.tracks {
        let kept = read_all(&ground.storage, &topic(&track.name), Order::Asc, 1_000).await;
        assert_eq!(ids(&kept), track.kept(), "{}", track.name);
    }
    // I6.
    for relay in relays {
        eventually(STUCK, || is_quiet(&relay)).await;
        relay.stop().await;
    }
    // The test has had what it is about.
    assert!(world.crossings.load(Ordering::SeqCst) >= attaches() / 10, "few came from history to live");
    // Streams of several topics start from an old id only by resuming, which the relay's ring mostly covers.
    if transport != Transport::EventsOfSeveral {
        assert!(world.gaps.load(Ordering::SeqCst) >= attaches() / 500, "few met a gap");
    }
}

macro_rules! on_every_transport {
    ($($name:ident: $transport:ident),+ $(,)?) => {
        mod memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            let ground = crate::support::ground::Ground::memory().await.expect("memory is always there");
            super::ten_thousand_attach(&ground, super::Transport::$transport).await;
        })+ }
        #[cfg(feature = "valkey")]
        mod valkey { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
            if let Some(ground) = crate::support::ground::Ground::on(crate::support::server::Kind::Valkey).await {
                super::ten_thousand_attach(&ground, super::Transport::$transport).await;
            }
        })+ }
    };
}

on_every_transport! {
    ten_thousand_attach_by_websocket: WebSocketJson,
    ten_thousand_attach_by_binary_websocket: WebSocketBinary,
    ten_thousand_attach_by_events: Events,
    ten_thousand_attach_by_events_of_several_topics: EventsOfSeveral,
    ten_thousand_attach_by_lines: Lines,
    ten_thousand_attach_by_pages_that_wait: Wait,
    ten_thousand_attach_by_polls: Poll,
}

/// Two nodes on a cluster, on the transports whose readers stay.
#[cfg(feature = "valkey")]
mod cluster {
    use super::{Transport, ten_thousand_attach};
    use crate::support::ground::Ground;

    async fn attach(transport: Transport) {
        if let Some(ground) = Ground::in_cluster().await {
            ten_thousand_attach(&ground, transport).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ten_thousand_attach_by_binary_websocket() {
        attach(Transport::WebSocketBinary).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ten_thousand_attach_by_events() {
        attach(Transport::Events).await;
    }
}
