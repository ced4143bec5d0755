//! A key: what it may answer, and clients that compare and set it.

use std::sync::Arc;

use stateright::semantics::SequentialSpec;
use tidemill::proto::{Code, MessageId};

use super::STEPS;
use super::asking::{Asked, Door, Told};
use super::checked::History;
use crate::support::dice::Dice;
use crate::support::relay::Answer;

const JSON: (&str, &str) = ("content-type", "application/json");

/// What must be so before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Anything,
    Absent,
    Revision(MessageId),
}

/// What is asked of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Put(String, Condition),
    Delete(Condition),
}

/// What is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ret {
    Found(MessageId, String),
    Missing,
    Made(MessageId),
    /// The condition does not hold: there is this revision.
    Refused(Option<MessageId>),
}

#[derive(Clone, Debug)]
struct Cell {
    value: String,
    /// `None` where the answer of its put was lost, and nobody has read it since.
    revision: Option<MessageId>,
}

/// The key, as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    cell: Option<Cell>,
    /// The last revision that is known.
    last: Option<MessageId>,
}

impl Register {
    fn holds(&self, condition: Condition) -> bool {
        match condition {
            Condition::Anything => true,
            Condition::Absent => self.cell.is_none(),
            // Who knows a revision was told it, and so it is known here.
            Condition::Revision(of) => self.cell.as_ref().is_some_and(|cell| cell.revision == Some(of)),
        }
    }

    /// Notes a revision that is new; returns whether it can be.
    fn grows_to(&mut self, revision: MessageId) -> bool {
        self.last.replace(revision).is_none_or(|last| last < revision)
    }

    /// Returns whether the key can have this revision.
    fn has(&mut self, revision: Option<MessageId>) -> bool {
        match (&mut self.cell, revision) {
            (None, None) => true,
            (Some(Cell { revision: Some(known), .. }), Some(revision)) => *known == revision,
            (Some(cell @ Cell { revision: None, .. }), Some(revision)) => {
                cell.revision = Some(revision);
                self.grows_to(revision)
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl SequentialSpec for Register {
    type Op = Op;
    type Ret = Ret;

    /// Does what was asked for, where nobody knows what was told.
    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Read => {}
            Op::Put(value, condition) => {
                if self.holds(*condition) {
                    self.cell = Some(Cell { value: value.clone(), revision: None });
                }
            }
            Op::Delete(condition) => {
                if self.holds(*condition) {
                    self.cell = None;
                }
            }
        }
        Ret::Missing
    }

    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        match (op, ret) {
            (Op::Read, Ret::Found(revision, value)) => {
                self.cell.as_ref().is_some_and(|cell| cell.value == *value) && self.has(Some(*revision))
            }
            (Op::Read | Op::Delete(Condition::Anything), Ret::Missing) => self.cell.is_none(),
            (Op::Put(value, condition), Ret::Made(revision)) => {
                let may = self.holds(*condition) && self.grows_to(*revision);
                self.cell = Some(Cell { value: value.clone(), revision: Some(*revision) });
                may
            }
            (Op::Delete(condition), Ret::Made(revision)) => {
                let may = self.cell.is_some() && self.holds(*condition) && self.grows_to(*revision);
                self.cell = None;
                may
            }
            (Op::Put(_, condition) | Op::Delete(condition), Ret::Refused(revision)) => {
                *condition != Condition::Anything && self.has(*revision) && !self.holds(*condition)
            }
            (Op::Read, Ret::Made(_) | Ret::Refused(_))
            | (Op::Put(..) | Op::Delete(_), Ret::Found(..) | Ret::Missing) => false,
        }
    }
}

/// A key of a round.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) history: History<Register>,
}

fn revision(answer: &Answer) -> MessageId {
    let tag = answer.header("etag").unwrap_or_else(|| panic!("a revision: {answer:?}"));
    tag.trim_matches('"').parse().expect("a revision")
}

fn read(op: &Op, answer: &Answer) -> Ret {
    match (op, answer.status) {
        (Op::Read, 200) => Ret::Found(revision(answer), answer.text().trim_matches('"').to_owned()),
        (_, 200 | 201) => Ret::Made(revision(answer)),
        (_, 404 | 412) => {
            let problem = answer.problem();
            match problem.code {
                Code::KeyNotFound => Ret::Missing,
                Code::PreconditionFailed => Ret::Refused(problem.revision),
                _ => panic!("{op:?}: {answer:?}"),
            }
        }
        _ => panic!("{op:?}: {answer:?}"),
    }
}

