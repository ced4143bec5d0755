//! Whole scenarios on a storage that fails by a seed: publishers on every way, readers that come and go at
//! any moment, topics trimmed, deleted and made again. What everybody was told is held against what the
//! storage did.
//!
//! In the room of the relay time is held, and moves when nobody has anything to do: a second of faults
//! takes milliseconds, and the same seed gives the same run. Over sockets time is real.

mod inside;
mod publishers;
mod readers;
mod repeated;
mod truth;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill::clock::Clock;
use tidemill::proto::{MessageId, Timestamp, TopicName};
use tidemill::storage::TopicPolicy;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::inside::Inside;
use self::publishers::{Attempt, PublishBy};
use self::readers::{ReadBy, Reading};
use self::truth::Truth;
use crate::support::dice::{Dice, seeds};
use crate::support::faulty::{Faulty, Rates};
use crate::support::ground::{append, json, message, topic};
use crate::support::length;
use crate::support::relay::{TestRelay, memory_with, try_send};

/// In what time every request must end: it may wait for those in front of it, each of which is late.
const DEADLINE: Duration = Duration::from_secs(5);

/// In what time every reader must have come to the end, once there are no more faults.
const SETTLED: Duration = Duration::from_secs(20);

/// A scenario may take as long.
const LONG: Duration = Duration::from_mins(1);

/// The last message of every topic.
const END: &str = "\"end\"";

/// Where the clock of a scenario starts whose time is held.
const NOON: u64 = 1_800_000_000_000;

/// The way to the relay.
#[derive(Debug)]
enum Door {
    Inside(Inside),
    Outside(SocketAddr),
}

/// How much happens.
#[derive(Clone, Copy, Debug)]
struct Size {
    publishers: u64,
    batches: u64,
    readers: u64,
    changes: u64,
}

const SIZE: Size = Size { publishers: 5, batches: 25, readers: 12, changes: 25 };

/// What all who take part in a scenario share.
#[derive(Debug)]
struct World {
    faulty: Arc<Faulty>,
    door: Door,
    clock: Clock,
    topics: Vec<TopicName>,
    /// Ids that publishers were told.
    told: Mutex<HashMap<TopicName, Vec<MessageId>>>,
    attempts: Mutex<Vec<Attempt>>,
}

impl World {
    fn topic(&self, dice: &mut Dice) -> &TopicName {
        &self.topics[usize::try_from(dice.roll(self.topics.len() as u64)).expect("an index")]
    }

    /// Returns one of the ids that publishers were told, if there is one.
    fn id(&self, topic: &TopicName, dice: &mut Dice) -> Option<MessageId> {
        let told = self.told.lock();
        Some(dice.pick(told.get(topic)?))
    }

    /// Lets the clock of the storage go on, or back.
    fn move_clock(&self, dice: &mut Dice) {
        let now = self.clock.now().as_millis();
        let back = dice.chance(30);
        let by = dice.roll(4);
        self.clock.set(Timestamp::from_millis(if back { now - by } else { now + by }));
    }

    /// Trims topics, deletes them, and looks at them.
    async fn change(self: Arc<Self>, changes: u64, mut dice: Dice) {
        for _ in 0..changes {
            sleep(dice.up_to_ms(40)).await;
            let topic = self.topic(&mut dice).clone();
            let keep = dice.pick(&[0, 1, 5, 30, 100]);
            let roll = dice.roll(10);
            let change = async {
                match (&self.door, roll) {
                    (Door::Inside(inside), 0..=5) => inside.trim(&topic, keep).await,
                    (Door::Inside(inside), 6..=7) => inside.delete(&topic).await,
                    (Door::Inside(inside), _) => inside.look_at(&topic).await,
                    (Door::Outside(relay), 0..=5) => trim(*relay, &topic, keep).await,
                    (Door::Outside(relay), 6..=7) => {
                        ask(*relay, "DELETE", &format!("/api/v1/topics/{topic}"), "").await;
                    }
                    (Door::Outside(relay), _) => {
                        ask(*relay, "GET", &format!("/api/v1/topics/{topic}"), "").await;
                    }
                }
            };
            timeout(DEADLINE, change).await.expect("I7: a change ends in time");
        }
    }
}

