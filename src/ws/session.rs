//! The loop of one connection.
//!
//! It waits for whatever comes first: frames of the client, messages for it, answers of the storage,
//! the time for a sign of life, or the end of the node. Whatever comes is written as one batch with
//! one flush. While a batch is being written nothing else is taken, so a slow client holds no more.

use std::pin::pin;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use tidemill_proto::frame::{ErrorClass, ServerFrame};
use tidemill_proto::{MessageId, Problem, TopicName};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::publishing::{Answer, Publishing};
use super::requests::{self, Rejection, Request, Subscription};
use super::wire::{Encoding, Wire};
use super::{Ws, random};
use crate::relay::{Budget, Failure, Item, LiveReader};

/// Most frames of a client that are taken before what they ask for is done.
const FRAMES_AT_ONCE: usize = 256;
/// Most messages that are written before the socket is flushed.
const ITEMS_AT_ONCE: usize = 512;

/// Close codes: those of the protocol, and our own, of which those below 4500 say "do not come back
/// with the same", and the others "come back with your cursors".
mod close {
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) const RESTART: u16 = 1012;
    pub(super) const SILENT: u16 = 4500;
}

/// How a connection ends.
#[derive(Debug)]
enum Ending {
    /// The client has closed it.
    Client,
    /// The client broke the protocol.
    Protocol(u16, &'static str),
    /// The client gives no sign of life.
    Silent,
    /// The client takes nothing.
    Slow,
    /// The connection is gone.
    Lost,
    /// The node stops.
    Drained,
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Client,
            Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Self::Slow,
            Error::Utf8(_) => Self::Protocol(close::NOT_UTF8, "a text frame is not UTF-8"),
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                Self::Protocol(close::TOO_BIG, "a frame is too large")
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => Self::Lost,
            Error::Protocol(_) => Self::Protocol(close::PROTOCOL, "a frame breaks the WebSocket protocol"),
            _ => Self::Lost,
        }
    }
}

/// What came first.
enum Turn {
    Items(Vec<Item>),
    Frame(Option<Result<Message, Error>>),
    Answers(Vec<Answer>),
    Time,
    Draining,
}

/// What needs the reader, which is waiting while frames are taken.
enum Command {
    Subscribe(Subscription),
    Unsubscribe(Vec<TopicName>),
}

struct Session {
    ws: Ws,
    id: u64,
    wire: Wire,
    publishing: Publishing,
    /// When the client last gave a sign of life.
    heard: Instant,
    /// When it was last asked for one, if it has not been heard since.
    asked: Option<Instant>,
    /// When to leave, once the node stops.
    leave: Option<Instant>,
}

/// Serves a connection, once it has become a WebSocket, until one side ends it.
pub(super) async fn serve(ws: Ws, upgrade: OnUpgrade, encoding: Encoding) {
    let upgraded = match timeout(ws.0.options.handshake_timeout, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection did not become a WebSocket"),
        Err(_) => return tracing::debug!("a connection did not become a WebSocket in time"),
    };
    let wire = Wire::new(upgraded, encoding, ws.frame_bytes_max(), ws.0.life.cut.clone()).await;
    let options = &ws.0.options;
    let publishing = Publishing::new(ws.0.relay.clone(), options.publishes_max, options.buffer_bytes_max);
    let reader = ws.0.relay.live_reader();
    let heard = Instant::now();
    let session = Session { ws, id: random(), wire, publishing, heard, asked: None, leave: None };
    session.run(reader).await;
}

impl Session {
    async fn run(mut self, mut reader: LiveReader) {
        self.ws.0.counts.opened();
        let ending = match self.read_and_write(&mut reader).await {
            Err(ending) => ending,
            Ok(never) => match never {},
        };
        tracing::debug!(session = self.id, ?ending, "a WebSocket ended");
        let how = match &ending {
            Ending::Client => "client",
            Ending::Protocol(..) => "protocol",
            Ending::Silent => "silent",
            Ending::Slow => "slow",
            Ending::Lost => "lost",
            Ending::Drained => "drained",
        };
        let counts = self.ws.clone();
        self.end(ending, &reader).await;
        counts.0.counts.ended(how);
    }

