//! Recurring messages: their rules, and when they come.

use tidemill_proto::limits::RECURRING_MAX;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::{RecurringName, Timestamp, TopicName};

use super::failure::{Effect, unexpected};
use super::new_topic::NewTopic;
use super::resp::{Bounds, Reply, Request};
use super::schedules::{PAGE_BYTES_MAX, Said, said};
use super::scripted::{Answer, Argument, Call};
use super::sending::not_created;
use super::{Shard, scripts, waiting_body};
use crate::storage::{NewRecurring, Recurrence, RecurringRule, StorageError, StoredRecurring};

impl Shard {
    /// Keeps a recurring message.
    pub(super) async fn put_recurring(
        &self,
        new: NewRecurring,
        recurrence: &dyn Recurrence,
    ) -> Result<StoredRecurring, StorageError> {
        self.check_room(1).await?;
        let NewRecurring { name, rule, message, ttl } = new;
        let topic = &message.topic;
        let now = self.time().await?;
        let next = recurrence.next(&rule, now);
        let (text, body) = (write_rule(&rule), waiting_body::write(&message.body, ttl));
        let mut is_made = false;
        loop {
            let arguments = vec![
                Argument::Bytes(name.as_str().as_bytes()),
                Argument::Bytes(text.as_bytes()),
                Argument::Bytes(&body),
                Argument::Text(next.map_or_else(String::new, |next| next.as_millis().to_string())),
                Argument::Number(self.limits.topic_schedules_max),
                Argument::Number(RECURRING_MAX as u64),
            ];
            let call = Call { keys: self.keys_of_waiting(topic), arguments };
            match self.change_waiting(&scripts::PUT_RECURRING, call).await {
                Ok(said) => {
                    let next = said.first().and_then(Answer::number).map(Timestamp::from_millis);
                    if let Some(next) = next {
                        self.note_due(&[(topic, next.as_millis())]).await;
                    }
                    return Ok(StoredRecurring { name, rule, body: message.body, ttl, next });
                }
                Err(StorageError::NoTopic) if message.create_topic && !is_made => {
                    let (topic, owner) = (topic.clone(), message.owner.clone());
                    let wanted = NewTopic { topic, created_at: message.timestamp, owner };
                    let made = self.creator().create(wanted, &TopicUpdate::default()).await;
                    made.map_err(|error| not_created(&error))?;
                    is_made = true;
                }
                Err(StorageError::IdsUsedUp) => return Err(self.refusal_of(topic).await),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the recurring messages of a topic.
    pub(super) async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, StorageError> {
        let call = Call { keys: self.keys_of_waiting(topic), arguments: Vec::new() };
        let bounds = Bounds { bytes: PAGE_BYTES_MAX, elements: 16 + RECURRING_MAX * 4, pass_over: false };
        let answers = self
            .page
            .connection()
            .call(&scripts::RECURRING, &[call], &[], Some(bounds), Effect::Read)
            .await?;
        match said(answers.first().unwrap_or(&Answer::Nothing), &self.keys_of_waiting(topic))? {
            Said::Well(found) => {
                let mut all: Vec<_> = found.chunks_exact(4).filter_map(stored_recurring).collect();
                all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                Ok(all)
            }
            Said::Other(..) => Err(unexpected("EVALSHA", Effect::Read)),
        }
    }

    /// Removes a recurring message.
    pub(super) async fn remove_recurring(
        &self,
        topic: &TopicName,
        name: &RecurringName,
    ) -> Result<bool, StorageError> {
        let arguments = vec![Argument::Bytes(name.as_str().as_bytes())];
        let call = Call { keys: self.keys_of_waiting(topic), arguments };
        let said = self.change_waiting(&scripts::REMOVE_RECURRING, call).await?;
        Ok(said.first().and_then(Answer::number) == Some(1))
    }

    /// Returns what the server's clock shows.
    async fn time(&self) -> Result<Timestamp, StorageError> {
        let mut request = Request::default();
        request.add(&[b"TIME"]);
        let replies = self.publish.exchange(&request, Effect::Read).await?;
        let Some(Reply::Array(mut parts)) = replies.iter().next() else {
            return Err(unexpected("TIME", Effect::Read));
        };
        let mut number = || -> Option<u64> { std::str::from_utf8(parts.next()?.bytes()?).ok()?.parse().ok() };
        let (Some(seconds), Some(micros)) = (number(), number()) else {
            return Err(unexpected("TIME", Effect::Read));
        };
        Ok(Timestamp::from_millis(seconds * 1_000 + micros / 1_000))
    }
}

/// Writes a rule as it is kept.
pub(super) fn write_rule(rule: &RecurringRule) -> String {
    format!("{}\n{}", rule.timezone, rule.cron)
}

/// Reads a rule as it is kept.
pub(super) fn read_rule(text: &str) -> Option<RecurringRule> {
    let (timezone, cron) = text.split_once('\n')?;
    Some(RecurringRule { cron: cron.into(), timezone: timezone.into() })
}

fn stored_recurring(one: &[Answer]) -> Option<StoredRecurring> {
    let [name, rule, body, next] = one else { return None };
    let (body, ttl) = waiting_body::read(body.bytes()?)?;
    Some(StoredRecurring {
        name: RecurringName::parse(name.text()?).ok()?,
        rule: read_rule(rule.text()?)?,
        body,
        ttl,
        next: next.number().map(Timestamp::from_millis),
    })
}
