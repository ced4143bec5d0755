//! The layout of a storage: how what is kept in a server is written, as a number.
//!
//! A release that writes something which the one before it would misread turns the number up. A relay writes its own into
//! each server that has none, and each new connection looks at it first: where a newer release has written more than this
//! one can read, the connection is refused, so that nothing is read at all. What it covers: the entries of streams, the groups
//! that mark them, the hashes and indexes beside them, and what scripts keep there. Exports have a form of their own
//! (`copying::file`), and so have notices, which say nothing that is kept.

/// The layout that this release writes, and the newest that it reads.
const CURRENT: u64 = 1;

/// What is said of a newer one, behind its number.
const NEWER: &str = "was written by a newer release than this one, which would misread it";

/// Returns the number as it is written.
pub(super) fn written() -> String {
    CURRENT.to_string()
}

/// Checks what a server has of it; nothing where nobody has written it yet.
///
/// # Errors
/// It is newer, or no number: with why the server is of no use.
pub(super) fn check(found: Option<&[u8]>) -> Result<(), String> {
    let Some(found) = found else { return Ok(()) };
    let number = std::str::from_utf8(found).ok().and_then(|text| text.parse().ok());
    if matches!(number, Some(1..=CURRENT)) {
        return Ok(());
    }
    let found = String::from_utf8_lossy(found);
    Err(format!(
        "the storage has the layout `{}`, and {NEWER} (it knows `{CURRENT}`); run a release that knows it",
        found.escape_debug()
    ))
}

/// Whether that is why a server is of no use.
pub(super) fn is_newer(why: &str) -> bool {
    why.contains(NEWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_release_has_written_is_refused() {
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some(written().as_bytes())), Ok(()));
        for found in ["2", "0", "", "x", "-1", "\u{ff}"] {
            let why = check(Some(found.as_bytes())).expect_err(found);
            assert!(is_newer(&why), "{why}");
        }
        assert!(!is_newer("the server is loading its data"));
    }
}
