//! Watching keys: connect, watch behind the cursor, pass on, and again.
//!
//! It must not queue: what is not asked for stays in the socket.

use bytes::Bytes;
use tidemill_proto::frame::{Change, ClientFrame, ServerFrame, Watch, WatchTarget, Watched};
use tidemill_proto::watched::LoggedKind;
use tidemill_proto::{BucketName, KeyName, MessageId, content_type};
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Connector, Received};
use crate::error::ClientError;
use crate::options::Backoff;

/// What the watch is called: a connection has one.
const NAME: &str = "keys";

/// Which keys of a bucket are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// All.
    All,
    /// Those that begin so.
    Prefix(String),
    /// One.
    Key(KeyName),
}

/// What a watch passes on.
#[derive(Clone, Debug)]
pub enum KeyEvent {
    /// A key has this value: as it is, before [`Synced`](Self::Synced), and from then on as it is put.
    Put {
        /// The key.
        key: KeyName,
        /// The change that its value came with.
        revision: MessageId,
        /// The value; `None` where it was damaged in the storage.
        value: Option<Bytes>,
        /// What that is.
        content_type: String,
    },
    /// A key is gone.
    Gone {
        /// The key.
        key: KeyName,
        /// The change.
        revision: MessageId,
        /// Whether its time was over; else it was deleted.
        has_expired: bool,
    },
    /// Everything came that there was at this revision: what was not named since the watch began, or since
    /// [`Reset`](Self::Reset), is not there.
    Synced(MessageId),
    /// What came before counts no more: what there is comes anew, up to [`Synced`](Self::Synced).
    Reset,
    /// The connection is lost. [`KeyWatch::next`] connects again.
    Disconnected(ClientError),
    /// The connection is back, and the watch goes on where it was.
    Reconnected,
}

/// A watch of keys of one bucket.
///
/// It connects again by itself, for as long as it is asked for more, and goes on behind the last change that it can: no
/// change is lost. Of a step of several changes that a break has cut, those that were passed on come again, whole. Where
/// changes are gone, or the snapshot was cut, [`Reset`](KeyEvent::Reset) comes.
#[derive(Debug)]
pub struct KeyWatch {
    connector: Connector,
    bucket: BucketName,
    scope: WatchScope,
    cursor: Option<MessageId>,
    /// Whether something was passed on of a snapshot that is not whole.
    has_begun: bool,
    /// Whether that has to be told to count no more.
    owes_reset: bool,
    link: Link,
    backoff: Backoff,
    /// When to connect again.
    retry_at: Instant,
}

#[derive(Debug)]
enum Link {
    Away,
    /// Connected, and the relay has not said yet that it watches for us.
    Asked(Connection),
    Watching(Connection),
    /// For good.
    Ended(ClientError),
}

impl KeyWatch {
    pub(crate) async fn begin(
        connector: Connector,
        bucket: BucketName,
        scope: WatchScope,
        cursor: Option<MessageId>,
    ) -> Result<Self, ClientError> {
        let backoff = Backoff::new(&connector.options);
        let (link, retry_at) = (Link::Away, Instant::now());
        let (has_begun, owes_reset) = (false, false);
        let mut watch =
            Self { connector, bucket, scope, cursor, has_begun, owes_reset, link, backoff, retry_at };
        match watch.next().await? {
            KeyEvent::Reconnected => Ok(watch),
            KeyEvent::Disconnected(error) => Err(error),
            KeyEvent::Put { .. } | KeyEvent::Gone { .. } | KeyEvent::Synced(_) | KeyEvent::Reset => {
                Err(watch.not_a_relay("it tells what was not asked for"))
            }
        }
    }

