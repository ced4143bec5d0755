//! Log-ins: what comes of a user's name and password. One has an access token for a short time, and a refresh
//! token that is good once, for the next two.
//!
//! A refresh token that is shown a second time has come into two hands, and nobody can tell which of them is the
//! user's: the log-in is over then, with all its tokens, and what is open by them ends. All are kept as hashes, and
//! each log-in changes for itself, and only if it is what it was taken for, so that of two who show one token at
//! once on two nodes one is the second.
//!
//! It must not know over which transport they come.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tidemill_proto::access::LoggedIn;
use tidemill_proto::{Code, Problem, Timestamp};

use super::{Administration, Refused};
use crate::access::audit::{Origin, changed};
use crate::access::bearer::unauthenticated;
use crate::access::caller::Who;
use crate::access::documents::{
    AccessHash, LOG_IN, LogIn, RefreshHash, TokenHash, new_record, put_record, without_record,
};
use crate::access::records::{Kept, Records};
use crate::access::service::{Access, wrong_password};
use crate::access::token::{NewToken, TokenId, TokenKind, TokenText};
use crate::storage::{Expected, RecordEdit};

/// Log-ins of one user: past it, the one whose access token ends first gives way. Programs that log in anew where
/// they could refresh have several at one time.
const LOG_INS_PER_USER_MAX: usize = 200;

/// Those of one user that browsers keep in cookies: past it, the one that ends first gives way. They are counted apart,
/// so that neither the programs nor the browsers of a user log the others out.
const COOKIES_PER_USER_MAX: usize = 50;

/// Log-ins in all: each is a record of about 700 bytes that every node holds. They are counted before one more is
/// made, so that those who log in at one moment may be more.
const LOG_INS_MAX: usize = 5_000;

/// How long a log-in is left alone of whose user this node knows nothing: another may have made both a moment ago.
const UNKNOWN_KEPT: Duration = Duration::from_mins(1);

/// Access tokens of one log-in that are good at one time: past it, the oldest gives way.
const ACCESS_TOKENS_MAX: usize = 4;

/// Who keeps a log-in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptBy {
    /// A program, with a refresh token.
    Program,
    /// A browser, in a cookie.
    Browser,
}

impl KeptBy {
    const fn of(log_in: &LogIn) -> Self {
        if log_in.refresh.is_some() { Self::Program } else { Self::Browser }
    }

    /// Returns how many such log-ins one user may have.
    const fn per_user_max(self) -> usize {
        match self {
            Self::Program => LOG_INS_PER_USER_MAX,
            Self::Browser => COOKIES_PER_USER_MAX,
        }
    }
}

/// The tokens that somebody is given.
pub(super) struct Pair {
    pub(super) refresh: NewToken,
    access: NewToken,
}

impl Pair {
    pub(super) fn new() -> Self {
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
        let enter = |records: &Records, series, now| {
            self.enter(records, name, series, std::slice::from_ref(&pair), now)
        };
        self.with_password(name, password, enter).await?;
        Ok(self.answer(&pair))
    }

    /// Checks a user's name and password, and makes the edits by which it has one more log-in. Where everybody is let
    /// in, nothing is looked at, and nothing kept.
    pub(super) async fn with_password(
        &self,
        name: &str,
        password: &SecretString,
        enter: impl Fn(&Records, u64, Timestamp) -> Result<Vec<RecordEdit>, Box<Problem>>,
    ) -> Result<(), Refused> {
        if self.is_open() {
            return Ok(());
        }
        // A user may have been made, or been given another password, on another node a moment ago.
        self.catch_up().await.map_err(Refused::Read)?;
        let now = self.clock().now();
        let series = self.check_password(name, password).await?;
        self.change_records(|held| {
            // It may have changed while the password was checked.
            let user = held.directory.users.get(name).filter(|user| user.is_active && user.series == series);
            user.ok_or_else(wrong_password)?;
            Ok((enter(&held.records, series, now)?, ()))
        })
        .await
    }

