//! From what a request shows to who calls: the directory and the records as this node holds them, kept as fresh as the storage
//! can be asked, and the keys of issuers.
//!
//! Finding out is a look at what is held, so that every request can afford it; only a JWT whose key is not
//! known waits for its issuer, and a token that is not known for the storage, which another node may have told of
//! it a moment ago. It must not know over which transport somebody calls, nor what for.
//!
//! **Invariant:** a right that was taken away is gone on every node within a second, and open sessions of
//! who had it end; while the storage cannot be asked, rights hold for a bounded time, and then nobody's do.

mod cookies;
mod passwords;
mod remembered;
mod tokens;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidemill_proto::{Code, Problem, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::passwords::wrong_password;
pub use self::remembered::Remembered;
use self::tokens::{log_in_over, token_gone};
use super::caller::{Caller, Who};
use super::held::Held;
use super::jwt::{Claims, Issuers, IssuersError, Refusal, Verdict};
use super::oidc::Providers;
use super::options::{AccessOptions, LogInLives, Mode};
use super::password::Passwords;
use super::rule::{Rule, Rules};
use super::sessions::Sessions;
use super::shown::Shown;
use super::token::{TokenId, TokenKind};
use crate::clock::Clock;
use crate::storage::{AccessStore, RecordStore, Storage, StorageError};

/// How long a node that starts waits for the storage, before it lets nobody in for as long as that is away.
const BEGIN_MAX: Duration = Duration::from_secs(1);
/// Callers of JWTs that are remembered, until their tokens expire.
const SUBJECTS_MAX: usize = 10_000;
/// Devices of which it is known when they asked last.
const ASKED_MAX: usize = 1_000;

/// Tells who calls. Cloning is cheap.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    mode: Mode,
    stale_max: Duration,
    issuers: Issuers,
    log_ins: LogInLives,
    providers: Providers,
    store: Arc<dyn AccessStore>,
    records: Arc<dyn RecordStore>,
    clock: Clock,
    sessions: Sessions,
    held: ArcSwap<Held>,
    /// How often what is held has been replaced.
    replaced: AtomicU64,
    started: Instant,
    /// Milliseconds after the start at which what is held was last known to be that of the storage; 0 before that.
    confirmed_ms: AtomicU64,
    /// Held by who asks the storage, so that what was read before does not come to stand over what was read later.
    asking: Semaphore,
    /// Held by who changes something, so that those on one node wait for each other in place of trying again.
    changing: Semaphore,
    /// Held by who begins what anybody may begin, so that all of it is counted before there is more.
    beginning: Semaphore,
    /// Cancelled when what is held was read for the first time.
    begun: CancellationToken,
    subjects: Mutex<HashMap<usize, (Arc<Claims>, Caller)>>,
    /// When devices that wait asked this node last.
    asked: Mutex<HashMap<TokenId, Instant>>,
    /// Made when the first password comes: it takes memory and some time.
    passwords: OnceLock<Passwords>,
    tracker: TaskTracker,
    /// Who calls whatever a request shows.
    #[cfg(test)]
    always: Option<Caller>,
}

/// A caller that was found.
struct Found {
    caller: Caller,
    /// Until when what was shown is good, if that has an end.
    until: Option<Timestamp>,
}

/// Why it is not told who calls.
#[derive(Debug)]
pub enum Unknown {
    /// An issuer or the storage has to be asked first.
    Later,
    /// Nobody is let in with this.
    Refused(Box<Problem>),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("mode", &self.0.mode).finish_non_exhaustive()
    }
}

