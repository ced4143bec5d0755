//! Several texts in one, as an operator names issuers and providers: with blanks or lines between them, and lines
//! that begin with `#` as comments.
//!
//! It must not know what the texts say.

/// Why a text cannot be cut: the end of a sentence that says what to do.
const BLANK: &str = "has a blank beside a `;`, and a blank ends what is said of one: write it without blanks, as in `name;field=value;field=value`";

/// Cuts a text into its parts.
///
/// # Errors
/// A blank stands before or behind a `;`.
pub(super) fn cut(text: &str) -> Result<Vec<&str>, &'static str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let parts: Vec<_> = lines.flat_map(str::split_ascii_whitespace).collect();
    // A last `;` is something that is missing, and told by who knows what.
    let is_cut = |pair: &[&str]| pair[0].ends_with(';') || pair[1].starts_with(';');
    if parts.windows(2).any(is_cut) { Err(BLANK) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_between_blanks_and_lines_and_comments_are_none() {
        let text = "# ours; and theirs\na;x=1 b;x=2\r\n  # c;x=3\n\td;x=#4\n";
        assert_eq!(cut(text), Ok(vec!["a;x=1", "b;x=2", "d;x=#4"]));
        assert_eq!(cut(" # nobody"), Ok(vec![]));
    }

    #[test]
    fn a_blank_beside_a_semicolon_is_told() {
        for text in ["a; x=1", "a ;x=1", "a;x=1;\ny=2", "b;x=1 a; x=1"] {
            assert_eq!(cut(text), Err(BLANK), "{text}");
        }
        assert_eq!(cut("a;x=1;"), Ok(vec!["a;x=1;"]));
    }
}
