//! Texts of tokens: made, read back, and changed.

use std::collections::HashSet;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::*;

const KINDS: [TokenKind; 5] =
    [TokenKind::Token, TokenKind::Ticket, TokenKind::Refresh, TokenKind::Access, TokenKind::Device];

/// Written by another program: Python's `zlib.crc32` and a loop that divides by 62.
const KNOWN: &str = "tm_0123456789abcdef_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq0XzfrF";

fn made(kind: TokenKind) -> String {
    NewToken::make(kind).text.expose_secret().to_owned()
}

#[test]
fn what_is_made_is_read_back() {
    for kind in KINDS {
        let made = NewToken::make(kind);
        let text = made.text.expose_secret();
        assert_eq!(text.len(), 69);
        assert!(text.starts_with(kind.prefix()));
        let parsed = TokenText::parse(kind, text).unwrap();
        assert_eq!(parsed.id(), made.id);
        assert_eq!(parsed.id().as_str(), &text[3..19]);
        assert_eq!(parsed.hash(), made.hash);
        assert!(parsed.matches(&made.hash));
        let mut other = made.hash;
        other[31] ^= 1;
        assert!(!parsed.matches(&other));
        assert_eq!(TokenId::parse(&made.id.to_string()), Ok(made.id));
    }
}

#[test]
fn the_form_is_the_one_that_is_documented() {
    let text = TokenText::parse(TokenKind::Token, KNOWN).unwrap();
    assert_eq!(text.id().as_str(), "0123456789abcdef");
    let hash = text.hash().iter().fold(0_u128, |hash, byte| (hash << 8) | u128::from(*byte));
    // Its second half.
    assert_eq!(format!("{hash:032x}"), "38c638c0bdce1ebda62a851a75f0645b");
}

#[test]
fn every_character_is_chosen_alike() {
    let texts: Vec<_> = (0..2_000).map(|_| made(TokenKind::Token)).collect();
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
    for (range, digits) in [(3..19, ID_DIGITS.as_slice()), (20..63, SECRET_DIGITS.as_slice())] {
        let thrown = texts.len() * range.len();
        let fair = thrown / digits.len();
        for digit in digits {
            let seen: usize =
                texts.iter().map(|text| text[range.clone()].matches(char::from(*digit)).count()).sum();
            // About six standard deviations for 1,000 and more.
            assert!(
                seen.abs_diff(fair) < fair / 5,
                "{} was chosen {seen} times, not {fair}",
                char::from(*digit)
            );
        }
    }
}

#[test]
fn what_is_no_token_is_told_from_what_is_mistyped() {
    let text = made(TokenKind::Token);
    let ticket = made(TokenKind::Ticket);
    let other = |text: &str| {
        assert_eq!(
            TokenText::parse(TokenKind::Token, text).map(|_| ()),
            Err(TokenError::Other(TokenKind::Token)),
            "{text}"
        );
    };
    for no_token in ["", "tm", "tm-", "TM_", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", " tm_", &ticket] {
        other(no_token);
    }
    let mistyped = [
        "tm_".to_owned(),
        text[..68].to_owned(),
        format!("{text}0"),
        format!("{text} "),
        format!("tm_{}", text[3..].replacen('_', "-", 1)),
        text.to_uppercase().replacen("TM_", "tm_", 1),
        // Another kind's secret with this beginning.
        ticket.replacen("tk_", "tm_", 1),
        format!("tm_{}", "é".repeat(33)),
        "tm_".to_owned() + &"0".repeat(1024 * 1024),
    ];
    for text in mistyped {
        let refused = TokenText::parse(TokenKind::Token, &text).map(|_| ());
        assert_eq!(refused, Err(TokenError::Mistyped(TokenKind::Token)), "{}", &text[..3]);
    }
}

