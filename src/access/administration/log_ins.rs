//! Log-ins: what comes of a user's name and password. One has an access token for a short time, and a refresh
//! token that is good once, for the next two.
//!
//! A refresh token that is shown a second time has come into two hands, and nobody can tell which of them is the
//! user's: the log-in is over then, with all its tokens, and what is open by them ends. All are kept as hashes,
//! and change as all documents do, so that of two who show one token at once on two nodes one is the second.
//!
//! It must not know over which transport they come.

use secrecy::{ExposeSecret as _, SecretString};
use tidemill_proto::access::LoggedIn;
use tidemill_proto::{Code, Problem, Timestamp};

use super::{Administration, NAME_BYTES_MAX, Refused};
use crate::access::bearer::unauthenticated;
use crate::access::caller::{Caller, Who};
use crate::access::directory::Directory;
use crate::access::documents::{AccessHash, LOG_IN, LogIn, TokenHash, edit};
use crate::access::service::{Access, wrong_password};
use crate::access::token::{NewToken, TokenKind, TokenText};
use crate::storage::AccessEdit;

/// Log-ins of one user: past it, the one whose access token ends first gives way. Programs that log in anew where
/// they could refresh have several at one time.
const LOG_INS_PER_USER_MAX: usize = 200;

/// Log-ins in all: each is a document of about 700 bytes that every node holds.
const LOG_INS_MAX: usize = 5_000;

/// Access tokens of one log-in that are good at one time: past it, the oldest gives way.
const ACCESS_TOKENS_MAX: usize = 4;

/// The tokens that somebody is given.
struct Pair {
    refresh: NewToken,
    access: NewToken,
}

impl Pair {
    fn new() -> Self {
        let refresh = NewToken::make(TokenKind::Refresh);
        Self { access: NewToken::with_id(TokenKind::Access, refresh.id), refresh }
    }

    fn after(shown: &TokenText<'_>) -> Self {
        let refresh = NewToken::after(shown);
        Self { access: NewToken::with_id(TokenKind::Access, refresh.id), refresh }
    }
}

/// What became of a refresh token that was shown.
enum Shown {
    /// It was good, and is replaced.
    Replaced,
    /// It was good before: the log-in is over.
    Reused(String),
}

impl Access {
    /// Logs a user in. It takes as long whether or not there is such a user. Where everybody is let in, nothing is
    /// looked at, and nothing kept: the tokens open what is open.
    ///
    /// # Errors
    /// The name or the password is wrong, there is no room for one more log-in, or the storage did not do it.
    pub async fn log_in(&self, name: &str, password: &SecretString) -> Result<LoggedIn, Refused> {
        let pair = Pair::new();
        if self.is_open() {
            return Ok(self.answer(&pair));
        }
        // A user may have been made, or been given another password, on another node a moment ago.
        self.catch_up().await.map_err(Refused::Read)?;
        let now = self.clock().now();
        let checked = self.check_password(name, password).await.inspect_err(|problem| {
            // A long one is nobody's name.
            let user = Some(name).filter(|name| name.len() <= NAME_BYTES_MAX);
            tracing::info!(target: "tidemill::audit", user, code = problem.code.as_str(), "log-in refused");
        })?;
        let log_in = LogIn {
            user: name.to_owned(),
            refresh: TokenHash::of(&pair.refresh.hash),
            family: TokenHash::of(&pair.refresh.family()),
            access: vec![self.access_hash(&pair, now)],
            created_at: now,
            expires_at: now.saturating_add(self.log_in_lives().refresh),
        };
        let id = pair.refresh.id;
        self.as_storage()
            .change(|directory| {
                let user = directory.users.get(name).filter(|user| user.is_active);
                // It may have changed while the password was checked.
                if user.and_then(|user| user.password.as_ref()) != Some(&checked) {
                    return Err(wrong_password().into());
                }
                let mut edits = make_room(directory, name, now)?;
                edits.push(edit(LOG_IN, id.as_str(), Some(&log_in)));
                Ok((edits, ()))
            })
            .await?;
        tracing::info!(target: "tidemill::audit", user = name, log_in = %id, "logged in");
        Ok(self.answer(&pair))
    }

    /// Gives out the next tokens of a log-in for its refresh token.
    ///
    /// # Errors
    /// The refresh token is not good (`unauthenticated`), or the storage did not do it.
    pub async fn prolong(&self, refresh: &SecretString) -> Result<LoggedIn, Refused> {
        if self.is_open() {
            return Ok(self.answer(&Pair::new()));
        }
        let shown = TokenText::parse(TokenKind::Refresh, refresh.expose_secret())
            .map_err(|error| unauthenticated("refresh_token", &error.to_string()))?;
        let (pair, now, id) = (Pair::after(&shown), self.clock().now(), shown.id());
        let became = self
            .as_storage()
            .change(|directory| {
                let log_in = directory.log_ins.get(id.as_str()).ok_or_else(no_log_in)?;
                if !log_in.family.bytes().is_some_and(|family| shown.is_of_family(&family)) {
                    return Err(no_log_in().into());
                }
                if !log_in.refresh.bytes().is_some_and(|hash| shown.matches(&hash)) {
                    return Ok((vec![without_log_in(id.as_str())], Shown::Reused(log_in.user.clone())));
                }
                if log_in.expires_at <= now || directory.user(&log_in.user).is_none() {
                    return Err(no_log_in().into());
                }
                let mut access = log_in.access.clone();
                access.retain(|access| access.expires_at > now);
                access.drain(..(access.len() + 1).saturating_sub(ACCESS_TOKENS_MAX));
                access.push(self.access_hash(&pair, now));
                let next = LogIn {
                    refresh: TokenHash::of(&pair.refresh.hash),
                    access,
                    expires_at: now.saturating_add(self.log_in_lives().refresh),
                    ..log_in.clone()
                };
                Ok((vec![edit(LOG_IN, id.as_str(), Some(&next))], Shown::Replaced))
            })
            .await?;
        match became {
            Shown::Replaced => Ok(self.answer(&pair)),
            Shown::Reused(user) => {
                tracing::warn!(
                    target: "tidemill::audit", user, log_in = %id,
                    "a refresh token was used twice: the log-in is over"
                );
                Err(no_log_in().into())
            }
        }
    }