/// Reads, puts and deletes the key. Every other client does so under idempotency keys, and asks again until it knows.
pub(super) async fn act(key: Arc<Key>, mut door: Door, mut dice: Dice) {
    let is_keyed = dice.chance(500);
    let path = format!("/api/v1/keys/histories/{}", key.name);
    let mut thread = key.history.thread();
    // The newest revision that it was told.
    let mut seen = None;
    let mut steps = 0;
    while steps < STEPS && door.has_time() {
        tokio::time::sleep(dice.up_to_ms(15)).await;
        let condition = match (dice.roll(4), seen) {
            (0, _) => Condition::Anything,
            (1, _) | (_, None) => Condition::Absent,
            (_, Some(seen)) => Condition::Revision(seen),
        };
        let op = match dice.roll(10) {
            0..=2 => Op::Read,
            3 => Op::Delete(if condition == Condition::Absent { Condition::Anything } else { condition }),
            _ => Op::Put(door.name(), condition),
        };
        let once = door.name();
        let tag = match condition {
            Condition::Revision(revision) => format!("\"{revision}\""),
            Condition::Anything | Condition::Absent => "*".to_owned(),
        };
        let (method, body, condition) = match &op {
            Op::Read => ("GET", String::new(), Condition::Anything),
            Op::Put(value, condition) => ("PUT", format!("\"{value}\""), *condition),
            Op::Delete(condition) => ("DELETE", String::new(), *condition),
        };
        let mut headers = Vec::new();
        headers.extend((method == "PUT").then_some(JSON));
        match condition {
            Condition::Anything => {}
            Condition::Absent => headers.push(("if-none-match", &*tag)),
            Condition::Revision(_) => headers.push(("if-match", &*tag)),
        }
        headers.extend((is_keyed && method != "GET").then_some(("idempotency-key", &*once)));
        let asked = Asked { method, path: &path, headers: &headers, body: &body };
        key.history.asked(&thread, op.clone());
        let told = if is_keyed { door.ask_until_told(&asked).await } else { door.ask(&asked).await };
        key.history.told(&mut thread, &told, |answer| {
            let told = read(&op, answer);
            match told {
                Ret::Found(revision, _) | Ret::Made(revision) | Ret::Refused(Some(revision)) => {
                    seen = Some(revision);
                }
                Ret::Missing | Ret::Refused(None) => {}
            }
            told
        });
        steps += u64::from(!matches!(told, Told::Nothing));
    }
}

#[test]
fn the_check_of_keys_finds_what_cannot_be() {
    let at = |ms| MessageId::new(ms, 0);
    let put = |value: &str, condition| Ok(Op::Put(value.to_owned(), condition));
    let found = |ms, value: &str| Err(Ret::Found(at(ms), value.to_owned()));
    let made = |ms| Err(Ret::Made(at(ms)));
    let has_order = |events| History::has_order(Register::default(), events);
    let first = || vec![(0, put("a", Condition::Absent)), (0, made(1))];
    let with = |more: Vec<(u64, Result<Op, Ret>)>| has_order(first().into_iter().chain(more).collect());
    let cas = || put("b", Condition::Revision(at(1)));
    assert!(with(vec![(0, Ok(Op::Read)), (0, found(1, "a"))]));
    // Both have compared with the same, and one was too late.
    let late = |ret| vec![(0, cas()), (1, put("c", Condition::Revision(at(1)))), (0, made(2)), (1, Err(ret))];
    assert!(with(late(Ret::Refused(Some(at(2))))));
    assert!(!with(late(Ret::Made(at(3)))), "both were made");
    assert!(!with(late(Ret::Refused(Some(at(1))))), "it was refused for nothing");
    // Who reads behind a put reads what was put.
    assert!(!with(vec![(0, cas()), (0, made(2)), (1, Ok(Op::Read)), (1, found(1, "a"))]));
    assert!(with(vec![(0, cas()), (1, Ok(Op::Read)), (0, made(2)), (1, found(1, "a"))]));
    assert!(!with(vec![(0, cas()), (0, made(1))]), "revisions grow");
    // An answer that was lost: it was made, or will be, or never, and once at most.
    let lost = |more: Vec<_>| with(std::iter::once((9, cas())).chain(more).collect());
    assert!(lost(vec![(0, Ok(Op::Read)), (0, found(1, "a")), (0, Ok(Op::Read)), (0, found(2, "b"))]));
    assert!(lost(vec![(0, Ok(Op::Read)), (0, found(1, "a"))]));
    assert!(!lost(vec![(0, Ok(Op::Read)), (0, found(2, "b")), (0, Ok(Op::Read)), (0, found(1, "a"))]));
    assert!(!lost(vec![(0, Ok(Op::Read)), (0, found(2, "b")), (0, Ok(Op::Read)), (0, found(3, "b"))]));
}
