//! Who calls, and what they may do.
//!
//! A [`Caller`] is who stands at the gate (`relay.as_caller`): transports find out who it is, once for
//! each request or connection, and every operation asks it. It must not know what an operation does,
//! nor over which transport it was asked for.
//!
//! | file | owns |
//! |---|---|
//! | `administration` | what a caller may see and change of users, tokens and roles |
//! | `audit` | what is told of who did what |
//! | `bearer` | what a head says of who calls |
//! | `caller` | who calls: a principal with its rules |
//! | `scope` | which topics a caller may read |
//! | `directory` | users, tokens and roles of one time, as callers |
//! | `documents` | users, tokens, roles, log-ins and devices, as they are kept |
//! | `held` | what a node holds of them |
//! | `service` | from what a request shows to who calls |
//! | `records` | log-ins, devices, and when tokens were used, of one time |
//! | `rule` | who may do what with what: the texts of rules, and what they decide |
//! | `entropy` | bytes that nobody can guess |
//! | `fetch` | documents behind URLs that an operator has set, and where such URLs may lead |
//! | `listed` | several texts in one, as issuers and providers are named |
//! | `jwt` | JWTs of issuers, and their keys |
//! | `named` | things that are no topics, as who asks about rules names them |
//! | `oidc` | providers of OpenID Connect, with whom users sign in |
//! | `options` | what an operator may set about who is let in |
//! | `password` | hashes of passwords, a few at one time |
//! | `shown` | what a request shows of who calls, a cookie among it |
//! | `sessions` | what callers have open now, so that it can be ended |
//! | `tickets` | what stands in the URL of one stream or socket, and opens that |
//! | `token` | the text of tokens, tickets and refresh tokens |
//! | `turns` | who comes with a ticket, one after the other |
//! | `web` | whose web pages may use the relay, and under which names it may be called |

mod administration;
mod audit;
mod bearer;
mod caller;
mod directory;
mod documents;
mod entropy;
mod fetch;
mod held;
mod jwt;
mod listed;
mod named;
mod oidc;
mod options;
mod password;
mod records;
mod rule;
mod scope;
mod service;
mod sessions;
mod shown;
mod tickets;
mod token;
mod turns;
mod web;

use std::fmt;

pub use administration::{
    Administration, Departure, DeviceAnswer, FirstAdministrator, NewCookie, NewDevice, Refused, SignInFor,
    SignedIn, WaitingDevice, explained, has_administrator, mark_name_of,
};
pub(crate) use audit::changed;
pub use audit::{Asked, Audit, Origin};
pub use bearer::{basic, bearer, unauthenticated};
pub use caller::{Caller, Permit, Ruling, Who};
pub use documents::owner_name;
pub use entropy::{random_secret, secret_id};
pub use fetch::{FetchError, FetchUrl, Fetched, Fetcher};
pub use jwt::{
    Algorithm, Claims, Issuer, IssuerId, IssuerRule, Issuers, IssuersError, JWT_BYTES_MAX, KeyError,
    KeySource, KeysError, KeysState, Refusal, Verdict,
};
pub use named::NamedThing;
pub use oidc::{Provider, ProviderRule};
pub use options::{AccessOptions, LogInLives, Mode};
pub use password::{Busy, NewPassword, PasswordOptions, PasswordRule, Passwords, VerifyError};
pub use rule::{Decision, Kind, Rule, RuleError, Rules, Thing};
pub use scope::{ReadScope, Within};
pub use service::{Access, Remembered, Unknown};
pub use sessions::{Farewell, Leave, OpenSession, Opening, Session, Sessions};
pub use shown::{SentCookie, Shown};
pub use tickets::Opens;
pub use token::{NewToken, TokenError, TokenId, TokenIdError, TokenKind, TokenText};
pub use web::{Act, HostName, RequestSource, Sender, TrustedHosts, WebRules};

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Publish messages.
    Publish,
    /// Read messages, and what a topic is.
    Read,
    /// Take part in the work of a topic.
    Work,
    /// Make, describe, trim and delete.
    Manage,
    /// See and change what concerns the relay as a whole.
    Admin,
}

impl Verb {
    /// Every verb, in the order in which rules are shown.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Read, Self::Work, Self::Manage, Self::Admin];

    /// Returns the verb of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == word)
    }

    /// Returns the word that stands in rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Work => "work",
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
