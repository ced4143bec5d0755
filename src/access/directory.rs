//! The directory: users, tokens and roles, as they stand in the storage and as callers.
//!
//! Each is a document of its own. All of them are held, because there are few and every request asks; what came
//! of a document that did not change stays the same caller, so that sessions of it go on.
//!
//! It must not know when documents are read, nor who may change them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_proto::Timestamp;

use super::caller::{Caller, Who};
use super::rule::{Rule, Rules};
use crate::storage::AccessDocuments;

/// Tokens that were made by a token that was made by a token, and so on: so many may lie above one.
const MAKERS_MAX: usize = 4;

/// The role of who does not say who calls.
pub(super) const ANONYMOUS: &str = "anonymous";

/// The roles that are there before anybody has written one, with their rules.
const READY_MADE: [(&str, &[&str]); 4] = [
    (
        "admin",
        &[
            "allow admin *",
            "allow publish,read,work,manage *",
            "allow publish,read,work,manage keys/*",
            "allow publish,read,work,manage locks/*",
            "allow publish,read,work,manage limits/*",
            "allow publish,read,work,manage presence/*",
        ],
    ),
    (
        "write",
        &[
            "allow publish,read,work *",
            "allow publish,read,work keys/*",
            "allow publish,read,work locks/*",
            "allow publish,read,work limits/*",
            "allow publish,read,work presence/*",
        ],
    ),
    ("read", &["allow read *", "allow read keys/*", "allow read presence/*"]),
    (ANONYMOUS, &[]),
];

/// A user, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct User {
    /// Hash of the password, as a PHC string; none if there is no way to log in with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<Hidden<String>>,
    pub(super) roles: Vec<String>,
    pub(super) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    /// Whether it may come in.
    pub(super) is_active: bool,
}

/// A token, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) name: String,
    /// SHA-256 of its text, in hexadecimal digits.
    pub(super) hash: Hidden<String>,
    pub(super) rules: Vec<Rule>,
    /// Who made it; none if it was made by who has the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) maker: Option<Maker>,
    pub(super) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
}

/// Who made a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Maker {
    /// A user, by its name.
    User(String),
    /// Another token, by its id.
    Token(String),
}

/// A role, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) rules: Vec<Rule>,
}

/// What is no business of logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Hidden<T>(pub(super) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is there: users, tokens and roles of one revision.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) revision: u64,
    pub(super) users: BTreeMap<Box<str>, User>,
    pub(super) tokens: BTreeMap<Box<str>, Token>,
    pub(super) roles: BTreeMap<Box<str>, Role>,
    callers: HashMap<Key, Caller>,
    anonymous: Option<Caller>,
}

/// What a caller came of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    User(Box<str>),
    Token(Box<str>),
}

impl Directory {
    /// Reads documents. Callers whose rights are what they were in `before` are those of it.
    pub(super) fn read(documents: AccessDocuments, before: &Self) -> Self {
        let mut directory = Self { revision: documents.revision, ..Self::default() };
        for (role, rules) in READY_MADE {
            let rules =
                rules.iter().map(|rule| Rule::parse(rule).expect("ready-made rules are rules")).collect();
            directory.roles.insert(role.into(), Role { rules });
        }
        for (name, document) in documents.documents {
            directory.take(&name, &document);
        }
        let users: Vec<Box<str>> = directory.users.keys().cloned().collect();
        for name in users {
            directory.add_user(name, before);
        }
        let tokens: Vec<Box<str>> = directory.tokens.keys().cloned().collect();
        for id in tokens {
            directory.add_token(&id, before, MAKERS_MAX);
        }
        let rules = directory.roles.get(ANONYMOUS).map_or(&[][..], |role| &role.rules);
        let anonymous = Caller::new(Who::Anonymous, Rules::of(rules, ""), None, None);
        directory.anonymous = Some(keep(before.anonymous.as_ref(), anonymous));
        directory
    }

