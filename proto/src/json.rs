//! What every reader of JSON can read: the rules for JSON text beyond the grammar; and how a payload is taken out
//! of a text as it stands there.
//!
//! It does not check the grammar; a parser has done so.

use serde::{Deserialize as _, Deserializer};
use serde_json::value::RawValue;

use crate::limits::JSON_DEPTH_MAX;

/// Why common readers refuse a text that the grammar allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Arrays and objects are nested deeper than [`JSON_DEPTH_MAX`].
    #[error("is nested deeper than {JSON_DEPTH_MAX} arrays and objects")]
    TooDeep,
    /// A string has an escape such as `\ud800` that is half of a surrogate pair, so it is no Unicode.
    #[error("has half of a surrogate pair in a string; `\\ud800` to `\\udfff` stand in pairs, high then low")]
    LoneSurrogate,
}

/// Reads a field whose `null` is a payload, not the lack of one: for `deserialize_with`, beside `default`.
///
/// # Errors
/// It is not JSON.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The same for a field that has the text of its own.
///
/// # Errors
/// It is not JSON.
pub fn present_owned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    <Box<RawValue>>::deserialize(deserializer).map(Some)
}

/// Checks that common readers can read a text that is valid JSON.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_readable(json: &[u8]) -> Result<(), Unreadable> {
    // Without that many brackets there cannot be that much depth, and without a backslash no escape;
    // this pass is a few vector instructions per 16 bytes, and it settles nearly every payload.
    // The pieces are short enough that one byte counts what they have.
    let opening = |piece: &[u8]| piece.iter().map(|byte| u8::from(matches!(byte, b'[' | b'{'))).sum::<u8>();
    let opening: usize = json.chunks(usize::from(u8::MAX)).map(|piece| usize::from(opening(piece))).sum();
    if opening <= JSON_DEPTH_MAX && !json.contains(&b'\\') {
        return Ok(());
    }
    let (mut depth, mut rest) = (0_usize, json);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(Unreadable::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => rest = after_string(after)?,
            _ => {}
        }
    }
    Ok(())
}

/// Returns what stands behind the string whose opening quote was read.
fn after_string(mut rest: &[u8]) -> Result<&[u8], Unreadable> {
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => return Ok(after),
            b'\\' => match unit(rest) {
                None => after.get(1..).unwrap_or_default(),
                Some((0xD800..=0xDBFF, after)) => match unit(after) {
                    Some((0xDC00..=0xDFFF, after)) => after,
                    _ => return Err(Unreadable::LoneSurrogate),
                },
                Some((0xDC00..=0xDFFF, _)) => return Err(Unreadable::LoneSurrogate),
                Some((_, after)) => after,
            },
            _ => after,
        };
    }
    Ok(rest)
}

/// Returns the UTF-16 unit of an escape such as `\u00e9` and what stands behind it, if the text starts
/// with one.
fn unit(text: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, after) = text.strip_prefix(br"\u")?.split_at_checked(4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    Some((u16::from_str_radix(digits, 16).ok()?, after))
}

/// Returns a value together with the white space around it, where `value` is a part of `text`; else the
/// value alone. A reader that cuts a value out of a text loses the blanks that belong to it, as those of a
/// payload do.
#[must_use]
pub fn with_blanks<'a>(text: &'a str, value: &'a str) -> &'a str {
    /// RFC 8259 section 2.
    const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

    let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
    let parts = start.and_then(|start| Some((text.get(..start)?, text.get(start + value.len()..)?)));
    let Some((before, behind)) = parts else { return value };
    let start = before.trim_end_matches(BLANKS).len();
    let end = text.len() - behind.trim_start_matches(BLANKS).len();
    &text[start..end]
}

/// Returns the text under a name in a JSON object; `None` where there is something else, or no object. Of a name that is
/// there twice the last counts.
#[must_use]
pub fn text_in(object: &[u8], name: &str) -> Option<String> {
    let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(object).ok()?;
    match members.remove(name)? {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let text = format!(r#"["\"{}"]"#, "[{".repeat(JSON_DEPTH_MAX));
        let wide = format!("[{}[]]", "[],".repeat(500));
        for readable in [&nested(JSON_DEPTH_MAX), &objects(JSON_DEPTH_MAX), &text, &wide] {
            assert_eq!(check_readable(readable.as_bytes()), Ok(()), "{readable}");
        }
        for deep in [nested(JSON_DEPTH_MAX + 1), objects(JSON_DEPTH_MAX + 1), nested(100_000)] {
            assert_eq!(check_readable(deep.as_bytes()), Err(Unreadable::TooDeep));
        }
    }

    #[test]
    fn surrogates_stand_in_pairs() {
        for readable in [
            r#""\ud83d\ude00""#,
            r#""\uD800\uDC00\udbff\uDFFF""#,
            r#""\\ud800""#,
            r#""\\\\ud800 \" \\""#,
            r#""\ud7ff\ue000\u0000""#,
            r#"{"\ud83d\ude00":["a\/b"]}"#,
        ] {
            assert_eq!(check_readable(readable.as_bytes()), Ok(()), "{readable}");
        }
        for lone in [
            r#""\ud800""#,
            r#""\uDFFF""#,
            r#""\ud800\ud800\udc00""#,
            r#""\udc00\ud800""#,
            r#""\ud800\n""#,
            r#""\ud800 \udc00""#,
            r#""\ud800\\udc00""#,
            r#""\\\ud800""#,
            r#""\ud83d\ude00\ude00""#,
            r#"{"a":["ok",{"\udbff":1}]}"#,
        ] {
            assert_eq!(check_readable(lone.as_bytes()), Err(Unreadable::LoneSurrogate), "{lone}");
            // As strict readers see it.
            assert!(serde_json::from_str::<serde_json::Value>(lone).is_err(), "{lone}");
        }
    }

    #[test]
    fn a_value_has_the_blanks_around_it() {
        let text = "{\"a\": \t\r\n[1, 2] \n,\"b\":3}";
        let cut = |part: &str| {
            let at = text.find(part).expect("a part");
            with_blanks(text, &text[at..at + part.len()])
        };
        assert_eq!(cut("[1, 2]"), " \t\r\n[1, 2] \n");
        assert_eq!(cut("3"), "3");
        assert_eq!(with_blanks(text, text), text);
        let other = "1".to_owned();
        assert_eq!(with_blanks(text, &other), "1", "it is no part");
        assert_eq!(with_blanks(&text[3..5], text), text, "it is the whole of which the text is a part");
    }

    #[test]
    fn text_that_ends_early_is_no_trouble() {
        let json = r#"["\ud83d\ude00\"", "\u12"#;
        for end in 0..=json.len() {
            let _ = check_readable(&json.as_bytes()[..end]);
        }
    }
}
