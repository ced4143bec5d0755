//! Clients that change keys, locks, leases and series through kills, each what nobody else changes, and one number that all
//! change: what was acknowledged is there, and nothing was done twice.
//!
//! Who does not know what came of a request asks again, at the other node, under the same idempotency key, until it knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tidemill::proto::{BucketName, TopicName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::asking::{Asked, Door, Told};
use super::{Machines, PATIENCE, World};
use crate::support::dice::{Dice, seeds};
use crate::support::length;
use crate::support::relay::Answer;
use crate::support::resp::Reply;

const JSON: (&str, &str) = ("content-type", "application/json");
const CLIENTS: u64 = 6;
/// Keys of a client.
const KEYS: u64 = 4;
const BUCKET: &str = "once";
/// The bucket of what leases keep, whose log tells of ends, too.
const LEASED: &str = "leased";
/// The number that all change.
const TOTAL: &str = "total";

/// A key as its only client knows it.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    value: String,
    revision: String,
    has_time: bool,
}

/// One client, and what it must find.
struct Client {
    door: Door,
    number: u64,
    dice: Dice,
    keys: BTreeMap<String, Known>,
    /// Changes that the log must have of it.
    changes: usize,
    /// What it has added to the number of all.
    added: i64,
    /// How often what it has asked for was done without an answer, at most.
    unsure: u64,
    /// Points that were added, and as many more may have been.
    points: u64,
    points_unsure: u64,
    /// What it was told of fences: they grow.
    fence: Option<String>,
    /// Keys that its leases have kept, and those that they keep.
    ended: Vec<String>,
    kept: Vec<String>,
    /// How often each kind of thing was done.
    done: BTreeMap<&'static str, usize>,
}

fn text(json: &Value, field: &str) -> String {
    json[field].as_str().unwrap_or_else(|| panic!("no {field} in {json}")).to_owned()
}

/// Returns an id as it is compared.
fn id(text: &str) -> (u64, u64) {
    let (ms, seq) = text.split_once('-').expect("an id");
    (ms.parse().expect("a number"), seq.parse().expect("a number"))
}

impl Client {
    fn new(world: Arc<World>, number: u64, dice: Dice) -> Self {
        // It tries for longer than all kills take.
        let door = Door::new(world, number, Instant::now() + PATIENCE * 60, format!("once-{number}"));
        let (keys, done) = (BTreeMap::new(), BTreeMap::new());
        let (ended, kept) = (Vec::new(), Vec::new());
        Self {
            door,
            number,
            dice,
            keys,
            changes: 0,
            added: 0,
            unsure: 0,
            points: 0,
            points_unsure: 0,
            fence: None,
            ended,
            kept,
            done,
        }
    }

    /// Asks until it is told; returns whether something may have been done before that, too.
    async fn until_told(&mut self, asked: &Asked<'_>) -> (Answer, bool) {
        let mut may_be_again = false;
        loop {
            match self.door.ask(asked).await {
                Told::Answer(answer) => return (answer, may_be_again),
                Told::Nothing => {}
                Told::Unknown => {
                    may_be_again = true;
                    self.unsure += 1;
                }
            }
            assert!(self.door.has_time(), "nobody has answered {} {}", asked.method, asked.path);
        }
    }

    /// Asks under an idempotency key of its own.
    async fn once(&mut self, method: &str, path: &str, body: &Value, fence: Option<&str>) -> Answer {
        let key = self.door.name();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = vec![JSON, ("idempotency-key", &*key)];
        headers.extend(fence.map(|fence| ("tidemill-fence", fence)));
        self.until_told(&Asked { method, path, headers: &headers, body: &body }).await.0
    }

