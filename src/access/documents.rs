//! Documents and records: users, tokens and roles, and log-ins and devices, as they stand in the storage.
//!
//! It must not know what they mean together.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_proto::Timestamp;

use super::rule::Rule;
use crate::chance::random;
use crate::storage::{AccessEdit, Expected, RecordEdit};

/// The kinds of documents, which their names begin with.
pub(super) const USER: &str = "user";
pub(super) const TOKEN: &str = "token";
pub(super) const ROLE: &str = "role";

/// The kinds of records.
pub(super) const USED: &str = "used";
pub(super) const LOG_IN: &str = "log_in";
pub(super) const DEVICE: &str = "device";
pub(super) const SIGN_IN: &str = "sign_in";

/// What stands behind the name in the text as which a user owns topics. No name has it.
const OWNER_MARK: char = '/';

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
    /// What its log-ins have, too, as long as they go on: a new one ends all of them.
    pub(super) series: u64,
    /// By what it is told from others who have had its name, or will: it is the same for as long as it is there.
    pub(super) id: u64,
    /// Who it is for a provider, if it was made when somebody signed in there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<Identity>,
}

/// Who somebody is for a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The provider's issuer.
    pub(super) issuer: String,
    /// Who it is there.
    pub(super) subject: String,
}

impl User {
    /// Returns a user without rights, without a way to log in and without log-ins.
    pub(super) fn new(created_at: Timestamp) -> Self {
        let (series, id) = (random(), random());
        Self {
            password: None,
            roles: Vec::new(),
            created_at,
            email: None,
            is_active: true,
            series,
            id,
            identity: None,
        }
    }

    /// Returns as whom it owns topics, under this name of its. Whoever has the name after it is somebody else.
    pub(super) fn owner(&self, name: &str) -> Box<str> {
        format!("{name}{OWNER_MARK}{:016x}", self.id).into()
    }
}

/// Returns the name of the user who owns topics as `owner`.
#[must_use]
pub fn owner_name(owner: &str) -> &str {
    owner.rsplit_once(OWNER_MARK).map_or(owner, |(name, _)| name)
}

/// A token, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) name: String,
    /// Of its text.
    pub(super) hash: TokenHash,
    pub(super) rules: Vec<Rule>,
    /// Who made it; none if it was made by who has the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) maker: Option<Maker>,
    pub(super) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
}

/// Who made a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// A log-in, as it is kept under the id that its tokens have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LogIn {
    /// The name of the user.
    pub(super) user: String,
    /// That of the user when it logged in.
    pub(super) series: u64,
    /// By what it is prolonged; nothing where a browser keeps it in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh: Option<RefreshHash>,
    /// Its access tokens whose time may not be over, the newest last, or its cookie.
    pub(super) access: Vec<AccessHash>,
    pub(super) created_at: Timestamp,
    /// When the refresh token is no longer good, or the cookie.
    pub(super) expires_at: Timestamp,
}

/// The refresh token of a log-in, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RefreshHash {
    /// Of the one that is good now.
    pub(super) hash: TokenHash,
    /// Of what all refresh tokens of the log-in have in common.
    pub(super) family: TokenHash,
}

/// An access token or a cookie, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AccessHash {
    /// Of its text.
    pub(super) hash: TokenHash,
    pub(super) expires_at: Timestamp,
}

impl LogIn {
    /// Returns when the last access token is no longer good.
    pub(super) fn access_until(&self) -> Timestamp {
        self.access.iter().map(|access| access.expires_at).max().unwrap_or(self.created_at)
    }
}

/// A device that wants a log-in, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Device {
    /// Of the code that it asks with.
    pub(super) code: TokenHash,
    /// Of the letters of the code that a person types.
    pub(super) user_code: TokenHash,
    /// What it says that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    /// Whether it wants two log-ins.
    pub(super) pair: bool,
    /// Where it asked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<IpAddr>,
    pub(super) expires_at: Timestamp,
    /// What somebody has decided, if somebody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decision: Option<Decision>,
}

/// A sign-in with a provider that is under way, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SignIn {
    /// Of the text by which it is found again: that which the provider sends back, and then that of the page.
    pub(super) token: TokenHash,
    /// Of the text that the browser keeps which has begun it.
    pub(super) browser: TokenHash,
    pub(super) aim: Aim,
    /// Where it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<IpAddr>,
    pub(super) expires_at: Timestamp,
    pub(super) stage: Stage,
}

/// What a sign-in is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Aim {
    /// The tokens of a log-in.
    Tokens,
    /// The device of this short code.
    Device(Hidden<String>),
    /// A cookie, and then this path of the relay.
    Cookie(String),
}

/// How far a sign-in has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The browser is with the provider.
    Away {
        /// The provider's name.
        provider: String,
        /// By which the provider knows who has begun it.
        verifier: Hidden<String>,
        /// What the ID token must say.
        nonce: Hidden<String>,
    },
    /// It is known who it is: this user, of the series that it had then.
    Known(String, u64),
}

/// What a user has decided about a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decision {
    /// It comes in as this user, of the series that it had then.
    LetIn(String, u64),
    /// It does not come in.
    Refused,
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

/// SHA-256 of a token's text, in hexadecimal digits. It is no business of logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct TokenHash(Hidden<String>);

impl TokenHash {
    pub(super) fn of(bytes: &[u8; 32]) -> Self {
        Self(Hidden(hex::encode(bytes)))
    }

    /// Returns the bytes; `None` if what is kept is no hash.
    pub(super) fn bytes(&self) -> Option<[u8; 32]> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&self.0.0, &mut hash).ok()?;
        Some(hash)
    }
}

/// Returns the edit that writes a document, or deletes it.
pub(super) fn edit<T: Serialize>(kind: &str, name: &str, document: Option<&T>) -> AccessEdit {
    AccessEdit { name: format!("{kind}/{name}").into(), document: document.map(written) }
}

/// Returns the edit that deletes a token.
pub(super) fn without_token(id: &str) -> AccessEdit {
    edit::<Token>(TOKEN, id, None)
}

/// Returns the edit that writes a record that must not be there yet.
pub(super) fn new_record<T: Serialize>(kind: &str, name: &str, record: &T) -> RecordEdit {
    RecordEdit { expected: Expected::Nothing, ..put_record(kind, name, record) }
}

/// Returns the edit that writes a record, whether or not it is there.
pub(super) fn put_record<T: Serialize>(kind: &str, name: &str, record: &T) -> RecordEdit {
    RecordEdit { record: Some(written(record)), ..without_record(kind, name) }
}

/// Returns the edit that deletes a record, if it is there.
pub(super) fn without_record(kind: &str, name: &str) -> RecordEdit {
    RecordEdit { name: format!("{kind}/{name}").into(), expected: Expected::Anything, record: None }
}

fn written<T: Serialize>(it: &T) -> Bytes {
    serde_json::to_vec(it).expect("texts, numbers and lists can be written").into()
}

/// Reads a document.
pub(super) fn read<T: for<'de> Deserialize<'de>>(document: &Bytes) -> Result<T, serde_json::Error> {
    serde_json::from_slice(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_back_and_are_not_shown() {
        let bytes = std::array::from_fn(|at| u8::try_from(7 * at % 256).expect("a byte"));
        let hash = TokenHash::of(&bytes);
        assert_eq!(hash.bytes(), Some(bytes));
        assert_eq!(format!("{hash:?} {:?}", Hidden("secret")), "TokenHash(***) ***");
        for wrong in ["", "00", &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(TokenHash(Hidden(wrong.to_owned())).bytes(), None, "{wrong}");
        }
    }
}
