//! Which topics a caller may read: what readers of one pattern have in common who share its feed.
//!
//! It must not know who is asked whether somebody owns a topic.

use std::sync::Arc;

use tidemill_proto::TopicName;

use super::Verb;
use super::caller::Caller;
use super::rule::{Decision, Rules, Thing};

/// The topics that somebody may read. Two are equal if they say the same of every topic. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadScope(Option<Arc<Part>>);

/// What not everybody may read.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    /// The rules of a ticket, which must allow a topic, whoever owns it.
    ticket: Option<Rules>,
    /// The rules of the caller, and of those who made it: each of them must allow a topic.
    rules: Vec<Rules>,
    /// Who owns what no rule speaks of.
    owner: Option<Box<str>>,
}

/// Whether a topic is within a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within<'a> {
    /// It is.
    Yes,
    /// It is if this user owns it.
    IfOwnedBy(&'a str),
    /// It is not.
    No,
}

impl ReadScope {
    /// Returns the scope of every topic.
    #[must_use]
    pub const fn everything() -> Self {
        Self(None)
    }

    fn of(ticket: Option<Rules>, rules: Vec<Rules>, owner: Option<Box<str>>) -> Self {
        Self(Some(Arc::new(Part { ticket, rules, owner })))
    }

    /// Returns whether it says of some topics that they are within it if somebody owns them.
    #[must_use]
    pub fn asks_for_owner(&self) -> bool {
        self.0.as_ref().is_some_and(|part| part.owner.is_some())
    }

    /// Returns whether a topic is within the scope.
    #[must_use]
    pub fn has(&self, topic: &TopicName) -> Within<'_> {
        let Some(part) = &self.0 else { return Within::Yes };
        let is_allowed =
            |rules: &Rules| matches!(rules.decide(Verb::Read, Thing::Topic(topic)), Decision::Allowed(_));
        if !part.ticket.as_ref().is_none_or(is_allowed) {
            return Within::No;
        }
        let mut is_unsaid = false;
        for rules in &part.rules {
            match rules.decide(Verb::Read, Thing::Topic(topic)) {
                Decision::Allowed(_) => {}
                Decision::Denied(_) => return Within::No,
                Decision::Unsaid => is_unsaid = true,
            }
        }
        match &part.owner {
            _ if !is_unsaid => Within::Yes,
            Some(owner) => Within::IfOwnedBy(owner),
            None => Within::No,
        }
    }
}

impl Caller {
    /// Returns the topics that the caller may read.
    #[must_use]
    pub fn read_scope(&self) -> ReadScope {
        if self.may_with_every_topic(Verb::Read) {
            return ReadScope::everything();
        }
        let mut rules: Vec<_> = self.chain().map(|caller| caller.rules().reading()).collect();
        let ticket = self.is_ticket().then(|| rules.remove(0));
        ReadScope::of(ticket, rules, self.owner().map(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_proto::Code;

    use crate::access::{Permit, Who};

    fn user(name: &str, rules: &[&str]) -> Caller {
        Caller::of(Who::User(name.into()), rules, None)
    }

    fn token(name: &str, rules: &[&str], maker: Option<&Caller>) -> Caller {
        Caller::of(Who::Token { id: name.into(), name: name.into() }, rules, maker)
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).expect(name)
    }

    #[test]
    fn those_who_may_read_the_same_share_a_scope() {
        let [one, two] =
            ["one", "two"].map(|name| token(name, &["allow read,publish a.*"], None).read_scope());
        assert_eq!(one, two, "whoever they are");
        assert_eq!(
            one,
            token("x", &["allow read a.*", "allow publish b"], None).read_scope(),
            "only reading counts"
        );
        assert_ne!(one, token("x", &["allow read a*"], None).read_scope());
        assert_ne!(
            user("ann", &["allow read a.*"]).read_scope(),
            user("bob", &["allow read a.*"]).read_scope()
        );
        for all in [Caller::anyone(), user("ann", &["allow read *"]), token("x", &["allow read **"], None)] {
            assert_eq!(all.read_scope(), ReadScope::everything());
        }
    }

    #[test]
    fn a_scope_says_what_the_caller_would_be_told() {
        let ann = user("ann", &["allow read a.*", "deny read a.secret"]);
        let scope = ann.read_scope();
        assert_eq!(scope.has(&topic("a.x")), Within::Yes);
        assert_eq!(scope.has(&topic("a.secret")), Within::No);
        assert_eq!(scope.has(&topic("b")), Within::IfOwnedBy("ann"));
        let of_ann = token("t", &["allow read *"], Some(&ann)).read_scope();
        assert_eq!(of_ann.has(&topic("a.x")), Within::Yes);
        assert_eq!(of_ann.has(&topic("b")), Within::No, "tokens own nothing");
        assert_eq!(of_ann.has(&topic("a.secret")), Within::No);
    }

    #[test]
    fn a_ticket_is_for_what_it_names_as_far_as_its_maker_may() {
        let ann = user("ann", &["allow read,publish a.*", "deny read a.secret"]);
        let who = Who::Ticket { id: "i".into(), maker: Box::new(ann.who().clone()) };
        let ticket = Caller::of(who, &["allow read a.*", "allow read hers", "deny read a.not"], Some(&ann));
        for (name, within) in [
            ("a.x", Within::Yes),
            ("a.secret", Within::No),
            ("a.not", Within::No),
            ("hers", Within::IfOwnedBy("ann")),
            ("hers.too", Within::No),
            ("b", Within::No),
        ] {
            assert_eq!(ticket.read_scope().has(&topic(name)), within, "{name}");
            let expected = match within {
                Within::Yes => Ok(Permit::Granted),
                Within::IfOwnedBy(_) => Ok(Permit::IfOwner),
                Within::No => Err(Code::Forbidden),
            };
            let permit = ticket.check(Verb::Read, &topic(name)).map_err(|problem| problem.code);
            assert_eq!(permit, expected, "{name}");
        }
        let code = |verb| ticket.check(verb, &topic("a.x")).map_err(|problem| problem.code);
        assert_eq!(code(Verb::Publish), Err(Code::Forbidden), "its rules do not say so");
        assert_eq!(code(Verb::Manage), Err(Code::Forbidden), "nor that it may what an owner may");
        assert!(ticket.check_relay(Verb::Admin).is_err());
    }
}
