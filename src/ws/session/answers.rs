//! What a session answers: publishes, and work.

use std::time::Duration;

use tidemill_proto::Problem;
use tidemill_proto::frame::{Consuming, ErrorClass, ServerFrame};
use tokio::time::timeout;

use super::{Ending, Session};
use crate::access::Verb;
use crate::limits::Asks;
use crate::relay::{Answered, Failing, Failure, Gate, Scheduled, end_published};
use crate::ws::Ws;
use crate::ws::consuming::Come;
use crate::ws::frames::Outgoing;
use crate::ws::publishing::Answer;
use crate::ws::requests::Rejection;
use crate::ws::settling;
use crate::ws::subscribing::refuse;
use crate::ws::working::Working;

/// Bytes of answers after which they go to the socket.
const ANSWERS_BYTES: usize = 16 * 1024;

/// Checks and counts that groups are to be consumed, or messages settled. Of which topics that may be is found when it is
/// done.
pub(super) async fn admit_work(ws: &Ws, gate: &Gate) -> Result<(), Failure> {
    if !ws.0.options.groups {
        let rule = "is of groups, which are switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `groups`)";
        return Err(Problem::field("type", rule).into());
    }
    gate.admit_request(Asks::Other).await?;
    gate.check_some_topic(Verb::Work)
}

impl Session {
    /// Writes what came of publishes.
    pub(super) async fn write_answers(
        &mut self,
        out: &mut Outgoing,
        answers: Vec<Answer>,
    ) -> Result<(), Ending> {
        for Answer { reference, topic, bytes, result, span } in answers {
            end_published(&span, &topic, &result);
            match result {
                Ok(Answered::Published(appended, durability)) => {
                    self.ws.0.metrics.messages().published(bytes, appended.replayed);
                    if durability.is_some() {
                        self.ws.0.metrics.messages().durable();
                    }
                    let published = ServerFrame::Published {
                        reference: reference.map(Into::into),
                        message_id: appended.id,
                        topic,
                        timestamp: appended.timestamp,
                        replayed: appended.replayed,
                        durability,
                    };
                    out.put(&published);
                }
                Ok(Answered::Scheduled(Scheduled { id, due, replayed, .. })) => {
                    self.ws.0.metrics.schedules().scheduled(replayed);
                    let reference = reference.map(Into::into);
                    let (schedule_id, deliver_at) = (id, due);
                    out.put(&ServerFrame::Scheduled { reference, schedule_id, topic, deliver_at, replayed });
                }
                Err(failure) => {
                    self.ws.0.metrics.messages().rejected(failure.code());
                    self.tell(&failure);
                    refuse(out, &Rejection::new(reference, ErrorClass::Publish, failure));
                }
            }
            if out.len() > ANSWERS_BYTES {
                self.flush(out).await?;
            }
        }
        Ok(())
    }

    /// Returns the work of this connection, which begins now if there was none.
    pub(super) fn work(&mut self) -> &mut Working {
        let Self { ws, gate, id, working, .. } = self;
        working.get_or_insert_with(|| {
            let bytes_max = (ws.0.options.buffer_bytes_max / 2).max(1);
            Box::new(Working::new(gate, *id, bytes_max, &ws.0.budget))
        })
    }

    /// Refuses what a frame asks for that neither publishes nor subscribes.
    pub(super) fn refuse_frame(&self, out: &mut Outgoing, reference: Option<String>, failure: Failure) {
        self.ws.audit(&self.gate, self.id, &failure);
        self.tell(&failure);
        refuse(out, &Rejection::new(reference, ErrorClass::Processing, failure));
    }

    /// Tells the log of a failure that is the relay's.
    fn tell(&self, failure: &Failure) {
        if failure.problem().status >= 500 {
            let failing = Failing { session: Some(self.id), ..Failing::default() };
            self.ws.0.relay.failure_log().tell(failure, failing);
        }
    }

    /// Writes what came of what was said of messages.
    pub(super) async fn write_settled(
        &mut self,
        out: &mut Outgoing,
        answers: Vec<settling::Answer>,
    ) -> Result<(), Ending> {
        for settling::Answer { reference, result, .. } in answers {
            match result {
                Ok(results) => {
                    for settled in &results {
                        self.ws.0.metrics.work().settled(settled.status);
                    }
                    out.put(&ServerFrame::Settled { reference: reference.map(Into::into), results });
                }
                Err(failure) => self.refuse_frame(out, reference, failure),
            }
            if out.len() > ANSWERS_BYTES {
                self.flush(out).await?;
            }
        }
        Ok(())
    }

    /// Writes what came of groups that are consumed.
    pub(super) fn write_come(&self, out: &mut Outgoing, come: Come) {
        match come {
            Come::Began { reference, topic, group, consumer, credit } => {
                let reference = reference.map(Into::into);
                out.put(&ServerFrame::Consuming(Consuming { reference, topic, group, consumer, credit }));
            }
            Come::Work(of, hold) => out.put_work(&of, hold),
            Come::Ended { reference, failure } => self.refuse_frame(out, reference, failure),
        }
    }

    /// Answers what was taken before the end.
    pub(super) async fn answer_the_rest(
        &mut self,
        out: &mut Outgoing,
        patience: Duration,
    ) -> Result<(), Ending> {
        let answer = async {
            while !self.publishing.is_idle() {
                let answers = self.publishing.answers().await;
                self.write_answers(out, answers).await?;
            }
            while let Some(working) = self.working.as_deref_mut().filter(|working| !working.is_settled()) {
                let answers = working.answers().await;
                self.write_settled(out, answers).await?;
            }
            self.flush(out).await
        };
        timeout(patience, answer).await.unwrap_or(Ok(()))
    }

    /// Publishes what had arrived when the connection ended; nobody hears the answers.
    pub(super) async fn publish_the_rest(&mut self) {
        let publish = async {
            while !self.publishing.is_idle() {
                self.publishing.answers().await;
            }
        };
        let _ = timeout(self.ws.0.options.drain, publish).await;
    }
}
