//! The hand-over from a snapshot to what comes behind it (K3): watchers attach at any moment, are cut at any byte and come
//! back, while keys change over several relays, which restart, and the log is trimmed. What each was told is held against
//! the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidemill::proto::page::Order;
use tidemill::proto::{BucketName, MessageId, TopicName};
use tidemill::storage::{GapCheck, Logged, Range, Storage, Trim};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::log::{Change, Log};
use self::watching::{Cut, Session};
use crate::support::dice::{Dice, seeds};
use crate::support::ground::Ground;
use crate::support::length;
use crate::support::relay::{TestRelay, try_send};

mod log;
mod watching;

const BUCKET: &str = "handover";
const WRITERS: u64 = 4;
const WATCHERS: u64 = 8;
/// Names of keys begin with one of these.
const GROUPS: [&str; 3] = ["a", "b", "c"];
const KEYS_OF_GROUP: u64 = 12;
/// Values that let a snapshot have several pages.
const LARGE_BYTES: usize = 20_000;
/// A run may take as long.
const LONG: Duration = Duration::from_mins(2);

/// What all who take part share.
struct World {
    storage: Storage,
    log: TopicName,
    /// Where relays listen now.
    relays: Mutex<Vec<SocketAddr>>,
    /// What the log has had, as far as it was read.
    read: Mutex<Vec<Change>>,
    /// Everything before it may have been trimmed.
    trimmed: Mutex<MessageId>,
    attaches: AtomicUsize,
    is_over: AtomicBool,
}

impl World {
    fn relay(&self, dice: &mut Dice) -> SocketAddr {
        dice.pick(&self.relays.lock())
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Reads the log to its end, before anything of it is trimmed.
    async fn read_log(&self) {
        loop {
            let after = self.read.lock().last().map_or(MessageId::MIN, |last| last.id);
            let range = Range {
                order: Order::Asc,
                after: Some(after),
                gap_check: GapCheck::None,
                limit: 1_000,
                bytes_max: 8 << 20,
            };
            let Ok(batch) = self.storage.messages.read(&self.log, range).await else { return };
            if batch.messages.is_empty() {
                return;
            }
            let changes = batch.messages.iter().map(|message| {
                let Logged { key, change, more } = Logged::of(message).expect("a log has changes alone");
                Change { id: message.id, key: key.as_str().to_owned(), kind: change, more }
            });
            self.read.lock().extend(changes);
        }
    }

    /// Reads the log as it grows, and trims it now and then.
    async fn trim(self: Arc<Self>, mut dice: Dice) {
        while !self.is_over() {
            sleep(dice.up_to_ms(150)).await;
            self.read_log().await;
            let first = {
                let read = self.read.lock();
                let keep = usize::try_from(dice.pick(&[1, 5, 50, 500, 2_000])).expect("a count");
                match read.len().checked_sub(keep) {
                    Some(at) if dice.roll(3) == 0 => read[at].id,
                    Some(_) | None => continue,
                }
            };
            // Before it is done: whoever is told of it already has to be believed.
            {
                let mut trimmed = self.trimmed.lock();
                *trimmed = first.max(*trimmed);
            }
            let _ = self.storage.messages.trim(&self.log, Trim::Before(first)).await;
        }
    }

    async fn write(self: Arc<Self>, mut dice: Dice) {
        while !self.is_over() {
            let relay = self.relay(&mut dice);
            let (method, path, body) = change(&mut dice);
            let path = format!("/api/v1/keys/{BUCKET}{path}");
            let headers = [("content-type", "application/json")];
            // A relay that stops may not answer, or not take it.
            let answer = timeout(LONG, try_send(relay, method, &path, &headers, body.as_bytes())).await;
            if let Some(answer) = answer.expect("an answer in time") {
                assert!(matches!(answer.status, 200 | 201 | 404 | 503), "{method} {path}: {answer:?}");
            }
            if dice.roll(20) == 0 {
                sleep(dice.up_to_ms(30)).await;
            }
        }
    }
}

/// Returns a change of keys: method, path and body.
fn change(dice: &mut Dice) -> (&'static str, String, String) {
    let key = key(dice);
    match dice.roll(10) {
        0..=4 => ("PUT", format!("/{key}"), value(dice).to_string()),
        5 => ("PUT", format!("/{key}?ttl={}ms", 100 + dice.roll(300)), value(dice).to_string()),
        6 => ("DELETE", format!("/{key}"), String::new()),
        _ => {
            let mut changes = Vec::<Value>::new();
            for _ in 0..2 + dice.roll(6) {
                let key = self::key(dice);
                if changes.iter().any(|change| change["key"] == *key) {
                    continue;
                }
                changes.push(match dice.roll(3) {
                    0 => json!({ "op": "delete", "key": key }),
                    _ => json!({ "op": "put", "key": key, "value": value(dice) }),
                });
            }
            ("POST", String::new(), json!({ "changes": changes }).to_string())
        }
    }
}

fn key(dice: &mut Dice) -> String {
    format!("{}.{}", dice.pick(&GROUPS), dice.roll(KEYS_OF_GROUP))
}

fn value(dice: &mut Dice) -> Value {
    if dice.roll(10) == 0 { json!("v".repeat(LARGE_BYTES)) } else { json!(dice.roll(1_000)) }
}

async fn start(storage: Storage) -> TestRelay {
    let drain = Duration::from_millis(200);
    TestRelay::start_with(storage, |options| {
        options.drain = drain;
        options.drain_spread = drain;
        options.http.ping_every = Duration::from_millis(300);
    })
    .await
}

/// Restarts one relay after the other, on a port of its own each time, until the run is over; then stops all.
async fn restart(world: Arc<World>, mut relays: Vec<TestRelay>, storages: Vec<Storage>, mut dice: Dice) {
    while !world.is_over() {
        sleep(Duration::from_millis(200) + dice.up_to_ms(600)).await;
        let at = usize::try_from(dice.roll(relays.len() as u64)).expect("an index");
        let new = start(storages[at].clone()).await;
        world.relays.lock()[at] = new.address;
        std::mem::replace(&mut relays[at], new).stop().await;
    }
    for relay in relays {
        relay.stop().await;
    }
}

/// Watches again and again until there were enough attaches; returns what each attach has got.
async fn watch(world: Arc<World>, attaches: usize, mut dice: Dice) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    while world.attaches.fetch_add(1, Ordering::SeqCst) < attaches {
        // It goes on where it was, where it has been before, or begins.
        let mut session = match sessions.last() {
            Some(last) if dice.roll(4) != 0 => last.again(),
            Some(_) if dice.roll(2) == 0 => dice_of(&sessions, &mut dice).again(),
            Some(_) | None => Session::new(&mut dice, &GROUPS),
        };
        let cut = Cut::of(&mut dice);
        let until = async { session.run(world.relay(&mut dice), &world, cut).await };
        timeout(LONG, until).await.expect("a watch goes on or ends");
        sessions.push(session);
    }
    sessions
}

