//! Bytes that nobody can guess, for secrets: from the operating system, by a library that is vetted for it.
//!
//! It must not know what they are for. What merely should differ comes from `chance`.

/// Returns bytes that nobody can guess.
pub(super) fn secret_bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    aws_lc_rs::rand::fill(&mut bytes).expect("the library ends the process where the system gives no bytes");
    bytes
}
