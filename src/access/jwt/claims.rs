//! What a token's payload must say (RFC 7519), and what it grants.
//!
//! A claim that stands there in a wrong type is refused, never taken for one that is missing. It must not
//! know whether the token is signed, nor what a rule means.

use std::time::Duration;

use serde::Deserialize;
use tidemill_proto::Timestamp;

use super::Refusal;
use super::parts::{Distinct, Object, Parts};
use crate::access::Verb;

/// Longest `sub` and `jti` in bytes: they stand in logs and in names of principals.
const NAME_BYTES_MAX: usize = 256;

/// Most grants of one token.
const GRANTS_MAX: usize = 256;

/// Most characters of somebody's text that are repeated in a refusal.
const REPEATED_CHARS_MAX: usize = 64;

/// How an item of `scope` begins that is meant for a relay.
const SCOPE_PREFIX: &str = "tidemill:";

/// What a token is held against.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) audiences: &'a [String],
    pub(super) leeway: Duration,
    pub(super) now: Timestamp,
}

/// What a token says that holds.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) subject: String,
    pub(super) token_id: Option<String>,
    pub(super) expires_at: Timestamp,
}

/// Returns who says to have issued a token.
pub(super) fn issuer(parts: &Parts<'_>) -> Result<String, Refusal> {
    required(text(parts, "iss")?, "iss")
}

/// Checks what every token must say.
pub(super) fn check(parts: &Parts<'_>, expected: &Expected<'_>) -> Result<Told, Refusal> {
    let expires_at = required(time(parts, "exp", Rounded::Down)?, "exp")?.saturating_add(expected.leeway);
    let not_before = time(parts, "nbf", Rounded::Up)?;
    time(parts, "iat", Rounded::Down)?;
    let audience = parts.payload.get::<OneOrMore>("aud");
    let audience = audience.map_err(|_| Refusal::claim("aud", "is neither a text nor a list of texts"))?;
    let audience = required(audience, "aud")?.into_list();
    if !audience.iter().any(|name| expected.audiences.contains(name)) {
        return Err(Refusal::Audience);
    }
    if expected.now >= expires_at {
        return Err(Refusal::Expired);
    }
    if not_before.is_some_and(|at| at.saturating_sub(expected.leeway) > expected.now) {
        return Err(Refusal::NotYet);
    }
    let subject = required(name(parts, "sub")?, "sub")?;
    Ok(Told { subject, token_id: name(parts, "jti")?, expires_at })
}

/// Returns what a token grants, as texts of rules: what its claim `tidemill` says, and where there is none,
/// its claim `scope`.
pub(super) fn grants(parts: &Parts<'_>) -> Result<Vec<String>, Refusal> {
    let (claim, grants) = if parts.payload.has("tidemill") {
        ("tidemill", of_claim(parts)?)
    } else {
        ("scope", of_scope(parts)?)
    };
    if grants.len() > GRANTS_MAX {
        return Err(Refusal::claim(claim, "grants more than 256 things"));
    }
    Ok(grants)
}

fn of_claim(parts: &Parts<'_>) -> Result<Vec<String>, Refusal> {
    let verbs = parts.payload.get::<Distinct<Vec<String>>>("tidemill").ok().flatten();
    let rule = "is no object of verbs with a list of patterns each, as in `{\"publish\": [\"orders.*\"]}`";
    let verbs = verbs.ok_or_else(|| Refusal::claim("tidemill", rule))?;
    let mut grants = Vec::new();
    for (verb, patterns) in &verbs.0 {
        check_verb("tidemill", verb)?;
        for pattern in patterns {
            grants.push(grant("tidemill", verb, pattern)?);
        }
    }
    Ok(grants)
}

