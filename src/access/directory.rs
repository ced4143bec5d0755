//! The directory: users, tokens and roles, as they stand in the storage and as callers.
//!
//! Each is a document of its own, and when a token was used last is another, so that telling it changes no token. All of them are held, because there are few and every request asks; what came
//! of a document that did not change stays the same caller, so that sessions of it go on.
//!
//! It must not know when documents are read, nor who may change them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidemill_proto::Timestamp;

use super::Verb;
use super::caller::{Caller, Who};
use super::documents::{Maker, ROLE, Role, TOKEN, Token, USED, USER, User, edit, read};
use super::rule::{Rule, Rules};
use super::token::TokenId;
use crate::storage::{AccessDocuments, AccessEdit};

/// Tokens that were made by a token that was made by a token, and so on: so many may lie above one.
pub(super) const MAKERS_MAX: usize = 4;

/// The unit in which it is kept when a token was used last.
const MINUTE_MS: u64 = 60_000;

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

/// What is there: users, tokens and roles of one revision.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) revision: u64,
    /// Bytes of all documents.
    pub(super) bytes: usize,
    pub(super) users: BTreeMap<Box<str>, User>,
    pub(super) tokens: BTreeMap<Box<str>, Token>,
    pub(super) roles: BTreeMap<Box<str>, Role>,
    /// When tokens were used last, as the storage has it.
    used: BTreeMap<Box<str>, Timestamp>,
    /// Users who may come in.
    user_callers: HashMap<Box<str>, Caller>,
    /// Tokens whose makers are there.
    known: HashMap<TokenId, KnownToken>,
    anonymous: Option<Caller>,
}

/// A token that is let in until it expires.
#[derive(Clone, Debug)]
pub(super) struct KnownToken {
    /// SHA-256 of its text.
    pub(super) hash: [u8; 32],
    pub(super) caller: Caller,
    /// The minute in which this node saw it last, since 1970; 0 if it has not.
    minute: Arc<AtomicU64>,
}

impl KnownToken {
    /// Notes that it is used now.
    pub(super) fn note_use(&self, now: Timestamp) {
        let minute = now.as_millis() / MINUTE_MS;
        // Nearly always it was seen in this minute before: then nothing is written that others look at.
        if self.minute.load(Ordering::Relaxed) < minute {
            self.minute.store(minute, Ordering::Relaxed);
        }
    }
}

impl Directory {
    /// Reads documents. Callers whose rights are what they were in `before` are those of it.
    pub(super) fn read(documents: AccessDocuments, before: &Self) -> Self {
        let mut directory = Self { revision: documents.revision, ..Self::default() };
        directory.roles.extend(READY_MADE.map(|(role, rules)| (role.into(), ready_made(rules))));
        for (name, document) in documents.documents {
            directory.bytes += document.len();
            directory.take(&name, &document);
        }
        directory.complete(before);
        directory
    }

    /// Returns what would be there after these edits.
    pub(super) fn edited(&self, edits: &[AccessEdit]) -> Self {
        let Self { users, tokens, roles, .. } = self;
        let mut edited = Self { users: users.clone(), tokens: tokens.clone(), ..Self::default() };
        edited.roles.clone_from(roles);
        for AccessEdit { name, document } in edits {
            match document {
                Some(document) => edited.take(name, document),
                None => edited.leave(name),
            }
        }
        edited.complete(self);
        edited
    }

    fn take(&mut self, name: &str, document: &Bytes) {
        let taken = match name.split_once('/') {
            Some((USER, name)) => read(document).map(|user| drop(self.users.insert(name.into(), user))),
            Some((TOKEN, id)) => read(document).map(|token| drop(self.tokens.insert(id.into(), token))),
            Some((ROLE, name)) => read(document).map(|role| drop(self.roles.insert(name.into(), role))),
            Some((USED, id)) => read(document).map(|used| {
                self.used.insert(id.into(), used);
            }),
            // A newer relay may keep more.
            Some(_) | None => Ok(()),
        };
        if let Err(error) = taken {
            tracing::error!(document = name, %error, "a document on who may do what cannot be read: whom it concerns is let in nowhere");
        }
    }

    fn leave(&mut self, name: &str) {
        match name.split_once('/') {
            Some((USER, name)) => drop(self.users.remove(name)),
            Some((TOKEN, id)) => drop(self.tokens.remove(id)),
            Some((ROLE, name)) => match READY_MADE.iter().find(|(role, _)| *role == name) {
                Some((_, rules)) => drop(self.roles.insert(name.into(), ready_made(rules))),
                None => drop(self.roles.remove(name)),
            },
            Some((USED, id)) => {
                self.used.remove(id);
            }
            Some(_) | None => {}
        }
    }

