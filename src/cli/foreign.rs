//! What answers in place of a relay, and what is told of it. It must not know what was asked.

use super::output;

/// Most characters that are told of an answer.
const TOLD_MAX: usize = 200;

/// Returns what is wrong with an answer that is neither what was asked for nor a problem: what it says itself, in its
/// first line.
pub(super) fn told(status: u16, body: &[u8]) -> String {
    if tidemill_client::speaks_tls(status, body) {
        return tidemill_client::SPEAKS_TLS.to_owned();
    }
    // No more than the beginning is looked at, however long the answer is: enough for one character more.
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * (TOLD_MAX + 1))]);
    let line = text.trim_start().lines().next().unwrap_or_default().trim_end();
    let mut told: String = line.chars().take(TOLD_MAX).collect();
    if line.chars().nth(TOLD_MAX).is_some() {
        told.push('…');
    }
    if told.is_empty() {
        return format!("status {status} without a problem document");
    }
    format!("status {status} without a problem document, but `{}`", output::printable(&told))
}

/// Returns whether a handshake failed because what answered is no TLS, as the library says it.
pub(super) fn is_not_tls(why: &str) -> bool {
    why.contains("InvalidContentType") || why.contains("invalid content type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_foreign_answer_its_first_line_is_told_and_no_more_than_fits() {
        let begin = "status 502 without a problem document";
        assert_eq!(told(502, b""), begin);
        assert_eq!(told(502, b" \n\r\n"), begin);
        assert_eq!(
            told(502, b"\n<b>\x1b[2J\xff</b>\r\nmore"),
            format!("{begin}, but `<b>\\u001b[2J\u{fffd}</b>`")
        );
        for character in ["x", "é", "\u{1f30a}"] {
            let long = told(502, character.repeat(100_000).as_bytes());
            assert_eq!(long, format!("{begin}, but `{}…`", character.repeat(TOLD_MAX)));
        }
        assert!(told(400, b"This port speaks TLS: write https:// for http.\n").contains("write https://"));
    }
}
