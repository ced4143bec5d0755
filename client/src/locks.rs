//! Locks over HTTP: acquired, renewed in the background, told when they are lost, and given back. It must not know what
//! is done under them.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_proto::locks::{
    Fence, Guarded, LockGranted, LockRenewed, LockRequest, LockToken, ReleaseRequest, RenewRequest,
};
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{Code, LockName, MessageId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::connection::Connector;
use crate::error::ClientError;
use crate::http::{Http, Request};
use crate::options::random;
use crate::work::text;

/// The longest that one request waits for a lock.
const WAIT_OF_REQUEST: Duration = Duration::from_secs(30);
/// Time until a request is tried again that has failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long it takes at most to give a lock back.
const RELEASE: Duration = Duration::from_secs(5);
/// A lock is renewed that often in the time for which it is held.
const RENEWED: u32 = 3;
/// The longest time that is left of a lock when it is told that it cannot be renewed.
const GRACE_MAX: Duration = Duration::from_secs(10);

/// How a lock is to be held.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// Who holds it, as others are told.
    pub holder: ConsumerName,
    /// For how long it is held when it is not renewed any more: 100 ms to 24 h.
    pub ttl: Duration,
    /// How long to wait where another holds it. Past 30 s it is asked for anew, behind all who wait.
    pub wait: Duration,
    /// What it guards. It is a part of which lock is meant.
    pub guards: Option<Guarded>,
}

impl LockOptions {
    /// Returns the options of who does not wait, and holds a lock that guards nothing for 30 seconds at a time.
    #[must_use]
    pub const fn new(holder: ConsumerName) -> Self {
        Self { holder, ttl: Duration::from_secs(30), wait: Duration::ZERO, guards: None }
    }
}

/// Acquires locks, over HTTP. It keeps connections that it may use again; a clone shares them.
#[derive(Clone, Debug)]
pub struct LockClient {
    http: Http,
}

/// A lock that is held, and renewed by a task on the runtime of who has acquired it. Dropping it gives the lock back, as
/// far as that runtime goes on and the relay answers within five seconds; else it ends when its time is over.
#[derive(Debug)]
pub struct Lock {
    name: LockName,
    fence: MessageId,
    state: watch::Receiver<State>,
    /// Dropping it ends the task.
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ClientError>>,
    http: Http,
}

/// How far a lock is held.
#[derive(Clone, Debug)]
struct State {
    /// Until when for sure, by the clock of this process: no clock of another is believed.
    until: Instant,
    /// Why it is lost.
    lost: Option<ClientError>,
}

/// Holds a lock.
struct Keeper {
    http: Http,
    name: LockName,
    token: LockToken,
    ttl: Duration,
    until: Instant,
    renewed_at: Instant,
}

impl LockClient {
    pub(crate) fn new(connector: &Connector) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(&connector.address, &connector.options)? })
    }

    /// Acquires a lock, and waits for it as long as the options say. A request whose answer is lost is sent again under its
    /// key while there is time, and finds what it has acquired.
    ///
    /// # Errors
    /// As the relay refuses, above all with the code `locked` where another holds it to the end of the wait, or no answer.
    ///
    /// # Cancel safety
    /// Cancel-safe: who drops the future has no place in the line any more, and what it was granted is given back where the
    /// relay notices, or ends when its time is over.
    ///
    /// # Panics
    /// It is not called on a runtime of tokio.
    pub async fn acquire(&self, name: &LockName, options: LockOptions) -> Result<Lock, ClientError> {
        let until = Instant::now() + options.wait;
        let mut key = new_key();
        loop {
            let asked = Instant::now();
            let wait = until.saturating_duration_since(asked).min(WAIT_OF_REQUEST);
            let error = match self.ask(name, &options, &key, wait).await {
                Ok(granted) => return self.held(name, granted, options.ttl, asked).await,
                Err(error) => error,
            };
            let is_locked = is(&error, Code::Locked);
            let is_again = error.is_passing() || matches!(error, ClientError::NoAnswer { .. });
            if Instant::now() >= until || !is_again {
                return Err(error);
            }
            if is_locked {
                key = new_key();
            } else {
                sleep_until((Instant::now() + pause(&error)).min(until)).await;
            }
        }
    }

    async fn ask(
        &self,
        name: &LockName,
        options: &LockOptions,
        key: &str,
        wait: Duration,
    ) -> Result<LockGranted, ClientError> {
        let LockOptions { holder, ttl, guards, .. } = options.clone();
        let body = LockRequest { holder, ttl: Some(text(ttl)), lease: None, wait: Some(text(wait)), guards };
        send(&self.http, &["api", "v1", "locks", name.as_str()], &body, Some(key), wait).await
    }

    /// Begins to hold a lock that was asked for then. Its time may have begun as early: what was waited for is renewed.
    async fn held(
        &self,
        name: &LockName,
        granted: LockGranted,
        ttl: Duration,
        asked: Instant,
    ) -> Result<Lock, ClientError> {
        let LockGranted { token, fence, .. } = granted;
        let (http, name) = (self.http.clone(), name.clone());
        let mut keeper = Keeper { http, name, token, ttl, until: asked + ttl, renewed_at: asked };
        if asked.elapsed() > ttl / RENEWED {
            keeper.renew().await?;
        }
        let (told, state) = watch::channel(State { until: keeper.until, lost: None });
        let (stop, stopped) = oneshot::channel();
        let name = keeper.name.clone();
        let task = TaskTracker::new().spawn(keeper.keep(told, stopped));
        Ok(Lock { name, fence, state, stop, task, http: self.http.clone() })
    }
}

