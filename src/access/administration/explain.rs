//! Which rule decides whether somebody may do something.
//!
//! It must not know how it is found out who owns a topic.

use tidemill_proto::access::Explained;
use tidemill_proto::{Code, Problem};

use super::{Administration, Refused};
use crate::access::Verb;
use crate::access::caller::{Caller, Ruling, Who};
use crate::access::directory::Directory;
use crate::access::rule::Thing;
use crate::access::token::TokenId;

impl Administration {
    /// Checks that somebody has said who calls.
    ///
    /// # Errors
    /// Nobody has.
    pub fn check_said(&self) -> Result<(), Refused> {
        if *self.caller.who() != Who::Anonymous {
            return Ok(());
        }
        let detail = "this is about who calls, and nothing says who does; send `Authorization: Bearer` with a token, or `Basic` with a user's name and password";
        Err(Problem::new(Code::Unauthenticated, detail).into())
    }

    /// Returns the caller that is asked about: the one who asks, or for who may administer the relay a user by its
    /// name, a token by its id, or `anonymous`. `user:NAME` and `token:ID` are one of them alone: no name has a `:`.
    ///
    /// # Errors
    /// The caller may not ask about others, there is no such principal, it could be a user and a token, or the storage
    /// did not answer.
    pub async fn principal(&self, principal: Option<&str>) -> Result<Caller, Refused> {
        let Some(principal) = principal else { return Ok(self.caller.clone()) };
        self.check_admin()?;
        let directory = self.directory().await?;
        let user = |name: &str| directory.user(name).cloned();
        let token = |id: &str| Some(directory.token(TokenId::parse(id).ok()?)?.caller.clone());
        let found = match principal.split_once(':') {
            Some(("user", name)) => user(name),
            Some(("token", id)) => token(id),
            Some(_) => None,
            None if user(principal).is_some() && token(principal).is_some() => {
                let rule = format_args!(
                    "is the name of a user and the id of a token; write `user:{principal}` or `token:{principal}`"
                );
                return Err(Problem::field("principal", rule).into());
            }
            None => directory.principal(principal),
        };
        found.ok_or_else(|| Problem::field("principal", unfound(&directory, principal)).into())
    }
}

/// Returns why nobody is let in under this name or id.
fn unfound(directory: &Directory, principal: &str) -> &'static str {
    let (kind, name) = match principal.split_once(':') {
        Some((kind, name)) => (Some(kind), name),
        None => (None, principal),
    };
    let (may_be_user, may_be_token) = match kind {
        None => (true, true),
        Some(kind) => (kind == "user", kind == "token"),
    };
    if may_be_user && directory.users.contains_key(name) {
        return "names a user who is not active, and may do nothing";
    }
    if may_be_token && directory.tokens.contains_key(name) {
        return "names a token whose maker is gone or not active, and which may do nothing";
    }
    if may_be_token && directory.tokens.values().any(|token| token.name == name) {
        return "is the name of a token, and its id is meant; give its id, see `tidemill token list`";
    }
    "names no user and no id of a token"
}

/// Says what decides whether a caller may do this; `is_owner` tells whether a topic is its own.
#[must_use]
pub fn explained(caller: &Caller, verb: Verb, thing: Thing<'_>, is_owner: bool) -> Explained {
    let (allowed, rule) = match caller.rule_on(verb, thing) {
        Ruling::Open => (true, Some("the relay is open to everybody".to_owned())),
        Ruling::Allowed(rule) => (true, Some(rule.to_string())),
        Ruling::Denied(rule) => (false, Some(rule.to_string())),
        Ruling::BeyondMaker(rule) => (false, Some(format!("{rule} (but its maker may not)"))),
        Ruling::Unsaid if is_owner => (true, Some("the topic is its own".to_owned())),
        Ruling::Unsaid => (false, None),
    };
    Explained { allowed, rule, principal: caller.who().to_string() }
}
