//! The load that a scenario puts on its target: for how long, over which threads, and the topics that it
//! makes and deletes again.
//!
//! It must not know what a scenario measures.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::error::BenchError;
use crate::mark::{Topics, key};
use crate::measure::{Meter, Window};
use crate::process::{Processes, Usage};
use crate::progress::{DRAW_EVERY, busy, progress};
use crate::target::{Kind, Target};
use crate::{http, resp};

/// Most connections of one run.
pub(crate) const CONNECTIONS_MAX: u64 = 200_000;
/// How long answers and messages are waited for after the end of a run.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long a relay may take to deal with what it has got.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

/// What a scenario is given: where the load goes, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) target: Target,
    /// Lines of headers, each with its end.
    pub(crate) headers: String,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) threads: usize,
    pub(crate) processes: Processes,
    /// How many files this process may have open.
    pub(crate) open_files_max: Option<u64>,
    /// What is to be deleted.
    pub(crate) own: Arc<Mutex<Vec<Own>>>,
}

/// What a run has made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Own {
    /// Topics.
    Topics(Topics),
    /// A bucket, and how many keys a bare server has in its place.
    Bucket(String, u64),
}

impl Load {
    /// Returns the window of a run that starts now.
    pub(crate) fn window(&self, paced: bool) -> Window {
        let from = Instant::now() + self.warm_up;
        Window { from, until: from + self.duration, paced }
    }

    pub(crate) fn unreachable(&self, why: String) -> BenchError {
        BenchError::NoAnswer { url: self.target.name.clone(), why }
    }

