//! JSON text that was checked and is carried on as it was sent.
//!
//! Knows nothing of what the text means.

use bytes::Bytes;
use serde_json::value::RawValue;

/// JSON text: one valid value in UTF-8, without blanks around it, byte for byte as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(Bytes);

impl JsonText {
    /// Returns the text of `raw`, which was parsed from `body`, without copying it.
    ///
    /// # Panics
    /// `raw` does not lie within `body`.
    #[must_use]
    pub fn of(body: &Bytes, raw: &RawValue) -> Self {
        Self(body.slice_ref(raw.get().as_bytes()))
    }

    /// Returns the text of `part`, which lies within `body`, without copying it; `None` if it is not
    /// one JSON value.
    #[must_use]
    pub fn parse(body: &Bytes, part: &[u8]) -> Option<Self> {
        serde_json::from_slice::<&RawValue>(part).ok().map(|raw| Self::of(body, raw))
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
        self.0.first() == Some(&b'{')
    }

    /// Returns whether arrays and objects are nested more than `depth_max` deep.
    ///
    /// The reader of raw JSON skips values without a limit of its own, so this is the limit.
    #[must_use]
    pub fn is_deeper_than(&self, depth_max: usize) -> bool {
        // Without that many brackets there cannot be that much depth; this pass is a vector
        // instruction per 16 bytes, and it settles nearly every payload.
        let opening = self.0.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
        opening > depth_max && depth(&self.0) > depth_max
    }
}

/// Returns how deep the arrays and objects of valid JSON text are nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut bytes) = (0_usize, 0, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        for (json, expected) in
            [("1", 0), ("[]", 1), (r#"{"a":[{"b":[]}],"c":[[]]}"#, 4), (r#"["[[[[", "\"[[[", "\\", []]"#, 2)]
        {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }

    #[test]
    fn many_brackets_side_by_side_are_not_deep() {
        let flat = JsonText(Bytes::from(format!("[{}[]]", "[],".repeat(500))));
        assert!(!flat.is_deeper_than(2));
        assert!(flat.is_deeper_than(1));
    }
}