    /// Ends the log-in of a refresh token; one that is not good ends nothing, and nobody is told.
    ///
    /// # Errors
    /// The text is no refresh token, or the storage did not do it.
    pub async fn end_log_in(&self, refresh: &SecretString) -> Result<(), Refused> {
        if self.is_open() {
            return Ok(());
        }
        let shown = TokenText::parse(TokenKind::Refresh, refresh.expose_secret())
            .map_err(|error| Problem::field("refresh_token", error.to_string()))?;
        let id = shown.id();
        let ended = self
            .as_storage()
            .change(|directory| {
                let log_in = directory.log_ins.get(id.as_str());
                let family = log_in.and_then(|log_in| log_in.family.bytes());
                let is_its = family.is_some_and(|family| shown.is_of_family(&family));
                let edits = is_its.then(|| without_log_in(id.as_str()));
                Ok((edits.into_iter().collect(), is_its))
            })
            .await?;
        if ended {
            tracing::info!(target: "tidemill::audit", log_in = %id, "log-in ended");
        }
        Ok(())
    }

    /// Returns what somebody may do who has the storage.
    fn as_storage(&self) -> Administration {
        self.as_caller(Caller::anyone())
    }

    fn access_hash(&self, pair: &Pair, now: Timestamp) -> AccessHash {
        let expires_at = now.saturating_add(self.log_in_lives().access);
        AccessHash { hash: TokenHash::of(&pair.access.hash), expires_at }
    }

    fn answer(&self, pair: &Pair) -> LoggedIn {
        LoggedIn {
            access_token: pair.access.text.expose_secret().to_owned(),
            token_type: "bearer".to_owned(),
            expires_in: self.log_in_lives().access.as_secs(),
            refresh_token: pair.refresh.text.expose_secret().to_owned(),
        }
    }
}

impl Administration {
    /// Ends the log-in by which the caller came, if it came by one.
    ///
    /// # Errors
    /// Nobody says who calls, or the storage did not do it.
    pub async fn log_out(&self) -> Result<(), Refused> {
        self.check_said()?;
        let Some(id) = self.caller.log_in() else { return Ok(()) };
        self.change(|directory| {
            let is_there = directory.log_ins.contains_key(id.as_str());
            let edits = is_there.then(|| without_log_in(id.as_str()));
            Ok((edits.into_iter().collect(), ()))
        })
        .await?;
        if let Who::User(user) = self.caller.who() {
            tracing::info!(target: "tidemill::audit", user = &**user, log_in = %id, "logged out");
        }
        Ok(())
    }
}

/// Returns the edits that end all log-ins of a user.
pub(super) fn without_log_ins(directory: &Directory, user: &str) -> Vec<AccessEdit> {
    directory.log_ins_of(user).map(without_log_in).collect()
}

fn without_log_in(id: &str) -> AccessEdit {
    edit::<LogIn>(LOG_IN, id, None)
}

/// Returns the edits that make room for one more log-in of a user: those go that are over, and of the user's own
/// as many as are too many.
fn make_room(directory: &Directory, user: &str, now: Timestamp) -> Result<Vec<AccessEdit>, Box<Problem>> {
    let (over, going_on): (Vec<_>, Vec<_>) =
        directory.log_ins.iter().partition(|(_, log_in)| log_in.expires_at <= now);
    let mut own: Vec<_> = going_on.iter().filter(|(_, log_in)| log_in.user == user).collect();
    own.sort_by_key(|(_, log_in)| log_in.access_until());
    let beyond_own = (own.len() + 1).saturating_sub(LOG_INS_PER_USER_MAX);
    let beyond_all = (going_on.len() + 1).saturating_sub(LOG_INS_MAX);
    let too_many = beyond_own.max(beyond_all);
    if too_many > own.len() {
        let detail = format!(
            "there are {LOG_INS_MAX} log-ins, as many as may be; try again when some are over, or end some that nobody needs"
        );
        return Err(Problem::new(Code::Overloaded, detail).into());
    }
    let going = own.iter().take(too_many).map(|(id, _)| without_log_in(id));
    Ok(over.iter().map(|(id, _)| without_log_in(id)).chain(going).collect())
}

fn no_log_in() -> Box<Problem> {
    unauthenticated(
        "refresh_token",
        "is not good: it has expired, was used before, or its log-in is over; log in",
    )
}

#[cfg(test)]
mod tests;
