//! A client of a Tidemill relay: live reading without loss, and pipelined publishing without copies.
//!
//! It speaks WebSocket, connects again by itself, and goes on where it was; and it works on the messages of
//! groups, holds locks, takes of limits, and reads and changes keys, over HTTP. The relay's own commands are made of it, and programs of others can be. It must not
//! know the relay: only the wire contract, which is [`proto`].
//!
//! | file | owns |
//! |---|---|
//! | `error` | why a call failed, told by what the caller may do next |
//! | `options` | where a relay is, how a client behaves, and how long it waits |
//! | `connection` | one WebSocket: opening, frames, signs of life, close codes |
//! | `message` | messages, as they come and as they are to be published |
//! | `position` | where a reader of one topic stands |
//! | `start` | where to start reading, as it is asked for and told |
//! | `progress` | how far a subscription has come in its topics and patterns |
//! | `subscription` | reading: connect, subscribe by cursor, pass on, and again |
//! | `engine` | publishing: the task that sends, hears the answers, and sends again |
//! | `publisher` | publishing: the caller's side, with its bounds |
//! | `http` | requests over HTTP, and why one has no answer |
//! | `work` | work: groups, claims, and what is said of messages, a request each |
//! | `job` | work: one message with a worker, from its handler to its settling |
//! | `worker` | work: claims as there is room, and ends when told to |
//! | `locks` | locks: acquired, renewed in the background, given back |
//! | `takes` | takes of limits of applications, a request each |
//! | `copies` | a relay as a side of a copy, a request for each step |
//! | `key_watch` | watching keys: connect, watch behind the cursor, pass on, and again |
//! | `keys` | keys of buckets, a request each |
//!
//! A file knows only those that stand above it.
//!
//! # Reading
//! [`Subscription::next`] reads the socket itself: no task, no queue. The caller's pace is the socket's
//! pace, and a caller that stops reading costs a few kilobytes here and a cursor at the relay.
//!
//! # Publishing
//! A [`Publisher`] has one task, so that any number of publishes can be under way; the answer of each
//! is a [`Receipt`]. What is under way is bounded in number and in bytes.
//!
//! ```no_run
//! use tidemill_client::{Client, ClientOptions, Event, NewMessage, PublisherOptions};
//! use tidemill_client::proto::{Cursor, Since, TopicName};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8080", ClientOptions::default())?;
//! let topic = TopicName::parse("orders")?;
//!
//! let publisher = client.publisher(PublisherOptions::default()).await?;
//! let first = publisher.publish(NewMessage::json(&topic, &["tide"])?).await?;
//! let second = publisher.publish(NewMessage::json(&topic, &["mill"])?).await?;
//! println!("{} and {}", first.await?.message_id, second.await?.message_id);
//! publisher.close().await;
//!
//! let mut subscription = client.subscribe([(topic, Since::Cursor(Cursor::Earliest))]).await?;
//! loop {
//!     match subscription.next().await? {
//!         Event::Message(message) => println!("{}", String::from_utf8_lossy(&message.payload)),
//!         Event::Gap(gap) => eprintln!("missing between {} and {}", gap.from, gap.to),
//!         Event::Disconnected(why) => eprintln!("{why}; connecting again"),
//!         Event::Closed(closed) => println!("{} takes no messages any more", closed.topic),
//!         Event::Reconnected => eprintln!("connected again"),
//!     }
//! }
//! # }
//! ```
//!
//! **Invariant:** a subscription passes a message on once, in order, or passes on a gap in its place. Of a pattern
//! it may pass one on again, never past one.
//!
//! **Invariant:** a publish without an idempotency key is written to a connection once at most, unless
//! the relay has said that it had no effect.

use tidemill_proto::frame::TOPICS_PER_FRAME_MAX;
use tidemill_proto::{TopicName, TopicSelector};

mod connection;
mod copies;
mod engine;
mod error;
mod http;
mod job;
mod key_watch;
mod keys;
mod locks;
mod message;
mod options;
mod position;
mod progress;
mod publisher;
mod start;
mod subscription;
mod takes;
mod work;
mod worker;

pub use connection::{SPEAKS_TLS, speaks_tls};
pub use copies::CopyClient;
pub use engine::LinkState;
pub use error::{ClientError, Refusal};
pub use job::{Finished, Job};
pub use key_watch::{KeyEvent, KeyWatch, WatchScope};
pub use keys::{ChangeOptions, KeyClient, KeyCondition, KeyPage, KeyValue, ListOptions, PutOptions};
pub use locks::{Lock, LockClient, LockOptions};
pub use message::{Message, NewMessage, Published, Scheduled};
pub use options::{ClientOptions, Encoding, PublisherOptions};
pub use publisher::{Publisher, Receipt};
pub use start::{Start, StartError};
pub use subscription::{Event, Subscription};
pub use takes::LimitClient;
pub use tidemill_proto as proto;
pub use tidemill_proto::Trace;
pub use work::{Verdict, WorkClient};
pub use worker::{CONCURRENCY_MAX, Stopper, Worker, WorkerEvent, WorkerOptions};

