//! Who calls: a principal with its rules, as it stands at the gate.
//!
//! It must not know how callers show who they are, nor what an operation does.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
#[cfg(test)]
use std::sync::LazyLock;

use tidemill_proto::{Code, Problem, Timestamp, TopicName};

use super::Verb;
use super::jwt::KeyPrint;
use super::rule::{Decision, Kind, Rule, Rules, Thing};
use super::token::TokenId;

/// Who calls. Cloning is cheap. Two are equal if they came of the same credentials while the rights behind these
/// were the same. `None` is whoever reaches the port of an open relay: what every request has there is not
/// counted.
#[derive(Clone)]
pub struct Caller(Option<Arc<Principal>>);

/// A principal, as it was when it was found.
#[derive(Clone, Debug)]
struct Principal {
    who: Who,
    rules: Rules,
    /// The maker of a token, which can do no more than its maker can.
    within: Option<Caller>,
    expires_at: Option<Timestamp>,
    /// The log-in by which a user came, if it came by one: what it has open ends with it.
    log_in: Option<TokenId>,
    /// As whom a user owns the topics that it makes.
    owner: Option<Box<str>>,
    /// The key that somebody's JWT is signed with: what it has open ends where the issuer has it no longer.
    key: Option<KeyPrint>,
}

impl Principal {
    const ANYONE: Self = Self {
        who: Who::Anyone,
        rules: Rules::NONE,
        within: None,
        expires_at: None,
        log_in: None,
        owner: None,
        key: None,
    };
}

/// Who a caller is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Whoever reaches the port, on a relay without access control.
    Anyone,
    /// Somebody who does not say who.
    Anonymous,
    /// A user.
    User(Box<str>),
    /// A token of the relay.
    Token {
        /// Its id.
        id: Box<str>,
        /// What its maker calls it.
        name: Box<str>,
    },
    /// Somebody of whom another says who it is, with a JWT.
    Subject {
        /// Who says so.
        issuer: Box<str>,
        /// Who it is there.
        subject: Box<str>,
    },
    /// Somebody with a ticket, which opens one thing.
    Ticket {
        /// Its id.
        id: Box<str>,
        /// Who made it.
        maker: Box<Who>,
    },
}

impl Who {
    /// Returns the name that stands for `{name}` in rules.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Anyone | Self::Anonymous => "",
            Self::User(name) | Self::Token { name, .. } => name,
            Self::Subject { subject, .. } => subject,
            Self::Ticket { maker, .. } => maker.name(),
        }
    }
}

impl Who {
    /// Returns the name of the user that it is, also by a ticket.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User(name) => Some(name),
            Self::Ticket { maker, .. } => maker.user(),
            Self::Anyone | Self::Anonymous | Self::Token { .. } | Self::Subject { .. } => None,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user {name:?}"),
            Self::Token { id, name } => write!(f, "token {id} ({name:?})"),
            Self::Subject { issuer, subject } => write!(f, "{subject:?} of {issuer:?}"),
            Self::Ticket { id, maker } => write!(f, "ticket {id} of {maker}"),
        }
    }
}

/// What a caller may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It may do it.
    Granted,
    /// It may do it where it owns the topic: a rule says neither yes nor no.
    IfOwner,
}

/// What decides about a question, for who asks why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// There is no access control.
    Open,
    /// This rule allows it.
    Allowed(Rule),
    /// This rule denies it.
    Denied(Rule),
    /// This rule allows it, but the maker of the token may not do it.
    BeyondMaker(Rule),
    /// No rule says anything.
    Unsaid,
}

impl Caller {
    /// Returns whoever reaches the port, who may do everything: the caller of a relay without access control.
    #[must_use]
    pub const fn anyone() -> Self {
        Self(None)
    }

    /// Returns who has these rules, until it expires; who was made by somebody can do no more than that.
    #[must_use]
    pub fn new(who: Who, rules: Rules, within: Option<Self>, expires_at: Option<Timestamp>) -> Self {
        Self(Some(Arc::new(Principal { who, rules, within, expires_at, ..Principal::ANYONE })))
    }

    /// Returns a user with these rules, who owns topics as `owner`.
    #[must_use]
    pub fn user(name: &str, owner: Box<str>, rules: Rules) -> Self {
        let who = Who::User(name.into());
        Self(Some(Arc::new(Principal { who, rules, owner: Some(owner), ..Principal::ANYONE })))
    }

    /// Returns somebody with these rules of whom another says who it is, with a JWT that is signed with this key.
    pub(super) fn subject(
        who: Who,
        rules: Rules,
        expires_at: Option<Timestamp>,
        key: Option<KeyPrint>,
    ) -> Self {
        Self(Some(Arc::new(Principal { who, rules, expires_at, key, ..Principal::ANYONE })))
    }

    /// Returns this user, as it comes by a log-in.
    pub(super) fn by_log_in(&self, id: TokenId) -> Self {
        Self(Some(Arc::new(Principal { log_in: Some(id), ..self.principal().clone() })))
    }