    async fn plain(&mut self, method: &str, path: &str, body: &Value) -> (Answer, bool) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.until_told(&Asked { method, path, headers: &[JSON], body: &body }).await
    }

    fn key(&mut self) -> String {
        format!("k{}-{}", self.number, self.dice.roll(KEYS))
    }

    fn counter(&self) -> String {
        format!("n{}", self.number)
    }

    fn knows(&mut self, key: String, value: &str, revision: String, has_time: bool) {
        self.changes += 1;
        self.keys.insert(key, Known { value: value.to_owned(), revision, has_time });
    }

    async fn put(&mut self, fence: Option<&str>) {
        let (key, value, has_time) = (self.key(), json!(self.door.name()), self.dice.chance(300));
        let ttl = if has_time { "?ttl=1h" } else { "" };
        let answer = self.once("PUT", &format!("/api/v1/keys/{BUCKET}/{key}{ttl}"), &value, fence).await;
        let status = if self.keys.contains_key(&key) { 200 } else { 201 };
        assert_eq!(answer.status, status, "{key}: {answer:?}");
        assert_eq!(answer.json()["expires_at"].is_string(), has_time, "{answer:?}");
        self.knows(key, &value.to_string(), text(&answer.json(), "revision"), has_time);
    }

    async fn delete(&mut self) {
        let key = self.key();
        let answer = self.once("DELETE", &format!("/api/v1/keys/{BUCKET}/{key}"), &Value::Null, None).await;
        let was_there = self.keys.remove(&key).is_some();
        assert_eq!(answer.status, if was_there { 200 } else { 404 }, "{key}: {answer:?}");
        self.changes += usize::from(was_there);
    }

    async fn touch(&mut self) {
        let key = self.key();
        let path = format!("/api/v1/keys/{BUCKET}/{key}/touch");
        let (answer, _) = self.plain("POST", &path, &json!({ "ttl": "2h" })).await;
        match self.keys.get_mut(&key) {
            Some(known) => {
                assert_eq!((answer.status, text(&answer.json(), "revision")), (200, known.revision.clone()));
                known.has_time = true;
            }
            None => assert_eq!(answer.status, 404, "{key}: {answer:?}"),
        }
    }

    async fn increment(&mut self) {
        let (key, by) = (self.counter(), 1 + i64::try_from(self.dice.roll(9)).expect("it is small"));
        let path = format!("/api/v1/keys/{BUCKET}/{key}/increment");
        let answer = self.once("POST", &path, &json!({ "by": by }), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let before: i64 = self.keys.get(&key).map_or(0, |known| known.value.parse().expect("a number"));
        assert_eq!(answer.json()["value"], before + by, "{key} was added to once");
        self.knows(key, &(before + by).to_string(), text(&answer.json(), "revision"), false);
        let path = format!("/api/v1/keys/{BUCKET}/{TOTAL}/increment");
        let answer = self.once("POST", &path, &json!({ "by": by }), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.added += by;
        self.changes += 1;
    }

    /// Changes all that it has, and the number of all, in one step.
    async fn batch(&mut self) {
        let (gone, counter) = (self.key(), self.counter());
        let mut put = self.key();
        while put == gone {
            put = self.key();
        }
        let value = json!(self.door.name());
        let changes = json!({ "changes": [
            { "op": "put", "key": put, "value": value },
            { "op": "delete", "key": gone },
            { "op": "increment", "key": counter },
            { "op": "increment", "key": TOTAL },
        ] });
        let answer = self.once("POST", &format!("/api/v1/keys/{BUCKET}"), &changes, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = answer.json()["changed"].clone();
        assert_eq!(told[0]["is_new"], !self.keys.contains_key(&put), "{answer:?}");
        assert_eq!(told[1]["revision"].is_string(), self.keys.remove(&gone).is_some(), "{answer:?}");
        let before: i64 = self.keys.get(&counter).map_or(0, |known| known.value.parse().expect("a number"));
        assert_eq!(told[2]["value"], before + 1, "{answer:?}");
        self.changes += usize::from(told[1]["revision"].is_string()) + 1;
        self.added += 1;
        self.knows(put, &value.to_string(), text(&told[0], "revision"), false);
        self.knows(counter, &(before + 1).to_string(), text(&told[2], "revision"), false);
    }

    /// Takes a lock, writes as its holder, renews and releases it, and writes when it is no more.
    async fn lock(&mut self) {
        let name = format!("l{}", self.number);
        let path = format!("/api/v1/locks/{name}");
        let body = json!({ "holder": self.counter(), "ttl": "10m", "guards": { "bucket": BUCKET } });
        let granted = self.once("POST", &path, &body, None).await;
        assert_eq!(granted.status, 201, "it was released: {granted:?}");
        let granted = granted.json();
        let (token, fence) = (granted["token"].clone(), text(&granted, "fence"));
        assert!(self.fence.as_deref().is_none_or(|last| id(last) < id(&fence)), "fences grow: {granted}");
        self.fence = Some(fence.clone());
        let refused = self.once("POST", &path, &body, None).await;
        assert_eq!(refused.problem().code.as_str(), "locked", "it is held, and by one: {refused:?}");
        let shown = format!("{name}={fence}");
        self.put(Some(&shown)).await;
        let renewal = json!({ "token": token, "ttl": "10m" });
        let (renewed, _) = self.plain("POST", &format!("{path}/renew"), &renewal).await;
        assert_eq!((renewed.status, text(&renewed.json(), "fence")), (200, fence));
        let (released, may_be_again) =
            self.plain("POST", &format!("{path}/release"), &json!({ "token": token })).await;
        assert!(released.status == 204 || may_be_again && released.status == 409, "{released:?}");
        let key = self.key();
        let late = self.once("PUT", &format!("/api/v1/keys/{BUCKET}/{key}"), &json!(0), Some(&shown)).await;
        assert_eq!(late.problem().code.as_str(), "fenced", "{late:?}");
    }

    /// Puts a key under a lease, and ends that, or not.
    async fn lease(&mut self) {
        let (created, _) = self.plain("POST", "/api/v1/leases", &json!({ "ttl": "1h" })).await;
        assert_eq!(created.status, 201, "{created:?}");
        let lease = text(&created.json(), "lease");
        let key = self.door.name();
        let path = format!("/api/v1/keys/{LEASED}/{key}?lease={lease}");
        let put = self.once("PUT", &path, &json!("here"), None).await;
        assert_eq!(put.status, 201, "{put:?}");
        let (renewed, _) = self.plain("POST", &format!("/api/v1/leases/{lease}/renew"), &Value::Null).await;
        assert_eq!((renewed.status, renewed.json()["lost"].clone()), (200, json!([])), "{renewed:?}");
        if self.dice.chance(500) {
            let (ended, may_be_again) =
                self.plain("DELETE", &format!("/api/v1/leases/{lease}"), &Value::Null).await;
            assert!(ended.status == 204 || may_be_again && ended.status == 404, "{ended:?}");
            // Where the end was cut, what it kept may have its time yet.
            if !may_be_again {
                self.ended.push(key);
            }
        } else {
            self.kept.push(key);
        }
    }

    /// Adds points, of which a repeat may count twice.
    async fn measure(&mut self) {
        let before = self.unsure;
        let path = format!("/api/v1/series/s{}", self.number);
        let (added, _) = self.plain("POST", &path, &json!({ "value": 1 })).await;
        assert_eq!(added.status, 200, "{added:?}");
        self.points += 1;
        self.points_unsure += self.unsure - before;
    }

    async fn act(mut self, is_over: Arc<AtomicBool>) -> Self {
        // Once more of each, where nothing is killed.
        let mut left = 20;
        while left > 0 {
            left -= u32::from(is_over.load(Ordering::Relaxed));
            let what = match self.dice.roll(9) {
                0..=1 => {
                    self.put(None).await;
                    "put"
                }
                2 => {
                    self.delete().await;
                    "delete"
                }
                3 => {
                    self.touch().await;
                    "touch"
                }
                4 => {
                    self.increment().await;
                    "increment"
                }
                5 => {
                    self.batch().await;
                    "batch"
                }
                6 => {
                    self.lock().await;
                    "lock"
                }
                7 => {
                    self.lease().await;
                    "lease"
                }
                _ => {
                    self.measure().await;
                    "series"
                }
            };
            *self.done.entry(what).or_default() += 1;
        }
        self
    }

    /// Compares what it knows with what both nodes have.
    async fn check(&mut self) {
        let own: Vec<_> = (0..KEYS).map(|at| format!("k{}-{at}", self.number)).collect();
        let ended = self.ended.iter().map(|key| (key.clone(), 404));
        let leased: Vec<_> = ended.chain(self.kept.iter().map(|key| (key.clone(), 200))).collect();
        for _ in 0..2 {
            for key in own.iter().chain([&self.counter()]) {
                let path = format!("/api/v1/keys/{BUCKET}/{key}");
                let (found, _) = self.plain("GET", &path, &Value::Null).await;
                let has = (found.status == 200).then(|| Known {
                    value: found.text().to_owned(),
                    revision: found.header("etag").expect("a revision").trim_matches('"').to_owned(),
                    has_time: found.header("tidemill-expires-at").is_some(),
                });
                assert_eq!(has.as_ref(), self.keys.get(key), "{key}: {found:?}");
            }
            for (key, status) in &leased {
                let path = format!("/api/v1/keys/{LEASED}/{key}");
                let (found, _) = self.plain("GET", &path, &Value::Null).await;
                assert_eq!(found.status, *status, "{key}: {found:?}");
            }
            self.door.turn();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_through_kills_is_there_and_there_once() {
    for seed in seeds(length::pick(1, 100)) {
        let dice = Dice::from_seed(seed);
        let Some(machines) = Machines::start().await else { return };
        let (world, is_over) = (machines.world(), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(Client::new(world.clone(), number, dice.of(number)).act(is_over.clone()));
        }
        let machines = machines.kill(length::pick(9, 45), dice.of(1_000_000)).await;
        is_over.store(true, Ordering::Relaxed);
        let mut clients = clients.join_all().await;
        for client in &mut clients {
            client.check().await;
        }
        let total = clients[0].plain("GET", &format!("/api/v1/keys/{BUCKET}/{TOTAL}"), &Value::Null).await.0;
        assert_eq!(total.text(), clients.iter().map(|client| client.added).sum::<i64>().to_string());
        // Each change stands in the log once, and no other.
        let log = TopicName::log_of(&BucketName::parse(BUCKET).expect("a name"));
        let facts = machines.server.command(&["XINFO", "STREAM", &format!("stream:topic:{log}")]).await;
        let facts = facts.array();
        let at = facts.iter().position(|fact| matches!(fact, Reply::Bulk(name) if name == b"entries-added"));
        let logged = facts[at.expect("it says so") + 1].integer();
        let changes: usize = clients.iter().map(|client| client.changes).sum();
        assert_eq!(usize::try_from(logged), Ok(changes));
        for client in &mut clients {
            let path = format!("/api/v1/series/s{}?last=24h", client.number);
            let read = client.plain("GET", &path, &Value::Null).await.0.json();
            let may_be = client.points..=client.points + client.points_unsure;
            let count = read["total"]["count"].as_u64().expect("a number");
            assert!(may_be.contains(&count), "{may_be:?}: {read}");
        }
        let mut done = BTreeMap::<_, usize>::new();
        clients
            .iter()
            .flat_map(|client| &client.done)
            .for_each(|(what, count)| *done.entry(*what).or_default() += count);
        assert_eq!(done.len(), 8, "everything was done: {done:?}");
        let unknown = world.unknown.load(Ordering::Relaxed);
        assert!(unknown > 0, "some answer was lost");
        length::tell(format_args!("{changes} changes are there once, {unknown} answers were lost: {done:?}"));
    }
}
