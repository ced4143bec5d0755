//! Administration: what one caller may see and change of users, tokens, roles and log-ins, and the only way to do
//! it.
//!
//! Whoever changes something changes what is there now: where somebody else was faster, it is looked at anew. It
//! must not know over which transport it was asked.
//!
//! | file | owns |
//! |---|---|
//! | `tickets` | making tickets |
//! | `tokens` | making, listing and revoking tokens |
//! | `users` | users, and the first administrator |
//! | `roles` | roles, which are lists of rules |
//! | `room` | how much of what anybody may begin there is at one time |
//! | `devices` | log-ins of programs without a browser, whom a user lets in elsewhere |
//! | `log_ins` | what comes of a user's name and password, for as long as it is prolonged |
//! | `sign_ins` | log-ins of users who sign in with a provider |
//! | `cookies` | log-ins that browsers keep |
//! | `accounts` | users, as pulsar-relay's clients know them |
//! | `explain` | which rule decides |

mod accounts;
mod cookies;
mod devices;
mod explain;
mod log_ins;
mod roles;
mod room;
mod sign_ins;
mod tickets;
mod tokens;
mod users;

use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{Code, Problem};
use tokio::time::{sleep, timeout};

use super::Verb;
use super::audit::Origin;
use super::caller::{Caller, Who};
use super::directory::Directory;
use super::held::Held;
use super::rule::{Rule, Rules};
use super::service::Access;
use crate::chance::{jittered, random};
use crate::storage::{AccessEdit, AccessStore, RecordEdit, StorageError};

pub use cookies::NewCookie;
pub use devices::{DeviceAnswer, NewDevice, WaitingDevice};
pub use explain::explained;
pub use sign_ins::{Departure, SignInFor, SignedIn, mark_name_of};
pub use users::FirstAdministrator;

/// Users, tokens and roles that there may be, together: every node holds all of them, and reads all when one
/// has changed.
const ENTRIES_MAX: usize = 10_000;
/// Bytes that all of them have, as they are kept.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Rules of a role, or of a token.
const RULES_MAX: usize = 100;
/// Longest name of a user, a token or a role in bytes.
const NAME_BYTES_MAX: usize = 128;

/// How long a change waits for others of the same node.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long is waited before another try, at most.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How often a change is tried while others change something, too.
const TRIES_MAX: usize = 8;

/// Why a question was not answered, or a change not made.
#[derive(Debug)]
pub enum Refused {
    /// The caller, or what it wants, is wrong.
    Problem(Box<Problem>),
    /// The storage did not tell.
    Read(StorageError),
    /// The storage did not make the change, or did not say so.
    Change(StorageError),
}

