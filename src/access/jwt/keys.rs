//! The keys of one issuer, each with the one algorithm that it is for, and which of them a token is checked
//! with.
//!
//! A key's algorithm follows from the key: what a token says of its algorithm must be the same, and decides
//! nothing. So a public key is never taken for a secret. It must not know where the keys come from, nor what
//! a token claims.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm as Scheme, DecodingKey, crypto};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::parts::Parts;

/// Most keys of one issuer: some rotate among ten.
const KEYS_MAX: usize = 64;

/// Most keys that a token is checked with that does not name its own: each check takes some tens of
/// microseconds.
const TRIED_MAX: usize = 4;

/// Shortest secret of HS256 (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Shortest and longest modulus of an RSA key: 2,048 bits (RFC 7518, 3.3) and 8,192.
const MODULUS_BYTES_MIN: usize = 256;
const MODULUS_BYTES_MAX: usize = 1_024;

/// How a token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// With a secret that both sides have.
    Hs256,
    /// With RSA.
    Rs256,
    /// With the curve P-256.
    Es256,
    /// With the curve Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithms whose keys can be published.
    pub const PUBLIC: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// Parses the name that stands in tokens and settings.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa].into_iter().find(|it| it.as_str() == text)
    }

    /// Returns the name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn scheme(self) -> Scheme {
        match self {
            Self::Hs256 => Scheme::HS256,
            Self::Rs256 => Scheme::RS256,
            Self::Es256 => Scheme::ES256,
            Self::EdDsa => Scheme::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text has no keys that can be used. Nothing of the text is repeated: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has a private key, which the relay must not have.
    #[error("there is a private key; give the relay the public one")]
    Private,
    /// It begins like PEM and is none, or none of a key that can be used.
    #[error(
        "the PEM has no public key of RS256 (2048 to 8192 bits), ES256 or EdDSA (Ed25519) in a whole block"
    )]
    Pem,
    /// It begins like JSON and is neither a key nor a set of them.
    #[error("the JSON is neither a JWK nor a set of them (`{{\"keys\": […]}}`)")]
    Json,
    /// It is a secret, and the issuer does not sign with one.
    #[error("it is neither PEM nor JSON; for a secret of HS256, say `alg=HS256`")]
    NoSecret,
    /// It is a secret that is too short.
    #[error("the secret has fewer than 32 bytes; take one of chance, as `openssl rand -base64 48` makes")]
    ShortSecret,
    /// No key of it can be used.
    #[error("none of its keys can be used: they must be of the issuer's algorithms, and for signatures")]
    NoKey,
    /// It has too many keys.
    #[error("there are more than 64 keys")]
    TooMany,
}

/// What tells a key from others: half of the SHA-256 of what it is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::access) struct KeyPrint([u8; 16]);

impl KeyPrint {
    pub(super) fn of(written: &[u8]) -> Self {
        let [print @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            <[u8; 32]>::from(Sha256::digest(written));
        Self(print)
    }
}

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    print: KeyPrint,
}

/// The keys of one issuer.
#[derive(Default)]
pub(super) struct KeySet(Vec<(Key, DecodingKey)>);

/// What a check of a signature has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// This key fits.
    Fits(KeyPrint),
    /// The key that is meant does not fit.
    Differs,
    /// The key that is meant has another algorithm.
    OtherAlgorithm,
    /// The token names no key, and there are too many to try.
    Unnamed,
    /// The key that is meant is not here.
    Unknown,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| (&key.id, key.algorithm))).finish()
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|(key, _)| key).eq(other.0.iter().map(|(key, _)| key))
    }
}

impl KeySet {
    /// Reads keys: PEM, JSON (a JWK or a set), or else a secret. Keys of other algorithms than these, and
    /// those for other purposes, are left out.
    pub(super) fn parse(text: &str, algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let text = text.trim_ascii();
        let keys = if text.contains("-----BEGIN") {
            of_pem(text)?
        } else if text.starts_with('{') {
            of_json(text)?
        } else if algorithms.contains(&Algorithm::Hs256) {
            if text.len() < SECRET_BYTES_MIN {
                return Err(KeyError::ShortSecret);
            }
            let key = Key { id: None, algorithm: Algorithm::Hs256, print: KeyPrint::of(text.as_bytes()) };
            return Ok(Self(vec![(key, DecodingKey::from_secret(text.as_bytes()))]));
        } else {
            return Err(KeyError::NoSecret);
        };
        if keys.len() > KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let usable = keys.iter().filter_map(usable);
        let usable: Vec<_> = usable.filter(|(key, _)| algorithms.contains(&key.algorithm)).collect();
        if usable.is_empty() { Err(KeyError::NoKey) } else { Ok(Self(usable)) }
    }

