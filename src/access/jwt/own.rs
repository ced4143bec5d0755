//! The relay's own keys, and the tokens that it signs with them for whoever logs in.
//!
//! They are secrets of HS256, because the relay alone signs and checks. The first signs; the others are those
//! that were first before, whose tokens are still about. It must not know who logs in.

use std::fmt::Write as _;

use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tidemill_proto::Timestamp;

use super::keys::KeySet;
use crate::access::entropy::secret_bytes;

/// The name by which the relay is issuer and audience of its own tokens. No other issuer has it.
pub(super) const OWN_NAME: &str = "tidemill";

/// Shortest secret in bytes (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Most keys: the one that signs, and those that did before.
const OWN_KEYS_MAX: usize = 8;

/// Bytes of a digest that name a key.
const KEY_ID_BYTES: usize = 8;

/// Why secrets cannot be the relay's own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnKeyError {
    /// There is none.
    #[error("there is no secret to sign tokens with; make one with `tidemill secret new`")]
    None,
    /// There are too many.
    #[error("there are more than 8 secrets to sign tokens with; leave out the oldest")]
    TooMany,
    /// One is too short.
    #[error("a secret to sign tokens with has fewer than 32 bytes; make one with `tidemill secret new`")]
    TooShort,
}

/// The relay's own keys. `Debug` does not show them.
#[derive(Debug)]
pub struct OwnKeys {
    signing: EncodingKey,
    header: Header,
    keys: KeySet,
}

/// What one of the relay's own tokens says.
#[derive(Clone, Copy, Debug)]
pub struct OwnClaims<'a> {
    /// Whom it speaks of (`sub`).
    pub subject: &'a str,
    /// The session that it belongs to (`sid`), by which it is revoked.
    pub session: &'a str,
    /// When it is signed (`iat`).
    pub issued_at: Timestamp,
    /// When it is no longer taken (`exp`), to the second.
    pub expires_at: Timestamp,
}

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    sid: &'a str,
    iat: u64,
    exp: u64,
}

impl OwnKeys {
    /// Takes secrets: the first signs, and all verify.
    ///
    /// # Errors
    /// There are none, too many, or one is too short.
    pub fn new(secrets: &[SecretString]) -> Result<Self, OwnKeyError> {
        let first = secrets.first().ok_or(OwnKeyError::None)?.expose_secret();
        if secrets.len() > OWN_KEYS_MAX {
            return Err(OwnKeyError::TooMany);
        }
        if secrets.iter().any(|secret| secret.expose_secret().len() < SECRET_BYTES_MIN) {
            return Err(OwnKeyError::TooShort);
        }
        let mut keys = KeySet::default();
        for secret in secrets.iter().map(SecretString::expose_secret) {
            keys.extend(KeySet::of_secret(Some(key_id(secret)), secret));
        }
        let header = Header { kid: Some(key_id(first)), ..Header::default() };
        Ok(Self { signing: EncodingKey::from_secret(first.as_bytes()), header, keys })
    }

    /// Makes a secret from the system's source of chance, which no other node and no later process has.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it does not panic")]
    pub fn random() -> Self {
        Self::new(&[Self::random_secret()]).expect("the secret is long enough")
    }

    /// Makes the text of a secret that is good for [`new`](Self::new): 256 bits of chance.
    #[must_use]
    pub fn random_secret() -> SecretString {
        SecretString::from(hex(&secret_bytes::<SECRET_BYTES_MIN>()))
    }

    /// Signs a token.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it does not panic")]
    pub fn sign(&self, claims: &OwnClaims<'_>) -> SecretString {
        let payload = Payload {
            iss: OWN_NAME,
            aud: OWN_NAME,
            sub: claims.subject,
            sid: claims.session,
            iat: claims.issued_at.as_millis() / 1_000,
            exp: claims.expires_at.as_millis() / 1_000,
        };
        let token = encode(&self.header, &payload, &self.signing);
        SecretString::from(token.expect("texts and numbers are JSON, and a secret signs"))
    }

    pub(super) const fn keys(&self) -> &KeySet {
        &self.keys
    }
}

/// Returns the name of a secret, from which it does not follow.
fn key_id(secret: &str) -> String {
    let digest = Sha256::new().chain_update("tidemill kid\0").chain_update(secret).finalize();
    hex(&digest[..KEY_ID_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a `String` takes everything");
    }
    text
}
