//! The doorbell: by what nodes tell each other that topics have changed, and hints of changes that the server
//! tells.
//!
//! A notice is a Pub/Sub message that says "look again" and nothing else. Nodes publish them on one channel
//! for all topics, once per pipeline, and sign them: a node knows what it has published itself. Where the server tells of changes of keys
//! (`notify-keyspace-events Kt…`), a node listens to those of the topics that it watches, so that
//! other producers are noticed at once too; it is told of its own messages once more by that. A node that
//! watches nothing listens to nothing, so that the publishes of all nodes do not wake one that nobody
//! reads from. Nobody relies on either: it is silent whenever the connection is cut, and a node that comes
//! back looks at everything.
//!
//! In a cluster each primary has a doorbell of its own, so that a ring follows its write on the same server. What is
//! published there on a channel of all nodes would go to every server of the cluster; so the channels are those of
//! sharded Pub/Sub (Valkey's documentation), a fixed set whose slots are evenly spread: a node listens to each with the
//! primary that has its slot, and rings on any that the primary has to which it writes. A primary with none of them, which
//! has few slots or many neighbours, is not rung at: what is published there is found by looking.
//!
//! Whoever puts a name into the index of topics gives notice of it, behind that: by what a node hears on the one
//! channel it knows of every new topic.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::{NodeId, TopicName};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::cluster::seat::Seat;
use super::failure::lacks_right;
use super::keys::Keys;
use super::locks::read_secret;
use super::options::ValkeyOptions;
use super::resp::{Parts, Request, RespConnection};
use super::rights::NO_CHANGES;
use super::{keys, notice};
use crate::storage::hints::Hints;
use crate::storage::{Hint, HintListener};
use watched::{Echo, Subscribed, Watched};

mod watched;

/// Topics named in one command.
const TOPICS_CHUNK: usize = 256;
/// How often the connection proves itself by an echo, and how long the echo may take.
const ECHO_EVERY: Duration = Duration::from_secs(2);
const ECHO_WITHIN: Duration = Duration::from_secs(3);
/// Wait between attempts to connect.
const RETRY: Duration = Duration::from_millis(500);
/// What the payload of an echo starts with; no topic can have this name.
const ECHO: &str = "$echo:";
/// What a notice of a lock that was handed over starts with, which the scripts spell, too: behind it stands the secret of
/// who waits. No topic can have this name.
const LOCK: &str = "$lock:";
/// How long a node heeds its own notices after a change that was not answered: the server may get to it when
/// nobody waits for it any more.
const HEARS_ITSELF: Duration = Duration::from_mins(1);

/// The node's end of the doorbell, and what it tells whoever listens.
#[derive(Debug)]
pub(super) struct Doorbell {
    keys: Keys,
    database: u32,
    /// In a cluster, which channels there are.
    seat: Option<Arc<Seat>>,
    /// Those that are listened to.
    listened: Mutex<HashSet<Arc<str>>>,
    /// What the node writes in front of its notices: no topic can have this name.
    signature: String,
    hints: Hints,
    /// When a change was last not answered.
    unanswered: Mutex<Option<Instant>>,
    /// Whether the server's user may not listen for changes of topics.
    changes_refused: AtomicBool,
    watched: Mutex<Watched>,
    changes: mpsc::Sender<()>,
    changed: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Doorbell {
    pub(super) fn new(node: NodeId, keys: Keys, database: u32, seat: Option<Arc<Seat>>) -> Self {
        let (changes, changes_out) = mpsc::channel(1);
        Self {
            keys,
            database,
            seat,
            listened: Mutex::default(),
            signature: format!("$node:{node}"),
            hints: Hints::default(),
            unanswered: Mutex::default(),
            changes_refused: AtomicBool::new(false),
            watched: Mutex::default(),
            changes,
            changed: tokio::sync::Mutex::new(changes_out),
        }
    }

    /// Has `listener` told, in place of whoever was told before.
    pub(super) fn listen(&self, listener: Weak<dyn HintListener>) {
        self.hints.listen(listener);
    }

    /// Returns the command by which notice is given, and its channel, if the server has one.
    pub(super) fn ring(&self) -> Option<(&'static str, Arc<str>)> {
        match &self.seat {
            None => Some(("PUBLISH", keys::DOORBELL.into())),
            Some(seat) => Some(("SPUBLISH", seat.channels().first()?.clone())),
        }
    }

    /// Returns the channel that a script gives notice on, or an empty text where the server has none.
    pub(super) fn script_channel(&self) -> String {
        self.ring().map_or_else(String::new, |(_, channel)| channel.to_string())
    }

    /// Adds the command that gives a notice.
    pub(super) fn add_ring(&self, request: &mut Request, notice: &str) {
        match &self.seat {
            None => drop(request.add(&[b"PUBLISH", keys::DOORBELL.as_bytes(), notice.as_bytes()])),
            Some(seat) => {
                if let Some(channel) = seat.channels().first() {
                    request.add(&[b"SPUBLISH", channel.as_bytes(), notice.as_bytes()]);
                }
            }
        }
    }

    /// Has the channels followed that the server has now.
    pub(super) fn follow(&self) {
        // A full channel already says what this would say.
        let _ = self.changes.try_send(());
    }

    /// Returns the channels of all nodes.
    fn doorbells(&self) -> Vec<Arc<str>> {
        match &self.seat {
            None => vec![keys::DOORBELL.into()],
            Some(seat) => seat.channels().to_vec(),
        }
    }

    /// Returns the commands by which one listens to these channels, and no longer does.
    fn commands(&self) -> [&'static str; 2] {
        if self.seat.is_some() { ["SSUBSCRIBE", "SUNSUBSCRIBE"] } else { ["SUBSCRIBE", "UNSUBSCRIBE"] }
    }

    /// Returns what stands in front of each notice. It has no space.
    pub(super) fn signature(&self) -> &str {
        &self.signature
    }

    /// Tells that this node has changed topics.
    pub(super) fn tell<'a>(&self, topics: impl IntoIterator<Item = &'a TopicName>) {
        self.hints.tell_topics(topics);
    }