    /// Returns how many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether it has a key.
    pub(super) fn has(&self, print: KeyPrint) -> bool {
        self.0.iter().any(|(key, _)| key.print == print)
    }

    /// Checks a token's signature. Its algorithm must be one that the issuer may sign with.
    pub(super) fn check(&self, parts: &Parts<'_>, algorithm: Algorithm) -> Checked {
        let named = |(key, _): &&(Key, _)| key.id.is_some() && key.id == parts.key_id;
        let unnamed = |(key, _): &&(Key, _)| key.id.is_none() || parts.key_id.is_none();
        let mut meant: Vec<_> = self.0.iter().filter(named).collect();
        // A key without a name may be the one that is meant, where none has the name. If none fits, it is one
        // that has come since, unless no key has a name.
        let is_named = !meant.is_empty();
        let otherwise = |found| {
            let has_come =
                !is_named && parts.key_id.is_some() && self.0.iter().any(|(key, _)| key.id.is_some());
            if has_come { Checked::Unknown } else { found }
        };
        if !is_named {
            meant = self.0.iter().filter(unnamed).collect();
        }
        if meant.is_empty() {
            return Checked::Unknown;
        }
        meant.retain(|(key, _)| key.algorithm == algorithm);
        if meant.is_empty() {
            return otherwise(Checked::OtherAlgorithm);
        }
        if meant.len() > TRIED_MAX {
            return Checked::Unnamed;
        }
        let fits = |(_, key): &&(Key, DecodingKey)| {
            crypto::verify(parts.signature, parts.signed.as_bytes(), key, algorithm.scheme()).unwrap_or(false)
        };
        match meant.into_iter().find(fits) {
            Some((key, _)) => Checked::Fits(key.print),
            None => otherwise(Checked::Differs),
        }
    }
}

/// Reads all blocks of a PEM text.
fn of_pem(text: &str) -> Result<Vec<Jwk>, KeyError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Private);
    }
    let mut keys = Vec::new();
    for block in text.split("-----BEGIN ").skip(1) {
        let block = format!("-----BEGIN {block}");
        let read = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
        let key = read.into_iter().find_map(|read| read(block.as_bytes()).ok()).ok_or(KeyError::Pem)?;
        keys.push(Jwk::from_decoding_key(&key, None).map_err(|_| KeyError::Pem)?);
    }
    Ok(keys)
}

/// Reads a JWK, or a set of them. Those of unknown kinds are left out: an issuer may have some for others.
fn of_json(text: &str) -> Result<Vec<Jwk>, KeyError> {
    let json: Value = serde_json::from_str(text).map_err(|_| KeyError::Json)?;
    let keys = match json.get("keys") {
        Some(Value::Array(keys)) => keys.as_slice(),
        None if json.get("kty").is_some() => std::slice::from_ref(&json),
        Some(_) | None => return Err(KeyError::Json),
    };
    if keys.len() > KEYS_MAX {
        return Err(KeyError::TooMany);
    }
    let read = |key: &Value| serde_json::from_value::<Jwk>(key.clone()).ok();
    Ok(keys.iter().filter_map(read).collect())
}

/// Returns a key with its algorithm, if it is of one that is taken, long enough, and for signatures.
fn usable(jwk: &Jwk) -> Option<(Key, DecodingKey)> {
    let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = jwk.common.key_operations.as_ref();
    if !is_for_signatures || operations.is_some_and(|of| !of.contains(&KeyOperations::Verify)) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::Hs256, KeyAlgorithm::HS256),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|of| of != named) || !is_long_enough(algorithm, &key) {
        return None;
    }
    let print = KeyPrint::of(&serde_json::to_vec(&jwk.algorithm).ok()?);
    Some((Key { id: jwk.common.key_id.clone(), algorithm, print }, key))
}

fn is_long_enough(algorithm: Algorithm, key: &DecodingKey) -> bool {
    match (algorithm, key.kind()) {
        (Algorithm::Rs256, jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. }) => {
            let zeros = n.iter().take_while(|byte| **byte == 0).count();
            (MODULUS_BYTES_MIN..=MODULUS_BYTES_MAX).contains(&(n.len() - zeros))
        }
        (Algorithm::Rs256, jsonwebtoken::DecodingKeyKind::SecretOrDer(_)) => false,
        (Algorithm::Hs256, _) => key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() >= SECRET_BYTES_MIN),
        // An uncompressed point, and what Ed25519 has.
        (Algorithm::Es256, _) => key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 65),
        (Algorithm::EdDsa, _) => key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32),
    }
}

#[cfg(test)]
mod tests;
