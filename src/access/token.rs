//! The text of what the relay gives out as a secret: `tm_<id>_<secret>` of a token, and the same shape of a
//! ticket (`tk_`), of the refresh token (`tr_`) and the access token (`ta_`) of a log-in, which have one id, and of
//! the cookie (`tc_`) of one in a browser.
//!
//! The id is no secret: it finds what is stored, and stands in lists and logs. The secret has more than 256
//! bits of the system's chance, and its last six characters are a checksum over everything before them, so
//! that a scanner for secrets, and whoever typed one wrongly, knows at once, without asking any storage. All
//! characters are letters and digits, so that two clicks mark the whole of it.
//!
//! What scanners look for:
//!
//! ```text
//! \bt[abcdkmrs]_[0-9a-hjkmnp-tv-z]{16}_[0-9A-Za-z]{49}\b
//! ```
//!
//! The checksum is the CRC-32 (that of zlib) of the text up to it, the kind included, written in base 62 with
//! the digits `0-9A-Za-z` and zeros in front.
//!
//! It must not know what such a secret is good for, nor where its hash is kept.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::entropy::secret_bytes;

/// Length of an id, in characters of 5 bits: 80 bits, so that ids made up at the same time on all nodes
/// differ.
const ID_LENGTH: usize = 16;

/// Length of the secret in characters: the least of base 62 that hold 256 bits.
const SECRET_LENGTH: usize = 43;

/// Length of what the secrets of all refresh tokens of a log-in have in common, at their beginning: 130 bits. What
/// is left, and new each time, has 125.
const FAMILY_LENGTH: usize = 22;

/// Length of the checksum in characters: the least of base 62 that hold 32 bits.
const CHECKSUM_LENGTH: usize = 6;

/// Length of what stands before the id.
const PREFIX_LENGTH: usize = 3;

/// Where the part ends that the refresh tokens of a log-in have in common.
const FAMILY_END: usize = PREFIX_LENGTH + ID_LENGTH + 1 + FAMILY_LENGTH;

/// Where the checksum begins, and the text ends.
const CHECKSUM_AT: usize = PREFIX_LENGTH + ID_LENGTH + 1 + SECRET_LENGTH;
const TEXT_LENGTH: usize = CHECKSUM_AT + CHECKSUM_LENGTH;

/// The characters of an id: small letters and digits without those that look alike (`i`, `l`, `o`, `u`).
const ID_DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The characters of a secret, and of a checksum.
const SECRET_DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a secret of this shape is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A token of the relay: who shows it is its principal.
    Token,
    /// A ticket, which opens one stream.
    Ticket,
    /// A refresh token, for which a log-in is prolonged.
    Refresh,
    /// An access token of a log-in: who shows it is the user, for a short time.
    Access,
    /// The code with which a device asks whether it is let in.
    Device,
    /// What finds a sign-in with a provider again.
    SignIn,
    /// What tells the browser that has begun a sign-in.
    Browser,
    /// What a browser keeps of a log-in, and sends by itself.
    Cookie,
}

impl TokenKind {
    /// Returns how such a text begins.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "tm_",
            Self::Ticket => "tk_",
            Self::Refresh => "tr_",
            Self::Access => "ta_",
            Self::Device => "td_",
            Self::SignIn => "ts_",
            Self::Browser => "tb_",
            Self::Cookie => "tc_",
        }
    }

    /// Returns what a text begins like, where it is something else than what lets somebody in as it stands there, and
    /// what it is for.
    pub(super) fn misplaced(text: &str) -> Option<(Self, &'static str)> {
        let kinds = [
            (Self::Ticket, "it stands in the URL of one stream, as `?ticket=`"),
            (Self::Refresh, "send it to `/auth/token/refresh`, which gives an access token for it"),
            (Self::Device, "its device asks with it at `/auth/device/token`"),
            (Self::Cookie, "a browser sends it by itself"),
        ];
        kinds.into_iter().find(|(kind, _)| text.starts_with(kind.prefix()))
    }

    /// Returns what such a text is called in sentences.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Ticket => "ticket",
            Self::Refresh => "refresh token",
            Self::Access => "access token",
            Self::Device => "code of a device",
            Self::SignIn => "sign-in",
            Self::Browser => "mark of a browser",
            Self::Cookie => "cookie",
        }
    }
}

/// Why a text is not a token, ticket or refresh token of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has another beginning: it is something else.
    #[error("is no {} of this relay: that begins with `{}`", .0.name(), .0.prefix())]
    Other(TokenKind),
    /// It begins like one, but a part of it is missing, too much, or changed.
    #[error("is a mistyped {}: its checksum does not fit; copy it again, whole", .0.name())]
    Mistyped(TokenKind),
}

/// The id of a token, a ticket or a log-in. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_LENGTH]);

impl TokenId {
    /// Parses the text of an id.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, TokenIdError> {
        let id = <[u8; ID_LENGTH]>::try_from(text.as_bytes()).map_err(|_| TokenIdError)?;
        if id.iter().all(|digit| ID_DIGITS.contains(digit)) { Ok(Self(id)) } else { Err(TokenIdError) }
    }

    /// Returns the text.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it does not panic")]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id has digits of ASCII alone")
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// A text is no id of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no id of a token; it has 16 small letters and digits, the part between the two `_` of a token")]
pub struct TokenIdError;

