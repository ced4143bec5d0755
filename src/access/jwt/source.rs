//! Where the keys of an issuer come from, and how they are kept fresh: a file is read again every few
//! seconds, a URL fetched every few minutes, and at once where a token names a key that is not here, but at
//! most once a minute, whoever asks, and by one at a time.
//!
//! What cannot be had leaves the keys as they are. Keys that are replaced drop what was verified with them.
//! It must not know what a token claims.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::KeysState;
use super::cache::Cache;
use super::issuer::{Issuer, KeySource};
use super::keys::{Algorithm, KeyError, KeySet};
use crate::access::fetch::{FetchError, Fetcher};

/// Shortest time between two fetches of a URL, and between the readings of a file.
const FETCH_PAUSE: Duration = Duration::from_mins(1);
const FILE_PAUSE: Duration = Duration::from_secs(5);

/// How often a URL is fetched when nobody asks for an unknown key, so that keys that an issuer has withdrawn
/// are forgotten here. An issuer may ask for more with `max-age`.
const FETCH_EVERY: Duration = Duration::from_mins(10);

/// Largest file of keys.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why the keys of an issuer cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("the file {} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The URL cannot be fetched.
    #[error("the URL cannot be fetched")]
    Url(#[from] FetchError),
    /// There are no keys that can be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl KeysError {
    /// Returns the whole of it in a sentence.
    fn sentence(&self) -> String {
        match self {
            Self::File { cause, .. } => format!("{self}: {cause}"),
            Self::Url(cause) => format!("{self}: {cause}"),
            Self::Keys(cause) => cause.to_string(),
        }
    }
}

/// The keys of an issuer.
#[derive(Debug)]
pub(super) struct Source {
    issuer: Issuer,
    name: Arc<str>,
    fetcher: Option<Fetcher>,
    keys: ArcSwap<KeySet>,
    attempts: Mutex<Attempts>,
    verified: Arc<Cache>,
}

#[derive(Debug)]
struct Attempts {
    /// When the last one began.
    last: Option<Instant>,
    /// When the next is due if nobody asks.
    due: Instant,
    /// What ends with the one that is under way.
    running: Option<CancellationToken>,
    failure: Option<String>,
}

impl Source {
    /// Opens the place of an issuer's keys, and reads those that need no fetch.
    pub(super) fn open(issuer: Issuer, verified: Arc<Cache>) -> Result<Self, KeysError> {
        let (keys, fetcher) = match &issuer.keys {
            KeySource::Text(text) => (KeySet::parse(text.expose_secret(), &issuer.algorithms)?, None),
            KeySource::File(path) => (KeySet::parse(&read(path)?, &issuer.algorithms)?, None),
            KeySource::Url(url) => (KeySet::default(), Some(Fetcher::new(url)?)),
        };
        let now = Instant::now();
        // A file has just been read.
        let last = fetcher.is_none().then_some(now);
        let due = if fetcher.is_none() { now + FILE_PAUSE } else { now };
        let name = Arc::from(issuer.name.as_str());
        let attempts = Mutex::new(Attempts { last, due, running: None, failure: None });
        Ok(Self { issuer, name, fetcher, keys: ArcSwap::from_pointee(keys), attempts, verified })
    }

