//! A primary that sentinels tell.
//!
//! All sentinels are asked at once, at every attempt to connect, and the one that knows of the latest failover is
//! believed, if what it names says itself that it is a primary: a sentinel that was cut off for a while names the one
//! before, which may say so, too. When one of them tells of another primary unasked, connections to the one before end
//! at once.
//!
//! **Invariant:** of two answers the one about an earlier failover is never followed.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::super::login::Login;
use super::super::options::ValkeyOptions;
use super::super::resolver::{Address, Resolver};
use super::super::resp::{Peer, Reply, Request};
use super::super::target::Target;
use super::listening::listen;
use super::looking::{ask, read_fields, role_of};
use super::{addresses_of, answers};

/// How long to wait before sentinels are asked again that name no primary.
const AGAIN: Duration = Duration::from_millis(150);

/// What a sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Where the primary is.
    pub(super) primary: Address,
    /// By which failover it became one, where the sentinel tells that: later ones have larger numbers.
    pub(super) epoch: Option<u64>,
}

/// Finds the primary by asking sentinels.
#[derive(Debug)]
pub(super) struct Sentinels {
    options: ValkeyOptions,
    /// By which they know it.
    name: String,
    sentinels: Vec<Address>,
    /// Where the primary is, as far as is known.
    primary: watch::Sender<Option<Address>>,
    /// How often that has become another.
    moves: AtomicU64,
    /// The latest failover that is known of.
    epoch: Mutex<Option<u64>>,
    /// One asks for all who want to know at that time; and what came of the last time.
    round: tokio::sync::Mutex<Option<(Instant, Result<Address, String>)>>,
    /// Told when a sentinel has told of another primary.
    heard: Notify,
}

impl Sentinels {
    pub(super) fn new(options: ValkeyOptions) -> Self {
        Self {
            name: options.target.watched.clone().unwrap_or_default(),
            sentinels: addresses_of(&options),
            options,
            primary: watch::Sender::new(None),
            moves: AtomicU64::new(0),
            epoch: Mutex::new(None),
            round: tokio::sync::Mutex::new(None),
            heard: Notify::new(),
        }
    }