impl Access {
    /// Starts; what has to be watched is, on `tracker` until `stop` is cancelled.
    ///
    /// # Errors
    /// The keys of an issuer cannot be read, or two have one name.
    pub fn start(
        options: AccessOptions,
        storage: &Storage,
        clock: Clock,
        sessions: Sessions,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, IssuersError> {
        let AccessOptions { mode, stale_max, issuers, log_ins, providers } = options;
        let issuers = Issuers::start(issuers, tracker, stop)?;
        let access = Self(Arc::new(Inner {
            mode,
            stale_max,
            issuers,
            log_ins,
            providers: Providers::start(providers, tracker, stop).map_err(IssuersError::Provider)?,
            store: storage.access.clone(),
            records: storage.records.clone(),
            clock,
            sessions,
            held: ArcSwap::default(),
            replaced: AtomicU64::new(0),
            started: Instant::now(),
            confirmed_ms: AtomicU64::new(0),
            asking: Semaphore::new(1),
            changing: Semaphore::new(1),
            beginning: Semaphore::new(1),
            begun: CancellationToken::new(),
            subjects: Mutex::default(),
            asked: Mutex::default(),
            passwords: OnceLock::new(),
            tracker: tracker.clone(),
            #[cfg(test)]
            always: None,
        }));
        if mode == Mode::Closed {
            tracker.spawn(stop.clone().run_until_cancelled_owned(access.clone().watch()));
        }
        Ok(access)
    }

    /// Returns one for which everybody is this caller.
    #[cfg(test)]
    pub(crate) fn always(caller: Caller) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (storage, sessions) = (crate::storage::test_storage(), Sessions::new(stop.clone()));
        let open = Self::start(AccessOptions::open(), &storage, Clock::system(), sessions, &tracker, &stop);
        let mut inner = Arc::into_inner(open.expect("there are no issuers").0).expect("nobody else has it");
        inner.always = Some(caller);
        Self(Arc::new(inner))
    }

    /// Tells who calls, by what a request shows of it, if it does. Where everybody is let in, it is not looked at.
    ///
    /// # Errors
    /// Nobody does, or it takes time to find out.
    pub fn find<'a, S: Into<Shown<'a>>>(
        &self,
        shown: impl FnOnce() -> Result<S, Box<Problem>>,
    ) -> Result<Caller, Unknown> {
        #[cfg(test)]
        if let Some(always) = &self.0.always {
            return Ok(always.clone());
        }
        if self.0.mode == Mode::Open {
            return Ok(Caller::anyone());
        }
        Ok(self.find_until(shown)?.caller)
    }

    fn find_until<'a, S: Into<Shown<'a>>>(
        &self,
        shown: impl FnOnce() -> Result<S, Box<Problem>>,
    ) -> Result<Found, Unknown> {
        let shown = shown().map_err(Unknown::Refused)?.into();
        self.check_fresh().map_err(Unknown::Refused)?;
        let (held, now) = (self.0.held.load(), self.0.clock.now());
        let bearer = match shown {
            Shown::Nothing => return Ok(Found { caller: held.directory.anonymous(), until: None }),
            Shown::Cookie(text) => return cookies::by_cookie(&held, text, now).ok_or(Unknown::Later),
            Shown::Bearer(bearer) => bearer,
        };
        if bearer.starts_with(TokenKind::Access.prefix()) {
            return Self::by_access_token(&held.records, bearer, now);
        }
        let is_token = bearer.starts_with(TokenKind::Token.prefix());
        if let Some((kind, rule)) = TokenKind::misplaced(bearer) {
            let detail = format!("what is sent is a {}, and lets nobody in here: {rule}", kind.name());
            return Err(Unknown::Refused(unauthenticated(detail)));
        }
        if !is_token && self.0.issuers.are_none() {
            let detail = "what is sent is no token of this relay, which begins with `tm_` or `ta_`, and it takes nobody's JWTs";
            return Err(Unknown::Refused(unauthenticated(detail.to_owned())));
        }
        let caller = if is_token {
            Self::by_token(&held.directory, bearer, now)?
        } else {
            match self.0.issuers.verify(bearer, now) {
                Verdict::Verified(claims) => self.subject(&claims, now).map_err(Unknown::Refused)?,
                Verdict::Refused(refusal) => return Err(Unknown::Refused(of_jwt(&refusal))),
                Verdict::UnknownKey(_) => return Err(Unknown::Later),
            }
        };
        let until = caller.expires_at();
        Ok(Found { caller, until })
    }

    /// Tells who calls, however long it takes to find out.
    ///
    /// # Errors
    /// Nobody does: `unauthenticated`; or it cannot be found out now: `storage_unavailable`.
    pub async fn identify<'a, S: Into<Shown<'a>>>(
        &self,
        shown: impl FnOnce() -> Result<S, Box<Problem>>,
    ) -> Result<Caller, Box<Problem>> {
        let mut seen = Shown::Nothing;
        let found = self.find(|| {
            seen = shown()?.into();
            Ok(seen)
        });
        match (found, seen) {
            (Ok(caller), _) => Ok(caller),
            (Err(Unknown::Refused(problem)), _) => Err(problem),
            (Err(Unknown::Later), Shown::Bearer(bearer)) => self.identify_later(bearer).await,
            (Err(Unknown::Later), Shown::Cookie(text)) => Ok(self.identify_by_cookie(text).await),
            (Err(Unknown::Later), Shown::Nothing) => Ok(self.0.held.load().directory.anonymous()),
        }
    }

