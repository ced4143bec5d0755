//! What consumers say of messages that they have, and what became of one.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidemill_proto::work::{GroupName, MessageStateName, Receipt, Settled, SettledStatus};
use tidemill_proto::{Code, MessageId, Problem, TopicName, json};
use tokio::time::{Instant, sleep};

use crate::access::Verb;
use crate::relay::{Failure, Gate};
use crate::slow;
use crate::storage::{Fate, Outcome, Refusal, STEP_MESSAGES_MAX, Settlement, StorageError, Verdict};

pub(crate) use traced::begin_settled;

mod traced;

/// For how long a nack may have a message wait.
pub const NACK_DELAY: [Duration; 2] = [Duration::ZERO, Duration::from_hours(365 * 24)];
/// For how long a consumer may go on with a message.
pub const EXTENSION: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(12)];

/// How often it is looked at what became of a message for whom it is waited: at first, and at last.
const FATE_FIRST: Duration = Duration::from_millis(20);
const FATE_LAST: Duration = Duration::from_millis(500);

/// A receipt as a consumer gave it, and what was made of it.
#[derive(Clone, Debug)]
pub struct SettledReceipt {
    /// The text that was given.
    pub text: Box<str>,
    /// The receipt, if the text is one.
    pub receipt: Option<Receipt>,
    /// What its consumer says.
    pub verdict: Verdict,
}

impl SettledReceipt {
    /// Returns what its consumer says, as the path is called where that is said.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.verdict {
            Verdict::Ack(_) => "ack",
            Verdict::Nack(..) => "nack",
            Verdict::Extend(_) => "extend",
            Verdict::Reject(_) => "reject",
            Verdict::Release | Verdict::Lost { .. } => "release",
        }
    }
}

/// Receipts of one group that are settled in one step, by their places.
type Step = (TopicName, GroupName, Vec<(usize, Settlement)>);

impl Gate {
    /// Settles deliveries, of whichever groups, and returns what came of each, in the order given. Each succeeds or
    /// fails alone.
    ///
    /// # Errors
    /// The storage did not answer for any of them.
    pub async fn settle(&self, receipts: Vec<SettledReceipt>) -> Result<Vec<Settled>, Failure> {
        let mut results: Vec<Settled> = receipts.iter().map(unsettled).collect();
        traced::note_settled(&receipts);
        let mut steps: HashMap<(TopicName, GroupName), Vec<(usize, Settlement)>> = HashMap::new();
        let mut permitted: HashMap<TopicName, Option<Box<Problem>>> = HashMap::new();
        let verdicts: Vec<SettledStatus> =
            receipts.iter().map(|settled| status_of(&settled.verdict)).collect();
        for (place, SettledReceipt { receipt, verdict, .. }) in receipts.into_iter().enumerate() {
            let Some(Receipt { topic, group, epoch, id, delivery }) = receipt else { continue };
            if !permitted.contains_key(&topic) {
                let problem = match self.check_topic(Verb::Work, &topic).await {
                    Ok(()) => None,
                    Err(failure) if failure.has_cause() => return Err(failure),
                    Err(failure) => Some(Box::new(failure.problem().clone())),
                };
                permitted.insert(topic.clone(), problem);
            }
            if let Some(Some(problem)) = permitted.get(&topic) {
                refuse(&mut results[place], problem.code, problem.detail.clone());
                continue;
            }
            let settlement = Settlement { epoch, id, delivery, verdict };
            steps.entry((topic, group)).or_default().push((place, settlement));
        }
        let steps = steps.into_iter().flat_map(|((topic, group), all)| in_steps(&topic, &group, all));
        let done = join_all(steps.map(|step| self.settle_step(step))).await;
        let mut failed = None;
        let mut any = false;
        for (places, outcome) in done {
            match outcome {
                Ok(outcomes) => {
                    any = true;
                    for (place, outcome) in places.into_iter().zip(outcomes) {
                        tell(&mut results[place], verdicts[place], outcome);
                    }
                }
                Err(failure) => {
                    for place in places {
                        let problem = failure.problem();
                        refuse(&mut results[place], problem.code, problem.detail.clone());
                    }
                    failed = Some(failure);
                }
            }
        }
        match failed {
            Some(failure) if !any && failure.problem().status >= 500 => Err(failure),
            _ => Ok(results),
        }
    }

    async fn settle_step(&self, step: Step) -> (Vec<usize>, Result<Vec<Outcome>, Failure>) {
        let (topic, group, settlements) = step;
        let (places, settlements): (Vec<usize>, Vec<Settlement>) = settlements.into_iter().unzip();
        let releases = settlements.iter().any(|settlement| match settlement.verdict {
            Verdict::Release | Verdict::Lost { .. } | Verdict::Nack(..) => true,
            Verdict::Ack(_) | Verdict::Extend(_) | Verdict::Reject(_) => false,
        });
        let relay = self.relay();
        let outcomes = relay.stations.settler().settle(&topic, &group, settlements).await;
        if let Ok(outcomes) = &outcomes {
            if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Settled { dying: true, .. })) {
                relay.stations.letters().write_soon(&topic, &group);
            }
            if let Some(station) = relay.stations.find(&topic, &group) {
                station.settled(releases);
            }
        }
        (places, outcomes.map_err(|error| Failure::work(error, &topic, &group)))
    }

    /// Tells what became of a message of a group; where that is not over, waits for so long.
    ///
    /// # Errors
    /// The caller may not, there is no such group or message, or the storage did not answer.
    pub async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
        wait: Duration,
    ) -> Result<Fate, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let work = &self.relay().storage.work;
        let until = Instant::now() + wait;
        let mut pause = FATE_FIRST;
        loop {
            let fate = work.fate(topic, group, id).await;
            let fate = fate.map_err(|error| Failure::read_work(error, topic, group))?;
            let Some(fate) = fate else {
                let detail = format!(
                    "group `{group}` of topic `{topic}` knows nothing of message {id}: there is none, it lies before where the group began, or it is gone from the topic"
                );
                return Err(Problem::new(Code::MessageNotFound, detail).into());
            };
            let is_over = matches!(fate.state, MessageStateName::Done | MessageStateName::Dead);
            if is_over || Instant::now() + pause > until {
                return Ok(fate);
            }
            // What lapses, and what dies of it, does so only where it is looked at.
            self.tend(topic, group).await;
            slow::awaited(sleep(pause)).await;
            pause = (pause * 2).min(FATE_LAST);
        }
    }
}

