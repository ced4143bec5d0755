//! What a relay can be switched off in, beside publishing and reading.
//!
//! It must not know what any of it does.

use std::fmt;

/// What a relay can be switched off in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Claims of messages by groups.
    Groups,
    /// Messages for later.
    Delays,
    /// Buckets of keys.
    Keys,
    /// Locks and leases.
    Locks,
    /// Limits of applications.
    Limits,
    /// Who is present in rooms.
    Presence,
    /// Series of measurements.
    Series,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Groups, Self::Delays, Self::Keys, Self::Locks, Self::Limits, Self::Presence, Self::Series];

    /// Returns the word of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Delays => "delays",
            Self::Keys => "keys",
            Self::Locks => "locks",
            Self::Limits => "limits",
            Self::Presence => "presence",
            Self::Series => "series",
        }
    }
}

/// What a relay does beside publishing and reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u8);

impl Features {
    /// Nothing of it.
    pub const NONE: Self = Self(0);

    /// All of it.
    #[must_use]
    pub fn all() -> Self {
        Feature::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    /// Returns whether the relay does this.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }

    /// Returns these but for this one.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u8))
    }

    /// Returns these, and this one.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | (1 << feature as u8))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Feature::ALL.into_iter().filter(|feature| self.has(*feature));
        let words: Vec<_> = named.map(Feature::as_str).collect();
        f.write_str(if words.is_empty() { NONE } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// Stands for no word.
pub const NONE: &str = "none";