    /// Tells who shows what is not known here.
    async fn identify_later(&self, bearer: &str) -> Result<Caller, Box<Problem>> {
        let now = self.0.clock.now();
        let is_of = |kind: TokenKind| bearer.starts_with(kind.prefix());
        if !is_of(TokenKind::Access) && !is_of(TokenKind::Token) {
            let claims = self.0.issuers.check(bearer, now).await;
            return self.subject(&claims.map_err(|refusal| of_jwt(&refusal))?, now);
        }
        // Another node may have made it a moment ago. Where the storage does not tell, nobody has.
        let _ = self.catch_up().await;
        let held = self.0.held.load();
        let (found, gone) = if is_of(TokenKind::Token) {
            (Self::by_token(&held.directory, bearer, now), token_gone as fn() -> _)
        } else {
            let found = Self::by_access_token(&held.records, bearer, now);
            (found.map(|found| found.caller), log_in_over as fn() -> _)
        };
        found.map_err(|unknown| match unknown {
            Unknown::Later => gone(),
            Unknown::Refused(problem) => problem,
        })
    }

    /// Returns the caller of a JWT: the same one each time, so that it is one principal.
    fn subject(&self, claims: &Arc<Claims>, now: Timestamp) -> Result<Caller, Box<Problem>> {
        let key = Arc::as_ptr(claims) as usize;
        let mut subjects = self.0.subjects.lock();
        if let Some((_, caller)) = subjects.get(&key) {
            return Ok(caller.clone());
        }
        let rules: Result<Vec<Rule>, _> = claims.grants.iter().map(|grant| Rule::parse(grant)).collect();
        let rules = rules.map_err(|error| unauthenticated(format!("a grant of the token {error}")))?;
        let who = Who::Subject { issuer: (&*claims.issuer).into(), subject: claims.subject.as_str().into() };
        let rules = Rules::of(&rules, who.name());
        let caller = Caller::subject(who, rules, Some(claims.expires_at), Some(claims.key));
        if subjects.len() >= SUBJECTS_MAX {
            subjects.retain(|_, (claims, _)| claims.expires_at > now);
        }
        if subjects.len() < SUBJECTS_MAX {
            // With the claims, so that no others come to lie where these do.
            subjects.insert(key, (claims.clone(), caller.clone()));
        }
        Ok(caller)
    }

    /// Returns whether those of whom others say who they are can still be told: that the issuer has the key of the
    /// JWT that somebody came with, or who made what it came with.
    pub(super) fn is_signed(&self, caller: &Caller) -> bool {
        caller.chain().all(|caller| match caller.who() {
            Who::Subject { issuer, .. } => {
                caller.key().is_some_and(|key| self.0.issuers.has_key(issuer, key))
            }
            Who::Anyone | Who::Anonymous | Who::User(_) | Who::Token { .. } | Who::Ticket { .. } => true,
        })
    }

    /// Checks that what is held is what the storage has, or was a moment ago.
    pub(super) fn check_fresh(&self) -> Result<(), Box<Problem>> {
        if self.is_fresh(Instant::now()) {
            return Ok(());
        }
        let detail = "who may do what cannot be looked up now, because the storage does not answer";
        Err(Box::new(Problem::new(Code::StorageUnavailable, detail)))
    }

    /// Returns whether it can be told now who calls.
    #[must_use]
    pub fn can_tell(&self) -> bool {
        self.is_open() || self.is_fresh(Instant::now())
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let confirmed_ms = self.0.confirmed_ms.load(Ordering::Acquire);
        let age_ms = self.ms_at(now).saturating_sub(confirmed_ms);
        confirmed_ms > 0 && u128::from(age_ms) <= self.0.stale_max.as_millis()
    }

    /// Returns the milliseconds since the start, at least 1.
    fn ms_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Waits until what is held was read for the first time, but not for long: the storage may be away.
    pub async fn begin(&self) {
        if self.0.mode == Mode::Closed {
            let _ = timeout(BEGIN_MAX, self.0.begun.cancelled()).await;
        }
    }

