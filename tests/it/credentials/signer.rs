//! Whoever signs tokens: with keys of every algorithm, whatever is to be signed.
//!
//! It must not know what is tested.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::{ISSUER, NOW};

/// A key with its name.
pub(crate) struct Signer {
    pub(crate) name: String,
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    /// What verifies: a PEM, or a secret.
    pub(crate) verifies: String,
}

impl Signer {
    pub(crate) fn secret(name: &str) -> Self {
        let secret = format!("a-secret-of-{name}-that-is-long-enough-for-HS256");
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { name: name.to_owned(), algorithm: Algorithm::HS256, key, verifies: secret }
    }

    pub(crate) fn rsa(name: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { name: name.to_owned(), algorithm: Algorithm::RS256, key, verifies: pair.public_key_pem() }
    }

    pub(crate) fn curve(name: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { name: name.to_owned(), algorithm: Algorithm::ES256, key, verifies: pair.public_key_pem() }
    }

    pub(crate) fn edwards(name: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { name: name.to_owned(), algorithm: Algorithm::EdDSA, key, verifies: pair.public_key_pem() }
    }

    /// Returns the key under another name.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Returns one of each algorithm.
    pub(crate) fn each() -> [Self; 4] {
        [Self::secret("h"), Self::rsa("r"), Self::curve("e"), Self::edwards("d")]
    }

    /// Returns the key as it is published, with its name.
    pub(crate) fn jwk(&self) -> Value {
        let text = self.verifies.as_bytes();
        let key = match self.algorithm.family() {
            AlgorithmFamily::Hmac => Ok(DecodingKey::from_secret(text)),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(text),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(text),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(text),
        };
        let jwk = Jwk::from_decoding_key(&key.unwrap(), Some(self.algorithm)).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.name);
        jwk["use"] = json!("sig");
        jwk
    }

    /// Returns the usual header.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": format!("{:?}", self.algorithm), "kid": self.name, "typ": "JWT"})
    }

    /// Signs two texts, whatever they are.
    pub(crate) fn sign_texts(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// Signs a payload under the usual header.
    pub(crate) fn sign(&self, payload: &Value) -> String {
        self.sign_texts(&self.header().to_string(), &payload.to_string())
    }
}

/// Returns what a right token says.
pub(crate) fn payload() -> Value {
    json!({"iss": ISSUER, "aud": "tidemill", "sub": "ada", "exp": NOW + 300, "iat": NOW, "jti": "t1"})
}

/// Returns the same with one claim changed.
pub(crate) fn with(claim: &str, value: Value) -> Value {
    let mut payload = payload();
    payload[claim] = value;
    payload
}

/// Returns the same without a claim.
pub(crate) fn without(claim: &str) -> Value {
    let mut payload = payload();
    payload.as_object_mut().unwrap().remove(claim);
    payload
}

/// Returns a set of keys, as it is published.
pub(crate) fn set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}