    /// Tells that this node may have changed topics, or may still do so: it got no answer.
    pub(super) fn tell_unanswered<'a>(&self, topics: impl IntoIterator<Item = &'a TopicName>) {
        *self.unanswered.lock() = Some(Instant::now());
        self.tell(topics);
    }

    /// Whether a notice with this signature tells nothing that is not known.
    fn is_known(&self, signature: &str) -> bool {
        let hears_itself = || self.unanswered.lock().is_some_and(|at| at.elapsed() < HEARS_ITSELF);
        signature == self.signature && !hears_itself()
    }

    /// Begins or ends watching a topic.
    pub(super) fn watch(&self, topic: &TopicName, watch: bool) {
        let mut watched = self.watched.lock();
        let changed = if watch { watched.topics.insert(topic.clone()) } else { watched.topics.remove(topic) };
        if changed {
            watched.changed.insert(topic.clone());
            // A full channel already says what this would say.
            self.follow();
        }
    }

    /// Begins or ends watching all topics.
    pub(super) fn watch_all(&self, watch: bool) {
        if self.watched.lock().all.set(watch) {
            self.follow();
        }
    }

    /// Begins or ends listening for locks that are handed over.
    pub(super) fn watch_locks(&self, watch: bool) {
        if self.watched.lock().locks.set(watch) {
            self.follow();
        }
    }

    /// Returns what tells that this node has changed topics as soon as that is answered, or nobody waits for
    /// it any more.
    pub(super) fn changing<'a>(&'a self, topics: impl IntoIterator<Item = &'a TopicName>) -> Changing<'a> {
        Changing { doorbell: self, topics: topics.into_iter().collect() }
    }

    /// Keeps the connection until the token is cancelled.
    pub(super) async fn keep(self: Arc<Self>, options: ValkeyOptions, token: CancellationToken) {
        token.run_until_cancelled(Box::pin(self.keep_listening(&options))).await;
    }

    async fn keep_listening(&self, options: &ValkeyOptions) {
        loop {
            match RespConnection::open(options, "tidemill-doorbell").await {
                Ok((connection, driver, _)) => {
                    let echo = Echo::default();
                    let listening = driver.listen(|message| self.heard(message, &echo));
                    let reason = tokio::select! {
                        reason = listening => reason,
                        reason = self.keep_subscribed(&connection, &echo) => reason,
                    };
                    tracing::debug!(reason, "doorbell lost");
                }
                Err(error) => tracing::debug!(error = %error, "no doorbell"),
            }
            // Notices that came meanwhile were lost.
            self.hints.tell(Hint::Everything);
            sleep(RETRY).await;
        }
    }

    /// Subscribes to what is watched and proves the connection, until it is of no more use.
    async fn keep_subscribed(&self, connection: &RespConnection, echo: &Echo) -> String {
        let mut changed = self.changed.lock().await;
        let mut subscribed = Subscribed::default();
        self.listened.lock().clear();
        self.hints.tell(Hint::Everything);
        {
            let Watched { topics, changed, all, locks } = &mut *self.watched.lock();
            changed.clone_from(topics);
            (all.is_untold, locks.is_untold) = (all.is_there, locks.is_there);
        }
        if let Err(error) = self.follow_watched(connection, &mut subscribed).await {
            return error;
        }
        let mut next_echo = Instant::now();
        let mut echoes = 0_u64;
        loop {
            tokio::select! {
                _ = changed.recv() => {
                    if let Err(error) = self.follow_watched(connection, &mut subscribed).await {
                        return error;
                    }
                    if subscribed.doorbell.is_empty() {
                        echo.forget();
                    }
                }
                () = tokio::time::sleep_until(next_echo) => {
                    match echo.age() {
                        Some(age) if age > ECHO_WITHIN => return "the connection no longer echoes".to_owned(),
                        Some(_) => {}
                        None => {
                            echoes += 1;
                            let text = format!("{ECHO}{}:{echoes}", self.signature);
                            // Without the channel there is no echo; the answer alone shows that the server
                            // is there.
                            if !subscribed.doorbell.is_empty() {
                                echo.expect(&text);
                            }
                            if let Err(error) = self.publish(connection, &text).await {
                                return error;
                            }
                        }
                    }
                    next_echo = Instant::now() + ECHO_EVERY;
                }
            }
        }
    }

    /// Takes what came over the connection.
    fn heard(&self, mut message: Parts<'_>, echo: &Echo) {
        let mut text = || std::str::from_utf8(message.next()?.bytes()?).ok();
        let (kind, channel) = (text(), text());
        if let (Some("sunsubscribe"), Some(channel)) = (kind, channel) {
            return self.lost(channel);
        }
        let (Some("message" | "smessage"), Some(channel), Some(text)) = (kind, channel, text()) else {
            return;
        };
        let is_doorbell = channel
            .strip_prefix(keys::DOORBELL)
            .is_some_and(|rest| rest.is_empty() || (self.seat.is_some() && rest.starts_with(":{")));
        if !is_doorbell {
            if let Some(topic) = self.keys.topic_of_change(channel.as_bytes(), self.database) {
                self.hints.tell(Hint::Topic(topic));
            }
            return;
        }
        if text.starts_with(ECHO) {
            return echo.hear(text);
        }
        if let Some(secret) = text.strip_prefix(LOCK) {
            if let Some(secret) = read_secret(secret) {
                self.hints.tell(Hint::Lock(secret));
            }
            return;
        }
        let (signature, topics) = notice::read(text);
        if !self.is_known(signature) {
            topics.for_each(|topic| self.hints.tell(Hint::Topic(topic)));
        }
    }

    /// The server no longer has a channel: its slot has moved. What was rung there since is lost.
    fn lost(&self, channel: &str) {
        if self.listened.lock().remove(channel)
            && let Some(seat) = &self.seat
        {
            self.hints.tell(Hint::Everything);
            seat.wake();
            self.follow();
        }
    }

    async fn publish(&self, connection: &RespConnection, text: &str) -> Result<(), String> {
        let mut request = Request::default();
        self.add_ring(&mut request, text);
        if request.commands() == 0 {
            request.add(&[b"PING"]);
        }
        connection.exchange(&request, ECHO_WITHIN).await.map(drop).map_err(|error| error.to_string())
    }

    /// Returns the channels on which the server tells of changes of topics.
    fn channels(&self, topics: &[TopicName]) -> Vec<String> {
        topics.iter().map(|topic| self.keys.changes(topic, self.database)).collect()
    }

    /// Subscribes to the changes of these topics, or no longer. Where the server's user may not, the connection is lost
    /// once; from then on the node does without, as on a server that tells of no changes.
    async fn follow_changes(
        &self,
        connection: &RespConnection,
        command: &str,
        topics: &[TopicName],
    ) -> Result<(), String> {
        if self.changes_refused.load(Ordering::Relaxed) {
            return Ok(());
        }
        let followed = connection.subscribe(command, &self.channels(topics), ECHO_WITHIN).await;
        if let Err(error) = &followed
            && lacks_right(error)
            && !self.changes_refused.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(error, "{NO_CHANGES}");
        }
        followed
    }

    /// Subscribes to the changes of topics that are watched since, and unsubscribes from others.
    async fn follow_watched(
        &self,
        connection: &RespConnection,
        subscribed: &mut Subscribed,
    ) -> Result<(), String> {
        let (doorbell, tells, (more, less)): (bool, [bool; 2], (Vec<TopicName>, Vec<TopicName>)) = {
            let mut watched = self.watched.lock();
            let changed = std::mem::take(&mut watched.changed).into_iter();
            let changed = changed
                .filter(|topic| watched.topics.contains(topic) != subscribed.topics.contains(topic))
                .partition(|topic| watched.topics.contains(topic));
            let tells_all = std::mem::take(&mut watched.all.is_untold);
            let tells = [tells_all, std::mem::take(&mut watched.locks.is_untold)];
            (watched.all.is_there || watched.locks.is_there || !watched.topics.is_empty(), tells, changed)
        };
        let wanted = if doorbell { self.doorbells() } else { Vec::new() };
        let [subscribe, unsubscribe] = self.commands();
        subscribed.doorbell.retain(|channel| self.listened.lock().contains(channel));
        // One by one: each may have a slot of its own.
        for channel in subscribed.doorbell.iter().filter(|channel| !wanted.contains(channel)) {
            if self.listened.lock().remove(channel) {
                connection.subscribe(unsubscribe, &[channel.as_bytes()], ECHO_WITHIN).await?;
            }
        }
        for channel in wanted.iter().filter(|channel| !subscribed.doorbell.contains(channel)) {
            self.listened.lock().insert(channel.clone());
            connection.subscribe(subscribe, &[channel.as_bytes()], ECHO_WITHIN).await?;
        }
        if self.seat.is_some() && wanted != subscribed.doorbell {
            // Others may have rung where nobody listened yet.
            self.hints.tell(Hint::Everything);
        }
        subscribed.doorbell = wanted;
        for (is_told, hint) in tells.into_iter().zip([Hint::WatchedAll, Hint::WatchedLocks]) {
            if is_told {
                self.hints.tell(hint);
            }
        }
        for chunk in more.chunks(TOPICS_CHUNK) {
            self.follow_changes(connection, "SUBSCRIBE", chunk).await?;
            self.hints.tell(Hint::Watched(chunk.to_vec()));
        }
        for chunk in less.chunks(TOPICS_CHUNK) {
            self.follow_changes(connection, "UNSUBSCRIBE", chunk).await?;
        }
        subscribed.topics.extend(more);
        for topic in &less {
            subscribed.topics.remove(topic);
        }
        Ok(())
    }
}