impl From<Box<Problem>> for Refused {
    fn from(problem: Box<Problem>) -> Self {
        Self::Problem(problem)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// Users, tokens and roles, as one caller may see and change them.
#[derive(Clone, Debug)]
pub struct Administration {
    access: Access,
    caller: Caller,
    origin: Origin,
}

impl Access {
    /// Returns what this caller may see and change of users, tokens and roles.
    #[must_use]
    pub fn as_caller(&self, caller: Caller) -> Administration {
        Administration { access: self.clone(), caller, origin: Origin::default() }
    }
}

/// Returns whether a storage knows somebody who may administer a relay.
///
/// # Errors
/// It did not answer.
pub async fn has_administrator(
    store: &dyn AccessStore,
    now: tidemill_proto::Timestamp,
) -> Result<bool, StorageError> {
    let documents = store.documents(None).await?.unwrap_or_default();
    Ok(Directory::read(documents, &Directory::default()).has_admin(now))
}

impl Administration {
    /// Returns the same for who calls from there, which is told of every change.
    #[must_use]
    pub fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Returns who asks.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    fn is_admin(&self) -> bool {
        self.caller.check_relay(Verb::Admin).is_ok()
    }

    /// Checks that the caller may administer the relay.
    ///
    /// # Errors
    /// It may not.
    pub fn check_admin(&self) -> Result<(), Box<Problem>> {
        self.caller.check_relay(Verb::Admin)
    }

    async fn directory(&self) -> Result<Arc<Directory>, Refused> {
        Ok(self.access.refreshed().await.map_err(Refused::Read)?.directory.clone())
    }

    /// Makes the edits that `decide` makes of what is there, and returns what it says of them once this node
    /// knows of them.
    async fn change<T>(
        &self,
        mut decide: impl FnMut(&Directory) -> Result<(Vec<AccessEdit>, T), Refused>,
    ) -> Result<T, Refused> {
        let alone = timeout(CHANGE_WAIT_MAX, self.access.change_alone()).await;
        let _alone = alone.map_err(|_| {
            Problem::new(
                Code::Overloaded,
                "too many want to change users, tokens or roles at once; try again",
            )
        })?;
        for _ in 0..TRIES_MAX {
            let directory = self.directory().await?;
            let (edits, said) = decide(&directory)?;
            if edits.is_empty() {
                return Ok(said);
            }
            check_bytes(&directory, &edits)?;
            let next = random().max(1);
            let changed = self.access.store().change_documents(directory.revision, next, edits).await;
            if changed.map_err(Refused::Change)? {
                // Whoever is answered finds what was changed, here at least.
                self.access.look().await;
                return Ok(said);
            }
            // Not all of those who were slower at the same moment.
            sleep(jittered(AGAIN_AFTER)).await;
        }
        let detail = "users, tokens or roles are changed by others all the time; try again";
        Err(Problem::new(Code::Overloaded, detail).into())
    }
}

impl Access {
    /// Makes the edits that `decide` makes of what is known here, and returns what it says of them once this node
    /// knows of them. Where a record is not what `decide` took it for, it decides anew.
    async fn change_records<T>(
        &self,
        mut decide: impl FnMut(&Held) -> Result<(Vec<RecordEdit>, T), Refused>,
    ) -> Result<T, Refused> {
        for _ in 0..TRIES_MAX {
            let (edits, said) = decide(&self.held())?;
            if edits.is_empty() {
                return Ok(said);
            }
            let changed = self.records().change_records(random().max(1), edits).await;
            let is_changed = changed.map_err(Refused::Change)?;
            if is_changed {
                // Whoever is answered finds what was changed, here at least; what cannot be read now is read soon.
                let _ = self.catch_up().await;
                return Ok(said);
            }
            self.catch_up().await.map_err(Refused::Read)?;
        }
        let detail = "this log-in is changed by others all the time; try again";
        Err(Problem::new(Code::Overloaded, detail).into())
    }
}

/// Checks the name of a user, a token or a role: it stands in rules, in logs and in paths.
fn check_name(field: &str, name: &str) -> Result<(), Box<Problem>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
    // A path would lose these two on its way.
    let is_path = matches!(name, "." | "..");
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && !is_path {
        return Ok(());
    }
    let rule = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-`, `.` and `@`");
    Err(Problem::field(field, rule).into())
}

fn parse_rules(rules: &[String]) -> Result<Vec<Rule>, Box<Problem>> {
    if rules.len() > RULES_MAX {
        let rule = format!("has {} rules; there may be {RULES_MAX}", rules.len());
        return Err(Problem::field("rules", rule).into());
    }
    let parse = |(at, text): (usize, &String)| {
        Rule::parse(text)
            .map_err(|error| Problem::field("rules", format_args!("at index {at} {error}")).into())
    };
    rules.iter().enumerate().map(parse).collect()
}

/// Returns the rules within which is what a caller makes: its own, those of who has made it, and so on. Who needs no
/// rules has none here.
fn rules_within(caller: &Caller) -> Vec<&Rules> {
    caller.chain().filter(|caller| *caller.who() != Who::Anyone).map(Caller::rules).collect()
}

fn texts_of(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

/// Returns rules as the log tells them.
fn told(rules: &[Rule]) -> String {
    texts_of(rules).join("; ")
}

fn check_room(directory: &Directory) -> Result<(), Box<Problem>> {
    if directory.len() < ENTRIES_MAX {
        return Ok(());
    }
    let detail = format!(
        "there are {ENTRIES_MAX} users, tokens and roles, as many as may be; revoke tokens that nobody uses"
    );
    Err(Problem::new(Code::Conflict, detail).into())
}

/// Checks that there is room for what edits write, beside all that is there: as if they replaced nothing.
fn check_bytes(directory: &Directory, edits: &[AccessEdit]) -> Result<(), Box<Problem>> {
    let new: usize = edits.iter().filter_map(|edit| edit.document.as_ref()).map(bytes::Bytes::len).sum();
    if new == 0 || directory.bytes + new <= BYTES_MAX {
        return Ok(());
    }
    let detail = "users, tokens and roles take as many bytes as they may; revoke tokens that nobody uses";
    Err(Problem::new(Code::Conflict, detail).into())
}

/// Returns the problem of a path that names somebody who is not there.
fn none(field: &str, detail: std::fmt::Arguments<'_>) -> Problem {
    Problem { field: Some(field.to_owned()), ..Problem::new(Code::NotFound, detail.to_string()) }
}

#[cfg(test)]
mod tests;
