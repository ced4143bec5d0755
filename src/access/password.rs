//! Passwords: hashed slowly (Argon2id), a few at one time.
//!
//! One hash takes [`MEMORY_KIB`] of memory and some tens of milliseconds of a processor. So they are counted:
//! a few run, a few more wait for a short time, and whoever comes then is told that the relay is busy. Each
//! runs on a thread of its own that gives way to all others, so that a storm of log-ins does not slow down
//! messages; where the processors have no time left for it, a second one does the same and gets a little.
//!
//! It must not know who logs in, nor where the hashes are kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use secrecy::{ExposeSecret as _, SecretString};
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::entropy::secret_bytes;

/// Memory, passes and lanes of a hash: what OWASP's cheat sheet for storing passwords asks for.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// What a stored hash may ask for at most. A hash that was restored from elsewhere, or written into the
/// storage by somebody, must not make the relay take gigabytes or minutes.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 4;

const _: () = assert!(MEMORY_KIB <= MEMORY_KIB_MAX && PASSES <= PASSES_MAX && LANES <= LANES_MAX);

/// Longest text of a stored hash: ours have 97 characters.
const STORED_LENGTH_MAX: usize = 256;

/// Shortest password in characters, and longest in bytes. Short ones are guessed; long ones cost time before the hash.
const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1_024;

/// How far the second thread stands back behind the others (its niceness): a busy processor gives it about a tenth of
/// its time. It is no place for all of them: Linux lets such a thread go on for three milliseconds before one that
/// was woken for a message gets its turn.
const NICENESS: i32 = 10;

/// How many hashes may be made, and wait to be made.
#[derive(Clone, Copy, Debug)]
pub struct PasswordOptions {
    /// How many at one time; each takes 19 MiB, and twice that where it is done twice.
    pub running_max: usize,
    /// How many wait.
    pub waiting_max: usize,
    /// How long one waits.
    pub wait_max: Duration,
    /// How long one has only the time for which processors have nothing else to do.
    pub idle_max: Duration,
}

impl Default for PasswordOptions {
    fn default() -> Self {
        Self {
            running_max: 2,
            waiting_max: 64,
            wait_max: Duration::from_secs(2),
            idle_max: Duration::from_millis(500),
        }
    }
}

/// Too many passwords are checked at this moment: come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at this moment; try again in a few seconds")]
pub struct Busy;

/// Why it cannot be said whether a password is right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Too many are checked at this moment.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// What is stored is no hash that this relay takes: the user needs a new password.
    #[error("the stored hash of the password {0}; give the user a new password")]
    Stored(&'static str),
}

/// Why a text cannot be somebody's password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// It is too short.
    #[error("`password` has {0} characters, and needs at least 8; choose a longer one")]
    TooShort(usize),
    /// It is too long.
    #[error("`password` has {0} bytes, and may have at most 1024; choose a shorter one")]
    TooLong(usize),
}

/// A password that obeys the rules for new ones. `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct NewPassword(SecretString);

impl NewPassword {
    /// Checks the rules. The text is taken as it is, byte for byte.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn parse(text: SecretString) -> Result<Self, PasswordRule> {
        let bytes = text.expose_secret().len();
        if bytes > PASSWORD_BYTES_MAX {
            return Err(PasswordRule::TooLong(bytes));
        }
        match text.expose_secret().chars().count() {
            chars @ ..PASSWORD_CHARS_MIN => Err(PasswordRule::TooShort(chars)),
            PASSWORD_CHARS_MIN.. => Ok(Self(text)),
        }
    }
}