async fn trim(relay: SocketAddr, topic: &TopicName, keep: u64) {
    ask(relay, "POST", &format!("/api/v1/topics/{topic}/trim"), &format!(r#"{{"keep":{keep}}}"#)).await;
}

/// Asks for something that may fail; it must fail with a problem that says what happened.
async fn ask(relay: SocketAddr, method: &str, path: &str, body: &str) {
    let headers = [("content-type", "application/json")];
    let answer = try_send(relay, method, path, &headers, body.as_bytes()).await.expect("an answer");
    match answer.status {
        200 | 204 => {}
        404 | 503 | 504 => drop(answer.problem()),
        _ => panic!("{method} {path}: {answer:?}"),
    }
}

/// What takes part in a scenario.
#[derive(Clone, Copy, Debug)]
struct Cast {
    size: Size,
    publish_by: &'static [PublishBy],
    read_by: &'static [ReadBy],
}

/// Runs a scenario, checks everything, and returns what readers got.
async fn play(world: &Arc<World>, cast: Cast, dice: &mut Dice) -> Vec<Reading> {
    let Cast { size, publish_by, read_by } = cast;
    let mut actors = JoinSet::new();
    for number in 0..size.publishers {
        let by = publish_by[usize::try_from(number % publish_by.len() as u64).expect("an index")];
        actors.spawn(publishers::publish(world.clone(), by, number, size.batches, dice.of(number)));
    }
    actors.spawn(world.clone().change(size.changes, dice.of(1_000)));
    let mut readers = JoinSet::new();
    for number in 0..size.readers {
        let by = read_by[usize::try_from(number % read_by.len() as u64).expect("an index")];
        readers.spawn(readers::read(world.clone(), by, number, dice.of(2_000 + number)));
    }
    let work = async {
        loop {
            tokio::select! {
                biased;
                Some(reader) = readers.join_next() => panic!("a reader has ended early: {reader:?}"),
                actor = actors.join_next() => match actor {
                    Some(actor) => actor.expect("an actor"),
                    None => return,
                },
            }
        }
    };
    timeout(LONG, work).await.expect("publishing comes to its end");
    world.faulty.calm().await;
    for topic in &world.topics {
        let end = message(topic, json(END));
        append(&world.faulty.storage(), end).await.expect("there are no more faults");
    }
    let mut readings = Vec::new();
    let settle = async {
        while let Some(reading) = readers.join_next().await {
            readings.push(reading.expect("a reader"));
        }
    };
    timeout(SETTLED, settle).await.expect("I8: every reader comes to the end");
    readings.sort_by_key(|reading| reading.number);
    // Seen where what follows fails.
    for line in world.faulty.trace() {
        println!("{line}");
    }
    let truth = Truth::of(&world.faulty, &world.topics).await;
    truth.check_published(&world.attempts.lock());
    for reading in &readings {
        truth.check_read(reading);
    }
    readings
}

/// Returns the parts of a scenario: the storage that fails, what topics keep, and the dice.
fn set(seed: u64, clock: &Clock) -> (Arc<Faulty>, TopicPolicy, Dice) {
    let mut dice = Dice::from_seed(seed);
    let rates = if dice.roll(4) == 0 { Rates::MOST } else { Rates::SOME };
    let policy = TopicPolicy::newest(dice.pick(&[60, 1_000_000, 1_000_000]));
    let storage = memory_with(|options| options.clock = clock.clone());
    (Faulty::new(storage, rates, seed), policy, dice)
}

fn world(faulty: Arc<Faulty>, door: Door, clock: Clock, topics: &[&str]) -> Arc<World> {
    let topics = topics.iter().map(|name| topic(name)).collect();
    Arc::new(World { faulty, door, clock, topics, told: Mutex::default(), attempts: Mutex::default() })
}

const TOPICS: &[&str] = &["seeded.one", "seeded.two"];

/// Runs a scenario in the room of the relay, with time held.
async fn inside(seed: u64, topics: &[&str]) -> (Arc<Faulty>, Vec<Reading>) {
    let clock = Clock::manual(Timestamp::from_millis(NOON));
    let (faulty, policy, mut dice) = set(seed, &clock);
    let door = Door::Inside(Inside::on(&faulty, policy));
    let world = world(faulty.clone(), door, clock, topics);
    let cast = Cast { size: SIZE, publish_by: &[PublishBy::Inside], read_by: &[ReadBy::Inside] };
    let readings = play(&world, cast, &mut dice).await;
    (faulty, readings)
}

/// Runs a scenario against a relay, through these doors.
async fn outside(seed: u64, publish_by: &'static [PublishBy], read_by: &'static [ReadBy]) {
    let clock = Clock::system();
    let (faulty, policy, mut dice) = set(seed, &clock);
    let relay = TestRelay::start_with(faulty.storage(), |options| options.relay.policy = policy).await;
    let world = world(faulty, Door::Outside(relay.address), clock, TOPICS);
    play(&world, Cast { size: SIZE, publish_by, read_by }, &mut dice).await;
    relay.stop().await;
}

/// Seeds whose run has failed, and must not again.
const ONCE_FAILED: &[u64] = &[];

#[tokio::test(start_paused = true)]
async fn the_relay_keeps_its_promises_on_a_storage_that_fails() {
    for seed in ONCE_FAILED.iter().copied().chain(seeds(length::pick(40, 4_000))) {
        inside(seed, TOPICS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_keeps_its_promises_on_a_storage_that_fails() {
    let publish_by =
        &[PublishBy::Body, PublishBy::Envelope, PublishBy::Bulk, PublishBy::Lines, PublishBy::Body];
    let read_by = &[ReadBy::Pages, ReadBy::Wait, ReadBy::Poll, ReadBy::Events, ReadBy::Lines, ReadBy::Events];
    for seed in seeds(length::pick(5, 500)) {
        outside(seed, publish_by, read_by).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_keep_their_promises_on_a_storage_that_fails() {
    let publish_by = &[PublishBy::Socket, PublishBy::Socket, PublishBy::Body];
    let read_by = &[ReadBy::Socket, ReadBy::BinarySocket];
    for seed in seeds(length::pick(5, 500)) {
        outside(seed, publish_by, read_by).await;
    }
}
