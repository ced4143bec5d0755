//! What nobody can guess, for secrets: from the operating system, by a library that is vetted for it.
//!
//! It must not know what it is for. What merely should differ comes from `chance`.

use secrecy::SecretString;

/// Bytes of a secret that an operator sets.
const SECRET_BYTES: usize = 32;

/// Returns bytes that nobody can guess.
pub(super) fn secret_bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    aws_lc_rs::rand::fill(&mut bytes).expect("the library ends the process where the system gives no bytes");
    bytes
}

/// Returns 128 bits of chance, for what somebody holds.
#[must_use]
pub fn secret_id() -> [u8; 16] {
    secret_bytes()
}

/// Returns the text of a secret for operators: 256 bits of chance, as 64 hexadecimal digits.
#[must_use]
pub fn random_secret() -> SecretString {
    SecretString::from(hex::encode(secret_bytes::<SECRET_BYTES>()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let [one, other] = [random_secret(), random_secret()];
        assert_ne!(one.expose_secret(), other.expose_secret());
        let is_hex = one.expose_secret().bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(one.expose_secret().len() == 64 && is_hex);
    }
}
