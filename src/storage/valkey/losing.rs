//! What a server has lost that it had confirmed.
//!
//! A server that is another one than it was, because a replica has taken over, or because it was started anew from what its
//! disk had, may have less. This node asks it for the last message of each topic that it was told is kept (see `acked`).
//! Where one is missing, the stream gets a mark of the hole, which every read that comes there tells: a group whose name is
//! `tidemill-lost:<from>:<to>`, from the last message that is left in front of it to the last one that is gone. It is a
//! group because that lies in the stream's key, as the topic's own marker does (see `marker`).
//!
//! A stream keeps the marks of its eight newest holes, and a copy of it has them, too. What no node that lives was told, nobody can
//! know to be missing.

use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{MessageId, TopicName};
use tokio::sync::watch;
use tokio::time::sleep;

use super::acked::Acked;
use super::doorbell::Doorbell;
use super::failure::{Effect, Redirect, unexpected};
use super::info;
use super::keys::{Keys, sortable};
use super::notice::notices;
use super::resp::{Reply, Request, RespConnection};
use super::scripted::{Answer, Argument, Call};
use super::scripts;
use super::supervised::Supervised;
use crate::storage::StorageError;

/// Topics that are asked about at once.
const ASKED: usize = 256;
/// How long after a question that was not answered it is asked again: at first, and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_mins(1);
/// Answers of the script.
const LOST: i64 = 1;

/// The last messages of topics.
type Last = Vec<(TopicName, MessageId)>;

/// Asks each server that comes in the place of another for what was lost.
#[derive(Debug)]
pub(super) struct Losing {
    connection: Arc<Supervised<RespConnection>>,
    doorbell: Arc<Doorbell>,
    keys: Keys,
    acked: Arc<Acked>,
}

impl Losing {
    pub(super) const fn new(
        connection: Arc<Supervised<RespConnection>>,
        doorbell: Arc<Doorbell>,
        keys: Keys,
        acked: Arc<Acked>,
    ) -> Self {
        Self { connection, doorbell, keys, acked }
    }

    /// Asks for as long as it is not dropped.
    pub(super) async fn watch(self) {
        let mut up = self.connection.status();
        let (mut before, mut due, mut wait) = (None, Last::new(), AGAIN);
        while until(&mut up, true).await {
            if let Err(error) = self.look(&mut before, &mut due).await {
                tracing::warn!(%error, "cannot ask the server for what it may have lost, asking again");
            } else if due.is_empty() {
                wait = AGAIN;
                until(&mut up, false).await;
                continue;
            }
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN_MAX);
        }
    }

    /// Asks who the server is, and for what is due: everything, where it is not the one from before.
    async fn look(&self, before: &mut Option<String>, due: &mut Last) -> Result<(), StorageError> {
        let run = self.run().await?;
        if run.is_empty() || before.as_ref() != Some(&run) {
            *due = self.acked.all();
        }
        *before = Some(run);
        let mut refused = Last::new();
        while !due.is_empty() {
            let rest = due.len().saturating_sub(ASKED);
            match self.ask(&due[rest..]).await {
                Ok(again) => refused.extend(again),
                Err(error) => {
                    due.append(&mut refused);
                    return Err(error);
                }
            }
            due.truncate(rest);
        }
        *due = refused;
        Ok(())
    }

    /// Returns which run of which server it is; nothing where it does not tell that.
    async fn run(&self) -> Result<String, StorageError> {
        let mut request = Request::default();
        request.add(&[b"INFO", b"server"]);
        let replies = self.connection.exchange(&request, Effect::Read).await?;
        match replies.iter().next() {
            Some(Reply::Bulk(text)) => {
                Ok(info::field(&String::from_utf8_lossy(text), "run_id").unwrap_or_default().to_owned())
            }
            Some(Reply::Error(_)) => Ok(String::new()),
            _ => Err(unexpected("INFO", Effect::Read)),
        }
    }

    /// Asks for the last messages of topics, and has holes marked. Returns those for which the server could not look.
    async fn ask(&self, known: &[(TopicName, MessageId)]) -> Result<Last, StorageError> {
        let calls: Vec<Call<'_>> = known.iter().map(|(topic, last)| self.call(topic, *last)).collect();
        let answers = self.connection.call(&scripts::TELL_LOSS, &calls, &[], None, Effect::Write).await?;
        let (mut lost, mut refused, mut refusal) = (Vec::new(), Last::new(), None);
        for ((topic, last), answer) in known.iter().zip(answers) {
            match answer {
                Answer::Number(LOST) => {
                    lost.push(topic);
                    self.acked.forget(topic, *last);
                }
                Answer::Number(_) => {}
                // It lives elsewhere, and who has it there is no heir of this one.
                Answer::Error(text) if Redirect::read(&text).is_some() => self.acked.forget(topic, *last),
                // As one does that is full.
                Answer::Error(error) => {
                    refused.push((topic.clone(), *last));
                    refusal = Some(error);
                }
                _ => return Err(unexpected("EVALSHA", Effect::Write)),
            }
        }
        if let Some(first) = lost.first() {
            let topics = lost.len();
            tracing::warn!(topics, %first, "the server has lost messages that it had confirmed; readers are told");
            self.doorbell.tell(lost);
        }
        if let Some(reason) = refusal {
            let topics = refused.len();
            tracing::warn!(
                topics,
                reason,
                "the server does not say whether it has lost messages, asking again"
            );
        }
        Ok(refused)
    }

    fn call(&self, topic: &TopicName, last: MessageId) -> Call<'static> {
        let keys = vec![self.keys.stream(topic), self.keys.deleted(topic)];
        let said = notices(self.doorbell.signature(), std::iter::once(topic)).remove(0);
        let texts = [last.to_string(), sortable(last), self.doorbell.script_channel(), said];
        Call { keys, arguments: texts.into_iter().map(Argument::Text).collect() }
    }
}

/// Waits until it is up, or down. Returns whether that may come again.
async fn until(up: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    up.wait_for(|up| *up == wanted).await.is_ok()
}