/// What hashes passwords, and checks them. Cloning is cheap; clones share the bound.
#[derive(Clone)]
pub struct Passwords {
    /// Places of those that run.
    running: Arc<Semaphore>,
    /// Places of threads that run while processors are idle: as many as of those that run.
    idle: Arc<Semaphore>,
    /// Places of those that run or wait.
    present: Arc<Semaphore>,
    wait_max: Duration,
    idle_max: Duration,
    /// The hash of a password that nobody knows: what is checked where there is no user, so that it takes as
    /// long.
    nobody: Arc<str>,
    tracker: TaskTracker,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Passwords {
    /// Starts with nothing under way; `tracker` waits for what is. It makes one hash, and so takes the time
    /// and memory of one.
    #[must_use]
    pub fn new(options: PasswordOptions, tracker: TaskTracker) -> Self {
        Self {
            running: Arc::new(Semaphore::new(options.running_max)),
            idle: Arc::new(Semaphore::new(options.running_max)),
            present: Arc::new(Semaphore::new(options.running_max + options.waiting_max)),
            wait_max: options.wait_max,
            idle_max: options.idle_max,
            nobody: hash_of(&secret_bytes::<32>()).into(),
            tracker,
        }
    }

    /// Returns whether a password is the one whose hash is stored. Where nothing is stored, because there is
    /// no such user, it does the same work.
    ///
    /// # Errors
    /// The relay is busy, or what is stored is no hash that it takes.
    ///
    /// # Cancel safety
    /// A hash that has begun is made to its end, within the bound; its outcome is lost.
    pub async fn verify(&self, stored: Option<&str>, password: &SecretString) -> Result<bool, VerifyError> {
        // Nobody has such a password, whoever it is.
        if password.expose_secret().len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let unusable = stored.and_then(|stored| readable(stored).err());
        let known = stored.filter(|_| unusable.is_none());
        let hash = known.map_or_else(|| Arc::clone(&self.nobody), Arc::from);
        let password = password.clone();
        let is_right = self.run(move || is_right(&hash, &password)).await?;
        match unusable {
            Some(rule) => Err(VerifyError::Stored(rule)),
            None => Ok(known.is_some() && is_right),
        }
    }

    /// Returns the hash of a new password, as it is stored (a PHC string).
    ///
    /// # Errors
    /// The relay is busy.
    ///
    /// # Cancel safety
    /// A hash that has begun is made to its end, within the bound; its outcome is lost.
    pub async fn hash(&self, password: &NewPassword) -> Result<String, Busy> {
        let password = password.clone();
        self.run(move || hash_of(password.0.expose_secret().as_bytes())).await
    }

    /// Returns the hash of a password for which a node that starts waits: it has nothing else to do.
    ///
    /// # Errors
    /// The runtime stops.
    ///
    /// # Cancel safety
    /// A hash that has begun is made to its end; its outcome is lost.
    pub async fn hash_at_once(password: &NewPassword) -> Result<String, Busy> {
        let password = password.clone();
        let work = move || hash_of(password.0.expose_secret().as_bytes());
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }

    /// Does a work when there is a place for it; it is done twice where processors have no time to spare.
    async fn run<T: Send + 'static>(&self, work: impl Fn() -> T + Send + Sync + 'static) -> Result<T, Busy> {
        let present = Arc::clone(&self.present).try_acquire_owned().map_err(|_| Busy)?;
        let waited = timeout(self.wait_max, Arc::clone(&self.running).acquire_owned()).await;
        let running = waited.map_err(|_| Busy)?.expect("nobody closes the semaphore");
        let (work, places) = (Arc::new(work), [present, running]);
        let Ok(idle) = Arc::clone(&self.idle).try_acquire_owned() else {
            // Others have waited in vain for an idle processor, and wait still.
            return self.start(Turn::AfterOthers, work, places)?.await.map_err(|_| Busy);
        };
        let mut first = self.start(Turn::WhenIdle, work.clone(), idle)?;
        if let Ok(done) = timeout(self.idle_max, &mut first).await {
            return done.map_err(|_| Busy);
        }
        let second = self.start(Turn::AfterOthers, work, places)?;
        let done = tokio::select! {
            done = first => done,
            done = second => done,
        };
        done.map_err(|_| Busy)
    }

    /// Does a work on a thread of its own. The thread has its place until the work is done, also where nobody waits
    /// for it any more.
    fn start<T: Send + 'static>(
        &self,
        turn: Turn,
        work: Arc<impl Fn() -> T + Send + Sync + 'static>,
        place: impl Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let (tx, rx) = oneshot::channel();
        let tracked = self.tracker.token();
        // Not one of the runtime's: what is set here cannot be taken back, and those do other work later.
        let thread = std::thread::Builder::new().name("password".to_owned());
        let begun = thread.spawn(move || {
            turn.wait_for();
            // Whoever asked may have left.
            let _ = tx.send(work());
            drop((place, tracked));
        });
        begun.map(|_| rx).map_err(|_| Busy)
    }
}

/// When a thread runs.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// While a processor has nothing else to do (`SCHED_IDLE`): it gives way at once.
    WhenIdle,
    /// It has less time than others.
    AfterOthers,
}

impl Turn {
    /// Makes this thread one that runs then. Where the system refuses it, the work is done all the same.
    fn wait_for(self) {
        match self {
            Self::WhenIdle => {
                let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
                let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
                // Until then it has the turn of a thread like others, which lasts for milliseconds.
                std::thread::yield_now();
            }
            Self::AfterOthers => drop(rustix::process::nice(NICENESS)),
        }
    }
}

/// Returns the hash of a password with a salt of its own.
fn hash_of(password: &[u8]) -> String {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the numbers obey Argon2's rules");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password).expect("the password is short, and the system has chance").to_string()
}

/// Returns whether a password is the one of a stored hash.
fn is_right(stored: &str, password: &SecretString) -> bool {
    // The numbers of the stored hash count, not these.
    let argon2 = Argon2::default();
    let verify = |hash: PasswordHash| argon2.verify_password(password.expose_secret().as_bytes(), &hash);
    PasswordHash::new(stored).ok().is_some_and(|hash| verify(hash).is_ok())
}

/// Checks that a stored hash is one that may be checked against.
fn readable(stored: &str) -> Result<(), &'static str> {
    if stored.len() > STORED_LENGTH_MAX {
        return Err("is too long");
    }
    let hash = PasswordHash::new(stored).map_err(|_| "is no PHC string")?;
    if hash.algorithm.as_str() != "argon2id" || hash.version != Some(Version::V0x13.into()) {
        return Err("is none of Argon2id, version 19");
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("has no salt or no hash");
    }
    let params = Params::try_from(&hash).map_err(|_| "has parameters that Argon2 does not have")?;
    let is_bounded =
        params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX && params.p_cost() <= LANES_MAX;
    if is_bounded { Ok(()) } else { Err("asks for more memory, passes or lanes than this relay gives") }
}

#[cfg(test)]
mod tests;
