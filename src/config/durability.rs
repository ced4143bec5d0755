//! How durable messages are to be whose publishers say nothing of it: for the node, and for topics.

use tidemill_proto::{Durability, TopicSelector};

use super::{Backend, ConfigError, STORAGE, Settings, Source};

/// How durable messages are to be.
#[derive(Clone, Debug, clap::Args)]
pub struct DurabilitySettings {
    /// How durable messages must be before publishers are answered who say nothing of it: `accepted` (the storage
    /// has confirmed it), `fsync` (the server has it on its disk), `replicas=N` (so many replicas have received it), or
    /// `fsync, replicas=N`
    #[arg(long, value_name = "DURABILITY", default_value = "accepted", help_heading = STORAGE)]
    #[arg(value_parser = Durability::parse)]
    pub durability: Durability,

    /// The same for topics, by their names or by patterns, as in `orders.*, jobs=fsync, replicas=1; log.*=accepted`: commas
    /// between names, semicolons between parts; the first name or pattern that matches counts
    ///
    /// At most 64 names and patterns.
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

/// Why a text is not a list of durabilities, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct DurabilityRulesError(String);

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
                if self.source("storage_backend") == Source::Default {
                    let rule = format!(
                        "asks for `{durability}`, and messages are kept in memory, as nothing says otherwise; set STORAGE_BACKEND=valkey, and name the server, as with VALKEY_URL"
                    );
                    return Err(self.breaks(setting, rule));
                }
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

/// Parses durabilities of topics: parts with semicolons between them, or as a JSON list. In front of the `=` of each stand
/// names or patterns, with commas between them.
pub(super) fn parse_durabilities(text: &str) -> Result<DurabilityRules, DurabilityRulesError> {
    let mut rules: Vec<(TopicSelector, Durability)> = Vec::new();
    let split = |_| text.split(';').map(str::to_owned).collect();
    let parts: Vec<String> = serde_json::from_str(text).unwrap_or_else(split);
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    for (number, part) in (1_usize..).zip(parts) {
        let wrong = |rule: String| DurabilityRulesError(format!("has a part {number}, `{part}`, {rule}"));
        let (topics, durability) = part.split_once('=').ok_or_else(|| {
            wrong("that has no `=`; write `orders.*=fsync`, with `;` between parts".to_owned())
        })?;
        let durability = Durability::parse(durability).map_err(|error| {
            wrong(format!("in which what stands behind the `=` {error}; between parts stands `;`"))
        })?;
        for name in topics.split(',').map(str::trim) {
            let topics = TopicSelector::parse(name)
                .map_err(|error| wrong(format!("in which the name or pattern `{name}` {error}")))?;
            if rules.iter().any(|(other, _)| *other == topics) {
                return Err(DurabilityRulesError(format!("has `{topics}` twice")));
            }
            if rules.len() == DURABILITY_RULES_MAX {
                let rule = format!("has more than {DURABILITY_RULES_MAX} names and patterns");
                return Err(DurabilityRulesError(rule));
            }
            rules.push((topics, durability));
        }
    }
    if rules.is_empty() {
        return Err(DurabilityRulesError("names no topic; write `orders.*=fsync`".to_owned()));
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
        let rules = [
            rule("orders.*", "fsync, replicas=1"),
            rule("jobs", "fsync, replicas=1"),
            rule("log", "accepted"),
        ];
        for text in [
            "orders.*,jobs=fsync, replicas=1; log=accepted",
            " orders.* , jobs = replicas=1,fsync;log = accepted ;",
            r#"["orders.*, jobs=fsync, replicas=1", "log=accepted"]"#,
        ] {
            assert_eq!(parse_durabilities(text), Ok(DurabilityRules(rules.to_vec())), "{text}");
        }
        for (text, part) in [
            ("", "names no topic"),
            (" ; ", "names no topic"),
            ("[1]", "part 1, `[1]`, that has no `=`"),
            ("fsync", "part 1, `fsync`, that has no `=`"),
            ("a=fsync; b", "part 2, `b`, that has no `=`"),
            ("a=", "behind the `=` must be `accepted`"),
            ("a=fsync; b=c", "part 2, `b=c`, in which what stands behind the `=` must be"),
            ("a=fsync, b=accepted", "between parts stands `;`"),
            ("=fsync", "the name or pattern `` is empty"),
            ("a,, b=fsync", "the name or pattern `` is empty"),
            ("a=fsync; b, a b=fsync", "part 2, `b, a b=fsync`, in which the name or pattern `a b` "),
            ("a=fsync;a=accepted", "has `a` twice"),
            ("a,a=accepted", "has `a` twice"),
        ] {
            let error = parse_durabilities(text).expect_err("it is wrong").to_string();
            assert!(error.starts_with("has ") || error.starts_with("names "), "{text}: {error}");
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = |count: usize| {
            let rules: Vec<_> = (0..count).map(|at| format!("t{at}=fsync")).collect();
            parse_durabilities(&rules.join(";")).is_ok()
        };
        assert!(many(DURABILITY_RULES_MAX) && !many(DURABILITY_RULES_MAX + 1));
    }
}
