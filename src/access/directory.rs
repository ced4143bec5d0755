//! The directory: users, tokens and roles, as they stand in the storage and as callers.
//!
//! Each is a document of its own. All of them are held, because there are few and every request asks; what came of a document that did
//! not change stays the same caller, so that sessions of it go on.
//!
//! It must not know when documents are read, nor who may change them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidemill_proto::Timestamp;

use super::Verb;
use super::caller::{Caller, Who};
use super::documents::{Maker, ROLE, Role, TOKEN, Token, USER, User, read};
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
            "allow publish,read,work,manage series/*",
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
            "allow publish,read,work series/*",
        ],
    ),
    ("read", &["allow read *", "allow read keys/*", "allow read presence/*", "allow read series/*"]),
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

    /// Returns the minute in which this node saw it last, if it has.
    pub(super) fn seen(&self) -> Option<Timestamp> {
        let minute = self.minute.load(Ordering::Relaxed);
        (minute > 0).then(|| Timestamp::from_millis(minute * MINUTE_MS))
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
        let caller = Caller::user(&name, user.owner(&name), self.rules_of(&name, user));
        let caller = keep(before.user(&name), caller);
        self.user_callers.insert(name, caller);
    }

    /// Returns the rules of a user, active or not.
    pub(super) fn rules_of(&self, name: &str, user: &User) -> Rules {
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role.as_str()));
        Rules::of(roles.flat_map(|role| &role.rules), name)
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
        let mut of_makers: HashMap<&Maker, Vec<&Box<str>>> = HashMap::new();
        for (id, token) in &self.tokens {
            if let Some(maker) = &token.maker {
                of_makers.entry(maker).or_default().push(id);
            }
        }
        let (mut found, mut makers) = (Vec::new(), vec![maker]);
        while let Some(maker) = makers.pop() {
            // Taken out, so that nothing is found twice.
            for id in of_makers.remove(&maker).unwrap_or_default() {
                makers.push(Maker::Token(id.to_string()));
                found.push(id.clone());
            }
        }
        found
    }

    /// Returns the tokens that this node has seen, and when it did last.
    pub(super) fn seen(&self) -> impl Iterator<Item = (TokenId, Timestamp)> {
        self.known.iter().filter_map(|(id, known)| Some((*id, known.seen()?)))
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
pub(super) fn keep(before: Option<&Caller>, caller: Caller) -> Caller {
    before.filter(|before| before.is_like(&caller)).cloned().unwrap_or(caller)
}

#[cfg(test)]
mod tests;