    /// Makes callers of what is there.
    fn complete(&mut self, before: &Self) {
        let users: Vec<Box<str>> = self.users.keys().cloned().collect();
        for name in users {
            self.add_user(name, before);
        }
        let tokens: Vec<Box<str>> = self.tokens.keys().cloned().collect();
        for id in tokens {
            self.add_token(&id, before, MAKERS_MAX);
        }
        let rules = self.roles.get(ANONYMOUS).map_or(&[][..], |role| &role.rules);
        let anonymous = Caller::new(Who::Anonymous, Rules::of(rules, ""), None, None);
        self.anonymous = Some(keep(before.anonymous.as_ref(), anonymous));
    }

    fn add_user(&mut self, name: Box<str>, before: &Self) {
        let Some(user) = self.users.get(&name).filter(|user| user.is_active) else { return };
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role.as_str()));
        let bound = Rules::of(roles.flat_map(|role| &role.rules), &name);
        let caller = Caller::new(Who::User(name.clone()), bound, None, None);
        let caller = keep(before.user(&name), caller);
        self.user_callers.insert(name, caller);
    }

    /// Adds a token as a caller, and whoever made it before. One whose maker is gone is none.
    fn add_token(&mut self, id: &str, before: &Self, makers_max: usize) -> Option<Caller> {
        let key = TokenId::parse(id).ok()?;
        if let Some(known) = self.known.get(&key) {
            return Some(known.caller.clone());
        }
        let maker = self.tokens.get(id)?.maker.clone();
        let within = match maker {
            None => None,
            Some(Maker::User(name)) => Some(self.user(&name)?.clone()),
            Some(Maker::Token(maker)) => {
                let maker = self.add_token(&maker, before, makers_max.checked_sub(1)?)?;
                if maker.chain().count() > MAKERS_MAX {
                    return None;
                }
                Some(maker)
            }
        };
        let token = self.tokens.get(id)?;
        let hash = token.hash.bytes()?;
        // What was made for less time than its maker has ends with it.
        let expires_at = match (token.expires_at, within.as_ref().and_then(Caller::expires_at)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let who = Who::Token { id: id.into(), name: token.name.as_str().into() };
        let rules = Rules::of(&token.rules, &token.name);
        let old = before.known.get(&key);
        let caller = keep(old.map(|known| &known.caller), Caller::new(who, rules, within, expires_at));
        let minute = old.map_or_else(Arc::default, |known| known.minute.clone());
        self.known.insert(key, KnownToken { hash, caller: caller.clone(), minute });
        Some(caller)
    }

    /// Returns who says nothing of who calls.
    pub(super) fn anonymous(&self) -> Caller {
        let of_nothing = || Caller::new(Who::Anonymous, Rules::default(), None, None);
        self.anonymous.clone().unwrap_or_else(of_nothing)
    }

    /// Returns a user who may come in.
    pub(super) fn user(&self, name: &str) -> Option<&Caller> {
        self.user_callers.get(name)
    }

    /// Returns a token whose maker is there, expired or not.
    pub(super) fn token(&self, id: TokenId) -> Option<&KnownToken> {
        self.known.get(&id)
    }

    /// Returns a user or a token that is let in, by its name or id, or who says nothing of who calls.
    pub(super) fn principal(&self, text: &str) -> Option<Caller> {
        if text == ANONYMOUS {
            return Some(self.anonymous());
        }
        let token = || Some(&self.token(TokenId::parse(text).ok()?)?.caller);
        self.user(text).or_else(token).cloned()
    }

    /// Returns whether a caller's rights are those of now.
    pub(super) fn is_current(&self, caller: &Caller) -> bool {
        match caller.who() {
            Who::Anyone | Who::Subject { .. } => true,
            Who::Anonymous => self.anonymous.as_ref() == Some(caller),
            Who::Ticket { .. } => caller.chain().nth(1).is_some_and(|maker| self.is_current(maker)),
            Who::User(name) => self.user(name) == Some(caller),
            Who::Token { id, .. } => {
                let known = TokenId::parse(id).ok().and_then(|id| self.token(id));
                known.is_some_and(|known| known.caller == *caller)
            }
        }
    }

    /// Returns whether there is somebody who may administer the relay, and whose time is not over.
    pub(super) fn has_admin(&self, now: Timestamp) -> bool {
        let callers = self.user_callers.values().chain(self.known.values().map(|known| &known.caller));
        let lives = |caller: &Caller| caller.expires_at().is_none_or(|at| at > now);
        callers.filter(|caller| lives(caller)).any(|caller| caller.check_relay(Verb::Admin).is_ok())
    }

    /// Returns how many users, tokens and written roles there are.
    pub(super) fn len(&self) -> usize {
        self.users.len() + self.tokens.len() + self.roles.len()
    }

    /// Returns the ids of all tokens that were made by this one, or by those, and so on.
    pub(super) fn made_by(&self, maker: Maker) -> Vec<Box<str>> {
        let mut found: Vec<Box<str>> = Vec::new();
        let mut makers = vec![maker];
        while let Some(maker) = makers.pop() {
            let of_it = self.tokens.iter().filter(|(_, token)| token.maker.as_ref() == Some(&maker));
            let new = of_it.map(|(id, _)| id).filter(|id| !found.contains(id)).cloned();
            let new: Vec<_> = new.collect();
            makers.extend(new.iter().map(|id| Maker::Token(id.to_string())));
            found.extend(new);
        }
        found
    }

    /// Returns when a token was used last, as far as this node knows.
    pub(super) fn last_use(&self, id: &str) -> Option<Timestamp> {
        let known = TokenId::parse(id).ok().and_then(|id| self.token(id));
        let seen = known.map(|known| known.minute.load(Ordering::Relaxed)).filter(|minute| *minute > 0);
        let seen = seen.map(|minute| Timestamp::from_millis(minute * MINUTE_MS));
        seen.max(self.used.get(id).copied())
    }

    /// Returns the edits by which the storage knows when tokens were used that this node saw.
    pub(super) fn uses_to_keep(&self) -> Vec<AccessEdit> {
        let ids = self.known.keys().map(TokenId::as_str);
        let last = ids.filter_map(|id| Some((id, self.last_use(id)?)));
        let new = last.filter(|(id, last)| self.used.get(*id) != Some(last));
        new.map(|(id, last)| edit(USED, id, Some(&last))).collect()
    }

    /// Returns whether a role is there before anybody has written one.
    pub(super) fn is_ready_made(role: &str) -> bool {
        READY_MADE.iter().any(|(name, _)| *name == role)
    }
}

