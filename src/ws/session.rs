//! The loop of one connection.
//!
//! It waits for whatever comes first: frames of the client, messages for it, answers of the storage,
//! the time for a sign of life, or the end of the node. Whatever comes is written as one batch with
//! one flush. While a batch is being written nothing else is taken, so a slow client holds no more.
//! While it waits, the feeds write for it.

use std::pin::{Pin, pin};

use tidemill_proto::frame::{ErrorClass, ServerFrame};
use tidemill_proto::sessions::SessionKind;
use tidemill_proto::{MessageId, PatternCursor, TopicName, TopicPattern, TopicSelector};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::frames::{self, Arrived, Broken, Encoding, Incoming, Intake, Outgoing};
use super::publishing::{Answer, Publishing};
use super::requests::{self, Rejection, Request, Subscription};
use super::subscribing::{self, refuse};
use super::watching::{self, Watching};
use super::working::{Done, Working};
use super::{Ws, close};
use crate::access::{Farewell, Leave};
use crate::chance::random;
use crate::limits::Asks;
use crate::link::Taken;
use crate::metrics;
use crate::relay::{Admitted, Draft, Failure, Gate, LiveReader, TakeLimit, begin_published, end_refused};

/// Most frames of a client that are taken before what they ask for is done.
const FRAMES_AT_ONCE: usize = 256;
/// Most messages that are written before the socket is flushed.
const ITEMS_AT_ONCE: usize = 512;

mod answers;
mod watches;

use answers::admit_work;

/// How a connection ends.
#[derive(Debug)]
enum Ending {
    /// The client has closed it.
    Client,
    /// The client has hung up without closing it, or its sending half alone.
    HungUp,
    /// The client broke the protocol.
    Protocol(u16, &'static str),
    /// The client gives no sign of life.
    Silent,
    /// A message of the client does not arrive whole.
    Late,
    /// There is no room for what the client sends.
    NoRoom,
    /// The client takes nothing.
    Slow,
    /// The connection is gone.
    Lost,
    /// The session is over.
    Over(Leave),
}

impl Ending {
    /// Whether the client may have been lost over what it had: it did not say that it goes, nor does the relay go.
    const fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::HungUp | Self::Protocol(..) | Self::Silent | Self::Late | Self::Slow | Self::Lost
        )
    }

    /// Returns as what the ending is counted.
    const fn counted(&self) -> metrics::Ending {
        match self {
            Self::Client => metrics::Ending::Client,
            Self::Protocol(..) => metrics::Ending::Protocol,
            Self::Silent => metrics::Ending::Silent,
            Self::Late => metrics::Ending::Late,
            Self::NoRoom => metrics::Ending::Overloaded,
            Self::Slow => metrics::Ending::Slow,
            Self::HungUp | Self::Lost => metrics::Ending::Lost,
            Self::Over(Leave::Draining) => metrics::Ending::Drained,
            Self::Over(Leave::Ended | Leave::Unknown | Leave::Cut) => metrics::Ending::Ended,
        }
    }
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
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::HungUp,
            Error::Protocol(_) => Self::Protocol(close::PROTOCOL, "a frame breaks the WebSocket protocol"),
            _ => Self::Lost,
        }
    }
}

impl From<Broken> for Ending {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Protocol(error) => error.into(),
            Broken::Late => Self::Late,
            Broken::NoRoom => Self::NoRoom,
        }
    }
}

/// What came first.
enum Turn {
    Frame(Result<Arrived, Broken>),
    Answers(Vec<Answer>),
    Work(Done),
    Watched(watching::Come),
    Time,
    Leave(Leave),
}

/// What needs the reader.
enum Command {
    Subscribe(Subscription),
    Unsubscribe(Vec<TopicSelector>),
    Watch(requests::Watch),
}

/// Where the topics stand that are read, and the patterns.
type Cursors = (Vec<(TopicName, MessageId)>, Vec<(TopicPattern, PatternCursor)>);

struct Session {
    ws: Ws,
    gate: Gate,
    id: u64,
    incoming: Incoming,
    publishing: Publishing,
    /// Made where there is some: most connections have none.
    working: Option<Box<Working>>,
    /// The same of watches.
    watching: Option<Box<Watching>>,
    /// When the client last gave a sign of life.
    heard: Instant,
    /// When it was last asked for one, if it has not been heard since.
    asked: Option<Instant>,
}

