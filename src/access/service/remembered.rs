//! Who was found by what a connection showed last: the next request that shows the same is of the same caller, and
//! nothing is looked up, for as long as nothing has changed.
//!
//! It must not know how callers are found.

use std::sync::atomic::Ordering;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::time::Instant;

use super::{Access, Unknown};
use crate::access::bearer::bearer;
use crate::access::caller::Caller;
use crate::access::options::Mode;

/// Longest text that is kept, in bytes: a connection has one. What is longer is looked up each time.
const SHOWN_BYTES_MAX: usize = 2 * 1024;

/// Nobody is remembered for longer, so that it is noted in each minute that a token is used.
const MINUTE_MS: u64 = 60_000;

/// Who was found by what was shown; `None` where everybody is let in, whatever is shown.
#[derive(Debug)]
pub struct Remembered(Option<Shown>);

#[derive(Debug)]
struct Shown {
    authorization: SecretSlice<u8>,
    era: Era,
    until: Instant,
}

/// How often that has changed by which callers are found: what the storage says, and the keys of issuers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    held: u64,
    keys: u64,
}

impl Access {
    /// Tells at once who calls, by the header `Authorization`, if there is one; and what to keep, so that a next
    /// request need not be looked up ([`still_shows`](Self::still_shows)).
    ///
    /// # Errors
    /// Nobody does, or it takes time to find out.
    pub fn find_once(
        &self,
        authorization: Option<&[u8]>,
        now: Instant,
    ) -> Result<(Caller, Option<Remembered>), Unknown> {
        if self.0.mode == Mode::Open {
            return Ok((self.find(|| bearer(authorization))?, Some(Remembered(None))));
        }
        // Before it is looked at: what changes meanwhile has changed since.
        let era = self.era();
        let found = self.find_until(|| bearer(authorization))?;
        let today = self.0.clock.now().as_millis();
        let left_ms = found.until.map_or(u64::MAX, |until| until.as_millis().saturating_sub(today));
        let until = now + Duration::from_millis(left_ms.min(MINUTE_MS - today % MINUTE_MS));
        let kept = authorization.filter(|shown| shown.len() <= SHOWN_BYTES_MAX);
        let shown = kept.map(|shown| Shown { authorization: shown.to_vec().into(), era, until });
        Ok((found.caller, shown.map(|shown| Remembered(Some(shown)))))
    }

    /// Returns whether this header shows what was shown before, and stands for the same caller now.
    #[must_use]
    pub fn still_shows(&self, remembered: &Remembered, authorization: Option<&[u8]>, now: Instant) -> bool {
        let Remembered(Some(shown)) = remembered else { return true };
        let Some(authorization) = authorization else { return false };
        shown.era == self.era()
            && now < shown.until
            && self.is_fresh(now)
            && is_same(shown.authorization.expose_secret(), authorization)
    }

    fn era(&self) -> Era {
        Era { held: self.0.replaced.load(Ordering::Acquire), keys: self.0.issuers.generation() }
    }
}

/// Returns whether two texts are the same. It takes as long whichever byte differs: a proxy may send the requests of
/// several over one connection. The library's function for that looks at one byte at a time, which a publish with
/// a long JWT would pay 2,000 instructions for.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_where_no_byte_differs() {
        let text = b"Bearer tm_0123456789abcdef";
        assert!(is_same(text, text) && is_same(b"", b""));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut other = *text;
                other[at] ^= 1 << bit;
                assert!(!is_same(text, &other), "byte {at}, bit {bit}");
            }
            assert!(!is_same(text, &text[..at]) && !is_same(&text[..at], text), "{at} bytes");
        }
    }
}