/// A token, ticket or refresh token that has just been made. `Debug` does not show its text.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What finds it again.
    pub id: TokenId,
    /// What its owner gets, once.
    pub text: SecretString,
    /// What is stored: [`TokenText::hash`] of the text.
    pub hash: [u8; 32],
}

impl NewToken {
    /// Makes one, from the operating system's source of chance.
    #[must_use]
    pub fn make(kind: TokenKind) -> Self {
        Self::with_id(kind, TokenId(chosen(ID_DIGITS)))
    }

    /// Makes one with an id that others of its log-in have, too.
    #[must_use]
    pub fn with_id(kind: TokenKind, id: TokenId) -> Self {
        Self::assemble(kind, id, chosen(SECRET_DIGITS))
    }

    /// Makes the refresh token that comes after another one of the same log-in.
    #[must_use]
    pub fn after(other: &TokenText<'_>) -> Self {
        let mut secret = chosen::<SECRET_LENGTH>(SECRET_DIGITS);
        let family = &other.text.as_bytes()[FAMILY_END - FAMILY_LENGTH..FAMILY_END];
        secret[..FAMILY_LENGTH].copy_from_slice(family);
        Self::assemble(TokenKind::Refresh, other.id, secret)
    }

    /// Returns what is stored of what all refresh tokens after this one have in common with it: see
    /// [`TokenText::is_of_family`].
    #[must_use]
    pub fn family(&self) -> [u8; 32] {
        family_of(self.text.expose_secret())
    }

    fn assemble(kind: TokenKind, id: TokenId, secret: [u8; SECRET_LENGTH]) -> Self {
        let mut text = String::with_capacity(TEXT_LENGTH);
        text.push_str(kind.prefix());
        text.push_str(id.as_str());
        text.push('_');
        text.extend(secret.map(char::from));
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        let hash = hash_of(&text);
        Self { id, text: SecretString::from(text), hash }
    }
}

/// The text of a token, ticket or refresh token, as somebody shows it: of the right shape, which says nothing
/// of whether there is such a one. `Debug` shows the id alone.
#[derive(Clone, Copy)]
pub struct TokenText<'a> {
    id: TokenId,
    text: &'a str,
}

impl<'a> TokenText<'a> {
    /// Parses a text. It costs the same however long the text is.
    ///
    /// # Errors
    /// It is something else, or mistyped.
    pub fn parse(kind: TokenKind, text: &'a str) -> Result<Self, TokenError> {
        if !text.starts_with(kind.prefix()) {
            return Err(TokenError::Other(kind));
        }
        Self::parse_of_kind(text).ok_or(TokenError::Mistyped(kind))
    }

    fn parse_of_kind(text: &'a str) -> Option<Self> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        let (id, secret) = text.get(PREFIX_LENGTH..)?.split_at_checked(ID_LENGTH)?;
        let id = TokenId::parse(id).ok()?;
        // Before the checksum, so that one secret has one text.
        let secret = secret.strip_prefix('_')?;
        if !secret.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
            return None;
        }
        let (checked, shown) = text.as_bytes().split_at_checked(CHECKSUM_AT)?;
        (checksum(checked).as_slice() == shown).then_some(Self { id, text })
    }

    /// Returns the id.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// Returns the SHA-256 of the whole text, which is what is stored of it. A password needs a slow hash,
    /// because it can be guessed; 256 bits of chance cannot.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash_of(self.text)
    }

    /// Returns whether a stored hash is the one of this text. It takes as long whichever byte differs.
    #[must_use]
    pub fn matches(&self, stored: &[u8; 32]) -> bool {
        is_same(&self.hash(), stored)
    }

    /// Returns whether a stored hash is the one of what the refresh tokens of one log-in have in common, this one
    /// among them: by that a token that was good once is told from one that somebody has made up.
    #[must_use]
    pub fn is_of_family(&self, stored: &[u8; 32]) -> bool {
        is_same(&family_of(self.text), stored)
    }
}

impl fmt::Debug for TokenText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({}, ***)", self.id)
    }
}

fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// Returns the SHA-256 of a text up to where the refresh tokens of a log-in begin to differ.
fn family_of(text: &str) -> [u8; 32] {
    Sha256::digest(&text.as_bytes()[..FAMILY_END]).into()
}

fn hash_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [0; CHECKSUM_LENGTH];
    let base = u32::try_from(SECRET_DIGITS.len()).expect("62 is a u32");
    for digit in digits.iter_mut().rev() {
        *digit = SECRET_DIGITS[usize::try_from(rest % base).expect("less than 62 is a usize")];
        rest /= base;
    }
    digits
}

/// Returns digits, each chosen evenly among all.
fn chosen<const COUNT: usize>(digits: &[u8]) -> [u8; COUNT] {
    // A byte past the last whole round of the digits would favour the first ones: it is thrown again.
    let fair = 256 / digits.len() * digits.len();
    let mut chosen = [0; COUNT];
    let mut count = 0;
    while count < COUNT {
        let thrown = secret_bytes::<COUNT>();
        for byte in thrown.into_iter().map(usize::from).filter(|byte| *byte < fair).take(COUNT - count) {
            chosen[count] = digits[byte % digits.len()];
            count += 1;
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
