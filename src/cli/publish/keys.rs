//! Under which idempotency keys messages are published.

/// What is told where keys are left out.
pub(super) const KEYS_LEFT_OUT: &str = "the relay remembers as many idempotency keys as it may: from here on a line that has no answer when the connection breaks may be there twice";

/// How lines get their idempotency keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'a> {
    /// None.
    None,
    /// The user's own.
    Own(&'a str),
    /// Made up for this run, and left out where the relay remembers as many as it may.
    MadeUp(&'a str),
}
