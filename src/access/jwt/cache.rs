//! Tokens that have been verified, until they expire: what is looked at first.
//!
//! It is bounded in entries and bytes; past a bound what came first goes first. Whoever changes what counts
//! as right clears it, and what was verified by the old rules is not put in afterwards. It must not know what
//! makes a token right.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tidemill_proto::Timestamp;

use super::Claims;

/// Most tokens that are remembered: one for each of as many programs.
const ENTRIES_MAX: usize = 10_000;

/// Most bytes of what is remembered, about.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a token is known by: its SHA-256, so that the secret itself is not kept.
pub(super) type TokenDigest = [u8; 32];

/// How often a cache has been cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(pub(super) u64);

/// Tokens that have been verified.
#[derive(Debug)]
pub(super) struct Cache {
    entries_max: usize,
    bytes_max: usize,
    verified: RwLock<Verified>,
    /// Raised under the lock; looked at without it by every request.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Verified {
    by_digest: HashMap<TokenDigest, Arc<Claims>>,
    /// The digests in the order in which they came.
    order: VecDeque<TokenDigest>,
    bytes: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            entries_max: ENTRIES_MAX,
            bytes_max: BYTES_MAX,
            verified: RwLock::default(),
            generation: AtomicU64::new(0),
        }
    }
}

impl Cache {
    /// Returns what a token says, if it is known and has not expired.
    pub(super) fn get(&self, digest: &TokenDigest, now: Timestamp) -> Option<Arc<Claims>> {
        self.verified.read().by_digest.get(digest).filter(|claims| now < claims.expires_at).cloned()
    }

    /// Returns what tells a later [`insert`](Self::insert) whether the cache has been cleared meanwhile.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Remembers a token, unless the cache has been cleared since `generation` was asked for.
    pub(super) fn insert(&self, digest: TokenDigest, claims: &Arc<Claims>, generation: Generation) {
        let mut verified = self.verified.write();
        if self.generation() != generation || verified.by_digest.contains_key(&digest) {
            return;
        }
        verified.bytes += bytes_of(claims);
        verified.by_digest.insert(digest, Arc::clone(claims));
        verified.order.push_back(digest);
        while verified.order.len() > self.entries_max || verified.bytes > self.bytes_max {
            let Some(oldest) = verified.order.pop_front() else { break };
            if let Some(claims) = verified.by_digest.remove(&oldest) {
                verified.bytes -= bytes_of(&claims);
            }
        }
    }

    /// Forgets all tokens.
    pub(super) fn clear(&self) {
        let mut verified = self.verified.write();
        *verified = Verified::default();
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// Returns what an entry holds, about: the digest stands in two places.
fn bytes_of(claims: &Claims) -> usize {
    let texts = [Some(&claims.subject), claims.token_id.as_ref()];
    let texts = texts.into_iter().flatten().chain(&claims.grants);
    2 * size_of::<TokenDigest>()
        + size_of::<Claims>()
        + texts.map(|text| size_of::<String>() + text.capacity()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::jwt::KeyPrint;

    fn claims(subject: &str, expires_at_ms: u64) -> Arc<Claims> {
        Arc::new(Claims {
            issuer: Arc::from("issuer"),
            subject: subject.to_owned(),
            token_id: None,
            expires_at: Timestamp::from_millis(expires_at_ms),
            grants: vec!["allow read *".to_owned()],
            key: KeyPrint::of(b"key"),
        })
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_token_is_remembered_until_it_expires() {
        let cache = Cache::default();
        cache.insert([1; 32], &claims("a", 100), cache.generation());
        assert_eq!(cache.get(&[1; 32], at(99)).unwrap().subject, "a");
        assert_eq!(cache.get(&[1; 32], at(100)), None);
        assert_eq!(cache.get(&[2; 32], at(99)), None);
    }

    #[test]
    fn what_was_verified_before_it_was_cleared_does_not_come_back() {
        let cache = Cache::default();
        let before = cache.generation();
        cache.insert([1; 32], &claims("a", 100), before);
        cache.clear();
        assert_eq!(cache.get(&[1; 32], at(1)), None);
        cache.insert([1; 32], &claims("a", 100), before);
        assert_eq!(cache.get(&[1; 32], at(1)), None);
        cache.insert([1; 32], &claims("a", 100), cache.generation());
        assert!(cache.get(&[1; 32], at(1)).is_some());
    }

    #[test]
    fn the_first_goes_where_there_are_too_many() {
        let cache = Cache { entries_max: 3, ..Cache::default() };
        for number in 0..5 {
            cache.insert([number; 32], &claims("a", 100), cache.generation());
            cache.insert([number; 32], &claims("a", 100), cache.generation());
        }
        let kept: Vec<_> = (0..5).filter(|number| cache.get(&[*number; 32], at(1)).is_some()).collect();
        assert_eq!(kept, [2, 3, 4]);
        assert_eq!(cache.verified.read().bytes, 3 * bytes_of(&claims("a", 100)));
    }

    #[test]
    fn large_tokens_count_by_their_bytes() {
        let large = claims(&"x".repeat(1_000), 100);
        let cache = Cache { bytes_max: 3 * bytes_of(&large) + 10, ..Cache::default() };
        for number in 0..10 {
            cache.insert([number; 32], &large, cache.generation());
            assert!(cache.verified.read().bytes <= cache.bytes_max);
        }
        assert_eq!(cache.verified.read().order.len(), 3);
        assert_eq!(cache.verified.read().by_digest.len(), 3);
        let too_large = claims(&"x".repeat(100_000), 100);
        cache.insert([11; 32], &too_large, cache.generation());
        assert_eq!(cache.verified.read().bytes, 0);
        assert_eq!(cache.get(&[11; 32], at(1)), None);
    }
}