/// Serves a connection that has become a WebSocket until one side ends it.
pub(super) async fn serve(ws: Ws, gate: Gate, taken: Taken, encoding: Encoding) {
    let options = &ws.0.options;
    let bytes_max = (options.buffer_bytes_max / 2).max(1);
    let intake = Intake {
        frame_bytes_max: ws.frame_bytes_max(),
        budget: ws.0.budget.clone(),
        message_timeout: options.message_timeout,
    };
    let (incoming, out) = frames::open(taken, encoding, intake, bytes_max, ws.0.metrics.clone());
    let (publishes_max, held_max) = (options.publishes_max, options.buffer_bytes_max);
    let publishing = Publishing::new(gate.clone(), publishes_max, held_max, ws.0.budget.clone());
    let heard = Instant::now();
    // In a box: it is large, and handed on; what waits would hold it several times.
    let session = Box::new(Session {
        ws,
        gate,
        id: random(),
        incoming,
        publishing,
        working: None,
        watching: None,
        heard,
        asked: None,
    });
    session.run(out).await;
}

impl Session {
    async fn run(mut self: Box<Self>, out: Outgoing) {
        let mut reader = self.gate.live_reader(SessionKind::WebSocket);
        self.ws.0.metrics.sockets().opened();
        let (out, ending) = self.read_and_write(&mut reader, out).await;
        tracing::debug!(session = self.id, ?ending, "a WebSocket ended");
        let how = ending.counted();
        if matches!(ending, Ending::Slow) {
            reader.note_cut();
        }
        let (cursors, patterns) = (reader.cursors(), reader.pattern_cursors());
        // Nobody is served by them any more, whatever the rest takes.
        drop((reader, self.watching.take()));
        let metrics = self.ws.0.metrics.clone();
        self.end(ending, (cursors, patterns), out).await;
        metrics.sockets().ended(how);
    }

    async fn end(mut self: Box<Self>, ending: Ending, (cursors, patterns): Cursors, mut out: Outgoing) {
        if matches!(ending, Ending::Client | Ending::HungUp) {
            // What was asked before is answered before the connection ends; a client that is gone, or takes
            // nothing, is left without.
            let _ = self.answer_the_rest(&mut out, self.ws.0.options.drain).await;
        }
        if let Some(working) = self.working.take() {
            working.end(ending.is_loss(), self.ws.0.options.drain / 4).await;
        }
        self.publish_the_rest().await;
        let with_cursors =
            |reason: &'static str| Some(ServerFrame::End { reason: reason.into(), cursors, patterns });
        let (last, close) = match ending {
            Ending::Client | Ending::HungUp => (None, None),
            // Nothing can be written any more.
            Ending::Slow | Ending::Lost => return,
            Ending::Protocol(code, reason) => (None, Some((code, reason))),
            Ending::Silent => (
                with_cursors("no sign of life came from the client"),
                Some((close::SILENT, "no sign of life")),
            ),
            Ending::Late => {
                let reason = "a message did not arrive whole in its time";
                (with_cursors(reason), Some((close::LATE, reason)))
            }
            Ending::NoRoom => {
                let reason = "the relay holds as much of what clients have sent as it may";
                (with_cursors(reason), Some((close::OVERLOADED, reason)))
            }
            Ending::Over(Leave::Draining) => {
                (with_cursors("the relay is restarting"), Some((close::RESTART, "the relay is restarting")))
            }
            Ending::Over(leave @ (Leave::Ended | Leave::Unknown | Leave::Cut)) => {
                let code = if leave == Leave::Ended { close::ENDED } else { close::UNKNOWN };
                (with_cursors(leave.reason()), Some((code, leave.reason())))
            }
        };
        self.incoming.reply(&mut out);
        // Nothing of what the client has sent is held while the last frames are on their way.
        drop(self);
        out.end(last, close).await;
    }

