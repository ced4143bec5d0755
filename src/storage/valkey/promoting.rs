//! Publishing what is due, and the index of where something is.

use std::time::Duration;

use tidemill_proto::{Timestamp, TopicName};

use super::failure::{Effect, refuses_writes, same, unexpected};
use super::notice::notices;
use super::recurring::read_rule;
use super::resp::{Bounds, Request};
use super::schedules::{Said, arguments_of, said};
use super::scripted::{Answer, Argument, Call};
use super::{Shard, scripts};
use crate::storage::{Promoted, Recurrence, StorageError, TopicPolicy};

/// Messages that one script publishes.
const MESSAGES_MAX: u64 = 200;
/// Bytes of bodies after which a script ends.
const BYTES_MAX: u64 = 1024 * 1024;
/// How often a topic is looked at again at once, for recurring messages whose next times were asked for.
const ROUNDS_MAX: usize = 3;
/// How far off the next must be for the index to be told: what is nearer is looked for anyway.
const NEAR: Duration = Duration::from_secs(1);

/// A recurring message that is due, and when it comes next.
struct Planned {
    member: String,
    expected: u64,
    next: Option<Timestamp>,
}

/// What a script has found in a topic.
struct Found {
    promoted: Promoted,
    /// When the next is due (ms).
    next: Option<u64>,
    planned: Vec<Planned>,
}

impl Shard {
    /// Publishes what is due in topics.
    pub(super) async fn promote(
        &self,
        topics: &[TopicName],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Promoted, StorageError>> {
        let mut results: Vec<Result<Promoted, StorageError>> =
            topics.iter().map(|_| Ok(Promoted::default())).collect();
        let mut open: Vec<(usize, Vec<Planned>)> = (0..topics.len()).map(|at| (at, Vec::new())).collect();
        let mut looked_at: Vec<(&TopicName, Option<u64>)> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            let found = self.promote_once(topics, &open, policy, recurrence).await;
            let mut again = Vec::new();
            for ((at, _), found) in open.into_iter().zip(found) {
                match found {
                    Ok(Found { promoted, next, planned }) => {
                        if let Ok(before) = &mut results[at] {
                            before.late.extend(promoted.late);
                            before.next_in = promoted.next_in;
                        }
                        if planned.is_empty() {
                            if promoted.next_in.is_none_or(|next| next > NEAR) {
                                looked_at.push((&topics[at], next));
                            }
                        } else {
                            again.push((at, planned));
                        }
                    }
                    // It is frozen: nothing waits in one that has ended.
                    Err(StorageError::IdsUsedUp) => results[at] = Err(self.refusal_of(&topics[at]).await),
                    Err(error) => results[at] = Err(error),
                }
            }
            open = again;
        }
        let published = results.iter().flatten().map(|promoted| promoted.late.len() as u64).sum();
        self.waiting.less(published);
        self.mend_hints(&looked_at).await;
        results
    }

