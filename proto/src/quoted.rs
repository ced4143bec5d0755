//! Values of headers that may have quoted strings in them (RFC 9110 section 5.6.4): a separator within quotes
//! separates nothing.
//!
//! It must not know what the parts mean.

/// Returns the parts of a text between separators that do not stand within quotes.
pub fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let was_escaped = std::mem::take(&mut is_escaped);
            match byte {
                b'"' if !was_escaped => is_quoted = !is_quoted,
                b'\\' if is_quoted && !was_escaped => is_escaped = true,
                _ => {}
            }
            byte == separator && !is_quoted
        });
        // A separator is ASCII, so the text is cut between two characters.
        rest = end.map(|end| &text[end + 1..]);
        Some(end.map_or(text, |end| &text[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_stays_together() {
        for (text, parts) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a,b,", &["a", "b", ""]),
            ("a=\"b,c\",d", &["a=\"b,c\"", "d"]),
            (r#"a="b\",c",d"#, &[r#"a="b\",c""#, "d"]),
            (r#"a="b\\",c"#, &[r#"a="b\\""#, "c"]),
            ("a\\,b", &["a\\", "b"]),
            ("\"never, ended", &["\"never, ended"]),
            ("é,\"é,\",é", &["é", "\"é,\"", "é"]),
        ] {
            assert_eq!(split(text, b',').collect::<Vec<_>>(), parts, "{text}");
        }
    }
}