    /// Returns how a sentinel is connected to.
    fn peer<'a>(&self, address: &'a Address) -> Peer<'a> {
        let login: Login = self.options.sentinel_login.clone();
        Peer { address, login, tls: self.options.sentinel_tls, database: 0 }
    }

    /// Returns how long one question may take: of the time for connecting, all of them together fit into it.
    fn share(&self) -> Duration {
        self.options.connect_timeout / 3
    }

    /// Asks all sentinels, and returns what each says, in their order.
    pub(super) async fn ask_each(&self) -> Vec<Result<Told, String>> {
        answers(self.sentinels.iter().map(|sentinel| self.ask(sentinel))).await
    }

    async fn ask(&self, sentinel: &Address) -> Result<Told, String> {
        let mut request = Request::default();
        request.add(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.name.as_bytes()]);
        request.add(&[b"SENTINEL", b"MASTER", self.name.as_bytes()]);
        let replies = ask(&self.options, &self.peer(sentinel), &request, self.share()).await?;
        let mut replies = replies.iter();
        let primary = match replies.next() {
            Some(Reply::Array(mut parts)) => {
                let mut text = || Some(String::from_utf8_lossy(parts.next()?.bytes()?).into_owned());
                text().zip(text().and_then(|port| port.parse().ok()))
            }
            Some(Reply::Error(text)) => return Err(format!("refuses: {}", String::from_utf8_lossy(text))),
            _ => return Err(format!("does not watch `{}`", self.name)),
        };
        let (host, port) = primary.ok_or_else(|| "names no address".to_owned())?;
        // Who may not ask for it is not told the failover.
        let fields = replies.next().map(read_fields).unwrap_or_default();
        let epoch = fields.iter().find(|(name, _)| name == "config-epoch");
        let epoch = epoch.and_then(|(_, value)| value.parse().ok());
        Ok(Told { primary: Address { host, port }, epoch })
    }

    /// Asks all sentinels for the primary, once for all who want to know at this time.
    async fn find(&self) -> Result<Address, String> {
        let asked = Instant::now();
        let mut round = self.round.lock().await;
        if let Some((began, outcome)) = &*round
            && *began >= asked
        {
            return outcome.clone();
        }
        let began = Instant::now();
        let outcome = self.find_now().await;
        if let Ok(primary) = &outcome {
            self.set(primary);
        }
        *round = Some((began, outcome.clone()));
        outcome
    }

    async fn find_now(&self) -> Result<Address, String> {
        let told = self.ask_each().await;
        let known = *self.epoch.lock();
        let candidates = candidates(&told, known);
        let mut reasons: Vec<String> = self
            .sentinels
            .iter()
            .zip(&told)
            .filter_map(|(sentinel, told)| Some(format!("{sentinel} {}", told.as_ref().err()?)))
            .collect();
        let looking = async {
            for Told { primary, epoch } in candidates {
                let naming = self.sentinels.iter().zip(&told);
                let naming =
                    naming.filter(|(_, told)| told.as_ref().is_ok_and(|told| told.primary == primary));
                let by = naming.map(|(sentinel, _)| sentinel.to_string()).collect::<Vec<_>>().join(", ");
                match role_of(&self.options, &primary, self.share()).await {
                    Ok(_) => return Some((primary, epoch)),
                    Err(reason) => reasons.push(format!("{by} names {primary}: {reason}")),
                }
            }
            None
        };
        let found = timeout(self.share(), looking).await.unwrap_or_default();
        let Some((primary, epoch)) = found else {
            let told = reasons.join("; ");
            let told = if told.is_empty() { "they know of an earlier failover only" } else { &told };
            return Err(format!("the sentinels of `{}` name no primary that is one: {told}", self.name));
        };
        *self.epoch.lock() = epoch.or(known);
        Ok(primary)
    }

    /// Notes where the primary is. Returns whether that is news.
    fn set(&self, primary: &Address) -> bool {
        let is_news = self.primary.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(primary);
            if is_news {
                *known = Some(primary.clone());
            }
            is_news
        });
        if is_news {
            self.moves.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%primary, name = self.name, "the sentinels name the primary");
        }
        is_news
    }

    /// Takes what a sentinel tells unasked: the name, the address before, and the address now.
    fn hear(&self, text: &str) {
        let mut words = text.split(' ');
        if words.next() != Some(self.name.as_str()) {
            return;
        }
        let mut words = words.skip(2);
        let port = |text: &str| text.parse().ok();
        if let (Some(host), Some(port)) = (words.next(), words.next().and_then(port)) {
            // It is asked for at once, so that one that lies ends connections and no more.
            if self.set(&Address { host: host.to_owned(), port }) {
                self.heard.notify_one();
            }
        }
    }

    async fn listen_to(&self, sentinel: &Address) {
        // What was told while nobody listened is found by asking.
        let begun = || self.heard.notify_one();
        listen(&self.options, &self.peer(sentinel), |text| self.hear(text), begun).await;
    }

    /// Has the primary found whenever another was told.
    async fn keep_found(&self) {
        loop {
            self.heard.notified().await;
            while self.find().await.is_err() {
                sleep(AGAIN).await;
            }
        }
    }
}

/// Returns what may be the primary, of the answers about the latest failover: in the order of the sentinels, each address
/// once. What is earlier than the one that is known counts only where most of the sentinels say so, as after they have
/// been set up again.
fn candidates(told: &[Result<Told, String>], known: Option<u64>) -> Vec<Told> {
    let all: Vec<&Told> = told.iter().filter_map(|told| told.as_ref().ok()).collect();
    let latest = all.iter().filter_map(|told| told.epoch).max();
    let most = all.len() * 2 > told.len();
    if latest.zip(known).is_some_and(|(latest, known)| latest < known) && !most {
        return Vec::new();
    }
    let mut candidates: Vec<Told> = Vec::new();
    for told in all {
        let is_known = candidates.iter().any(|candidate| candidate.primary == told.primary);
        if told.epoch == latest && !is_known {
            candidates.push(told.clone());
        }
    }
    candidates
}