fn dice_of<'a>(sessions: &'a [Session], dice: &mut Dice) -> &'a Session {
    &sessions[usize::try_from(dice.roll(sessions.len() as u64)).expect("an index")]
}

/// Runs it once, with so many attaches.
async fn run(ground: &Ground, storages: Vec<Storage>, attaches: usize, dice: &Dice) {
    let mut relays = Vec::new();
    for storage in &storages {
        relays.push(start(storage.clone()).await);
    }
    let log = TopicName::log_of(&BucketName::parse(BUCKET).expect("a name"));
    let world = Arc::new(World {
        storage: ground.storage.clone(),
        log,
        relays: Mutex::new(relays.iter().map(|relay| relay.address).collect()),
        read: Mutex::default(),
        trimmed: Mutex::new(MessageId::MIN),
        attaches: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    });
    let started = Instant::now();
    let mut others = JoinSet::new();
    for number in 0..WRITERS {
        others.spawn(world.clone().write(dice.of(number)));
    }
    others.spawn(world.clone().trim(dice.of(100)));
    others.spawn(restart(world.clone(), relays, storages, dice.of(101)));
    let mut watchers = JoinSet::new();
    for number in 0..WATCHERS {
        watchers.spawn(watch(world.clone(), attaches, dice.of(200 + number)));
    }
    let mut sessions = Vec::new();
    loop {
        tokio::select! {
            biased;
            other = others.join_next() => panic!("somebody has ended early: {other:?}"),
            watcher = watchers.join_next() => match watcher {
                Some(watcher) => sessions.extend(watcher.expect("a watcher")),
                None => break,
            },
        }
    }
    world.is_over.store(true, Ordering::SeqCst);
    while let Some(other) = others.join_next().await {
        other.expect("it ends well");
    }
    world.read_log().await;
    let log = Log::of(std::mem::take(&mut *world.read.lock()));
    let mut seen = watching::Seen::default();
    for session in &sessions {
        session.check(&log, &mut seen);
    }
    println!("{:?}: {} changes, {} attaches: {seen:?}", started.elapsed(), log.len(), sessions.len());
    assert!(seen.is_varied(), "nothing of it may be missing in a run: {seen:?}");
}

/// Attaches of one run, in a bucket of its own.
const ATTACHES: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_the_hand_over_has_no_hole() {
    for seed in seeds(length::pick(1, 200)) {
        let ground = Ground::memory().await.expect("it is there");
        // Nodes of one memory know of each other as listeners do: one is told.
        run(&ground, vec![ground.storage.clone()], ATTACHES, &Dice::from_seed(seed)).await;
    }
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_several_relays_the_hand_over_has_no_hole() {
    use crate::support::ground::LIMITS;
    use crate::support::server::Kind;

    for seed in seeds(length::pick(1, 200)) {
        let Some(ground) = Ground::on(Kind::Valkey).await else { return };
        let mut storages = Vec::new();
        for _ in 0..3 {
            storages.push(ground.under(LIMITS).await);
        }
        run(&ground, storages, ATTACHES, &Dice::from_seed(seed)).await;
    }
}