    fn take(&mut self, name: &str, document: &Bytes) {
        let taken = match name.split_once('/') {
            Some(("user", name)) => read(document).map(|user| drop(self.users.insert(name.into(), user))),
            Some(("token", id)) => read(document).map(|token| drop(self.tokens.insert(id.into(), token))),
            Some(("role", name)) => read(document).map(|role| drop(self.roles.insert(name.into(), role))),
            // A newer relay may keep more.
            Some(_) | None => Ok(()),
        };
        if let Err(error) = taken {
            tracing::error!(document = name, %error, "a document on who may do what cannot be read: whom it concerns is let in nowhere");
        }
    }

    fn add_user(&mut self, name: Box<str>, before: &Self) {
        let Some(user) = self.users.get(&name).filter(|user| user.is_active) else { return };
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role.as_str()));
        let bound = Rules::of(roles.flat_map(|role| &role.rules), &name);
        let caller = Caller::new(Who::User(name.clone()), bound, None, None);
        let key = Key::User(name);
        let caller = keep(before.callers.get(&key), caller);
        self.callers.insert(key, caller);
    }

    /// Adds a token as a caller, and whoever made it before. One whose maker is gone is none.
    fn add_token(&mut self, id: &str, before: &Self, makers_max: usize) -> Option<Caller> {
        let key = Key::Token(id.into());
        if let Some(caller) = self.callers.get(&key) {
            return Some(caller.clone());
        }
        let maker = self.tokens.get(id)?.maker.clone();
        let within = match maker {
            None => None,
            Some(Maker::User(name)) => Some(self.callers.get(&Key::User(name.into()))?.clone()),
            Some(Maker::Token(maker)) => {
                let maker = self.add_token(&maker, before, makers_max.checked_sub(1)?)?;
                if maker.chain().count() > MAKERS_MAX {
                    return None;
                }
                Some(maker)
            }
        };
        let token = self.tokens.get(id)?;
        // What was made for less time than its maker has ends with it.
        let expires_at = match (token.expires_at, within.as_ref().and_then(Caller::expires_at)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let who = Who::Token { id: id.into(), name: token.name.as_str().into() };
        let rules = Rules::of(&token.rules, &token.name);
        let caller = keep(before.callers.get(&key), Caller::new(who, rules, within, expires_at));
        self.callers.insert(key, caller.clone());
        Some(caller)
    }

    /// Returns who says nothing of who calls.
    pub(super) fn anonymous(&self) -> Caller {
        let of_nothing = || Caller::new(Who::Anonymous, Rules::default(), None, None);
        self.anonymous.clone().unwrap_or_else(of_nothing)
    }

    /// Returns a user who may come in.
    pub(super) fn user(&self, name: &str) -> Option<&Caller> {
        self.callers.get(&Key::User(name.into()))
    }

    /// Returns a token whose maker is there, expired or not.
    pub(super) fn token(&self, id: &str) -> Option<&Caller> {
        self.callers.get(&Key::Token(id.into()))
    }

    /// Returns the hash of a token's text.
    pub(super) fn token_hash(&self, id: &str) -> Option<[u8; 32]> {
        let digits = &self.tokens.get(id)?.hash.0;
        let mut hash = [0; 32];
        let byte = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
        for (at, to) in hash.iter_mut().enumerate() {
            *to = byte(at)?;
        }
        (digits.len() == 64).then_some(hash)
    }

    /// Returns whether a caller's rights are those of now.
    pub(super) fn is_current(&self, caller: &Caller) -> bool {
        match caller.who() {
            Who::Anyone | Who::Subject { .. } => true,
            Who::Anonymous => self.anonymous.as_ref() == Some(caller),
            Who::User(name) => self.user(name) == Some(caller),
            Who::Token { id, .. } => self.token(id) == Some(caller),
        }
    }
}

/// Returns the caller that there was, if it has the same rights.
fn keep(before: Option<&Caller>, caller: Caller) -> Caller {
    before.filter(|before| before.is_like(&caller)).cloned().unwrap_or(caller)
}