#[async_trait]
impl Resolver for Sentinels {
    async fn primary_of(&self, _: &Target) -> Result<Address, String> {
        let began = Instant::now();
        let mut moves = self.primary.subscribe();
        loop {
            moves.borrow_and_update();
            let found = tokio::select! {
                biased;
                found = self.find() => found,
                // Another was told meanwhile, so they are asked again.
                _ = moves.changed() => continue,
            };
            match found {
                Ok(primary) => return Ok(primary),
                // Another round would not end within the time for connecting.
                Err(reason) if began.elapsed() + AGAIN > self.options.connect_timeout / 4 => {
                    return Err(reason);
                }
                Err(_) => {}
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                _ = moves.changed() => {}
            }
        }
    }

    fn found(&self) -> Option<Address> {
        self.primary.borrow().clone()
    }

    async fn left(&self, address: &Address) {
        let mut moves = self.primary.subscribe();
        // The sending end is here.
        let _ = moves.wait_for(|primary| primary.as_ref().is_some_and(|primary| primary != address)).await;
    }

    fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    async fn news(&self) {
        let _ = self.primary.subscribe().changed().await;
    }

    async fn follow(&self) {
        let listening = self.sentinels.iter().map(|sentinel| {
            let listening: Pin<Box<dyn Future<Output = ()> + Send + '_>> = Box::pin(self.listen_to(sentinel));
            listening
        });
        let listening: Vec<_> = listening.collect();
        tokio::join!(self.keep_found(), futures_util::future::join_all(listening));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside those that say nothing")]
    fn told(host: &str, epoch: Option<u64>) -> Result<Told, String> {
        Ok(Told { primary: Address { host: host.to_owned(), port: 1 }, epoch })
    }

    fn hosts(told: &[Result<Told, String>], known: Option<u64>) -> Vec<String> {
        candidates(told, known).into_iter().map(|told| told.primary.host).collect()
    }

    #[test]
    fn who_knows_of_the_latest_failover_is_believed() {
        let silent = || Err("is silent".to_owned());
        assert_eq!(hosts(&[told("a", Some(1)), told("b", Some(2)), told("a", Some(1))], None), ["b"]);
        assert_eq!(hosts(&[told("a", Some(2)), told("a", Some(2)), silent()], Some(2)), ["a"]);
        // Who tells no failover is asked last, and only where nobody does.
        assert_eq!(hosts(&[told("a", None), told("b", Some(0)), silent()], None), ["b"]);
        assert_eq!(hosts(&[told("a", None), told("b", None), told("a", None)], None), ["a", "b"]);
        // One alone that is behind is not followed; most of them have been set up again.
        assert_eq!(hosts(&[told("a", Some(1)), silent(), silent()], Some(2)), [""; 0]);
        assert_eq!(hosts(&[told("a", Some(0)), told("a", Some(0)), silent()], Some(2)), ["a"]);
        assert_eq!(hosts(&[silent(), silent(), silent()], None), [""; 0]);
    }

    #[tokio::test]
    async fn what_a_sentinel_tells_ends_connections_to_the_one_before() {
        let target = Target::parse("valkey+sentinel://127.0.0.1:1/main").expect("a URL");
        let sentinels = Sentinels::new(ValkeyOptions::new(target));
        let at = |port| Address { host: "10.0.0.1".to_owned(), port };
        let has_left =
            async |port| timeout(Duration::from_millis(20), sentinels.left(&at(port))).await.is_ok();
        assert!(!has_left(1).await);
        assert!(sentinels.set(&at(1)));
        assert!(!has_left(1).await);
        for nonsense in ["other 10.0.0.1 1 10.0.0.1 2", "main 10.0.0.1 1 10.0.0.1", "main", ""] {
            sentinels.hear(nonsense);
        }
        assert_eq!(sentinels.found(), Some(at(1)));
        sentinels.hear("main 10.0.0.1 1 10.0.0.1 2");
        assert_eq!(sentinels.found(), Some(at(2)));
        assert!(has_left(1).await && !has_left(2).await);
    }
}