    /// Returns the id behind which another watch of the same goes on; `None` before the first
    /// [`Synced`](KeyEvent::Synced), and between [`Reset`](KeyEvent::Reset) and the next.
    #[must_use]
    pub const fn cursor(&self) -> Option<MessageId> {
        self.cursor
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// The watch has ended for good: the relay refuses, or closes with a code that says not to come back, or is none.
    /// Every further call returns the same.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not passed over.
    pub async fn next(&mut self) -> Result<KeyEvent, ClientError> {
        loop {
            let result = match &mut self.link {
                Link::Ended(error) => return Err(error.clone()),
                Link::Away => {
                    sleep_until(self.retry_at).await;
                    self.connect().await.map(|()| None)
                }
                Link::Watching(_) if self.owes_reset => {
                    (self.owes_reset, self.has_begun) = (false, false);
                    return Ok(KeyEvent::Reset);
                }
                Link::Asked(connection) | Link::Watching(connection) => match connection.next().await {
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
                    return Ok(KeyEvent::Disconnected(error));
                }
                Err(error) => self.link = Link::Ended(error),
            }
        }
    }

    /// Ends the connection in good order. Waits for that a second at most.
    pub async fn close(self) {
        match self.link {
            Link::Asked(connection) | Link::Watching(connection) => connection.close().await,
            Link::Away | Link::Ended(_) => {}
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let mut connection = self.connector.connect().await?;
        let bucket = self.bucket.as_str().into();
        let target = match &self.scope {
            WatchScope::All => WatchTarget::Keys { bucket, prefix: "".into() },
            WatchScope::Prefix(prefix) => WatchTarget::Keys { bucket, prefix: prefix.into() },
            WatchScope::Key(key) => WatchTarget::Key { bucket, key: key.as_str().into() },
        };
        let cursor = self.cursor.map(|cursor| cursor.to_string().into());
        let watch = Watch { reference: None, watch: NAME.into(), target, cursor };
        connection.queue(&ClientFrame::Watch(watch))?;
        self.owes_reset = self.cursor.is_none() && self.has_begun;
        self.link = Link::Asked(connection);
        Ok(())
    }

    fn take(&mut self, received: &Received) -> Result<Option<KeyEvent>, ClientError> {
        let (Link::Asked(connection) | Link::Watching(connection)) = &self.link else {
            return Ok(None);
        };
        let watched = match connection.decode(received)? {
            Some(ServerFrame::Watched(watched)) => watched,
            Some(ServerFrame::Error(error)) => return Err(ClientError::Refused(error.into())),
            Some(ServerFrame::End { reason, .. }) => return Err(connection.ended(&reason)),
            // Answers to what is never asked, and what a newer relay may add.
            Some(
                ServerFrame::Subscribed { .. }
                | ServerFrame::Unsubscribed { .. }
                | ServerFrame::Published { .. }
                | ServerFrame::Scheduled { .. }
                | ServerFrame::Message(_)
                | ServerFrame::Gap(_)
                | ServerFrame::Cursor { .. }
                | ServerFrame::Closed(_)
                | ServerFrame::Consuming(_)
                | ServerFrame::Work(_)
                | ServerFrame::Settled { .. }
                | ServerFrame::Pong { .. },
            )
            | None => return Ok(None),
        };
        Ok(match watched {
            Watched::Began { .. } => self.begin_watching(),
            Watched::Ended { reason, .. } => return Err(connection.ended(&reason.unwrap_or_default())),
            Watched::Change(change) => {
                let event = self.event_of(&change, received)?;
                // What is passed on was worth the connection.
                self.backoff.reset();
                self.has_begun |= self.cursor.is_none();
                if change.ends_step {
                    self.cursor = Some(change.revision);
                }
                Some(event)
            }
            Watched::Synced { revision, .. } => {
                (self.cursor, self.has_begun) = (Some(revision), false);
                self.backoff.reset();
                Some(KeyEvent::Synced(revision))
            }
            Watched::Bookmark { revision, .. } => {
                self.cursor = Some(revision);
                None
            }
            Watched::Reset { .. } => {
                (self.cursor, self.has_begun) = (None, false);
                Some(KeyEvent::Reset)
            }
        })
    }

    fn event_of(&self, change: &Change<'_>, received: &Received) -> Result<KeyEvent, ClientError> {
        let key = KeyName::parse(&change.key).map_err(|_| self.not_a_relay("it names no key"))?;
        let revision = change.revision;
        Ok(match change.change {
            LoggedKind::Put => KeyEvent::Put {
                key,
                revision,
                value: change.value.as_deref().map(|value| received.share(value)),
                content_type: change.content_type.as_deref().unwrap_or(content_type::JSON).to_owned(),
            },
            LoggedKind::Deleted => KeyEvent::Gone { key, revision, has_expired: false },
            LoggedKind::Expired => KeyEvent::Gone { key, revision, has_expired: true },
        })
    }

    fn begin_watching(&mut self) -> Option<KeyEvent> {
        match std::mem::replace(&mut self.link, Link::Away) {
            Link::Asked(connection) => {
                self.link = Link::Watching(connection);
                Some(KeyEvent::Reconnected)
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
