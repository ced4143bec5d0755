//! JSON text that was checked and is carried on as it was sent.
//!
//! Knows nothing of what the text means.

use bytes::Bytes;
use serde_json::value::RawValue;

/// JSON text: one valid value in UTF-8, byte for byte as it was sent, with the blanks around it that were
/// sent with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(Bytes);

impl JsonText {
    /// Returns the text of `raw`, which was parsed from `body`, without copying it. The blanks around it are
    /// not its own.
    ///
    /// # Panics
    /// `raw` does not lie within `body`.
    #[must_use]
    pub fn of(body: &Bytes, raw: &RawValue) -> Self {
        Self::of_parsed(body, raw.get().as_bytes())
    }

    /// Returns the text of `part`, which a parser has found in `body` to be one JSON value, without
    /// copying it.
    ///
    /// # Panics
    /// `part` does not lie within `body`.
    pub(crate) fn of_parsed(body: &Bytes, part: &[u8]) -> Self {
        Self(body.slice_ref(part))
    }

    /// Returns the text of `part`, which lies within `body`, without copying it, and with the blanks around
    /// the value.
    ///
    /// # Errors
    /// It is not one JSON value.
    pub fn parse(body: &Bytes, part: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<&RawValue>(part).map(|_| Self::of_parsed(body, part))
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the shared bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Returns whether the value is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.trim_ascii_start().first() == Some(&b'{')
    }
}