fn ready_made(rules: &[&str]) -> Role {
    let parse = |rule: &&str| Rule::parse(rule).expect("ready-made rules are rules");
    Role { rules: rules.iter().map(parse).collect() }
}

/// Returns the caller that there was, if it has the same rights.
fn keep(before: Option<&Caller>, caller: Caller) -> Caller {
    before.filter(|before| before.is_like(&caller)).cloned().unwrap_or(caller)
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
    const TOKEN_A: &str = "token/aaaaaaaaaaaaaaaa";
    const CREW: (&str, &str) = ("role/crew", r#"{"rules":["allow publish {name}.*"]}"#);

    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    /// Returns an id of a token that is as good as any.
    fn id(digit: impl std::fmt::Display) -> String {
        digit.to_string().repeat(16)
    }

    fn caller(directory: &Directory, digit: impl std::fmt::Display) -> Option<Caller> {
        let id = TokenId::parse(&id(digit)).expect("an id");
        directory.token(id).map(|known| known.caller.clone())
    }

    fn token(maker: &str) -> String {
        format!(
            r#"{{"name":"t","hash":"{ZEROS}","rules":["allow read *"],{maker}"created_at":"2026-01-01T00:00:00.000Z","expires_at":"2030-01-01T00:00:00.000Z"}}"#
        )
    }

    #[test]
    fn what_does_not_change_stays_the_same_caller() {
        let own = token(r#""maker":{"user":"ann"},"#);
        let before = Directory::read(documents(1, &[ANN, CREW, (TOKEN_A, &own)]), &Directory::default());
        let (ann, of_ann) = (before.user("ann").expect("ann").clone(), caller(&before, "a").expect("a"));
        assert!(
            ann.check_relay(Verb::Admin).is_err() && before.is_current(&ann) && before.is_current(&of_ann)
        );

        let same = Directory::read(documents(2, &[ANN, CREW, (TOKEN_A, &own), ("user/bob", ANN.1)]), &before);
        assert!(same.is_current(&ann) && same.is_current(&of_ann) && same.is_current(&before.anonymous()));

        let other = ("role/crew", r#"{"rules":["allow publish *"]}"#);
        let changed = Directory::read(documents(3, &[ANN, other, (TOKEN_A, &own)]), &same);
        assert!(!changed.is_current(&ann), "a role of hers has other rules");
        assert!(!changed.is_current(&of_ann), "what its maker may is another thing");
        assert!(changed.user("ann").is_some() && caller(&changed, "a").is_some());

        let gone = Directory::read(documents(4, &[CREW, (TOKEN_A, &own)]), &changed);
        assert!(gone.user("ann").is_none() && caller(&gone, "a").is_none(), "a token goes with its maker");
        assert!(gone.tokens.contains_key(&*id("a")));
        let idle = ("user/ann", r#"{"roles":[],"created_at":"2026-01-01T00:00:00.000Z","is_active":false}"#);
        assert!(Directory::read(documents(5, &[idle]), &gone).user("ann").is_none());
    }

    #[test]
    fn makers_that_go_round_in_a_circle_make_nobody() {
        let (a, b) = (
            token(r#""maker":{"token":"bbbbbbbbbbbbbbbb"},"#),
            token(r#""maker":{"token":"aaaaaaaaaaaaaaaa"},"#),
        );
        let directory = Directory::read(
            documents(1, &[(TOKEN_A, &a), ("token/bbbbbbbbbbbbbbbb", &b)]),
            &Directory::default(),
        );
        assert!(caller(&directory, "a").is_none() && caller(&directory, "b").is_none());
        let chain: Vec<(String, String)> = (0..8)
            .map(|at| {
                let maker =
                    if at == 0 { String::new() } else { format!(r#""maker":{{"token":"{}"}},"#, id(at - 1)) };
                (format!("token/{}", id(at)), token(&maker))
            })
            .collect();
        let chain: Vec<(&str, &str)> = chain.iter().map(|(id, text)| (&**id, &**text)).collect();
        let directory = Directory::read(documents(1, &chain), &Directory::default());
        let there: Vec<usize> = (0..8).filter(|at| caller(&directory, at).is_some()).collect();
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
    }

    #[test]
    fn edits_are_looked_at_before_they_are_made() {
        let admin = r#"{"roles":["admin"],"created_at":"2026-01-01T00:00:00.000Z","is_active":true}"#;
        let now = Timestamp::from_millis(1);
        let directory = Directory::read(documents(1, &[("user/ann", admin), CREW]), &Directory::default());
        assert!(directory.has_admin(now));
        let idle =
            AccessEdit { name: "user/ann".into(), document: Some(Bytes::from_static(ANN.1.as_bytes())) };
        assert!(!directory.edited(&[idle]).has_admin(now), "another role of hers");
        assert!(!directory.edited(&[edit::<User>(USER, "ann", None)]).has_admin(now));
        let none = Role { rules: Vec::new() };
        let emptied = directory.edited(&[edit(ROLE, "admin", Some(&none))]);
        assert!(!emptied.has_admin(now) && directory.has_admin(now));
        let again = emptied.edited(&[edit::<Role>(ROLE, "admin", None)]);
        assert!(again.has_admin(now), "what is ready-made comes back");
        assert!(!directory.edited(&[edit::<Role>(ROLE, "crew", None)]).roles.contains_key("crew"));
    }

    #[test]
    fn uses_are_kept_to_the_minute_and_once_in_it() {
        let before = Directory::read(documents(1, &[(TOKEN_A, &token(""))]), &Directory::default());
        let known = before.token(TokenId::parse(&id("a")).expect("an id")).expect("it is there");
        assert_eq!((before.last_use(&id("a")), before.uses_to_keep().len()), (None, 0));
        let minute = |minute: u64| Timestamp::from_millis(minute * MINUTE_MS);
        known.note_use(minute(7).saturating_add(std::time::Duration::from_secs(59)));
        assert_eq!(before.last_use(&id("a")), Some(minute(7)));
        let kept = before.uses_to_keep();
        let [AccessEdit { name, document: Some(document) }] = &kept[..] else { panic!("{kept:?}") };
        let text = std::str::from_utf8(document).expect("text");
        let after = Directory::read(documents(2, &[(TOKEN_A, &token("")), (name, text)]), &before);
        assert_eq!((after.last_use(&id("a")), after.uses_to_keep().len()), (Some(minute(7)), 0));
        known.note_use(minute(8));
        assert_eq!(after.uses_to_keep().len(), 1, "who goes on noting what was read before is heard");
        let elsewhere = ("used/aaaaaaaaaaaaaaaa", "\"2030-01-01T00:00:00.000Z\"");
        let told = Directory::read(documents(3, &[(TOKEN_A, &token("")), elsewhere]), &after);
        assert_eq!(told.uses_to_keep().len(), 0, "another node saw it later");
    }
}