    /// Goes on until something ends the connection.
    async fn read_and_write(
        &mut self,
        reader: &mut LiveReader<Outgoing>,
        mut out: Outgoing,
    ) -> (Outgoing, Ending) {
        let counts = self.ws.0.metrics.clone();
        let mut counted = None;
        let limit = TakeLimit { items: ITEMS_AT_ONCE, bytes: out.bytes_max() };
        let mut timer = pin!(sleep_until(self.heard + self.ws.0.options.ping_every));
        let mut farewell = pin!(reader.farewell());
        loop {
            if let Err(ending) = self.flush(&mut out).await {
                return (out, ending);
            }
            let items = reader.take(limit);
            if items.is_empty()
                && let Some((pattern, failure)) = reader.ended()
            {
                reader.remove_pattern(&pattern);
                refuse(&mut out, &Rejection::new(None, ErrorClass::Subscription, failure).of_topic(&pattern));
                continue;
            }
            let next = self.next(timer.as_mut(), farewell.as_mut());
            let turn = if items.is_empty() {
                let (back, turn) = reader.idle(out, next).await;
                out = back;
                turn
            } else {
                out.put_items(&items, reader.held());
                // Frames of the client have their turn, however much there is for it.
                tokio::select! {
                    biased;
                    turn = next => Some(turn),
                    () = std::future::ready(()) => None,
                }
            };
            let Some(turn) = turn else { continue };
            if let Err(ending) = self.take_turn(turn, reader, &mut out, timer.as_mut()).await {
                return (out, ending);
            }
            let reads = !reader.is_empty() || self.watches() > 0;
            if reads != counted.is_some() {
                counted = reads.then(|| counts.readers().enter(metrics::Transport::WebSocket));
            }
        }
    }

