//! A lock that guards a bucket: what it may answer, and clients that hold it, lose it, and write all the same.

use std::sync::Arc;

use serde_json::{Value, json};
use stateright::semantics::SequentialSpec;
use tidemill::proto::{Code, MessageId};

use super::STEPS;
use super::asking::{Asked, Door, Told};
use super::checked::History;
use crate::support::dice::Dice;
use crate::support::relay::Answer;

const JSON: (&str, &str) = ("content-type", "application/json");

/// What is asked of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// By somebody of this name, who may ask again.
    Acquire(String),
    Release(String),
    /// Somebody who has this fence changes a key of the bucket.
    Write(MessageId),
    /// An operator takes it away.
    Take,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ret {
    Granted(MessageId),
    /// By whom it is held.
    Locked(String),
    Done,
    Lost,
    /// This fence stands against it.
    Fenced(Option<MessageId>),
}

/// Who holds the lock.
///
/// Where clients wait it is handed to who is next, who comes for it later or never: then it may be held by somebody of whom
/// nobody has been told, and who it is that stands in the way is not checked.
#[derive(Clone, Debug)]
pub(super) struct Held {
    waits: bool,
    /// Who, with the fence; `None` where the answer was lost.
    by: Option<(String, Option<MessageId>)>,
    /// The last fence that is known.
    last: Option<MessageId>,
}

impl Held {
    pub(super) const fn new(waits: bool) -> Self {
        Self { waits, by: None, last: None }
    }

    fn is_by(&self, name: &str) -> bool {
        self.by.as_ref().is_some_and(|(by, _)| by == name)
    }

    fn grows_to(&mut self, fence: MessageId) -> bool {
        self.last.replace(fence).is_none_or(|last| last < fence)
    }

    /// Returns whether who holds it can have this fence.
    fn has(&mut self, fence: MessageId) -> bool {
        match &mut self.by {
            None => false,
            Some((_, Some(known))) => *known == fence,
            Some((_, unknown)) => {
                *unknown = Some(fence);
                self.grows_to(fence)
            }
        }
    }
}

impl SequentialSpec for Held {
    type Op = Op;
    type Ret = Ret;

    /// Does what was asked for, where nobody knows what was told.
    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Acquire(name) => self.by = self.by.take().or_else(|| Some((name.clone(), None))),
            Op::Release(name) => drop(self.by.take_if(|(by, _)| by == name)),
            Op::Take => self.by = None,
            Op::Write(_) => {}
        }
        Ret::Done
    }

    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        match (op, ret) {
            // It was granted before, and the answer was lost.
            (Op::Acquire(name), Ret::Granted(fence)) if self.is_by(name) => self.has(*fence),
            (Op::Acquire(name), Ret::Granted(fence)) => {
                self.by.replace((name.clone(), Some(*fence))).is_none() && self.grows_to(*fence)
            }
            (Op::Acquire(_), Ret::Locked(by)) => self.waits || self.is_by(by),
            (Op::Release(name), Ret::Done) => self.by.take().is_some_and(|(by, _)| by == *name),
            (Op::Release(name), Ret::Lost) => !self.is_by(name),
            (Op::Take, Ret::Done) => self.by.take().is_some(),
            (Op::Take, Ret::Lost) => self.by.is_none(),
            // Who has a fence was told it, and so it is known here.
            (Op::Write(fence), Ret::Done) => matches!(self.by, Some((_, Some(held))) if held == *fence),
            (Op::Write(fence), Ret::Fenced(against)) => {
                let is_other = !matches!(self.by, Some((_, Some(held))) if held == *fence);
                let is_so = match against {
                    None => self.by.is_none(),
                    Some(against) => *against != *fence && self.has(*against),
                };
                is_other && (self.waits || is_so)
            }
            _ => false,
        }
    }
}

/// A lock of a round.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) name: String,
    /// Whether clients wait for it.
    pub(super) waits: bool,
    pub(super) history: History<Held>,
}

/// What a client has of the lock.
struct Grant {
    name: String,
    token: Value,
    fence: MessageId,
}

fn fence_of(granted: &Value) -> MessageId {
    granted["fence"].as_str().and_then(|fence| fence.parse().ok()).unwrap_or_else(|| panic!("{granted}"))
}

fn read(op: &Op, answer: &Answer) -> Ret {
    if answer.status < 300 {
        return match op {
            Op::Acquire(_) => Ret::Granted(fence_of(&answer.json())),
            Op::Release(_) | Op::Write(_) | Op::Take => Ret::Done,
        };
    }
    let problem = answer.problem();
    match problem.code {
        Code::Locked => Ret::Locked(problem.holder.map_or_else(String::new, |holder| holder.to_string())),
        Code::LockLost | Code::LockNotHeld => Ret::Lost,
        Code::Fenced => Ret::Fenced(problem.fence),
        _ => panic!("{op:?}: {answer:?}"),
    }
}

/// One client of a lock.
struct Client {
    lock: Arc<Lock>,
    door: Door,
    thread: super::checked::Thread,
    holds: Option<Grant>,
    /// The fence that it had before, or has.
    fence: Option<MessageId>,
}

impl Client {
    /// Asks for something until it is known what came of it.
    async fn ask(&mut self, op: Op, asked: &Asked<'_>) -> Option<Answer> {
        loop {
            self.lock.history.asked(&self.thread, op.clone());
            let told = self.door.ask(asked).await;
            self.lock.history.told(&mut self.thread, &told, |answer| read(&op, answer));
            if let Told::Answer(answer) = told {
                return Some(answer);
            }
            if !self.door.has_time() {
                return None;
            }
        }
    }

