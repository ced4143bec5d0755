//! What a relay can be switched off in, and the bounds of what waits for later.

use std::fmt;
use std::time::Duration;

use super::form::whole;
use super::limits::LIMITS;
use super::{PROCESS, Settings};
use crate::storage::{StorageLimits, TopicPolicy};

/// The settings of what waits for later, and of what can be switched off.
#[derive(Clone, Debug, clap::Args)]
pub struct FeatureSettings {
    /// What the relay does beside publishing and reading, with commas between: groups, delays; `none` for nothing of
    /// that. The paths of what is not named are not there, and its tasks do not run
    #[arg(long, value_name = "WORDS", default_value = "groups,delays", help_heading = PROCESS)]
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
}

/// What a relay does beside publishing and reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Claims of messages by groups.
    pub groups: bool,
    /// Messages for later.
    pub delays: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.groups, "groups"), (self.delays, "delays")];
        let words: Vec<_> = named.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { NONE } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// Stands for no word.
const NONE: &str = "none";

/// A text does not name features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be some of `groups` and `delays` with commas between them, or `none`")]
pub(super) struct FeaturesError;

pub(super) fn parse_features(text: &str) -> Result<Features, FeaturesError> {
    let mut features = Features { groups: false, delays: false };
    if text.trim().eq_ignore_ascii_case(NONE) {
        return Ok(features);
    }
    for word in text.split(',') {
        let is_on = match word.trim().to_ascii_lowercase().as_str() {
            "groups" => &mut features.groups,
            "delays" => &mut features.delays,
            _ => return Err(FeaturesError),
        };
        if std::mem::replace(is_on, true) {
            return Err(FeaturesError);
        }
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named() {
        for (text, groups, delays) in [
            ("groups,delays", true, true),
            ("Delays , groups", true, true),
            ("delays", false, true),
            ("groups", true, false),
            ("none", false, false),
        ] {
            let features = parse_features(text).expect(text);
            assert_eq!(features, Features { groups, delays }, "{text}");
            assert_eq!(parse_features(&features.to_string()), Ok(features));
        }
        for text in ["", ",", "delays,", "delay", "delays,delays", "none,delays"] {
            assert_eq!(parse_features(text), Err(FeaturesError), "{text:?}");
        }
    }
}