#[test]
fn nothing_shows_the_secret() {
    let made = NewToken::make(TokenKind::Token);
    let text = made.text.expose_secret();
    let parsed = TokenText::parse(TokenKind::Token, text).unwrap();
    let shown = format!("{made:?} {parsed:?} {:?}", TokenText::parse(TokenKind::Ticket, text));
    assert!(!shown.contains(&text[20..]), "{shown}");
    assert!(!shown.contains(&text[20..30]), "{shown}");
}

#[test]
fn refresh_tokens_of_one_log_in_are_known_by_what_they_have_in_common() {
    let first = NewToken::make(TokenKind::Refresh);
    let parsed = |made: &NewToken| made.text.expose_secret().to_owned();
    let (mut text, family) = (parsed(&first), first.family());
    let mut seen = HashSet::from([text.clone()]);
    for _ in 0..8 {
        let next = NewToken::after(&TokenText::parse(TokenKind::Refresh, &text).unwrap());
        text = parsed(&next);
        let read = TokenText::parse(TokenKind::Refresh, &text).unwrap();
        assert!(seen.insert(text.clone()) && read.id() == first.id && next.family() == family);
        assert!(read.is_of_family(&family) && read.matches(&next.hash) && !read.matches(&first.hash));
    }
    // Whoever knows the id alone can write no such text.
    let guessed = parsed(&NewToken::with_id(TokenKind::Refresh, first.id));
    assert!(!TokenText::parse(TokenKind::Refresh, &guessed).unwrap().is_of_family(&family));
    assert_eq!(NewToken::with_id(TokenKind::Access, first.id).id, first.id);
}

#[test]
fn ids_of_another_form_are_refused() {
    for text in [
        "",
        "0123456789abcde",
        "0123456789abcdefg",
        "0123456789abcdeF",
        "0123456789abcdel",
        "0123456789abcd/.",
        "é123456789abcde",
    ] {
        assert_eq!(TokenId::parse(text), Err(TokenIdError), "{text}");
    }
}

#[test]
fn every_letter_that_is_typed_for_another_is_told() {
    let text = made(TokenKind::Token);
    for at in 3..text.len() {
        for digit in SECRET_DIGITS.map(char::from) {
            let mut changed = text.clone();
            changed.replace_range(at..=at, digit.encode_utf8(&mut [0; 4]));
            let refused = TokenText::parse(TokenKind::Token, &changed).map(|_| ());
            let expected = if changed == text { Ok(()) } else { Err(TokenError::Mistyped(TokenKind::Token)) };
            assert_eq!(refused, expected, "character {at} became {digit}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_breaks_the_parser(text in ".{0,100}", tail in "[ -~]{66}") {
        for kind in KINDS {
            prop_assert!(TokenText::parse(kind, &text).is_err());
            let text = format!("{}{tail}", kind.prefix());
            prop_assert_eq!(TokenText::parse(kind, &text).map(|_| ()), Err(TokenError::Mistyped(kind)));
        }
    }

    #[test]
    fn one_character_that_changes_is_told(at in 0_usize..69, to in any::<char>()) {
        let text = made(TokenKind::Token);
        let mut changed: Vec<char> = text.chars().collect();
        prop_assume!(changed[at] != to);
        changed[at] = to;
        let changed: String = changed.into_iter().collect();
        let expected =
            if at < 3 { TokenError::Other(TokenKind::Token) } else { TokenError::Mistyped(TokenKind::Token) };
        prop_assert_eq!(TokenText::parse(TokenKind::Token, &changed).map(|_| ()), Err(expected));
    }

    #[test]
    fn two_neighbours_that_change_places_are_told(at in 3_usize..68) {
        let text = made(TokenKind::Refresh);
        let mut changed = text.clone().into_bytes();
        changed.swap(at, at + 1);
        prop_assume!(changed != text.as_bytes());
        let changed = String::from_utf8(changed).unwrap();
        let refused = TokenText::parse(TokenKind::Refresh, &changed).map(|_| ());
        prop_assert_eq!(refused, Err(TokenError::Mistyped(TokenKind::Refresh)));
    }
}