fn read<T: for<'de> Deserialize<'de>>(document: &Bytes) -> Result<T, serde_json::Error> {
    serde_json::from_slice(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Verb;

    fn documents(revision: u64, documents: &[(&str, &str)]) -> AccessDocuments {
        let document =
            |(name, text): &(&str, &str)| ((*name).into(), Bytes::copy_from_slice(text.as_bytes()));
        AccessDocuments { revision, documents: documents.iter().map(document).collect() }
    }

    const ANN: (&str, &str) =
        ("user/ann", r#"{"roles":["read","crew"],"created_at":"2026-01-01T00:00:00.000Z","is_active":true}"#);
    const CREW: (&str, &str) = ("role/crew", r#"{"rules":["allow publish {name}.*"]}"#);

    fn token(maker: &str) -> String {
        format!(
            r#"{{"name":"t","hash":"00","rules":["allow read *"],{maker}"created_at":"2026-01-01T00:00:00.000Z","expires_at":"2030-01-01T00:00:00.000Z"}}"#
        )
    }

    #[test]
    fn what_does_not_change_stays_the_same_caller() {
        let own = token(r#""maker":{"user":"ann"},"#);
        let before = Directory::read(documents(1, &[ANN, CREW, ("token/a", &own)]), &Directory::default());
        let (ann, of_ann) = (before.user("ann").expect("ann").clone(), before.token("a").expect("a").clone());
        assert!(
            ann.check_relay(Verb::Admin).is_err() && before.is_current(&ann) && before.is_current(&of_ann)
        );

        let same =
            Directory::read(documents(2, &[ANN, CREW, ("token/a", &own), ("user/bob", ANN.1)]), &before);
        assert!(same.is_current(&ann) && same.is_current(&of_ann) && same.is_current(&before.anonymous()));

        let other = ("role/crew", r#"{"rules":["allow publish *"]}"#);
        let changed = Directory::read(documents(3, &[ANN, other, ("token/a", &own)]), &same);
        assert!(!changed.is_current(&ann), "a role of hers has other rules");
        assert!(!changed.is_current(&of_ann), "what its maker may is another thing");
        assert!(changed.user("ann").is_some() && changed.token("a").is_some());

        let gone = Directory::read(documents(4, &[CREW, ("token/a", &own)]), &changed);
        assert!(gone.user("ann").is_none() && gone.token("a").is_none(), "a token goes with its maker");
        assert!(gone.tokens.contains_key("a"));
        let idle = ("user/ann", r#"{"roles":[],"created_at":"2026-01-01T00:00:00.000Z","is_active":false}"#);
        assert!(Directory::read(documents(5, &[idle]), &gone).user("ann").is_none());
    }

    #[test]
    fn makers_that_go_round_in_a_circle_make_nobody() {
        let (a, b) = (token(r#""maker":{"token":"b"},"#), token(r#""maker":{"token":"a"},"#));
        let directory =
            Directory::read(documents(1, &[("token/a", &a), ("token/b", &b)]), &Directory::default());
        assert!(directory.token("a").is_none() && directory.token("b").is_none());
        let chain: Vec<(String, String)> = (0..8)
            .map(|at| {
                let maker =
                    if at == 0 { String::new() } else { format!(r#""maker":{{"token":"{}"}},"#, at - 1) };
                (format!("token/{at}"), token(&maker))
            })
            .collect();
        let chain: Vec<(&str, &str)> = chain.iter().map(|(id, text)| (&**id, &**text)).collect();
        let directory = Directory::read(documents(1, &chain), &Directory::default());
        let there: Vec<usize> = (0..8).filter(|at| directory.token(&at.to_string()).is_some()).collect();
        assert_eq!(there, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_cannot_be_read_lets_nobody_in() {
        let directory = Directory::read(
            documents(
                1,
                &[("user/ann", "{"), ("user/bob", "[]"), ("role/admin", "1"), ("other", "x"), ("a/b", "{}")],
            ),
            &Directory::default(),
        );
        assert!(directory.user("ann").is_none() && directory.user("bob").is_none());
        assert_eq!(directory.roles.len(), 4);
        assert!(!format!("{:?}", Hidden("secret")).contains("secret"));
    }
}
