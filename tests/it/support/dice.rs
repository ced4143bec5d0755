//! Chance that can be had again: a failure names the seed it came from.
//!
//! It must not know what is tested.

use std::time::Duration;

/// The variable that holds the seed to replay.
const VARIABLE: &str = "TEST_SEED";

/// A generator of test cases.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

/// Returns the seeds of a test that runs a case for each: the one that the environment names, else so many
/// that are others each time. Each is printed when its case begins, so that the last one that is seen
/// where the test fails is the one to have the same again.
pub(crate) fn seeds(count: usize) -> impl Iterator<Item = u64> {
    let named = named();
    let count = if named.is_some() { 1 } else { count };
    std::iter::repeat_with(move || named.unwrap_or_else(random)).take(count).inspect(|seed| tell(*seed))
}

fn named() -> Option<u64> {
    let named = std::env::var(VARIABLE).ok()?;
    Some(named.parse().unwrap_or_else(|_| panic!("{VARIABLE} is a number")))
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(())
}

fn tell(seed: u64) {
    println!("to have the same again: {VARIABLE}={seed}");
}

impl Dice {
    /// Returns dice from the seed that the environment names, else from another one each time; says how
    /// to have the same again, which is seen where the test fails.
    pub(crate) fn cast() -> Self {
        let seed = named().unwrap_or_else(random);
        tell(seed);
        Self(seed)
    }

    /// Returns the dice of a seed.
    pub(crate) const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns dice of their own for case `number`.
    pub(crate) fn of(&self, number: u64) -> Self {
        let mut dice = Self(self.0 ^ number.wrapping_mul(0xd605_bbb5_8c8a_bbfd));
        dice.next();
        dice
    }

    /// Returns a number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// Returns whether what happens so many times in a thousand happens now.
    pub(crate) fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.roll(1_000) < in_a_thousand
    }

    /// Returns a time of up to so many milliseconds.
    pub(crate) fn up_to_ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.roll(most + 1))
    }

    /// Returns one of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).expect("an index")]
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