    fn principal(&self) -> &Principal {
        static ANYONE: Principal = Principal::ANYONE;
        self.0.as_deref().unwrap_or(&ANYONE)
    }

    /// Returns who has the rules of these texts.
    #[cfg(test)]
    pub(super) fn of(who: Who, rules: &[&str], within: Option<&Self>) -> Self {
        let rules: Vec<Rule> = rules.iter().map(|rule| Rule::parse(rule).expect(rule)).collect();
        let bound = Rules::of(&rules, who.name());
        match &who {
            Who::User(name) => Self::user(name, name.clone(), bound),
            _ => Self::new(who, bound, within.cloned(), None),
        }
    }

    /// Returns one of several callers who may do nothing.
    #[cfg(test)]
    pub(crate) fn nobody(number: u8) -> Self {
        static NOBODY: LazyLock<Vec<Caller>> = LazyLock::new(|| {
            let nobody = |number: u8| Who::Token { id: number.to_string().into(), name: "nobody".into() };
            (0..8).map(|number| Caller::new(nobody(number), Rules::default(), None, None)).collect()
        });
        NOBODY[usize::from(number)].clone()
    }

    /// Returns who it is.
    #[must_use]
    pub fn who(&self) -> &Who {
        &self.principal().who
    }

    /// Returns whether it shows a ticket.
    pub(super) fn is_ticket(&self) -> bool {
        matches!(self.principal().who, Who::Ticket { .. })
    }

    /// Returns the ticket that it shows.
    pub(super) fn ticket(&self) -> Option<TokenId> {
        match &self.principal().who {
            Who::Ticket { id, .. } => TokenId::parse(id).ok(),
            Who::Anyone | Who::Anonymous | Who::User(_) | Who::Token { .. } | Who::Subject { .. } => None,
        }
    }