    async fn end(mut self, ending: Ending, reader: &LiveReader) {
        self.publish_the_rest().await;
        let with_cursors = |reason: &'static str| {
            Some(ServerFrame::End { reason: reason.into(), cursors: reader.cursors() })
        };
        let (last, close) = match ending {
            Ending::Client => (None, None),
            // Nothing can be written any more.
            Ending::Slow | Ending::Lost => return,
            Ending::Protocol(code, reason) => (None, Some((code, reason))),
            Ending::Silent => (
                with_cursors("no sign of life came from the client"),
                Some((close::SILENT, "no sign of life")),
            ),
            Ending::Drained => {
                (with_cursors("the relay is restarting"), Some((close::RESTART, "the relay is restarting")))
            }
        };
        self.wire.end(last, close).await;
    }

    /// Goes on until something ends the connection.
    async fn read_and_write(&mut self, reader: &mut LiveReader) -> Result<std::convert::Infallible, Ending> {
        let budget = Budget { items: ITEMS_AT_ONCE, bytes: (self.ws.0.options.buffer_bytes_max / 2).max(1) };
        let mut timer = pin!(sleep_until(self.heard + self.ws.0.options.ping_every));
        let mut draining = pin!(self.ws.0.life.draining.clone().cancelled_owned());
        loop {
            let command = {
                // Kept over turns that do not need the reader, so that a client which sends much cannot
                // keep it from reading history.
                let mut next = pin!(reader.next(budget));
                loop {
                    let turn = tokio::select! {
                        items = &mut next => Turn::Items(items),
                        frame = self.wire.read(), if self.publishing.has_room() => Turn::Frame(frame),
                        answers = self.publishing.answers() => Turn::Answers(answers),
                        () = &mut timer => Turn::Time,
                        () = &mut draining, if self.leave.is_none() => Turn::Draining,
                    };
                    match turn {
                        Turn::Items(items) => {
                            self.write_items(items).await?;
                            break None;
                        }
                        Turn::Frame(frame) => {
                            let command = self.take_frames(frame).await?;
                            self.flush().await?;
                            if command.is_some() {
                                break command;
                            }
                        }
                        Turn::Answers(answers) => {
                            self.write_answers(answers).await?;
                            self.flush().await?;
                        }
                        Turn::Draining => {
                            let now = Instant::now();
                            self.leave = Some(now + self.share_of_drain());
                            timer.as_mut().reset(now);
                        }
                        Turn::Time => {
                            let next = self.look_at_the_time().await?;
                            timer.as_mut().reset(next);
                        }
                    }
                }
            };
            match command {
                None => {}
                Some(Command::Subscribe(subscription)) => self.subscribe(reader, subscription).await?,
                Some(Command::Unsubscribe(topics)) => self.unsubscribe(reader, &topics).await?,
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Ending> {
        self.wire.flush().await?;
        if self.wire.has_moved() {
            self.heard = Instant::now();
        }
        Ok(())
    }

    async fn write_items(&mut self, items: Vec<Item>) -> Result<(), Ending> {
        let (mut messages, mut gaps) = (0, 0);
        for item in items {
            match item {
                Item::Message(message) => {
                    messages += 1;
                    self.wire.put_message(&message).await?;
                }
                Item::Gap(gap) => {
                    gaps += 1;
                    self.wire.put(&ServerFrame::Gap((*gap).clone())).await?;
                }
            }
        }
        self.ws.0.counts.sent(messages, gaps);
        self.flush().await
    }

    /// Takes a frame and those that have arrived behind it, up to one that needs the reader.
    async fn take_frames(
        &mut self,
        first: Option<Result<Message, Error>>,
    ) -> Result<Option<Command>, Ending> {
        self.heard = Instant::now();
        self.asked = None;
        let (mut frame, mut taken) = (first, 0);
        loop {
            let message = frame.ok_or(Ending::Lost)??;
            if let Some(command) = self.take_frame(message).await? {
                return Ok(Some(command));
            }
            taken += 1;
            if taken == FRAMES_AT_ONCE || !self.publishing.has_room() {
                return Ok(None);
            }
            match self.wire.read_arrived().await {
                Some(next) => frame = next,
                None => return Ok(None),
            }
        }
    }

    async fn take_frame(&mut self, message: Message) -> Result<Option<Command>, Ending> {
        if matches!(message, Message::Close(_)) {
            return Err(Ending::Client);
        }
        match requests::read(&self.ws.0.relay, self.wire.encoding(), message) {
            Ok(Request::Publish(asked)) => self.publishing.push(asked),
            Ok(Request::Subscribe(subscription)) => return Ok(Some(Command::Subscribe(subscription))),
            Ok(Request::Unsubscribe(topics)) => return Ok(Some(Command::Unsubscribe(topics))),
            Ok(Request::Ping(reference)) => {
                let timestamp = self.ws.0.relay.clock().now();
                let pong = ServerFrame::Pong { reference: reference.map(Into::into), timestamp };
                self.wire.put(&pong).await?;
            }
            Ok(Request::Nothing) => {}
            Err(rejection) => self.refuse(&rejection).await?,
        }
        Ok(None)
    }

    async fn refuse(&mut self, rejection: &Rejection) -> Result<(), Ending> {
        Ok(self.wire.put(&ServerFrame::Error(rejection.frame())).await?)
    }

    fn log(&self, failure: &Failure) {
        let (session, code, cause) = (self.id, failure.code().as_str(), failure.chain());
        // During an outage every publish fails: one stands for many, and the rest is for those who ask.
        if let Some(left_out) = self.ws.0.relay.failure_log().admit(failure) {
            tracing::warn!(session, code, left_out, %cause, "a publish failed");
        } else {
            tracing::debug!(session, code, %cause, "a publish failed");
        }
    }

    async fn write_answers(&mut self, answers: Vec<Answer>) -> Result<(), Ending> {
        for Answer { reference, topic, bytes, result } in answers {
            match result {
                Ok(appended) => {
                    self.ws.0.counts.published(bytes, appended.replayed);
                    let published = ServerFrame::Published {
                        reference: reference.map(Into::into),
                        message_id: appended.id,
                        topic,
                        timestamp: appended.timestamp,
                        replayed: appended.replayed,
                    };
                    self.wire.put(&published).await?;
                }
                Err(failure) => {
                    self.ws.0.counts.rejected(&failure);
                    if failure.problem().status >= 500 {
                        self.log(&failure);
                    }
                    self.refuse(&Rejection::new(reference, ErrorClass::Publish, failure)).await?;
                }
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self, reader: &mut LiveReader, asked: Subscription) -> Result<(), Ending> {
        let Subscription { reference, topics, refused } = asked;
        for rejection in &refused {
            self.refuse(rejection).await?;
        }
        let known: Vec<_> = reader.cursors().into_iter().map(|(topic, _)| topic).collect();
        let added = topics.iter().filter(|(topic, _)| !known.contains(topic)).count();
        let topics_max = self.ws.0.options.topics_max;
        if known.len() + added > topics_max {
            let rule = format!(
                "are too many: a connection reads at most {topics_max} topics (setting `TIDEMILL_WS_TOPICS_MAX`)"
            );
            let problem = Problem::field("topics", rule);
            self.refuse(&Rejection::new(reference, ErrorClass::Subscription, problem)).await?;
            return self.flush().await;
        }
        let mut started: Vec<(TopicName, Option<MessageId>)> = Vec::with_capacity(topics.len());
        let mut down: Option<Problem> = None;
        for (topic, since) in topics {
            if down.is_none() {
                match reader.add(&topic, since).await {
                    Ok(cursor) => {
                        started.push((topic, cursor));
                        continue;
                    }
                    // What holds for one topic holds for all, and each could take as long to fail.
                    Err(failure) if failure.problem().retryable => down = Some(failure.problem().clone()),
                    Err(failure) => {
                        let rejection = Rejection::new(reference.clone(), ErrorClass::Subscription, failure);
                        self.refuse(&rejection).await?;
                    }
                }
            }
            if let Some(problem) = &down {
                let class = ErrorClass::Subscription;
                let rejection = Rejection::new(reference.clone(), class, problem.clone()).of_topic(&topic);
                self.refuse(&rejection).await?;
            }
        }
        if !started.is_empty() {
            let session_id = format!("{:016x}", self.id);
            let subscribed = ServerFrame::Subscribed {
                reference: reference.map(Into::into),
                topics: started,
                session_id: session_id.into(),
                timestamp: self.ws.0.relay.clock().now(),
            };
            self.wire.put(&subscribed).await?;
        }
        self.flush().await
    }

    async fn unsubscribe(&mut self, reader: &mut LiveReader, topics: &[TopicName]) -> Result<(), Ending> {
        let stopped = |topic: &TopicName| {
            let cursor = reader.cursor(topic);
            reader.remove(topic).then(|| (topic.clone(), cursor))
        };
        let topics = topics.iter().filter_map(stopped).collect();
        self.wire.put(&ServerFrame::Unsubscribed { topics }).await?;
        self.flush().await
    }

    /// Does what is due, and returns when to look again.
    async fn look_at_the_time(&mut self) -> Result<Instant, Ending> {
        let now = Instant::now();
        if self.leave.is_some_and(|leave| leave <= now) {
            self.answer_the_rest().await?;
            return Err(Ending::Drained);
        }
        let (every, patience) = (self.ws.0.options.ping_every, self.ws.0.options.ping_timeout);
        if self.asked.is_some_and(|asked| asked < self.heard) {
            self.asked = None;
        }
        let next = match self.asked {
            Some(asked) if asked + patience <= now => return Err(Ending::Silent),
            Some(asked) => asked + patience,
            None if self.heard + every <= now => {
                self.asked = Some(now);
                self.wire.put_ping().await?;
                self.flush().await?;
                now + patience
            }
            None => self.heard + every,
        };
        Ok(self.leave.map_or(next, |leave| leave.min(next)))
    }

    /// Answers the publishes that were taken before the node began to stop.
    async fn answer_the_rest(&mut self) -> Result<(), Ending> {
        let patience = self.ws.0.options.drain / 4;
        let answer = async {
            while !self.publishing.is_idle() {
                let answers = self.publishing.answers().await;
                self.write_answers(answers).await?;
            }
            self.flush().await
        };
        timeout(patience, answer).await.unwrap_or(Ok(()))
    }

    /// Publishes what had arrived when the connection ended; nobody hears the answers.
    async fn publish_the_rest(&mut self) {
        let publish = async {
            while !self.publishing.is_idle() {
                self.publishing.answers().await;
            }
        };
        let _ = timeout(self.ws.0.options.handshake_timeout, publish).await;
    }

    /// Returns how long to stay when the node stops: goodbyes are spread over half of the drain time,
    /// so that clients do not all come to the next node at once.
    fn share_of_drain(&self) -> Duration {
        let share = u32::try_from(random() % 1_024).unwrap_or_default();
        self.ws.0.options.drain / 2 / 1_024 * share
    }
}
