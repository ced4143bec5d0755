//! How durable messages are to be whose publishers say nothing of it: for the node, and for topics.

use tidemill_proto::{Durability, TopicSelector};

use super::{Backend, ConfigError, STORAGE, Settings};

/// How durable messages are to be.
#[derive(Clone, Debug, clap::Args)]
pub struct DurabilitySettings {
    /// How durable messages must be before publishers are answered who say nothing of it: `accepted` (the storage
    /// has confirmed it), `fsync` (the server has it on its disk), `replicas=N` (so many replicas have received it), or
    /// `fsync, replicas=N`
    #[arg(long, value_name = "DURABILITY", default_value = "accepted", help_heading = STORAGE)]
    #[arg(value_parser = Durability::parse)]
    pub durability: Durability,

    /// The same for topics, each by its name or by a pattern, with semicolons between them, as in
    /// `orders.*=fsync, replicas=1; log.*=accepted`; the first that matches counts
    #[arg(long, value_name = "RULES", help_heading = STORAGE, value_parser = parse_durabilities)]
    pub durability_topics: Option<DurabilityRules>,
}

/// How durable the messages of topics are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurabilityRules(Vec<(TopicSelector, Durability)>);

impl DurabilityRules {
    /// Returns the rules.
    #[must_use]
    pub fn as_slice(&self) -> &[(TopicSelector, Durability)] {
        &self.0
    }
}

/// Most topics and patterns with a durability of their own: each publish looks at them.
const DURABILITY_RULES_MAX: usize = 64;

/// A text is not a list of durabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a list of durabilities; write the name of a topic or a pattern, `=` and `accepted`, `fsync`, `replicas=N` or `fsync, replicas=N`, with semicolons between them, as in `orders.*=fsync, replicas=1; log.*=accepted`, each topic once, and at most {DURABILITY_RULES_MAX}"
)]
pub(super) struct DurabilityRulesError;

impl Settings {
    /// Refuses a durability that memory never has.
    ///
    /// # Errors
    /// More than accepted is asked for, of the node or of topics, and messages are kept in memory.
    pub(super) fn check_durability(&self) -> Result<(), ConfigError> {
        let DurabilitySettings { durability, durability_topics } = &self.durability;
        let of_topics = durability_topics.iter().flat_map(DurabilityRules::as_slice);
        let wanted = [
            ("durability", (!durability.is_accepted()).then_some(*durability)),
            (
                "durability_topics",
                of_topics.map(|(_, durability)| *durability).find(|durability| !durability.is_accepted()),
            ),
        ];
        for (setting, durability) in wanted {
            if let Some(durability) = durability.filter(|_| self.storage_backend == Backend::Memory) {
                return Err(ConfigError::relation(
                    (format!("{setting} with `{durability}`"), self.source(setting)),
                    "needs a server that keeps messages (STORAGE_BACKEND=valkey), and contradicts",
                    ("storage_backend = memory".to_owned(), self.source("storage_backend")),
                ));
            }
        }
        Ok(())
    }
}

/// Parses durabilities of topics with semicolons between them, or as a JSON list.
pub(super) fn parse_durabilities(text: &str) -> Result<DurabilityRules, DurabilityRulesError> {
    let mut rules: Vec<(TopicSelector, Durability)> = Vec::new();
    let split = |_| text.split(';').map(|rule| rule.trim().to_owned()).collect();
    let list: Vec<String> = serde_json::from_str(text).unwrap_or_else(split);
    for rule in list {
        let (topics, durability) = rule.split_once('=').ok_or(DurabilityRulesError)?;
        let topics = TopicSelector::parse(topics.trim()).map_err(|_| DurabilityRulesError)?;
        let durability = Durability::parse(durability).map_err(|_| DurabilityRulesError)?;
        if rules.len() == DURABILITY_RULES_MAX || rules.iter().any(|(other, _)| *other == topics) {
            return Err(DurabilityRulesError);
        }
        rules.push((topics, durability));
    }
    Ok(DurabilityRules(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durabilities_are_read_in_their_order() {
        let rule = |topics, durability| {
            let durability = Durability::parse(durability).expect("a durability");
            (TopicSelector::parse(topics).expect("a selector"), durability)
        };
        let rules = vec![rule("orders.*", "fsync, replicas=1"), rule("log", "accepted")];
        for text in [
            "orders.*=fsync, replicas=1; log=accepted",
            " orders.* = replicas=1,fsync;log = accepted ",
            r#"["orders.*=fsync, replicas=1", "log=accepted"]"#,
        ] {
            assert_eq!(parse_durabilities(text), Ok(DurabilityRules(rules.clone())), "{text}");
        }
        for text in ["", "fsync", "a=", "a=b", "=fsync", "a=fsync;", "a=fsync;a=accepted", "a b=fsync", "[1]"]
        {
            assert_eq!(parse_durabilities(text), Err(DurabilityRulesError), "{text}");
        }
        let many = |count: usize| {
            let rules: Vec<_> = (0..count).map(|at| format!("t{at}=fsync")).collect();
            parse_durabilities(&rules.join(";")).is_ok()
        };
        assert!(many(DURABILITY_RULES_MAX) && !many(DURABILITY_RULES_MAX + 1));
    }
}