fn of_scope(parts: &Parts<'_>) -> Result<Vec<String>, Refusal> {
    let scope = parts.payload.get::<OneOrMore>("scope");
    let scope = scope.map_err(|_| Refusal::claim("scope", "is neither a text nor a list of texts"))?;
    let items = scope.map_or_else(Vec::new, OneOrMore::into_list);
    // In a list, too, an item may be the text of several.
    let items = items.iter().flat_map(|items| items.split(' '));
    let items = items.filter_map(|item| item.strip_prefix(SCOPE_PREFIX));
    let grants = items.map(|item| {
        let (verb, pattern) = item.split_once(':').ok_or_else(|| {
            let rule = format!("has `{SCOPE_PREFIX}{}`; write `{SCOPE_PREFIX}verb:pattern`", repeated(item));
            Refusal::claim("scope", rule)
        })?;
        check_verb("scope", verb)?;
        grant("scope", verb, pattern)
    });
    grants.collect()
}

fn check_verb(claim: &'static str, verb: &str) -> Result<(), Refusal> {
    let verbs = Verb::ALL.map(Verb::as_str);
    if verbs.contains(&verb) {
        return Ok(());
    }
    let rule = format!("has the verb `{}`, which is none of {}", repeated(verb), verbs.join(", "));
    Err(Refusal::claim(claim, rule))
}

/// Returns the text of a rule that grants something.
fn grant(claim: &'static str, verb: &str, pattern: &str) -> Result<String, Refusal> {
    // A rule is words with spaces between them: whoever writes a pattern must not write more of them.
    if pattern.is_empty() || pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let rule = format!("has the pattern `{}`, which is empty or has spaces", repeated(pattern));
        return Err(Refusal::claim(claim, rule));
    }
    Ok(format!("allow {verb} {pattern}"))
}

/// Returns a text of somebody as it may be repeated.
pub(super) fn repeated(text: &str) -> String {
    let mut shown: String = text.chars().take(REPEATED_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(REPEATED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// One text, or a list of them: both forms stand for the same.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(list) => list,
        }
    }
}

fn required<T>(value: Option<T>, claim: &'static str) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::claim(claim, "is missing"))
}

fn text(parts: &Parts<'_>, claim: &'static str) -> Result<Option<String>, Refusal> {
    parts.payload.get(claim).map_err(|_| Refusal::claim(claim, "is no text"))
}

/// Returns a text that can stand for somebody or something, in logs too.
fn name(parts: &Parts<'_>, claim: &'static str) -> Result<Option<String>, Refusal> {
    name_in(&parts.payload, claim).map_err(|rule| Refusal::claim(claim, rule))
}

/// Returns a text that can stand for somebody or something; or a rule that it breaks.
pub(super) fn name_in(payload: &Object, claim: &str) -> Result<Option<String>, &'static str> {
    let name: Option<String> = payload.get(claim).map_err(|_| "is no text")?;
    let is_name = |name: &String| {
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
    };
    if name.as_ref().is_none_or(is_name) {
        return Ok(name);
    }
    Err("is empty, longer than 256 bytes, or has control characters")
}

/// Where a part of a millisecond goes: a token is never taken for longer than it says.
#[derive(Clone, Copy, Debug)]
enum Rounded {
    Down,
    Up,
}

/// Returns a time: seconds since 1970, which may have a fraction.
fn time(parts: &Parts<'_>, claim: &'static str, rounded: Rounded) -> Result<Option<Timestamp>, Refusal> {
    let wrong = || Refusal::claim(claim, "is no number of seconds from 1970 to 9999");
    let Some(number) = parts.payload.get::<serde_json::Number>(claim).map_err(|_| wrong())? else {
        return Ok(None);
    };
    let since_1970 = match (number.as_u64(), number.as_f64()) {
        (Some(whole), _) => Duration::from_secs(whole),
        (None, Some(fraction)) => Duration::try_from_secs_f64(fraction).map_err(|_| wrong())?,
        (None, None) => return Err(wrong()),
    };
    let more = match rounded {
        Rounded::Down => 0,
        Rounded::Up => u64::from(since_1970.subsec_nanos() % 1_000_000 != 0),
    };
    let ms = u64::try_from(since_1970.as_millis()).ok().and_then(|ms| ms.checked_add(more));
    let at = ms.filter(|ms| *ms <= Timestamp::MAX.as_millis()).ok_or_else(wrong)?;
    Ok(Some(Timestamp::from_millis(at)))
}
