//! Things that are no topics, as who asks about rules names them: `keys/flows/a`.
//!
//! It must not know what any of them is.

use tidemill_proto::{KeyName, Problem};

use super::Verb;
use super::caller::{Caller, Who};
use super::rule::{Kind, Thing};

/// What is no topic, or all whose names begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedThing {
    name: String,
    is_each: bool,
}

impl NamedThing {
    /// Returns whether a text names what is no topic: it has a `/`, as no topic does.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains('/')
    }

    /// Parses a kind, a `/` and the names; with `*` at the end all are meant that begin so, and a bucket or a room alone
    /// stands for all that is in it.
    ///
    /// # Errors
    /// There is no such kind, or a name is none.
    pub fn parse(field: &str, text: &str) -> Result<Self, Box<Problem>> {
        let mut parts = text.split('/');
        let kind = parts.next().unwrap_or_default();
        let kind = Kind::ALL.into_iter().find(|of| of.as_str() == kind).ok_or_else(|| {
            let rule =
                "has a `/`, and is about none of `keys/`, `locks/`, `limits/`, `presence/` and `series/`";
            Box::new(Problem::field(field, rule))
        })?;
        let count = match kind {
            Kind::Key | Kind::Presence => 2,
            Kind::Lock | Kind::Limit | Kind::Series => 1,
        };
        let names: Vec<&str> = parts.collect();
        if names.is_empty() || names.len() > count {
            let rule = format!("must have 1 to {count} names behind `{}/`", kind.as_str());
            return Err(Box::new(Problem::field(field, rule)));
        }
        let (last, whole) = names.split_last().map_or(("", &[][..]), |(last, whole)| (*last, whole));
        let wrong = |error| Box::new(Problem::field(field, format_args!("has a name that {error}")));
        for name in whole {
            KeyName::parse(name).map_err(wrong)?;
        }
        if let Some(prefix) = last.strip_suffix('*') {
            // What may not end a name may stand inside it.
            if !prefix.is_empty() {
                KeyName::parse(prefix).or_else(|_| KeyName::parse(&format!("{prefix}x"))).map_err(wrong)?;
            }
            return Ok(Self { name: text.to_owned(), is_each: true });
        }
        KeyName::parse(last).map_err(wrong)?;
        let is_each = names.len() < count;
        Ok(Self { name: if is_each { format!("{text}/*") } else { text.to_owned() }, is_each })
    }

    /// Returns it as a question to the rules.
    #[must_use]
    pub fn thing(&self) -> Thing<'_> {
        if self.is_each { Thing::Each(&self.name) } else { Thing::Named(&self.name) }
    }
}

impl Caller {
    /// Checks that there may be something of a kind with which the caller may do this.
    ///
    /// # Errors
    /// There can be none: `forbidden`, or `unauthenticated` where nobody has said who calls.
    pub fn check_some_named(&self, verb: Verb, kind: Kind) -> Result<(), Box<Problem>> {
        if *self.who() == Who::Anyone || self.rules().allow_some_named(verb, kind) {
            return Ok(());
        }
        Err(self.refusal(verb, format_args!("anything of `{}/`", kind.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::Code;

    use super::*;

    #[test]
    fn what_is_no_topic_is_named_by_its_kind() {
        for (text, name, is_each) in [
            ("keys/flows/a", "keys/flows/a", false),
            ("keys/flows/a.*", "keys/flows/a.*", true),
            ("keys/flows/*", "keys/flows/*", true),
            ("keys/flows", "keys/flows/*", true),
            ("keys/*", "keys/*", true),
            ("locks/a", "locks/a", false),
            ("limits/a*", "limits/a*", true),
            ("presence/room/ann", "presence/room/ann", false),
            ("series/a", "series/a", false),
        ] {
            let thing = NamedThing::parse("topic", text).expect(text);
            assert_eq!((thing.name.as_str(), thing.is_each), (name, is_each), "{text}");
        }
        for text in [
            "/",
            "topics/a",
            "keys/",
            "keys/a/b/c",
            "locks/a/b",
            "keys/a*/b",
            "keys/a/b*c",
            "keys/a/.",
            "keys//b",
        ] {
            let problem = NamedThing::parse("topic", text).expect_err(text);
            assert_eq!(problem.field.as_deref(), Some("topic"), "{text}");
        }
    }

    #[test]
    fn some_may_do_it_with_something_of_a_kind_and_some_with_nothing() {
        let token = |rules: &[&str]| Caller::of(Who::Token { id: "i".into(), name: "t".into() }, rules, None);
        let code =
            |caller: &Caller, kind| caller.check_some_named(Verb::Read, kind).map_err(|problem| problem.code);
        let reads = token(&["allow read keys/flows/*", "allow publish locks/*"]);
        assert_eq!(code(&reads, Kind::Key), Ok(()));
        assert_eq!(code(&reads, Kind::Lock), Err(Code::Forbidden));
        assert_eq!(code(&token(&["allow read *"]), Kind::Key), Err(Code::Forbidden), "that is of topics");
        assert_eq!(code(&token(&["deny read keys/*"]), Kind::Key), Err(Code::Forbidden));
        assert_eq!(code(&Caller::anyone(), Kind::Key), Ok(()));
    }
}