    /// Gives out the next tokens of a log-in for its refresh token.
    ///
    /// # Errors
    /// The refresh token is not good (`unauthenticated`), or the storage did not do it.
    pub async fn prolong(&self, refresh: &SecretString, origin: &Origin) -> Result<LoggedIn, Refused> {
        if self.is_open() {
            return Ok(self.answer(&Pair::new()));
        }
        let shown = TokenText::parse(TokenKind::Refresh, refresh.expose_secret())
            .map_err(|error| unauthenticated("refresh_token", &error.to_string()))?;
        let (pair, now, id) = (Pair::after(&shown), self.clock().now(), shown.id());
        self.catch_up().await.map_err(Refused::Read)?;
        let became = self
            .change_records(|held| {
                let (Kept { it: log_in, bytes }, refresh) =
                    family_of(&held.records, &shown).ok_or_else(no_log_in)?;
                let is_it = |edit| RecordEdit { expected: Expected::This(bytes.clone()), ..edit };
                if !refresh.hash.bytes().is_some_and(|hash| shown.matches(&hash)) {
                    return Ok((vec![is_it(without_log_in(id))], Shown::Reused(log_in.user.clone())));
                }
                if log_in.expires_at <= now || held.records.log_in(id).is_none() {
                    return Err(no_log_in().into());
                }
                let mut access = log_in.access.clone();
                access.retain(|access| access.expires_at > now);
                access.drain(..(access.len() + 1).saturating_sub(ACCESS_TOKENS_MAX));
                access.push(self.access_hash(&pair, now));
                let next = LogIn {
                    refresh: Some(RefreshHash { hash: TokenHash::of(&pair.refresh.hash), ..refresh.clone() }),
                    access,
                    expires_at: now.saturating_add(self.log_in_lives().refresh),
                    ..log_in.clone()
                };
                Ok((vec![is_it(put_record(LOG_IN, id.as_str(), &next))], Shown::Replaced))
            })
            .await?;
        match became {
            Shown::Replaced => Ok(self.answer(&pair)),
            Shown::Reused(user) => {
                self.end_sessions();
                tracing::warn!(
                    target: "tidemill::audit", by = %Who::User(user.into()), log_in = %id,
                    address = origin.address().map(tracing::field::display), request_id = origin.request_id(),
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
    pub async fn end_log_in(&self, refresh: &SecretString, origin: &Origin) -> Result<(), Refused> {
        if self.is_open() {
            return Ok(());
        }
        let shown = TokenText::parse(TokenKind::Refresh, refresh.expose_secret())
            .map_err(|error| Problem::field("refresh_token", error.to_string()))?;
        let id = shown.id();
        self.catch_up().await.map_err(Refused::Read)?;
        let ended = self
            .change_records(|held| {
                let user = family_of(&held.records, &shown).map(|(log_in, _)| log_in.it.user.clone());
                let edits = user.iter().map(|_| without_log_in(id));
                Ok((edits.collect(), user))
            })
            .await?;
        if let Some(user) = ended {
            self.end_sessions();
            changed!(Who::User(user.into()), origin, "log-in ended", log_in = %id);
        }
        Ok(())
    }

    /// Returns the edits by which a user has these log-ins, too.
    pub(super) fn enter(
        &self,
        records: &Records,
        user: &str,
        series: u64,
        pairs: &[Pair],
        now: Timestamp,
    ) -> Result<Vec<RecordEdit>, Box<Problem>> {
        let mut edits = make_room(records, user, KeptBy::Program, pairs.len(), now)?;
        edits.extend(pairs.iter().map(|pair| {
            let log_in = LogIn {
                user: user.to_owned(),
                series,
                refresh: Some(RefreshHash {
                    hash: TokenHash::of(&pair.refresh.hash),
                    family: TokenHash::of(&pair.refresh.family()),
                }),
                access: vec![self.access_hash(pair, now)],
                created_at: now,
                expires_at: now.saturating_add(self.log_in_lives().refresh),
            };
            new_record(LOG_IN, pair.refresh.id.as_str(), &log_in)
        }));
        Ok(edits)
    }

    fn access_hash(&self, pair: &Pair, now: Timestamp) -> AccessHash {
        let expires_at = now.saturating_add(self.log_in_lives().access);
        AccessHash { hash: TokenHash::of(&pair.access.hash), expires_at }
    }

    pub(super) fn answer(&self, pair: &Pair) -> LoggedIn {
        LoggedIn {
            access_token: pair.access.text.expose_secret().to_owned(),
            token_type: "bearer".to_owned(),
            expires_in: self.log_in_lives().access.as_secs(),
            refresh_token: pair.refresh.text.expose_secret().to_owned(),
            refresh_token_secondary: None,
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
        self.access.catch_up().await.map_err(Refused::Read)?;
        self.access
            .change_records(|held| {
                let is_there = held.records.log_ins.contains_key(&id);
                Ok((is_there.then(|| without_log_in(id)).into_iter().collect(), ()))
            })
            .await?;
        self.access.end_sessions();
        changed!(self.caller.who(), self.origin, "logged out", log_in = %id);
        Ok(())
    }
}

/// Returns the log-in of a refresh token, be it the one that is good now or one that was, and what is kept of the
/// token.
fn family_of<'a>(records: &'a Records, shown: &TokenText<'_>) -> Option<(&'a Kept<LogIn>, &'a RefreshHash)> {
    let log_in = records.log_ins.get(&shown.id())?;
    let refresh = log_in.it.refresh.as_ref()?;
    let is_it = refresh.family.bytes().is_some_and(|family| shown.is_of_family(&family));
    is_it.then_some((log_in, refresh))
}

fn without_log_in(id: TokenId) -> RecordEdit {
    without_record(LOG_IN, id.as_str())
}

/// Returns the edits that make room for more log-ins of a user: those go that are over, and of the user's own
/// as many as are too many of those that the same keep.
pub(super) fn make_room(
    records: &Records,
    user: &str,
    by: KeptBy,
    count: usize,
    now: Timestamp,
) -> Result<Vec<RecordEdit>, Box<Problem>> {
    let (mut own, mut over, mut going_on) = (Vec::new(), Vec::new(), 0_usize);
    for (id, log_in) in &records.log_ins {
        // Those whose users have ended them are over, too.
        let is_ended =
            || records.log_in(*id).is_none() && log_in.it.created_at.saturating_add(UNKNOWN_KEPT) <= now;
        if log_in.it.expires_at <= now || is_ended() {
            over.push(*id);
            continue;
        }
        going_on += 1;
        if log_in.it.user == user && KeptBy::of(&log_in.it) == by {
            own.push((log_in.it.access_until(), *id));
        }
    }
    own.sort_unstable();
    let beyond_own = (own.len() + count).saturating_sub(by.per_user_max());
    let beyond_all = (going_on + count).saturating_sub(LOG_INS_MAX);
    let too_many = beyond_own.max(beyond_all);
    if too_many > own.len() {
        let detail = format!(
            "there are {LOG_INS_MAX} log-ins, as many as may be; try again when some are over, or end some that nobody needs"
        );
        return Err(Problem::new(Code::Overloaded, detail).into());
    }
    let going = own.into_iter().take(too_many).map(|(_, id)| id);
    Ok(over.into_iter().chain(going).map(without_log_in).collect())
}

fn no_log_in() -> Box<Problem> {
    unauthenticated(
        "refresh_token",
        "is not good: it has expired, was used before, or its log-in is over; log in",
    )
}

#[cfg(test)]
mod tests;