    async fn acquire(&mut self) {
        let name = self.door.name();
        let mut body = json!({"holder": name, "ttl": "10m", "guards": {"bucket": self.lock.name}});
        if self.lock.waits {
            body["wait"] = json!(2);
        }
        let (path, body) = (format!("/api/v1/locks/{}", self.lock.name), body.to_string());
        let headers = [JSON, ("idempotency-key", &*name)];
        let asked = Asked { method: "POST", path: &path, headers: &headers, body: &body };
        let answer = self.ask(Op::Acquire(name.clone()), &asked).await;
        if let Some(granted) = answer.filter(|answer| answer.status == 201) {
            let granted = granted.json();
            let fence = fence_of(&granted);
            (self.holds, self.fence) =
                (Some(Grant { name, token: granted["token"].clone(), fence }), Some(fence));
        }
    }

    async fn release(&mut self, grant: Grant) {
        assert_eq!(self.fence, Some(grant.fence));
        let (path, body) =
            (format!("/api/v1/locks/{}/release", self.lock.name), json!({"token": grant.token}).to_string());
        let asked = Asked { method: "POST", path: &path, headers: &[JSON], body: &body };
        self.ask(Op::Release(grant.name), &asked).await;
    }

    async fn write(&mut self, fence: MessageId) {
        let (path, shown) =
            (format!("/api/v1/keys/{}/k", self.lock.name), format!("{}={fence}", self.lock.name));
        let headers = [JSON, ("tidemill-fence", &*shown)];
        self.ask(Op::Write(fence), &Asked { method: "PUT", path: &path, headers: &headers, body: "1" }).await;
    }

    async fn take(&mut self) {
        let name = &self.lock.name;
        let path = format!("/api/v1/locks/{name}?guards=bucket:{name}");
        self.ask(Op::Take, &Asked { method: "DELETE", path: &path, headers: &[], body: "" }).await;
    }
}

/// Acquires, writes and releases, and writes when it holds the lock no more; where nobody waits, takes it away.
pub(super) async fn act(lock: Arc<Lock>, door: Door, mut dice: Dice) {
    let (thread, waits) = (lock.history.thread(), lock.waits);
    let mut client = Client { lock, door, thread, holds: None, fence: None };
    for _ in 0..STEPS {
        tokio::time::sleep(dice.up_to_ms(15)).await;
        match (client.holds.take(), dice.roll(10), client.fence) {
            (Some(grant), 0..=4, _) => {
                client.write(grant.fence).await;
                client.holds = Some(grant);
            }
            (Some(grant), ..) => client.release(grant).await,
            (None, 0..=2, Some(late)) => client.write(late).await,
            (None, 3, _) if !waits => client.take().await,
            (None, ..) => client.acquire().await,
        }
        if !client.door.has_time() {
            return;
        }
    }
    // Nobody waits for who has gone.
    if let Some(grant) = client.holds.take() {
        client.release(grant).await;
    }
}

#[test]
fn the_check_of_locks_finds_what_cannot_be() {
    let at = |ms| MessageId::new(ms, 1);
    let acquire = |name: &str| Ok(Op::Acquire(name.to_owned()));
    let release = |name: &str| Ok(Op::Release(name.to_owned()));
    let granted = |ms| Err(Ret::Granted(at(ms)));
    let write = |ms| Ok(Op::Write(at(ms)));
    let (done, lost) = (|| Err(Ret::Done), || Err(Ret::Lost));
    let fenced = |against: Option<u64>| Err(Ret::Fenced(against.map(at)));
    for waits in [false, true] {
        let with = |more: Vec<(u64, Result<Op, Ret>)>| {
            let first = vec![(0, acquire("a")), (0, granted(1))];
            History::has_order(Held::new(waits), first.into_iter().chain(more).collect())
        };
        assert!(with(vec![(0, write(1)), (0, done()), (0, release("a")), (0, done())]));
        assert!(!with(vec![(1, acquire("b")), (1, granted(2))]), "two hold it");
        let handed = |more: Vec<_>| {
            let second = vec![(1, acquire("b")), (0, release("a")), (1, granted(2)), (0, done())];
            with(second.into_iter().chain(more).collect())
        };
        assert!(handed(vec![(0, write(1)), (0, fenced(Some(2)))]));
        assert!(!handed(vec![(0, write(1)), (0, done())]), "a late one comes through");
        assert!(!handed(vec![(1, write(2)), (1, fenced(None))]), "the holder does not");
        assert!(!handed(vec![(0, release("a")), (0, done())]), "it was released before");
        assert!(handed(vec![(0, release("a")), (0, lost())]));
        let late = vec![(0, release("a")), (0, done()), (1, acquire("b")), (1, granted(1))];
        assert!(!with(late), "fences grow");
        // An answer that was lost, and is found again by its name.
        let again =
            |ms| vec![(8, Ok(Op::Take)), (8, done()), (9, acquire("c")), (1, acquire("c")), (1, granted(ms))];
        assert!(with(again(2)));
        assert!(!with(again(1)));
    }
    let locked = |by: &str| Err(Ret::Locked(by.to_owned()));
    let told = |by: &str| vec![(0, acquire("a")), (0, granted(1)), (1, acquire("b")), (1, locked(by))];
    assert!(History::has_order(Held::new(false), told("a")));
    assert!(!History::has_order(Held::new(false), told("c")));
}
