//! Who calls, and what they may do.
//!
//! A [`Caller`] is who stands at the gate (`relay.as_caller`): transports find out who it is, once for
//! each request or connection, and every operation asks it. It must not know what an operation does,
//! nor over which transport it was asked for.
//!
//! | file | owns |
//! |---|---|
//! | `fetch` | documents behind URLs that an operator has set, and where such URLs may lead |
//! | `jwt` | JWTs of issuers and of the relay itself, and their keys |
//! | `password` | hashes of passwords, a few at one time |
//! | `sessions` | what callers have open now, so that it can be ended |
//! | `token` | the text of tokens, tickets and refresh tokens |
//! | `web` | whose web pages may use the relay, and under which names it may be called |

mod fetch;
mod jwt;
mod password;
mod sessions;
mod token;
mod web;

use std::fmt;

use tidemill_proto::{Code, Problem, TopicName, TopicPattern};

pub use fetch::{FetchError, FetchUrl, Fetched, Fetcher};
pub use jwt::{
    Algorithm, Claims, Issuer, IssuerId, IssuerRule, Issuers, IssuersError, JWT_BYTES_MAX, KeyError,
    KeySource, KeysError, KeysState, OwnClaims, OwnKeyError, OwnKeys, Refusal, Verdict,
};
pub use password::{Busy, NewPassword, PasswordOptions, PasswordRule, Passwords, VerifyError};
pub use sessions::{Farewell, Leave, Session, Sessions};
pub use token::{NewToken, TokenError, TokenId, TokenIdError, TokenKind, TokenText};
pub use web::{Act, HostName, RequestSource, TrustedHosts, WebRules};

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Publish messages.
    Publish,
    /// Read messages, and what a topic is.
    Read,
    /// Make, describe, trim and delete.
    Manage,
    /// See and change what concerns the relay as a whole.
    Admin,
}

impl Verb {
    /// Returns the word that stands in rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who calls. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller(Principal);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Principal {
    /// Whoever reaches the port, on a relay without access control.
    Anyone,
    /// Somebody who may do nothing.
    #[cfg(test)]
    Nobody(u8),
}

impl Caller {
    /// Returns whoever reaches the port, who may do everything: the caller of a relay without access
    /// control.
    #[must_use]
    pub const fn anyone() -> Self {
        Self(Principal::Anyone)
    }

    /// Returns one of several callers who may do nothing.
    #[cfg(test)]
    pub(crate) const fn nobody(number: u8) -> Self {
        Self(Principal::Nobody(number))
    }

    /// Checks that the caller may do this with a topic.
    ///
    /// # Errors
    /// It may not: `forbidden`.
    pub fn check(&self, verb: Verb, topic: &TopicName) -> Result<(), Box<Problem>> {
        self.allow(verb, format_args!("topic `{topic}`"))
    }

    /// Checks that the caller may do this with whatever a pattern covers.
    ///
    /// # Errors
    /// It may not: `forbidden`.
    pub fn check_pattern(&self, verb: Verb, pattern: &TopicPattern) -> Result<(), Box<Problem>> {
        self.allow(verb, format_args!("topics `{pattern}`"))
    }

    /// Checks that the caller may do this with the relay as a whole.
    ///
    /// # Errors
    /// It may not: `forbidden`.
    pub fn check_relay(&self, verb: Verb) -> Result<(), Box<Problem>> {
        self.allow(verb, format_args!("this relay"))
    }

    fn allow(&self, verb: Verb, what: fmt::Arguments<'_>) -> Result<(), Box<Problem>> {
        let is_allowed = match self.0 {
            Principal::Anyone => true,
            #[cfg(test)]
            Principal::Nobody(_) => false,
        };
        if is_allowed {
            return Ok(());
        }
        let detail = format!("this caller has no right to `{verb}` for {what}");
        Err(Box::new(Problem::new(Code::Forbidden, detail)))
    }
}