    /// Waits until the tasks have ended, shows the progress, and returns what the measured part used.
    pub(crate) async fn drive(&self, what: &str, meter: &Meter, mut tasks: JoinSet<()>) -> Usage {
        let bar = progress(what, self.warm_up + self.duration);
        let start = meter.window.from.checked_sub(self.warm_up).unwrap_or(meter.window.from);
        let (mut before, mut after) = (None, None);
        let mut ticks = interval(DRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = sleep_until(meter.window.from), if before.is_none() => {
                    before = Some(self.processes.snapshot());
                }
                // Without a pace, what comes after it is not counted.
                () = sleep_until(meter.window.until), if after.is_none() && !meter.window.paced => {
                    after = Some(self.processes.snapshot());
                }
                ended = tasks.join_next() => match ended {
                    None => break,
                    Some(Err(error)) if error.is_panic() => meter.failed("the load generator is broken"),
                    Some(_) => {}
                },
                now = ticks.tick() => {
                    let millis = now.saturating_duration_since(start).as_millis();
                    bar.set_position(u64::try_from(millis).unwrap_or_default());
                }
            }
        }
        bar.finish_and_clear();
        let after = after.unwrap_or_else(|| self.processes.snapshot());
        after.since(before.unwrap_or(after))
    }

    /// Makes topics, which must be there before they are subscribed to. To other servers they need not.
    pub(crate) async fn create(&self, topics: &Topics) -> Result<(), BenchError> {
        if self.target.kind != Kind::Relay {
            return Ok(());
        }
        let _busy = busy("making topics");
        let create = async {
            let mut connection = http::Connection::open(&self.target).await?;
            self.own(topics);
            let headers = &self.headers;
            for topic in topics.names() {
                let body = format!(r#"{{"topic_name":"{topic}"}}"#);
                let length = body.len();
                let headers =
                    format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}");
                let mut request = http::request(&self.target, &headers, "POST", "/api/v1/topics");
                request.extend_from_slice(body.as_bytes());
                let status = connection.exchange(&request).await?.status;
                if !matches!(status, 200..300 | 409) {
                    return Err(format!("the topic {topic} cannot be made: status {status}"));
                }
            }
            Ok(())
        };
        create.await.map_err(|why| self.unreachable(why))
    }

    /// Makes a bucket, which must be there before it is watched.
    pub(crate) async fn create_bucket(&self, bucket: &str) -> Result<(), BenchError> {
        let create = async {
            let mut connection = http::Connection::open(&self.target).await?;
            self.own_bucket(bucket, 0);
            let headers = format!("Content-Type: application/json\r\nContent-Length: 2\r\n{}", self.headers);
            let path = format!("/api/v1/buckets/{bucket}");
            let mut request = http::request(&self.target, &headers, "PUT", &path);
            request.extend_from_slice(b"{}");
            match connection.exchange(&request).await?.status {
                200..300 => Ok(()),
                status => Err(format!("the bucket {bucket} cannot be made: status {status}")),
            }
        };
        create.await.map_err(|why| self.unreachable(why))
    }

    /// Notes topics that may be there from now on, to delete them later if they are the run's own.
    pub(crate) fn own(&self, topics: &Topics) {
        if topics.own {
            self.note(Own::Topics(topics.clone()));
        }
    }

    /// Notes a bucket that may be there from now on, to delete it later.
    pub(crate) fn own_bucket(&self, bucket: &str, keys: u64) {
        self.note(Own::Bucket(bucket.to_owned(), keys));
    }

    fn note(&self, made: Own) {
        let mut own = self.own.lock();
        if !own.contains(&made) {
            own.push(made);
        }
    }

    /// Deletes the load's own topics and buckets. What cannot be deleted is told: it is left behind.
    pub(crate) async fn clean(&self) {
        let _busy = busy("deleting what the run has made");
        let all = self.own.lock().clone();
        for own in all {
            let deleted = match (&own, self.target.kind) {
                (Own::Bucket(bucket, keys), _) => self.delete_bucket(bucket, *keys).await,
                (Own::Topics(topics), Kind::Relay) => self.delete_from_relay(topics).await,
                (Own::Topics(topics), Kind::Server) => self.delete_from_server(topics).await,
                // It has no way that is known here.
                (Own::Topics(_), Kind::Plain) => Ok(()),
            };
            if let Err(why) = deleted {
                return self.tell_left(&why);
            }
            self.own.lock().retain(|left| *left != own);
        }
    }

    /// Tells which topics are left behind, and why. Nobody tries again.
    pub(crate) fn tell_left(&self, why: &str) {
        for own in std::mem::take(&mut *self.own.lock()) {
            match own {
                Own::Topics(topics) => {
                    eprintln!("the topics of the run, {}…, are left behind: {why}", topics.name(0));
                }
                Own::Bucket(bucket, _) => eprintln!("the bucket of the run, {bucket}, is left behind: {why}"),
            }
        }
    }

    async fn delete_bucket(&self, bucket: &str, keys: u64) -> Result<(), String> {
        const KEYS_AT_ONCE: u64 = 1_000;
        match self.target.kind {
            Kind::Relay => {
                let mut connection = http::Connection::open(&self.target).await?;
                let path = format!("/api/v1/buckets/{bucket}");
                let request = http::request(&self.target, &self.headers, "DELETE", &path);
                let answer =
                    timeout(GRACE, connection.exchange(&request)).await.map_err(|_| "no answer")??;
                if !matches!(answer.status, 200..300 | 404) {
                    return Err(format!("status {}", answer.status));
                }
            }
            Kind::Server => {
                let mut connection = resp::Connection::open(&self.target, 0).await?;
                let mut from = 0;
                while from < keys {
                    let to = (from + KEYS_AT_ONCE).min(keys);
                    let names: Vec<String> = (from..to).map(|key| bare_key(bucket, key)).collect();
                    let command: Vec<&str> =
                        std::iter::once("UNLINK").chain(names.iter().map(String::as_str)).collect();
                    let command = resp::command(&command);
                    timeout(GRACE, connection.ask(&command)).await.map_err(|_| "no answer")??;
                    from = to;
                }
            }
            // It has none.
            Kind::Plain => {}
        }
        Ok(())
    }

    async fn delete_from_relay(&self, topics: &Topics) -> Result<(), String> {
        let mut connection = http::Connection::open(&self.target).await?;
        for topic in topics.names() {
            let path = format!("/api/v1/topics/{topic}");
            let request = http::request(&self.target, &self.headers, "DELETE", &path);
            let answer = timeout(GRACE, connection.exchange(&request)).await.map_err(|_| "no answer")??;
            if !matches!(answer.status, 200..300 | 404) {
                return Err(format!("status {}", answer.status));
            }
        }
        Ok(())
    }

    async fn delete_from_server(&self, topics: &Topics) -> Result<(), String> {
        let mut connection = resp::Connection::open(&self.target, 0).await?;
        for topic in topics.names() {
            let command = resp::command(&["UNLINK", &key(&topic)]);
            timeout(GRACE, connection.ask(&command)).await.map_err(|_| "no answer")??;
        }
        Ok(())
    }
}

/// Returns the name that a bare server has a key of a bucket under.
pub(crate) fn bare_key(bucket: &str, key: u64) -> String {
    format!("{bucket}:k{key}")
}