/// Cuts what is settled in a group into steps. What is said of one message stays in its order.
fn in_steps(
    topic: &TopicName,
    group: &GroupName,
    all: Vec<(usize, Settlement)>,
) -> impl Iterator<Item = Step> + use<> {
    let mut steps = Vec::with_capacity(all.len().div_ceil(STEP_MESSAGES_MAX));
    let mut all = all.into_iter();
    loop {
        let step: Vec<_> = all.by_ref().take(STEP_MESSAGES_MAX).collect();
        if step.is_empty() {
            break;
        }
        steps.push((topic.clone(), group.clone(), step));
    }
    steps.into_iter()
}

fn unsettled(settled: &SettledReceipt) -> Settled {
    let mut result = Settled {
        receipt: settled.text.to_string(),
        status: SettledStatus::Refused,
        late: false,
        dead: false,
        until: None,
        code: None,
        error: None,
    };
    if settled.receipt.is_none() {
        let rule =
            "it is not a receipt; a receipt is what a claim gave with the message, to be given back as it is";
        refuse(&mut result, Code::InvalidField, rule.to_owned());
    }
    result
}

fn refuse(result: &mut Settled, code: Code, error: String) {
    result.status = SettledStatus::Refused;
    result.code = Some(code);
    result.error = Some(error);
}

/// Returns how it is told that something was done as it was said.
fn status_of(verdict: &Verdict) -> SettledStatus {
    match verdict {
        Verdict::Ack(_) => SettledStatus::Acked,
        Verdict::Nack(..) => SettledStatus::Nacked,
        Verdict::Extend(_) => SettledStatus::Extended,
        Verdict::Reject(_) => SettledStatus::Rejected,
        Verdict::Release | Verdict::Lost { .. } => SettledStatus::Released,
    }
}

fn tell(result: &mut Settled, status: SettledStatus, outcome: Outcome) {
    let (code, error) = match outcome {
        Outcome::Settled { late, until, dying } => {
            result.status = status;
            (result.late, result.until, result.dead) = (late, until, dying);
            return;
        }
        Outcome::Refused(Refusal::Void) => {
            (Code::ReceiptVoid, "the group was made anew or set to another place since; claim again")
        }
        Outcome::Refused(Refusal::DeliveredAgain) => {
            (Code::DeliveredAgain, "the time was over, and the message was given out again")
        }
        Outcome::Refused(Refusal::SettledBefore) => {
            (Code::AlreadySettled, "the message was settled already, or is done or dead")
        }
        Outcome::Refused(Refusal::MaxRun) => {
            (Code::MaxRunReached, "the message was held for as long as the group allows (`max_run`)")
        }
    };
    refuse(result, code, error.to_owned());
}

/// Checks a duration that was read, if it was one.
///
/// # Errors
/// It is none, or not within the bounds.
pub fn within(
    field: &str,
    duration: Option<Duration>,
    [min, max]: [Duration; 2],
) -> Result<Duration, Failure> {
    duration.filter(|duration| (min..=max).contains(duration)).ok_or_else(|| {
        let (min, max) = (min.as_secs_f64(), max.as_secs());
        let rule = format!(
            "must be a duration from {min} to {max} seconds: a number of seconds, or text with a unit (`ms`, `s`, `m`, `h`, `d`), as in `\"200ms\"` or `\"2m\"`"
        );
        Problem::field(field, rule).into()
    })
}

/// Reads the result of a message, which is JSON.
///
/// # Errors
/// It has too many bytes, or common readers of JSON cannot read it.
pub fn check_result(result: Option<Bytes>) -> Result<Option<Bytes>, Failure> {
    /// Most bytes of a result.
    const RESULT_BYTES_MAX: usize = 64 * 1024;
    match result {
        Some(result) if result.len() > RESULT_BYTES_MAX => {
            let len = result.len();
            let rule = format!("has {len} bytes; a result has at most {RESULT_BYTES_MAX}");
            Err(Problem::field("result", rule).into())
        }
        Some(result) => {
            json::check_readable(&result).map_err(|rule| Problem::field("result", rule))?;
            Ok(Some(result))
        }
        None => Ok(None),
    }
}

impl Failure {
    /// Returns the failure of a call about a group.
    pub(in crate::relay) fn work(error: StorageError, topic: &TopicName, group: &GroupName) -> Self {
        match error {
            StorageError::NoGroup => no_group(topic, group).into(),
            error => Self::change(error, topic),
        }
    }

    /// Returns the failure of a question about a group.
    pub(in crate::relay) fn read_work(error: StorageError, topic: &TopicName, group: &GroupName) -> Self {
        match error {
            StorageError::NoGroup => no_group(topic, group).into(),
            error => Self::read(error, Some(topic)),
        }
    }
}

fn no_group(topic: &TopicName, group: &GroupName) -> Problem {
    let detail = format!(
        "topic `{topic}` has no group `{group}`; make it with `PUT /api/v1/topics/{topic}/groups/{group}`, or `tidemill groups create {topic} {group}`"
    );
    Problem::new(Code::GroupNotFound, detail)
}
