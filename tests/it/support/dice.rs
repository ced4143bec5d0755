//! Chance that can be had again: a failure names the seed it came from.
//!
//! It must not know what is tested.

/// The variable that holds the seed to replay.
const VARIABLE: &str = "TEST_SEED";

/// A generator of test cases.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Returns dice from the seed that the environment names, else from another one each time; says how
    /// to have the same again, which is seen where the test fails.
    pub(crate) fn cast() -> Self {
        use std::hash::{BuildHasher as _, RandomState};

        let named = std::env::var(VARIABLE).ok();
        let seed = named.map_or_else(
            || RandomState::new().hash_one(()),
            |seed| seed.parse().unwrap_or_else(|_| panic!("{VARIABLE} is a number")),
        );
        println!("to have the same again: {VARIABLE}={seed}");
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
