//! The names of groups, consumers and claims: their grammars, and types that prove that they were checked.

/// Most characters of a group's name.
pub const GROUP_NAME_BYTES_MAX: usize = 64;
/// Most characters of a consumer's name, and of the id of a claim.
pub const CONSUMER_NAME_BYTES_MAX: usize = 128;

/// Why a text is not such a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has none or too many characters.
    #[error("has {length} characters; allowed are 1 to {max}")]
    Length {
        /// How many it has, in bytes.
        length: usize,
        /// How many it may have.
        max: usize,
    },
    /// A character outside the alphabet.
    #[error("has the character {character:?} at byte {at}; allowed are {allowed}")]
    Character {
        /// The character.
        character: char,
        /// Its place.
        at: usize,
        /// What is allowed.
        allowed: &'static str,
    },
}

fn check(text: &str, max: usize, extra: &str, allowed: &'static str) -> Result<(), NameError> {
    if !(1..=max).contains(&text.len()) {
        return Err(NameError::Length { length: text.len(), max });
    }
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || extra.contains(character);
    match text.char_indices().find(|(_, character)| !is_allowed(*character)) {
        Some((at, character)) => Err(NameError::Character { character, at, allowed }),
        None => Ok(()),
    }
}

checked_names! {
    /// The name of a group: 1 to 64 of `A-Z a-z 0-9 _ -`. It has no dot, so that the topics of dead letters of two
    /// groups are never the same (`<topic>.<group>.dead`), and no colon, so that it ends where it seems to end in a key.
    GroupName, NameError:
        |text| check(text, GROUP_NAME_BYTES_MAX, "_-", "letters, digits, `_` and `-`");
    /// The name of a consumer: 1 to 128 of `A-Z a-z 0-9 _ - . @ /`. It is one in the group alone. It has no colon: names
    /// with one are the relay's own.
    ConsumerName, NameError:
        |text| check(text, CONSUMER_NAME_BYTES_MAX, "_-.@/", "letters, digits, `_`, `-`, `.`, `@` and `/`");
    /// The id of a claim, by which it can be repeated: 1 to 128 of `A-Z a-z 0-9 _ - .`.
    ClaimId, NameError:
        |text| check(text, CONSUMER_NAME_BYTES_MAX, "_-.", "letters, digits, `_`, `-` and `.`");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_what_cannot_be_misread() {
        for text in ["a", "A-b_9", &"g".repeat(64)] {
            assert_eq!(GroupName::parse(text).map(|name| name.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "a.b", "a:b", "a b", "a/b", "é", "a*", &"g".repeat(65)] {
            assert!(GroupName::parse(text).is_err(), "{text}");
        }
        for text in ["worker-1.host", "me@host/3", "block"] {
            assert!(ConsumerName::parse(text).is_ok(), "{text}");
        }
        for text in ["tidemill:waiting", "a b", "a\n", "{a}"] {
            assert!(ConsumerName::parse(text).is_err(), "{text}");
        }
        assert!(ClaimId::parse("0b1d-4").is_ok() && ClaimId::parse("a/b").is_err());
    }
}