    /// Returns when it is no caller any more.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.principal().expires_at
    }

    /// Returns the key that somebody's JWT is signed with.
    pub(super) fn key(&self) -> Option<KeyPrint> {
        self.principal().key
    }

    /// Returns as whom it owns the topics that it makes: only users do, also by their tickets.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        let principal = self.principal();
        let maker = principal.within.as_ref().filter(|_| self.is_ticket());
        principal.owner.as_deref().or_else(|| maker?.owner())
    }

    /// Returns the log-in by which a user came.
    pub(super) fn log_in(&self) -> Option<TokenId> {
        self.principal().log_in
    }

    /// Returns the caller, who has made it, who has made that, and so on.
    pub(super) fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |caller| caller.principal().within.as_ref())
    }

    /// Returns as whom it is counted: with a ticket as who made it, and as a token that a token has made as the first
    /// of them, so that nobody has more by making others.
    #[must_use]
    pub fn counted_as(&self) -> &Who {
        let mut makers = self.chain().map(Self::who).skip_while(|who| matches!(who, Who::Ticket { .. }));
        let own = makers.next().unwrap_or_else(|| self.who());
        let is_token = |who: &&Who| matches!(who, Who::Token { .. });
        if is_token(&own) { makers.take_while(is_token).last().unwrap_or(own) } else { own }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.principal().rules
    }

    /// Returns whether it is the same principal with the same rights, so that one can stand for the other.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let (one, two) = (self.principal(), other.principal());
        let within = match (&one.within, &two.within) {
            (None, None) => true,
            (Some(one), Some(two)) => one == two,
            (Some(_), None) | (None, Some(_)) => false,
        };
        within
            && one.who == two.who
            && one.rules == two.rules
            && one.expires_at == two.expires_at
            && one.log_in == two.log_in
            && one.owner == two.owner
            && one.key == two.key
    }

    /// Returns what decides whether the caller may do this.
    #[must_use]
    pub fn rule_on(&self, verb: Verb, thing: Thing<'_>) -> Ruling {
        if self.principal().who == Who::Anyone {
            return Ruling::Open;
        }
        match self.principal().rules.decide(verb, thing) {
            Decision::Unsaid => Ruling::Unsaid,
            Decision::Denied(rule) => Ruling::Denied(rule.clone()),
            Decision::Allowed(rule) => match &self.principal().within {
                Some(maker) if !maker.allows(verb, thing) => Ruling::BeyondMaker(rule.clone()),
                Some(_) | None => Ruling::Allowed(rule.clone()),
            },
        }
    }

    fn allows(&self, verb: Verb, thing: Thing<'_>) -> bool {
        let rules = &self.principal().rules;
        let is_allowed = || {
            matches!(thing, Thing::Topic(_)) && rules.allow_every_topic(verb)
                || matches!(rules.decide(verb, thing), Decision::Allowed(_))
        };
        self.0.is_none()
            || (is_allowed()
                && self.principal().within.as_ref().is_none_or(|maker| maker.allows(verb, thing)))
    }

    /// Checks that the caller may do this with a topic.
    ///
    /// # Errors
    /// It may not, whoever owns the topic: `forbidden`, or `unauthenticated` where nobody has said who calls.
    pub fn check(&self, verb: Verb, topic: &TopicName) -> Result<Permit, Box<Problem>> {
        let thing = Thing::Topic(topic);
        if self.allows(verb, thing) {
            return Ok(Permit::Granted);
        }
        let ticket = (self.is_ticket(), &self.principal().within);
        if let (true, Some(maker)) = ticket
            && matches!(self.principal().rules.decide(verb, thing), Decision::Allowed(_))
        {
            // What its maker may because it owns it, too.
            return maker.check(verb, topic).map_err(|_| self.refusal(verb, format_args!("topic `{topic}`")));
        }
        // Users own what they make; a rule that denies it is stronger.
        let is_unsaid = matches!(self.principal().rules.decide(verb, thing), Decision::Unsaid);
        if is_unsaid && matches!(self.principal().who, Who::User(_)) {
            return Ok(Permit::IfOwner);
        }
        Err(self.refusal(verb, format_args!("topic `{topic}`")))
    }

    /// Returns the problem of who may not do this with a topic.
    #[must_use]
    pub fn refused(&self, verb: Verb, topic: &TopicName) -> Box<Problem> {
        self.refusal(verb, format_args!("topic `{topic}`"))
    }

    /// Checks that the caller may do this with what is no topic: of two parts where it lies in something, as a key does
    /// in its bucket.
    ///
    /// # Errors
    /// It may not: `forbidden`, or `unauthenticated` where nobody has said who calls.
    pub fn check_named(&self, verb: Verb, kind: Kind, parts: &[&str]) -> Result<(), Box<Problem>> {
        if self.0.is_none() {
            return Ok(());
        }
        let name = named(kind, parts);
        if self.allows(verb, Thing::Named(&name)) {
            return Ok(());
        }
        Err(self.refusal(verb, format_args!("`{name}`")))
    }

    /// Checks that the caller may do this with all of a kind whose names begin with these parts, of which the last need
    /// not be whole.
    ///
    /// # Errors
    /// As [`check_named`](Self::check_named), also where it may with some of them.
    pub fn check_each(&self, verb: Verb, kind: Kind, parts: &[&str]) -> Result<(), Box<Problem>> {
        if self.0.is_none() {
            return Ok(());
        }
        let each = format!("{}*", named(kind, parts));
        if self.allows(verb, Thing::Each(&each)) {
            return Ok(());
        }
        Err(self.refusal(verb, format_args!("all of `{each}`")))
    }

    /// Checks that the caller may do this with the relay as a whole.
    ///
    /// # Errors
    /// It may not: `forbidden`, or `unauthenticated` where nobody has said who calls.
    pub fn check_relay(&self, verb: Verb) -> Result<(), Box<Problem>> {
        if self.allows(verb, Thing::Relay) {
            return Ok(());
        }
        Err(self.refusal(verb, format_args!("this relay")))
    }

    /// Returns whether the caller may do this with every topic that there is and will be.
    #[must_use]
    pub fn may_with_every_topic(&self, verb: Verb) -> bool {
        self.principal().who == Who::Anyone
            || (self.principal().rules.allow_every_topic(verb)
                && self.principal().within.as_ref().is_none_or(|maker| maker.may_with_every_topic(verb)))
    }

    /// Returns whether there may be a topic with which the caller may do this.
    #[must_use]
    pub fn may_with_some_topic(&self, verb: Verb) -> bool {
        match self.principal().who {
            Who::Anyone | Who::User(_) => true,
            Who::Anonymous | Who::Token { .. } | Who::Subject { .. } | Who::Ticket { .. } => {
                self.principal().rules.allow_some_topic(verb)
            }
        }
    }

    /// Checks that there may be a topic with which the caller may do this.
    ///
    /// # Errors
    /// There can be none: `forbidden`, or `unauthenticated` where nobody has said who calls.
    pub fn check_some_topic(&self, verb: Verb) -> Result<(), Box<Problem>> {
        if self.may_with_some_topic(verb) {
            return Ok(());
        }
        Err(self.refusal(verb, format_args!("any topic")))
    }

    pub(super) fn refusal(&self, verb: Verb, what: fmt::Arguments<'_>) -> Box<Problem> {
        Box::new(match &self.principal().who {
            Who::Anonymous => Problem::new(
                Code::Unauthenticated,
                format!(
                    "who says nothing of who calls has no right to `{verb}` for {what}; send `Authorization: Bearer` with a token"
                ),
            ),
            who @ Who::Subject { .. } if self.principal().rules.are_none() => Problem::new(
                Code::Forbidden,
                format!(
                    "the JWT grants nothing, so {who} has no right to `{verb}` for {what}: what it may do stands in its claim `tidemill`, or in its `scope` as `tidemill:verb:pattern`"
                ),
            ),
            who => Problem::new(Code::Forbidden, format!("{who} has no right to `{verb}` for {what}")),
        })
    }
}

/// Returns the name by which rules know what is no topic.
fn named(kind: Kind, parts: &[&str]) -> String {
    let mut name = kind.as_str().to_owned();
    for part in parts {
        name.push('/');
        name.push_str(part);
    }
    name
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for Caller {}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ref().map(Arc::as_ptr).hash(state);
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.principal().who)
    }
}

#[cfg(test)]
mod tests;