    /// Publishes what is due in those of the topics that are open.
    async fn promote_once(
        &self,
        topics: &[TopicName],
        open: &[(usize, Vec<Planned>)],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Found, StorageError>> {
        let call = |(at, planned): &(usize, Vec<Planned>)| {
            let mut arguments = vec![Argument::Number(MESSAGES_MAX), Argument::Number(BYTES_MAX)];
            arguments.extend(arguments_of(policy));
            for Planned { member, expected, next } in planned {
                arguments.push(Argument::Text(member.clone()));
                arguments.push(Argument::Number(*expected));
                let next = next.map(|next| next.as_millis().to_string());
                arguments.push(Argument::Text(next.unwrap_or_default()));
            }
            let mut keys = self.keys_of_waiting(&topics[*at]);
            keys.push(self.keys.description(&topics[*at]));
            Call { keys, arguments }
        };
        let calls: Vec<Call<'_>> = open.iter().map(call).collect();
        let of_them = || open.iter().map(|(at, _)| &topics[*at]);
        let notices = notices(self.doorbell.signature(), of_them());
        let ring = self.doorbell.ring();
        let notices: Vec<[&[u8]; 3]> = (ring
            .iter()
            .flat_map(|ring| notices.iter().map(move |notice| (ring, notice))))
        .map(|((command, channel), notice)| [command.as_bytes(), channel.as_bytes(), notice.as_bytes()])
        .collect();
        let each = usize::try_from(MESSAGES_MAX).unwrap_or(usize::MAX);
        let bounds = Bounds {
            bytes: 64 * 1024 + open.len() * each * 512,
            elements: 1_024 + open.len() * (8 + 4 * each),
            pass_over: false,
        };
        let answers =
            self.publish.call(&scripts::PROMOTE, &calls, &notices, Some(bounds), Effect::Write).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                if matches!(error, StorageError::Indeterminate(_)) {
                    self.doorbell.tell_unanswered(of_them());
                }
                return open.iter().map(|_| Err(same(&error))).collect();
            }
        };
        let mut all = Vec::with_capacity(open.len());
        let mut published = Vec::new();
        for ((at, _), (answer, call)) in open.iter().zip(answers.iter().zip(&calls)) {
            if matches!(answer, Answer::Error(text) if refuses_writes(text)) {
                self.publish.suspect();
            }
            let found = found(answer, &call.keys, recurrence);
            if found.as_ref().is_ok_and(|found| !found.promoted.late.is_empty()) {
                published.push(&topics[*at]);
            }
            all.push(found);
        }
        self.doorbell.tell(published);
        all
    }

    /// Mends what the index says of topics that were looked at. Whoever schedules in one meanwhile has kept its message
    /// before it notes it in the index, so who looks again behind the change finds it.
    async fn mend_hints(&self, topics: &[(&TopicName, Option<u64>)]) {
        if topics.is_empty() {
            return;
        }
        let call = |(topic, _): &(&TopicName, Option<u64>)| {
            let [due, ..] = self.keys.schedules(topic);
            Call { keys: vec![due], arguments: Vec::new() }
        };
        let calls: Vec<Call<'_>> = topics.iter().map(call).collect();
        let looked = async {
            self.indexes.schedules.set(topics).await?;
            self.publish.call(&scripts::NEXT_DUE, &calls, &[], None, Effect::Read).await
        };
        match looked.await {
            Ok(found) => {
                let earlier = topics.iter().zip(&found).filter_map(|((topic, next), found)| {
                    let found = found.number()?;
                    next.is_none_or(|next| found < next).then_some((*topic, found))
                });
                let earlier: Vec<_> = earlier.collect();
                self.note_due(&earlier).await;
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the index of what is due is not mended"
                );
            }
        }
    }

    /// Returns topics in which something is due soon.
    pub(super) async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(TopicName, Duration)>, StorageError> {
        self.indexes.schedules.due_within(within, limit).await
    }

    /// Notes in the index when something is due in topics: a sweep does it, for all.
    pub(super) async fn index_due(&self, topics: &[TopicName]) -> Result<(), StorageError> {
        let call = |topic: &TopicName| {
            let [due, ..] = self.keys.schedules(topic);
            Call { keys: vec![due], arguments: Vec::new() }
        };
        let calls: Vec<Call<'_>> = topics.iter().map(call).collect();
        let found = self.publish.call(&scripts::NEXT_DUE, &calls, &[], None, Effect::Read).await?;
        let due = topics.iter().zip(&found).filter_map(|(topic, found)| Some((topic, found.number()?)));
        let due: Vec<_> = due.collect();
        self.note_due(&due).await;
        Ok(())
    }

    /// Gives the other nodes notice of topics.
    pub(super) async fn ring(&self, topics: &[&TopicName]) {
        let mut request = Request::default();
        for notice in notices(self.doorbell.signature(), topics.iter().copied()) {
            self.doorbell.add_ring(&mut request, &notice);
        }
        // A notice is a hint.
        let _ = self.publish.exchange(&request, Effect::Write).await;
    }
}

/// Reads what a script has found in a topic, and asks when recurring messages come next.
fn found(answer: &Answer, keys: &[String], recurrence: &dyn Recurrence) -> Result<Found, StorageError> {
    let odd = || unexpected("EVALSHA", Effect::Write);
    let parts = match said(answer, keys)? {
        Said::Well(parts) => parts,
        Said::Other(..) => return Err(odd()),
    };
    let [now, next, asked, rest @ ..] = parts else { return Err(odd()) };
    let (Some(now), Some(asked)) = (now.number(), asked.number()) else { return Err(odd()) };
    let next = next.number();
    let asked = usize::try_from(asked).unwrap_or(usize::MAX).saturating_mul(3);
    let (asked, late) = rest.split_at_checked(asked).ok_or_else(odd)?;
    let planned = asked.chunks_exact(3).filter_map(|one| {
        let [member, rule, due] = one else { return None };
        let rule = rule.text().and_then(read_rule);
        Some(Planned {
            member: member.text()?.to_owned(),
            expected: due.number()?,
            next: rule.and_then(|rule| recurrence.next(&rule, Timestamp::from_millis(now))),
        })
    });
    let late = late.iter().filter_map(|late| late.number().map(Duration::from_millis));
    let next_in = next.map(|next| Duration::from_millis(next.saturating_sub(now)));
    Ok(Found { promoted: Promoted { late: late.collect(), next_in }, next, planned: planned.collect() })
}
