//! Publishing: the caller's side, with its bounds.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tidemill_proto::Delivery;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::connection::{Connection, Connector};
use crate::engine::{Engine, LinkState, PendingPublish};
use crate::error::{ClientError, Refusal};
use crate::message::{NewMessage, OfTaken, Published, Scheduled, Taken};
use crate::options::{PublisherOptions, random};

/// Publishes messages over one connection, which is opened again when it breaks.
///
/// Messages are sent in the order of the calls. When the connection breaks, those without an answer are
/// sent again under their idempotency keys, in the same order, so that each is kept once; one without a
/// key ends as [`ClientError::Unknown`]. One that the relay refuses for the moment is sent again too,
/// behind those that were sent meanwhile, for as long as
/// [`give_up_after`](PublisherOptions::give_up_after) says.
///
/// Where the relay remembers as many keys as it may, messages whose key may be left out, above all those
/// with a key that was made here, are published without it, in the same order;
/// [`goes_without_keys`](Self::goes_without_keys) tells. One whose key is its own is refused in the end.
///
/// Dropping it lets what is under way come to its end; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub struct Publisher {
    tx: mpsc::Sender<PendingPublish>,
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    options: PublisherOptions,
    key: String,
    keys: AtomicU64,
    state: watch::Receiver<LinkState>,
    goes_without_keys: watch::Receiver<bool>,
    waits: watch::Receiver<Option<Refusal>>,
    tracker: TaskTracker,
}

impl Publisher {
    pub(crate) fn begin(connector: Connector, options: PublisherOptions, connection: Connection) -> Self {
        let window = options.window.clamp(1, Semaphore::MAX_PERMITS);
        let window_bytes = options.window_bytes.clamp(1, u32::MAX as usize);
        let (tx, rx) = mpsc::channel(window);
        let (state_tx, state) = watch::channel(LinkState::Connected);
        let (without_keys, goes_without_keys) = watch::channel(false);
        let (waits_tx, waits) = watch::channel(None);
        let tracker = TaskTracker::new();
        tracker.spawn(Engine::new(connector, options, rx, state_tx, without_keys, waits_tx).run(connection));
        tracker.close();
        Self {
            tx,
            room: Arc::new(Semaphore::new(window)),
            room_bytes: Arc::new(Semaphore::new(window_bytes)),
            options: PublisherOptions { window, window_bytes, ..options },
            // Two of these make 128 bits.
            key: format!("{:016x}{:016x}", random(), random()),
            keys: AtomicU64::new(0),
            state,
            goes_without_keys,
            waits,
            tracker,
        }
    }

    /// Waits for room in the window, hands the message over, and returns where its answer will be.
    ///
    /// # Errors
    /// The publisher has ended, or cannot send such a message. It was not sent.
    ///
    /// # Cancel safety
    /// Cancel-safe: without a receipt, the message was not handed over.
    pub async fn publish(&self, message: NewMessage) -> Result<Receipt, ClientError> {
        self.hand_over(message).await
    }

    /// Hands a message over that is published later, and returns where its answer will be.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    /// As that of [`publish`](Self::publish).
    pub async fn schedule(
        &self,
        message: NewMessage,
        delivery: Delivery,
    ) -> Result<Receipt<Scheduled>, ClientError> {
        self.hand_over(message.at(delivery)).await
    }

    async fn hand_over<T>(&self, mut message: NewMessage) -> Result<Receipt<T>, ClientError> {
        let bytes = message.len_bytes().clamp(1, self.options.window_bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_owned().await.map_err(|_| self.ended())?;
        let room_bytes = self.room_bytes.clone().acquire_many_owned(bytes).await.map_err(|_| self.ended())?;
        if self.options.make_keys && !message.has_key() {
            let key = format!("{}-{}", self.key, self.keys.fetch_add(1, Ordering::Relaxed));
            message = message.with_optional_key(key);
        }
        let (answer, rx) = oneshot::channel();
        let waiting = PendingPublish {
            message,
            answer,
            unanswered: 0,
            refused: 0,
            refused_since: None,
            _room: [room, room_bytes],
        };
        // There is room for as many as there are permits.
        self.tx.try_send(waiting).map_err(|_| self.ended())?;
        Ok(Receipt { answer: rx, of: PhantomData })
    }

    /// Returns how the connection is, and is told when that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Returns whether keys are left out where they may be, because the relay remembers as many as it may;
    /// and is told when that changes. They are tried again after a minute.
    ///
    /// What becomes of a message without a key when the connection breaks before its answer, says
    /// [`repeat_unkeyed`](PublisherOptions::repeat_unkeyed).
    #[must_use]
    pub fn goes_without_keys(&self) -> watch::Receiver<bool> {
        self.goes_without_keys.clone()
    }

    /// Returns why a message is sent again only after a second or more, as where a limit is reached or the storage is
    /// away: the refusal, with the seconds that are waited. It is told once of each code, until there is one of another.
    #[must_use]
    pub fn waits(&self) -> watch::Receiver<Option<Refusal>> {
        self.waits.clone()
    }

    /// Waits until every publish has its answer, and closes the connection.
    pub async fn close(self) {
        let Self { tx, tracker, .. } = self;
        drop(tx);
        tracker.wait().await;
    }

    fn ended(&self) -> ClientError {
        match &*self.state.borrow() {
            LinkState::Ended(error) | LinkState::Away(error) => error.clone(),
            // Its runtime was shut down.
            LinkState::Connected => ClientError::Usage("the publisher's runtime has ended".to_owned()),
        }
    }
}

/// The answer to a publish, once it comes. Dropping it does not take the publish back.
#[derive(Debug)]
pub struct Receipt<T = Published> {
    answer: oneshot::Receiver<Result<Taken, ClientError>>,
    of: PhantomData<fn() -> T>,
}

impl<T: OfTaken> Future for Receipt<T> {
    type Output = Result<T, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        // Without an answer the task was ended with its runtime, at any point.
        let taken = answer.unwrap_or(Err(ClientError::Unknown));
        Poll::Ready(taken.and_then(|taken| T::of(taken).ok_or(ClientError::Unknown)))
    }
}