    /// Returns what there is in the storage now.
    ///
    /// # Errors
    /// The storage did not answer.
    pub(super) async fn refreshed(&self) -> Result<Arc<Held>, StorageError> {
        let asking = self.0.asking.acquire().await.expect("nobody closes the semaphore");
        self.ask(asking).await
    }

    /// Makes sure that what is held is what the storage has now: all who want that at once are served by one
    /// answer.
    ///
    /// # Errors
    /// The storage did not answer.
    pub(super) async fn catch_up(&self) -> Result<(), StorageError> {
        let wanted_ms = self.ms_at(Instant::now());
        let asking = self.0.asking.acquire().await.expect("nobody closes the semaphore");
        // Asked in the same millisecond, it may have been asked before.
        if self.0.confirmed_ms.load(Ordering::Acquire) <= wanted_ms {
            self.ask(asking).await?;
        }
        Ok(())
    }

    async fn ask(&self, _asking: SemaphorePermit<'_>) -> Result<Arc<Held>, StorageError> {
        let before = self.0.held.load_full();
        let asked_ms = self.ms_at(Instant::now());
        // Nothing was read before the first time, and then 0 would be taken for it.
        let known = |revision| self.0.begun.is_cancelled().then_some(revision);
        let (documents, changes) = tokio::try_join!(
            self.0.store.documents(known(before.directory.revision)),
            self.0.records.records(known(before.records.revision)),
        )?;
        if documents.as_ref().is_some_and(|read| read.documents.is_empty()) && before.directory.len() > 0 {
            tracing::warn!("all users, tokens and roles are gone from the storage: nobody is let in by them");
        }
        if documents.is_some() || changes.is_some() {
            self.0.held.store(Arc::new(before.after(documents, changes)));
            self.0.replaced.fetch_add(1, Ordering::Release);
        }
        self.0.confirmed_ms.fetch_max(asked_ms, Ordering::AcqRel);
        self.0.begun.cancel();
        Ok(self.held())
    }

    /// Returns what this node holds.
    pub(super) fn held(&self) -> Arc<Held> {
        self.0.held.load_full()
    }

    /// Reads what there is now, if it can be read, and ends the sessions of who may not go on.
    pub(super) async fn look(&self) {
        // What cannot be read now is read soon.
        let _ = self.refreshed().await;
        self.end_sessions();
    }

    /// Returns whether somebody may administer the relay; `None` where that is not known now, or everybody may.
    #[must_use]
    pub fn has_administrator(&self) -> Option<bool> {
        let is_known = self.0.mode == Mode::Closed && self.is_fresh(Instant::now());
        is_known.then(|| self.0.held.load().directory.has_admin(self.0.clock.now()))
    }

    /// Returns whether there is a user of this name.
    #[must_use]
    pub fn has_user(&self, name: &str) -> bool {
        self.0.held.load().directory.users.contains_key(name)
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(super) fn store(&self) -> &dyn AccessStore {
        &*self.0.store
    }

    pub(super) fn records(&self) -> &dyn RecordStore {
        &*self.0.records
    }

    /// Waits until nobody else on this node changes something.
    pub(super) async fn change_alone(&self) -> SemaphorePermit<'_> {
        self.0.changing.acquire().await.expect("nobody closes the semaphore")
    }

    /// Waits until nobody else on this node begins what anybody may begin.
    pub(super) async fn begin_alone(&self) -> SemaphorePermit<'_> {
        self.0.beginning.acquire().await.expect("nobody closes the semaphore")
    }

    /// Notes that a device asks, and returns whether it has asked a shorter time ago than it may.
    pub(super) fn asks_too_soon(&self, id: TokenId, again_after: Duration) -> bool {
        let now = Instant::now();
        let mut asked = self.0.asked.lock();
        asked.retain(|_, at| now.duration_since(*at) < again_after);
        if asked.len() >= ASKED_MAX && !asked.contains_key(&id) {
            return true;
        }
        asked.insert(id, now).is_some()
    }

    /// Returns whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.mode == Mode::Open
    }

    pub(super) fn providers(&self) -> &Providers {
        &self.0.providers
    }

    pub(super) fn log_in_lives(&self) -> LogInLives {
        self.0.log_ins
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

fn unauthenticated(detail: String) -> Box<Problem> {
    Box::new(Problem::new(Code::Unauthenticated, detail))
}

fn of_jwt(refusal: &Refusal) -> Box<Problem> {
    unauthenticated(refusal.to_string())
}