    pub(super) const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.keys.load()
    }

    pub(super) fn state(&self) -> KeysState {
        let failure = self.attempts.lock().failure.clone();
        KeysState { issuer: Arc::clone(&self.name), keys: self.keys.load().len(), failure }
    }

    /// Starts what looks for new keys until `stop`, by a task on `tracker`.
    pub(super) fn keep_fresh(self: &Arc<Self>, tracker: &TaskTracker, stop: &CancellationToken) {
        if matches!(self.issuer.keys, KeySource::Text(_)) {
            return;
        }
        let (source, stop, on) = (Arc::clone(self), stop.clone(), tracker.clone());
        tracker.spawn(async move {
            let looking = async {
                loop {
                    let due = source.attempts.lock().due;
                    sleep_until(due).await;
                    source.refresh(&on, &stop).await;
                }
            };
            stop.run_until_cancelled(looking).await;
        });
    }

    /// Looks for new keys, unless that was done a moment ago; waits for whoever does it already.
    ///
    /// # Cancel safety
    /// The attempt goes on by itself: whoever leaves does not end it for the others.
    pub(super) async fn refresh(self: &Arc<Self>, tracker: &TaskTracker, stop: &CancellationToken) {
        let pause = match &self.issuer.keys {
            KeySource::Text(_) => return,
            KeySource::File(_) => FILE_PAUSE,
            KeySource::Url(_) => FETCH_PAUSE,
        };
        let over = {
            let mut attempts = self.attempts.lock();
            // One that was broken off has ended without a word.
            match attempts.running.as_ref().filter(|over| !over.is_cancelled()) {
                Some(over) => over.clone(),
                None if attempts.last.is_some_and(|last| last.elapsed() < pause) => {
                    return;
                }
                None => {
                    let (now, over) = (Instant::now(), CancellationToken::new());
                    (attempts.last, attempts.due) = (Some(now), now + pause);
                    attempts.running = Some(over.clone());
                    let (source, on) = (Arc::clone(self), tracker.clone());
                    let (stop, guard) = (stop.clone(), over.clone().drop_guard());
                    tracker.spawn(async move {
                        stop.run_until_cancelled(source.attempt(&on, pause)).await;
                        source.attempts.lock().running = None;
                        drop(guard);
                    });
                    over
                }
            }
        };
        over.cancelled().await;
    }

    /// Looks for new keys once.
    async fn attempt(&self, tracker: &TaskTracker, pause: Duration) {
        let (outcome, next) = match (&self.issuer.keys, &self.fetcher) {
            (KeySource::Url(_), Some(fetcher)) => match fetcher.fetch().await {
                Ok(document) => {
                    let next = document.max_age.unwrap_or(FETCH_EVERY).clamp(pause, FETCH_EVERY);
                    let text = String::from_utf8(document.body).map_err(|_| KeyError::Json);
                    (text.and_then(|text| self.parse(&text)).map_err(KeysError::from), next)
                }
                Err(cause) => (Err(cause.into()), pause),
            },
            (KeySource::File(path), _) => {
                let (path, reading) = (path.clone(), path.clone());
                let text = tracker.spawn_blocking(move || read(&reading)).await;
                let text = text.unwrap_or_else(|cause| {
                    Err(KeysError::File { path, cause: std::io::Error::other(cause) })
                });
                (text.and_then(|text| Ok(self.parse(&text)?)), pause)
            }
            (KeySource::Text(_), _) | (KeySource::Url(_), None) => return,
        };
        let failure = outcome.as_ref().err().map(KeysError::sentence);
        if let Ok(keys) = outcome {
            self.take(keys);
        }
        let mut attempts = self.attempts.lock();
        // From its beginning, as the pause is counted.
        attempts.due = attempts.last.map_or(attempts.due, |last| last + next);
        // Once, not every few seconds.
        if let Some(cause) = failure.as_ref().filter(|_| attempts.failure != failure) {
            let issuer = &self.name;
            tracing::warn!(%issuer, %cause, "the keys of an issuer cannot be had; those that are known stay");
        }
        attempts.failure = failure;
    }

    /// Reads keys. What anybody can fetch is no secret, whatever the operator has said.
    fn parse(&self, text: &str) -> Result<KeySet, KeyError> {
        let algorithms = self.issuer.algorithms.iter().copied();
        let algorithms: Vec<_> =
            algorithms.filter(|of| self.fetcher.is_none() || *of != Algorithm::Hs256).collect();
        KeySet::parse(text, &algorithms)
    }

    /// Replaces the keys, if they are others.
    fn take(&self, keys: KeySet) {
        if **self.keys.load() == keys {
            return;
        }
        tracing::info!(issuer = %self.name, keys = keys.len(), "the keys of an issuer have changed");
        self.keys.store(Arc::new(keys));
        self.verified.clear();
    }
}

fn read(path: &Path) -> Result<String, KeysError> {
    let mut text = String::new();
    let read = |text: &mut String| {
        // Whoever opens a pipe waits for who writes to it, for ever.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "is no regular file"));
        }
        let length = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(text)?;
        if length as u64 > FILE_BYTES_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "is larger than 1 MiB"));
        }
        Ok(())
    };
    read(&mut text).map_err(|cause| KeysError::File { path: path.to_owned(), cause })?;
    Ok(text)
}
