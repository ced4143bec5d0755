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
use super::keys::{Keys, sortable};
use super::notice::notices;
use super::resp::{Reply, Request, RespConnection};
use super::scripted::{Answer, Argument, Call};
use super::scripts;
use super::supervised::Supervised;
use crate::storage::StorageError;

/// Topics that are asked about at once.
const ASKED: usize = 256;
/// How long after a question that was not answered it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Answers of the script.
const LOST: i64 = 1;

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
        let mut before = None;
        while until(&mut up, true).await {
            match self.look(before.as_deref()).await {
                Ok(run) => {
                    before = Some(run);
                    until(&mut up, false).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot ask the server for what it may have lost, asking again");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Asks who the server is, and where it is not the one from before, for what was lost. Returns who it is.
    async fn look(&self, before: Option<&str>) -> Result<String, StorageError> {
        let run = self.run().await?;
        let is_same = before == Some(&*run) && !run.is_empty();
        let known = if is_same { Vec::new() } else { self.acked.all() };
        for known in known.chunks(ASKED) {
            self.ask(known).await?;
        }
        Ok(run)
    }

    /// Returns which run of which server it is; nothing where it does not tell that.
    async fn run(&self) -> Result<String, StorageError> {
        let mut request = Request::default();
        request.add(&[b"INFO", b"server"]);
        let replies = self.connection.exchange(&request, Effect::Read).await?;
        match replies.iter().next() {
            Some(Reply::Bulk(text)) => Ok(run_of(&String::from_utf8_lossy(text)).unwrap_or_default()),
            Some(Reply::Error(_)) => Ok(String::new()),
            _ => Err(unexpected("INFO", Effect::Read)),
        }
    }

    /// Asks for the last messages of topics, and has holes marked.
    async fn ask(&self, known: &[(TopicName, MessageId)]) -> Result<(), StorageError> {
        let calls: Vec<Call<'_>> = known.iter().map(|(topic, last)| self.call(topic, *last)).collect();
        let answers = self.connection.call(&scripts::TELL_LOSS, &calls, &[], None, Effect::Write).await?;
        for ((topic, last), answer) in known.iter().zip(answers) {
            match answer {
                Answer::Number(LOST) => {
                    tracing::warn!(%topic, %last, "the server has lost messages that it had confirmed; readers are told");
                    self.doorbell.tell([topic]);
                    self.acked.forget(topic, *last);
                }
                Answer::Number(_) => {}
                // It lives elsewhere, and who has it there is no heir of this one.
                Answer::Error(text) if Redirect::read(&text).is_some() => self.acked.forget(topic, *last),
                Answer::Error(error) => {
                    tracing::warn!(%topic, %last, error, "cannot ask the server whether it has lost messages");
                }
                _ => return Err(unexpected("EVALSHA", Effect::Write)),
            }
        }
        Ok(())
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

/// Reads which run of a server it is, as `INFO` tells it.
fn run_of(info: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).map(|run| run.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_from_what_the_server_tells() {
        assert_eq!(
            run_of("# Server\r\nredis_version:7.2\r\nrun_id:0af1\r\ntcp_port:1\r\n"),
            Some("0af1".to_owned())
        );
        assert_eq!(run_of("# Server\r\nredis_version:7.2\r\n"), None);
    }
}