/// A change of topics that is under way. Whoever reads them on this node is told when it is answered; and when
/// nobody waits for the answer any more, since it may happen all the same.
#[derive(Debug)]
#[must_use]
pub(super) struct Changing<'a> {
    doorbell: &'a Doorbell,
    /// Those that may be changed, until it is known.
    topics: Vec<&'a TopicName>,
}

impl Changing<'_> {
    /// Tells which were changed, or may have been.
    pub(super) fn answered<'a>(mut self, changed: impl IntoIterator<Item = &'a TopicName>) {
        self.topics.clear();
        self.doorbell.tell(changed);
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if !self.topics.is_empty() {
            self.doorbell.tell_unanswered(self.topics.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::valkey::options::KeyForm;

    #[test]
    fn a_change_that_nobody_waits_for_any_more_is_told() {
        #[derive(Debug, Default)]
        struct Heard(Mutex<Vec<Hint>>);
        impl HintListener for Heard {
            fn hear(&self, hint: Hint) {
                self.0.lock().push(hint);
            }
        }
        let doorbell = Doorbell::new(NodeId::new(1), Keys::new(KeyForm::Plain), 0, None);
        let listener = Arc::new(Heard::default());
        let as_listener: Arc<dyn HintListener> = listener.clone();
        doorbell.listen(Arc::downgrade(&as_listener));
        let heard = || std::mem::take(&mut *listener.0.lock());
        let topics = ["a", "b"].map(|name| TopicName::parse(name).expect("a name"));
        doorbell.changing(&topics).answered(&topics[..1]);
        assert_eq!(heard(), [Hint::Topic(topics[0].clone())]);
        assert!(doorbell.is_known(doorbell.signature()));
        doorbell.changing(&topics).answered([]);
        assert_eq!(heard(), []);
        drop(doorbell.changing(&topics));
        assert_eq!(heard(), topics.map(Hint::Topic));
        assert!(
            !doorbell.is_known(doorbell.signature()),
            "it may still happen, and then notice is given of it"
        );
    }

    #[test]
    fn a_node_passes_over_its_own_notices_unless_an_append_was_not_answered() {
        let new = |number| Doorbell::new(NodeId::new(number), Keys::new(KeyForm::Plain), 0, None);
        let (doorbell, other) = (new(1), new(2));
        assert_ne!(doorbell.signature(), other.signature());
        assert!(TopicName::parse(doorbell.signature()).is_err() && !doorbell.signature().contains(' '));
        assert!(doorbell.is_known(doorbell.signature()));
        assert!(!doorbell.is_known(other.signature()) && !doorbell.is_known(""));
        doorbell.tell_unanswered(std::iter::empty());
        assert!(!doorbell.is_known(doorbell.signature()));
        let long_ago = Instant::now().checked_sub(HEARS_ITSELF).expect("the machine runs for longer");
        *doorbell.unanswered.lock() = Some(long_ago);
        assert!(doorbell.is_known(doorbell.signature()));
    }
}
