//! Log-ins that browsers keep: in a cookie, which says who calls until it ends, and is not prolonged. Where a page can
//! read no token, none is stolen from a page.
//!
//! They are log-ins as all others, and end as those do. It must not know how a cookie is written or read, nor for which
//! requests it counts.

use std::time::Duration;

use secrecy::SecretString;
use tidemill_proto::{Problem, Timestamp};

use super::Refused;
use super::log_ins::{KeptBy, make_room};
use crate::access::audit::{Origin, changed};
use crate::access::caller::Who;
use crate::access::documents::{AccessHash, LOG_IN, LogIn, TokenHash, new_record};
use crate::access::records::Records;
use crate::access::service::Access;
use crate::access::token::{NewToken, TokenKind};
use crate::storage::RecordEdit;

/// What a browser is given. `Debug` does not show it.
#[derive(Debug)]
pub struct NewCookie {
    /// What it keeps, and sends.
    pub text: SecretString,
    /// For how long.
    pub life: Duration,
    /// When that is over.
    pub expires_at: Timestamp,
}

impl Access {
    /// Logs a user in who sits at a browser. It takes as long whether or not there is such a user. Where everybody is
    /// let in, nothing is looked at, and nothing kept.
    ///
    /// # Errors
    /// The name or the password is wrong, there is no room for one more log-in, or the storage did not do it.
    pub async fn log_in_browser(
        &self,
        name: &str,
        password: &SecretString,
        origin: &Origin,
    ) -> Result<NewCookie, Refused> {
        let token = NewToken::make(TokenKind::Cookie);
        let enter = |records: &Records, series, now| self.enter_browser(records, name, series, &token, now);
        self.with_password(name, password, enter).await?;
        if !self.is_open() {
            changed!(Who::User(name.into()), origin, "cookie made", log_in = %token.id);
        }
        Ok(self.cookie_of(token))
    }

    /// Returns the edits by which a user has a log-in, too, that a browser keeps.
    pub(super) fn enter_browser(
        &self,
        records: &Records,
        user: &str,
        series: u64,
        cookie: &NewToken,
        now: Timestamp,
    ) -> Result<Vec<RecordEdit>, Box<Problem>> {
        let mut edits = make_room(records, user, KeptBy::Browser, 1, now)?;
        let expires_at = now.saturating_add(self.log_in_lives().cookie);
        let log_in = LogIn {
            user: user.to_owned(),
            series,
            refresh: None,
            access: vec![AccessHash { hash: TokenHash::of(&cookie.hash), expires_at }],
            created_at: now,
            expires_at,
        };
        edits.push(new_record(LOG_IN, cookie.id.as_str(), &log_in));
        Ok(edits)
    }

    /// Returns what a browser is given.
    pub(super) fn cookie_of(&self, token: NewToken) -> NewCookie {
        let life = self.log_in_lives().cookie;
        NewCookie { text: token.text, life, expires_at: self.clock().now().saturating_add(life) }
    }
}
