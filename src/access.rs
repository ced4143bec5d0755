//! Who calls, and what they may do.
//!
//! A [`Caller`] is who stands at the gate (`relay.as_caller`): transports find out who it is, once for
//! each request or connection, and every operation asks it. It must not know what an operation does,
//! nor over which transport it was asked for.
//!
//! | file | owns |
//! |---|---|
//! | `caller` | who calls: a principal with its rules |
//! | `scope` | which topics a caller may read |
//! | `rule` | who may do what with what: the texts of rules, and what they decide |
//! | `sessions` | what callers have open now, so that it can be ended |
//! | `web` | whose web pages may use the relay, and under which names it may be called |

mod caller;
mod directory;
mod rule;
mod scope;
mod sessions;
mod web;

use std::fmt;

pub use caller::{Caller, Permit, Ruling, Who};
pub use rule::{Decision, Rule, RuleError, Rules, Thing};
pub use scope::{ReadScope, Within};
pub use sessions::{Farewell, Leave, Session, Sessions};
pub use web::{Act, HostName, RequestSource, TrustedHosts, WebRules};

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
