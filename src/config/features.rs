//! What a relay can be switched off in, and the bounds of it.

use std::time::Duration;

use super::form::{ApplicationLimitsAway, parse_bytes, whole};
use super::limits::LIMITS;
use super::{PROCESS, Settings};
use crate::features::{Feature, Features, NONE};
use crate::storage::{StorageLimits, TopicPolicy};

/// All that can be switched off.
const ALL: &str = "groups,delays,keys,locks,limits,presence,series";

/// The settings of what can be switched off, and its bounds.
#[derive(Clone, Debug, clap::Args)]
pub struct FeatureSettings {
    /// What the relay does beside publishing and reading, with commas between: groups, delays, keys, locks, limits,
    /// presence, series; `none` for nothing of that. The paths of what is not named are not there, and its tasks do not run
    #[arg(long, value_name = "WORDS", default_value = ALL, help_heading = PROCESS)]
    #[arg(value_parser = parse_features)]
    pub features: Features,

    /// Most messages that wait for later in all topics together; about, where several nodes schedule at once
    #[arg(long, value_name = "COUNT", default_value = "2000000", help_heading = LIMITS)]
    #[arg(value_parser = whole::<u64>(1..=1_000_000_000))]
    pub schedules_max: u64,

    /// Most messages that wait for later in one topic
    #[arg(long, value_name = "COUNT", default_value = "1000000", help_heading = LIMITS)]
    #[arg(value_parser = whole::<u64>(1..=1_000_000_000))]
    pub topic_schedules_max: u64,

    /// Most buckets of keys
    #[arg(long, value_name = "COUNT", default_value = "10000", help_heading = LIMITS)]
    #[arg(value_parser = whole::<u64>(1..=1_000_000))]
    pub buckets_max: u64,

    /// How long a connection stays a member of its room when its node does not say any more that it is there: that is how
    /// late it leaves when a node is killed
    #[arg(long, value_name = "MS", default_value = "15000", help_heading = PROCESS)]
    #[arg(value_parser = whole::<u64>(1_000..=3_600_000))]
    pub presence_ttl_ms: u64,

    /// How long a connection that has closed stays a member of its room; who comes back under its name in that time, as
    /// when nodes are restarted one after the other, has never left. 0 is not at all
    #[arg(long, value_name = "MS", default_value = "5000", help_heading = PROCESS)]
    #[arg(value_parser = whole::<u64>(0..=3_600_000))]
    pub presence_grace_ms: u64,
    /// Largest value of a key
    ///
    /// Up to 512MiB.
    #[arg(long, value_name = "BYTES", default_value = "1MiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub value_bytes_max: usize,

    /// What becomes of limits of applications while the storage cannot be asked: each node counts by itself, nothing
    /// passes, or everything does. The answer says that it is so
    #[arg(long, value_name = "WHAT", default_value = "alone", help_heading = LIMITS, ignore_case = true)]
    pub application_limits_away: ApplicationLimitsAway,
}

/// A text does not name features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be some of `groups`, `delays`, `keys`, `locks`, `limits`, `presence` and `series` with commas between them, or `none`"
)]
pub(super) struct FeaturesError;

pub(super) fn parse_features(text: &str) -> Result<Features, FeaturesError> {
    let mut features = Features::NONE;
    if text.trim().eq_ignore_ascii_case(NONE) {
        return Ok(features);
    }
    for word in text.split(',') {
        let word = word.trim().to_ascii_lowercase();
        let named = Feature::ALL.into_iter().find(|feature| feature.as_str() == word);
        let named = named.filter(|feature| !features.has(*feature)).ok_or(FeaturesError)?;
        features = features.with(named);
    }
    Ok(features)
}

impl Settings {
    /// Returns what a topic keeps.
    #[must_use]
    pub const fn topic_policy(&self) -> TopicPolicy {
        TopicPolicy::newest(self.max_messages_per_topic)
    }

    /// Returns the bounds that a backend keeps.
    #[must_use]
    pub fn storage_limits(&self) -> StorageLimits {
        let retention = Duration::from_secs(self.persistent_tier_retention);
        StorageLimits {
            retention: Some(retention).filter(|retention| !retention.is_zero()),
            topics_max: self.topics_max,
            idempotency_window: Duration::from_secs(self.idempotency_window_seconds),
            schedules_max: self.beside.schedules_max,
            topic_schedules_max: self.beside.topic_schedules_max,
            buckets_max: self.beside.buckets_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named() {
        let of = |features: &[Feature]| features.iter().fold(Features::NONE, |all, one| all.with(*one));
        for (text, features) in [
            (ALL, Features::all()),
            ("Delays , groups", of(&[Feature::Groups, Feature::Delays])),
            ("keys", of(&[Feature::Keys])),
            ("none", Features::NONE),
        ] {
            assert_eq!(parse_features(text), Ok(features), "{text}");
            assert_eq!(parse_features(&features.to_string()), Ok(features));
        }
        assert_eq!(Features::all().to_string(), ALL);
        for text in ["", ",", "delays,", "delay", "delays,delays", "none,delays"] {
            assert_eq!(parse_features(text), Err(FeaturesError), "{text:?}");
        }
    }
}