    /// Waits for what comes first.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    async fn next(&mut self, timer: Pin<&mut Sleep>, farewell: Pin<&mut Farewell>) -> Turn {
        let reads = self.has_room();
        if !reads {
            self.incoming.forgive();
        }
        tokio::select! {
            frame = self.incoming.read(), if reads => Turn::Frame(frame),
            answers = self.publishing.answers() => Turn::Answers(answers),
            done = next_work(self.working.as_deref_mut()) => Turn::Work(done),
            come = next_watched(self.watching.as_deref_mut()) => Turn::Watched(come),
            () = timer => Turn::Time,
            leave = farewell => Turn::Leave(leave),
        }
    }

    async fn take_turn(
        &mut self,
        turn: Turn,
        reader: &mut LiveReader<Outgoing>,
        out: &mut Outgoing,
        timer: Pin<&mut Sleep>,
    ) -> Result<(), Ending> {
        match turn {
            Turn::Frame(frame) => match self.take_frames(frame, out).await? {
                None => {}
                Some(Command::Subscribe(asked)) => {
                    let watches = self.watches();
                    subscribing::subscribe(&self.ws, &self.gate, self.id, reader, out, watches, asked).await;
                }
                Some(Command::Unsubscribe(topics)) => subscribing::unsubscribe(reader, out, topics),
                Some(Command::Watch(asked)) => {
                    let topics = reader.cursors().len() + reader.pattern_cursors().len();
                    self.watch(topics, out, asked).await;
                }
            },
            Turn::Answers(answers) => self.write_answers(out, answers).await?,
            Turn::Work(Done::Settled(answers)) => self.write_settled(out, answers).await?,
            Turn::Work(Done::Come(come)) => come.into_iter().for_each(|come| self.write_come(out, come)),
            Turn::Watched(come) => self.write_watched(out, come).await?,
            Turn::Leave(leave) => {
                self.answer_the_rest(out, self.ws.0.options.drain / 4).await?;
                return Err(Ending::Over(leave));
            }
            Turn::Time => {
                let next = self.look_at_the_time(out)?;
                timer.reset(next);
            }
        }
        Ok(())
    }

    async fn flush(&mut self, out: &mut Outgoing) -> Result<(), Ending> {
        // That it takes something which it had not taken at first is a sign of life of one that is slow.
        if out.flush().await? {
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// Takes a frame and those that have arrived behind it, up to one that needs the reader.
    async fn take_frames(
        &mut self,
        first: Result<Arrived, Broken>,
        out: &mut Outgoing,
    ) -> Result<Option<Command>, Ending> {
        self.heard = Instant::now();
        self.asked = None;
        let (mut frame, mut taken) = (first?, 0);
        loop {
            if !frame.message.is_close() {
                // The echo of a close frame comes behind what is still to be answered.
                self.incoming.reply(out);
            }
            if let Some(command) = self.take_frame(frame, out).await? {
                return Ok(Some(command));
            }
            taken += 1;
            if taken == FRAMES_AT_ONCE || !self.has_room() {
                return Ok(None);
            }
            match self.incoming.read_arrived()? {
                Some(next) => frame = next,
                None => return Ok(None),
            }
        }
    }

    async fn take_frame(&mut self, arrived: Arrived, out: &mut Outgoing) -> Result<Option<Command>, Ending> {
        let Arrived { message, hold } = arrived;
        if matches!(message, Message::Close(_)) {
            return Err(Ending::Client);
        }
        match requests::read(out.encoding(), message) {
            Ok(Request::Publish(reference, draft)) => {
                let span = begin_published(&draft);
                match admit(&self.gate, draft).await {
                    Ok(message) => self.publishing.push(reference, message, hold, span),
                    Err(failure) => {
                        end_refused(&span, &failure);
                        self.ws.audit(&self.gate, self.id, &failure);
                        refuse(out, &Rejection::new(reference, ErrorClass::Publish, failure));
                    }
                }
            }
            Ok(Request::Subscribe(subscription)) => match self.gate.admit_request(Asks::Other).await {
                Ok(()) => return Ok(Some(Command::Subscribe(subscription))),
                Err(failure) => {
                    self.ws.audit(&self.gate, self.id, &failure);
                    let reference = subscription.reference;
                    refuse(out, &Rejection::new(reference, ErrorClass::Subscription, failure));
                }
            },
            Ok(Request::Unsubscribe(topics)) => return Ok(Some(Command::Unsubscribe(topics))),
            Ok(Request::Watch(asked)) => return Ok(Some(Command::Watch(asked))),
            Ok(Request::Unwatch(reference, name)) => self.unwatch(out, reference, &name),
            Ok(Request::Ping(reference)) => {
                let timestamp = self.ws.0.relay.clock().now();
                out.put(&ServerFrame::Pong { reference: reference.map(Into::into), timestamp });
            }
            Ok(Request::Nothing) => {}
            Ok(Request::Consume(asked)) => {
                let reference = asked.reference.clone();
                match admit_work(&self.ws, &self.gate).await.and_then(|()| self.work().consume(asked)) {
                    Ok(()) => {}
                    Err(failure) => self.refuse_frame(out, reference, failure),
                }
            }
            Ok(Request::Settle(reference, receipts)) => match admit_work(&self.ws, &self.gate).await {
                Ok(()) => self.work().settle(reference, receipts, hold),
                Err(failure) => self.refuse_frame(out, reference, failure),
            },
            Err(rejection) => refuse(out, &rejection),
        }
        Ok(None)
    }

    /// Returns whether more may come of the client.
    fn has_room(&self) -> bool {
        self.publishing.has_room() && self.working.as_ref().is_none_or(|working| working.has_room())
    }

    /// Does what is due, and returns when to look again.
    fn look_at_the_time(&mut self, out: &mut Outgoing) -> Result<Instant, Ending> {
        let now = Instant::now();
        let (every, patience) = (self.ws.0.options.ping_every, self.ws.0.options.ping_timeout);
        if self.asked.is_some_and(|asked| asked < self.heard) {
            self.asked = None;
        }
        Ok(match self.asked {
            Some(asked) if asked + patience <= now => return Err(Ending::Silent),
            Some(asked) => asked + patience,
            None if self.heard + every <= now => {
                self.asked = Some(now);
                out.put_ping();
                now + patience
            }
            None => self.heard + every,
        })
    }
}

/// Waits for what comes of the work of a connection; for ever where it does none.
async fn next_work(working: Option<&mut Working>) -> Done {
    match working {
        Some(working) => working.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for what comes of the watches of a connection; for ever where there are none.
async fn next_watched(watching: Option<&mut Watching>) -> watching::Come {
    match watching {
        Some(watching) => watching.next().await,
        None => std::future::pending().await,
    }
}

/// Checks and counts a message: where frames come one after the other, so that none overtakes another while it is
/// asked what is left.
async fn admit(gate: &Gate, draft: Draft) -> Result<Admitted, Failure> {
    gate.admit_request(Asks::Publish).await?;
    gate.admit(gate.check(draft).await?).await
}
