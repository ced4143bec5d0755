//! A doubt: a reader reads a topic because its caller owns it, and that may be another one by now. What it was given is
//! kept back until the storage has said whose the topic is.
//!
//! It must not know what a reader does with what it is given.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::TopicName;
use tokio::time::sleep;

use super::feeds::Feeds;
use super::item::Item;
use crate::access::Session;
use crate::relay::owners;
use crate::storage::Epoch;

/// Time to wait between two questions while the storage does not answer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Topics that are read because of who owns them, and of which epochs they were when that was asked last.
pub(super) type Owned = HashMap<TopicName, Option<[Epoch; 2]>>;

/// What is kept back, and the question.
pub(super) struct Doubt {
    items: Vec<Item>,
    topic: TopicName,
    epochs: [Epoch; 2],
    /// Whether the topic is read by its name, and not as one of a pattern's.
    is_named: bool,
    /// Whether it is its reader's own; `None` for as long as that is not known.
    is_own: Option<bool>,
    asked: Pin<Box<dyn Future<Output = bool> + Send>>,
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, is_named, is_own, .. } = self;
        write!(f, "Doubt({} items, named: {is_named}, own: {is_own:?})", items.len())
    }
}

impl Doubt {
    pub(super) fn new(
        feeds: Arc<Feeds>,
        owner: &str,
        (topic, epochs, is_named): (TopicName, [Epoch; 2], bool),
        items: Vec<Item>,
    ) -> Self {
        let (owner, asked_of) = (owner.to_owned(), topic.clone());
        let asked = async move {
            loop {
                match feeds.owned(Some(&owner), &asked_of).await {
                    Ok(answer) => return answer == owners::Owned::Yes,
                    // As for messages, it is waited until the storage is back.
                    Err(_) => sleep(AGAIN_AFTER).await,
                }
            }
        };
        Self { items, topic, epochs, is_named, is_own: None, asked: Box::pin(asked) }
    }

    /// Waits until it is known whose the topic is. Where it is somebody else's, the session ends, and this waits for
    /// ever.
    ///
    /// # Cancel safety
    /// Cancel-safe: the question goes on.
    pub(super) async fn settled(&mut self, session: &Session) {
        if self.is_own.is_none() {
            self.is_own = Some(self.asked.as_mut().await);
        }
        match (self.is_own, self.is_named) {
            (Some(false), true) => session.end(),
            // It may read the pattern, and comes again with its place in that.
            (Some(false), false) => session.end_for_now(),
            (Some(true) | None, _) => return,
        }
        std::future::pending::<()>().await;
    }

    /// Returns what was kept back, of which topic, once it is known that it may be given out.
    pub(super) fn into_items(self: Box<Self>) -> Result<(Vec<Item>, TopicName, [Epoch; 2]), Box<Self>> {
        if self.is_own == Some(true) { Ok((self.items, self.topic, self.epochs)) } else { Err(self) }
    }
}
