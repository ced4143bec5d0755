//! Reading: connect, subscribe by cursor, pass on, and again.
//!
//! It must not queue: what is not asked for stays in the socket.

use tidemill_proto::frame::{ClientFrame, ServerFrame, Subscribe};
use tidemill_proto::topics::Closed;
use tidemill_proto::{Gap, TopicName, TopicSelector};
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Connector, Received};
use crate::error::ClientError;
use crate::message::Message;
use crate::options::Backoff;
use crate::progress::Progress;
use crate::start::Start;

/// What a subscription passes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message.
    Message(Message),
    /// A hole: messages that are gone before they could be read.
    Gap(Gap),
    /// A topic takes no messages any more, and all that it has were passed on. Another of its name, made in its
    /// place, is read from its first message on.
    Closed(Closed),
    /// The connection is lost. [`Subscription::next`] connects again.
    Disconnected(ClientError),
    /// The connection is back, and reading goes on where it was.
    Reconnected,
}

/// A live reader of one or more topics, by their names or by patterns.
///
/// It connects again by itself, for as long as it is asked for more, and resumes by cursor: nothing is
/// lost or repeated. Messages of patterns can come twice: after a break, where they cover more topics than are
/// remembered (the 10,000 in which something came last), or one was deleted or made anew shortly before; and those
/// of topics that are read twice, by two patterns or by their name beside a pattern, are passed on as they come.
#[derive(Debug)]
pub struct Subscription {
    connector: Connector,
    progress: Progress,
    /// Those of the topics that did not exist when they were last subscribed to.
    absent: Vec<TopicName>,
    /// Whether the first attempt is refused where a topic does not exist.
    must_exist: bool,
    /// Whether of what there is the latest of each key comes alone.
    latest: bool,
    link: Link,
    backoff: Backoff,
    /// When to connect again.
    retry_at: Instant,
}

#[derive(Debug)]
enum Link {
    Away,
    /// Connected, and the relay has not said yet that it has subscribed us.
    Asked(Connection),
    Reading(Connection),
    /// For good.
    Ended(ClientError),
}

impl Subscription {
    pub(crate) async fn begin(
        connector: Connector,
        progress: Progress,
        must_exist: bool,
        latest: bool,
    ) -> Result<Self, ClientError> {
        let backoff = Backoff::new(&connector.options);
        let mut subscription = Self {
            connector,
            progress,
            absent: Vec::new(),
            must_exist,
            latest,
            link: Link::Away,
            backoff,
            retry_at: Instant::now(),
        };
        match subscription.next().await? {
            Event::Reconnected => Ok(subscription),
            Event::Disconnected(error) => Err(error),
            Event::Message(_) | Event::Gap(_) | Event::Closed(_) => {
                Err(subscription.not_a_relay("it sends what was not subscribed to"))
            }
        }
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// Reading has ended for good: the relay refuses, or closes with a code that says not to come back,
    /// or is none. Every further call returns the same. [`cursors`](Self::cursors) tells where to go on
    /// with a new subscription.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not passed over.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let result = match &mut self.link {
                Link::Ended(error) => return Err(error.clone()),
                Link::Away => {
                    sleep_until(self.retry_at).await;
                    self.connect().await.map(|()| None)
                }
                Link::Asked(connection) | Link::Reading(connection) => match connection.next().await {
                    Ok(received) => self.take(&received),
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(None) => {}
                Ok(Some(event)) => return Ok(event),
                Err(error) if error.is_passing() => {
                    self.link = Link::Away;
                    self.retry_at = Instant::now() + self.backoff.pause();
                    return Ok(Event::Disconnected(error));
                }
                Err(error) => self.link = Link::Ended(error),
            }
        }
    }

    /// Returns for each topic and pattern where another subscription goes on behind what was passed on so far. One
    /// of a pattern may get the newest messages again, which the relay had told no cursor for.
    #[must_use]
    pub fn cursors(&self) -> Vec<(TopicSelector, Start)> {
        self.progress.starts()
    }

    /// Returns those of the topics that did not exist when the connection was made last. Their messages come
    /// once they do, from the first one on.
    #[must_use]
    pub fn absent(&self) -> &[TopicName] {
        &self.absent
    }

    /// Ends the connection in good order, so that the relay does not take the reader for lost. Waits for that a
    /// second at most.
    pub async fn close(self) {
        match self.link {
            Link::Asked(connection) | Link::Reading(connection) => connection.close().await,
            Link::Away | Link::Ended(_) => {}
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let mut connection = self.connector.connect().await?;
        let starts: Vec<_> =
            self.progress.starts().into_iter().map(|(topic, start)| (topic, start.to_string())).collect();
        connection.queue(&ClientFrame::Subscribe(Subscribe {
            reference: None,
            topics: starts.iter().map(|(topic, _)| topic.as_str().into()).collect(),
            cursors: starts.iter().map(|(topic, start)| (topic.as_str().into(), start.into())).collect(),
            offset: None,
            client_id: self.connector.options.client_id.as_deref().map(Into::into),
            must_exist: self.must_exist,
            view: self.latest.then(|| "latest".into()),
        }))?;
        self.link = Link::Asked(connection);
        Ok(())
    }

    fn take(&mut self, received: &Received) -> Result<Option<Event>, ClientError> {
        let (Link::Asked(connection) | Link::Reading(connection)) = &self.link else {
            return Ok(None);
        };
        Ok(match connection.decode(received)? {
            Some(ServerFrame::Message(message)) => {
                let is_new = self.progress.pass(&message.topic, message.message_id);
                if is_new {
                    // What is passed on was worth the connection.
                    self.backoff.reset();
                }
                is_new.then(|| Event::Message(Message::new(message, received)))
            }
            Some(ServerFrame::Gap(gap)) => self.progress.pass_gap(&gap).then_some(Event::Gap(gap)),
            Some(ServerFrame::Closed(closed)) => Some(Event::Closed(closed)),
            Some(ServerFrame::Cursor { pattern, cursor }) => {
                self.progress.keep(&pattern, cursor);
                None
            }
            Some(ServerFrame::Subscribed { topics, patterns, absent, .. }) => {
                self.absent = absent;
                // What is deleted later is waited for.
                self.must_exist = false;
                self.progress.start(&topics, patterns);
                self.begin_reading()
            }
            Some(ServerFrame::Error(error)) => return Err(ClientError::Refused(error.into())),
            Some(ServerFrame::End { reason, patterns, .. }) => {
                let ended = connection.ended(&reason);
                for (pattern, cursor) in patterns {
                    self.progress.keep(&pattern, cursor);
                }
                return Err(ended);
            }
            // Answers to what is never asked, and what a newer relay may add.
            Some(
                ServerFrame::Unsubscribed { .. }
                | ServerFrame::Published { .. }
                | ServerFrame::Scheduled { .. }
                | ServerFrame::Consuming(_)
                | ServerFrame::Work(_)
                | ServerFrame::Settled { .. }
                | ServerFrame::Watched(_)
                | ServerFrame::Pong { .. },
            )
            | None => None,
        })
    }

    fn begin_reading(&mut self) -> Option<Event> {
        match std::mem::replace(&mut self.link, Link::Away) {
            Link::Asked(connection) => {
                self.link = Link::Reading(connection);
                Some(Event::Reconnected)
            }
            other => {
                self.link = other;
                None
            }
        }
    }

    fn not_a_relay(&self, what: &str) -> ClientError {
        ClientError::NotARelay { url: self.connector.name().to_owned(), what: what.to_owned() }
    }
}
