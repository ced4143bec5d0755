//! From a token of the relay, or the access token of a log-in, to who shows it, by what this node holds.
//!
//! It must not know how that is kept fresh.

use tidemill_proto::{Problem, Timestamp};

use super::{Access, Found, Unknown, unauthenticated};
use crate::access::caller::Caller;
use crate::access::directory::Directory;
use crate::access::records::Records;
use crate::access::token::{TokenKind, TokenText};

impl Access {
    /// Tells which user shows an access token of a log-in.
    pub(super) fn by_access_token(records: &Records, text: &str, now: Timestamp) -> Result<Found, Unknown> {
        let token = TokenText::parse(TokenKind::Access, text).map_err(|error| {
            Unknown::Refused(unauthenticated(format!("what is sent as an access token {error}")))
        })?;
        let known = records.log_in(token.id()).ok_or(Unknown::Later)?;
        match known.good_until(&token) {
            None => Err(Unknown::Later),
            Some(until) if until <= now => Err(Unknown::Refused(log_in_over())),
            Some(until) => Ok(Found { caller: known.caller.clone(), until: Some(until) }),
        }
    }

    pub(super) fn by_token(directory: &Directory, text: &str, now: Timestamp) -> Result<Caller, Unknown> {
        let token = TokenText::parse(TokenKind::Token, text)
            .map_err(|error| Unknown::Refused(unauthenticated(format!("what is sent as a token {error}"))))?;
        let known = directory.token(token.id()).ok_or(Unknown::Later)?;
        if !token.matches(&known.hash) {
            return Err(Unknown::Refused(token_gone()));
        }
        if known.caller.expires_at().is_some_and(|at| at <= now) {
            return Err(Unknown::Refused(unauthenticated("the token has expired".to_owned())));
        }
        known.note_use(now);
        Ok(known.caller.clone())
    }
}

/// Whether there is none or another one of the id is nobody's business.
pub(super) fn token_gone() -> Box<Problem> {
    unauthenticated("there is no such token, or it was revoked".to_owned())
}

pub(super) fn log_in_over() -> Box<Problem> {
    unauthenticated("the access token has expired, or its log-in is over; log in, or refresh it".to_owned())
}