impl Lock {
    /// Returns the name.
    #[must_use]
    pub const fn name(&self) -> &LockName {
        &self.name
    }

    /// Returns the fence: greater than every one that the lock has given before.
    #[must_use]
    pub const fn fence(&self) -> MessageId {
        self.fence
    }

    /// Returns the fence with the name of the lock, as publishes and changes of keys show it
    /// ([`NewMessage::with_fence`](crate::NewMessage::with_fence), [`ChangeOptions`](crate::ChangeOptions)).
    #[must_use]
    pub fn named_fence(&self) -> Fence {
        Fence { lock: self.name.clone(), fence: self.fence }
    }

    /// Returns whether the lock is held for sure, as far as this process knows in this moment.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let state = self.state.borrow();
        state.lost.is_none() && Instant::now() < state.until
    }

    /// Waits until the lock is lost, and returns why: the relay says so, or it could not be renewed and a third of its time
    /// is left, at most ten seconds, in which to stop what is done under it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn lost(&self) -> ClientError {
        let mut state = self.state.clone();
        let lost =
            state.wait_for(|state| state.lost.is_some()).await.ok().and_then(|state| state.lost.clone());
        lost.unwrap_or_else(|| self.ended())
    }

    /// Gives the lock back. Who is next has it then.
    ///
    /// # Errors
    /// Why it was lost, where it was; or why it could not be given back: then it ends when its time is over.
    pub async fn release(self) -> Result<(), ClientError> {
        let ended = self.ended();
        drop(self.stop);
        self.task.await.unwrap_or(Err(ended))
    }

    fn ended(&self) -> ClientError {
        self.http.no_answer("what renews the lock has ended".to_owned())
    }
}

impl Keeper {
    /// Holds the lock until it is lost, or nobody wants it any more, and gives it back.
    async fn keep(
        mut self,
        told: watch::Sender<State>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<(), ClientError> {
        let lost = tokio::select! {
            lost = self.lost(&told) => lost,
            _ = &mut stopped => return self.release().await,
        };
        told.send_modify(|state| state.lost = Some(lost.clone()));
        let _ = stopped.await;
        if !is(&lost, Code::LockLost) {
            // It may be held still.
            drop(self.release().await);
        }
        Err(lost)
    }

    /// Renews the lock for as long as that succeeds, and returns why it does not.
    async fn lost(&mut self, told: &watch::Sender<State>) -> ClientError {
        let step = self.ttl / RENEWED;
        let mut next = self.renewed_at + step;
        let mut last = None;
        loop {
            let until = self.until - step.min(GRACE_MAX);
            let renewing = async {
                sleep_until(next).await;
                self.renew().await
            };
            match timeout_at(until, renewing).await {
                Ok(Ok(())) => {
                    told.send_modify(|state| state.until = self.until);
                    next = self.renewed_at + step;
                    last = None;
                }
                Ok(Err(error)) if is(&error, Code::LockLost) => return error,
                Ok(Err(error)) => {
                    next = Instant::now() + pause(&error).min(step / 4);
                    last = Some(error);
                }
                Err(_) => {
                    return last.unwrap_or_else(|| self.http.no_answer("it took too long".to_owned()));
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), ClientError> {
        let body = RenewRequest { token: self.token.clone(), ttl: text(self.ttl) };
        let path = ["api", "v1", "locks", self.name.as_str(), "renew"];
        let asked = Instant::now();
        let asking = send::<LockRenewed>(&self.http, &path, &body, None, Duration::ZERO);
        // One that gets no answer is tried again while there is time.
        let renewed = timeout(self.ttl / RENEWED, asking).await;
        renewed.map_err(|_| self.http.no_answer("it took too long".to_owned()))??;
        (self.until, self.renewed_at) = (asked + self.ttl, asked);
        Ok(())
    }

    async fn release(&self) -> Result<(), ClientError> {
        let body = ReleaseRequest { token: self.token.clone() };
        let path = ["api", "v1", "locks", self.name.as_str(), "release"];
        let asking = send(&self.http, &path, &body, None, Duration::ZERO);
        let released = timeout(RELEASE, asking).await;
        released.unwrap_or_else(|_| Err(self.http.no_answer("it took too long".to_owned())))
    }
}

async fn send<T: DeserializeOwned>(
    http: &Http,
    path: &[&str],
    body: &impl Serialize,
    key: Option<&str>,
    wait: Duration,
) -> Result<T, ClientError> {
    http.ask(Request::new(Method::POST, path).key(key).json(body)?.wait(wait)).await
}

fn is(error: &ClientError, code: Code) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.code == code)
}

/// Returns how long to wait before what has failed so is tried again.
fn pause(error: &ClientError) -> Duration {
    match error {
        ClientError::Refused(refusal) => refusal.retry_after_seconds.map_or(RETRY, Duration::from_secs),
        _ => RETRY,
    }
}

fn new_key() -> String {
    format!("{:016x}{:016x}", random(), random())
}