use connection::Connector;
use progress::Progress;

/// A client of one relay. It holds no connection: each subscription, each publisher and what works has its own.
#[derive(Clone, Debug)]
pub struct Client {
    connector: Connector,
}

impl Client {
    /// Returns a client of the relay at `url`: `http://host:port`, with TLS `https://host`; a path is
    /// the relay's root. `ws://` and `wss://` mean the same.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: the URL has another form.
    pub fn new(url: &str, options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self { connector: Connector::new(url, options)? })
    }

    /// Returns the URL of the relay, without a password.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.connector.address.name
    }

    /// Returns what works on the messages of groups, over HTTP. It holds connections of its own.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: an option cannot be used.
    pub fn work(&self) -> Result<WorkClient, ClientError> {
        WorkClient::new(&self.connector)
    }

    /// Returns what acquires locks, over HTTP. It holds connections of its own.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: an option cannot be used.
    pub fn locks(&self) -> Result<LockClient, ClientError> {
        LockClient::new(&self.connector)
    }

    /// Returns what takes of limits of applications, over HTTP. It holds connections of its own.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: an option cannot be used.
    pub fn limits(&self) -> Result<LimitClient, ClientError> {
        LimitClient::new(&self.connector)
    }

    /// Returns what reads and changes keys, over HTTP, and watches them. It holds connections of its own.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: an option cannot be used.
    pub fn keys(&self) -> Result<KeyClient, ClientError> {
        KeyClient::new(&self.connector)
    }

    /// Returns what copies from and to the relay, over HTTP. It holds connections of its own.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: an option cannot be used.
    pub fn copies(&self) -> Result<CopyClient, ClientError> {
        CopyClient::new(&self.connector)
    }

    /// Connects, and subscribes to 1 to 1,000 topics and patterns, each from its cursor on. A topic that does not
    /// exist is waited for; [`Subscription::absent`] names it. Those of a pattern are read as they come.
    ///
    /// # Errors
    /// No connection could be made now, or the relay refuses; or a topic is to start where a pattern alone can, at a
    /// [`Start::Cursor`], or a pattern where a topic alone can, at a message id.
    pub async fn subscribe<S: Into<TopicSelector>, F: Into<Start>>(
        &self,
        topics: impl IntoIterator<Item = (S, F)>,
    ) -> Result<Subscription, ClientError> {
        self.subscribe_as(topics, false, false).await
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does, to topics that exist.
    ///
    /// # Errors
    /// As those of [`subscribe`](Self::subscribe), or a topic that is named does not exist.
    pub async fn subscribe_existing<S: Into<TopicSelector>, F: Into<Start>>(
        &self,
        topics: impl IntoIterator<Item = (S, F)>,
    ) -> Result<Subscription, ClientError> {
        self.subscribe_as(topics, true, false).await
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does, to topics of states (with `compact_by`): of what there is behind
    /// the cursor the latest message of each key comes, and from then on every message. At `earliest` it begins with the
    /// latest of all keys; it goes on in the same way after a break.
    ///
    /// # Errors
    /// As those of [`subscribe`](Self::subscribe), or a topic has no `compact_by`.
    pub async fn subscribe_latest<F: Into<Start>>(
        &self,
        topics: impl IntoIterator<Item = (TopicName, F)>,
    ) -> Result<Subscription, ClientError> {
        self.subscribe_as(topics, false, true).await
    }

    async fn subscribe_as<S: Into<TopicSelector>, F: Into<Start>>(
        &self,
        topics: impl IntoIterator<Item = (S, F)>,
        must_exist: bool,
        latest: bool,
    ) -> Result<Subscription, ClientError> {
        let topics: Vec<(TopicSelector, Start)> =
            topics.into_iter().map(|(topic, start)| (topic.into(), start.into())).collect();
        if topics.is_empty() || topics.len() > TOPICS_PER_FRAME_MAX {
            let rule = format!("a subscription has 1 to {TOPICS_PER_FRAME_MAX} topics, not {}", topics.len());
            return Err(ClientError::Usage(rule));
        }
        Subscription::begin(self.connector.clone(), Progress::new(topics)?, must_exist, latest).await
    }

    /// Connects, and returns a publisher. Its task runs on the runtime of the caller.
    ///
    /// # Errors
    /// No connection could be made now, or the relay refuses.
    pub async fn publisher(&self, options: PublisherOptions) -> Result<Publisher, ClientError> {
        let connection = self.connector.connect().await?;
        Ok(Publisher::begin(self.connector.clone(), options, connection))
    }
}

/// Compiles the examples of the document.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
struct Document;
